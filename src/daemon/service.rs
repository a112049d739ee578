//! What systemd is told: that the daemon is ready, how it is, and that it lives.

use std::{convert::Infallible, future::pending, sync::Arc};

use sd_notify::NotifyState;
use tokio::{sync::watch, time::sleep};
use tracing::{debug, info, warn};

use crate::{inventory::Inventory, source::SyncState, watchdog::Rounds};

/// Says `READY=1` once the first attempt to read each source has succeeded or failed, and keeps the status line of
/// `systemctl status` current.
pub(super) async fn tell(mut inventory: watch::Receiver<Arc<Inventory>>) -> Infallible {
    let mut ready = false;
    let mut last = String::new();
    loop {
        let newest = Arc::clone(&inventory.borrow_and_update());
        if !ready && newest.is_decided() {
            ready = true;
            info!(status = status(&newest), "ready");
            notify(&[NotifyState::Ready]);
        }
        let status = status(&newest);
        if status != last {
            notify(&[NotifyState::Status(&status)]);
            last = status;
        }
        if inventory.changed().await.is_err() {
            pending().await
        }
    }
}

/// One line for `systemctl status`.
fn status(inventory: &Inventory) -> String {
    let mut line = format!(
        "{} instances, {} VIFs, {} links",
        inventory.instances.len(),
        inventory.vif_count(),
        inventory.links().len()
    );
    let host = [
        ("netlink", &inventory.netlink),
        ("neighbours", &inventory.neighbours),
        ("ovsdb", &inventory.ovsdb),
        ("leases", &inventory.leases),
    ];
    let host = host.into_iter().filter_map(|(name, sync)| Some((name, sync.as_ref()?)));
    for (name, sync) in host.chain(inventory.hypervisors.iter().map(|h| (&*h.uri, &h.sync))) {
        line += &match sync {
            SyncState::Absent => String::new(),
            SyncState::Synced { .. } => format!("; {name} synced"),
            SyncState::Stale { reason, .. } => format!("; {name} stale: {reason}"),
            SyncState::Pending { reason } => {
                format!("; {name} pending: {}", reason.as_deref().unwrap_or("not tried yet"))
            }
        };
    }
    line
}

/// Feeds systemd's watchdog, where it wants to be fed, as long as every task answers. Three times as often as it wants,
/// so that one late answer is not the end.
pub(super) async fn feed_watchdog(mut rounds: Rounds) -> Infallible {
    let Some(limit) = sd_notify::watchdog_enabled() else { pending().await };
    loop {
        sleep(limit / 3).await;
        let silent = rounds.silent(limit / 3).await;
        if silent.is_empty() {
            notify(&[NotifyState::Watchdog]);
        } else {
            warn!(tasks = ?silent, "these tasks do not answer; systemd's watchdog is not fed");
        }
    }
}

pub(super) fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "could not notify systemd");
    }
}
