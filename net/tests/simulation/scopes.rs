//! Random trees of scopes: none may be left while a fiber borrows from it, whatever is cancelled, panics, expires or
//! ends.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers as fibers;

use crate::context::Context;

/// The payload of a panic that is part of the workload.
struct Deliberate;

/// What the fibers of one scope use. Counted, so that a scope that is left too early, as by the mutation, is found
/// before memory is read that has been freed.
#[derive(Default)]
struct Used {
    users: Cell<u32>,
}

struct User(Rc<Used>);

impl User {
    fn new(used: &Rc<Used>) -> Self {
        used.users.set(used.users.get() + 1);
        Self(used.clone())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.0.users.set(self.0.users.get() - 1);
    }
}

pub fn run(context: &Rc<Context>) {
    let roots: Vec<_> = (0..context.between(1, 4))
        .map(|_| context.spawn_victim("root", |context| live(context, &Rc::new(Cell::new(40)), 0)))
        .collect();
    let trouble = context.spawn_trouble();
    for root in roots {
        context.join(&root);
    }
    trouble.cancel();
    context.join(&trouble);
    context.wait_for_all_but(2);
}

/// A scope, whose fibers may have scopes of their own. `left` fibers may still be made.
fn live(context: &Rc<Context>, left: &Rc<Cell<u32>>, depth: u32) {
    let used = Rc::new(Used::default());
    let run = || in_scope(context, left, &used, depth);
    let ended = catch_unwind(AssertUnwindSafe(|| match context.chance(300) {
        true => drop(fibers::timeout(context.duration(), run)),
        false => run(),
    }));
    let users = used.users.get();
    context.check(users == 0, || format!("a scope was left while {users} fibers borrowed from it"));
    context.tally("scopes", 1);
    if let Err(payload) = ended {
        match payload.is::<Deliberate>() {
            true => context.tally("panics", 1),
            // How a fiber is unwound that ignores the end of its scope.
            false => resume_unwind(payload),
        }
    }
}

fn in_scope(context: &Rc<Context>, left: &Rc<Cell<u32>>, used: &Rc<Used>, depth: u32) {
    fibers::scope(|scope| {
        for _ in 0..context.between(0, 4) {
            if left.get() == 0 || context.is_ending() {
                break;
            }
            left.set(left.get() - 1);
            let (context, left, used) = (context.clone(), left.clone(), used.clone());
            let (in_fiber, in_left) = (context.clone(), left.clone());
            let spawned = scope.spawn(move || {
                let _user = User::new(&used);
                act(&in_fiber, &in_left, depth);
            });
            let Ok(handle) = spawned else { return context.fail("no fiber can be made".into()) };
            context.tally("fibers", 1);
            match context.below(6) {
                // Kept until the end of the run, as if it were forgotten.
                0 => context.may_cancel(Rc::new(handle)),
                1 => {
                    handle.cancel();
                    context.tally("cancels", 1);
                }
                2 => drop(handle.join()),
                3 => drop(fibers::timeout(context.duration(), || handle.join())),
                _ => {}
            }
            context.nap();
        }
        match context.below(8) {
            0 => scope.cancel(),
            1 => resume_unwind(Box::new(Deliberate)),
            _ => {}
        }
    });
}

fn act(context: &Rc<Context>, left: &Rc<Cell<u32>>, depth: u32) {
    match context.below(8) {
        0 => resume_unwind(Box::new(Deliberate)),
        1 => drop(fibers::timeout(context.duration() * 4, || fibers::sleep(Duration::MAX))),
        2..=4 if depth < 4 => live(context, left, depth + 1),
        5 => context.nap(),
        _ => drop(fibers::sleep(context.duration())),
    }
}
