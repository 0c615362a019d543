//! The `janet` command line: its flags, scripts, standard input, exit statuses and REPL, and how programs
//! that start Janet again find it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Far longer than anything here takes; only a hang comes to it.
const HANG: Duration = Duration::from_secs(60);

const RINGSPUN: &str = env!("CARGO_BIN_EXE_ringspun");

/// A new folder with files in it, in which the commands of a test run.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let tests = format!("janet_command_line-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(tests).join(name);
        // It is there if the test has run before.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        for (file, text) in files {
            fs::write(path.join(file), text).unwrap();
        }
        Self(path)
    }

    fn path(&self, file: &str) -> String {
        self.0.join(file).to_str().unwrap().to_string()
    }

    /// A command that is not told who started it.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.0);
        for variable in ["JANET_PATH", "JANET_PROFILE", "NO_COLOR", "RINGSPUN_COMMAND"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs `ringspun janet`.
    fn janet(&self, arguments: &[&str]) -> Ended {
        self.janet_with_input(arguments, "")
    }

    fn janet_with_input(&self, arguments: &[&str], input: &str) -> Ended {
        run(&mut self.command(RINGSPUN, &[&["janet"], arguments].concat()), input)
    }

    /// Runs `ringspun`, without the word `janet`.
    fn ringspun(&self, arguments: &[&str]) -> Ended {
        run(&mut self.command(RINGSPUN, arguments), "")
    }
}

/// What a command came to.
#[derive(Debug, PartialEq)]
struct Ended {
    status: Option<i32>,
    output: String,
    errors: String,
}

impl Ended {
    #[track_caller]
    fn printed(self, expected: &str) {
        self.exited(0, expected);
    }

    /// With this status and this output, and nothing on standard error.
    #[track_caller]
    fn exited(self, status: i32, expected: &str) {
        let expected = Self { status: Some(status), output: expected.to_string(), errors: String::new() };
        assert_eq!(self, expected);
    }

    /// With status 1, this output, and a first line of standard error.
    #[track_caller]
    fn failed(self, output: &str, error: &str) {
        assert_eq!((self.status, self.output.as_str()), (Some(1), output), "{self:?}");
        assert_eq!(self.errors.lines().next(), Some(error), "{self:?}");
    }
}

fn run(command: &mut Command, input: &str) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_string();
    // It may end without reading it all.
    thread::spawn(move || stdin.write_all(input.as_bytes()));
    let start = Instant::now();
    // What these commands write fits into the pipes.
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > HANG {
            child.kill().unwrap();
            panic!("{command:?} does not end: {:?}", child.wait_with_output());
        }
        thread::sleep(Duration::from_millis(2));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let [output, errors] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Ended { status: status.code(), output, errors }
}

const ARGUMENTS: (&str, &str) = ("arguments.janet", "(pp (dyn :args)) (pp (dyn *current-file*))");
const MAIN: (&str, &str) = ("main.janet", "(print `top`) (defn main [& arguments] (pp [;arguments]))");
const BROKEN: (&str, &str) = ("broken.janet", "(print `before`) (error `broken`) (print `after`)");
const MODULE: (&str, &str) =
    ("module.janet", "(print `loaded`) (def value 5) (defn main [& _] (print `tool`))");

#[test]
fn code_on_the_command_line() {
    let folder = Folder::new("code", &[ARGUMENTS]);
    folder.janet(&["-e", "(print (+ 1 2))"]).printed("3\n");
    folder.janet(&["--eval", "(def x 5)", "-e", "(print x)"]).printed("5\n");
    folder.janet(&["-E", "(print (string $0 `-` $1))", "a", "b"]).printed("a-b\n");
    folder.janet(&["--expression", "(print $0 (length (dyn :args)))", "a"]).printed("a3\n");
    folder
        .janet(&["-e", "(print 1)", "arguments.janet", "x"])
        .printed("1\n@[\"arguments.janet\" \"x\"]\n\"arguments.janet\"\n");
    folder.janet(&["-e", "(error `raised`)"]).failed("", "error: raised");
    folder.janet(&["-e", "(+ 1"]).failed("", "error: unexpected end of source, ( opened at line 1, column 1");
    folder.janet(&["-e", "(no-such-function)"]).failed("", "error: unknown symbol no-such-function");
    folder.janet(&["-e"]).failed("", "error: expected integer key for array in range [0, 1), got 1");
}

#[test]
fn scripts_and_their_arguments() {
    let folder =
        Folder::new("scripts", &[ARGUMENTS, MAIN, BROKEN, ("syntax.janet", "(print 1"), ("empty.janet", "")]);
    folder
        .janet(&["arguments.janet", "x", "-e", "--", "-h"])
        .printed("@[\"arguments.janet\" \"x\" \"-e\" \"--\" \"-h\"]\n\"arguments.janet\"\n");
    folder.janet(&["main.janet", "one", "-v"]).printed("top\n(\"main.janet\" \"one\" \"-v\")\n");
    folder.janet(&["--", "main.janet", "one"]).printed("top\n(\"main.janet\" \"one\")\n");
    folder.janet(&["empty.janet"]).printed("");
    folder.janet(&["broken.janet"]).failed("before\n", "error: broken");
    let syntax = "syntax.janet:1:8: parse error: unexpected end of source, ( opened at line 1, column 1";
    folder.janet(&["syntax.janet"]).failed("", syntax);
    folder.janet(&["missing.janet"]).failed("", "error: could not find file missing.janet");
    folder.janet(&["--", "-e"]).failed("", "error: could not find file -e");
    folder.janet_with_input(&["/dev/stdin", "x"], "(pp (dyn :args))").printed("@[\"/dev/stdin\" \"x\"]\n");
}

#[test]
fn exit_statuses() {
    let folder = Folder::new("statuses", &[("main.janet", "(defn main [& _] (error {:code 5}))")]);
    for (code, status) in [("(os/exit 7)", 7), ("(os/exit)", 0), ("(os/exit 300)", 44), ("(print)", 0)] {
        assert_eq!(folder.janet(&["-e", code]).status, Some(status), "{code}");
    }
    for code in ["(error 5)", "(os/exit true)", "(propagate `x` (fiber/new identity))", "(signal 3 :x)"] {
        assert_ne!(folder.janet(&["-e", code]).status, Some(0), "{code}");
    }
    assert_eq!(folder.janet(&["main.janet"]).status, Some(1));
    // The loop runs to its end, and an error in another fiber is told but is not the program's.
    let ended =
        folder.janet(&["-e", "(ev/spawn (error `in a fiber`)) (ev/spawn (ev/sleep 0.001) (print `later`))"]);
    assert_eq!((ended.status, ended.output.as_str()), (Some(0), "later\n"));
    assert!(ended.errors.starts_with("error: in a fiber\n"), "{ended:?}");
}

#[test]
fn flags_that_tell_and_flags_that_are_none() {
    let folder = Folder::new("flags", &[]);
    let version = folder.janet(&["-e", "(print janet/version `-` janet/build)"]).output;
    for flag in ["-v", "--version"] {
        folder.janet(&[flag]).printed(&version);
    }
    for flag in ["-h", "--help"] {
        let help = folder.janet(&[flag]);
        assert!(help.status == Some(0) && help.output.contains("--eval (-e) code"), "{help:?}");
    }
    for flag in ["-Z", "--no-such-flag", "-", "-qs"] {
        let told = folder.janet(&[flag, "-e", "(print `never`)"]);
        assert!(told.output.starts_with(&format!("unknown flag {flag}\nusage: ")), "{told:?}");
        assert!(!told.output.contains("never"), "{told:?}");
    }
}

#[test]
fn a_failed_script_may_be_followed_by_more() {
    let folder = Folder::new("persistent", &[BROKEN]);
    let code = "(print `on`)";
    folder.janet(&["broken.janet"]).failed("before\n", "error: broken");
    let session = folder.janet_with_input(&["-p", "-q", "-r", "broken.janet"], code);
    assert_eq!(session.status, Some(1), "{session:?}");
    let session = folder.janet_with_input(&["-q", "-p"], "(error `x`)\n(print `on`)\n");
    assert_eq!((session.status, session.output.as_str()), (Some(0), "on\nnil\n"), "{session:?}");
    assert!(session.errors.starts_with("error: x\n"), "{session:?}");
}

#[test]
fn flycheck_compiles_and_does_not_run() {
    let folder = Folder::new("flycheck", &[ARGUMENTS, ("wrong.janet", "(no-such-function)")]);
    folder.janet(&["-k", "arguments.janet"]).printed("");
    let wrong = folder.janet(&["--flycheck", "wrong.janet"]);
    let told = "error: wrong.janet:1:1: compile error: unknown symbol no-such-function";
    assert_eq!(wrong.errors.lines().next(), Some(told), "{wrong:?}");
}

#[test]
fn modules_and_where_they_are_found() {
    let folder = Folder::new("modules", &[MODULE, MAIN]);
    folder.janet(&["-l", "./module", "main.janet", "x"]).printed("loaded\ntop\n(\"main.janet\" \"x\")\n");
    let here = folder.path("");
    folder.janet(&["-m", &here, "-l", "module", "-e", "(print `on`)"]).printed("loaded\non\n");
    folder.janet(&["-m", &here, "-e", "(import module) (print module/value)"]).printed("loaded\n5\n");
    folder.janet(&["--syspath", "/x", "-e", "(print (dyn :syspath))"]).printed("/x\n");
    let missing = folder.janet(&["-l", "module"]);
    missing.failed("", "error: could not find module module:");

    let mut command = folder.command(RINGSPUN, &["janet", "-e", "(import module) (print (dyn :syspath))"]);
    command.env("JANET_PATH", &here);
    run(&mut command, "").printed(&format!("loaded\n{here}\n"));
    // Not where the VM was built, but where Janet installs modules by default.
    folder.janet(&["-e", "(print (dyn *syspath*))"]).printed("/usr/local/lib/janet\n");
}

#[test]
fn images_are_made_and_run() {
    let folder = Folder::new("images", &[MAIN]);
    folder.janet(&["-c", "main.janet", "main.jimage"]).printed("top\n");
    fs::remove_file(folder.path("main.janet")).unwrap();
    folder.janet(&["-i", "main.jimage", "x"]).printed("(\"main.jimage\" \"x\")\n");
    folder.janet(&["--image", "main.jimage"]).printed("(\"main.jimage\")\n");
    let copy = "(pp (keys (load-image (slurp `main.jimage`))))";
    assert!(folder.janet(&["-e", copy]).output.contains("main"));
}

#[test]
fn a_session_on_a_pipe() {
    let folder = Folder::new("session", &[MODULE, ("lines", "one\ntwo")]);
    let input =
        "(+ 1 2)\n(def x\n  5)\n(print \"x is \" x)\n(no-such-function)\n(error \"raised\")\n(* x _)\n";
    let expected = "3\n5\nx is 5\nnil\n";
    let raw = "repl:1:> 3\nrepl:2:> repl:3:(> 5\nrepl:4:> x is 5\nnil\nrepl:5:> repl:6:> repl:7:> repl:8:> ";
    // Only `-s` prompts where nobody can see it.
    for (flags, expected) in [
        (&["-q"][..], expected),
        (&["-q", "-s"], raw),
        (&["--quiet", "--stdin"], raw),
        (&["-q", "-n"], expected),
        (&["-q", "-r"], expected),
    ] {
        let session = folder.janet_with_input(flags, input);
        assert_eq!((session.status, session.output.as_str()), (Some(0), expected), "{flags:?} {session:?}");
        for error in ["compile error: unknown symbol no-such-function\n", "error: raised\n"] {
            assert!(session.errors.contains(error), "{flags:?} {session:?}");
        }
    }
    let loud = folder.janet_with_input(&[], "1\n");
    assert!(loud.output.starts_with("Janet 1."), "{loud:?}");
    let after = folder.janet_with_input(&["-q", "-e", "(def z 7)", "-r"], "(print z)\n");
    assert_eq!(after.output, "7\nnil\n", "{after:?}");
    let after = folder.janet_with_input(&["-q", "-r", "module.janet"], ":on\n");
    assert_eq!(after.output, "loaded\ntool\n:on\n", "{after:?}");
    let ended = folder.janet_with_input(&["-q"], "(os/exit 4)\n(print `never`)\n");
    assert_eq!((ended.status, ended.output.as_str()), (Some(4), ""), "{ended:?}");
    let waiting = "(do (ev/sleep 0.001) (ev/spawn (print `spawned`)) (ev/sleep 0) :slept)\n";
    let waited = folder.janet_with_input(&["-q"], waiting);
    assert_eq!(waited.output, "spawned\n:slept\n", "{waited:?}");
    // The lines are those of `stdin`, whoever reads them.
    let shared = "(file/read stdin :line)\nnot code\n(getline `no prompt`)\nnor this\n(length (getline))\n";
    let shared = folder.janet_with_input(&["-q"], shared);
    assert_eq!(shared.output, "@\"not code\\n\"\n@\"nor this\\n\"\n0\n", "{shared:?}");
    let code =
        "(with-dyns [:in (file/open `lines`)] (pp (getline)) (pp (getline \"\" @`over`)) (pp (getline)))";
    folder.janet(&["-e", code]).printed("@\"one\\n\"\n@\"two\"\n@\"\"\n");
}

#[test]
fn colours_and_the_debugger() {
    let folder = Folder::new("debugger", &[]);
    let coloured = folder.janet_with_input(&["-q", "-N"], "5\n").output;
    assert!(coloured.contains("\u{1b}["), "{coloured:?}");
    let plain = folder.janet_with_input(&["-q", "-n"], "5\n").output;
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    let session = folder.janet_with_input(&["-q", "-d"], "(error `x`)\n(.fiber)\n(quit)\n:after\n");
    assert!((session.output.clone() + &session.errors).contains("entering debug[1]"), "{session:?}");
    assert!(session.output.contains(":after"), "{session:?}");
}

#[test]
fn a_profile_is_for_sessions() {
    let folder = Folder::new("profile", &[("profile.janet", "(def from-profile 42)"), ARGUMENTS]);
    let with_profile = |flags: &[&str]| {
        let mut command = folder.command(RINGSPUN, &[&["janet", "-q"], flags].concat());
        command.env("JANET_PROFILE", folder.path("profile.janet"));
        run(&mut command, "from-profile\n")
    };
    assert_eq!(with_profile(&[]).output, "42\n");
    for flag in ["-R", "--noprofile"] {
        let without = with_profile(&[flag]);
        assert_eq!(without.output, "", "{without:?}");
        assert!(without.errors.contains("unknown symbol from-profile"), "{without:?}");
    }
}

#[test]
fn warnings_of_the_compiler() {
    let folder = Folder::new("warnings", &[("old.janet", "(defn f {:deprecated :normal} [] 1) (f)")]);
    let warned = folder.janet(&["old.janet"]);
    assert!(warned.errors.contains("f is deprecated"), "{warned:?}");
    folder.janet(&["-w", "none", "old.janet"]).printed("");
    assert_ne!(folder.janet(&["-x", "normal", "old.janet"]).status, Some(0));
}

#[test]
fn a_reader_that_leaves_ends_a_program() {
    let folder = Folder::new("reader", &[]);
    let line = format!("{RINGSPUN} janet -e '(forever (print :line))' | head -n 1");
    run(&mut folder.command("sh", &["-c", &line]), "").printed("line\n");
}

/// What a program sees of itself, and of what it starts in the same way.
const STARTS_ITSELF: &str = r#"
    (def janet (dyn *executable*))
    (defn main [script &opt depth]
      (def depth (scan-number (or depth "0")))
      (print "depth " depth " " (= script (dyn *current-file*)))
      (flush)
      (if (< depth 3)
        (os/exit (+ 1 (os/execute [janet (dyn *current-file*) (string (+ 1 depth))])))))
"#;

#[test]
fn a_program_starts_itself() {
    let folder = Folder::new("itself", &[("itself.janet", STARTS_ITSELF)]);
    let expected = "depth 0 true\ndepth 1 true\ndepth 2 true\ndepth 3 true\n";
    folder.janet(&["itself.janet"]).exited(3, expected);
    folder.ringspun(&["itself.janet"]).exited(3, expected);
    symlink(RINGSPUN, folder.path("janet")).unwrap();
    run(&mut folder.command(&folder.path("janet"), &["itself.janet"]), "").exited(3, expected);
    let mut by_name = folder.command("sh", &["-c", "exec janet itself.janet"]);
    by_name.env("PATH", format!("{}:/usr/bin:/bin", folder.path("")));
    run(&mut by_name, "").exited(3, expected);
}

#[test]
fn the_executable_is_what_was_called() {
    let folder = Folder::new("executable", &[]);
    let code = "(print (dyn *executable*)) (print (= (dyn :executable) (dyn *executable*)))";
    folder.janet(&["-e", code]).printed(&format!("{RINGSPUN}\ntrue\n"));
    let link = folder.path("janet");
    symlink(RINGSPUN, &link).unwrap();
    let expected = format!("{link}\ntrue\n");
    run(&mut folder.command(&link, &["-e", code]), "").printed(&expected);
    run(&mut folder.command("sh", &["-c", "exec ./janet -e \"$0\"", code]), "").printed(&expected);
    // By its name alone, it is looked for where the shell has found it.
    let called = |path: &str| {
        let mut command = folder.command(RINGSPUN, &["-e", code]);
        run_as_janet(&mut command, path)
    };
    called(&format!("/nowhere:{}:/usr/bin", folder.0.display())).printed(&expected);
    called("/usr/bin:/bin").printed(&format!("{RINGSPUN}\ntrue\n"));
}

/// Runs a command under the name `janet`, without any folder, with this `PATH`.
fn run_as_janet(command: &mut Command, path: &str) -> Ended {
    command.arg0("janet").env("PATH", path);
    run(command, "")
}

#[test]
fn a_program_called_janet_is_janet_altogether() {
    let folder = Folder::new("called_janet", &[("doctor", "(print `a script called doctor`)"), ARGUMENTS]);
    let link = folder.path("janet");
    symlink(RINGSPUN, &link).unwrap();
    let janet = |arguments: &[&str], input: &str| run(&mut folder.command(&link, arguments), input);
    janet(&["-e", "(print 1)"], "").printed("1\n");
    janet(&["doctor"], "").printed("a script called doctor\n");
    assert!(janet(&["-h"], "").output.contains("--eval (-e) code"));
    janet(&["-v"], "").printed(&folder.janet(&["-v"]).output);
    assert_eq!(janet(&["-q"], "(+ 1 2)\n").output, "3\n");
    assert!(janet(&[], "(+ 1 2)\n").output.ends_with("\n3\n"));
    janet(&["serve"], "").failed("", "error: could not find file serve");

    fs::write(folder.path("script"), "#!/usr/bin/env janet\n(pp (dyn :args))").unwrap();
    let mut script = folder.command("sh", &["-c", "chmod +x script && ./script x"]);
    script.env("PATH", format!("{}:/usr/bin:/bin", folder.0.display()));
    run(&mut script, "").printed("@[\"./script\" \"x\"]\n");
}

#[test]
fn our_own_commands_stay_ours() {
    let folder = Folder::new("ours", &[ARGUMENTS]);
    let vm = folder.janet(&["-v"]).output;
    let version = format!("ringspun {} (Janet {})\n", env!("CARGO_PKG_VERSION"), vm.trim_end());
    folder.ringspun(&["--version"]).printed(&version);
    folder.ringspun(&["-V"]).printed(&version);
    for flag in ["-h", "--help", "help"] {
        assert!(folder.ringspun(&[flag]).output.contains("Usage: ringspun [OPTIONS] <COMMAND>"), "{flag}");
    }
    // From within a Janet program too.
    let code = "(os/execute [(dyn *executable*) `doctor` `--json`])";
    assert!(folder.janet(&["-e", code]).output.starts_with('{'));
    // Neither a command, nor a flag, nor a file.
    for arguments in [&[][..], &["no-such-file.janet"], &["."]] {
        let ended = folder.ringspun(arguments);
        assert_eq!(ended.status, Some(2), "{arguments:?} {ended:?}");
        assert!(ended.errors.contains("Usage: ringspun"), "{arguments:?} {ended:?}");
    }
}

#[test]
fn flags_of_janet_and_files_need_no_word() {
    let folder = Folder::new("no_word", &[ARGUMENTS]);
    folder.ringspun(&["-e", "(print 1)"]).printed("1\n");
    folder.ringspun(&["-q", "-e", "(print 1)"]).printed("1\n");
    folder.ringspun(&["-v"]).printed(&folder.janet(&["-v"]).output);
    folder
        .ringspun(&["arguments.janet", "-h"])
        .printed("@[\"arguments.janet\" \"-h\"]\n\"arguments.janet\"\n");
    folder.ringspun(&["--", "arguments.janet"]).printed("@[\"arguments.janet\"]\n\"arguments.janet\"\n");
    run(&mut folder.command(RINGSPUN, &["/dev/stdin"]), "(print `from standard input`)")
        .printed("from standard input\n");
}

#[test]
fn what_janet_starts_is_janet() {
    let folder = Folder::new("children", &[ARGUMENTS]);
    let starts = |arguments: &str| {
        let code = format!("(os/exit (os/execute [(dyn *executable*) {arguments}]))");
        folder.janet_with_input(&["-e", &code], "(+ 1 2)\n")
    };
    starts("`-e` `(print 1) (os/exit 6)`").exited(6, "1\n");
    starts("`janet` `-e` `(print 1)`").printed("1\n");
    starts("`arguments.janet` `x`").printed("@[\"arguments.janet\" \"x\"]\n\"arguments.janet\"\n");
    starts("`missing.janet`").failed("", "error: could not find file missing.janet");
    starts("`-v`").printed(&folder.janet(&["-v"]).output);
    assert!(starts("`-h`").output.contains("--eval (-e) code"));
    assert!(starts("`--version`").output.starts_with("1."));
    assert_eq!(starts("`-q`").output, "3\n");
    let session = starts("");
    assert!(session.output.starts_with("Janet 1.") && session.output.ends_with("\n3\n"), "{session:?}");
    // And what that starts.
    starts("`-e` ``(os/execute [(dyn *executable*) `-e` `(print 2)`])``").printed("2\n");
}

#[test]
fn signals_that_others_send_end_a_program_as_in_stock() {
    for name in ["SIGSEGV", "SIGBUS", "SIGUSR1", "SIGPIPE", "SIGABRT"] {
        let signal: nix::sys::signal::Signal = name.parse().unwrap();
        let program = "(def listener (net/listen \"127.0.0.1\" \"0\")) (print :runs) (flush) (ev/sleep 3600)";
        for net in ["ring", "stock"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
            command.args(["janet", "-e", program]).env("RINGSPUN_NET", net).stdout(Stdio::piped());
            let mut janet = command.spawn().unwrap();
            let mut line = [0; 5];
            janet.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(janet.id().try_into().unwrap()), signal)
                .unwrap();
            assert_eq!(janet.wait().unwrap().signal(), Some(signal as i32), "{name}, {net}");
        }
    }
}

#[test]
fn children_with_pipes() {
    let folder = Folder::new("pipes", &[]);
    let code = r#"
        (def child (os/spawn [(dyn *executable*) "-q" "-s"] :p {:in :pipe :out :pipe :err :pipe}))
        (ev/write (child :in) "(def x 20)\n(* 2 x)\n(eprint `to err`)\n(os/exit 9)\n")
        (:close (child :in))
        (def [output errors] (ev/gather (ev/read (child :out) :all) (ev/read (child :err) :all)))
        (prin output)
        (prin errors)
        (os/exit (os/proc-wait child))
    "#;
    folder.janet(&["-e", code]).exited(9, "repl:1:> 20\nrepl:2:> 40\nrepl:3:> nil\nrepl:4:> to err\n");
    // Many at once.
    let code = r#"
        (def janet (dyn *executable*))
        (defn child [number]
          (def process (os/spawn [janet "-e" (string "(print (* 10 " number "))")] :p {:out :pipe}))
          (def output (ev/read (process :out) :all))
          [(os/proc-wait process) (string/trim output)])
        (def answers (ev/chan 10))
        (for number 0 4 (ev/spawn (ev/give answers (child number))))
        (pp (sort (seq [_ :range [0 4]] (ev/take answers))))
    "#;
    folder.janet(&["-e", code]).printed("@[(0 \"0\") (0 \"10\") (0 \"20\") (0 \"30\")]\n");
}

#[test]
fn children_with_an_environment_of_their_own() {
    let folder = Folder::new("environment", &[ARGUMENTS]);
    let starts = |arguments: &str, environment: &str| {
        let code = format!("(os/exit (os/execute [(dyn *executable*) {arguments}] :e {environment}))");
        folder.janet_with_input(&["-e", &code], "(+ 1 2)\n")
    };
    let shown = "`-e` `(print (os/getenv \"ONLY\")) (os/exit 5)`";
    starts(shown, "{`ONLY` `this`}").exited(5, "this\n");
    starts("`arguments.janet` `x`", "{}").printed("@[\"arguments.janet\" \"x\"]\n\"arguments.janet\"\n");
    starts("`-v`", "{}").printed(&folder.janet(&["-v"]).output);
    assert_eq!(starts("`janet` `-q`", "{}").output, "3\n");
    // These are ours now, because nothing tells that Janet is meant.
    assert_eq!(starts("", "{}").status, Some(2));
    assert!(starts("`-h`", "{}").output.contains("Usage: ringspun [OPTIONS] <COMMAND>"));
    // The environment that is passed on by hand is as good as the one that is inherited.
    assert_eq!(starts("`-q`", "(os/environ)").output, "3\n");
    // A link called janet needs no environment at all.
    symlink(RINGSPUN, folder.path("janet")).unwrap();
    let code = "(os/exit (os/execute [(dyn *executable*) `-q`] :e {}))";
    let session = run(&mut folder.command(&folder.path("janet"), &["-e", code]), "(+ 1 2)\n");
    assert_eq!((session.status, session.output.as_str()), (Some(0), "3\n"), "{session:?}");
}

#[test]
fn children_by_the_shell_and_in_the_background() {
    let folder = Folder::new("shell", &[]);
    let code = r#"
        (print (os/shell (string (dyn *executable*) " -e '(os/exit 3)'")))
        (def server (net/listen "127.0.0.1" "0"))
        (def [host port] (net/localname server))
        (def child
          (os/spawn [(dyn *executable*) "-e"
                     (string/format "(with [c (net/connect %q %q)] (net/write c (string `from ` (ringspun/backend))))"
                                    host port)]
                    :p))
        (with [peer (net/accept server)] (print (= (string `from ` (ringspun/backend)) (string (net/read peer :all)))))
        (print (os/proc-wait child))
    "#;
    folder.janet(&["-e", code]).printed("768\ntrue\n0\n");
}
