//! Futures in fibers, and fibers in futures: wakes from everywhere, and interrupts, which drop the future.

mod common;

use std::cell::{Cell, RefCell};
use std::future::{Future, IntoFuture, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use ringspun_fibers::{self as fibers, Channel, Interrupt, JoinError, as_future, block_on};

use common::{on_both_stacks, settle, spawn};

const AGES: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(2);

/// Counts what is alive of something.
#[derive(Clone, Default)]
struct Alive(Rc<Cell<u32>>);

struct One(Alive);

impl Alive {
    fn one(&self) -> One {
        self.0.set(self.0.get() + 1);
        One(self.clone())
    }

    fn count(&self) -> u32 {
        self.0.get()
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.set(self.0.count() - 1);
    }
}

/// A future that is ready once another thread has said so.
#[derive(Clone, Default)]
struct Flag(Arc<Mutex<(bool, Option<Waker>)>>);

impl Flag {
    fn raise(&self) {
        let mut flag = self.0.lock().unwrap();
        flag.0 = true;
        let waker = flag.1.take();
        drop(flag);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Future for Flag {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut flag = self.0.lock().unwrap();
        if flag.0 {
            return Poll::Ready(());
        }
        flag.1 = Some(context.waker().clone());
        Poll::Pending
    }
}

#[test]
fn a_future_is_woken_by_fibers_and_by_other_threads() {
    on_both_stacks(|| {
        let flag = Flag::default();
        let raised = flag.clone();
        let raising = spawn(move || raised.raise());
        block_on(flag).unwrap();
        raising.join().unwrap();

        // A thread raises the next flag when it sees that the last one was.
        let (flags, given): (Sender<Flag>, Receiver<Flag>) = channel();
        let thread = thread::spawn(move || given.into_iter().for_each(|flag| flag.raise()));
        for _ in 0..200 {
            let flag = Flag::default();
            flags.send(flag.clone()).unwrap();
            block_on(flag).unwrap();
        }
        drop(flags);
        thread.join().unwrap();
    });
}

#[test]
fn a_future_borrows_and_others_run_while_it_waits() {
    on_both_stacks(|| {
        let (text, alive) = (String::from("borrowed"), Alive::default());
        let (from, to) = (Channel::bounded(1), Channel::bounded(1));
        let (question, answer) = (from.clone(), to.clone());
        let other = spawn(move || answer.give(question.take().unwrap() * 2));
        let length = block_on(async {
            let _one = alive.one();
            as_future(fibers::after(SOON)).await;
            from.give(text.len()).unwrap(); // parks, or not, as anywhere in a fiber
            to.take().unwrap()
        });
        assert_eq!(length, Ok(16));
        assert_eq!(alive.count(), 0);
        other.join().unwrap().unwrap();
    });
}

#[test]
fn a_future_that_wakes_itself_lets_others_run() {
    on_both_stacks(|| {
        let turns = Rc::new(Cell::new(0));
        let counted = turns.clone();
        let other = spawn(move || {
            while fibers::yield_now().is_ok() {
                counted.set(counted.get() + 1);
            }
        });
        let mut polls = 0;
        block_on(poll_fn(|context| {
            polls += 1;
            context.waker().wake_by_ref();
            if polls < 100 { Poll::Pending } else { Poll::Ready(()) }
        }))
        .unwrap();
        assert!(turns.get() >= 90, "{} turns of the other", turns.get());
        other.cancel();
        other.join().unwrap();
    });
}

#[test]
fn a_wake_during_a_wait_inside_of_the_future_is_not_lost() {
    on_both_stacks(|| {
        let flag = Flag::default();
        let raised = flag.clone();
        let mut flag = pin!(flag);
        let mut polls = 0;
        let other = spawn(move || {
            // While the fiber waits for something else.
            raised.raise();
            fibers::sleep(SOON)
        });
        block_on(poll_fn(|context| {
            polls += 1;
            let polled = flag.as_mut().poll(context);
            if polls == 1 {
                other.join().unwrap().unwrap();
            }
            polled
        }))
        .unwrap();
        assert_eq!(polls, 2);
    });
}

#[test]
fn an_interrupt_drops_the_future() {
    on_both_stacks(|| {
        let alive = Alive::default();
        let never = |alive: &Alive| {
            let one = alive.one();
            async move {
                let _one = one;
                pending::<()>().await;
            }
        };
        let future = never(&alive);
        assert_eq!(fibers::with_deadline(SOON, || block_on(future)), Err(Interrupt::DeadlineExpired));
        assert_eq!(alive.count(), 0);

        let future = never(&alive);
        let waiting = spawn(move || block_on(future));
        settle();
        assert_eq!(alive.count(), 1);
        waiting.cancel();
        assert_eq!(waiting.join().unwrap(), Err(Interrupt::Cancelled));
        assert_eq!(alive.count(), 0);

        // One that is ready gives its output, whatever is pending.
        let ready = spawn(|| block_on(async { 7 }));
        ready.cancel();
        assert_eq!(ready.join().unwrap(), Ok(7));
    });
}

#[test]
fn the_end_of_the_runtime_drops_the_future_and_a_waker_may_outlive_it() {
    let flag = Flag::default();
    let (given, alive) = (flag.clone(), Alive::default());
    let ended = fibers::run(move || {
        let result = Rc::new(Cell::new(None));
        let (one, of_fiber) = (alive.one(), result.clone());
        spawn(move || {
            of_fiber.set(Some(block_on(async move {
                let _one = one;
                given.await;
            })));
        });
        settle();
        assert_eq!(alive.count(), 1);
        (alive, result)
    });
    let (alive, result) = ended.unwrap();
    assert_eq!((alive.count(), result.take()), (0, Some(Err(Interrupt::Cancelled))));
    flag.raise();
    thread::spawn(move || flag.raise()).join().unwrap();
}

#[test]
fn a_panic_of_the_future_comes_out_and_nothing_of_it_stays() {
    on_both_stacks(|| {
        let alive = Alive::default();
        let one = alive.one();
        let future = async {
            let _one = one;
            as_future(fibers::after(SOON)).await;
            panic!("in a future");
        };
        let panicked = catch_unwind(AssertUnwindSafe(|| block_on(future)));
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"in a future"));
        assert_eq!(alive.count(), 0);
        assert_eq!(block_on(async { 1 }), Ok(1));
    });
}

/// Polls many futures in turns, as executors do, each with a waker of its own.
async fn all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(move |context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(ready) = Pin::new(future).poll(context)
            {
                *output = Some(ready);
            }
        }
        if outputs.iter().all(Option::is_some) {
            Poll::Ready(std::mem::take(&mut outputs).into_iter().flatten().collect())
        } else {
            Poll::Pending
        }
    })
    .await
}

#[test]
fn results_of_fibers_are_awaited() {
    on_both_stacks(|| {
        let fibers_of = |count: u32| -> Vec<_> {
            (0..count)
                .map(|n| spawn(move || fibers::sleep(SOON * (n % 3)).map(|()| n)).into_future())
                .collect()
        };
        let outputs = block_on(all(fibers_of(20))).unwrap();
        let numbers: Vec<_> = outputs.into_iter().map(|output| output.unwrap().unwrap()).collect();
        assert!(numbers.into_iter().eq(0..20));

        let panics = spawn(|| panic!("in a fiber"));
        assert!(matches!(block_on(panics), Ok(Err(JoinError::Panicked(_)))));
        // A dropped future detaches its fiber.
        let went_on = Rc::new(Cell::new(false));
        let set = went_on.clone();
        let joining = spawn(move || set.set(fibers::sleep(SOON).is_ok())).into_future();
        assert!(fibers::with_deadline(Duration::ZERO, || block_on(joining)).is_err());
        fibers::sleep(SOON * 2).unwrap();
        while !went_on.get() {
            fibers::sleep(SOON).unwrap();
        }
    });
}

#[test]
fn what_fibers_wait_for_is_given_up_with_its_future() {
    on_both_stacks(|| {
        let timers = || fibers::event_loop().unwrap().statistics().timers;
        let before = timers();
        let mut first = as_future(fibers::after(AGES));
        let wakes = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..2 {
            // The second poll is of another task: only that is woken.
            let polled = fibers::with_deadline(Duration::ZERO, || block_on(&mut first));
            assert_eq!(polled, Err(Interrupt::DeadlineExpired));
            wakes.borrow_mut().push(timers());
        }
        assert_eq!(*wakes.borrow(), [before + 1; 2]);
        drop(first);
        assert_eq!(timers(), before);
    });
}

/// Blocks a thread until a future is ready: the least of executors, which knows nothing of fibers.
fn block_thread_on<F: IntoFuture>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future.into_future());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

#[test]
fn a_result_is_awaited_on_a_thread_that_knows_nothing_of_fibers() {
    on_both_stacks(|| {
        let remote = fibers::remote().unwrap();
        let thread = thread::spawn(move || {
            let slow = remote.spawn(|| fibers::sleep(SOON).map(|()| 42)).unwrap();
            let panics = remote.spawn(|| panic!("in a fiber")).unwrap();
            let cancelled = remote.spawn(|| fibers::sleep(AGES)).unwrap();
            cancelled.cancel();
            assert!(matches!(block_thread_on(slow), Ok(Ok(42))));
            assert!(matches!(block_thread_on(panics), Err(JoinError::Panicked(_))));
            assert!(matches!(block_thread_on(cancelled), Ok(Err(Interrupt::Cancelled))));
            // Given up, and not taken: the fiber goes on.
            let mut given_up = remote.spawn(|| fibers::sleep(AGES)).unwrap().into_future();
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut given_up).poll(&mut context).is_pending());
            drop(given_up);
            remote
        });
        let remote = fibers::blocking(|| thread.join().unwrap()).unwrap();
        // The other way round, within one runtime.
        let here = remote.spawn(|| 7).unwrap();
        assert!(matches!(block_on(here), Ok(Ok(7))));
    });
}

#[test]
fn a_task_whose_runtime_ends_is_lost_or_cancelled_to_the_one_who_awaits_it() {
    let (tell, told) = channel();
    let runtime = thread::spawn(move || {
        fibers::run(move || {
            tell.send(fibers::remote().unwrap()).unwrap();
            fibers::sleep(SOON).unwrap();
        })
    });
    let remote = told.recv().unwrap();
    let tasks: Vec<_> = (0..100).map_while(|_| remote.spawn(|| fibers::sleep(AGES)).ok()).collect();
    for result in tasks.into_iter().map(block_thread_on) {
        assert!(matches!(result, Ok(Err(Interrupt::Cancelled)) | Err(JoinError::Lost)), "{result:?}");
    }
    runtime.join().unwrap().unwrap();
}
