//! How the end of a response is found in protocols other than echo and HTTP.

use std::fmt;

/// The maximum length of a delimiter, in bytes.
pub const DELIMITER_MAX_BYTES: usize = 1024;

/// How the end of a response is found. Over UDP each datagram is a response, which must have this length or
/// end with this delimiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A response has this many bytes, at least one.
    Length(u64),
    /// A response ends with these bytes, 1 to [`DELIMITER_MAX_BYTES`].
    Delimiter(Vec<u8>),
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(bytes) => write!(f, "{bytes} bytes"),
            Self::Delimiter(delimiter) => write!(f, "bytes up to \"{}\"", delimiter.escape_ascii()),
        }
    }
}

impl Framing {
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Length(0) => Err("the length of responses is 0 bytes: expected 1 or more".to_string()),
            Self::Delimiter(delimiter) if !(1..=DELIMITER_MAX_BYTES).contains(&delimiter.len()) => Err(
                format!("the delimiter has {} bytes: expected 1 to {DELIMITER_MAX_BYTES}", delimiter.len()),
            ),
            _ => Ok(()),
        }
    }
}

/// Finds a delimiter in bytes that arrive in pieces (Knuth-Morris-Pratt).
pub(crate) struct Delimiter {
    bytes: Vec<u8>,
    /// The failure function: for each length of a match, the length of its longest proper border.
    shorter: Vec<usize>,
}

impl Delimiter {
    /// `bytes` must not be empty.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let mut delimiter = Self { shorter: vec![0; bytes.len() + 1], bytes };
        let mut matched = 0;
        for length in 1..delimiter.bytes.len() {
            matched = delimiter.advance(matched, delimiter.bytes[length]);
            delimiter.shorter[length + 1] = matched;
        }
        delimiter
    }

    /// The length of the match after one more byte. `matched` is less than the delimiter's length.
    fn advance(&self, mut matched: usize, byte: u8) -> usize {
        while self.bytes[matched] != byte {
            if matched == 0 {
                return 0;
            }
            matched = self.shorter[matched];
        }
        matched + 1
    }

    /// The position after the delimiter, or `None` if it does not end in these bytes. `matched` carries the
    /// length of the match from one piece to the next; it starts at zero.
    pub(crate) fn find_end(&self, matched: &mut usize, bytes: &[u8]) -> Option<usize> {
        let mut position = 0;
        while let Some(byte) = bytes.get(position) {
            position += 1;
            // Skip quickly to the next byte that can begin a match.
            if *matched == 0 && *byte != self.bytes[0] {
                position += bytes[position..].iter().position(|byte| *byte == self.bytes[0])?;
                continue;
            }
            *matched = self.advance(*matched, *byte);
            if *matched == self.bytes.len() {
                return Some(position);
            }
        }
        None
    }

    /// Whether the bytes end with the delimiter.
    pub(crate) fn ends(&self, bytes: &[u8]) -> bool {
        bytes.ends_with(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delimiter_is_found_wherever_its_pieces_end() {
        for (delimiter, text) in [
            ("\n", "a line\n"),
            ("\r\n", "\r\r\n"),
            ("\r\n\r\n", "a\r\nb\r\r\n\r\r\n\r\n"),
            ("aab", "aaaaab"),
            ("abacabad", "abacabacabad"),
            ("\n", "\n"),
        ] {
            let bytes = [text.as_bytes(), b"behind"].concat();
            let delimiter = Delimiter::new(delimiter.as_bytes().to_vec());
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let mut matched = 0;
                    for piece in [&bytes[..first], &bytes[first..second]] {
                        let end = delimiter.find_end(&mut matched, piece);
                        assert!(end.is_none() || second == text.len(), "{text:?} {first} {second}");
                    }
                    if second < text.len() {
                        let end = delimiter.find_end(&mut matched, &bytes[second..]);
                        assert_eq!(end, Some(text.len() - second), "{text:?} {first} {second}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_delimiter_that_does_not_come_is_not_found() {
        let delimiter = Delimiter::new(b"\r\n".to_vec());
        let mut matched = 0;
        assert_eq!(delimiter.find_end(&mut matched, b"no end\r"), None);
        assert_eq!(delimiter.find_end(&mut matched, b"\r \n"), None);
        assert_eq!(matched, 0);
    }
}
