//! Static probes: the notes that tracers find them by are in the program, with all of their names.

/// A note of SystemTap's kind, version 3, has addresses, and then these three texts.
fn names_of(file: &[u8]) -> Vec<String> {
    let provider = b"ringspun\0";
    let of_provider = file.windows(provider.len()).enumerate().filter(|(_, bytes)| bytes == provider);
    let mut names: Vec<String> = of_provider
        .filter_map(|(at, _)| {
            let name = file[at + provider.len()..].split(|byte| *byte == 0).next()?;
            let is_name =
                !name.is_empty() && name.iter().all(|&byte| byte.is_ascii_lowercase() || byte == b'_');
            is_name.then(|| String::from_utf8_lossy(name).into_owned())
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn tracers_find_each_place() {
    let file = std::fs::read(env!("CARGO_BIN_EXE_ringspun")).unwrap();
    let found = names_of(&file);
    for name in ["fiber_end", "fiber_start", "socket_close", "socket_open", "turn"] {
        assert!(found.iter().any(|it| it == name), "{name}: found {found:?}");
    }
}
