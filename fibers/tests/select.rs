//! Selections: which clause is chosen, and that the others leave no trace.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Chance, Ledger, on_both_stacks, settle, spawn};
use ringspun_fibers::{self as fibers, Channel, Closed, Interrupt, Select};

#[derive(Debug, PartialEq)]
enum Event {
    Number(Result<u32, Closed>),
    Text(Result<String, Closed>),
    Given(Result<(), Closed>),
}

#[test]
fn of_the_possible_clauses_the_first_is_chosen() {
    on_both_stacks(|| {
        let (numbers, texts) = (Channel::bounded(1), Channel::bounded(1));
        texts.give(String::from("text")).unwrap();
        let select = || Select::new().take(&numbers, Event::Number).take(&texts, Event::Text).wait().unwrap();
        assert_eq!(select(), Event::Text(Ok(String::from("text"))));
        numbers.give(1).unwrap();
        texts.give(String::from("stays")).unwrap();
        assert_eq!(select(), Event::Number(Ok(1)));
        assert_eq!((numbers.len(), texts.len()), (0, 1));
    });
}

#[test]
fn a_selection_waits_for_whatever_comes_first() {
    on_both_stacks(|| {
        let (numbers, texts, full) = (Channel::bounded(0), Channel::bounded(0), Channel::bounded(0));
        for round in 0..3 {
            let channels = (numbers.clone(), texts.clone(), full.clone());
            let selecting = spawn(move || {
                let mut slot = Some('x');
                let event = Select::new()
                    .take(&channels.0, Event::Number)
                    .take(&channels.1, Event::Text)
                    .give(&channels.2, &mut slot, Event::Given)
                    .wait();
                (event.unwrap(), slot)
            });
            settle();
            assert_eq!(full.len(), 1, "the offer can be taken");
            let expected = match round {
                0 => {
                    numbers.give(5).unwrap();
                    (Event::Number(Ok(5)), Some('x'))
                }
                1 => {
                    texts.give(String::from("text")).unwrap();
                    (Event::Text(Ok(String::from("text"))), Some('x'))
                }
                _ => {
                    assert_eq!(full.take(), Ok('x'));
                    (Event::Given(Ok(())), None)
                }
            };
            assert_eq!(selecting.join().unwrap(), expected);
            assert_eq!((numbers.len(), texts.len(), full.len()), (0, 0, 0));
        }
    });
}

#[test]
fn only_one_of_several_offers_is_accepted() {
    on_both_stacks(|| {
        let channels = [0, 1, 2].map(|_| Channel::bounded(0));
        let offering = channels.clone();
        let selecting = spawn(move || {
            let [mut first, mut second, mut third] = ["a", "b", "c"].map(Some);
            let [a, b, c] = &offering;
            // Two of them in one channel.
            let select = Select::new().give(a, &mut first, |_| 0).give(a, &mut second, |_| 1);
            let chosen = select.give(b, &mut third, |_| 2).give(c, &mut None, |_| 3).wait();
            (chosen, [first, second, third])
        });
        settle();
        assert_eq!(channels.each_ref().map(Channel::len), [2, 1, 0]);
        // Both takers find an offer; the second has none left once it runs.
        let takers = [0, 0, 1].map(|n: usize| {
            let channel = channels[n].clone();
            spawn(move || fibers::with_deadline(Duration::ZERO, || channel.take()).ok())
        });
        let got = takers.map(|taker| taker.join().unwrap());
        assert_eq!(got, [Some("a"), None, None]);
        assert_eq!(selecting.join().unwrap(), (Ok(0), [None, Some("b"), Some("c")]));
        assert_eq!(channels.each_ref().map(Channel::len), [0, 0, 0]);
    });
}

#[test]
fn an_offer_moves_into_a_channel_that_gets_room() {
    on_both_stacks(|| {
        let (full, other) = (Channel::bounded(1), Channel::bounded(0));
        full.give(1).unwrap();
        let channels = (full.clone(), other.clone());
        let selecting = spawn(move || {
            let (mut number, mut other) = (Some(2), Some(3));
            let select = Select::new().give(&channels.1, &mut other, |_| "other");
            let chosen = select.give(&channels.0, &mut number, |_| "full").wait();
            (chosen, number, other)
        });
        settle();
        assert_eq!(full.take(), Ok(1));
        assert_eq!((full.len(), other.len()), (1, 0), "accepted, and the other offer withdrawn at once");
        assert_eq!(full.take(), Ok(2));
        assert_eq!(selecting.join().unwrap(), (Ok("full"), None, Some(3)));
    });
}

#[test]
fn selections_meet_each_other() {
    on_both_stacks(|| {
        let (there, back) = (Channel::bounded(0), Channel::bounded(0));
        let channels = (there.clone(), back.clone());
        let server = spawn(move || {
            for _ in 0..100 {
                let mut none = None;
                let request = Select::new()
                    .give(&channels.1, &mut none, |_| unreachable!("an empty slot is never given"))
                    .take(&channels.0, |request| request);
                let request: u32 = request.wait().unwrap().unwrap();
                let mut answer = Some(request + 1);
                Select::new().give(&channels.1, &mut answer, |given| given).wait().unwrap().unwrap();
            }
        });
        for n in 0..100 {
            let mut request = Some(n);
            Select::new().give(&there, &mut request, |given| given).wait().unwrap().unwrap();
            assert_eq!(Select::new().take(&back, |answer| answer).wait().unwrap(), Ok(n + 1));
        }
        server.join().unwrap();
    });
}

#[test]
fn a_closed_channel_makes_its_clauses_possible() {
    on_both_stacks(|| {
        let (open, closing) = (Channel::<u32>::bounded(0), Channel::<u32>::bounded(0));
        for give in [false, true] {
            let channels = (open.clone(), closing.clone());
            let selecting = spawn(move || {
                let mut slot = give.then_some(1);
                let select = Select::new().take(&channels.0, |_| "open");
                let select = match give {
                    true => select.give(&channels.1, &mut slot, |given| match given {
                        Err(Closed) => "closed",
                        Ok(()) => "given",
                    }),
                    false => {
                        select.take(&channels.1, |taken| if taken.is_err() { "closed" } else { "taken" })
                    }
                };
                (select.wait(), slot)
            });
            if !give {
                settle();
                closing.close();
            }
            // The second time it is closed from the beginning.
            assert_eq!(selecting.join().unwrap(), (Ok("closed"), give.then_some(1)));
        }
        let (late, channel) = (Channel::<u32>::bounded(0), Channel::bounded(0));
        let channels = (late.clone(), channel.clone());
        let offering = spawn(move || {
            let (mut first, mut second) = (Some(1), Some(2));
            let select = Select::new().give(&channels.1, &mut first, |given| given);
            let given = select.give(&channels.0, &mut second, |given| given).wait();
            (given, first, second)
        });
        settle();
        late.close();
        assert_eq!(offering.join().unwrap(), (Ok(Err(Closed)), Some(1), Some(2)));
        assert!(channel.is_empty());
    });
}

#[test]
fn an_interrupted_selection_leaves_no_trace() {
    on_both_stacks(|| {
        let (takes, gives) = (Channel::<u32>::bounded(0), Channel::bounded(0));
        let channels = (takes.clone(), gives.clone());
        let selecting = spawn(move || {
            let mut slot = Some("kept");
            let chosen = fibers::with_deadline(Duration::from_secs(3600), || {
                let select = Select::new().take(&channels.0, |_| ());
                select.give(&channels.1, &mut slot, |_| ()).wait()
            });
            (chosen, slot)
        });
        settle();
        assert_eq!(gives.len(), 1);
        selecting.cancel();
        assert_eq!(selecting.join().unwrap(), (Err(Interrupt::Cancelled), Some("kept")));
        assert!(gives.is_empty());
        let late = fibers::with_deadline(Duration::ZERO, || takes.give(1));
        assert_eq!(late.unwrap_err().value, 1);
        let nothing = fibers::with_deadline(Duration::from_millis(1), || Select::<()>::new().wait());
        assert_eq!(nothing, Err(Interrupt::DeadlineExpired));
        assert_eq!(fibers::event_loop().unwrap().statistics().timers, 0);
    });
}

#[test]
fn a_selection_that_takes_elsewhere_leaves_its_value_to_the_next_taker() {
    on_both_stacks(|| {
        let (first, second) = (Channel::bounded(1), Channel::bounded(1));
        let channels = (first.clone(), second.clone());
        let selecting = spawn(move || {
            Select::new().take(&channels.0, |taken| taken).take(&channels.1, |taken| taken).wait()
        });
        settle();
        let behind = second.clone();
        let behind = spawn(move || behind.take());
        settle();
        // Before the selection runs it is woken for both; it takes from the first.
        second.give(2).unwrap();
        first.give(1).unwrap();
        assert_eq!(selecting.join().unwrap(), Ok(Ok(1)));
        assert_eq!(behind.join().unwrap(), Ok(2));
    });
}

#[test]
fn shuffled_every_clause_has_its_chance() {
    on_both_stacks(|| {
        let channels = [0, 1, 2, 3].map(|_| Channel::bounded(1));
        channels.iter().for_each(|channel| channel.give(()).unwrap());
        let mut chosen = BTreeSet::new();
        for _ in 0..200 {
            let [a, b, c, d] = &channels;
            let select = Select::new().take(a, |_| 0).take(b, |_| 1).take(c, |_| 2).take(d, |_| 3);
            let number = select.wait_shuffled().unwrap();
            channels[number].give(()).unwrap();
            chosen.insert(number);
        }
        assert_eq!(chosen.len(), 4);
    });
}

#[test]
#[should_panic(expected = "a selection both gives to and takes from one channel")]
fn a_selection_cannot_meet_itself() {
    let channel = Channel::bounded(0);
    let mut slot = Some(1);
    let _ = Select::new().take(&channel, |_| ()).give(&channel, &mut slot, |_| ());
}

/// One fiber of the storm: selections over random channels, with plain gives and takes among them.
fn stormy(seed: u64, channels: &[Channel<u32>], ledger: &Ledger) {
    let mut chance = Chance::new(seed);
    for _ in 0..30 {
        let hurried = chance.below(4) == 0;
        let mut picked: Vec<usize> = (0..4).map(|_| chance.below(channels.len())).collect();
        picked.sort_unstable();
        picked.dedup();
        let mut slots: Vec<Option<u32>> = picked.iter().map(|_| None).collect();
        for slot in &mut slots {
            if chance.below(2) == 0 {
                *slot = Some(ledger.make());
            }
        }
        let mut body = || {
            let mut select = Select::new();
            for (&number, slot) in picked.iter().zip(&mut slots) {
                select = match slot {
                    Some(_) => select.give(&channels[number], slot, |_| None),
                    None => select.take(&channels[number], |taken| taken.ok()),
                };
            }
            if chance.below(2) == 0 { select.wait() } else { select.wait_shuffled() }
        };
        let taken = if hurried { fibers::with_deadline(Duration::ZERO, body) } else { body() };
        if let Ok(Some(value)) = taken {
            ledger.taken(value);
        }
        slots.into_iter().flatten().for_each(|value| ledger.given_back(value));
        let channel = &channels[chance.below(channels.len())];
        match chance.below(6) {
            0 => {
                if let Err(error) = channel.give(ledger.make()) {
                    ledger.given_back(error.value);
                }
            }
            1 => {
                if let Ok(value) = channel.take() {
                    ledger.taken(value);
                }
            }
            2 => drop(fibers::yield_now()),
            _ => {}
        }
    }
}

#[test]
fn in_a_storm_of_selections_and_cancels_each_value_ends_up_once() {
    let (mut taken, mut given_back) = (0, 0);
    for seed in 0..60 {
        let ledger = Ledger::default();
        let kept = ledger.clone();
        let runtime = fibers::Runtime::new().stack_size_bytes(16 * 1024);
        let ran = runtime.run(move || {
            let mut chance = Chance::new(5000 + seed);
            let channels: Vec<_> = [0, 0, 1, 2, 5].map(Channel::bounded).into_iter().collect();
            let stormers: Vec<_> = (0..30)
                .map(|n| {
                    let (channels, ledger) = (channels.clone(), ledger.clone());
                    spawn(move || stormy(seed * 100 + n, &channels, &ledger))
                })
                .collect();
            for round in 0..400 {
                if chance.below(2) > 0 {
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
        });
        ran.unwrap();
        let (more_taken, more_given_back) = kept.settle();
        taken += more_taken;
        given_back += more_given_back;
    }
    assert!(taken > 1000 && given_back > 1000, "taken {taken}, given back {given_back}");
}
