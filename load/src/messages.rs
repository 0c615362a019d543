//! The bytes that are sent: slices of one buffer, so that requests do not allocate.

use crate::payload::{Payload, Sizes};

/// Generated messages start at this many different offsets in the pattern: a prime, so that errors at powers of
/// two, as in a server's buffers, are detected.
const STARTS: usize = 251;

/// The bytes of all messages. Consecutive generated messages start at different offsets, so that an echo of an
/// earlier request is detected without copying or keeping anything per connection.
pub(crate) struct Messages {
    bytes: Vec<u8>,
    choice: Choice,
}

enum Choice {
    /// All bytes, always.
    All,
    /// This many bytes, from varying offsets.
    Fixed(usize),
    Sized(Sizes),
}

impl Messages {
    /// Generated messages are printable ASCII.
    #[cfg(feature = "websocket")]
    pub(crate) fn text(payload: &Payload) -> Self {
        let mut messages = Self::new(payload);
        if let Payload::Generated(_) = payload {
            messages.bytes.iter_mut().for_each(|byte| *byte = b'!' + *byte % 94);
        }
        messages
    }

    pub(crate) fn new(payload: &Payload) -> Self {
        let max_bytes = payload.max_bytes();
        let choice = match payload {
            Payload::Given(bytes) => return Self { bytes: bytes.clone(), choice: Choice::All },
            Payload::Generated(_) if payload.min_bytes() == max_bytes => Choice::Fixed(max_bytes),
            Payload::Generated(sizes) => Choice::Sized(sizes.clone()),
        };
        // Each period is shifted against the one before: a periodic message would hide lost bytes.
        let byte_at = |position: usize| ((position % STARTS) + 7 * (position / STARTS)) as u8;
        Self { bytes: (0..max_bytes + STARTS).map(byte_at).collect(), choice }
    }

    /// The message for a request number.
    #[inline]
    pub(crate) fn message(&self, request: usize) -> &[u8] {
        let length = match &self.choice {
            Choice::All => return &self.bytes,
            Choice::Fixed(length) => *length,
            Choice::Sized(sizes) => sizes.bytes_of(request),
        };
        let start = request % STARTS;
        &self.bytes[start..start + length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_differ_from_their_neighbours_and_within() {
        for message_bytes in [1, 2, 64, 1000, 65_536] {
            let messages = Messages::new(&message_bytes.into());
            for request in 0..2 * STARTS {
                assert_eq!(messages.message(request).len(), message_bytes);
                for later in 1..STARTS {
                    assert_ne!(messages.message(request), messages.message(request + later));
                }
            }
        }
        // Bytes lost anywhere in a message change what follows.
        let messages = Messages::new(&10_000.into());
        let message = messages.message(3);
        for lost in 1..5_000 {
            assert_ne!(message[lost..], message[..message.len() - lost]);
        }
    }

    #[test]
    fn messages_have_the_sizes_or_the_bytes_that_were_asked_for() {
        let sizes: Sizes = "1-9:50%,1k:50%".parse().unwrap();
        let messages = Messages::new(&Payload::Generated(sizes.clone()));
        for request in 0..1000 {
            assert_eq!(messages.message(request).len(), sizes.bytes_of(request));
        }
        let given = Messages::new(&Payload::Given(b"PING".to_vec()));
        assert_eq!((given.message(0), given.message(77)), (&b"PING"[..], &b"PING"[..]));
    }
}
