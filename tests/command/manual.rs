//! Manual pages and completions of shells.

use std::fs;
use std::process::{Command, Output};

fn ringspun(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringspun"))
        .args(arguments)
        .env_remove("RINGSPUN_COMMAND")
        .output()
        .unwrap()
}

#[test]
fn each_command_has_a_manual_page_with_its_options() {
    let folder = std::env::temp_dir().join(format!("ringspun-man-{}", std::process::id()));
    assert!(ringspun(&["man", folder.to_str().unwrap()]).status.success());
    for (page, texts) in [
        ("ringspun", ["RINGSPUN_BACKEND", "Check whether Ringspun can run here"]),
        ("ringspun-serve-echo", ["metrics", "HOST:PORT"]),
        ("ringspun-load", ["fail", "connections"]),
        ("ringspun-load-report", ["LOG", "report"]),
        ("ringspun-doctor", ["require", "json"]),
    ] {
        let text = fs::read_to_string(folder.join(format!("{page}.1"))).unwrap().replace('\\', "");
        assert!(text.contains(&format!(".TH {} 1", page.to_uppercase())), "{text}");
        assert!(texts.iter().all(|part| text.contains(part)), "{page}: {text}");
    }
    fs::remove_dir_all(&folder).unwrap();

    fs::write(&folder, "a file").unwrap();
    let refused = ringspun(&["man", folder.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains(folder.to_str().unwrap()));
    fs::remove_file(&folder).unwrap();
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = ringspun(&["completions", shell]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("doctor") && text.contains("require"), "{shell}");
    }
    assert_eq!(ringspun(&["completions", "no-shell"]).status.code(), Some(2));
}
