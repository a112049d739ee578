//! The host's own API, `/host/v1/`: everything that is known, in JSON, for operators and programs on the host.
//!
//! | path | answer |
//! | --- | --- |
//! | `instances?project=&state=&bridge=` | the instances to which all of these apply |
//! | `instances/{id}?why=` | one, by UUID, libvirt name or integer id; if `true`, with why each fact is believed |
//! | `summary?project=&state=&bridge=` | the same in short: a line for each VIF |
//! | `vifs?id=&mac=&address=&device=&ifindex=&instance=&project=` | the VIFs to which all of these apply |
//! | `devices?kind=&controller=&owned=` | the links to which all of these apply |
//! | `devices/{device}` | one, by name, alternative name or ifindex |
//! | `devices/{device}/counters` | its 64-bit counters, read from the kernel now |
//! | `counters` | those of all links, by one listing of the kernel's, and whose they are |
//! | `who?thing=` | everything that a name, MAC or IP address, ifindex, id, socket or Open vSwitch port (`br-int:5`) matches |
//! | `events?since=&instance=&device=&thing=` | every change as it is seen, as server-sent events: see [`events`] |
//! | `findings?code=&severity=&subject=&unconfirmed=` | what is not as it should be, the worst first |
//! | `path?thing=` | every hop of the way that the frames of a thing's VIFs take on this host |
//! | `history?thing=&at=&since=&until=&limit=` | who had a thing at a moment, or what happened to it, from the journal |
//! | `sync` | whether each source is kept current, and how much there is |
//!
//! Every answer carries the generation of the inventory that it was made from and the state of each source. The types
//! here are what `vifctl` reads.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(super) use self::devices::controller_name;
pub use self::{
    counters::{AllCounters, CarriedVif, CountedLink},
    devices::{Carried, DeviceCounters, DeviceRecord, Devices, OneDevice},
    findings::FindingsReport,
    instances::{InstanceRecord, Instances, OneInstance},
    path::{PathRecord, PathsOfVifs},
    summary::{DeviceSummary, InstanceSummary, Summary, VifSummary},
    vifs::{VifRecord, Vifs},
    who::{Holder, Who, WhoMatch},
};
use self::{
    devices::DeviceFilter,
    findings::FindingFilter,
    instances::{InstanceFilter, InstanceQuery},
    vifs::VifFilter,
};
use super::{
    App,
    compute::fault::Fault,
    openapi::{Operation, Routes},
};
use crate::{
    inventory::{Hypervisor, Inventory},
    journal::{JournalState, history::History},
    source::SyncState,
};

mod counters;
mod devices;
pub mod events;
mod findings;
mod history;
mod instances;
mod path;
mod summary;
mod vifs;
mod who;

/// An answer, with what it was made from. Not to be read by `serde`, which would first collect all of it because of
/// the fields that are not its own: [`Answer::parse`] does.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "AnswerOf{T}")]
pub struct Answer<T> {
    /// Grows with each change since the daemon started.
    pub generation: u64,
    /// The state of each source.
    pub sources: Sources,
    /// What was asked for.
    #[serde(flatten)]
    pub body: T,
}

impl<T: DeserializeOwned> Answer<T> {
    /// Reads an answer.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(json: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            generation: u64,
            sources: Sources,
        }
        let Head { generation, sources } = serde_json::from_slice(json)?;
        Ok(Self { generation, sources, body: serde_json::from_slice(json)? })
    }
}

/// Whether each source is kept current.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Sources {
    /// The kernel's links.
    pub netlink: SyncState,
    /// The kernel's neighbours.
    pub neighbours: SyncState,
    /// The Open vSwitch database.
    pub ovsdb: SyncState,
    /// The DHCP leases of libvirt networks.
    pub leases: SyncState,
    /// The hypervisors' domains.
    pub hypervisors: Vec<Hypervisor>,
}

/// `sync`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Sync {
    /// The daemon's version.
    pub version: Box<str>,
    /// Whether every source has been read at least once.
    pub ready: bool,
    /// How many instances there are.
    pub instances: usize,
    /// How many VIFs.
    pub vifs: usize,
    /// How many links.
    pub links: usize,
    /// How many Open vSwitch ports.
    pub ovs_ports: usize,
    /// How many identity headers were dropped since the start, because somebody sent them who is no named proxy.
    #[serde(default)]
    pub dropped_identity_headers: u64,
    /// Whether changes are recorded, for `history`.
    #[serde(default)]
    pub journal: JournalState,
}

pub(super) fn routes() -> Routes {
    fn operation<T: JsonSchema>(name: &'static str, summary: &'static str, says: &'static str) -> Operation {
        Operation::new::<Answer<T>>(name, summary, 200, says)
    }
    Routes::at("")
        .get(
            "/instances",
            instances::instances,
            operation::<Instances>("host_instances", "The instances to which all of these apply", "The instances.")
                .query::<InstanceFilter>(),
        )
        .get(
            "/summary",
            summary::summary,
            operation::<Summary>("host_summary", "The same in short: a line for each VIF", "The instances and VIFs.")
                .query::<InstanceFilter>(),
        )
        .get(
            "/instances/{id}",
            instances::instance,
            operation::<OneInstance>("host_instance", "One instance", "The instance.").query::<InstanceQuery>(),
        )
        .get(
            "/vifs",
            vifs::vifs,
            operation::<Vifs>("host_vifs", "The VIFs to which all of these apply", "The VIFs.").query::<VifFilter>(),
        )
        .get(
            "/devices",
            devices::devices,
            operation::<Devices>("host_devices", "The links to which all of these apply", "The links.")
                .query::<DeviceFilter>(),
        )
        .get("/counters", counters::counters, counters::operation())
        .get("/path", path::path, path::operation())
        .get("/devices/{device}", devices::device, operation::<OneDevice>("host_device", "One link", "The link."))
        .get(
            "/devices/{device}/counters",
            devices::device_counters,
            operation::<DeviceCounters>(
                "host_counters",
                "A link's counters, read from the kernel now",
                "The counters.",
            ),
        )
        .get("/who", who::who, who::operation())
        .get(
            "/events",
            events::events,
            Operation::events::<events::Data>(
                "host_events",
                "Every change as it is seen",
                "Server-sent events: `begin`, `missed`, and the kinds of changes.",
            )
            .query::<events::EventFilter>(),
        )
        .get(
            "/findings",
            findings::findings,
            operation::<FindingsReport>(
                "host_findings",
                "What is not as it should be",
                "The findings, the worst first.",
            )
            .query::<FindingFilter>(),
        )
        .get(
            "/history",
            history::history,
            operation::<History>(
                "host_history",
                "What became of a thing, or what it was at a moment",
                "What is known.",
            )
            .query::<history::HistoryQuery>(),
        )
        .get(
            "/sync",
            sync,
            operation::<Sync>(
                "host_sync",
                "Whether each source is kept current",
                "The sources, and how much there is.",
            ),
        )
        .map(|router| {
            router
                .fallback(async || Error::NotFound("there is no such path".to_owned()))
                .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        })
}

/// What goes wrong: `{"error": {"code": …, "message": …}}`.
enum Error {
    NotFound(String),
    NotYetKnown,
    BadRequest(String),
    MethodNotAllowed,
    CountersUnavailable,
    TooManyStreams,
    NoJournal(String),
}

/// What is wrong.
#[derive(Serialize, JsonSchema)]
pub(super) struct ErrorBody<'a> {
    error: ErrorText<'a>,
}

/// What is wrong, for programs and for people.
#[derive(Serialize, JsonSchema)]
struct ErrorText<'a> {
    /// For programs.
    code: &'a str,
    /// For people.
    message: &'a str,
}

impl<'a> ErrorBody<'a> {
    fn new(code: &'a str, message: &'a str) -> Self {
        Self { error: ErrorText { code, message } }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            Self::NotFound(message) => (StatusCode::NOT_FOUND, "not_found", message),
            Self::NotYetKnown => {
                let message = "not every hypervisor of this host has been read yet".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, "not_yet_known", message)
            }
            Self::BadRequest(message) => (StatusCode::BAD_REQUEST, "bad_request", message),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this API is read-only".to_owned())
            }
            Self::NoJournal(message) => (StatusCode::SERVICE_UNAVAILABLE, "no_journal", message),
            Self::TooManyStreams => {
                let message = "every stream is taken".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", message)
            }
            Self::CountersUnavailable => {
                let message = "the kernel's counters could not be read".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, "counters_unavailable", message)
            }
        };
        (status, Json(ErrorBody::new(code, &message))).into_response()
    }
}

/// A refusal of the kind that any request can meet, in this API's shape.
pub(super) fn refusal(fault: &Fault) -> Response {
    let status = fault.status();
    let code = status.canonical_reason().unwrap_or("error").to_ascii_lowercase().replace([' ', '-'], "_");
    let body = Json(ErrorBody::new(&code, fault.message()));
    let mut response = (status, body).into_response();
    fault.tell(response.headers_mut());
    response
}

type Reply<T> = Result<Json<Answer<T>>, Error>;

fn reply<T>(inventory: &Inventory, body: T) -> Reply<T> {
    Ok(Json(Answer { generation: inventory.generation, sources: Sources::of(inventory), body }))
}

/// What a path names.
fn name(path: Result<Path<String>, PathRejection>) -> Result<String, Error> {
    path.map(|Path(name)| name).map_err(|error| Error::BadRequest(error.body_text()))
}

/// What somebody who asked for this may have meant.
fn near(inventory: &Inventory, name: &str) -> String {
    match inventory.near_names(name) {
        names if names.is_empty() => String::new(),
        names => format!("; is it {}?", names.join(" or ")),
    }
}

async fn sync(State(app): State<App>) -> Reply<Sync> {
    let inventory = app.inventory();
    let body = Sync {
        version: env!("CARGO_PKG_VERSION").into(),
        ready: inventory.is_ready(),
        instances: inventory.instances.len(),
        vifs: inventory.vif_count(),
        links: inventory.links().len(),
        ovs_ports: inventory.ports().len(),
        dropped_identity_headers: app.auth.dropped(),
        journal: app.journal.state.borrow().clone(),
    };
    reply(&inventory, body)
}

impl Sources {
    pub(crate) fn of(inventory: &Inventory) -> Self {
        let sync = |sync: &Option<SyncState>| sync.clone().unwrap_or(SyncState::Pending { reason: None });
        Self {
            netlink: sync(&inventory.netlink),
            neighbours: sync(&inventory.neighbours),
            ovsdb: sync(&inventory.ovsdb),
            leases: sync(&inventory.leases),
            hypervisors: inventory.hypervisors.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::http::compute::tests::{ask, one_vif, request, text};

    #[tokio::test]
    async fn a_name_that_is_not_utf_8_is_refused_as_everything_else_is() {
        for path in ["instances/%ff", "devices/%ff", "devices/%ff/counters"] {
            let response = ask(one_vif(), request(&format!("GET /host/v1/{path}"), &[], "")).await;
            assert_eq!(response.status(), 400, "{path}");
            let body: Value = serde_json::from_str(&text(response).await).unwrap();
            assert_eq!(body["error"]["code"], "bad_request", "{path}");
        }
    }
}
