//! Projects that depend on Ringspun: one without the Janet VM, where no C compiler and none of the crates that need
//! one may come in, and one with it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::{fs, io};

use crate::scratch::ScratchFolder;

/// Without the VM.
const EMBED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/embed/Cargo.toml");
/// With it, and without TLS.
const EMBED_JANET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/embed_janet/Cargo.toml");
/// Ringspun itself.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
const TARGET_DIRECTORY: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/embed");

/// What brings C, and what only the `ringspun` binary needs.
const UNWANTED: [&str; 3] = ["cc", "ringspun-janet", "clap"];
/// What brings TLS.
const TLS: [&str; 5] = ["ringspun-tls", "rustls", "aws-lc-rs", "aws-lc-sys", "rcgen"];

/// Runs a cargo command on a project, with changes to its environment, and returns what it prints. Goes to the registry
/// only for crates that are not on this machine yet.
fn cargo(manifest: &str, arguments: &[&str], environment: &[(&str, &str)]) -> io::Result<String> {
    let run = |network: &[&str]| {
        Command::new(env!("CARGO"))
            .args(arguments)
            .args(["--locked", "--manifest-path", manifest])
            .args(network)
            .env_remove("CFLAGS")
            .env("CARGO_TARGET_DIR", TARGET_DIRECTORY)
            .envs(environment.iter().copied())
            .output()
    };
    let mut output = run(&["--offline"])?;
    if !output.status.success() {
        output = run(&[])?;
    }
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}\n{}\
         if only its lock file is out of date: cargo metadata --manifest-path {manifest}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).map_err(io::Error::other)
}

/// The names of the packages that a build has in it.
fn dependencies(manifest: &str, arguments: &[&str]) -> io::Result<BTreeSet<String>> {
    let tree = ["tree", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
    let tree = cargo(manifest, &[&tree, arguments].concat(), &[])?;
    Ok(tree.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_string())).collect())
}

/// Crates that compile C ask for a compiler here. The linker is found by its name, not by these.
const NO_C_COMPILER: [(&str, &str); 2] = [("CC", "/bin/false"), ("CXX", "/bin/false")];

#[test]
fn without_its_default_features_the_facade_brings_no_c_and_no_command_line() -> io::Result<()> {
    let names = dependencies(EMBED, &[])?;
    for wanted in ["embed", "ringspun", "ringspun-net", "ringspun-fibers", "ringspun-runtime"] {
        assert!(names.contains(wanted), "{wanted} is missing, so this looks at the wrong tree: {names:?}");
    }
    for unwanted in UNWANTED.iter().chain(&TLS) {
        assert!(!names.contains(*unwanted), "{unwanted} came in: {names:?}");
    }
    Ok(())
}

#[test]
fn a_program_without_tls_has_no_crate_for_it() -> io::Result<()> {
    let cases: [(&str, &[&str]); 3] = [
        (EMBED_JANET, &[]),
        (WORKSPACE, &["--package", "ringspun", "--features", "janet", "--no-default-features"]),
        (WORKSPACE, &["--package", "ringspun-janet", "--no-default-features"]),
    ];
    for (manifest, arguments) in cases {
        let names = dependencies(manifest, arguments)?;
        assert!(names.contains("ringspun-janet"), "{arguments:?}: the wrong tree: {names:?}");
        for unwanted in TLS {
            assert!(!names.contains(unwanted), "{manifest} {arguments:?}: {unwanted} came in: {names:?}");
        }
    }
    for package in ["ringspun", "ringspun-janet"] {
        let names = dependencies(WORKSPACE, &["--package", package])?;
        assert!(TLS.iter().all(|name| names.contains(*name)), "{package} has lost its TLS: {names:?}");
    }
    Ok(())
}

/// Otherwise a crate that was renamed would count as absent.
#[test]
fn the_unwanted_crates_are_called_that() {
    let lock = include_str!("../../Cargo.lock");
    for unwanted in UNWANTED.iter().chain(&TLS) {
        let entry = format!("name = \"{unwanted}\"\n");
        assert!(lock.contains(&entry), "the workspace has no {unwanted}: is it called otherwise now?");
    }
}

#[test]
fn an_embedding_program_builds_and_runs_where_no_c_can_be_compiled() -> io::Result<()> {
    let printed = cargo(EMBED, &["run", "--quiet"], &NO_C_COMPILER)?;
    assert_eq!(printed, "echoed: spun in a ring\n");
    Ok(())
}

/// As a dependency of another project, in a debug build, and in a shared library that a program loads.
#[test]
fn a_plugin_has_an_optimised_vm() -> io::Result<()> {
    cargo(EMBED_JANET, &["build", "--quiet"], &[])?;
    let program = Command::new(format!("{TARGET_DIRECTORY}/debug/embed-janet"))
        .arg(format!("{TARGET_DIRECTORY}/debug/libplugin.so"))
        .output()?;
    let printed = String::from_utf8_lossy(&program.stdout);
    let (value, rest) = printed.split_once(" by ").unwrap_or_default();
    assert_eq!(value, "hi", "{program:?}");
    let (_, without_tls) = rest.split_once(", optimised: true\n").unwrap_or_default();
    let expected = "ringspun/tls: this build has no TLS: it is the feature tls of the crates ringspun and \
                    ringspun-janet\n";
    assert_eq!(without_tls, expected, "{printed}");
    Ok(())
}

/// The build script of a package that has been built for others here.
fn build_script(package: &str) -> io::Result<PathBuf> {
    for entry in fs::read_dir(format!("{TARGET_DIRECTORY}/debug/build"))? {
        let entry = entry?;
        let script = entry.path().join("build-script-build");
        if entry.file_name().to_string_lossy().starts_with(&format!("{package}-")) && script.exists() {
            return Ok(script);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("{package} has no build script in {TARGET_DIRECTORY}"),
    ))
}

/// The system that programs are built for, in rustc's words.
fn host() -> io::Result<String> {
    let version = Command::new(env!("CARGO")).arg("-vV").output()?;
    let version = String::from_utf8_lossy(&version.stdout);
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_string).ok_or_else(|| io::Error::other(format!("cargo -vV tells no host: {version}")))
}

/// What the build says where the VM's sources cannot be had, or where flags of the environment would spoil it.
#[test]
fn a_vm_that_cannot_be_built_is_an_error_with_its_reason() -> io::Result<()> {
    cargo(EMBED_JANET, &["build", "--quiet"], &[])?;
    // Run without cargo, which would also build the C of other crates with these flags.
    let script = build_script("ringspun-janet")?;
    let host = host()?;
    let cases = [
        (("RINGSPUN_JANET_SOURCE", "/nonexistent"), "a folder with janet.c and janet.h"),
        (("CFLAGS", "-O0"), "CFLAGS switch optimisation off"),
    ];
    for ((name, value), error) in cases {
        let out = ScratchFolder::new("refused");
        let output = Command::new(&script)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/janet"))
            .env_remove("CFLAGS")
            .env("OUT_DIR", out.path())
            .envs([("TARGET", host.as_str()), ("HOST", &host), ("OPT_LEVEL", "0"), ("DEBUG", "true")])
            .env("CARGO", env!("CARGO"))
            .env(name, value)
            .output()?;
        let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{name}={value} built all the same");
        assert!(printed.contains(error), "{name}={value}: expected {error:?} in\n{printed}");
    }
    Ok(())
}
