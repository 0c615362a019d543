//! Dumps of programs that hang: the reason is read out of each.

mod common;

use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{mappings_max, settle};
use ringspun_fibers::sync::{Barrier, Mutex, Notify, RwLock, Semaphore, watch};
use ringspun_fibers::{
    self as fibers, Channel, Dump, FiberBuilder, FiberReport, FiberState, Interrupt, JoinHandle, Runtime,
    Select, SharedChannel,
};
use ringspun_runtime::probe;

fn named<T: 'static>(name: &str, function: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    FiberBuilder::new().name(name).spawn(function).unwrap()
}

fn find<'a>(dump: &'a Dump, name: &str) -> &'a FiberReport {
    dump.fibers().iter().find(|fiber| fiber.name() == Some(name)).unwrap()
}

/// What a fiber of the dump waits for.
fn reason(dump: &Dump, name: &str) -> String {
    let fiber = find(dump, name);
    assert_eq!(fiber.state(), FiberState::Parked, "{fiber}");
    fiber.reason().unwrap().to_string()
}

/// The address in a text such as `Channel<u32> at 0x7f00 (0 values)`.
fn address(reason: &str) -> &str {
    let at = reason.find("0x").unwrap();
    reason[at..].split(' ').next().unwrap()
}

#[test]
fn a_deadlock_of_two_channels_is_explained() {
    fibers::run(|| {
        let (requests, responses) = (Channel::<u32>::bounded(1), Channel::<String>::bounded(1));
        let (taken, given) = (requests.clone(), responses.clone());
        // Each takes first.
        named("server", move || taken.take().map(|_| given.give(String::new())));
        named("client", move || responses.take().map(|_| requests.give(1)));
        settle();
        let dump = fibers::dump();
        let (server, client) = (reason(&dump, "server"), reason(&dump, "client"));
        assert!(
            server.starts_with("take from Channel<u32> at ")
                && server.contains("(0 of 1 values; 1 fibers take")
        );
        assert!(client.starts_with("take from Channel<String> at "), "{client}");
        assert_ne!(address(&server), address(&client));
        // The place in the program is told, too.
        let stack = dump.stack_of(find(&dump, "server"));
        assert!(stack[0].contains("Channel<T>::take"), "{stack:#?}");
        assert!(stack[1].contains("a_deadlock_of_two_channels_is_explained"), "{stack:#?}");
        assert_eq!(stack.len(), 2, "nothing of the runtime: {stack:#?}");
    })
    .unwrap();
}

#[test]
fn a_lock_that_is_held_across_a_wait_is_explained_with_its_holder() {
    fibers::run(|| {
        let lock = Rc::new(Mutex::new(0_u8));
        let (held, wanted) = (lock.clone(), lock.clone());
        let holder = named("holder", move || {
            let _held = held.lock().unwrap();
            fibers::sleep(Duration::MAX)
        });
        named("waiter", move || wanted.lock().map(drop));
        settle();
        let dump = fibers::dump();
        assert_eq!(reason(&dump, "holder"), "a time that never comes");
        let waiter = reason(&dump, "waiter");
        assert!(waiter.starts_with("lock of Mutex<u8> at "), "{waiter}");
        assert!(waiter.contains(&format!("0 free, taken last by fiber {}", holder.id())), "{waiter}");
    })
    .unwrap();
}

#[test]
fn a_full_pool_is_explained() {
    fibers::run(|| {
        let pool = Rc::new(Semaphore::new(2));
        for name in ["first", "second", "third"] {
            let pool = pool.clone();
            named(name, move || {
                let _permit = pool.acquire(1);
                fibers::sleep(Duration::from_secs(3600))
            });
        }
        settle();
        let dump = fibers::dump();
        assert!(reason(&dump, "first").starts_with("a time that comes in 3"), "{dump}");
        let third = reason(&dump, "third");
        assert!(third.starts_with("permits of Semaphore at "), "{third}");
        assert!(third.contains("0 free, taken last by fiber 2; 1 fibers wait"), "{third}");
    })
    .unwrap();
}

#[test]
fn every_kind_of_wait_has_a_reason() {
    fibers::run(|| {
        let slept = fibers::spawn(|| fibers::sleep(Duration::MAX)).unwrap();
        let id = slept.id();
        named("join", move || slept.join());
        let lock = Rc::new(RwLock::new(()));
        let read = lock.clone();
        named("read", move || {
            let _read = read.read();
            fibers::sleep(Duration::MAX)
        });
        named("write", move || lock.write().map(drop));
        named("notified", || Notify::new().wait());
        named("barrier", || Barrier::new(2).wait());
        named("watch", || {
            let (_sender, mut receiver) = watch(1);
            receiver.changed()
        });
        let (from, to) = (SharedChannel::<u8>::bounded(1), SharedChannel::<u8>::bounded(1));
        to.try_give(1).unwrap();
        named("shared take", move || from.take());
        named("shared give", move || to.give(1).is_ok());
        named("give", || Channel::bounded(0).give('a').is_ok());
        named("select", || {
            let (take, give) = (Channel::<u8>::bounded(1), Channel::bounded(0));
            Select::new()
                .take(&take, |_| ())
                .give(&give, &mut Some(1_u16), |_| ())
                .on(fibers::after(Duration::MAX), |()| ())
                .wait()
        });
        let (begun, wait) = std::sync::mpsc::channel::<()>();
        named("blocking", move || fibers::blocking(move || wait.recv().is_ok()).is_ok());
        named("scope", || fibers::scope(|scope| scope.spawn(|| fibers::sleep(Duration::MAX)).map(drop)));
        named("unknown", || fibers::wait(|_| std::task::Poll::<()>::Pending));
        settle();
        while fibers::dump().to_string().contains("no thread has begun") {
            fibers::sleep(Duration::from_millis(1)).unwrap();
        }
        let dump = fibers::dump();
        for (name, expected) in [
            ("join", &*format!("the end of fiber {id}")),
            ("write", "lock to write of RwLock<()> at "),
            ("notified", "a notification by Notify at "),
            ("barrier", "others at a Barrier at "),
            ("watch", "a change of the watched value at "),
            ("shared take", "take from SharedChannel<u8> at "),
            ("shared give", "give to SharedChannel<u8> at "),
            ("give", "give to Channel<char> at "),
            ("select", "the first of take from Channel<u8> at "),
            ("select", "give to Channel<u16> at "),
            ("select", "a time that never comes"),
            ("blocking", "a blocking call that a thread makes"),
            ("scope", "the end of 1 fibers of a scope"),
            ("unknown", "something that does not tell its name"),
        ] {
            let reason = reason(&dump, name);
            assert!(reason.contains(expected), "{name}: {reason}");
        }
        assert_eq!(find(&dump, "main").state(), FiberState::Dumping);
        drop(begun);
    })
    .unwrap();
}

#[test]
fn a_dump_changes_nothing_for_those_that_wait() {
    fibers::run(|| {
        let channel = Channel::bounded(1);
        let (first, second) = (channel.clone(), channel.clone());
        let first = named("first", move || first.take());
        let second = named("second", move || second.take());
        let sleeper = named("sleeper", || {
            fibers::with_deadline(Duration::from_millis(20), || fibers::sleep(Duration::MAX))
        });
        let cancelled = named("cancelled", || (fibers::sleep(Duration::MAX), fibers::check()));
        settle();
        cancelled.cancel();
        for _ in 0..3 {
            fibers::dump();
        }
        channel.give(1).unwrap();
        fibers::dump();
        channel.give(2).unwrap();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (Ok(1), Ok(2)), "in their order");
        assert_eq!(sleeper.join().unwrap(), Err(Interrupt::DeadlineExpired));
        assert_eq!(cancelled.join().unwrap(), (Err(Interrupt::Cancelled), Ok(())), "one interrupt");
    })
    .unwrap();
}

#[test]
fn a_fiber_without_room_for_it_is_told_without_its_stack() {
    Runtime::new()
        .run(|| {
            let small = FiberBuilder::new().name("small").stack_size_bytes(8 * 1024);
            small.spawn(|| fibers::sleep(Duration::MAX)).unwrap();
            settle();
            let dump = fibers::dump();
            assert!(reason(&dump, "small").starts_with("a time"));
            assert_eq!(dump.stack_of(find(&dump, "small")), [""; 0]);
            assert!(dump.to_string().contains("no room on its stack"), "{dump}");
        })
        .unwrap();
}

#[test]
fn since_when_is_told_if_it_is_recorded() {
    for is_on in [false, true] {
        let run = Runtime::new().record_waits(is_on).run(move || {
            named("sleeper", || fibers::sleep(Duration::MAX));
            settle();
            fibers::sleep(Duration::from_millis(20)).unwrap();
            fibers::dump();
            // A dump does not count as running.
            let dump = fibers::dump();
            let since = find(&dump, "sleeper").waiting_for();
            assert_eq!(since.is_some_and(|since| since >= Duration::from_millis(20)), is_on, "{since:?}");
        });
        run.unwrap();
    }
}

#[test]
fn fibers_that_have_not_run_or_are_about_to_are_told_apart() {
    fibers::run(|| {
        named("busy", || while fibers::yield_now().is_ok() {});
        settle();
        let dump = fibers::dump();
        assert!(dump.to_string().contains("'busy'"), "{dump}");
        let ends = named("ends", || ());
        let dump = fibers::dump();
        assert!(ends.is_finished() && !dump.fibers().iter().any(|fiber| fiber.name() == Some("ends")));
    })
    .unwrap();
}

#[test]
fn a_dump_of_100_000_fibers_takes_seconds_and_is_grouped() {
    let mut count = 100_000;
    if cfg!(target_os = "linux") && !probe::stack_guards().available && mappings_max() < 2 * count {
        println!("SKIPPED: before Linux 6.13, {count} stacks take sysctl vm.max_map_count={}", 3 * count);
        count = 10_000;
    }
    let run = Runtime::new().stack_size_bytes(32 * 1024).run(move || {
        let channel = Channel::<u8>::bounded(1);
        for _ in 0..count {
            let channel = channel.clone();
            fibers::spawn(move || channel.take()).unwrap();
        }
        fibers::yield_now().unwrap();
        // Others run meanwhile.
        let (turns, longest) =
            (Rc::new(std::cell::Cell::new(0)), Rc::new(std::cell::Cell::new(Duration::ZERO)));
        let (counted, pause) = (turns.clone(), longest.clone());
        fibers::spawn(move || {
            let mut last = Instant::now();
            while fibers::yield_now().is_ok() {
                counted.set(counted.get() + 1);
                pause.set(pause.get().max(last.elapsed()));
                last = Instant::now();
            }
        })
        .unwrap();
        let before = Instant::now();
        let dump = fibers::dump();
        let asked = before.elapsed();
        let text = dump.to_string();
        let (took, turns_taken, longest) = (before.elapsed(), turns.get(), longest.get());
        println!("asked for {asked:?}, {took:?} with the text, {turns_taken} turns, the longest {longest:?}");
        assert_eq!(dump.fibers().len(), count + 2);
        assert!(turns.get() >= count * 3 / 1000, "{}", turns.get());
        assert!(text.contains(&format!("\n{count} fibers, parked:")) && text.lines().count() < 60, "{text}");
    });
    run.unwrap();
}
