//! The `ringspun` command.

use std::ffi::OsString;
fn main() -> std::process::ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    args.drain(..2);
    let exe = std::env::current_exe().unwrap();
    let status = ringspun_janet::Vm::new().unwrap().command_line(exe.as_os_str(), &args).unwrap();
    std::process::ExitCode::from(status as u8)
}
