//! HTTP: the Compute API's calls, the host's own API, and two answers about health. Served alike on TCP and on the
//! Unix socket, always and only from the inventory.
//!
//! [`serve`] accepts connections, and [`requests`] has each request from its arrival to its line of the log; between
//! them and the handlers, [`auth`] finds out who asks, and [`limits`] counts it.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
};

use self::{
    auth::{Authenticator, peer::Admins},
    compute::{fault::Fault, format::Format},
    host::events::Events,
    metrics::Metrics,
    openapi::{Operation, Routes},
};
use crate::{
    findings::Findings,
    inventory::Inventory,
    journal::history::Journal,
    source::{libvirt::reread::Rereads, netlink::CounterReader},
};

pub mod auth;
pub mod compute;
pub mod host;
pub mod limits;
pub mod metrics;
mod openapi;
pub mod requests;
pub mod serve;
pub mod tls;

/// What every handler needs.
#[derive(Clone, Debug)]
pub struct App {
    /// The newest inventory.
    pub inventory: watch::Receiver<Arc<Inventory>>,
    /// What is not as it should be.
    pub findings: watch::Receiver<Arc<Findings>>,
    /// The links' counters, on demand.
    pub counters: CounterReader,
    /// Asks for instances to be read again.
    pub rereads: Rereads,
    /// Distinguishes this run of the daemon from others in `ETag`s: its start, in milliseconds since 1970.
    pub epoch: i64,
    /// Who asks.
    pub auth: Arc<Authenticator>,
    /// What scrapes need.
    pub metrics: Metrics,
    /// Every change of the past, to be looked up.
    pub journal: Journal,
    /// Every change, to be followed.
    pub events: Events,
}

impl App {
    fn inventory(&self) -> Arc<Inventory> {
        Arc::clone(&self.inventory.borrow())
    }
}

/// Every route.
pub fn router(app: App) -> Router {
    routes().router().with_state(app)
}

fn routes() -> Routes {
    let live_says = "The process serves requests.";
    let ready_says = "Whether every source has been read at least once; if not, with 503.";
    let metrics_says = "In OpenMetrics, or in Prometheus' text format.";
    Routes::at("")
        .get("/live", live, Operation::text("live", "Whether the daemon lives", live_says, &["text/plain"]).open())
        .get(
            "/ready",
            ready,
            Operation::new::<Ready>("ready", "Whether the daemon is ready", 200, ready_says).open().may_be_unready(),
        )
        .get(
            "/openapi.json",
            openapi::show,
            Operation::new::<Value>("openapi", "This document", 200, "An OpenAPI document.").open(),
        )
        .get(
            "/metrics",
            metrics::show,
            Operation::text("metrics", "Metrics", metrics_says, &["text/plain", "application/openmetrics-text"]),
        )
        .map(|router| router.method_not_allowed_fallback(compute::bad_method))
        .nest("/host/v1", host::routes())
        .merge(compute::routes())
}

/// Whether every source has been read at least once.
#[derive(Serialize, JsonSchema)]
struct Ready {
    /// It is so.
    ready: bool,
}

/// The process serves requests.
async fn live() -> &'static str {
    "live\n"
}

/// Every source has been read at least once. It is said to anybody, so it says no more: `/host/v1/sync` does.
async fn ready(State(app): State<App>) -> Response {
    let inventory = app.inventory();
    let ready = inventory.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready })).into_response()
}

/// In which shape the caller of a path expects a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Compute(Format),
    Host,
}

impl Language {
    fn of_request(request: &Request) -> Self {
        if request.uri().path().starts_with("/host/") {
            Self::Host
        } else {
            Self::Compute(Format::of_request(request.headers(), request.extensions()))
        }
    }

    fn refuse(self, fault: Fault) -> Response {
        match self {
            Self::Compute(format) => fault.response(format),
            Self::Host => host::refusal(&fault),
        }
    }
}

/// Binds the Unix socket, in place of one that a killed daemon left behind. Its group, whose members may do everything
/// that can be done here, is the daemon's own where none is given.
///
/// # Errors
/// Another process serves it, its directory does not allow it, or the group is not ours to give it to.
pub async fn bind_unix(path: &Path, mode: u32, group: Option<u32>) -> std::io::Result<(UnixListener, Admins)> {
    match UnixStream::connect(path).await {
        Ok(_) => return Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, "another process serves this socket")),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    if group.is_some() {
        std::os::unix::fs::chown(path, None, group)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    let admins = admins_at(path)?;
    Ok((listener, admins))
}

/// Takes a Unix socket that is bound already, with whatever mode and group it has.
///
/// # Errors
/// It has no file, or the file is gone.
pub fn adopt_unix(listener: std::os::unix::net::UnixListener) -> std::io::Result<(UnixListener, Admins)> {
    let address = listener.local_addr()?;
    let admins = admins_at(address.as_pathname().ok_or(std::io::ErrorKind::AddrNotAvailable)?)?;
    Ok((UnixListener::from_std(listener)?, admins))
}

/// Who may ask at the socket of this path.
fn admins_at(path: &Path) -> std::io::Result<Admins> {
    Ok(Admins { own: rustix::process::geteuid().as_raw(), group: std::fs::metadata(path)?.gid() })
}
