//! The private daemon: short-lived, and one client's alone.
//!
//! `vifctl` starts it where no daemon answers. It is wired as every daemon is and reads the same sources by the same code;
//! but its client is there already, at the other end of its standard input, so that nobody else can connect. It keeps
//! nothing on disk, does not wait long for a source, and ends with its client.

use std::{os::unix::net, sync::Arc, time::Duration};

use tokio::{
    net::UnixStream,
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Daemon, Door};
use crate::{
    config::Config,
    handed::Handed,
    http::auth::{Authenticator, peer::Admins},
    inventory::Inventory,
    source::Snapshot,
};

/// How long the client waits for every source. One that answers at all does so within milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long reading `/proc` may take: a hundred times what it does.
const PROCESSES: Duration = Duration::from_secs(1);
/// How long a libvirt call may take: a few domains may hang before the client's patience ends.
const CALL_TIMEOUT: Duration = Duration::from_millis(700);
/// A person may look at an answer for long before the next question.
const IDLE_TIMEOUT: Duration = Duration::from_secs(86_400);

impl Daemon {
    /// A daemon for the one client at the other end of this socket. It may do what an administrator may: it can learn
    /// nothing that its own user, who started this process, could not read.
    ///
    /// # Errors
    /// It is no socket.
    pub fn private(mut config: Config, client: net::UnixStream) -> anyhow::Result<Self> {
        config.cache = "".into();
        config.tcp = None;
        config.libvirt.call_timeout = config.libvirt.call_timeout.min(CALL_TIMEOUT);
        config.http.idle_timeout = IDLE_TIMEOUT;
        client.set_nonblocking(true)?;
        let client = UnixStream::from_std(client)?;
        let peer = client.peer_cred()?;
        let auth = Arc::new(Authenticator::new(Admins { own: peer.uid(), group: peer.gid() }, None)?);
        Ok(Self {
            config,
            door: Door::Private { client, left: CancellationToken::new() },
            auth,
            handed: Handed::default(),
        })
    }
}

/// How long to wait for the first answer of a source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience(Option<Duration>);

impl Patience {
    pub(super) fn with(door: &Door) -> Self {
        Self(match door {
            Door::Open { .. } => None,
            Door::Private { .. } => Some(PATIENCE),
        })
    }

    /// Runs a source. If it has said nothing in time, says so for it. It may still answer later.
    pub(super) async fn limit<T>(self, tx: watch::Sender<Snapshot<T>>, source: impl Future) {
        let give_up = async {
            let Some(patience) = self.0 else { std::future::pending().await };
            sleep(patience).await;
            tx.send_if_modified(|snapshot| {
                let silent = !snapshot.sync.is_decided();
                if silent {
                    snapshot.mark_stale(&format!("no answer within {patience:?}"));
                }
                silent
            });
            std::future::pending::<()>().await
        };
        tokio::select! {
            _ = source => {}
            () = give_up => {}
        }
    }
}

/// Waits until everything has been read, or was given up.
pub(super) async fn settled(mut inventory: watch::Receiver<Arc<Inventory>>) {
    let deadline = Instant::now() + PATIENCE;
    // The processes are looked at when the hypervisors are decided, and some processes hang who looks at them.
    let _ = timeout_at(deadline + PROCESSES, inventory.wait_for(|inventory| inventory.is_decided())).await;
    // Persistent definitions come last. One that cannot be used keeps nobody for longer.
    let _ = timeout_at(deadline, inventory.wait_for(|inventory| inventory.is_compared())).await;
}
