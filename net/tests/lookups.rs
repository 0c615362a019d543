//! Names are looked up at once, whatever blocks elsewhere.

use std::sync::{Arc, Mutex, mpsc};

use ringspun_fibers as fibers;
use ringspun_net as net;
use ringspun_runtime::BlockingKind;

#[test]
fn a_lookup_does_not_queue_behind_files() {
    fibers::run(|| {
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = Arc::new(Mutex::new(blocked));
        let files: Vec<_> = (0..2 * BlockingKind::Other.threads_max())
            .map(|_| {
                let blocked = blocked.clone();
                fibers::spawn(move || fibers::blocking(move || blocked.lock().unwrap().recv().is_err()))
                    .unwrap()
            })
            .collect();
        fibers::yield_now().unwrap();
        // None of the calls ends before this.
        assert_eq!(net::address("localhost:80").unwrap().port(), Some(80));
        drop(release);
        assert!(files.into_iter().all(|file| file.join().unwrap().unwrap()));
    })
    .unwrap();
}

#[test]
fn a_name_with_a_zero_byte_is_invalid() {
    fibers::run(|| {
        for name in [("a\0b", "80"), ("localhost", "http\0")] {
            let endpoint = net::Endpoint::new(name.0, name.1);
            let error = net::addresses(&endpoint).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains("expected a name without a zero byte"), "{error}");
            assert_eq!(net::connect(&endpoint).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        }
    })
    .unwrap();
}
