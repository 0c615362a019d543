//! Embedding: make a VM, run a string, a file or the whole `janet` command line, run its loop.

use std::cell::Cell;
use std::ffi::{CStr, OsStr, OsString};
use std::fmt;
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::api as janet;
use crate::api::{Janet, JanetFiber, JanetTable};

use crate::bridge::Bridge;
use crate::embedded::{self, Value};
use crate::hooks;
use crate::inquiry::{Asked, Inquirer, fiber_of};
use crate::lines::{self, GETLINE, LineEditor};
use crate::making::EXTRA_OPTIONS_DOC;
use crate::modules::{self, entry_of, register};
use crate::parked::forget_spare;
use crate::replacements::{BACKEND, REPLACEMENTS, STOCK_BACKEND};
use crate::stalls;
use crate::stock::{self, Replacement};
use crate::values::{keyword, string, symbol, text_of};

/// The environment variable that chooses between the ring and the VM's own net code.
const NET_VARIABLE: &str = "RINGSPUN_NET";

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// The release of the VM and the revision of its sources, such as `1.41.2-0fea20c8`.
///
/// ```
/// assert!(ringspun_janet::vm_version().starts_with("1."));
/// ```
#[must_use]
pub fn vm_version() -> &'static str {
    // SAFETY: a terminated text of letters and digits, which never changes.
    unsafe { CStr::from_ptr(janet::ringspun_vm_version()) }.to_str().unwrap_or_default()
}

/// The implementation of a VM's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// Ours, on the ring.
    Ring,
    /// The VM's own, for comparison.
    Stock,
}

impl Net {
    /// The value of `RINGSPUN_NET`: `stock`, or `ring`, which is the default.
    ///
    /// # Errors
    ///
    /// [`VmError`], naming any other value.
    pub fn from_environment() -> Result<Self, VmError> {
        match std::env::var(NET_VARIABLE).as_deref() {
            Err(std::env::VarError::NotPresent) | Ok("" | "ring") => Ok(Self::Ring),
            Ok("stock") => Ok(Self::Stock),
            other => {
                let value = other.map_or_else(|error| error.to_string(), str::to_string);
                Err(VmError(format!("{NET_VARIABLE}={value}: expected \"ring\" or \"stock\"")))
            }
        }
    }
}

/// A Janet VM on this thread. Dropping it ends the VM, and closes the streams that its programs left open.
///
/// Its loop blocks the thread; Rust fibers of the same thread do not run meanwhile.
///
/// # Panics
///
/// None of its methods panics. An error that Janet code does not catch is printed with its stack trace,
/// as the VM does, and is the method's error.
#[derive(Debug)]
pub struct Vm {
    environment: *mut JanetTable,
    asked: Asked,
    /// The VM lives in thread-local variables.
    not_send: PhantomData<*mut ()>,
}

/// Why a VM could not be made, or what Janet code failed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmError(String);

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for VmError {}

impl Vm {
    /// Makes a VM with the net code that [`Net::from_environment`] gives.
    ///
    /// # Errors
    ///
    /// As [`with_net`](Self::with_net), and for a bad value in the environment.
    pub fn new() -> Result<Self, VmError> {
        Self::with_net(Net::from_environment()?)
    }

    /// Makes a VM. Its event loop is made when a socket is first used; if none can be made, as when
    /// descriptors have run out, that use raises an error with the cause.
    ///
    /// # Errors
    ///
    /// If this thread has a VM already, or the VM cannot start.
    pub fn with_net(net: Net) -> Result<Self, VmError> {
        if RUNNING.replace(true) {
            return Err(VmError("a Janet VM runs on this thread already".to_string()));
        }
        // From here on, dropping it ends the VM.
        // SAFETY: no VM is on this thread.
        if unsafe { janet::janet_init() } != 0 {
            RUNNING.set(false);
            return Err(VmError("the Janet VM could not be started".to_string()));
        }
        let asked = Asked::this_thread();
        stalls::note_vm();
        let mut vm = Self { environment: std::ptr::null_mut(), asked, not_send: PhantomData };
        vm.environment = core_environment(net)?;
        Ok(vm)
    }

    /// Runs a whole `janet` command line: flags, script and arguments, REPL. `executable` is what
    /// programs see as `(dyn *executable*)`. Returns the exit status.
    ///
    /// Modules are looked for where `-m` and `JANET_PATH` say. Without those, they are in the installation that
    /// `executable` is part of: in `PREFIX/lib/janet` if that exists and `executable` is in `PREFIX/bin`, as called or
    /// where links lead; otherwise in `/usr/local/lib/janet`.
    ///
    /// # Errors
    ///
    /// If the VM has no command line. What a program fails with is printed, and shows in the exit status.
    pub fn command_line(&mut self, executable: &OsStr, arguments: &[OsString]) -> Result<i32, VmError> {
        let modules = modules_beside(Path::new(executable));
        // SAFETY: the VM runs on this thread, and collects nothing before the fiber is scheduled.
        let fiber = unsafe {
            janet::janet_table_put(self.environment, keyword("executable"), os_string(executable));
            if let Some(modules) = modules {
                janet::janet_table_put(self.environment, keyword("syspath"), os_string(modules.as_os_str()));
            }
            let list = janet::janet_array(0);
            for argument in arguments {
                janet::janet_array_push(list, os_string(argument));
            }
            self.fiber(c"cli-main", &[janet::janet_wrap_array(list)])?
        };
        // SAFETY: a new fiber.
        Ok(unsafe { run_rooted(fiber) }.0)
    }

    /// Evaluates Janet source text, runs the loop until nothing is left to do, and returns the last
    /// value as `string` shows it.
    ///
    /// # Errors
    ///
    /// The error of the code.
    pub fn run_string(&mut self, source: &str) -> Result<String, VmError> {
        self.call(c"eval-string", &[string(source)])
    }

    /// Runs a file as [`run_string`](Self::run_string) runs text; its value is its environment.
    ///
    /// # Errors
    ///
    /// The error of the code, or of reading the file.
    pub fn run_file(&mut self, path: impl AsRef<Path>) -> Result<String, VmError> {
        self.call(c"dofile", &[os_string(path.as_ref().as_os_str())])
    }

    /// Sets the line editor of `getline`, and so of the REPL, for terminals: if standard input is one, and can move its
    /// cursor according to `TERM`. Without an editor, the prompt is printed, and the terminal's own line editing is
    /// used. Other input is read without a prompt.
    ///
    /// The threads that Janet code starts have no editor.
    pub fn set_line_editor(&mut self, editor: impl LineEditor + 'static) {
        lines::set_editor(Some(Box::new(editor)));
    }

    /// Defines a function of Rust code in the core environment, for all code that is compiled after. It gets nil,
    /// booleans, numbers and texts; an error is raised in Janet, as is a panic. It blocks the VM while it runs, and
    /// must not use the VM.
    ///
    /// # Errors
    ///
    /// If the name is no symbol.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_janet::{Value, Vm};
    ///
    /// let mut vm = Vm::new().unwrap();
    /// let double = |arguments: &[Value]| match arguments {
    ///     [Value::Number(number)] => Ok(Value::Number(2.0 * number)),
    ///     other => Err(format!("expected a number, got {} arguments", other.len())),
    /// };
    /// vm.define("double", "(double number)\n\nTwice the number.", double).unwrap();
    /// assert_eq!(vm.run_string("(double 21)").unwrap(), "42");
    /// ```
    pub fn define(
        &mut self,
        name: &str,
        documentation: &str,
        function: impl Fn(&[Value]) -> Result<Value, String> + 'static,
    ) -> Result<(), VmError> {
        match is_symbol(name) && embedded::define(self.environment, name, documentation, Rc::new(function)) {
            true => Ok(()),
            false => {
                Err(VmError(format!("{name:?} cannot be defined: expected a symbol, such as send-mail")))
            }
        }
    }

    /// Runs the loop until nothing is left to do: no fiber is ready, and none waits for a timer, a socket
    /// or a thread.
    pub fn run_loop(&mut self) {
        // SAFETY: the VM runs on this thread and no Janet code does.
        unsafe { janet::janet_loop() };
    }

    /// By which other threads ask what the fibers of this VM wait for.
    pub fn inquirer(&self) -> Inquirer {
        self.asked.inquirer()
    }

    fn call(&mut self, function: &CStr, arguments: &[Janet]) -> Result<String, VmError> {
        let fiber = self.fiber(function, arguments)?;
        // SAFETY: a new fiber.
        let (status, text) = unsafe { run_rooted(fiber) };
        if status == janet::JANET_STATUS_DEAD { Ok(text) } else { Err(VmError(text)) }
    }

    /// A new fiber that calls a function of the core environment.
    fn fiber(&self, function: &CStr, arguments: &[Janet]) -> Result<*mut JanetFiber, VmError> {
        let missing = || VmError(format!("this Janet VM has no {}", function.to_string_lossy()));
        // SAFETY: the VM runs on this thread, with this environment.
        unsafe { fiber_of(self.environment, function, arguments) }.ok_or_else(missing)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.asked.end();
        if let Some(bridge) = Bridge::current()
            && let Err(error) = bridge.let_go_of_vm()
        {
            tracing::error!(%error, "the ring of a Janet VM could not be turned");
        }
        // SAFETY: the VM runs on this thread and no Janet code does. Its streams are collected, which
        // the bridge hears of.
        unsafe { janet::janet_deinit() };
        lines::set_editor(None);
        RUNNING.set(false);
        embedded::forget_functions();
        forget_spare();
        Bridge::end_of_vm();
    }
}

/// Whether a name can be that of a function: letters, digits, and what Janet's own names have besides.
fn is_symbol(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/?!*<>=+%&.".contains(&byte);
    name.bytes().next().is_some_and(|first| !first.is_ascii_digit()) && name.bytes().all(is_part)
}

/// The folder for modules of the installation that an executable belongs to.
fn modules_beside(executable: &Path) -> Option<PathBuf> {
    let modules = |executable: &Path| {
        let programs = executable.parent().filter(|folder| folder.ends_with("bin"))?;
        Some(programs.parent()?.join("lib/janet")).filter(|folder| folder.is_dir())
    };
    modules(executable).or_else(|| modules(&executable.canonicalize().ok()?))
}

/// Makes the core environment, with our functions in it before any of its code refers to the VM's own.
fn core_environment(net: Net) -> Result<*mut JanetTable, VmError> {
    const BACKEND_DOC: &CStr =
        c"(ringspun/backend)\n\nWhich code serves this thread's sockets, as a keyword: \
        the name of Ringspun's backend, or :stock for Janet's own.";
    let mut functions = vec![GETLINE];
    let backend = match net {
        Net::Ring => {
            stock::remember(&REPLACEMENTS)
                .map_err(|name| VmError(format!("this Janet VM has no {}", name.to_string_lossy())))?;
            hooks::install();
            functions.extend(REPLACEMENTS);
            BACKEND
        }
        Net::Stock => STOCK_BACKEND,
    };
    // SAFETY: a function that lives as long as the process.
    unsafe { janet::ringspun_install_getline(GETLINE.function) };
    // SAFETY: the VM was started on this thread; names are terminated and static, functions are shims.
    unsafe {
        let replacements = janet::janet_table(0);
        for replacement in &functions {
            let value = janet::janet_wrap_cfunction(Some(replacement.function));
            janet::janet_table_put(replacements, symbol(replacement.name), value);
        }
        let environment = janet::janet_core_env(replacements);
        for replacement in &functions {
            register(replacement, std::ptr::null_mut(), std::ptr::null());
            if let Some(entry) = entry_of(environment, replacement.name) {
                janet::janet_table_put(entry, keyword("source-map"), source_map(replacement));
            }
        }
        register(&backend, environment, BACKEND_DOC.as_ptr());
        if let (Net::Ring, Some(entry)) = (net, entry_of(environment, c"net/setsockopt")) {
            let documentation = text_of(janet::janet_table_get(entry, keyword("doc")));
            janet::janet_table_put(entry, keyword("doc"), string(&(documentation + EXTRA_OPTIONS_DOC)));
        }
        modules::announce(environment).map_err(|text| VmError(text.to_string()))?;
        Ok(environment)
    }
}

/// The source location of a function, in the format of environment entries.
fn source_map(replacement: &Replacement) -> Janet {
    let line = i32::try_from(replacement.line).unwrap_or(0);
    // SAFETY: the VM runs on this thread, and copies the values.
    unsafe {
        let file = string(&replacement.source().to_string_lossy());
        let place = [file, janet::janet_wrap_integer(line), janet::janet_wrap_integer(1)];
        janet::janet_wrap_tuple(janet::janet_tuple_n(place.as_ptr(), 3))
    }
}

/// Runs a fiber and the loop until nothing is left to do, and returns the fiber's status and last value. The fiber is a
/// root meanwhile: the loop may continue, and collect garbage, long after the fiber has ended.
///
/// # Safety
///
/// A new fiber of this thread's VM, on which no Janet code runs.
unsafe fn run_rooted(fiber: *mut JanetFiber) -> (i32, String) {
    // SAFETY: as the caller says.
    unsafe {
        let root = janet::janet_wrap_fiber(fiber);
        janet::janet_gcroot(root);
        let status = janet::janet_loop_fiber(fiber);
        let text = text_of((*fiber).last_value);
        janet::janet_gcunroot(root);
        (status, text)
    }
}

/// A Janet string of the bytes of an operating-system string.
fn os_string(text: &OsStr) -> Janet {
    let bytes = text.as_bytes();
    let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    // SAFETY: copies `length` bytes, all of which are there.
    unsafe { janet::janet_wrap_string(janet::janet_string(bytes.as_ptr(), length)) }
}
