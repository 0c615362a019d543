//! `ringspun install`: what is put where, and that modules, programs and tools of others work with nothing else.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::scratch::ScratchFolder;

const RINGSPUN: &str = env!("CARGO_BIN_EXE_ringspun");
/// The sources that are built here.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/janet/install");

const FILES: [&str; 6] = [
    "bin/janet",
    "include/janet.h",
    "include/janet/janet.h",
    "lib/libjanet.a",
    "lib/pkgconfig/janet.pc",
    "share/man/man1/janet.1",
];

/// A folder with an installation and others.
struct Folder(ScratchFolder);

impl Folder {
    fn new(name: &str) -> Self {
        Self(ScratchFolder::new(name))
    }

    /// With Janet installed in its folder `prefix`.
    fn installed(name: &str) -> Self {
        let folder = Self::new(name);
        let output = folder.install(&[]);
        assert!(output.status.success(), "{output:?}");
        folder
    }

    fn path(&self, file: &str) -> String {
        self.0.file(file)
    }

    fn install(&self, flags: &[&str]) -> Output {
        run(self.command(RINGSPUN).args(["install", "--prefix", &self.path("prefix")]).args(flags))
    }

    /// A command that finds the installation, and no other.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.path("prefix/bin"))).stdin(Stdio::null());
        command.env("PKG_CONFIG_PATH", self.path("prefix/lib/pkgconfig")).current_dir(self.0.path());
        for variable in ["JANET_PATH", "JANET_PROFILE", "RINGSPUN_COMMAND", "CPATH", "LIBRARY_PATH"] {
            command.env_remove(variable);
        }
        command
    }

    /// What the installed Janet prints.
    #[track_caller]
    fn janet(&self, arguments: &[&str]) -> String {
        printed(self.command("janet").args(arguments))
    }

    /// Copies sources into a folder of this one.
    fn copy(&self, name: &str) -> String {
        let copied = printed(Command::new("cp").args(["-r", &format!("{SOURCES}/{name}"), &self.path(name)]));
        assert_eq!(copied, "");
        self.path(name)
    }

    /// All files below a folder of this one, and no folders.
    fn files(&self, folder: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.path().join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        let below = |path: PathBuf| {
            path.strip_prefix(self.0.path().join(folder)).unwrap().to_str().unwrap().to_string()
        };
        let mut found: Vec<_> = found.into_iter().map(below).collect();
        found.sort();
        found
    }

    /// Links a C program with the installed library.
    fn link(&self, sources: &[String], program: &str) {
        let flags = match Command::new("pkg-config").arg("--version").output() {
            Ok(_) => printed(self.command("pkg-config").args(["--cflags", "--libs", "janet"])),
            Err(_) => {
                let [headers, library] = ["include", "lib"].map(|name| self.path(&format!("prefix/{name}")));
                format!("-I{headers} -L{library} -ljanet -lm -ldl -lpthread")
            }
        };
        let mut command = self.command("cc");
        command.arg("-std=c99").args(sources).args(flags.split_whitespace());
        assert_eq!(printed(command.args(["-o", program])), "");
    }
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// What a command prints, if it succeeds and has no complaint.
#[track_caller]
fn printed(command: &mut Command) -> String {
    let output = run(command);
    let [text, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success() && errors.is_empty(), "{command:?}: {} {text} {errors}", output.status);
    text
}

#[track_caller]
fn fails(output: &Output, error: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains(error), "{error:?}: {output:?}");
}

/// Whether there is a compiler; the reason is printed where there is none.
fn has(compiler: &str) -> bool {
    let found = Command::new(compiler).arg("--version").output();
    if let Err(error) = &found {
        println!("SKIPPED: no {compiler}: {error}");
    }
    found.is_ok()
}

#[test]
fn each_file_is_put_in_place_and_told() {
    let folder = Folder::new("install-files");
    let output = folder.install(&[]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut told: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    told.sort_unstable();
    let mut expected: Vec<_> =
        FILES.iter().chain(&["lib/janet"]).map(|file| folder.path(&format!("prefix/{file}"))).collect();
    expected.sort();
    assert_eq!(told, expected);
    assert_eq!(folder.files("prefix"), FILES);
    for file in FILES {
        let mode = fs::metadata(folder.path(&format!("prefix/{file}"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, if file == "bin/janet" { 0o755 } else { 0o644 }, "{file}");
    }
    let json = folder.install(&["--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        (json["version"].as_u64(), json["steps"].as_array().map(Vec::len)),
        (Some(1), Some(7)),
        "{json}"
    );
    assert_eq!(folder.files("prefix"), FILES, "after installing again");
}

#[test]
fn an_installed_janet_is_janet_and_knows_its_folder() {
    let folder = Folder::installed("install-knows");
    let (program, modules) = (folder.path("prefix/bin/janet"), folder.path("prefix/lib/janet"));
    let tells = "(print (dyn *executable*) ` ` (dyn *syspath*))";
    assert_eq!(folder.janet(&["-e", tells]), format!("{program} {modules}\n"));
    assert_eq!(folder.janet(&["-v"]), printed(folder.command(RINGSPUN).args(["janet", "-v"])));
    // What it starts is the same, also without the variable by which others would know that it is Janet.
    for flags in [":p", ":pe {}"] {
        let code = format!("(os/execute [(dyn *executable*) `-e` ``{tells}``] {flags})");
        assert_eq!(folder.janet(&["-e", &code]), format!("{program} {modules}\n"), "{flags}");
    }
    assert_eq!(folder.janet(&["-m", "/x", "-e", "(print (dyn *syspath*))"]), "/x\n");
    let mut command = folder.command("janet");
    assert_eq!(printed(command.args(["-e", "(print (dyn *syspath*))"]).env("JANET_PATH", "/y")), "/y\n");
    // By a link from elsewhere, and by one from a folder that has modules of its own.
    symlink(&program, folder.path("linked")).unwrap();
    assert_eq!(
        printed(folder.command("./linked").args(["-e", "(print (dyn *syspath*))"])),
        format!("{modules}\n")
    );
    fs::create_dir_all(folder.path("other/bin")).unwrap();
    fs::create_dir_all(folder.path("other/lib/janet")).unwrap();
    symlink(&program, folder.path("other/bin/janet")).unwrap();
    let other = printed(folder.command("other/bin/janet").args(["-e", "(print (dyn *syspath*))"]));
    assert_eq!(other, format!("{}\n", folder.path("other/lib/janet")));
    // Where it is moved to.
    fs::rename(folder.path("prefix"), folder.path("moved")).unwrap();
    let moved = printed(folder.command("moved/bin/janet").args(["-e", "(print (dyn *syspath*))"]));
    assert_eq!(moved, format!("{}\n", folder.path("moved/lib/janet")));
}

#[test]
fn bundles_with_modules_in_c_and_cpp_are_built_and_used() {
    let uses = [
        (
            "cc",
            "c",
            "doubled",
            "(import doubled) (print (doubled/of 21) ` ` ((doubled/cell 4) :value))",
            "42 8\n",
        ),
        (
            "c++",
            "cpp",
            "sorted",
            "(import sorted) (pp (sorted/numbers [3 1 2])) (pp (protect (sorted/numbers [:a])))",
            "(1 2 3)\n(false \"expected numbers\")\n",
        ),
    ];
    for (compiler, source, bundle, code, expected) in uses {
        if !has(compiler) {
            continue;
        }
        let folder = Folder::installed("install-bundle");
        let source = folder.copy(source);
        let log = printed(folder.command("janet").args(["--install", "."]).current_dir(&source));
        assert!(log.ends_with(&format!("installed {bundle}\n")), "{log}");
        assert_eq!(folder.janet(&["-L"]), format!("{bundle}\n"));
        assert_eq!(folder.janet(&["-e", code]), expected);
        for again in [&["--reinstall", bundle][..], &["--update-all"]] {
            let log = folder.janet(again);
            assert!(log.ends_with(&format!("installed {bundle}\n")), "{again:?} {log}");
        }
        assert_eq!(folder.janet(&["--prune"]), "pruning 0 bundles\n");
        // Modules belong to the user: they stay when Janet goes, and go by themselves.
        let modules = folder.files("prefix/lib/janet");
        assert!(modules.iter().any(|file| file.ends_with(".so")), "{modules:?}");
        assert!(folder.install(&["--uninstall"]).status.success());
        assert_eq!(folder.files("prefix/lib/janet"), modules);
        assert!(folder.install(&[]).status.success());
        assert_eq!(folder.janet(&["-e", code]), expected);
        folder.janet(&["--uninstall", bundle]);
        assert_eq!(folder.janet(&["-L"]), "");
        assert!(folder.install(&["--uninstall"]).status.success());
        assert_eq!(folder.files("prefix"), [""; 0]);
        assert!(!Path::new(&folder.path("prefix/lib/janet")).exists());
    }
}

#[test]
fn a_c_program_is_linked_with_the_library() {
    if !has("cc") {
        return;
    }
    let folder = Folder::installed("install-embed");
    let source = folder.copy("embed.c");
    folder.link(&[source], "embed");
    let version = folder.janet(&["-e", "(print janet/version)"]);
    assert_eq!(
        printed(&mut folder.command("./embed")),
        format!(
            "slept\nechoed\nfrom a child\nstatus 0\nfrom a thread\n/usr/local/lib/janet\nrelease {version}"
        )
    );
}

#[test]
fn a_program_packed_with_the_library_runs_alone() {
    if !has("cc") {
        return;
    }
    let folder = Folder::installed("install-packed");
    let [main, script, tool] = ["packed.c", "packed.janet", "pack.janet"].map(|name| folder.copy(name));
    assert_eq!(folder.janet(&[&tool, &script, "image.c"]), "");
    folder.link(&[main, "image.c".to_string()], "packed");
    // Nothing but the program is needed.
    assert!(folder.install(&["--uninstall"]).status.success());
    fs::remove_file(script).unwrap();
    let output = run(Command::new(folder.path("packed")).args(["one two", "three"]).env_clear());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        (output.status.code(), &*text),
        (Some(2), "@[\"one\" \"two\" \"three\"]\nechoed\n"),
        "{output:?}"
    );
}

#[test]
fn what_runs_goes_on_while_it_is_replaced() {
    let folder = Folder::installed("install-replaced");
    let mut command = folder.command("janet");
    let mut child = command.args(["-q"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"(def x 20)\n").unwrap();
    assert!(folder.install(&[]).status.success());
    input.write_all(b"(print (* 2 x))\n").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "20\n40\nnil\n");
}

#[test]
fn uninstalling_removes_what_was_installed_and_nothing_else() {
    let folder = Folder::installed("install-removed");
    for file in ["bin/other", "include/janet/other.h", "lib/janet/module.janet", "share/man/man1/other.1"] {
        fs::write(folder.path(&format!("prefix/{file}")), "").unwrap();
    }
    fs::remove_file(folder.path("prefix/lib/libjanet.a")).unwrap();
    let output = folder.install(&["--uninstall"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for (state, file) in [
        ("removed  ", "bin/janet"),
        ("missing  ", "lib/libjanet.a"),
        ("kept     ", "lib/janet"),
        ("kept     ", "include/janet"),
    ] {
        let line = format!("{state} {}", folder.path(&format!("prefix/{file}")));
        assert!(text.lines().any(|told| told == line), "{line:?} is not in {text}");
    }
    let others = ["bin/other", "include/janet/other.h", "lib/janet/module.janet", "share/man/man1/other.1"];
    assert_eq!(folder.files("prefix"), others);
    let again = folder.install(&["--uninstall"]);
    assert!(again.status.success(), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stdout).contains("missing   "), "{again:?}");
    // Another Janet, which was installed since.
    fs::write(folder.path("prefix/bin/janet"), "#!/bin/sh\n").unwrap();
    fails(&folder.install(&["--uninstall"]), "prefix/bin/janet is not ringspun: nothing was removed");
    assert!(Path::new(&folder.path("prefix/bin/janet")).exists());
}

#[test]
fn a_folder_for_modules_may_be_elsewhere() {
    let folder = Folder::new("install-linked");
    fs::create_dir_all(folder.path("modules")).unwrap();
    fs::create_dir_all(folder.path("prefix/lib")).unwrap();
    symlink(folder.path("modules"), folder.path("prefix/lib/janet")).unwrap();
    assert!(folder.install(&[]).status.success());
    fs::write(folder.path("modules/found.janet"), "(def value 5)").unwrap();
    assert_eq!(folder.janet(&["-e", "(import found) (print found/value)"]), "5\n");
    let output = folder.install(&["--uninstall"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(folder.files("prefix"), ["lib/janet/found.janet"]);
}

#[test]
fn a_place_that_cannot_be_written_is_an_error_that_names_it() {
    let folder = Folder::new("install-errors");
    let install = |prefix: &str| run(folder.command(RINGSPUN).args(["install", "--prefix", prefix]));
    fails(&install("/proc/none"), "cannot create /proc/none/include/janet: ");
    fs::write(folder.path("file"), "").unwrap();
    fails(&install(&folder.path("file")), "file/include/janet: Not a directory");
    // Nothing is put in place before all can be.
    fs::create_dir_all(folder.path("prefix/bin/janet")).unwrap();
    fs::create_dir_all(folder.path("prefix/include")).unwrap();
    fs::write(folder.path("prefix/include/janet.h"), "another").unwrap();
    fails(&folder.install(&[]), "cannot write ");
    assert_eq!(folder.files("prefix"), ["include/janet.h"]);
    assert_eq!(fs::read_to_string(folder.path("prefix/include/janet.h")).unwrap(), "another");
    fails(&folder.install(&["--uninstall"]), "prefix/bin/janet: Is a directory");
    let usage = run(folder.command(RINGSPUN).args(["install", "--no-such-flag"]));
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
    // Relative to where it is called.
    assert!(install("relative").status.success());
    assert_eq!(folder.files("relative"), FILES);
    assert!(install("relative/../other").status.success());
    assert_eq!(folder.files("other"), FILES);
}

/// The flags in a text: words of the form `-x` and `--word`.
fn flags(text: &str) -> Vec<&str> {
    let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '-');
    let mut flags: Vec<_> = words.filter(|word| word.starts_with('-') && *word != "-").collect();
    flags.sort_unstable();
    flags.dedup();
    flags
}

#[test]
fn the_manual_page_explains_every_flag() {
    let folder = Folder::installed("install-manual");
    let manual = fs::read_to_string(folder.path("prefix/share/man/man1/janet.1")).unwrap().replace('\\', "");
    assert!(!manual.contains('@'), "a place is not filled in");
    let (_, options) = manual.split_once(".SH OPTIONS").unwrap();
    let (options, _) = options.split_once(".SH ").unwrap();
    let tags: Vec<_> = options.lines().filter(|line| line.starts_with(".BR -")).collect();
    assert_eq!(flags(&tags.join("\n")), flags(folder.janet(&["-h"]).split_once("Options are:").unwrap().1));
}
