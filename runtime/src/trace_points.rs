//! Places that tracers such as bpftrace, perf, SystemTap and gdb can watch in a running process: static probes (USDT)
//! of the provider `ringspun`. Each is one instruction that does nothing, and a note in the program's file.

#[doc(hidden)]
pub use ::probe::probe as usdt;

/// A place with a name and arguments, which are integers. For the crates of this workspace.
#[doc(hidden)]
#[macro_export]
macro_rules! trace_point {
    ($name:ident $(, $argument:expr)*) => {
        // Miri takes no assembly.
        #[cfg(not(miri))]
        $crate::trace_points::usdt!(ringspun, $name $(, $argument)*)
    };
}
