//! What the other sources hold against what is known of the domains, made into hints for a session.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    time::Duration,
};

use tokio::{
    sync::{mpsc::UnboundedSender, watch},
    time::{Instant, sleep_until},
};
use tracing::debug;
use uuid::Uuid;

use super::{Domains, events::Wake};
use crate::source::Snapshot;

/// What the other sources hold against what is known of the domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubts {
    /// The domains that they contradict, and what they say. A domain whose reasons have changed is in doubt anew: one
    /// reason may stay for good, as long as somebody has moved a device behind libvirt's back.
    pub domains: BTreeMap<Uuid, BTreeSet<String>>,
    /// The devices, of the kinds that domains have, that no known domain has. libvirt tells of a start when it has
    /// succeeded or failed, and the devices come before.
    pub unowned: BTreeSet<u32>,
}

/// Wakes the session for each domain that comes into doubt, or into doubt for other reasons than before; and for those
/// that still are a little later once more, less and less often: the kernel may have been quicker than libvirt. Has it
/// look for new domains where a new device goes without an owner for a while.
pub(super) async fn pass_on(
    tx: &watch::Sender<Snapshot<Domains>>,
    doubts: &mut watch::Receiver<Doubts>,
    wakes: &UnboundedSender<Wake>,
) -> Infallible {
    let wake = |uuid: &Uuid| {
        if tx.borrow().data.known.contains_key(uuid) {
            let _ = wakes.send(Wake::Description(*uuid));
        }
    };
    let mut known = Doubts::default();
    let mut pause = RECHECK;
    let mut again = None;
    // The devices on whose account no list has been asked for yet, and when the next may be.
    let mut new_devices = BTreeSet::new();
    let mut next_list = Instant::now();
    loop {
        let current = doubts.borrow_and_update().clone();
        for (uuid, why) in &current.domains {
            if known.domains.get(uuid) != Some(why) {
                debug!(instance.uuid = %uuid, ?why, "in doubt");
                wake(uuid);
                pause = RECHECK;
                again = Some(Instant::now() + pause);
            }
        }
        if new_devices.is_empty() {
            next_list = next_list.max(Instant::now() + START);
        }
        new_devices.retain(|index| current.unowned.contains(index));
        new_devices.extend(current.unowned.difference(&known.unowned));
        known = current;
        tokio::select! {
            changed = doubts.changed() => if changed.is_err() {
                std::future::pending().await
            },
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                known.domains.keys().for_each(wake);
                pause *= 2;
                again = (!known.domains.is_empty()).then(|| Instant::now() + pause);
            }
            () = sleep_until(next_list), if !new_devices.is_empty() => {
                debug!(devices = ?new_devices, "looking for a domain that has these devices");
                let _ = wakes.send(Wake::List);
                new_devices.clear();
                next_list = Instant::now() + LIST_INTERVAL;
            }
        }
    }
}

/// A hot-plug into a container is visible in the kernel some 50 ms before libvirt tells of it, unless libvirt is busy.
const RECHECK: Duration = Duration::from_millis(500);
/// Most starts are over so long after their devices have come.
const START: Duration = Duration::from_millis(500);
/// Devices that are none of libvirt's come and go all the time on some hosts.
const LIST_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{sync::mpsc, time};

    use super::*;
    use crate::source::libvirt::domain::{Domain, DomainState};

    const WEB: Uuid = Uuid::from_u128(1);

    /// One that knows the domain WEB.
    struct Session {
        doubts: watch::Sender<Doubts>,
        wakes: mpsc::UnboundedReceiver<Wake>,
    }

    impl Session {
        fn start() -> Self {
            let xml = format!("<domain><name>web</name><uuid>{WEB}</uuid></domain>");
            let web = Arc::new(Domain::decode(&xml, DomainState::Running).unwrap());
            let data = Arc::new(Domains { known: [(WEB, web)].into(), ..Domains::default() });
            let tx = watch::Sender::new(Snapshot { data, ..Snapshot::default() });
            let (doubts, mut followed) = watch::channel(Doubts::default());
            let (wakes_tx, wakes) = mpsc::unbounded_channel();
            tokio::spawn(async move { pass_on(&tx, &mut followed, &wakes_tx).await });
            Self { doubts, wakes }
        }

        async fn woken_within(&mut self, seconds: f64, expected: Wake) -> usize {
            time::sleep(Duration::from_secs_f64(seconds)).await;
            std::iter::from_fn(|| self.wakes.try_recv().ok()).filter(|wake| *wake == expected).count()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_domain_in_doubt_is_read_again_when_the_reasons_change_and_less_and_less_often_while_they_stay() {
        let mut session = Session::start();
        let doubt = |session: &Session, why: &[&str]| {
            let why = why.iter().map(|&why| why.to_owned()).collect();
            let domains = [(WEB, why), (Uuid::nil(), BTreeSet::new())].into();
            session.doubts.send_replace(Doubts { domains, ..Doubts::default() });
        };
        let web = Wake::Description(WEB);
        doubt(&session, &["tap0 is missing"]);
        // At once, and after 0.5, 1.5, 3.5, 7.5, … seconds.
        assert_eq!((session.woken_within(1.0, web).await, session.woken_within(9.0, web).await), (2, 3));
        doubt(&session, &["tap0 is missing"]);
        assert_eq!(session.woken_within(1.0, web).await, 0);
        doubt(&session, &["tap0 is missing", "tap1 is missing"]);
        assert_eq!((session.woken_within(1.0, web).await, session.woken_within(9.0, web).await), (2, 3));
        session.doubts.send_replace(Doubts::default());
        assert_eq!(session.woken_within(1000.0, web).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_stays_without_an_owner_is_looked_for_once_and_many_of_them_seldom() {
        let mut session = Session::start();
        let unowned = |session: &Session, devices: &[u32]| {
            let unowned = devices.iter().copied().collect();
            session.doubts.send_replace(Doubts { unowned, ..Doubts::default() });
        };
        // One that soon has an owner.
        unowned(&session, &[7]);
        assert_eq!(session.woken_within(0.4, Wake::List).await, 0);
        unowned(&session, &[]);
        assert_eq!(session.woken_within(100.0, Wake::List).await, 0);
        // One that stays.
        unowned(&session, &[8]);
        assert_eq!(session.woken_within(0.4, Wake::List).await, 0);
        assert_eq!(session.woken_within(0.2, Wake::List).await, 1);
        assert_eq!(session.woken_within(100.0, Wake::List).await, 0);
        // A new one every second.
        let mut lists = 0;
        for index in 9..109 {
            unowned(&session, &[8, index]);
            lists += session.woken_within(1.0, Wake::List).await;
        }
        assert!((9..=11).contains(&lists), "{lists}");
    }
}
