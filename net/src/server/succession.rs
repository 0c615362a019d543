//! Who serves in place of a worker that has failed.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ringspun_fibers::{TakeOver, Worker};

use super::shared::{Message, Numbered, Shared};
use super::site::{Delivery, Site};

/// What makes a worker's part of a server.
pub(super) struct Maker<S> {
    pub(super) make_state: Arc<dyn Fn(usize) -> S + Send + Sync>,
    pub(super) deliver: Vec<Box<dyn FnMut() -> Delivery<S> + Send>>,
}

impl<S: 'static> Maker<S> {
    /// What begins to serve on a worker, once it is called there.
    pub(super) fn part(
        &mut self,
        shared: Arc<Shared>,
        worker: usize,
        sockets: Vec<Numbered>,
    ) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let deliveries: Vec<Delivery<S>> = self.deliver.iter_mut().map(|deliver| deliver()).collect();
        let make_state = self.make_state.clone();
        move || {
            let handlers = deliveries.into_iter().map(|deliver| deliver()).collect();
            Site::start(shared, worker, make_state(worker), handlers, sockets)
        }
    }

    /// Has a server go on when workers fail.
    pub(super) fn take_over(self, shared: &Arc<Shared>) -> Arc<TakeOver> {
        let (shared, maker): (Weak<Shared>, _) = (Arc::downgrade(shared), Mutex::new(self));
        Arc::new(move |failed, successor: &Worker| {
            let Some(shared) = shared.upgrade() else { return };
            if successor.index() != failed {
                hand_to(&shared, failed, successor.index());
                return;
            }
            let (sockets, messages) = shared.write_off(failed);
            let begin =
                maker.lock().unwrap_or_else(PoisonError::into_inner).part(shared.clone(), failed, sockets);
            if let Err(error) = begin() {
                tracing::error!(%error, worker = failed, "a worker's replacement cannot serve");
                shared.leave(failed);
            }
            let inbox = shared.inbox(failed);
            messages.into_iter().for_each(|message| drop(inbox.try_give(message)));
            // The server may have been told to end in between.
            if shared.is_over() {
                let _ = inbox.try_give(Message::StopListening);
            }
            if shared.is_ending() {
                let _ = inbox.try_give(Message::Cancel);
                inbox.close();
            }
        })
    }
}

/// Has another worker serve what has come to the failed one, and comes to its sockets.
fn hand_to(shared: &Arc<Shared>, failed: usize, successor: usize) {
    let (sockets, messages) = shared.write_off(failed);
    let inbox = shared.inbox(successor);
    if !shared.is_over() {
        let _ = inbox.try_give(Message::Sockets(sockets));
    }
    let connections = messages.into_iter().filter(|message| matches!(message, Message::Connection(..)));
    connections.for_each(|connection| drop(inbox.try_give(connection)));
    if shared.is_over() {
        let _ = inbox.try_give(Message::StopListening);
    }
    shared.leave(failed);
}
