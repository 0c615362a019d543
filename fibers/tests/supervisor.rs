//! Supervisors: what they hear, from whom, and that hearing it parks nobody.

mod common;

use std::time::Duration;

use common::{on_both_stacks, settle, spawn};
use ringspun_fibers::{self as fibers, Channel, FiberBuilder, FiberEvent, FiberEventKind, JoinError};

/// An event in the words of these tests.
fn words(event: &FiberEvent) -> String {
    let name = event.name.as_deref().unwrap_or("nameless");
    match &event.what {
        FiberEventKind::Returned => format!("{name} returned"),
        FiberEventKind::Panicked(text) => format!("{name} panicked: {text}"),
        FiberEventKind::Unwound => format!("{name} was unwound"),
        FiberEventKind::Message(value) => format!("{name} says {:?}", value.downcast_ref::<u32>()),
        other => format!("{name}: {other:?}"),
    }
}

fn supervised(name: &str, events: &Channel<FiberEvent>) -> FiberBuilder {
    FiberBuilder::new().name(name).supervisor(events)
}

#[test]
fn a_supervisor_hears_how_each_fiber_ends() {
    fibers::run(|| {
        let events = Channel::unbounded();
        let returns = supervised("ok", &events).spawn(|| 5).unwrap();
        let panics = supervised("bad", &events).spawn(|| panic!("oh {}", "no")).unwrap();
        let sleeps = supervised("late", &events).spawn(|| fibers::sleep(Duration::MAX)).unwrap();
        settle();
        sleeps.cancel();
        let heard: Vec<_> = (0..3).map(|_| events.take().unwrap()).collect();
        let heard_words: Vec<_> = heard.iter().map(words).collect();
        assert_eq!(heard_words, ["ok returned", "bad panicked: oh no", "late returned"]);
        assert!(heard[0].fiber < heard[1].fiber && heard[1].fiber < heard[2].fiber);
        // Whoever joins learns of it all the same.
        assert_eq!(returns.join().unwrap(), 5);
        assert!(matches!(panics.join(), Err(JoinError::Panicked(_))));
        sleeps.join().unwrap().unwrap_err();
    })
    .unwrap();
}

#[test]
fn children_inherit_the_supervisor_unless_they_have_their_own() {
    on_both_stacks(|| {
        let (events, own) = (Channel::unbounded(), Channel::unbounded());
        let other = own.clone();
        let parent = supervised("parent", &events).spawn(move || {
            let child = FiberBuilder::new().name("child").spawn(|| {
                let grandchild = FiberBuilder::new().name("grandchild").spawn(|| ()).unwrap();
                grandchild.join().unwrap();
            });
            child.unwrap().join().unwrap();
            supervised("stranger", &other).spawn(|| ()).unwrap().join().unwrap();
        });
        parent.unwrap().join().unwrap();
        let heard: Vec<_> = (0..events.len()).map(|_| words(&events.take().unwrap())).collect();
        assert_eq!(heard, ["grandchild returned", "child returned", "parent returned"]);
        assert_eq!(words(&own.take().unwrap()), "stranger returned");
        assert!(own.is_empty());
        // Nobody supervises those who spawn here.
        spawn(|| assert!(fibers::supervisor().is_none())).join().unwrap();
        assert!(events.is_empty());
    });
}

#[test]
fn a_fiber_ends_though_nobody_hears_it() {
    on_both_stacks(|| {
        let (full, closed) = (Channel::bounded(0), Channel::bounded(4));
        closed.close();
        for _ in 0..3 {
            supervised("unheard", &full).spawn(|| ()).unwrap();
            supervised("refused", &closed).spawn(|| ()).unwrap();
        }
        settle();
        assert_eq!(fibers::statistics().unwrap().alive, 1);
        assert_eq!((full.len(), closed.len()), (3, 0));
        assert_eq!(words(&full.take().unwrap()), "unheard returned");
    });
}

#[test]
fn messages_of_a_fiber_come_before_its_end_and_wait_for_room() {
    on_both_stacks(|| {
        let events = Channel::bounded(1);
        supervised("talker", &events)
            .spawn(|| {
                for number in 0..5u32 {
                    fibers::supervisor().unwrap().give(FiberEvent::message(number)).unwrap();
                }
            })
            .unwrap();
        settle();
        assert_eq!(events.len(), 2, "one accepted, and one that waits");
        let heard: Vec<_> = (0..6).map(|_| words(&events.take().unwrap())).collect();
        for (number, heard) in heard[..5].iter().enumerate() {
            assert_eq!(*heard, format!("talker says Some({number})"));
        }
        assert_eq!(heard[5], "talker returned");
    });
}

#[test]
fn a_fiber_that_ignores_the_end_is_reported_as_unwound() {
    let events = fibers::run(|| {
        let events = Channel::unbounded();
        supervised("stubborn", &events)
            .spawn(|| {
                loop {
                    let _ = fibers::sleep(Duration::MAX);
                }
            })
            .unwrap();
        fibers::yield_now().unwrap();
        events
    });
    assert_eq!(words(&events.unwrap().take().unwrap()), "stubborn was unwound");
}
