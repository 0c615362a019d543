//! Signals that arrive while fibers wait for them, are cancelled, or look only now and then: none is lost that was
//! asked for, and none comes that was not.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use ringspun_fibers::{self as fibers, Select, Signal, Signals};
use ringspun_net as net;

use crate::context::Context;

/// In the order of their numbers, in which they are taken; the last one ends the watchers.
fn signals() -> [Signal; 5] {
    let urgent = Signal::from_number(libc::SIGURG).expect("a signal");
    [Signal::USR1, Signal::USR2, Signal::CHLD, urgent, Signal::WINCH]
}
const LAST: Signal = Signal::WINCH;

/// Signals that some fibers wait for.
struct Watch {
    signals: Signals,
    wanted: Vec<Signal>,
    /// How often each had arrived when this began.
    before: BTreeMap<Signal, u64>,
    /// How often each has been taken, and how often it had arrived by the last time.
    taken: RefCell<BTreeMap<Signal, (u64, u64)>>,
    is_over: Cell<bool>,
}

pub fn run(context: &Rc<Context>) {
    let (mut watches, mut watchers) = (Vec::new(), Vec::new());
    for _ in 0..context.between(1, 4) {
        let wanted: Vec<_> = signals().into_iter().filter(|it| *it == LAST || context.chance(600)).collect();
        let watch = match Signals::new(&wanted) {
            Ok(signals) => signals,
            Err(error) => return context.fail(format!("signals cannot be waited for: {error}")),
        };
        let arrivals = wanted.iter().map(|signal| (*signal, context.simulation.arrivals(*signal))).collect();
        let (taken, is_over) = (RefCell::default(), Cell::new(false));
        let watch = Rc::new(Watch { signals: watch, wanted, before: arrivals, taken, is_over });
        for _ in 0..context.between(1, 2) {
            let watch = watch.clone();
            watchers.push(context.spawn_victim("watcher", move |context| watch.work(context)));
        }
        watches.push(watch);
    }
    let trouble = context.spawn_trouble();
    for _ in 0..context.between(0, 30) {
        if context.is_ending() {
            return;
        }
        // Several at once, now or later.
        for signal in &signals()[..4] {
            if context.chance(400) {
                context.simulation.raise(*signal);
                context.tally("signals raised", 1);
            }
        }
        context.nap();
    }
    // What was raised has arrived.
    let _ = fibers::sleep(std::time::Duration::from_secs(60));
    context.simulation.raise(LAST);
    for watch in &watches {
        while !watch.is_over.get() && !context.is_ending() {
            let _ = fibers::sleep(std::time::Duration::from_millis(100));
        }
    }
    // Others may wait for the same signals, of which there are no more.
    while !watchers.iter().all(|watcher| watcher.is_finished()) && !context.is_ending() {
        watchers.iter().for_each(|watcher| watcher.cancel());
        let _ = fibers::sleep(std::time::Duration::from_millis(100));
    }
    trouble.cancel();
    context.join(&trouble);
    // The main fiber and this one.
    context.wait_for_all_but(2);
    watches.iter().filter(|_| !context.is_ending()).for_each(|watch| watch.settle(context));
}

impl Watch {
    fn work(&self, context: &Rc<Context>) {
        while !self.is_over.get() && !context.is_ending() {
            let waited = match context.below(6) {
                0 => {
                    context.nap();
                    Ok(self.signals.try_next())
                }
                1 => fibers::with_deadline(context.duration(), || self.signals.wait()).map(Some),
                2 => Select::new()
                    .on(self.signals.next(), |signal| signal.ok())
                    .on(fibers::after(context.duration()), |()| None)
                    .wait()
                    .map_err(Into::into),
                _ => self.signals.wait().map(Some),
            };
            match waited {
                Ok(Some(signal)) => self.take(context, signal),
                Ok(None) => context.nap(),
                Err(error) if net::interrupt_of(&error).is_some() => context.tally("interrupts", 1),
                Err(error) => {
                    return context.check(context.is_ending(), || format!("a wait failed: {error}"));
                }
            }
        }
    }

    fn take(&self, context: &Context, signal: Signal) {
        // Another may have arrived since it was taken, which is taken later.
        let arrivals = context.simulation.arrivals(signal);
        let mut taken = self.taken.borrow_mut();
        let (count, seen) = taken.entry(signal).or_default();
        (*count, *seen) = (*count + 1, arrivals);
        let most = self.before.get(&signal).map_or(0, |before| arrivals - before);
        context.check(*count <= most, || {
            format!("{signal} was taken {count} times, and has arrived {most} times")
        });
        context.tally("signals taken", 1);
        if signal == LAST {
            self.is_over.set(true);
        }
    }

    fn settle(&self, context: &Context) {
        for signal in &self.wanted {
            let arrivals = context.simulation.arrivals(*signal);
            let seen = self.taken.borrow().get(signal).map_or(self.before[signal], |(_, seen)| *seen);
            context.check(seen == arrivals, || format!("{signal} has arrived, and was lost"));
        }
    }
}
