//! Fibers that lock, count, notify and tell one another, each with deadlines or without, and cancelled at any time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use ringspun_fibers::sync::{
    self, Barrier, BroadcastError, BroadcastReceiver, BroadcastSender, Mutex, Notify, OnceCell, RwLock,
    Semaphore,
};
use ringspun_fibers::{self as fibers, ChannelError, Interrupt};

use crate::context::Context;

struct Shared {
    mutex: Mutex<u64>,
    /// How often it was changed.
    changes: Cell<u64>,
    is_held: Cell<bool>,
    /// Both numbers are the same whenever nobody writes.
    pair: RwLock<(u64, u64)>,
    slots: Semaphore,
    slots_total: usize,
    slots_taken: Cell<usize>,
    once: OnceCell<u64>,
    times_made: Cell<u64>,
    jobs: RefCell<VecDeque<u64>>,
    jobs_made: Cell<u64>,
    notify: Notify,
    is_over: Cell<bool>,
    chat: BroadcastSender<u64>,
    said: Cell<u64>,
}

pub fn run(context: &Rc<Context>) {
    let (chat, listener) = sync::broadcast(context.between(1, 6));
    let slots_total = context.between(1, 4);
    let shared = Rc::new(Shared {
        mutex: Mutex::new(0),
        changes: Cell::new(0),
        is_held: Cell::new(false),
        pair: RwLock::new((0, 0)),
        slots: Semaphore::new(slots_total),
        slots_total,
        slots_taken: Cell::new(0),
        once: OnceCell::new(),
        times_made: Cell::new(0),
        jobs: RefCell::default(),
        jobs_made: Cell::new(0),
        notify: Notify::new(),
        is_over: Cell::new(false),
        chat,
        said: Cell::new(0),
    });
    let workers: Vec<_> = (0..context.between(2, 8))
        .map(|_| {
            let shared = shared.clone();
            context.spawn_victim("worker", move |context| shared.work(context))
        })
        .collect();
    let (serving, listening) = (shared.clone(), shared.clone());
    let server = context.spawn_victim("server", move |context| serving.serve(context));
    let listener = context.spawn_victim("listener", move |context| listening.listen(context, listener));
    let trouble = context.spawn_trouble();
    meet(context);
    for worker in workers {
        context.join(&worker);
    }
    shared.is_over.set(true);
    shared.notify.notify_all();
    shared.notify.notify_one();
    // The listener waits for this.
    shared.say();
    context.join(&server);
    context.join(&listener);
    trouble.cancel();
    context.join(&trouble);
    context.wait_for_all_but(2);
    if context.is_ending() {
        return;
    }
    let left = (
        shared.slots.available(),
        shared.mutex.try_lock().map(|count| *count),
        shared.pair.try_write().is_some(),
    );
    let expected = (shared.slots_total, Some(shared.changes.get()), true);
    context.check(left == expected, || {
        format!("all is over, and the locks are {left:?} instead of {expected:?}")
    });
    context.check(shared.times_made.get() <= 1, || "a value was made twice".into());
}

/// Some fibers that go on together, again and again.
fn meet(context: &Rc<Context>) {
    let count = context.between(1, 4);
    let (barrier, rounds) = (Rc::new(Barrier::new(count)), Rc::new(Cell::new(0)));
    for _ in 0..count {
        let (barrier, rounds) = (barrier.clone(), rounds.clone());
        drop(context.spawn("member", move |context| {
            for round in 0..5 {
                context.nap();
                match barrier.wait() {
                    Ok(is_leader) => rounds.set(rounds.get() + u64::from(is_leader)),
                    Err(_) => {
                        return context.check(context.is_ending(), || "a wait at a barrier failed".into());
                    }
                }
                let met = rounds.get();
                context.check(met == round + 1, || format!("{met} rounds instead of {round}"));
            }
            context.tally("meetings", 1);
        }));
    }
}

impl Shared {
    fn work(self: &Rc<Self>, context: &Rc<Context>) {
        for _ in 0..context.between(1, 30) {
            if context.is_ending() {
                return;
            }
            let interrupted = match context.chance(300) {
                true => fibers::with_deadline(context.duration(), || self.act(context)),
                false => self.act(context),
            };
            if interrupted.is_err() {
                context.tally("interrupts", 1);
            }
        }
    }

    fn act(self: &Rc<Self>, context: &Rc<Context>) -> Result<(), Interrupt> {
        match context.below(7) {
            0 => self.change(context),
            1 => self.read_or_write(context),
            2 => self.take_slots(context),
            3 => self.make_once(context),
            4 => self.ask(context),
            5 => {
                self.jobs_made.set(self.jobs_made.get() + 1);
                self.jobs.borrow_mut().push_back(self.jobs_made.get());
                self.notify.notify_one();
                Ok(())
            }
            _ => {
                self.say();
                Ok(())
            }
        }
    }

    fn change(&self, context: &Context) -> Result<(), Interrupt> {
        let mut count = self.mutex.lock()?;
        context.check(!self.is_held.replace(true), || "two fibers hold a mutex".into());
        let before = *count;
        context.nap();
        *count = before + 1;
        self.changes.set(self.changes.get() + 1);
        self.is_held.set(false);
        context.tally("locks", 1);
        Ok(())
    }

    fn read_or_write(&self, context: &Context) -> Result<(), Interrupt> {
        if context.chance(512) {
            let pair = self.pair.read()?;
            let before = *pair;
            context.nap();
            context
                .check(before == *pair && pair.0 == pair.1, || format!("read {before:?}, then {:?}", *pair));
            return Ok(());
        }
        let mut pair = self.pair.write()?;
        pair.0 += 1;
        context.nap();
        pair.1 += 1;
        Ok(())
    }

    fn take_slots(&self, context: &Context) -> Result<(), Interrupt> {
        let count = context.between(1, self.slots_total);
        let slots = self.slots.acquire(count)?;
        self.slots_taken.set(self.slots_taken.get() + count);
        let taken = self.slots_taken.get();
        context.check(taken <= self.slots_total, || format!("{taken} of {} slots taken", self.slots_total));
        context.nap();
        self.slots_taken.set(self.slots_taken.get() - count);
        drop(slots);
        Ok(())
    }

    fn make_once(&self, context: &Context) -> Result<(), Interrupt> {
        let made = self.once.get_or_try_init(|| {
            fibers::sleep(context.duration() / 64)?;
            self.times_made.set(self.times_made.get() + 1);
            Ok(7)
        });
        made.map(|value: &u64| context.check(*value == 7, || "another value".into()))
    }

    /// Sends a question to another fiber.
    fn ask(&self, context: &Rc<Context>) -> Result<(), Interrupt> {
        let (reply, answer) = sync::one_shot();
        drop(context.spawn("answering", move |context| {
            context.nap();
            if context.chance(900) {
                let _ = reply.send(9);
            }
        }));
        match answer.receive() {
            Err(ChannelError::Interrupted(interrupt)) => Err(interrupt),
            answer => {
                context.check(!matches!(answer, Ok(other) if other != 9), || "another answer".into());
                Ok(())
            }
        }
    }

    /// Does the jobs, all of them.
    fn serve(&self, context: &Context) {
        let mut done = 0;
        while !context.is_ending() {
            while let Some(job) = self.jobs.borrow_mut().pop_front() {
                done += 1;
                context.check(job == done, || format!("job {job} instead of {done}"));
            }
            if self.is_over.get() {
                context.tally("jobs", done);
                return context.check(done == self.jobs_made.get(), || "a job was lost".into());
            }
            let _ = self.notify.wait();
        }
    }

    fn say(&self) {
        self.said.set(self.said.get() + 1);
        self.chat.send(self.said.get());
    }

    fn listen(&self, context: &Context, mut receiver: BroadcastReceiver<u64>) {
        let mut last = 0;
        loop {
            let has_all = self.is_over.get() && last == self.said.get();
            if has_all || context.is_ending() {
                return;
            }
            match receiver.receive() {
                Ok(value) => {
                    context.check(value == last + 1, || format!("heard {value} after {last}"));
                    last = value;
                    context.tally("values heard", 1);
                }
                Err(BroadcastError::Missed(count)) => last += count,
                Err(BroadcastError::Interrupted(_)) => {}
                Err(error) => context.fail(format!("a broadcast failed: {error}")),
            }
            context.nap();
        }
    }
}
