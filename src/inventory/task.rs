//! The task `inventory`: joins whenever a source has changed, not too often in a storm.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use futures_util::future::select_all;
use tokio::{
    sync::watch,
    task::yield_now,
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use super::{Inventory, join};
use crate::{
    config::NameTemplate,
    meters::Histogram,
    source::{
        Snapshot,
        leases::Leases,
        libvirt::{Domains, doubts::Doubts},
        netlink::{link::Links, neighbour::Neighbours},
        ovsdb::rows::Ports,
    },
};

/// The ends of the sources' channels.
#[derive(Debug)]
pub struct Sources {
    /// The kernel's links.
    pub links: watch::Receiver<Snapshot<Links>>,
    /// The kernel's neighbours.
    pub neighbours: watch::Receiver<Snapshot<Neighbours>>,
    /// The ports of the Open vSwitch bridges.
    pub ports: watch::Receiver<Snapshot<Ports>>,
    /// The DHCP leases of libvirt networks.
    pub leases: watch::Receiver<Snapshot<Leases>>,
    /// The domains of each hypervisor.
    pub hypervisors: Vec<HypervisorSource>,
}

/// One hypervisor's channel.
#[derive(Debug)]
pub struct HypervisorSource {
    /// Its libvirt URI.
    pub uri: Arc<str>,
    /// See [`Hypervisor::optional`](super::Hypervisor::optional).
    pub optional: bool,
    /// Its domains.
    pub domains: watch::Receiver<Snapshot<Domains>>,
}

/// What all sources say at one moment: the input of [`join`].
#[derive(Clone, Debug)]
pub struct View {
    /// The kernel's links.
    pub links: Snapshot<Links>,
    /// The kernel's neighbours.
    pub neighbours: Snapshot<Neighbours>,
    /// The ports of the Open vSwitch bridges.
    pub ports: Snapshot<Ports>,
    /// The DHCP leases of libvirt networks.
    pub leases: Snapshot<Leases>,
    /// Each hypervisor's URI, whether it is optional, and its domains.
    pub hypervisors: Vec<(Arc<str>, bool, Snapshot<Domains>)>,
}

/// Joins again whenever a source has changed, and tells libvirt's sessions which domains to read again. Dropping the
/// future is safe: it publishes whole values.
pub async fn run(
    mut sources: Sources,
    template: NameTemplate,
    tx: watch::Sender<Arc<Inventory>>,
    doubts: watch::Sender<Doubts>,
    durations: Arc<Histogram<7>>,
) -> Infallible {
    // Where there is an Open vSwitch, it knows the ids best: let them not change right after the start.
    let decided = sources.ports.wait_for(|snapshot| snapshot.sync.is_decided());
    let _ = timeout(FIRST_PORTS, decided).await;
    let mut pace = Pace::default();
    let mut ended = Instant::now();
    loop {
        let started = Instant::now();
        let previous = Arc::clone(&tx.borrow());
        let inventory = Arc::new(join(&sources.view(), &template, &previous));
        durations.record(started.elapsed());
        debug!(generation = inventory.generation, instances = inventory.instances.len(), "joined");
        tx.send_replace(Arc::clone(&inventory));
        // Whoever waits for an answer comes first.
        yield_now().await;
        let current = inventory.doubts();
        drop((previous, inventory));
        doubts.send_if_modified(|known| {
            let changed = *known != current;
            *known = current;
            changed
        });
        let rested = started - ended;
        ended = Instant::now();
        sleep(pace.pause(rested, ended - started)).await;
        sources.changed().await;
    }
}

/// How fast joins may follow each other: a change, or a few at once, are visible at once; in a storm the joins take at
/// most a fifth of one core.
#[derive(Debug, Default)]
struct Pace {
    /// The time that joins have taken beyond that share.
    debt: Duration,
}

impl Pace {
    /// What a hot-plug, which is several events of the kernel's and one of libvirt's, takes on a large host.
    const BURST: Duration = Duration::from_millis(5);

    /// How long to rest after a join that took the time `spent` and came after a rest of the time `rested`.
    fn pause(&mut self, rested: Duration, spent: Duration) -> Duration {
        self.debt = (self.debt.saturating_sub(rested / 4) + spent).min(Self::BURST + LONGEST_PAUSE / 4);
        self.debt.saturating_sub(Self::BURST) * 4
    }
}

impl Sources {
    /// What all sources say now.
    pub fn view(&mut self) -> View {
        View {
            links: self.links.borrow_and_update().clone(),
            neighbours: self.neighbours.borrow_and_update().clone(),
            ports: self.ports.borrow_and_update().clone(),
            leases: self.leases.borrow_and_update().clone(),
            hypervisors: self
                .hypervisors
                .iter_mut()
                .map(|h| (Arc::clone(&h.uri), h.optional, h.domains.borrow_and_update().clone()))
                .collect(),
        }
    }

    async fn changed(&mut self) {
        // One future for each source; the list is never empty.
        let host: [Pin<Box<dyn Future<Output = _> + Send>>; 4] = [
            Box::pin(self.links.changed()),
            Box::pin(self.neighbours.changed()),
            Box::pin(self.ports.changed()),
            Box::pin(self.leases.changed()),
        ];
        let hypervisors = self.hypervisors.iter_mut().map(|h| Box::pin(h.domains.changed()) as _);
        let (result, ..) = select_all(host.into_iter().chain(hypervisors)).await;
        if result.is_err() {
            // Its task has ended, which stops the daemon; until then there is nothing to join.
            std::future::pending().await
        }
    }
}

/// How long the first join waits for the Open vSwitch database, which answers within milliseconds if it does at all.
const FIRST_PORTS: Duration = Duration::from_millis(100);
/// How old the newest answer may become in a storm on a host with tens of thousands of links.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    const JOIN: Duration = Duration::from_micros(300);

    #[test]
    fn a_burst_of_changes_is_not_held_up() {
        let mut pace = Pace::default();
        assert!((0..10).all(|_| pace.pause(Duration::ZERO, JOIN).is_zero()));
    }

    #[test]
    fn in_a_storm_joins_take_a_fifth_of_the_time_and_never_wait_long() {
        let mut pace = Pace::default();
        let pause = (0..100).fold(Duration::ZERO, |rested, _| pace.pause(rested, JOIN));
        assert_eq!(pause, JOIN * 4);
        let huge = Duration::from_secs(1);
        assert_eq!(pace.pause(Duration::ZERO, huge), LONGEST_PAUSE);
        assert_eq!(pace.pause(LONGEST_PAUSE, huge), LONGEST_PAUSE);
        // A second of rest later all is forgotten.
        assert_eq!(pace.pause(huge, JOIN), Duration::ZERO);
    }
}
