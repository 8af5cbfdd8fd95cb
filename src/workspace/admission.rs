//! Who may run: a fixed number of places, and a queue for those who find none.
//!
//! A place is held for as long as a container runs, a pool's included. First come, first served; the pool asks only when nobody waits.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// The places, and who waits for one.
#[derive(Debug, Clone)]
pub(super) struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    book: Mutex<Book>,
    /// Told whenever somebody has to wait, so that room can be made.
    pressure: Notify,
}

#[derive(Debug)]
struct Book {
    capacity: usize,
    taken: usize,
    longest_queue: usize,
    next_ticket: u64,
    queue: VecDeque<(u64, watch::Sender<Turn>)>,
}

/// Where somebody is in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// 1 is next.
    Waiting(usize),
    /// A place was set aside.
    Admitted,
}

/// The right to run one container. Dropping it gives the place to the next in the queue.
#[derive(Debug)]
pub(super) struct Place(Arc<Inner>);

/// A place in the queue. Dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct Ticket {
    number: u64,
    turn: watch::Receiver<Turn>,
    inner: Arc<Inner>,
    spent: bool,
}

/// The queue is full as well.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueueFull {
    /// How many wait.
    pub(super) waiting: usize,
}

// === impl Admission ===

impl Admission {
    pub(super) fn new(capacity: usize, longest_queue: usize) -> Self {
        let book = Book { capacity, taken: 0, longest_queue, next_ticket: 0, queue: VecDeque::new() };
        Self(Arc::new(Inner { book: Mutex::new(book), pressure: Notify::new() }))
    }

    /// Other limits from now on. Places above a lower capacity are not taken away, only not given again.
    pub(super) fn resize(&self, capacity: usize, longest_queue: usize) {
        let mut book = self.0.book.lock();
        book.capacity = capacity;
        book.longest_queue = longest_queue;
        book.admit();
    }

    /// A place, if one is free and nobody waits for it.
    pub(super) fn try_enter(&self) -> Option<Place> {
        let mut book = self.0.book.lock();
        let free = book.queue.is_empty() && book.taken < book.capacity;
        free.then(|| {
            book.taken += 1;
            Place(Arc::clone(&self.0))
        })
    }

    /// A place for a container that runs already, free or not.
    pub(super) fn enter_anyway(&self) -> Place {
        self.0.book.lock().taken += 1;
        Place(Arc::clone(&self.0))
    }

    /// Gets in line.
    pub(super) fn enqueue(&self) -> Result<Ticket, QueueFull> {
        let mut book = self.0.book.lock();
        if book.queue.len() >= book.longest_queue {
            return Err(QueueFull { waiting: book.queue.len() });
        }
        let number = book.next_ticket;
        book.next_ticket += 1;
        let (sender, turn) = watch::channel(Turn::Waiting(book.queue.len() + 1));
        book.queue.push_back((number, sender));
        book.admit();
        drop(book);
        self.look_for_room();
        Ok(Ticket { number, turn, inner: Arc::clone(&self.0), spent: false })
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.book.lock().queue.len()
    }

    /// How many places there are, and how many are taken.
    pub(super) fn places(&self) -> (usize, usize) {
        let book = self.0.book.lock();
        (book.capacity, book.taken)
    }

    /// Something has changed that may let somebody who waits in.
    pub(super) fn look_for_room(&self) {
        if self.waiting() > 0 {
            self.0.pressure.notify_one();
        }
    }

    /// Returns when somebody waits and it is worth looking for room, since the last call.
    pub(super) async fn pressed(&self) {
        self.0.pressure.notified().await;
    }
}

// === impl Book ===

impl Book {
    /// Gives free places to the first in the queue and tells the others where they are now.
    fn admit(&mut self) {
        let before = self.queue.len();
        while self.taken < self.capacity
            && let Some((_, turn)) = self.queue.pop_front()
        {
            self.taken += 1;
            turn.send_replace(Turn::Admitted);
        }
        if self.queue.len() != before {
            self.renumber();
        }
    }

    fn renumber(&self) {
        for (ahead, (_, turn)) in self.queue.iter().enumerate() {
            turn.send_replace(Turn::Waiting(ahead + 1));
        }
    }

    fn release(&mut self) {
        self.taken -= 1;
        self.admit();
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        self.0.book.lock().release();
    }
}

// === impl Ticket ===

impl Ticket {
    /// Waits for a place; `tell` hears of every change of position, 1 being next.
    pub(super) async fn wait(mut self, tell: impl Fn(usize)) -> Place {
        loop {
            let turn = *self.turn.borrow_and_update();
            match turn {
                Turn::Waiting(position) => tell(position),
                Turn::Admitted => {
                    self.spent = true;
                    return Place(Arc::clone(&self.inner));
                }
            }
            // The sender goes only after it has said `Admitted`, or together with this ticket.
            if self.turn.changed().await.is_err() && *self.turn.borrow() != Turn::Admitted {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.spent {
            return;
        }
        let mut book = self.inner.book.lock();
        let before = book.queue.len();
        book.queue.retain(|(number, _)| *number != self.number);
        if book.queue.len() == before {
            // Admitted, and nobody came for it.
            book.release();
        } else {
            book.renumber();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn first_come_first_served() {
        let places = Admission::new(1, 10);
        let held = places.try_enter().unwrap();
        assert!(places.try_enter().is_none());
        let position = Arc::new(AtomicUsize::new(0));
        let (first, second) = (places.enqueue().unwrap(), places.enqueue().unwrap());
        let seen = Arc::clone(&position);
        let second = tokio::spawn(second.wait(move |at| seen.store(at, Ordering::SeqCst)));
        tokio::task::yield_now().await;
        assert_eq!(position.load(Ordering::SeqCst), 2);
        drop(held);
        let first = first.wait(|_| {}).await;
        tokio::task::yield_now().await;
        assert_eq!(position.load(Ordering::SeqCst), 1);
        assert!(places.try_enter().is_none(), "never past somebody who waits");
        drop(first);
        drop(second.await.unwrap());
        assert!(places.try_enter().is_some());
    }

    #[tokio::test]
    async fn who_leaves_the_queue_blocks_nobody() {
        let places = Admission::new(1, 10);
        let held = places.try_enter().unwrap();
        let (first, second) = (places.enqueue().unwrap(), places.enqueue().unwrap());
        drop(first);
        drop(held);
        let place = second.wait(|_| {}).await;
        let admitted_and_gone = {
            let ticket = places.enqueue().unwrap();
            drop(place);
            ticket
        };
        drop(admitted_and_gone);
        assert!(places.try_enter().is_some());
    }

    #[test]
    fn the_queue_is_bounded() {
        let places = Admission::new(0, 1);
        let _waiting = places.enqueue().unwrap();
        assert_eq!(places.enqueue().unwrap_err(), QueueFull { waiting: 1 });
        places.resize(1, 1);
        assert_eq!(places.waiting(), 0);
    }
}
