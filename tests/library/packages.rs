//! The packages of the crates: each has what a registry shows, and only what belongs in it.

use std::path::Path;
use std::process::Command;

/// The crates, with their folders, and what their packages hold besides what each holds.
const CRATES: [(&str, &str, &[&str]); 7] = [
    ("ringspun", "", &["build.rs", "examples/", "CHANGELOG.md"]),
    ("ringspun-runtime", "runtime/", &[]),
    ("ringspun-fibers", "fibers/", &[]),
    ("ringspun-net", "net/", &[]),
    ("ringspun-tls", "tls/", &[]),
    ("ringspun-janet", "janet/", &["build.rs", "c/"]),
    ("ringspun-load", "load/", &[]),
];
const IN_EACH: [&str; 8] = [
    ".cargo_vcs_info.json",
    "Cargo.lock",
    "Cargo.toml",
    "Cargo.toml.orig",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "src/",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What of a list is not expected.
fn stray<'a>(list: &'a str, own: &[&str]) -> Vec<&'a str> {
    let is_expected = |file: &str| {
        let is_it = |part: &&str| file == *part || (part.ends_with('/') && file.starts_with(*part));
        IN_EACH.iter().any(&is_it) || own.iter().any(&is_it)
    };
    list.lines().filter(|file| !is_expected(file)).collect()
}

#[test]
fn packages_have_only_what_belongs_in_them() {
    assert_eq!(stray("src/lib.rs\ntests/x.rs\nbuild.rs\nsrc.rs\n", &["build.rs"]), ["tests/x.rs", "src.rs"]);
    for (name, _, own) in CRATES {
        let listed = Command::new(env!("CARGO"))
            .args(["package", "--list", "--allow-dirty", "--offline", "--package", name])
            .current_dir(root())
            .output()
            .unwrap();
        let list = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.status.success(), "{name}: {}", String::from_utf8_lossy(&listed.stderr));
        assert_eq!(stray(&list, own), [""; 0], "{name}");
        for file in ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "src/lib.rs"] {
            assert!(list.lines().any(|line| line == file), "{name} lacks {file}");
        }
    }
}

#[test]
fn crates_have_what_a_registry_shows() {
    for (name, folder, _) in CRATES {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let package = manifest.split("\n[features]").next().unwrap();
        for key in [
            "description = \"",
            "documentation = \"",
            "readme = \"",
            "keywords = [",
            "categories = [",
            "license.workspace",
        ] {
            assert!(package.contains(&format!("\n{key}")), "{name} lacks {key}");
        }
    }
}
