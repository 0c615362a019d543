//! Random trees of fibers that sleep, spawn, join, cancel, panic, give and take, each with deadlines or without.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers::{
    self as fibers, Channel, ChannelError, FiberBuilder, Interrupt, JoinError, JoinHandle, Select,
};

use crate::context::Context;

/// What the fibers of one tree share.
struct Tree {
    context: Rc<Context>,
    nodes: Cell<u64>,
    /// Fibers that may still be made.
    budget: Cell<usize>,
    channels: Vec<Channel<u64>>,
    next_value: Cell<u64>,
    /// Values that a channel has accepted and that have not been taken.
    accepted: RefCell<BTreeSet<u64>>,
    /// Values that were taken before the giver knew that they were accepted.
    early: RefCell<BTreeSet<u64>>,
}

/// A fiber of the tree, and how often it was cancelled.
struct Node {
    number: u64,
    cancels: Rc<Cell<u64>>,
    handle: JoinHandle<u64>,
    never_ends: bool,
}

/// The payload of a panic that is part of the workload.
struct Deliberate(u64);

/// The state of a fiber.
struct Inner {
    number: u64,
    cancels: Rc<Cell<u64>>,
    seen: Cell<u64>,
}

pub fn run(context: &Rc<Context>) {
    let tree = Rc::new(Tree {
        context: context.clone(),
        nodes: Cell::new(0),
        budget: Cell::new(context.between(1, 40)),
        channels: (0..context.between(1, 3)).map(|_| channel(context)).collect(),
        next_value: Cell::new(0),
        accepted: RefCell::default(),
        early: RefCell::default(),
    });
    let mut roots = Vec::new();
    for _ in 0..context.between(1, 4) {
        roots.extend(tree.spawn(0));
        context.nap();
    }
    for root in roots {
        tree.end(root, None);
    }
    // Fibers that wait at a channel find it closed.
    tree.channels.iter().for_each(Channel::close);
    context.wait_for_all_but(2);
    if context.is_ending() {
        return;
    }
    // What has been accepted is still there.
    for channel in &tree.channels {
        while let Ok(value) = channel.take() {
            tree.taken(value);
        }
    }
    let (lost, invented) = (tree.accepted.borrow().len(), tree.early.borrow().len());
    context.check(lost == 0 && invented == 0, || {
        format!("{lost} values that channels accepted were lost, and {invented} taken that none accepted")
    });
    context.tally("fibers", tree.nodes.get());
}

fn channel(context: &Context) -> Channel<u64> {
    match context.between(0, 4) {
        4 => Channel::unbounded(),
        capacity => Channel::bounded(capacity),
    }
}

impl Tree {
    /// Makes a fiber, if there may be another.
    fn spawn(self: &Rc<Self>, depth: usize) -> Option<Node> {
        if self.budget.get() == 0 {
            return None;
        }
        self.budget.set(self.budget.get() - 1);
        let number = self.nodes.get();
        self.nodes.set(number + 1);
        let never_ends = self.context.chance(64);
        let cancels = Rc::new(Cell::new(0));
        let inner = Inner { number, cancels: cancels.clone(), seen: Cell::new(0) };
        let tree = self.clone();
        let spawned = FiberBuilder::new().name("node").spawn(move || {
            match never_ends {
                true => tree.wait_for_cancel(&inner),
                false => tree.live(&inner, depth),
            }
            number
        });
        match spawned {
            Ok(handle) => Some(Node { number, cancels, handle, never_ends }),
            Err(error) => {
                self.context.fail(format!("no fiber can be made: {error}"));
                None
            }
        }
    }

    /// Nothing but a cancel ends this wait.
    fn wait_for_cancel(&self, inner: &Inner) {
        let slept = fibers::sleep(Duration::MAX);
        self.context.check(slept == Err(Interrupt::Cancelled), || format!("an endless sleep gave {slept:?}"));
        self.interrupted(inner, Interrupt::Cancelled, false);
    }

    fn live(self: &Rc<Self>, inner: &Inner, depth: usize) {
        let context = &self.context;
        let mut children = Vec::new();
        for _ in 0..context.between(1, 8) {
            if context.is_ending() {
                return;
            }
            match context.chance(256) {
                true => {
                    let deadline = context.duration();
                    fibers::with_deadline(deadline, || self.act(inner, depth, &mut children, true));
                }
                false => self.act(inner, depth, &mut children, false),
            }
        }
        for child in children {
            // Some are left to themselves.
            if child.never_ends || context.chance(700) {
                self.end(child, Some(inner));
            }
        }
        if context.chance(96) {
            // Unlike a panic of its own, this prints nothing.
            resume_unwind(Box::new(Deliberate(inner.number)));
        }
    }

    fn act(self: &Rc<Self>, inner: &Inner, depth: usize, children: &mut Vec<Node>, has_deadline: bool) {
        let context = &self.context;
        match context.below(8) {
            0 | 1 if depth < 5 => children.extend(self.spawn(depth + 1)),
            2 => self.give(inner, has_deadline),
            3 => self.take(inner, has_deadline),
            4 => self.select(inner, has_deadline),
            5 if !children.is_empty() => {
                let child = &children[context.between(0, children.len() - 1)];
                child.cancels.set(child.cancels.get() + 1);
                child.handle.cancel();
                context.tally("cancels", 1);
            }
            6 => {
                if let Err(interrupt) = fibers::yield_now() {
                    self.interrupted(inner, interrupt, has_deadline);
                }
            }
            _ => self.sleep(inner, has_deadline),
        }
    }

    fn sleep(&self, inner: &Inner, has_deadline: bool) {
        let duration = self.context.duration();
        let before = self.context.simulation.elapsed();
        match fibers::sleep(duration) {
            Ok(()) => {
                let slept = self.context.simulation.elapsed() - before;
                self.context.check(slept >= duration, || format!("slept {slept:?} instead of {duration:?}"));
            }
            Err(interrupt) => self.interrupted(inner, interrupt, has_deadline),
        }
    }

    /// An interrupt has a reason, and each cancel interrupts once at most.
    fn interrupted(&self, inner: &Inner, interrupt: Interrupt, has_deadline: bool) {
        let number = inner.number;
        match interrupt {
            _ if self.context.is_ending() => {}
            Interrupt::Cancelled => {
                inner.seen.set(inner.seen.get() + 1);
                let (seen, cancels) = (inner.seen.get(), inner.cancels.get());
                self.context.check(seen <= cancels, || {
                    format!("fiber {number} was cancelled {cancels} times, and met {seen} interrupts")
                });
                self.context.tally("interrupts", 1);
            }
            _ => {
                self.context.check(has_deadline, || format!("fiber {number} met a deadline that it has not"));
                self.context.tally("deadlines", 1);
            }
        }
    }

    /// Cancels a fiber or not, and waits for its end.
    fn end(&self, child: Node, waiting: Option<&Inner>) {
        if child.never_ends || self.context.chance(200) {
            child.cancels.set(child.cancels.get() + 1);
            child.handle.cancel();
        }
        loop {
            match child.handle.join() {
                Ok(number) => {
                    let expected = child.number;
                    self.context.check(number == expected, || format!("{number} instead of {expected}"));
                }
                Err(JoinError::Panicked(payload)) => {
                    let own = payload.downcast_ref::<Deliberate>().is_some_and(|own| own.0 == child.number);
                    self.context.check(own || self.context.is_ending(), || {
                        format!(
                            "fiber {} has the panic of another, or one that it should not have",
                            child.number
                        )
                    });
                    self.context.tally("panics", 1);
                }
                Err(JoinError::Interrupted(interrupt)) if !self.context.is_ending() => {
                    if let Some(inner) = waiting {
                        self.interrupted(inner, interrupt, false);
                    }
                    continue;
                }
                Err(_) => {}
            }
            return;
        }
    }

    fn any_channel(&self) -> &Channel<u64> {
        &self.channels[self.context.between(0, self.channels.len() - 1)]
    }

    fn new_value(&self) -> u64 {
        self.next_value.set(self.next_value.get() + 1);
        self.next_value.get()
    }

    fn give(&self, inner: &Inner, has_deadline: bool) {
        let value = self.new_value();
        let gave = self.limited(has_deadline, || self.any_channel().give(value));
        match gave {
            Ok(()) => self.given(value),
            Err(refused) => {
                self.context.check(refused.value == value, || "another value came back".into());
                if let ChannelError::Interrupted(interrupt) = refused.cause {
                    self.interrupted(inner, interrupt, true);
                }
            }
        }
    }

    fn take(&self, inner: &Inner, has_deadline: bool) {
        match self.limited(has_deadline, || self.any_channel().take()) {
            Ok(value) => self.taken(value),
            Err(ChannelError::Interrupted(interrupt)) => self.interrupted(inner, interrupt, true),
            Err(_) => {}
        }
    }

    fn select(&self, inner: &Inner, has_deadline: bool) {
        let (from, to) = (self.context.between(0, self.channels.len() - 1), self.channels.len() - 1);
        let value = self.new_value();
        let mut offer = Some(value);
        let selected = self.limited(has_deadline, || {
            let select = Select::new().take(&self.channels[from], |taken| taken.ok());
            // A selection cannot take from the channel that it gives to.
            let select = match from == to {
                true => select,
                false => select.give(&self.channels[to], &mut offer, |_| None),
            };
            if self.context.chance(512) { select.wait() } else { select.wait_shuffled() }
        });
        match selected {
            Ok(Some(taken)) => self.taken(taken),
            Ok(None) => {}
            Err(interrupt) => self.interrupted(inner, interrupt, true),
        }
        if offer.is_none() {
            self.given(value);
        }
    }

    /// The wait may never be satisfied, so one without a deadline gets one.
    fn limited<T>(&self, has_deadline: bool, function: impl FnOnce() -> T) -> T {
        match has_deadline {
            true => function(),
            false => fibers::with_deadline(self.context.duration(), function),
        }
    }

    fn given(&self, value: u64) {
        if !self.early.borrow_mut().remove(&value) {
            let fresh = self.accepted.borrow_mut().insert(value);
            self.context.check(fresh, || format!("value {value} was accepted twice"));
        }
        self.context.tally("values given", 1);
    }

    fn taken(&self, value: u64) {
        if !self.accepted.borrow_mut().remove(&value) {
            let fresh = self.early.borrow_mut().insert(value);
            self.context.check(fresh, || format!("value {value} was taken twice"));
        }
        self.context.tally("values taken", 1);
    }
}
