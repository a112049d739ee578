//! Since when each link exists, as far as vifd knows: its counters were nought then.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use tokio::sync::watch;

use super::Inventory;
use crate::source::moment::Moment;

/// When each link was first seen, by its index. The kernel does not tell, and gives an index to no second link before it
/// has gone through all.
///
/// A link that vifd found when it was started may be as old as the host: the host's start is said of it, which is never
/// too late, and the same after each restart of vifd.
#[derive(Clone, Debug, Default)]
pub struct Births(HashMap<u32, Moment>);

impl Births {
    /// When the link with this index was first seen.
    #[must_use]
    pub fn of(&self, index: u32) -> Option<Moment> {
        self.0.get(&index).copied()
    }

    /// Takes in what has changed from one inventory to the next.
    fn update(&mut self, before: &Inventory, now: &Inventory) {
        let read = |inventory: &Inventory| inventory.netlink.as_ref().is_some_and(|sync| !sync.is_pending());
        let seen = if read(before) { Moment::now() } else { Moment::boot() };
        for link in before.links().not_in(now.links()) {
            if now.links().get(link.index).is_none() {
                self.0.remove(&link.index);
            }
        }
        for link in now.links().not_in(before.links()) {
            self.0.entry(link.index).or_insert(seen);
        }
    }
}

/// Follows the inventory for ever.
pub async fn run(mut inventory: watch::Receiver<Arc<Inventory>>, tx: watch::Sender<Births>) -> Infallible {
    let mut before = Arc::new(Inventory::default());
    loop {
        let now = Arc::clone(&inventory.borrow_and_update());
        if !std::ptr::eq(before.links(), now.links()) {
            tx.send_modify(|births| births.update(&before, &now));
        }
        before = now;
        if inventory.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inventory::testing::{joined, link, view},
        source::{SyncState, netlink::link::Link},
    };

    fn with(links: &[Link]) -> Inventory {
        joined(&view(&[], links))
    }

    #[test]
    fn a_link_is_as_old_as_the_host_unless_it_was_seen_to_come() {
        let mut births = Births::default();
        let nothing_read = Inventory { netlink: Some(SyncState::Pending { reason: None }), ..Inventory::default() };
        let first = with(&[link(1, "tap1"), link(2, "tap2")]);
        births.update(&nothing_read, &first);
        let old = Moment::boot().age();
        assert!(births.of(1).unwrap().age().abs_diff(old).as_secs() < 60);

        // Renamed, gone, and made again under the same name.
        let second = with(&[link(1, "renamed"), link(3, "tap2")]);
        births.update(&first, &second);
        assert!(births.of(1).unwrap().age().abs_diff(old).as_secs() < 60);
        assert_eq!(births.of(2), None);
        assert!(births.of(3).unwrap().age().as_secs() < 60);
    }
}
