//! What a fiber waits for, in words: asked for only by a dump.

use std::fmt;

/// What a parked fiber waits for, as a [dump](crate::dump) has it: an operation, and what it is done to.
///
/// Nothing of it exists before a dump asks: see [`wait_telling`](crate::wait_telling) and
/// [`Pollable::reason`](crate::Pollable::reason).
///
/// # Examples
///
/// ```
/// use ringspun_fibers::WaitReason;
///
/// let reason = WaitReason::new("take from", "the queue of jobs");
/// assert_eq!(reason.operation(), "take from");
/// assert_eq!(reason.to_string(), "take from the queue of jobs");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WaitReason {
    operation: &'static str,
    object: String,
}

impl WaitReason {
    /// A wait for `operation` on `object`, which may be empty.
    pub fn new(operation: &'static str, object: impl fmt::Display) -> Self {
        Self { operation, object: object.to_string() }
    }

    /// A wait whose code does not say what it is for.
    pub(crate) fn unknown() -> Self {
        Self::new("something that does not tell its name", "")
    }

    /// What the fiber does, such as `read from`.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// What it is done to, such as an address; may be empty.
    pub fn object(&self) -> &str {
        &self.object
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.object.is_empty() { "" } else { " " };
        write!(f, "{}{separator}{}", self.operation, self.object)
    }
}

/// The name of a type without the paths in it, for objects that have no other name.
pub(crate) fn short_name<T: ?Sized>() -> String {
    let name = std::any::type_name::<T>();
    let mut short = String::new();
    let mut part = 0;
    for (at, character) in name.char_indices() {
        match character {
            ':' => part = at + 1,
            '<' | '>' | ',' | ' ' | '(' | ')' | '[' | ']' | '&' | ';' => {
                short.push_str(&name[part..=at]);
                part = at + character.len_utf8();
            }
            _ => {}
        }
    }
    short.push_str(&name[part..]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_types_have_no_paths() {
        assert_eq!(short_name::<u32>(), "u32");
        assert_eq!(short_name::<Vec<std::rc::Rc<str>>>(), "Vec<Rc<str>>");
        assert_eq!(short_name::<(String, Option<&[u8]>)>(), "(String, Option<&[u8]>)");
    }
}
