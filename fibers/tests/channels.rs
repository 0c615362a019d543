//! Channels: order, parking, closing, and that no interrupt costs a value.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use common::{Chance, Ledger, on_both_stacks, settle, spawn};
use ringspun_fibers::{self as fibers, Channel, ChannelError, Interrupt, JoinHandle};

const CANCELLED: ChannelError = ChannelError::Interrupted(Interrupt::Cancelled);

#[test]
fn values_come_in_the_order_in_which_they_were_given() {
    on_both_stacks(|| {
        for channel in [0, 1, 3, 1000].map(Channel::bounded).into_iter().chain([Channel::unbounded()]) {
            let giver = channel.clone();
            let giving = spawn(move || (0..100).for_each(|n| giver.give(n).unwrap()));
            assert!((0..100).eq((0..100).map(|_| channel.take().unwrap())), "{channel:?}");
            giving.join().unwrap();
            assert!(channel.is_empty());
        }
    });
}

#[test]
fn giving_parks_when_the_channel_is_full_and_no_earlier() {
    on_both_stacks(|| {
        for capacity in [0, 1, 3] {
            let channel = Channel::bounded(capacity);
            let giver = channel.clone();
            let done = Rc::new(RefCell::new(0));
            let count = done.clone();
            let giving = spawn(move || {
                for n in 0..10 {
                    giver.give(n).unwrap();
                    count.replace(n + 1);
                }
            });
            settle();
            for taken in 0..10 {
                assert_eq!(*done.borrow(), (capacity + taken).min(10), "of capacity {capacity}");
                assert_eq!(channel.take(), Ok(taken));
                settle();
            }
            giving.join().unwrap();
        }
    });
}

#[test]
fn a_channel_tells_how_full_it_is() {
    on_both_stacks(|| {
        let channel = Channel::bounded(2);
        let counts = |channel: &Channel<u8>| (channel.len(), channel.is_empty(), channel.is_full());
        assert_eq!((channel.capacity(), counts(&channel)), (Some(2), (0, true, false)));
        channel.give(1).unwrap();
        assert_eq!(counts(&channel), (1, false, false));
        channel.give(2).unwrap();
        assert_eq!(counts(&channel), (2, false, true));
        let giver = channel.clone();
        let waiting = spawn(move || giver.give(3));
        settle();
        assert_eq!(counts(&channel), (3, false, true));
        channel.close();
        assert_eq!(counts(&channel), (2, false, true));
        waiting.join().unwrap().unwrap_err();
        assert_eq!(Channel::<u8>::unbounded().capacity(), None);
        assert!(!Channel::<u8>::unbounded().is_full());
        assert!(Channel::<u8>::bounded(0).is_full());
    });
}

/// Spawns fibers that take one value each, in order; the results are for the caller.
fn takers(channel: &Channel<u32>, count: usize) -> Vec<JoinHandle<Result<u32, ChannelError>>> {
    let take = |_| {
        let channel = channel.clone();
        spawn(move || channel.take())
    };
    let takers = (0..count).map(take).collect();
    settle();
    takers
}

#[test]
fn takers_and_givers_are_served_in_the_order_of_their_coming() {
    on_both_stacks(|| {
        let channel = Channel::bounded(1);
        let waiting = takers(&channel, 5);
        // More than the channel holds, so that givers wait as well.
        let giving: Vec<_> = (0..5)
            .map(|n| {
                let channel = channel.clone();
                spawn(move || channel.give(n))
            })
            .collect();
        giving.iter().for_each(|giver| giver.join().unwrap().unwrap());
        let got: Vec<_> = waiting.iter().map(|taker| taker.join().unwrap().unwrap()).collect();
        assert_eq!(got, [0, 1, 2, 3, 4]);
    });
}

#[test]
fn whoever_comes_later_does_not_overtake_one_that_was_woken() {
    on_both_stacks(|| {
        let channel = Channel::bounded(1);
        let waiting = takers(&channel, 1);
        channel.give(1).unwrap();
        // The taker has been woken and has not run; this value is its own.
        let late = fibers::with_deadline(Duration::ZERO, || channel.take());
        assert_eq!(late, Err(ChannelError::Interrupted(Interrupt::DeadlineExpired)));
        assert_eq!(waiting[0].join().unwrap(), Ok(1));
    });
}

#[test]
fn a_cancel_at_the_moment_of_a_gift_costs_nothing() {
    on_both_stacks(|| {
        for capacity in [0, 1] {
            let channel = Channel::bounded(capacity);
            let waiting = takers(&channel, 2);
            let giver = channel.clone();
            let giving = spawn(move || giver.give(7));
            fibers::yield_now().unwrap(); // the first taker is woken, and has not run
            waiting[0].cancel();
            assert_eq!(waiting[0].join().unwrap(), Ok(7), "what is there goes before a cancel");
            giving.join().unwrap().unwrap();
            waiting[1].cancel();
            assert_eq!(waiting[1].join().unwrap(), Err(CANCELLED));
        }
    });
}

#[test]
fn a_taker_that_is_cancelled_leaves_the_line_to_those_behind() {
    on_both_stacks(|| {
        let channel = Channel::bounded(1);
        let waiting = takers(&channel, 3);
        waiting[0].cancel();
        waiting[1].cancel();
        channel.give(7).unwrap();
        assert_eq!(waiting[0].join().unwrap(), Ok(7));
        assert_eq!(waiting[1].join().unwrap(), Err(CANCELLED));
        channel.give(8).unwrap();
        assert_eq!(waiting[2].join().unwrap(), Ok(8));
    });
}

#[test]
fn a_giver_that_is_interrupted_has_its_value_back() {
    on_both_stacks(|| {
        let channel = Channel::bounded(0);
        let giver = channel.clone();
        let giving = spawn(move || giver.give(String::from("mine")));
        settle();
        assert_eq!(channel.len(), 1);
        giving.cancel();
        let error = giving.join().unwrap().unwrap_err();
        assert_eq!((error.value.as_str(), error.cause), ("mine", CANCELLED));
        assert!(channel.is_empty());
        let late = fibers::with_deadline(Duration::from_millis(1), || channel.give(String::from("late")));
        assert_eq!(late.unwrap_err().cause, ChannelError::Interrupted(Interrupt::DeadlineExpired));
        assert!(channel.is_empty());
    });
}

#[test]
fn closing_gives_back_what_waits_and_keeps_what_was_accepted() {
    on_both_stacks(|| {
        let channel = Channel::bounded(2);
        channel.give(1).unwrap();
        channel.give(2).unwrap();
        let giver = channel.clone();
        let waiting = spawn(move || giver.give(3));
        settle();
        channel.close();
        channel.close();
        assert_eq!(waiting.join().unwrap().unwrap_err().value, 3);
        let error = channel.give(4).unwrap_err();
        assert_eq!((error.value, error.cause), (4, ChannelError::Closed));
        assert_eq!([channel.take(), channel.take()], [Ok(1), Ok(2)]);
        assert_eq!(channel.take(), Err(ChannelError::Closed));
    });
}

#[test]
fn closing_wakes_those_for_whom_nothing_is_left() {
    on_both_stacks(|| {
        let channel = Channel::bounded(1);
        let waiting = takers(&channel, 3);
        channel.give(1).unwrap();
        channel.close();
        let got: Vec<_> = waiting.iter().map(|taker| taker.join().unwrap()).collect();
        assert_eq!(got, [Ok(1), Err(ChannelError::Closed), Err(ChannelError::Closed)]);
    });
}

#[test]
fn what_does_not_park_needs_no_fiber() {
    let channel = Channel::bounded(1);
    channel.give(5).unwrap();
    assert_eq!(channel.take(), Ok(5));
    channel.close();
    assert_eq!(channel.take(), Err(ChannelError::Closed));
}

#[test]
fn values_left_in_a_channel_are_dropped_with_it() {
    let value = Rc::new(());
    let held = value.clone();
    fibers::run(move || {
        let channel = Channel::bounded(1);
        channel.give(held.clone()).unwrap();
        let giver = channel.clone();
        spawn(move || giver.give(held).unwrap_err());
        settle();
    })
    .unwrap();
    assert_eq!(Rc::strong_count(&value), 1);
}

/// One fiber of the storm: gives and takes at random until it is told to stop or the channels are closed.
fn stormy(seed: u64, channels: &[Channel<u32>], ledger: &Ledger) {
    let mut chance = Chance::new(seed);
    for _ in 0..40 {
        let channel = &channels[chance.below(channels.len())];
        let hurried = chance.below(4) == 0;
        let limited = |body: &mut dyn FnMut()| match hurried {
            true => fibers::with_deadline(Duration::ZERO, body),
            false => body(),
        };
        match chance.below(5) {
            0 | 1 => limited(&mut || {
                if let Err(error) = channel.give(ledger.make()) {
                    ledger.given_back(error.value);
                }
            }),
            2 | 3 => limited(&mut || {
                if let Ok(value) = channel.take() {
                    ledger.taken(value);
                }
            }),
            _ => drop(fibers::yield_now()),
        }
    }
}

#[test]
fn in_a_storm_of_cancels_each_value_ends_up_once() {
    let (mut taken, mut given_back) = (0, 0);
    for seed in 0..60 {
        let ledger = Ledger::default();
        let kept = ledger.clone();
        let runtime = fibers::Runtime::new().stack_size_bytes(16 * 1024);
        let ran = runtime.run(move || {
            let mut chance = Chance::new(1000 + seed);
            let channels: Vec<_> = [0, 1, 2, 7].map(Channel::bounded).into_iter().collect();
            let stormers: Vec<_> = (0..30)
                .map(|n| {
                    let (channels, ledger) = (channels.clone(), ledger.clone());
                    spawn(move || stormy(seed * 100 + n, &channels, &ledger))
                })
                .collect();
            for round in 0..400 {
                if chance.below(3) > 0 {
                    stormers[chance.below(stormers.len())].cancel();
                }
                if round > 300 && chance.below(20) == 0 {
                    channels[chance.below(channels.len())].close();
                }
                fibers::yield_now().unwrap();
            }
            channels.iter().for_each(Channel::close);
            stormers.iter().for_each(|stormer| stormer.join().unwrap());
            for channel in &channels {
                while let Ok(value) = channel.take() {
                    ledger.taken(value);
                }
            }
            assert_eq!(fibers::event_loop().unwrap().statistics().timers, 0);
        });
        ran.unwrap();
        let (more_taken, more_given_back) = kept.settle();
        taken += more_taken;
        given_back += more_given_back;
    }
    // A storm in which one of them hardly happens would prove nothing.
    assert!(taken > 1000 && given_back > 1000, "taken {taken}, given back {given_back}");
}
