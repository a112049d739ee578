//! SIGHUP: everything is read again, and what can change without a restart does.

use std::{convert::Infallible, io, sync::Arc};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tracing::{info, warn};

use super::service::notify;
use crate::{
    config::{Layers, Loaded},
    http::tls::Certificates,
    inventory::Inventory,
    source::chain,
    telemetry::LogControl,
};

/// The keys that take effect at once.
const AT_ONCE: [&str; 1] = ["log"];

/// The configuration in force, and how to read it again.
#[derive(Debug)]
pub struct Settings {
    /// Where it comes from.
    pub layers: Layers,
    /// What it says.
    pub loaded: Loaded,
    /// What is logged.
    pub log: LogControl,
}

/// Waits for reasons to read the configuration or certificates again.
#[derive(Debug)]
pub(super) struct Reload {
    hangups: Signal,
    settings: Settings,
    /// None where HTTP is plain.
    certificates: Option<Certificates>,
}

impl Reload {
    /// SIGHUP ends no daemon from now on.
    ///
    /// # Errors
    /// It cannot be watched.
    pub(super) fn new(settings: Settings, certificates: Option<Certificates>) -> io::Result<Self> {
        Ok(Self { hangups: signal(SignalKind::hangup())?, settings, certificates })
    }

    pub(super) async fn run(mut self, inventory: watch::Receiver<Arc<Inventory>>) -> Infallible {
        loop {
            tokio::select! {
                _ = self.hangups.recv() => {
                    // Who is not ready yet must not say so.
                    let ready = inventory.borrow().is_decided();
                    if let (true, Ok(now)) = (ready, NotifyState::monotonic_usec_now()) {
                        notify(&[NotifyState::Reloading, now]);
                    }
                    self.read_again();
                    if ready {
                        notify(&[NotifyState::Ready]);
                    }
                }
                certificates = changed(&mut self.certificates) => certificates.read_again(),
            }
        }
    }

    fn read_again(&mut self) {
        if let Some(certificates) = &mut self.certificates {
            certificates.read_again();
        }
        let loaded = match self.settings.layers.load() {
            Ok(loaded) => loaded,
            Err(error) => return warn!(error = chain(&error), "the old configuration stays in force"),
        };
        let differences = loaded.differences(&self.settings.loaded);
        let (now, later): (Vec<_>, Vec<_>) = differences.into_iter().partition(|key| AT_ONCE.contains(&&**key));
        if !now.is_empty() {
            self.settings.log.set(&loaded.config.log);
            // What waits for the next start still differs then.
            self.settings.loaded.config.log = loaded.config.log;
        }
        info!(changed = now.join(", "), "read the configuration again");
        if !later.is_empty() {
            warn!(keys = later.join(", "), "these keys have changed, and take effect at the next start");
        }
    }
}

/// Completes when the files of the certificates have changed; never where there are none.
async fn changed(certificates: &mut Option<Certificates>) -> &mut Certificates {
    match certificates {
        Some(certificates) => {
            certificates.changed().await;
            certificates
        }
        None => std::future::pending().await,
    }
}
