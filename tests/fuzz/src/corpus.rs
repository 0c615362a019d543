//! The committed inputs of a target.

use std::fs;
use std::path::Path;

/// Checks each, and says which one it was if that panics.
pub fn check(target: &str, check: fn(&[u8])) {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let inputs = |root: &Path| fs::read_dir(root.join("tests/fuzz/corpus").join(target));
    // The crates stand in the folder of the project.
    let inputs = inputs(crate_root).or_else(|_| inputs(&crate_root.join(".."))).unwrap();
    let mut count = 0;
    for input in inputs {
        let path = input.unwrap().path();
        let data = fs::read(&path).unwrap();
        assert!(data.len() <= 1024, "{}: {} bytes, expected 1024 at most", path.display(), data.len());
        let name = path.display().to_string();
        let ended = std::panic::catch_unwind(|| check(&data));
        assert!(ended.is_ok(), "{name} breaks what it should hold to");
        count += 1;
    }
    assert!((1..=20).contains(&count), "{count} inputs for {target}, expected 1 to 20");
}
