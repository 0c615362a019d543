//! Random numbers and the time from a seed, so that a session in a simulation encrypts to the same bytes each time.
//!
//! Seeded are random numbers in messages, keys of the key exchange, which is X25519 alone, and the time. Tickets are
//! not encrypted. Signatures repeat if the key is an Ed25519 key, as others sign with random numbers of AWS-LC's own.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use ringspun_runtime::simulation::Random;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, Error, NamedGroup, ServerConfig};

/// The time in a simulation: in 2033.
const NOW: Duration = Duration::from_secs(2_000_000_000);

thread_local! {
    static RANDOM: RefCell<Option<Random>> = const { RefCell::new(None) };
}

/// From now on, configurations that are built on this thread, and their sessions, take what is random from this seed.
/// Sessions of theirs need to stay on it.
pub fn seed(seed: u64) {
    RANDOM.set(Some(Random::new(seed)));
}

fn is_seeded() -> bool {
    RANDOM.with_borrow(Option::is_some)
}

pub(crate) fn provider() -> Option<Arc<CryptoProvider>> {
    is_seeded().then(|| {
        Arc::new(CryptoProvider {
            kx_groups: vec![&Seeded],
            secure_random: &Seeded,
            ..rustls::crypto::aws_lc_rs::default_provider()
        })
    })
}

pub(crate) fn change_client(config: &mut ClientConfig) {
    if is_seeded() {
        config.time_provider = Arc::new(Seeded);
    }
}

pub(crate) fn change_server(config: &mut ServerConfig) {
    if is_seeded() {
        config.time_provider = Arc::new(Seeded);
        if config.ticketer.enabled() {
            config.ticketer = Arc::new(Seeded);
        }
    }
}

#[derive(Debug)]
struct Seeded;

impl SecureRandom for Seeded {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        RANDOM.with_borrow_mut(|random| {
            let random = random.as_mut().ok_or(GetRandomFailed)?;
            for chunk in buffer.chunks_mut(size_of::<u64>()) {
                chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
            }
            Ok(())
        })
    }
}

impl TimeProvider for Seeded {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(NOW))
    }
}

impl ProducesTickets for Seeded {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        3600
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        Some(plain.to_vec())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        Some(cipher.to_vec())
    }
}

impl SupportedKxGroup for Seeded {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut bytes = [0; 32];
        self.fill(&mut bytes)?;
        let refused = |_| Error::General("AWS-LC refuses a key of X25519".to_string());
        let private = PrivateKey::from_private_key(&X25519, &bytes)
            .map_err(|error| Error::General(error.to_string()))?;
        let public = private.compute_public_key().map_err(refused)?.as_ref().to_vec();
        Ok(Box::new(Exchange { private, public }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// One side of a key exchange.
struct Exchange {
    private: PrivateKey,
    public: Vec<u8>,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let refused = Error::General("AWS-LC refuses the peer's key".to_string());
        agree(&self.private, UnparsedPublicKey::new(&X25519, peer), refused, |secret| {
            Ok(SharedSecret::from(secret))
        })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
