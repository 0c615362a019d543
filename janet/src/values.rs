//! Conversion of Rust values to Janet's, and the verdicts of our functions for their shims.

use std::ffi::CStr;
use std::io;
use std::panic::{self, AssertUnwindSafe};

use crate::api as janet;
use crate::api::Janet;
use ringspun_net::Address;

/// What the outermost shim does with its Janet frame. Plain data: a `longjmp` may skip its drop.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    /// Return this value.
    Return(Janet),
    /// Raise this value as an error.
    Raise(Janet),
    /// Yield to the event loop, which will resume the fiber.
    Await,
}

/// Calls code that may panic, such as an embedder's; returns a panic as an error for Janet.
pub(crate) fn catch_panic<T>(call: impl FnOnce() -> T) -> Result<T, Janet> {
    panic::catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let text = match payload.downcast_ref::<&str>() {
            Some(text) => Some(*text),
            None => payload.downcast_ref::<String>().map(String::as_str),
        };
        let error = string(&format!("panicked: {}", text.unwrap_or("non-string panic payload")));
        // If dropping the payload panics too, leak it.
        let dropped = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)));
        dropped.unwrap_or_else(std::mem::forget);
        error
    })
}

pub(crate) fn nil() -> Janet {
    // SAFETY: makes an immediate value.
    unsafe { janet::janet_wrap_nil() }
}

/// A Janet string. The VM must be running on this thread.
pub(crate) fn string(text: &str) -> Janet {
    let length = i32::try_from(text.len()).unwrap_or(i32::MAX);
    // SAFETY: copies `length` bytes, all of which are in `text`.
    unsafe { janet::janet_wrap_string(janet::janet_string(text.as_ptr(), length)) }
}

/// The kernel's text for an error, which is what stock Janet raises.
pub(crate) fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    // Without the number, which the standard library adds and stock Janet does not show.
    let number = error.raw_os_error().map(|errno| format!(" (os error {errno})"));
    number.and_then(|number| text.strip_suffix(&number).map(str::to_string)).unwrap_or(text)
}

pub(crate) fn error_string(error: &io::Error) -> Janet {
    string(&error_text(error))
}

/// An error of ours with the kernel's reason behind it.
pub(crate) fn explained(what: &str, error: &io::Error) -> Janet {
    string(&format!("{what}: {}", error_text(error)))
}

/// The key under which the core image knows a function.
pub(crate) fn symbol(name: &CStr) -> Janet {
    // SAFETY: the name is terminated; the VM copies it.
    unsafe { janet::janet_wrap_symbol(janet::janet_csymbol(name.as_ptr())) }
}

/// A Janet symbol of any text. The VM must be running on this thread.
pub(crate) fn symbol_of(name: &str) -> Janet {
    let Ok(length) = i32::try_from(name.len()) else { return nil() };
    // SAFETY: copies `length` bytes, all of which are in `name`.
    unsafe { janet::janet_wrap_symbol(janet::janet_symbol(name.as_ptr(), length)) }
}

/// A Janet keyword. The VM must be running on this thread.
pub(crate) fn keyword(name: &str) -> Janet {
    let Ok(length) = i32::try_from(name.len()) else { return nil() };
    // SAFETY: copies `length` bytes, all of which are in `name`.
    unsafe { janet::janet_wrap_keyword(janet::janet_symbol(name.as_ptr(), length)) }
}

/// Whether a value is this keyword.
pub(crate) fn keyword_is(value: Janet, name: &CStr) -> bool {
    // SAFETY: compares the bytes of a live value with a terminated name.
    unsafe { janet::janet_keyeq(value, name.as_ptr()) != 0 }
}

/// A tuple of strings.
pub(crate) fn strings(texts: &[&str]) -> Janet {
    let values: Vec<Janet> = texts.iter().map(|text| string(text)).collect();
    let count = i32::try_from(values.len()).unwrap_or(0);
    // SAFETY: copies `count` values, all of which are there.
    unsafe { janet::janet_wrap_tuple(janet::janet_tuple_n(values.as_ptr(), count)) }
}

/// An address, as a value of the VM's own type.
pub(crate) fn address_value(address: &Address) -> Janet {
    let bytes = address.as_bytes();
    // SAFETY: the new value has room for the bytes.
    unsafe {
        let place = janet::janet_abstract(&raw const janet::janet_address_type, bytes.len());
        place.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        janet::janet_wrap_abstract(place)
    }
}

/// An argument that is an address, or the VM's error about it.
///
/// # Safety
///
/// Called by a shim that has checked that the argument is there.
pub(crate) unsafe fn address_argument(arguments: *mut Janet, index: i32) -> Address {
    // SAFETY: as the caller says; a value of this type has as many bytes as the VM says.
    let bytes = unsafe {
        let place = janet::janet_getabstract(arguments, index, &raw const janet::janet_address_type);
        std::slice::from_raw_parts(place.cast::<u8>(), abstract_size_bytes(place))
    };
    match Address::from_bytes(bytes) {
        Some(address) => address,
        // SAFETY: only plain data is alive.
        None => unsafe { janet::janet_panic(c"unknown address family".as_ptr()) },
    }
}

/// How many bytes the value of an abstract type has.
unsafe fn abstract_size_bytes(place: *mut std::ffi::c_void) -> usize {
    // SAFETY: the caller has a live value, in front of which the VM keeps its head.
    unsafe { (*janet::janet_abstract_head(place)).size }
}

/// The bytes of a buffer, a string, a symbol or a keyword; `None` for anything else.
///
/// # Safety
///
/// The value is alive for as long as the slice, and nothing changes it meanwhile.
#[inline]
pub(crate) unsafe fn bytes_of<'a>(value: Janet) -> Option<&'a [u8]> {
    // SAFETY: the caller's value is alive, and laid out as its type says.
    let (bytes, length) = unsafe {
        match value.kind() {
            janet::JANET_BUFFER => {
                let buffer: *mut janet::JanetBuffer = value.address();
                ((*buffer).data.cast_const(), (*buffer).count)
            }
            janet::JANET_STRING | janet::JANET_SYMBOL | janet::JANET_KEYWORD => {
                let bytes: *mut u8 = value.address();
                let head: *const janet::JanetStringHead = bytes.cast_const().cast();
                (bytes.cast_const(), (*head.sub(1)).length)
            }
            _ => return None,
        }
    };
    let length = usize::try_from(length).unwrap_or(0);
    // SAFETY: so many bytes are there; a buffer may have none at all.
    Some(if length == 0 { &[] } else { unsafe { std::slice::from_raw_parts(bytes, length) } })
}

/// A value as Janet's `string` shows it.
pub(crate) fn text_of(value: Janet) -> String {
    // SAFETY: the value is alive, and so is its text until the next collection; a string has bytes, so
    // nothing raises.
    unsafe {
        let text = janet::janet_wrap_string(janet::janet_to_string(value));
        let view = janet::janet_getbytes(&text, 0);
        let length = usize::try_from(view.len).unwrap_or(0);
        String::from_utf8_lossy(std::slice::from_raw_parts(view.bytes, length)).into_owned()
    }
}
