//! Native modules: C code that waits on sockets of `net/`, or uses their descriptors.
//!
//! The modules and the Janet programs that use them are in `tests/janet/native/`. Each program runs on the VM's own
//! network code and on ours, and has to print the same. Where the VM's own hangs or loses data, a program checks
//! what it gets itself, and runs on ours alone. `RINGSPUN_TEST_BINARY` names another binary to be tested.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;

use super::differential::{Run, run};

#[path = "../../janet/tests/support/elf.rs"]
mod elf;

/// The `ringspun` under test.
fn binary() -> PathBuf {
    env::var_os("RINGSPUN_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_ringspun").into(), PathBuf::from)
}

/// The system's C compiler, or the one that `CC` names.
fn compiler() -> Command {
    Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()))
}

/// A folder with the header, the programs, and the modules beside them, as programs import what is beside them. `None`
/// without a C compiler, which is said.
fn folder() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let has_compiler = compiler().arg("--version").output().is_ok_and(|output| output.status.success());
        has_compiler.then(build_modules)
    });
    if folder.is_none() {
        println!("SKIPPED: no C compiler is here to build native modules with");
    }
    folder.as_deref()
}

fn build_modules() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("native-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("janet.h"), ringspun::janet::c_api::HEADER).unwrap();
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/janet/native")).unwrap() {
        let source = entry.unwrap().path();
        let target = folder.join(source.file_name().unwrap());
        if source.extension().is_some_and(|extension| extension == "janet") {
            fs::copy(&source, &target).unwrap();
            continue;
        }
        let mut command = compiler();
        command.args(["-shared", "-fPIC", "-Wall", "-O1", "-g", "-pthread", "-I"]).arg(&folder);
        let output = command.arg("-o").arg(target.with_extension("so")).arg(&source).output().unwrap();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", source.display());
    }
    folder
}

/// Where the network code comes from: the values of `RINGSPUN_NET` and, unless the tests run on one backend,
/// `RINGSPUN_BACKEND`.
const STOCK: (&str, Option<&str>) = ("stock", None);

fn ours() -> Vec<(&'static str, Option<&'static str>)> {
    match env::var_os("RINGSPUN_BACKEND") {
        Some(_) => vec![("ring", None)],
        None => vec![("ring", None), ("ring", Some("poll"))],
    }
}

/// The command that runs a Janet program.
fn janet(folder: &Path, program: &[&str], (net, backend): (&str, Option<&str>)) -> Command {
    let mut command = Command::new(binary());
    command.arg("janet").args(program).current_dir(folder).env("RINGSPUN_NET", net).env_remove("JANET_PATH");
    command.envs(backend.map(|backend| ("RINGSPUN_BACKEND", backend)));
    command
}

/// Runs a program on each of these, side by side.
fn runs(folder: &Path, program: &[&str], on: &[(&str, Option<&str>)]) -> Vec<Run> {
    thread::scope(|scope| {
        let started: Vec<_> = on.iter().map(|on| scope.spawn(|| run(janet(folder, program, *on)))).collect();
        started.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

/// Runs a program on the VM's own network code and on ours: it has to print the same, in at least so many lines.
fn compare(program: &[&str], lines_min: usize) {
    let Some(folder) = folder() else { return };
    let on = [&[STOCK], ours().as_slice()].concat();
    let runs = runs(folder, program, &on);
    let stock = &runs[0];
    for (on, run) in on.iter().zip(&runs) {
        let output = &run.outcome.output;
        let lines = output.lines().count();
        assert!(
            run.outcome.exit_status == Some(0) && lines >= lines_min,
            "{program:?} on {on:?}: {:?} after {lines} lines, the last of which are\n{}\n{}",
            run.outcome.exit_status,
            output.lines().skip(lines.saturating_sub(5)).collect::<Vec<_>>().join("\n"),
            run.errors
        );
        let differing =
            output.lines().zip(stock.outcome.output.lines()).filter(|(ours, stock)| ours != stock);
        let differing: Vec<_> = differing.take(10).collect();
        assert!(
            *output == stock.outcome.output,
            "{program:?} on {on:?}: the first lines that differ from the VM's own are {differing:#?}"
        );
    }
}

/// Runs a program on ours, which prints a line that starts with `ok` for each thing that it has checked.
fn check(program: &str, lines: usize) {
    let Some(folder) = folder() else { return };
    for on in ours() {
        let run = &runs(folder, &[program], &[on])[0];
        let output = &run.outcome.output;
        let are_right = output.lines().all(|line| line.starts_with("ok ")) && output.lines().count() == lines;
        assert!(
            run.outcome.exit_status == Some(0) && are_right,
            "{program} on {on:?}: {:?}, expected {lines} lines\n{output}\n{}",
            run.outcome.exit_status,
            run.errors
        );
    }
}

#[test]
fn c_code_reads_streams_of_tcp_alike() {
    compare(&["reading.janet", "tcp"], 2000);
}

#[test]
fn c_code_reads_streams_of_unix_sockets_alike() {
    compare(&["reading.janet", "unix"], 2000);
}

#[test]
fn c_code_writes_to_streams_of_tcp_alike() {
    compare(&["writing.janet", "tcp"], 1500);
}

#[test]
fn c_code_writes_to_streams_of_unix_sockets_alike() {
    compare(&["writing.janet", "unix"], 1500);
}

#[test]
fn c_code_accepts_connections_alike() {
    compare(&["accepting.janet"], 380);
}

#[test]
fn c_code_sends_and_receives_datagrams_alike() {
    compare(&["datagrams.janet"], 780);
}

#[test]
fn c_code_takes_part_in_the_loop_alike() {
    compare(&["loop.janet"], 50);
}

#[test]
fn functions_that_c_code_calls_look_names_up_alike() {
    compare(&["lookups.janet"], 22);
}

#[test]
fn a_module_may_be_loaded_when_streams_are_busy() {
    compare(&["late.janet"], 18);
}

#[test]
fn modules_in_the_style_of_real_ones_work_alike_under_load() {
    compare(&["modules.janet"], 24);
}

#[test]
fn c_code_gets_what_the_vms_own_code_loses() {
    check("ours.janet", 125);
}

/// The functions and variables that the header declares for modules, in this configuration.
fn declared(folder: &Path) -> BTreeSet<String> {
    let output = compiler().args(["-E", "-P", "-x", "c"]).arg(folder.join("janet.h")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let declarations = text.split("__attribute__((visibility (\"default\")))").skip(1);
    declarations.filter_map(|text| declared_name(&text[..text.find([';', '{'])?])).collect()
}

/// The name in a declaration. Types and parameters have other names.
fn declared_name(declaration: &str) -> Option<String> {
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = &declaration[declaration.find("janet_")?..];
    name.split(|c| !is_of_a_name(c)).next().map(String::from)
}

#[test]
fn the_program_exports_the_c_api_and_nothing_else() {
    /// Those of the line editor, which the stock shell exports too.
    const OF_THE_LINE_EDITOR: [&str; 4] =
        ["janet_line_deinit", "janet_line_get", "janet_line_getter", "janet_line_init"];
    let Some(folder) = folder() else { return };
    let mut expected = declared(folder);
    assert!(expected.len() > 400, "{} names are declared in the header", expected.len());
    expected.extend(OF_THE_LINE_EDITOR.map(String::from));
    let exported = elf::defined_symbols(&fs::read(binary()).unwrap(), elf::DYNAMIC_SYMBOLS);
    let missing: Vec<_> = expected.difference(&exported).collect();
    let superfluous: Vec<_> = exported.difference(&expected).collect();
    assert!(missing.is_empty() && superfluous.is_empty(), "missing {missing:?}, superfluous {superfluous:?}");
}
