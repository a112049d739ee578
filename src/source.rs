//! What a source is: something outside vifd whose complete view we hold and keep current.
//!
//! A source is a *session*, which can only fail or be stopped, and a *supervisor*, which marks the snapshot
//! stale, backs off and starts the next session. A session subscribes first, lists second, follows third: an event
//! says "look again", the state that we read then is the truth.
//!
//! Each source owns one [`watch`] channel of [`Snapshot`]s. A reader wants the newest value and never the history.

use std::{sync::Arc, time::Duration};

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::moment::Moment;

pub mod leases;
pub mod libvirt;
pub mod moment;
pub mod netlink;
pub mod ovsdb;
pub mod processes;

/// One source's latest complete view, and whether it is being kept current.
#[derive(Debug)]
pub struct Snapshot<T> {
    /// The view. Empty while [`SyncState::Pending`], the last known one while [`SyncState::Stale`].
    pub data: Arc<T>,
    /// Whether `data` is being kept current.
    pub sync: SyncState,
}

/// Whether a source's view is being kept current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SyncState {
    /// Never complete since vifd started. The reason is absent until the first attempt has failed.
    Pending {
        /// Why the last attempt failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Arc<str>>,
    },
    /// There is no such source on this host, which is as normal as having it. Nobody waits for it.
    Absent,
    /// Complete, and kept current by events.
    Synced {
        /// Since when without interruption.
        since: Moment,
    },
    /// Was current until the source was lost; the view is the last one known.
    Stale {
        /// When the source was last known to be current.
        since: Moment,
        /// Why it was lost, or why the last attempt to get it back failed.
        reason: Arc<str>,
    },
}

impl SyncState {
    /// Whether the view is being kept current.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        matches!(self, Self::Synced { .. })
    }

    /// Whether the source has never delivered a complete view, although it should.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Pending { .. })
    }

    /// Whether the first attempt to read the source has succeeded or failed.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        !matches!(self, Self::Pending { reason: None })
    }

    /// Why the source is not current, where that is known.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Pending { reason } => reason.as_deref(),
            Self::Absent | Self::Synced { .. } => None,
            Self::Stale { reason, .. } => Some(reason),
        }
    }
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self { data: Arc::clone(&self.data), sync: self.sync.clone() }
    }
}

/// What a source that this host does not have says.
impl<T: Default> Snapshot<T> {
    /// Nothing, and that there will be nothing.
    #[must_use]
    pub fn absent() -> Self {
        Self { data: Arc::default(), sync: SyncState::Absent }
    }
}

/// What a source has before its first session is complete.
impl<T: Default> Default for Snapshot<T> {
    fn default() -> Self {
        Self { data: Arc::default(), sync: SyncState::Pending { reason: None } }
    }
}

impl<T> Snapshot<T> {
    /// Keeps the data and says that it is no longer kept current, since now and why.
    pub fn mark_stale(&mut self, why: &str) {
        let reason: Arc<str> = why.into();
        self.sync = match self.sync {
            SyncState::Pending { .. } | SyncState::Absent => SyncState::Pending { reason: Some(reason) },
            SyncState::Synced { .. } => SyncState::Stale { since: Moment::now(), reason },
            SyncState::Stale { since, .. } => SyncState::Stale { since, reason },
        };
    }
}

impl<T: PartialEq> Snapshot<T> {
    /// Takes `data` as current. Says whether anything differs from before.
    pub fn update(&mut self, data: T) -> bool {
        if !self.sync.is_synced() {
            *self = Self { data: Arc::new(data), sync: SyncState::Synced { since: Moment::now() } };
            return true;
        }
        let changed = *self.data != data;
        if changed {
            self.data = Arc::new(data);
        }
        changed
    }
}

/// Publishes `data` as current; wakes readers only when something differs.
pub fn publish<T: PartialEq>(tx: &watch::Sender<Snapshot<T>>, data: T) {
    tx.send_if_modified(|snapshot| snapshot.update(data));
}

/// The wall clock, to the millisecond: finer is noise to a reader. What an age is told by is a [`Moment`].
#[must_use]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    let whole = TimestampRound::new().smallest(Unit::Millisecond).mode(RoundMode::Trunc);
    now.round(whole).unwrap_or(now)
}

/// Growing, jittered delays between attempts to get a source back.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Short, so that the restart of a daemon is hardly noticed.
    const FIRST: Duration = Duration::from_millis(100);
    /// Long enough to cost nothing while a source is away for days, short enough not to keep an operator waiting
    /// who has just started it.
    const LONGEST: Duration = Duration::from_secs(5);
    /// Slow: a source that is back waits for a quarter of its absence at most, since most restarts take a second.
    const GROWTH: f64 = 1.25;

    /// Delays that grow to `longest`.
    #[must_use]
    pub fn up_to(longest: Duration) -> Self {
        // Even a mistaken zero must not occupy a processor.
        let longest = longest.max(Duration::from_millis(1));
        Self { next: Self::FIRST.min(longest), longest }
    }

    /// How long to wait before the next attempt. Jitter keeps many agents from moving in step.
    pub fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.mul_f64(Self::GROWTH).min(self.longest);
        delay.mul_f64(0.75 + fastrand::f64() / 2.0)
    }

    /// Starts from the shortest delay again: the source was reached.
    pub fn reset(&mut self) {
        *self = Self::up_to(self.longest);
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(Self::LONGEST)
    }
}

/// An error and its causes in one line, `what: why: why`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losing_a_source_keeps_its_data_and_the_time_when_it_was_last_current() {
        let (tx, rx) = watch::channel(Snapshot::<Vec<u8>>::default());
        tx.send_modify(|s| s.mark_stale("no socket"));
        assert_eq!(rx.borrow().sync, SyncState::Pending { reason: Some("no socket".into()) });

        publish(&tx, vec![1]);
        tx.send_modify(|s| s.mark_stale("closed"));
        let first = rx.borrow().clone();
        let SyncState::Stale { since, .. } = first.sync else { panic!("{:?}", first.sync) };
        assert_eq!(*first.data, [1]);

        tx.send_modify(|s| s.mark_stale("refused"));
        assert_eq!(rx.borrow().sync, SyncState::Stale { since, reason: "refused".into() });
    }

    #[test]
    fn nobody_waits_for_an_absent_source_until_it_turns_out_to_be_there() {
        let mut snapshot = Snapshot::<u8>::absent();
        assert!(snapshot.sync.is_decided() && !snapshot.sync.is_pending() && !snapshot.sync.is_synced());
        snapshot.mark_stale("refused");
        assert_eq!(snapshot.sync, SyncState::Pending { reason: Some("refused".into()) });
        assert!(snapshot.update(1) && snapshot.sync.is_synced());
    }

    #[test]
    fn publishing_the_same_wakes_nobody_unless_the_source_was_lost() {
        let (tx, mut rx) = watch::channel(Snapshot::default());
        publish(&tx, 1);
        rx.mark_unchanged();
        publish(&tx, 1);
        assert!(!rx.has_changed().unwrap());
        tx.send_modify(|s| s.mark_stale("closed"));
        rx.mark_unchanged();
        publish(&tx, 1);
        assert!(rx.has_changed().unwrap() && rx.borrow().sync.is_synced());
    }

    #[test]
    fn delays_grow_to_a_bound_and_start_again_after_a_success() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..20).map(|_| backoff.delay()).collect();
        assert!(delays[0] <= Backoff::FIRST.mul_f64(1.25));
        assert!(delays.iter().all(|d| *d <= Backoff::LONGEST.mul_f64(1.25)));
        assert!(delays[19] >= Backoff::LONGEST.mul_f64(0.75));
        backoff.reset();
        assert!(backoff.delay() <= Backoff::FIRST.mul_f64(1.25));
    }
}
