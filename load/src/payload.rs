//! What messages contain: bytes made here, of sizes that may differ, or bytes that were given.

use std::fmt;
use std::str::FromStr;

use crate::quantity::parse_count;

/// What sizes look like, for messages.
const FORM: &str = "expected bytes such as 64, a range such as 64-1024, or shares such as 64:90%,4k:10%";
/// A request stands at one of this many places among the shares, which are in percent.
const PLACES: usize = 100;
/// Steps from each place to that of the next request. Without a common divisor with the number of places, so
/// that all are visited; near the golden section of it, so that those of one share lie far apart.
const PLACE_STEP: usize = 61;

/// What the messages of a workload contain.
///
/// # Examples
///
/// ```
/// use ringspun_load::Payload;
///
/// let sizes = "64:90%,1k-4k:10%".parse().unwrap();
/// assert_eq!(Payload::Generated(sizes).max_bytes(), 4000);
/// assert_eq!(Payload::from(64).max_bytes(), 64);
/// assert_eq!(Payload::Given(b"PING\r\n".to_vec()).max_bytes(), 6);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Bytes that differ from each message to the next, of these sizes.
    Generated(Sizes),
    /// These bytes, in every message. In an echo, the answer to another request is not told from the right one.
    Given(Vec<u8>),
}

impl From<usize> for Payload {
    /// Messages that are all this long, in bytes.
    fn from(bytes: usize) -> Self {
        Self::Generated(Sizes::from(bytes))
    }
}

impl Payload {
    /// How long the shortest message is, in bytes.
    pub fn min_bytes(&self) -> usize {
        match self {
            Self::Generated(sizes) => sizes.shares.iter().map(|share| share.min_bytes).min().unwrap_or(0),
            Self::Given(bytes) => bytes.len(),
        }
    }

    /// How long the longest message is, in bytes.
    pub fn max_bytes(&self) -> usize {
        match self {
            Self::Generated(sizes) => sizes.shares.iter().map(|share| share.max_bytes).max().unwrap_or(0),
            Self::Given(bytes) => bytes.len(),
        }
    }
}

/// Sizes of messages in bytes: `64`, evenly from a range as in `64-1024`, or with shares in percent as in
/// `64:90%,4k:10%`, where a range may stand as well. `k` is a thousand.
///
/// Which message has which size is the same in every run. Of 100 requests in turn on a connection, each share
/// has exactly its percentage, spread evenly.
///
/// # Examples
///
/// ```
/// use ringspun_load::Sizes;
///
/// let sizes: Sizes = "64:90%,1k-4k:10%".parse().unwrap();
/// assert_eq!(sizes.to_string(), "64:90%,1000-4000:10%");
/// assert!("64:90%".parse::<Sizes>().unwrap_err().contains("expected 100 %"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// At least one; the percentages are 100 together.
    shares: Vec<Share>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    min_bytes: usize,
    max_bytes: usize,
    percent: usize,
}

impl From<usize> for Sizes {
    /// Only this size, in bytes.
    fn from(bytes: usize) -> Self {
        Self { shares: vec![Share { min_bytes: bytes, max_bytes: bytes, percent: PLACES }] }
    }
}

impl FromStr for Sizes {
    type Err = String;

    /// The error says what is wrong and what was expected; whoever asked names the value in front of it.
    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains(':') && !text.contains(',') {
            return Ok(Self { shares: vec![parse_share(text, PLACES)?] });
        }
        let shares = text.split(',').map(|part| {
            let (sizes, percent) = part.split_once(':').ok_or(FORM)?;
            let percent = percent.strip_suffix('%').and_then(|percent| percent.parse().ok());
            match percent {
                Some(percent @ 1..=PLACES) => parse_share(sizes, percent),
                _ => Err(format!("{part:?} has no share from 1% to 100%, {FORM}")),
            }
        });
        let shares = shares.collect::<Result<Vec<_>, String>>()?;
        match shares.iter().map(|share| share.percent).sum() {
            PLACES => Ok(Self { shares }),
            sum => Err(format!("the shares are {sum} % together: expected 100 %")),
        }
    }
}

fn parse_share(text: &str, percent: usize) -> Result<Share, String> {
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    let bytes = |text| parse_count(text).ok().and_then(|bytes| usize::try_from(bytes).ok());
    let (min_bytes, max_bytes) = bytes(min).zip(bytes(max)).ok_or(FORM)?;
    if min_bytes > max_bytes {
        return Err(format!("a range from {min_bytes} to {max_bytes} bytes: expected the smaller one first"));
    }
    Ok(Share { min_bytes, max_bytes, percent })
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, share) in self.shares.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}", share.min_bytes)?;
            if share.max_bytes > share.min_bytes {
                write!(f, "-{}", share.max_bytes)?;
            }
            if self.shares.len() > 1 {
                write!(f, ":{}%", share.percent)?;
            }
        }
        Ok(())
    }
}

impl Sizes {
    /// The size of a request's message, by its number, in bytes.
    pub(crate) fn bytes_of(&self, request: usize) -> usize {
        let mut place = request.wrapping_mul(PLACE_STEP) % PLACES;
        for share in &self.shares {
            if place < share.percent {
                return share.bytes_of(request);
            }
            place -= share.percent;
        }
        // The shares cover all places.
        self.shares.last().map_or(0, |share| share.max_bytes)
    }
}

impl Share {
    fn bytes_of(self, request: usize) -> usize {
        let sizes = (self.max_bytes - self.min_bytes) as u128 + 1;
        self.min_bytes + ((u128::from(mix(request as u64)) * sizes) >> u64::BITS) as usize
    }
}

/// Makes neighbouring numbers as different as random ones (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(text: &str) -> Sizes {
        text.parse().unwrap()
    }

    #[test]
    fn sizes_read_back_as_they_are_written() {
        for text in ["64", "64-1024", "64:90%,4000:10%", "1:1%,2-3:98%,5:1%"] {
            assert_eq!(sizes(text).to_string(), text);
        }
        assert_eq!(sizes("1k-4k"), sizes("1000-4000"));
        assert_eq!(sizes("64"), Sizes::from(64));
    }

    #[test]
    fn what_is_no_size_gets_what_was_expected() {
        for text in [
            "",
            "x",
            "-5",
            "5-",
            "64-",
            "1-2-3",
            "64,65",
            "64:90%,4k",
            "64:90,4k:10",
            "64:0%,4k:100%",
            "64:50.5%,4k:49.5%",
            "64:101%",
        ] {
            let error = text.parse::<Sizes>().unwrap_err();
            assert!(error.contains("expected bytes such as 64"), "{text}: {error}");
        }
        assert_eq!(
            "9-8".parse::<Sizes>().unwrap_err(),
            "a range from 9 to 8 bytes: expected the smaller one first"
        );
        let error = "64:90%,4k:11%".parse::<Sizes>().unwrap_err();
        assert_eq!(error, "the shares are 101 % together: expected 100 %");
    }

    #[test]
    fn each_hundred_requests_have_exactly_the_shares() {
        let sizes = sizes("10:89%,20:10%,30:1%");
        for start in [0, 1, 57, 12_345] {
            let count =
                |bytes| (start..start + 100).filter(|number| sizes.bytes_of(*number) == bytes).count();
            assert_eq!([10, 20, 30].map(count), [89, 10, 1], "from {start}");
        }
        // Not all of the rare ones at once.
        let gaps: Vec<usize> = (0..1000).filter(|number| sizes.bytes_of(*number) == 20).collect();
        assert!(gaps.windows(2).all(|pair| (5..=20).contains(&(pair[1] - pair[0]))), "{gaps:?}");
    }

    #[test]
    fn a_range_is_used_evenly_with_both_ends() {
        let sizes = sizes("5-8");
        let count = |bytes| (0..40_000).filter(|number| sizes.bytes_of(*number) == bytes).count();
        for bytes in 5..=8 {
            assert!(count(bytes).abs_diff(10_000) < 400, "{bytes}: {}", count(bytes));
        }
        let wide = Sizes { shares: vec![Share { min_bytes: 0, max_bytes: usize::MAX, percent: 100 }] };
        assert!((0..100).any(|number| wide.bytes_of(number) > usize::MAX / 2));
    }

    #[test]
    fn the_sequence_is_the_same_in_every_run() {
        let sizes = sizes("1-1000000");
        let first: Vec<usize> = (0..3).map(|number| sizes.bytes_of(number)).collect();
        assert_eq!(first, [883_311, 431_528, 26_434]);
    }
}
