//! A program embeds Ringspun without the Janet VM: no C compiler, no libclang, and none of the crates
//! that would need them.

use std::collections::BTreeSet;
use std::io;
use std::process::Command;

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/embed/Cargo.toml");
const TARGET_DIRECTORY: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/embed");

/// What brings C, and what only the `ringspun` binary needs.
const UNWANTED: [&str; 6] = ["evil-janet", "bindgen", "clang-sys", "cc", "ringspun-janet", "clap"];

/// Runs a cargo command on the embedding program, where every C compiler and libclang fails, and returns
/// what it prints. Goes to the registry only for crates that are not on this machine yet.
fn cargo(arguments: &[&str]) -> io::Result<String> {
    let run = |network: &[&str]| {
        Command::new(env!("CARGO"))
            .args(arguments)
            .args(["--locked", "--manifest-path", MANIFEST])
            .args(network)
            .env("CARGO_TARGET_DIR", TARGET_DIRECTORY)
            // Crates that compile C ask for it here. The linker is found by its name, not by these.
            .env("CC", "/bin/false")
            .env("CXX", "/bin/false")
            .env("LIBCLANG_PATH", "/nonexistent")
            .env_remove("CFLAGS")
            .output()
    };
    let mut output = run(&["--offline"])?;
    if !output.status.success() {
        output = run(&[])?;
    }
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}\n{}\
         if only its lock file is out of date: cargo metadata --manifest-path {MANIFEST}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).map_err(io::Error::other)
}

#[test]
fn without_its_default_features_the_facade_brings_no_c_and_no_command_line() -> io::Result<()> {
    let tree = cargo(&["tree", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"])?;
    let names: BTreeSet<_> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for wanted in ["embed", "ringspun", "ringspun-net", "ringspun-fibers", "ringspun-runtime"] {
        assert!(names.contains(wanted), "{wanted} is missing, so this looks at the wrong tree: {names:?}");
    }
    for unwanted in UNWANTED {
        assert!(!names.contains(unwanted), "{unwanted} came in: {names:?}");
    }
    Ok(())
}

/// Otherwise a crate that was renamed would count as absent.
#[test]
fn the_unwanted_crates_are_called_that() {
    let lock = include_str!("../../Cargo.lock");
    for unwanted in UNWANTED {
        let entry = format!("name = \"{unwanted}\"\n");
        assert!(lock.contains(&entry), "the workspace has no {unwanted}: is it called otherwise now?");
    }
}

#[test]
fn an_embedding_program_builds_and_runs_where_no_c_can_be_compiled() -> io::Result<()> {
    let printed = cargo(&["run", "--quiet"])?;
    assert_eq!(printed, "echoed: spun in a ring\n");
    Ok(())
}
