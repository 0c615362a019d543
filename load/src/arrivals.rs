//! How the requests of an open loop are spread: evenly, or as independent users send them.
//!
//! A schedule counts in requests: at a constant or changing rate, request `n` is due once `n` requests' worth of time
//! has passed. Evenly, that is all. As a Poisson process, the requests of a block lie at independent, uniformly
//! distributed places in it, in their order (Kingman, *Poisson Processes*, section 2.4: what a Poisson process is,
//! given the number of its points). So each block has exactly as many requests as the rate says, and each request has a
//! time of its own that does not depend on when somebody asks for it.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use crate::payload::mix;

/// How the requests of an open loop follow each other.
///
/// # Examples
///
/// ```
/// use ringspun_load::Arrivals;
///
/// assert_eq!("even".parse(), Ok(Arrivals::Even));
/// assert_eq!(Arrivals::default().to_string(), "poisson");
/// let error = "sometimes".parse::<Arrivals>().unwrap_err();
/// assert_eq!(error, "sometimes: expected poisson or even");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// At random, independently of each other, as from many users: queues form as in production, also below the rate
    /// that the target can take. In blocks of 4,096 requests the number is that of the rate.
    #[default]
    Poisson,
    /// At equal distances: the schedule that is kindest to the target. Queues form only above the rate it can take.
    Even,
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Poisson => "poisson",
            Self::Even => "even",
        })
    }
}

impl FromStr for Arrivals {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "poisson" => Ok(Self::Poisson),
            "even" => Ok(Self::Even),
            _ => Err(format!("{text}: expected poisson or even")),
        }
    }
}

/// A number of requests and a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) whole: u64,
    /// In parts of [`Position::ONE`].
    pub(crate) part: u32,
}

impl Position {
    /// The parts of a request.
    pub(crate) const ONE: u32 = 1 << 16;

    pub(crate) fn whole(whole: u64) -> Self {
        Self { whole, part: 0 }
    }

    /// The number of requests that begin before it.
    pub(crate) fn round_up(self) -> u64 {
        self.whole.saturating_add(u64::from(self.part > 0))
    }
}

/// Requests per block. Large beside the time in which a queue forgets (about `1 / (1 - utilization)^2` requests), and
/// small enough to be made between two requests.
pub(crate) const BLOCK: u64 = 4096;

/// Where the requests of a stage are.
#[derive(Clone, Debug)]
pub(crate) enum Spread {
    Even,
    Poisson(Blocks),
}

/// The places of requests in blocks, of which the two that were used last are kept: one may be asked for the end of a
/// block and the beginning of the next in turn.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    seed: u64,
    /// The end of the last block.
    end: Position,
    kept: RefCell<[Option<Rc<Block>>; 2]>,
}

#[derive(Debug)]
struct Block {
    number: u64,
    /// In parts of a request, ascending.
    places: Box<[u32]>,
}

impl Spread {
    /// For a stage that ends there. Of its last request only a part may fit in.
    pub(crate) fn new(arrivals: Arrivals, seed: u64, end: Position) -> Self {
        match arrivals {
            Arrivals::Even => Self::Even,
            Arrivals::Poisson => Self::Poisson(Blocks { seed, end, kept: RefCell::default() }),
        }
    }

    /// Where a request is. Those beyond the stage's are at even distances.
    #[inline]
    pub(crate) fn position(&self, request: u64) -> Position {
        match self {
            Self::Even => Position::whole(request),
            Self::Poisson(blocks) => blocks.position(request),
        }
    }

    /// How many requests are due, if of even ones `even` are. `is_due` is true up to some position.
    pub(crate) fn count(&self, even: u64, is_due: impl Fn(Position) -> bool) -> u64 {
        match self {
            Self::Poisson(blocks) if even > 0 && even <= blocks.end.round_up() => {
                let start = (even - 1) / BLOCK * BLOCK;
                let block = blocks.block(start / BLOCK);
                let is_due = |place: &u32| is_due(block.position_of(*place));
                start + block.places.partition_point(is_due) as u64
            }
            _ => even,
        }
    }
}

impl Blocks {
    fn position(&self, request: u64) -> Position {
        if request >= self.end.round_up() {
            return Position::whole(request);
        }
        let block = self.block(request / BLOCK);
        // The remainder is below the block's size.
        block.position_of(block.places[(request % BLOCK) as usize])
    }

    fn block(&self, number: u64) -> Rc<Block> {
        let [newer, older] = &mut *self.kept.borrow_mut();
        if let Some(block) = [&*newer, &*older].into_iter().flatten().find(|block| block.number == number) {
            return block.clone();
        }
        let block = Rc::new(self.make(number));
        *older = newer.replace(block.clone());
        block
    }

    /// Uniformly distributed places in order: sums of exponentially distributed distances, scaled to the block.
    #[cold]
    fn make(&self, number: u64) -> Block {
        let start = number * BLOCK;
        let size = (self.end.round_up() - start).min(BLOCK);
        let first = mix(self.seed ^ mix(number));
        let mut sum = 0.0;
        let sums = (0..=size).map(|index| {
            sum += exponential(mix(first.wrapping_add(index)));
            sum
        });
        let sums: Vec<f64> = sums.collect();
        let ends_within = start + size > self.end.whole;
        let parts = match ends_within {
            true => (size - 1) as u32 * Position::ONE + self.end.part,
            false => size as u32 * Position::ONE,
        };
        let places = sums[..size as usize].iter().map(|place| (place / sum * f64::from(parts)) as u32);
        // Rounding must not bring one into the next block.
        let places = places.map(|place| place.min(parts - 1));
        Block { number, places: places.collect() }
    }
}

impl Block {
    fn position_of(&self, place: u32) -> Position {
        Position {
            whole: self.number * BLOCK + u64::from(place / Position::ONE),
            part: place % Position::ONE,
        }
    }
}

/// An exponentially distributed number with a mean of 1, of 64 random bits.
fn exponential(random: u64) -> f64 {
    // 53 bits, and never 0.
    let uniform = ((random >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    -uniform.ln()
}
