//! The recent changes, for whoever follows them: a bounded ring from which each reader reads at its own pace.
//!
//! A reader holds nothing but a [`Position`]. One that is too slow finds that what it has not read is gone, and is told
//! so; it costs nobody memory.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    Inventory,
    changes::{Change, diff},
};
use crate::source::now;

/// A change, with its place in the order of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// The generation in which it is there.
    pub generation: u64,
    /// When it was seen, by the wall clock.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// What has changed.
    #[serde(flatten)]
    pub change: Change,
    /// Its number among the changes of its generation, from 1.
    #[serde(skip)]
    pub number: u32,
}

/// How far somebody has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The generation.
    pub generation: u64,
    /// The number of the last change of it that was read.
    pub number: u32,
}

impl Position {
    /// After every change of a generation.
    #[must_use]
    pub fn after(generation: u64) -> Self {
        Self { generation, number: u32::MAX }
    }
}

impl Event {
    /// Where a reader is that has read it.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { generation: self.generation, number: self.number }
    }
}

/// What has been read.
#[derive(Debug)]
pub enum Read {
    /// The next changes; none if there are no more. All up to the position is read then.
    Events(Vec<Arc<Event>>, Position),
    /// The changes after the reader's position are no longer there.
    TooOld,
}

/// The recent changes.
#[derive(Clone, Debug)]
pub struct Recent {
    ring: Arc<Mutex<Ring>>,
    /// The newest generation of which the changes are there.
    newest: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    /// Everything after this is there.
    from: Position,
    to: Position,
}

/// So many changes are kept: some thousands fill a megabyte or two.
const KEPT: usize = 2000;
/// So many are read at a time.
const AT_ONCE: usize = 64;

impl Recent {
    /// No change yet since this inventory, and what follows it from there on. Dropping that future is safe.
    pub fn new(mut inventory: watch::Receiver<Arc<Inventory>>) -> (Self, impl Future<Output = Infallible>) {
        let mut before = Arc::clone(&inventory.borrow_and_update());
        let start = Position::after(before.generation);
        let ring = Arc::new(Mutex::new(Ring { events: VecDeque::new(), from: start, to: start }));
        let (tx, newest) = watch::channel(before.generation);
        let recent = Self { ring: Arc::clone(&ring), newest };
        let follow = async move {
            while inventory.changed().await.is_ok() {
                let after = Arc::clone(&inventory.borrow_and_update());
                let changes = diff(&before, &after);
                lock(&ring).add(after.generation, changes);
                tx.send_replace(after.generation);
                before = after;
            }
            std::future::pending().await
        };
        (recent, follow)
    }

    /// The newest generation of which the changes are there.
    #[must_use]
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// Waits until there is a newer generation than this, and its changes.
    pub async fn beyond(&mut self, generation: u64) {
        if self.newest.wait_for(|newest| *newest > generation).await.is_err() {
            std::future::pending().await
        }
    }

    /// The next changes after a position.
    #[must_use]
    pub fn read(&self, after: Position) -> Read {
        lock(&self.ring).read(after)
    }
}

fn lock(ring: &Mutex<Ring>) -> std::sync::MutexGuard<'_, Ring> {
    // Nothing in here leaves it half changed.
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ring {
    fn add(&mut self, generation: u64, changes: Vec<Change>) {
        let time = now();
        for (number, change) in (1..).zip(changes) {
            if self.events.len() == KEPT
                && let Some(oldest) = self.events.pop_front()
            {
                self.from = oldest.position();
            }
            self.events.push_back(Arc::new(Event { generation, time, change, number }));
        }
        self.to = Position::after(generation);
    }

    fn read(&self, after: Position) -> Read {
        if after < self.from || after > self.to {
            return Read::TooOld;
        }
        let start = self.events.partition_point(|event| event.position() <= after);
        let events: Vec<_> = self.events.range(start..).take(AT_ONCE).cloned().collect();
        let position = match events.last() {
            Some(last) if events.len() == AT_ONCE => last.position(),
            _ => self.to,
        };
        Read::Events(events, position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::testing::{joined, link, view};

    fn ring() -> Ring {
        let start = Position::after(1);
        Ring { events: VecDeque::new(), from: start, to: start }
    }

    /// So many changes, by real links.
    fn changes(count: u32) -> Vec<Change> {
        let links: Vec<_> = (1..=count).map(|n| link(n, &format!("tap{n}"))).collect();
        diff(&joined(&view(&[], &[])), &joined(&view(&[], &links)))
    }

    /// Reads to the end, however many times that takes.
    fn read(ring: &Ring, mut after: Position) -> Option<usize> {
        let mut count = 0;
        while after != ring.to {
            let Read::Events(events, position) = ring.read(after) else { return None };
            (count, after) = (count + events.len(), position);
        }
        Some(count)
    }

    #[test]
    fn a_reader_gets_each_change_once_wherever_it_stopped() {
        let mut ring = ring();
        ring.add(2, changes(100));
        ring.add(3, changes(0));
        ring.add(4, changes(5));
        for (after, left) in [
            (Position::after(1), 105),
            (Position { generation: 2, number: 70 }, 35),
            (Position::after(2), 5),
            (Position::after(3), 5),
            (Position { generation: 4, number: 5 }, 0),
            (Position::after(4), 0),
        ] {
            assert_eq!(read(&ring, after), Some(left), "{after:?}");
        }
    }

    #[test]
    fn whoever_is_too_slow_or_of_another_time_is_told_and_nothing_grows() {
        let mut ring = ring();
        ring.add(2, changes(1500));
        assert_eq!(read(&ring, Position::after(1)), Some(1500));
        ring.add(3, changes(1500));
        assert_eq!(ring.events.len(), KEPT);
        assert_eq!(read(&ring, Position::after(1)), None);
        assert_eq!(read(&ring, Position { generation: 2, number: 999 }), None);
        assert_eq!(read(&ring, Position { generation: 2, number: 1000 }), Some(KEPT));
        assert!(matches!(ring.read(Position::after(9)), Read::TooOld), "it is not from here");
    }
}
