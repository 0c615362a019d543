//! Fibers that may borrow from the code that starts them, which does not go on before they have ended.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::task::Poll;

use ringspun_runtime::Wake;

use crate::group::Group;
use crate::interrupt::Interrupt;
use crate::join::JoinHandle;
use crate::spawn::FiberBuilder;
use crate::wait::{check, failed_at_once, is_fiber, pending_interrupt, wait_for_completion};
use crate::wait_reason::WaitReason;

/// Runs `function` with a scope, in which fibers may borrow from outside of the scope, as threads in
/// [`std::thread::scope`]. Returns the result of `function` once all fibers of the scope have ended: whether it returns
/// or panics, whether their handles were joined, dropped or forgotten.
///
/// The fibers end together: once `function` panics, or the calling fiber is interrupted while it waits for their ends
/// (a cancel, a deadline, the end of the runtime), the fibers of the scope are cancelled for good, as at the end of a
/// runtime: every wait of theirs is interrupted, and one that ignores a thousand interrupts is unwound
/// ([`Runtime::run`](crate::Runtime::run)). The caller goes on waiting for their ends; its own interrupt stays pending,
/// for its next wait, and a [`timeout`](crate::timeout) whose time it was says that it has elapsed. [`Scope::cancel`]
/// does the same on request.
///
/// # Panics
///
/// With the panic of `function`; otherwise with that of the first fiber of the scope that panicked and whose handle was
/// dropped without a join.
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
///
/// fibers::run(|| {
///     let texts = vec![String::from("one"), String::from("three")];
///     let mut longest = 0;
///     let total: usize = fibers::scope(|scope| {
///         let lengths: Vec<_> = texts.iter().map(|text| scope.spawn(|| text.len()).unwrap()).collect();
///         scope.spawn(|| longest = texts.iter().map(String::len).max().unwrap()).unwrap();
///         lengths.into_iter().map(|length| length.join().unwrap()).sum()
///     });
///     // All of them have ended: what they borrowed is free.
///     assert_eq!((total, longest), (8, 5));
///     drop(texts);
/// })
/// .unwrap();
/// ```
///
/// # Soundness
///
/// A fiber of a scope ends before the scope does, or it never runs again and its stack is leaked. So it may borrow what
/// outlives the scope, and nothing else:
///
/// ```compile_fail,E0373
/// // What belongs to the function itself ends before the scope.
/// ringspun_fibers::run(|| {
///     ringspun_fibers::scope(|scope| {
///         let inside = String::new();
///         scope.spawn(|| inside.len()).unwrap();
///     });
/// });
/// ```
///
/// ```compile_fail,E0499
/// // Two fibers cannot both change the same.
/// ringspun_fibers::run(|| {
///     let mut sum = 0;
///     ringspun_fibers::scope(|scope| {
///         scope.spawn(|| sum += 1).unwrap();
///         scope.spawn(|| sum += 1).unwrap();
///     });
/// });
/// ```
///
/// ```compile_fail,E0505
/// // What is borrowed cannot go away in the scope.
/// ringspun_fibers::run(|| {
///     let text = String::new();
///     ringspun_fibers::scope(|scope| {
///         scope.spawn(|| text.len()).unwrap();
///         drop(text);
///     });
/// });
/// ```
///
/// ```compile_fail,E0521
/// // Neither the scope nor a handle whose result borrows can leave the scope.
/// ringspun_fibers::run(|| {
///     let text = String::new();
///     let mut kept = None;
///     ringspun_fibers::scope(|scope| kept = Some(scope));
/// });
/// ```
///
/// ```compile_fail,E0597
/// // A result cannot borrow what ends before it is joined.
/// ringspun_fibers::run(|| {
///     let handle;
///     {
///         let text = String::new();
///         handle = ringspun_fibers::scope(|scope| scope.spawn(|| &text).unwrap());
///     }
///     handle.join().unwrap();
/// });
/// ```
pub fn scope<'env, T>(function: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T) -> T {
    let scope = Scope { group: Rc::default(), scope: PhantomData, env: PhantomData };
    // Unwind safe: the panic goes on below.
    let result = catch_unwind(AssertUnwindSafe(|| function(&scope)));
    let group = &scope.group;
    if result.is_err() {
        group.cancel();
    }
    if group.len() > 0 {
        // Does not return before the last member has left, whatever interrupts it, and does not unwind: no closure
        // panics, and the caller is a fiber, or there would be no members.
        let reason =
            |_: &bool| WaitReason::new("the end of", format_args!("{} fibers of a scope", group.len()));
        let interrupted = |was_interrupted: &mut bool| {
            *was_interrupted = true;
            group.cancel();
        };
        let mut was_interrupted = false;
        wait_for_completion(&mut was_interrupted, |_, waiter| poll_end(group, waiter), interrupted, reason);
        if was_interrupted && result.is_ok() {
            note_interrupt();
        }
    }
    match (result, group.take_panic()) {
        (Ok(value), None) => value,
        (Err(payload), _) | (Ok(_), Some(payload)) => resume_unwind(payload),
    }
}

/// Has a [`timeout`](crate::timeout) around the scope know that it has ended the scope's fibers, and a runtime that
/// ends that one scope follows the other. Where neither is so, the interrupt stays pending.
fn note_interrupt() {
    match pending_interrupt() {
        Some(Interrupt::Cancelled) => failed_at_once(),
        // A deadline remains, as long as its block does.
        _ => drop(check()),
    }
}

fn poll_end(group: &Group, waiter: &Rc<dyn Wake>) -> Poll<()> {
    #[cfg(feature = "mutations")]
    if ringspun_runtime::simulation::mutated(ringspun_runtime::simulation::Mutation::ScopeLeft)
        && crate::wait::pending_interrupt().is_some()
    {
        return Poll::Ready(());
    }
    group.poll_empty(waiter)
}

/// A scope of fibers that may borrow, from [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    group: Rc<Group>,
    /// Invariant in both, as in the standard library: a longer scope would let fibers borrow what ends earlier.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

impl<'scope> Scope<'scope, '_> {
    /// Starts a fiber in the scope. It may itself start others in it.
    ///
    /// # Errors
    ///
    /// As [`FiberBuilder::spawn`], and `Unsupported` outside of a fiber, or in one that panics, which cannot wait for
    /// the end of others.
    pub fn spawn<T: 'scope>(
        &'scope self,
        function: impl FnOnce() -> T + 'scope,
    ) -> io::Result<JoinHandle<T>> {
        self.spawn_with(FiberBuilder::new(), function)
    }

    /// As [`spawn`](Self::spawn), with settings of its own.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    pub fn spawn_with<T: 'scope>(
        &'scope self,
        builder: FiberBuilder,
        function: impl FnOnce() -> T + 'scope,
    ) -> io::Result<JoinHandle<T>> {
        if !is_fiber() || std::thread::panicking() {
            let text = "a scope can only be waited for in a fiber that does not panic";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let member = self.group.reserve();
        // SAFETY: what the function and its result borrow outlives 'scope, which ends after `scope` has seen the last
        // member leave: the fiber that called it has not gone on before. Where members are started, it can wait:
        // members exist only if it is a fiber, as the calls of its own function come from it, and if it did not panic
        // when it began to wait, as it catches the panic of its function.
        let spawned = unsafe { builder.spawn_member(&member, function) };
        if spawned.is_err() {
            member.leave();
        }
        spawned
    }

    /// Cancels all fibers of the scope for good, and those that are started later: every wait of theirs is interrupted.
    /// Does not wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringspun_fibers::{self as fibers, Interrupt};
    ///
    /// fibers::run(|| {
    ///     fibers::scope(|scope| {
    ///         let sleepers = [1, 2].map(|_| scope.spawn(|| fibers::sleep(Duration::MAX)).unwrap());
    ///         scope.cancel();
    ///         for sleeper in sleepers {
    ///             assert_eq!(sleeper.join().unwrap(), Err(Interrupt::Cancelled));
    ///         }
    ///     });
    /// })
    /// .unwrap();
    /// ```
    pub fn cancel(&self) {
        self.group.cancel();
    }

    /// How many fibers of the scope have not ended.
    pub fn len(&self) -> usize {
        self.group.len()
    }

    /// Whether all fibers of the scope have ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("len", &self.len()).finish()
    }
}
