//! Reading instances again because somebody asks for it.
//!
//! Whoever asks gets no answer, and waits for none: the domain is read a moment later, and what is new about it is
//! published as any change is. However many ask for the same instance meanwhile, it is read once, and after all of
//! them.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};
use tracing::debug;
use uuid::Uuid;

/// How long the first who asks waits for others. An instance is read four times a second at most, and everything that
/// a script asks for at once is one batch.
const WINDOW: Duration = Duration::from_millis(250);
/// So many may ask before the task that gathers them has run once.
const UNHEARD: usize = 4096;

/// Instances to read again.
pub type Asked = Arc<BTreeSet<Uuid>>;

/// Asks for instances to be read again.
#[derive(Clone, Debug)]
pub struct Rereads(mpsc::Sender<Uuid>);

impl Rereads {
    /// Something to ask with, what the sources follow, and the task that gathers.
    pub fn new() -> (Self, watch::Receiver<Asked>, impl Future<Output = Infallible>) {
        let (ask, asked) = mpsc::channel(UNHEARD);
        let (batches, followed) = watch::channel(Asked::default());
        (Self(ask), followed, gather(asked, batches))
    }

    /// Asks for an instance. Never waits.
    pub fn ask(&self, instance: Uuid) {
        if self.0.try_send(instance).is_err() {
            debug!(instance.uuid = %instance, "too many ask for instances to be read again; left one out");
        }
    }
}

async fn gather(mut asked: mpsc::Receiver<Uuid>, batches: watch::Sender<Asked>) -> Infallible {
    loop {
        let Some(first) = asked.recv().await else { std::future::pending().await };
        let until = Instant::now() + WINDOW;
        let mut batch = BTreeSet::from([first]);
        while let Ok(Some(another)) = timeout_at(until, asked.recv()).await {
            batch.insert(another);
        }
        batches.send_replace(Arc::new(batch));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_who_ask_for_the_same_instance_at_once_are_one_reading() {
        let (rereads, mut followed, gather) = Rereads::new();
        tokio::spawn(gather);
        let (web, db) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for _ in 0..1000 {
            rereads.ask(web);
        }
        rereads.ask(db);
        followed.changed().await.unwrap();
        assert_eq!(**followed.borrow_and_update(), BTreeSet::from([web, db]));
        tokio::time::sleep(WINDOW * 100).await;
        assert!(!followed.has_changed().unwrap());
        // Whoever asks later is read later.
        rereads.ask(web);
        followed.changed().await.unwrap();
        assert_eq!(**followed.borrow(), BTreeSet::from([web]));
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_can_be_heard_do_not_block() {
        let (rereads, mut followed, gather) = Rereads::new();
        for number in 0..2 * UNHEARD {
            rereads.ask(Uuid::from_u128(number as u128));
        }
        tokio::spawn(gather);
        followed.changed().await.unwrap();
        assert_eq!(followed.borrow().len(), UNHEARD);
    }
}
