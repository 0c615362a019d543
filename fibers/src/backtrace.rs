//! The return addresses on the running fiber's stack.

use std::ops::Range;

/// More frames than this of a stack are not looked at.
pub(crate) const FRAMES_MAX: usize = 96;
/// What looking at a stack may need of it: the unwinder, and the first call of each of its functions.
pub(crate) const ROOM_SIZE_BYTES: usize = 12 * 1024;

/// The return addresses of the running fiber, the innermost first, as far as they are on the stack with these
/// addresses. `None` if there is too little room left on it.
#[inline(never)]
pub(crate) fn return_addresses(stack: Range<usize>) -> Option<Box<[usize]>> {
    let here = 0_u8;
    let room = (&raw const here).addr().checked_sub(stack.start)?;
    (room >= ROOM_SIZE_BYTES).then(|| unwind::addresses(stack))
}

/// Notes the return addresses on the stack with these addresses, and returns how many: for the handler of a signal,
/// which runs on another stack, and interrupts code on that one. Takes no memory.
#[cfg(target_os = "linux")]
pub(crate) fn addresses_above(stack: Range<usize>, addresses: &mut [usize; FRAMES_MAX]) -> usize {
    unwind::addresses_above(stack, addresses)
}

#[cfg(not(target_arch = "arm"))]
mod unwind {
    use std::ffi::{c_int, c_void};
    use std::ops::Range;

    use super::FRAMES_MAX;

    const CONTINUE: c_int = 0;
    const STOP: c_int = 4;

    // The unwinder of the platform, which the standard library links for panics.
    unsafe extern "C" {
        fn _Unwind_Backtrace(
            each: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
            argument: *mut c_void,
        ) -> c_int;
        fn _Unwind_GetIP(context: *mut c_void) -> usize;
        fn _Unwind_GetCFA(context: *mut c_void) -> usize;
    }

    struct Found {
        stack: Range<usize>,
        addresses: [usize; FRAMES_MAX],
        count: usize,
    }

    pub(super) fn addresses(stack: Range<usize>) -> Box<[usize]> {
        let mut found = Found { stack, addresses: [0; FRAMES_MAX], count: 0 };
        // SAFETY: the function gets what it expects, and neither unwinds nor keeps it. The unwinder only reads.
        unsafe { _Unwind_Backtrace(each, (&raw mut found).cast()) };
        found.addresses[..found.count].into()
    }

    #[cfg(target_os = "linux")]
    struct Above<'a> {
        stack: Range<usize>,
        addresses: &'a mut [usize; FRAMES_MAX],
        count: usize,
    }

    #[cfg(target_os = "linux")]
    pub(super) fn addresses_above(stack: Range<usize>, addresses: &mut [usize; FRAMES_MAX]) -> usize {
        let mut above = Above { stack, addresses, count: 0 };
        // SAFETY: as in `addresses`.
        unsafe { _Unwind_Backtrace(each_above, (&raw mut above).cast()) };
        above.count
    }

    #[cfg(target_os = "linux")]
    extern "C" fn each_above(context: *mut c_void, above: *mut c_void) -> c_int {
        // SAFETY: what `addresses_above` has passed, which lives until the unwinder has returned.
        let above = unsafe { &mut *above.cast::<Above<'_>>() };
        // SAFETY: the unwinder's context, during its call.
        let (address, frame) = unsafe { (_Unwind_GetIP(context), _Unwind_GetCFA(context)) };
        let is_on_it = above.stack.contains(&frame);
        if above.count == FRAMES_MAX || (!is_on_it && above.count > 0) {
            return STOP;
        }
        if is_on_it {
            above.addresses[above.count] = address;
            above.count += 1;
        }
        CONTINUE
    }

    extern "C" fn each(context: *mut c_void, found: *mut c_void) -> c_int {
        // SAFETY: what `addresses` has passed, which lives until the unwinder has returned.
        let found = unsafe { &mut *found.cast::<Found>() };
        // SAFETY: the unwinder's context, during its call.
        let (address, frame) = unsafe { (_Unwind_GetIP(context), _Unwind_GetCFA(context)) };
        // Above the stack of the fiber there is that of its scheduler.
        if found.count == FRAMES_MAX || !found.stack.contains(&frame) {
            return STOP;
        }
        found.addresses[found.count] = address;
        found.count += 1;
        CONTINUE
    }
}

/// Its unwinder has no functions for this.
#[cfg(target_arch = "arm")]
mod unwind {
    pub(super) fn addresses(_: std::ops::Range<usize>) -> Box<[usize]> {
        Box::default()
    }

    #[cfg(target_os = "linux")]
    pub(super) fn addresses_above(_: std::ops::Range<usize>, _: &mut [usize; super::FRAMES_MAX]) -> usize {
        0
    }
}
