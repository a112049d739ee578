//! `/metrics`: what Prometheus and its kin are told, from the inventory, from what vifd counts of itself, and from one
//! listing of the kernel's counters for each scrape. No call to libvirt.
//!
//! It shows every project's names, so it is for administrators, as the host's own API is; scrapers, which seldom have an
//! identity, may be given a listener that serves this page alone ([`Scrapes`]).

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::body::Incoming;
use tokio::{sync::watch, time::timeout};

use self::exposition::{Exposition, Format, Labels};
use super::{
    App,
    serve::{Answer, Peer},
};
use crate::{
    inventory::births::Births,
    meters::{Api, Meters},
    source::moment::Moment,
};

mod agent;
mod exposition;
mod process;
mod vifs;

/// What scrapes need beside the inventory.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// What vifd counts of its own doings.
    pub meters: Arc<Meters>,
    /// Since when each link exists.
    pub births: watch::Receiver<Births>,
    /// When the host was started.
    pub boot: Moment,
    /// When vifd was started.
    pub start: Moment,
    /// The counters of so many VIFs are told.
    pub most: usize,
}

/// The kernel lists thousands of links within milliseconds, unless something holds its lock.
const COUNTERS_TIMEOUT: Duration = Duration::from_secs(3);

/// `GET /metrics`
pub(super) async fn show(State(app): State<App>, headers: HeaderMap) -> impl IntoResponse {
    let format = Format::of_request(&headers);
    ([(header::CONTENT_TYPE, format.content_type())], text(&app, format).await)
}

async fn text(app: &App, format: Format) -> String {
    let counters = timeout(COUNTERS_TIMEOUT, app.counters.read()).await.ok().flatten();
    let inventory = app.inventory();
    let births = app.metrics.births.borrow().clone();
    let mut exposition = Exposition::new(format);
    let findings = Arc::clone(&app.findings.borrow());
    agent::write(&mut exposition, &inventory, &findings, &app.metrics.meters, app.metrics.start);
    process::write(&mut exposition, app.metrics.boot);
    exposition
        .gauge("vifd_counters_read", "Whether the kernel told its counters for this scrape.")
        .sample(&Labels::default(), u8::from(counters.is_some()));
    vifs::write(&mut exposition, &inventory, &births, counters.as_ref(), app.metrics.most).await;
    exposition.finish()
}

/// Answers for a listener of its own, which asks nobody who they are.
#[derive(Debug)]
pub struct Scrapes {
    app: App,
    request_timeout: Duration,
}

impl Scrapes {
    /// Of this daemon.
    #[must_use]
    pub fn new(app: App, request_timeout: Duration) -> Arc<Self> {
        Arc::new(Self { app, request_timeout })
    }

    async fn route(&self, request: Request) -> Response {
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/metrics") => {
                let answer = show(State(self.app.clone()), request.headers().clone());
                match timeout(self.request_timeout, answer).await {
                    Ok(answer) => answer.into_response(),
                    Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                }
            }
            (_, "/metrics") => ([(header::ALLOW, "GET, HEAD")], StatusCode::METHOD_NOT_ALLOWED).into_response(),
            _ => (StatusCode::NOT_FOUND, "only /metrics is here\n").into_response(),
        }
    }
}

impl Answer for Scrapes {
    async fn answer(&self, _: Peer, request: axum::http::Request<Incoming>) -> Response {
        let began = std::time::Instant::now();
        let response = self.route(request.map(Body::new)).await;
        self.app.metrics.meters.requests.answered(Api::Agent, response.status().as_u16(), began.elapsed());
        response
    }

    fn refuse(&self, _: axum::http::Request<Incoming>) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, "every connection is taken\n").into_response()
    }
}
