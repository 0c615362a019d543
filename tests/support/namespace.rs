//! Tests that need the network, or the files of the system, for themselves: each runs once more, as a
//! process in namespaces of its own (`unshare(1)`).

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Set in a test that runs in its own namespaces.
const VARIABLE: &str = "RINGSPUN_TEST_NAMESPACE";

/// Runs `body` in a network of its own, with only a loopback interface, and mounts of its own, after the
/// shell command `prepare` has run there. `test` is the test that calls this: `module_path!()` and its name.
///
/// Returns false where that is not allowed.
pub fn in_namespace(test: &str, prepare: &str, body: impl FnOnce()) -> bool {
    if env::var_os(VARIABLE).is_some() {
        body();
        return true;
    }
    let namespace = |command: &str| {
        let mut unshare = Command::new("unshare");
        let script = format!("ip link set lo up && {prepare} && {command}");
        unshare.args(["--map-root-user", "--net", "--mount", "sh", "-c", &script]).stdin(Stdio::null());
        unshare
    };
    if !namespace("true").output().is_ok_and(|output| output.status.success()) {
        return false;
    }
    // The test program does not have its own name in the names of its tests.
    let (_, test) = test.split_once("::").unwrap();
    let mut again = namespace("exec \"$0\" \"$@\"");
    again.arg(env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]);
    let output = again.env(VARIABLE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "in a namespace:\n{text}\n{errors}");
    true
}

/// As [`in_namespace`], where `127.0.0.1:53` is the only name server, and takes a minute to be given up. Prints why,
/// where that is not allowed.
pub fn as_name_server(test: &str, body: impl FnOnce()) {
    // One for each test, as a file that is bound into a namespace must not change.
    let name = test.replace("::", "-");
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("dns-{}", std::process::id())).join(name);
    fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:60 attempts:1\n");
    write("nsswitch.conf", "hosts: files dns\n");
    write("hosts", "127.0.0.1 localhost\n");
    let mount = |name: &str| format!("mount --bind '{0}/{name}' /etc/{name}", folder.display());
    let prepare = ["resolv.conf", "nsswitch.conf", "hosts"].map(mount).join(" && ");
    if !in_namespace(test, &prepare, body) {
        println!("SKIPPED {test}: files of /etc cannot be replaced in a namespace here");
    }
}
