//! A scope is never left with a borrower alive: whatever ends the caller, its function, or the fibers in it.

mod common;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers::sync::Notify;
use ringspun_fibers::{self as fibers, Channel, Interrupt, JoinError, JoinSet, Scope};

use common::{Chance, on_both_stacks, settle, spawn};

const AGES: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(2);

/// What fibers of a scope borrow. It must not go away while one of them does.
#[derive(Default)]
struct Borrowed {
    borrowers: Cell<u32>,
}

struct Borrower<'a>(&'a Borrowed);

impl<'a> Borrower<'a> {
    fn new(borrowed: &'a Borrowed) -> Self {
        borrowed.borrowers.set(borrowed.borrowers.get() + 1);
        Self(borrowed)
    }
}

impl Drop for Borrower<'_> {
    fn drop(&mut self) {
        self.0.borrowers.set(self.0.borrowers.get() - 1);
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if self.borrowers.get() > 0 {
            // A panic here could be one among others.
            eprintln!("what {} fibers borrow goes away", self.borrowers.get());
            std::process::abort();
        }
    }
}

/// Starts fibers that borrow and sleep for ever, and lets them begin.
fn sleepers<'scope>(scope: &'scope Scope<'scope, '_>, borrowed: &'scope Borrowed) {
    for _ in 0..3 {
        let sleeper = scope.spawn(|| {
            let _borrower = Borrower::new(borrowed);
            fibers::sleep(AGES)
        });
        std::mem::forget(sleeper.unwrap());
    }
    match fibers::yield_now() {
        Ok(()) => assert_eq!(borrowed.borrowers.get(), 3),
        // On a slow machine, a deadline has passed before they have begun.
        Err(interrupt) => assert_eq!(interrupt, Interrupt::DeadlineExpired),
    }
}

#[test]
fn fibers_borrow_and_the_scope_waits_for_all_of_them() {
    on_both_stacks(|| {
        let words = ["one", "two", "three"].map(String::from);
        let (mut count, seen) = (0, RefCell::new(Vec::new()));
        let result = fibers::scope(|scope| {
            for word in &words {
                let seen = &seen;
                scope
                    .spawn(move || {
                        fibers::sleep(SOON).unwrap();
                        seen.borrow_mut().push(word.as_str());
                    })
                    .unwrap();
            }
            scope.spawn(|| count += 1).unwrap();
            // A fiber of the scope starts another in it.
            scope.spawn(|| scope.spawn(|| seen.borrow_mut().push("nested")).map(drop).unwrap()).unwrap();
            assert_eq!(scope.len(), 5);
            "the function's own"
        });
        seen.borrow_mut().sort_unstable();
        assert_eq!((result, count), ("the function's own", 1));
        assert_eq!(*seen.borrow(), ["nested", "one", "three", "two"]);
    });
}

#[test]
fn results_may_borrow() {
    on_both_stacks(|| {
        let text = String::from("a b c");
        let words: Vec<&str> = fibers::scope(|scope| {
            let halves = [&text[..2], &text[2..]];
            let split =
                halves.map(|half| scope.spawn(move || half.split_whitespace().collect::<Vec<_>>()).unwrap());
            split.into_iter().flat_map(|words| words.join().unwrap()).collect()
        });
        assert_eq!(words, ["a", "b", "c"]);
    });
}

#[test]
fn a_panic_of_the_function_ends_the_fibers_first() {
    on_both_stacks(|| {
        let borrowed = Borrowed::default();
        let panic = catch_unwind(AssertUnwindSafe(|| {
            fibers::scope(|scope| {
                sleepers(scope, &borrowed);
                resume_unwind(Box::new("of the function"));
            })
        }));
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"of the function"));
        assert_eq!(borrowed.borrowers.get(), 0);
        fibers::sleep(SOON).unwrap();
    });
}

#[test]
fn a_panic_of_a_fiber_comes_out_unless_it_was_joined() {
    on_both_stacks(|| {
        let ended = Cell::new(0);
        let panic = |text: &'static str| move || -> u8 { resume_unwind(Box::new(text)) };
        fibers::scope(|scope| {
            let handle = scope.spawn(panic("joined")).unwrap();
            assert!(matches!(handle.join(), Err(JoinError::Panicked(_))));
        });
        for keeps_handle in [false, true] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                fibers::scope(|scope| {
                    let handle = scope.spawn(panic("not joined")).unwrap();
                    scope.spawn(|| fibers::sleep(SOON).map(|()| ended.set(ended.get() + 1))).unwrap();
                    let handle = keeps_handle.then_some(handle);
                    fibers::yield_now().unwrap();
                    drop(handle);
                })
            }));
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"not joined"));
        }
        assert_eq!(ended.get(), 2, "the others came to their ends");
    });
}

#[test]
fn a_cancel_and_a_deadline_of_the_caller_end_the_fibers_first() {
    on_both_stacks(|| {
        let cancelled = spawn(|| {
            let borrowed = Borrowed::default();
            fibers::scope(|scope| sleepers(scope, &borrowed));
            assert_eq!(borrowed.borrowers.get(), 0);
            fibers::check()
        });
        settle();
        cancelled.cancel();
        assert_eq!(
            cancelled.join().unwrap(),
            Err(Interrupt::Cancelled),
            "the interrupt stays for the next wait"
        );
        let late = fibers::timeout(SOON, || {
            let borrowed = Borrowed::default();
            fibers::scope(|scope| sleepers(scope, &borrowed));
            fibers::check()
        });
        assert_eq!(late, Err(fibers::Elapsed));
    });
}

#[test]
fn fibers_that_ignore_the_cancel_are_unwound_or_stopped_and_the_scope_ends() {
    // One that has to be stopped is reported on standard error.
    fibers::run(|| {
        let borrowed = Rc::new(Borrowed::default());
        let in_scope = borrowed.clone();
        let cancelled = spawn(move || {
            fibers::scope(|scope| {
                sleepers(scope, &in_scope);
                scope
                    .spawn(|| {
                        let _borrower = Borrower::new(&in_scope);
                        loop {
                            let _ = fibers::sleep(AGES);
                        }
                    })
                    .unwrap();
                let caught = &in_scope;
                scope
                    .spawn(move || {
                        let _borrower = Borrower::new(caught);
                        loop {
                            let _ = catch_unwind(|| fibers::sleep(AGES));
                        }
                    })
                    .unwrap();
            });
            in_scope.borrowers.get()
        });
        settle();
        assert_eq!(borrowed.borrowers.get(), 5);
        cancelled.cancel();
        assert_eq!(
            cancelled.join().unwrap(),
            1,
            "only the one that was stopped still counts, and never runs again"
        );
        // Its stack is leaked, so what it borrowed has to be here.
        std::mem::forget(borrowed);
    })
    .unwrap();
}

#[test]
fn the_end_of_the_runtime_ends_the_fibers_first() {
    let borrowed = Rc::new(Borrowed::default());
    let kept = borrowed.clone();
    let left = fibers::run(move || {
        let waits = spawn(move || {
            let on_stack = Borrowed::default();
            fibers::scope(|scope| {
                sleepers(scope, &on_stack);
                fibers::scope(|inner| {
                    sleepers(inner, &borrowed);
                });
            });
        });
        let inside = spawn(|| {
            let on_stack = Borrowed::default();
            fibers::scope(|scope| {
                sleepers(scope, &on_stack);
                let _ = fibers::sleep(AGES);
            });
        });
        settle();
        drop((waits, inside));
        fibers::statistics().unwrap().alive
    });
    assert_eq!(left.unwrap(), 3 + 9);
    assert_eq!((Rc::strong_count(&kept), kept.borrowers.get()), (1, 0));
}

#[test]
fn a_scope_that_cannot_wait_starts_nothing() {
    assert!(fibers::scope(|scope| scope.spawn(|| ()).is_err()), "outside of a runtime");
    fibers::run(|| {
        struct InDrop(Rc<Cell<Option<bool>>>);
        impl Drop for InDrop {
            fn drop(&mut self) {
                self.0.set(Some(fibers::scope(|scope| scope.spawn(|| ()).is_err())));
            }
        }
        let refused = Rc::new(Cell::new(None));
        let in_drop = InDrop(refused.clone());
        let panics = spawn(move || {
            let _in_drop = in_drop;
            resume_unwind(Box::new(()))
        });
        assert!(panics.join().is_err());
        assert_eq!(refused.get(), Some(true), "while it panics");
        // A task of another thread is no fiber.
        let outcomes = Channel::unbounded();
        thread_local!(static OUTCOMES: RefCell<Option<Channel<bool>>> = const { RefCell::new(None) });
        OUTCOMES.set(Some(outcomes.clone()));
        let task = || {
            let refused = fibers::scope(|scope| scope.spawn(|| ()).is_err());
            OUTCOMES.take().unwrap().give(refused).unwrap();
        };
        fibers::remote().unwrap().execute(task).unwrap();
        assert_eq!(outcomes.take(), Ok(true), "in a task");
    })
    .unwrap();
}

/// A random tree of scopes, with cancels, deadlines, panics and forgotten handles.
fn live(chance: &RefCell<Chance>, depth: usize) {
    let below = |bound| chance.borrow_mut().below(bound);
    let borrowed = Borrowed::default();
    let run = || {
        fibers::scope(|scope| {
            for _ in 0..below(4) {
                let borrowed = &borrowed;
                let handle = scope.spawn(move || {
                    let _borrower = Borrower::new(borrowed);
                    match below(6) {
                        0 => drop(fibers::sleep(SOON)),
                        1 => drop(fibers::yield_now()),
                        2 => resume_unwind(Box::new("of a fiber")),
                        _ if depth < 3 => live(chance, depth + 1),
                        _ => drop(fibers::sleep(AGES / 3600)),
                    }
                });
                match (below(5), handle.unwrap()) {
                    (0, handle) => std::mem::forget(handle),
                    (1, handle) => handle.cancel(),
                    (2, handle) => drop(handle.join()),
                    (3, handle) => drop(fibers::timeout(SOON, || handle.join())),
                    _ => {}
                }
            }
            match below(6) {
                0 => scope.cancel(),
                1 => resume_unwind(Box::new("of the function")),
                _ => {}
            }
        });
    };
    let _ = catch_unwind(AssertUnwindSafe(|| match below(3) {
        0 => drop(fibers::timeout(SOON, run)),
        _ => run(),
    }));
    assert_eq!(borrowed.borrowers.get(), 0);
}

#[test]
fn trees_of_scopes_leave_no_borrower() {
    for seed in 0..40 {
        let alive = fibers::run(move || {
            let chance = Rc::new(RefCell::new(Chance::new(seed)));
            let trees: Vec<_> = (0..3)
                .map(|_| {
                    let chance = chance.clone();
                    spawn(move || live(&chance, 0))
                })
                .collect();
            if seed % 4 > 0 {
                trees.into_iter().for_each(|tree| drop(tree.join()));
            }
            fibers::statistics().unwrap().alive
        });
        assert!(alive.unwrap() == 1 || seed % 4 == 0);
    }
}

#[test]
fn a_join_set_gives_results_in_the_order_of_the_ends() {
    on_both_stacks(|| {
        let mut set = JoinSet::new();
        let gates: Vec<_> = (0..4).map(|_| Channel::<()>::bounded(0)).collect();
        for (number, gate) in gates.iter().cloned().enumerate() {
            set.spawn(move || gate.take().map(|()| number)).unwrap();
        }
        set.spawn(|| resume_unwind(Box::new("of a fiber"))).unwrap();
        set.add(spawn(|| Ok(9)));
        assert!(matches!(set.join_next(), Ok(Some(Err(JoinError::Panicked(_))))));
        assert!(matches!(set.join_next(), Ok(Some(Ok(Ok(9))))));
        for number in [2, 0] {
            gates[number].give(()).unwrap();
            assert!(matches!(set.join_next(), Ok(Some(Ok(Ok(ended)))) if ended == number));
        }
        // An interrupted wait loses no result.
        let late = fibers::timeout(SOON, || set.join_next().map(drop));
        assert_eq!(late, Err(fibers::Elapsed));
        assert_eq!(set.len(), 2);
        set.cancel();
        while let Some(ended) = set.join_next().unwrap() {
            assert!(ended.unwrap().is_err());
        }
        assert!(set.is_empty());
    });
}

#[test]
fn a_dropped_join_set_ends_its_fibers_and_a_detached_one_does_not() {
    on_both_stacks(|| {
        let ended = Rc::new(Cell::new(0));
        let gate = Rc::new(Notify::new());
        let fill = || {
            let mut set = JoinSet::new();
            for _ in 0..3 {
                let (ended, gate) = (ended.clone(), gate.clone());
                let stubborn = move || {
                    // Every wait from now on is interrupted, not only one.
                    while gate.wait().is_err() {
                        if fibers::sleep(AGES).is_err() {
                            break;
                        }
                    }
                    ended.set(ended.get() + 1);
                };
                set.spawn(stubborn).unwrap();
            }
            settle();
            set
        };
        drop(fill());
        settle();
        assert_eq!(ended.get(), 3);
        fill().detach();
        settle();
        assert_eq!(ended.get(), 3);
        (0..3).for_each(|_| gate.notify_one());
        settle();
        assert_eq!(ended.get(), 6);
    });
}

#[test]
fn locals_belong_to_a_fiber_and_are_dropped_at_its_end() {
    static NOTES: fibers::FiberLocal<Notes> = fibers::FiberLocal::new(Notes::default);
    thread_local!(static DROPPED: RefCell<Vec<Vec<u32>>> = const { RefCell::new(Vec::new()) });
    #[derive(Default)]
    struct Notes(RefCell<Vec<u32>>);
    impl Drop for Notes {
        fn drop(&mut self) {
            // It is still the fiber that runs, and may wait.
            let _ = fibers::yield_now();
            DROPPED.with_borrow_mut(|dropped| dropped.push(self.0.take()));
        }
    }
    on_both_stacks(|| {
        DROPPED.take();
        let fibers = [1, 2].map(|number| {
            spawn(move || {
                for round in 0..3 {
                    NOTES.with(|notes| {
                        notes.0.borrow_mut().push(10 * number + round);
                        fibers::yield_now().unwrap();
                        NOTES.with(|same| assert!(std::ptr::eq(same, notes)));
                    });
                }
            })
        });
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
        settle();
        assert_eq!(DROPPED.take(), [[10, 11, 12], [20, 21, 22]]);
    });
}

#[test]
fn a_timeout_that_ends_the_fibers_of_a_scope_has_elapsed() {
    on_both_stacks(|| {
        let late = fibers::timeout(SOON, || {
            let borrowed = Borrowed::default();
            fibers::scope(|scope| sleepers(scope, &borrowed));
            "the work was not done"
        });
        assert_eq!(late, Err(fibers::Elapsed));
        // An inner one leaves the outer one alone.
        let outer = fibers::timeout(AGES, || {
            let inner = fibers::timeout(SOON, || {
                fibers::scope(|scope| drop(scope.spawn(|| fibers::sleep(AGES)).unwrap()));
            });
            assert_eq!(inner, Err(fibers::Elapsed));
            fibers::sleep(SOON)
        });
        assert_eq!(outer, Ok(Ok(())));
        let in_time =
            fibers::timeout(AGES, || fibers::scope(|scope| scope.spawn(|| 5).unwrap().join().unwrap()));
        assert_eq!(in_time, Ok(5));
    });
}

/// A fiber that makes one scope after the other ignores an interrupt with each.
#[test]
fn a_runtime_ends_although_a_fiber_goes_on_making_scopes() {
    let rounds = Rc::new(Cell::new(0));
    let counted = rounds.clone();
    fibers::run(move || {
        spawn(move || {
            loop {
                counted.set(counted.get() + 1);
                fibers::scope(|scope| drop(scope.spawn(|| fibers::sleep(AGES)).unwrap()));
            }
        });
        settle();
    })
    .unwrap();
    assert!(rounds.get() < 2000, "{} scopes", rounds.get());
}
