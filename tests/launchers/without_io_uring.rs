//! Runs a command to which the kernel refuses io_uring, as container runtimes and older kernels do:
//!
//! ```text
//! without-io-uring EPERM|ENOSYS COMMAND [ARGUMENTS]
//! ```
//!
//! A seccomp filter answers `io_uring_setup(2)` with the error, in the command and all that it starts
//! (`seccomp(2)`). `WITHOUT_IO_URING` in its environment names the error, so that tests know what to expect.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [errno, command, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: without-io-uring EPERM|ENOSYS COMMAND [ARGUMENTS]");
        return ExitCode::from(2);
    };
    eprintln!("without-io-uring: {}", run(&errno.to_string_lossy(), command, rest));
    ExitCode::FAILURE
}

/// Becomes the command; returns only to say why that failed.
#[cfg(target_os = "linux")]
fn run(errno: &str, command: &std::ffi::OsStr, arguments: &[std::ffi::OsString]) -> String {
    use std::os::unix::process::CommandExt;

    let number = match errno {
        "EPERM" => libc::EPERM,
        "ENOSYS" => libc::ENOSYS,
        other => return format!("{other}: expected EPERM or ENOSYS"),
    };
    if let Err(error) = refuse(libc::SYS_io_uring_setup as u32, number as u32) {
        return format!("the filter was not taken: {error}");
    }
    let error = std::process::Command::new(command).args(arguments).env("WITHOUT_IO_URING", errno).exec();
    format!("{}: {error}", command.to_string_lossy())
}

/// Has a system call answered with an error from now on.
#[cfg(target_os = "linux")]
fn refuse(system_call: u32, errno: u32) -> std::io::Result<()> {
    let step = |code: u32, jump_if_true, jump_if_false, value| libc::sock_filter {
        code: code as u16,
        jt: jump_if_true,
        jf: jump_if_false,
        k: value,
    };
    let number_offset = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, number_offset),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, system_call),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which is alive; nothing else is pointed to.
    let taken = unsafe {
        // Without this, only a privileged process may install filters.
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if taken { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn run(_: &str, _: &std::ffi::OsStr, _: &[std::ffi::OsString]) -> String {
    "there is no io_uring to refuse on this system".to_string()
}
