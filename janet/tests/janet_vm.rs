//! The embedding API: what a VM returns and raises, where VMs can live, and how their C code was built.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ringspun_janet::{Net, Vm};

/// Far longer than anything here takes; only a hang comes to it.
const HANG: Duration = Duration::from_secs(60);

fn ring() -> Vm {
    Vm::with_net(Net::Ring).unwrap()
}

/// A connection to a port of this machine.
fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_string_has_the_value_of_its_last_form() {
    let mut vm = ring();
    assert_eq!(vm.run_string("(def x 20) (def y 22) (+ x y)").as_deref(), Ok("42"));
    assert_eq!(vm.run_string("\"a string\"").as_deref(), Ok("a string"));
    assert_eq!(vm.run_string(":keyword").as_deref(), Ok("keyword"));
    assert_eq!(vm.run_string("(string/repeat \"long \" 1000)").as_deref(), Ok("long ".repeat(1000).as_str()));
    assert_eq!(vm.run_string("").as_deref(), Ok(""));
}

#[test]
fn definitions_stay_from_one_string_to_the_next() {
    let mut vm = ring();
    vm.run_string("(def answer 42) (defn twice [x] (* 2 x))").unwrap();
    assert_eq!(vm.run_string("(twice answer)").as_deref(), Ok("84"));
}

#[test]
fn a_string_waits_for_all_that_it_started() {
    let mut vm = ring();
    vm.run_string("(var steps 0) (ev/spawn (ev/sleep 0.01) (++ steps) (ev/sleep 0) (++ steps)) :started")
        .unwrap();
    assert_eq!(vm.run_string("steps").as_deref(), Ok("2"));
    vm.run_loop();
}

#[test]
fn an_error_is_returned_and_leaves_the_vm_as_it_was() {
    let mut vm = ring();
    for (source, text) in [
        ("(error \"on purpose\")", "on purpose"),
        ("(error :keyword)", "keyword"),
        ("(ev/sleep 0) (error \"after a wait\")", "after a wait"),
        ("(net/read 5 5)", "bad slot #0, expected core/stream, got 5"),
        ("(net/connect \"127.0.0.1\" \"no-such-service\")", "could not get address info: "),
    ] {
        let error = vm.run_string(source).unwrap_err().to_string();
        assert!(error.starts_with(text), "{source}: {error}");
    }
    for source in ["(", ")", "(undefined-function)"] {
        assert!(vm.run_string(source).is_err(), "{source}");
    }
    assert_eq!(vm.run_string("(+ 1 2)").as_deref(), Ok("3"));
}

/// The stock VM's loop may stop for good.
#[test]
fn timeouts_beyond_all_time_never_come_or_have_passed() {
    let program = r#"
        (def listener (net/listen "127.0.0.1" "0"))
        (defn ends [timeout] (try (ev/with-deadline 0.01 (net/accept listener timeout)) ([error] error)))
        (string/join (map ends [1e300 1e18 -1e300 math/nan]) ", ")
    "#;
    let expected = "deadline expired, deadline expired, timeout, timeout";
    assert_eq!(ring().run_string(program).as_deref(), Ok(expected));
}

#[test]
fn a_file_runs_with_its_definitions_to_itself() {
    let folder = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    fs::create_dir_all(&folder).unwrap();
    let (file, missing) = (format!("{folder}/file.janet"), format!("{folder}/no-such-file.janet"));
    let output = format!("{folder}/file.output");
    fs::write(&file, format!("(def secret 42)\n(ev/sleep 0.001)\n(spit {output:?} (string secret))"))
        .unwrap();
    let mut vm = ring();
    assert!(vm.run_file(&file).unwrap().starts_with("<table "));
    assert_eq!(fs::read_to_string(output).unwrap(), "42");
    assert!(vm.run_string("secret").is_err());
    let error = vm.run_file(missing).unwrap_err().to_string();
    assert!(error.contains("no-such-file.janet"), "{error}");
}

#[test]
fn a_command_line_sees_its_arguments_and_its_program() {
    let folder = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    fs::create_dir_all(&folder).unwrap();
    let (script, output) = (format!("{folder}/arguments.janet"), format!("{folder}/arguments.output"));
    let source = format!("(spit {output:?} (string/format \"%q %q\" (dyn :args) (dyn :executable)))");
    fs::write(&script, source).unwrap();
    let command_line = |arguments: &[&str]| {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        ring().command_line(OsStr::new("/path/of/program"), &arguments).unwrap()
    };
    assert_eq!(command_line(&[&script, "an argument", "-e"]), 0);
    let expected = format!("@[{script:?} \"an argument\" \"-e\"] \"/path/of/program\"");
    assert_eq!(fs::read_to_string(output).unwrap(), expected);
    assert_eq!(command_line(&["no-such-file.janet"]), 1);
}

#[test]
fn a_thread_has_one_vm_at_a_time() {
    let vm = ring();
    let error = Vm::new().unwrap_err().to_string();
    assert_eq!(error, "a Janet VM runs on this thread already");
    drop(vm);
    assert_eq!(ring().run_string("(+ 1 2)").as_deref(), Ok("3"));
}

/// A program that asks its own server for an answer.
const ASKS_ITSELF: &str = r#"
    (def server
      (net/server "127.0.0.1" "0"
        (fn [connection]
          (net/write connection (string "answer to " (net/read connection 100)))
          (:close connection))))
    (def [host port] (net/localname server))
    (def answers
      (seq [number :range [0 20]]
        (with [client (net/connect host port)]
          (net/write client (string number))
          (string (net/read client :all)))))
    (:close server)
    (last answers)
"#;

#[test]
fn a_thread_can_have_one_vm_after_another() {
    let asked_for = std::env::var("RINGSPUN_BACKEND").is_ok_and(|backend| backend == "poll");
    // scripts/test refuses io_uring in some of its runs.
    let refused = std::env::var_os("WITHOUT_IO_URING").is_some();
    let backend = if asked_for || refused { "poll" } else { "io_uring" };
    for (net, backend) in [
        (Net::Ring, backend),
        (Net::Ring, backend),
        (Net::Stock, "stock"),
        (Net::Ring, backend),
        (Net::Stock, "stock"),
    ] {
        let mut vm = Vm::with_net(net).unwrap();
        assert_eq!(vm.run_string("(ringspun/backend)").as_deref(), Ok(backend));
        assert_eq!(vm.run_string(ASKS_ITSELF).as_deref(), Ok("answer to 19"));
    }
}

#[test]
fn threads_have_vms_of_their_own() {
    let threads: Vec<_> = [Net::Ring, Net::Ring, Net::Stock, Net::Ring]
        .map(|net| thread::spawn(move || Vm::with_net(net).unwrap().run_string(ASKS_ITSELF)))
        .into();
    for thread in threads {
        assert_eq!(thread.join().unwrap().as_deref(), Ok("answer to 19"));
    }
}

#[test]
fn vms_on_two_threads_talk_to_each_other() {
    let (sender, receiver) = mpsc::channel();
    let server = thread::spawn(move || {
        let mut vm = ring();
        let port =
            vm.run_string("(def listener (net/listen \"127.0.0.1\" \"0\")) ((net/localname listener) 1)");
        sender.send(port.unwrap()).unwrap();
        vm.run_string(
            "(with [peer (net/accept listener)]
               (net/write peer (string \"you said \" (net/read peer 100))))",
        )
    });
    let port = receiver.recv_timeout(HANG).unwrap();
    let answer = ring().run_string(&format!(
        "(with [client (net/connect \"127.0.0.1\" {port})]
           (net/write client \"hello\")
           (string (net/read client :all)))",
    ));
    assert_eq!(answer.as_deref(), Ok("you said hello"));
    assert_eq!(server.join().unwrap().as_deref(), Ok(""));
}

#[test]
fn the_end_of_a_vm_closes_what_it_had_open() {
    let mut vm = ring();
    let port = vm.run_string("(def listener (net/listen \"127.0.0.1\" \"0\")) ((net/localname listener) 1)");
    let port = port.unwrap().parse().unwrap();
    let mut stream = connect(port);
    vm.run_string("(def peer (net/accept listener)) (net/write peer \"before the end\")").unwrap();
    drop(vm);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before the end");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody listens any more");
}

#[test]
fn a_vm_may_end_while_a_connection_is_unread_or_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut vm = ring();
    vm.run_string(&format!("(def unread (net/connect \"127.0.0.1\" {port}))")).unwrap();
    let (mut unread, _) = listener.accept().unwrap();
    vm.run_string(&format!("(def reset (net/connect \"127.0.0.1\" {port}))")).unwrap();
    let (reset, _) = listener.accept().unwrap();
    unread.write_all(&[0; 100_000]).unwrap();
    vm.run_string("(net/read unread 10) (net/write reset \"never read\")").unwrap();
    drop(reset);
    drop(vm);
    ring().run_string(ASKS_ITSELF).unwrap();
}

#[test]
fn vms_that_come_and_go_keep_no_descriptors() {
    // Other tests of this process open descriptors as well, so what leaks has to stand out.
    const ROUNDS: usize = 100;
    ring().run_string(ASKS_ITSELF).unwrap();
    let before = open_descriptors();
    for _ in 0..ROUNDS {
        ring().run_string("(def listener (net/listen \"127.0.0.1\" \"0\"))").unwrap();
    }
    let after = open_descriptors();
    assert!(after < before + ROUNDS, "{before} descriptors before, {after} after");
}

/// In every profile: the build script asks the C compiler for it.
#[test]
fn the_c_code_of_the_vm_is_optimised() {
    unsafe extern "C" {
        fn janet_wrap_boolean(value: std::ffi::c_int) -> u64;
    }
    #[cfg(target_arch = "x86_64")]
    assert!(!stores_its_argument(janet_wrap_boolean as *const u8));
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = janet_wrap_boolean;
        println!("SKIPPED: what optimised code looks like on this architecture is not known");
    }
}

/// Whether a small function of one `int` begins by storing it to its stack frame, `mov [rbp-n], edi`, as
/// compilers have it do only when they do not optimise.
#[cfg(target_arch = "x86_64")]
fn stores_its_argument(function: *const u8) -> bool {
    const PROLOGUE_SIZE_BYTES: usize = 24;
    const STORE_ARGUMENT: [u8; 2] = [0x89, 0x7d];
    // SAFETY: code can be read, and other functions of the VM lie behind this one.
    let prologue = unsafe { std::slice::from_raw_parts(function, PROLOGUE_SIZE_BYTES) };
    prologue.windows(STORE_ARGUMENT.len()).any(|bytes| bytes == STORE_ARGUMENT)
}

#[test]
fn modules_are_where_janet_installs_them() {
    for net in [Net::Ring, Net::Stock] {
        let mut vm = Vm::with_net(net).unwrap();
        assert_eq!(vm.run_string("(dyn *syspath*)").as_deref(), Ok("/usr/local/lib/janet"), "{net:?}");
    }
}

/// In stack traces, and in what `doc` shows.
#[test]
fn functions_of_ours_have_a_place_in_the_source() {
    let mut vm = ring();
    let listed = vm
        .run_string(
            r#"(string/join (seq [[name entry] :pairs root-env
                               :let [[file line] (get entry :source-map ["" 0])]
                               :when (string/has-prefix? "janet/src/" file)]
                  (string name " " file " " line)) "\n")"#,
        )
        .unwrap();
    let functions: Vec<Vec<&str>> = listed.lines().map(|line| line.split(' ').collect()).collect();
    assert!(functions.len() > 20, "{listed}");
    for function in functions {
        let [name, file, line] = function[..] else { panic!("{listed}") };
        let path = format!("{}/../{file}", env!("CARGO_MANIFEST_DIR"));
        let source = std::fs::read_to_string(&path).unwrap();
        let line: usize = line.parse().unwrap();
        let text = source.lines().nth(line - 1).unwrap();
        assert!(text.contains("Replacement"), "{file}:{line}: {text}");
        assert!(source.contains(&format!("c\"{name}\"")), "{file} has no {name}");
        // With too many arguments for any of them.
        let trace = vm.run_string(&format!(
            r#"(let [fiber (fiber/new (fn [] ({name} ;(range 9))) :e)]
                 (resume fiber)
                 (def frame (first (debug/stack fiber)))
                 (string/format "%s %s %d" (frame :name) (frame :source) (frame :source-line)))"#
        ));
        assert_eq!(trace, Ok(format!("{name} {file} {line}")));
    }
}
