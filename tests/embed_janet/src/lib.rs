//! A plugin in a shared library, which runs a Janet program with sockets.

use ringspun::janet::Vm;

const PROGRAM: &str = r#"
(def server (net/server "127.0.0.1" "0" (fn [connection] (net/write connection "hi") (:close connection))))
(def [host port] (net/localname server))
(def answer (with [connection (net/connect host port)] (net/read connection 9)))
(:close server)
(string answer " by " (ringspun/backend))
"#;

/// What importing a module says that this build does not have.
const WITHOUT_TLS: &str = r#"(try (require "ringspun/tls") ([error] error))"#;

/// Whether a function of the VM begins by storing its argument to its stack frame, `mov [rbp-n], edi`, as compilers
/// have it do only when they do not optimise.
#[cfg(target_arch = "x86_64")]
fn is_optimised() -> bool {
    const PROLOGUE_SIZE_BYTES: usize = 24;
    const STORE_ARGUMENT: [u8; 2] = [0x89, 0x7d];
    unsafe extern "C" {
        fn janet_wrap_boolean(value: i32) -> u64;
    }
    // SAFETY: code can be read, and other functions of the VM lie behind this one.
    let prologue =
        unsafe { std::slice::from_raw_parts(janet_wrap_boolean as *const u8, PROLOGUE_SIZE_BYTES) };
    !prologue.windows(STORE_ARGUMENT.len()).any(|bytes| bytes == STORE_ARGUMENT)
}

#[cfg(not(target_arch = "x86_64"))]
fn is_optimised() -> bool {
    true
}

/// Runs the program and prints its value, whether the VM is optimised, and what it says about TLS.
#[unsafe(no_mangle)]
pub extern "C" fn plug() {
    let ran = Vm::new().and_then(|mut vm| Ok((vm.run_string(PROGRAM)?, vm.run_string(WITHOUT_TLS)?)));
    match ran {
        Ok((value, without_tls)) => println!("{value}, optimised: {}\n{without_tls}", is_optimised()),
        Err(error) => println!("{error}"),
    }
}
