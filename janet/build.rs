//! Compiles the Janet VM: its one C file, through ours.
//!
//! The sources come from the folder that `RINGSPUN_JANET_SOURCE` names or, without it, from a crate of the registry
//! that carries them. That crate is not a dependency, since its own build script needs libclang: cargo fetches it for
//! a package that only names it, and tells where it lies.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs, io};

/// The environment variable that names a folder with `janet.c` and `janet.h`.
const SOURCE_VARIABLE: &str = "RINGSPUN_JANET_SOURCE";

/// The crate that carries the VM's sources in its folder `csrc`, and the release of both.
const SOURCE_CRATE: &str = "evil-janet";
const SOURCE_RELEASE: &str = "1.41.2";
const SOURCE_CHECKSUM: &str = "ce231a3ba7fa7f74337c68a58e8521620de96bfc88c56a2abb9120d9abec049d";

/// What that crate depends on. Empty packages stand in, so that nothing else is fetched.
const STAND_INS: [(&str, &str); 3] = [("bindgen", "0.72.0"), ("cc", "1.0.0"), ("libc", "0.2.0")];

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={SOURCE_VARIABLE}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=c");
    match find_source() {
        Ok(folder) => {
            println!("cargo::rustc-env=RINGSPUN_JANET_HEADER={}", folder.join("janet.h").display());
            compile(&folder);
            ExitCode::SUCCESS
        }
        Err(text) => {
            println!("cargo::error={text}");
            ExitCode::FAILURE
        }
    }
}

/// Compiles the VM with optimisation in every profile. `CFLAGS` and `CC` of the environment are respected; c/vm.c
/// refuses flags that switch optimisation off.
fn compile(source: &Path) {
    for name in ["janet.c", "janet.h"] {
        println!("cargo::rerun-if-changed={}", source.join(name).display());
    }
    let compile = |file: &str, library: &str| {
        cc::Build::new()
            .file(file)
            .include(source)
            .opt_level(2)
            .warnings(false)
            // Exports only the functions that janet.h declares.
            .flag("-fvisibility=hidden")
            // The VM's functions are not interposed at run time, so it may call and inline them directly: an echo takes
            // 8 % fewer instructions.
            .flag_if_supported("-fno-semantic-interposition")
            .compile(library);
    };
    compile("c/line.c", "ringspun_janet_line");
    compile("c/vm.c", "ringspun_janet_vm");
}

/// The folder of `janet.c` and `janet.h`, or why there is none.
fn find_source() -> Result<PathBuf, String> {
    if let Some(folder) = env::var_os(SOURCE_VARIABLE).map(PathBuf::from) {
        return match has_source(&folder) {
            true => Ok(folder),
            false => Err(format!(
                "{SOURCE_VARIABLE}={}: expected the absolute path of a folder with janet.c and janet.h",
                folder.display()
            )),
        };
    }
    let failed = |reason: String| {
        format!(
            "the sources of the Janet VM were not found: cargo could not fetch {SOURCE_CRATE} {SOURCE_RELEASE}, \
             which carries them ({reason}). {SOURCE_VARIABLE} may name a folder with janet.c and janet.h instead"
        )
    };
    let package = write_package().map_err(|error| failed(error.to_string()))?;
    // Fetched already, mostly: then no network is asked for.
    let metadata =
        cargo_metadata(&package, true).or_else(|_| cargo_metadata(&package, false)).map_err(failed)?;
    manifests(&metadata)
        .filter_map(|manifest| Some(manifest.parent()?.join("csrc")))
        .find(|folder| has_source(folder))
        .ok_or_else(|| failed("it has no csrc/janet.c".to_string()))
}

fn has_source(folder: &Path) -> bool {
    folder.is_absolute() && folder.join("janet.c").is_file() && folder.join("janet.h").is_file()
}

/// Writes the package that names the crate, with a lock file that holds its checksum.
fn write_package() -> io::Result<PathBuf> {
    let package = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("source");
    let header = |name, version| {
        format!("[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2021\"\n\n")
    };
    let mut manifest = header("janet-source", "0.0.0");
    manifest += &format!(
        "[workspace]\n\n[lib]\npath = \"empty.rs\"\n\n[dependencies]\n{SOURCE_CRATE} = \"={SOURCE_RELEASE}\"\n\n\
         [patch.crates-io]\n"
    );
    let entry = |name, version| format!("\n[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n");
    let mut lock = "version = 4\n".to_string();
    lock += &entry(SOURCE_CRATE, SOURCE_RELEASE);
    lock += "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
    lock += &format!("checksum = \"{SOURCE_CHECKSUM}\"\n");
    lock += &format!("dependencies = {:?}\n", STAND_INS.map(|(name, _)| name));
    lock += &entry("janet-source", "0.0.0");
    lock += &format!("dependencies = [{SOURCE_CRATE:?}]\n");
    fs::create_dir_all(&package)?;
    fs::write(package.join("empty.rs"), "")?;
    for (name, version) in STAND_INS {
        let features = "[lib]\npath = \"../empty.rs\"\n\n[features]\nruntime = []\n";
        fs::create_dir_all(package.join(name))?;
        fs::write(package.join(name).join("Cargo.toml"), header(name, version) + features)?;
        manifest += &format!("{name} = {{ path = \"{name}\" }}\n");
        lock += &entry(name, version);
    }
    fs::write(package.join("Cargo.toml"), manifest)?;
    fs::write(package.join("Cargo.lock"), lock)?;
    Ok(package)
}

/// What cargo says of the package, as JSON; it fetches the crate first unless `offline`.
fn cargo_metadata(package: &Path, offline: bool) -> Result<String, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.args(["metadata", "--format-version", "1", "--quiet", "--locked"]).current_dir(package);
    if offline {
        command.arg("--offline");
    }
    let failed = |reason: &str| {
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("{} metadata: {reason}", Path::new(&cargo).display())
    };
    let output = command.output().map_err(|error| failed(&error.to_string()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(failed(&String::from_utf8_lossy(&output.stderr))),
    }
}

/// The paths of all manifests in cargo's JSON.
fn manifests(metadata: &str) -> impl Iterator<Item = PathBuf> {
    metadata.split("\"manifest_path\":\"").skip(1).filter_map(|rest| {
        let mut path = String::new();
        let mut characters = rest.chars();
        loop {
            match characters.next()? {
                '"' => return Some(PathBuf::from(path)),
                '\\' => path.push(characters.next()?),
                character => path.push(character),
            }
        }
    })
}
