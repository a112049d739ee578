//! HTTP: the Compute API's calls, the host's own API, and two answers about health. Served alike on TCP and on the
//! Unix socket, always and only from the inventory.
//!
//! Who is asking is not known yet: TCP is bound to loopback ([`crate::config::LoopbackAddr`]), the socket's file mode
//! says who may connect. When callers are told apart, each listener's router gets that layer in [`router`].

use std::{future::Future, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
    serve::ListenerExt,
};
use serde_json::json;
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::watch,
};
use tower::{Layer, util::MapRequestLayer};

use crate::{inventory::Inventory, source::netlink::CounterReader};

pub mod auth;
pub mod compute;
pub mod host;

/// What every handler needs.
#[derive(Clone, Debug)]
pub struct App {
    /// The newest inventory.
    pub inventory: watch::Receiver<Arc<Inventory>>,
    /// The links' counters, on demand.
    pub counters: CounterReader,
    /// Distinguishes this run of the daemon from others in `ETag`s: its start, in milliseconds since 1970.
    pub epoch: i64,
}

impl App {
    fn inventory(&self) -> Arc<Inventory> {
        Arc::clone(&self.inventory.borrow())
    }
}

/// Every route.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .nest("/host/v1", host::router())
        .merge(compute::router())
        .with_state(app)
}

/// The process serves requests.
async fn live() -> &'static str {
    "live\n"
}

/// Every source has been read at least once.
async fn ready(State(app): State<App>) -> Response {
    let inventory = app.inventory();
    let ready = inventory.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "sources": host::Sources::of(&inventory) }))).into_response()
}

/// Serves TCP until `shutdown`, then until the requests under way are answered.
///
/// # Errors
/// The listener fails for good.
pub async fn serve_tcp(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    // Without it a small answer may wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let service = MapRequestLayer::new(compute::take_suffix).layer(router(app));
    axum::serve(listener, tower::make::Shared::new(service)).with_graceful_shutdown(shutdown).await
}

/// Serves the Unix socket, as [`serve_tcp`] serves TCP.
///
/// # Errors
/// The listener fails for good.
pub async fn serve_unix(
    listener: UnixListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = MapRequestLayer::new(compute::take_suffix).layer(router(app));
    axum::serve(listener, tower::make::Shared::new(service)).with_graceful_shutdown(shutdown).await
}

/// Binds the Unix socket, in place of one that a killed daemon left behind.
///
/// # Errors
/// Another process serves it, or its directory does not allow it.
pub async fn bind_unix(path: &Path, mode: u32) -> std::io::Result<UnixListener> {
    match UnixStream::connect(path).await {
        Ok(_) => return Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, "another process serves this socket")),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}
