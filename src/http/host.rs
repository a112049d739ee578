//! The host's own API, `/host/v1/`: everything that is known, in JSON, for operators and programs on the host.
//!
//! | path | answer |
//! | --- | --- |
//! | `instances` | every instance |
//! | `instances/{id}?why=` | one, by UUID, libvirt name or integer id; if `true`, with why each fact is believed |
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

use std::{net::IpAddr, sync::Arc};

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::findings::FindingFilter;
pub use self::{
    counters::{AllCounters, CarriedVif, CountedLink},
    findings::FindingsReport,
    path::{PathRecord, PathsOfVifs},
};
use super::{
    App,
    compute::fault::Fault,
    openapi::{Operation, Routes},
};
use crate::{
    inventory::{Hypervisor, Instance, Inventory, Staleness, Vif, Why},
    journal::{JournalState, history::History},
    mac::MacAddr,
    source::{
        SyncState,
        netlink::link::{Counters, Link},
        ovsdb::rows::Port,
    },
};

mod counters;
pub mod events;
mod findings;
mod history;
mod path;
mod who;

pub use who::{Holder, Who, WhoMatch};

/// An answer, with what it was made from.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
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

/// `instances`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Instances {
    /// By hypervisor and name.
    pub instances: Vec<InstanceRecord>,
}

/// `instances/{id}`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OneInstance {
    /// The instance.
    pub instance: InstanceRecord,
    /// Why each fact is believed, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Vec<Why>>,
}

/// An instance with the links that carry its VIFs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InstanceRecord {
    /// The instance.
    #[serde(flatten)]
    pub instance: Arc<Instance>,
    /// Why and since when this record is not kept current; null if it is.
    pub stale: Option<Staleness>,
    /// The links that `vifs[].device` names.
    pub links: Vec<Arc<Link>>,
    /// The Open vSwitch ports that `vifs[].ovs_port` names.
    pub ovs_ports: Vec<Arc<Port>>,
}

/// `vifs`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Vifs {
    /// By instance and position.
    pub vifs: Vec<VifRecord>,
}

/// A VIF with whose it is and the link that carries it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VifRecord {
    /// Its instance's UUID.
    pub instance_uuid: Uuid,
    /// Its instance's libvirt name.
    pub instance_name: Arc<str>,
    /// Its instance's display name.
    pub display_name: Option<Arc<str>>,
    /// The VIF.
    #[serde(flatten)]
    pub vif: Vif,
    /// The link that carries it.
    pub link: Option<Arc<Link>>,
    /// The Open vSwitch port that it is plugged into.
    pub ovs: Option<Arc<Port>>,
    /// Why and since when this record is not kept current; null if it is.
    pub stale: Option<Staleness>,
}

/// `devices`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Devices {
    /// By ifindex.
    pub devices: Vec<DeviceRecord>,
}

/// `devices/{device}`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OneDevice {
    /// The device.
    pub device: DeviceRecord,
}

/// A link with whose VIFs it carries.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeviceRecord {
    /// The link.
    #[serde(flatten)]
    pub link: Arc<Link>,
    /// The Open vSwitch port that it is.
    pub ovs: Option<Arc<Port>>,
    /// The name of its controller; of an Open vSwitch port, the bridge.
    pub controller_name: Option<Arc<str>>,
    /// The VIFs that it carries: none for a device that no instance owns.
    pub carries: Vec<Carried>,
}

/// A VIF that a link carries.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Carried {
    /// The instance's UUID.
    pub instance_uuid: Uuid,
    /// The instance's libvirt name.
    pub instance_name: Arc<str>,
    /// The VIF's id.
    pub vif_id: Uuid,
}

/// `devices/{device}/counters`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeviceCounters {
    /// The link's index.
    pub index: u32,
    /// Its name.
    pub name: Arc<str>,
    /// From whose point of view: always `host`. A tap's receive side is what its guest sent.
    pub view: Box<str>,
    /// The counters.
    pub counters: Counters,
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
        .get("/instances", instances, operation::<Instances>("host_instances", "Every instance", "The instances."))
        .get(
            "/instances/{id}",
            instance,
            operation::<OneInstance>("host_instance", "One instance", "The instance.").query::<InstanceQuery>(),
        )
        .get(
            "/vifs",
            vifs,
            operation::<Vifs>("host_vifs", "The VIFs to which all of these apply", "The VIFs.").query::<VifFilter>(),
        )
        .get(
            "/devices",
            devices,
            operation::<Devices>("host_devices", "The links to which all of these apply", "The links.")
                .query::<DeviceFilter>(),
        )
        .get("/counters", counters::counters, counters::operation())
        .get("/path", path::path, path::operation())
        .get("/devices/{device}", device, operation::<OneDevice>("host_device", "One link", "The link."))
        .get(
            "/devices/{device}/counters",
            device_counters,
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

async fn instances(State(app): State<App>) -> Reply<Instances> {
    let inventory = app.inventory();
    let instances = inventory.instances.iter().map(|instance| InstanceRecord::of(&inventory, instance)).collect();
    reply(&inventory, Instances { instances })
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct InstanceQuery {
    /// Whether to tell why each fact is believed.
    why: bool,
}

async fn instance(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<InstanceQuery>, QueryRejection>,
) -> Reply<OneInstance> {
    let id = name(id)?;
    let Query(InstanceQuery { why }) = query.map_err(|error| Error::BadRequest(error.body_text()))?;
    let inventory = app.inventory();
    let by_uuid = || Uuid::try_parse(&id).ok().and_then(|uuid| inventory.instance(uuid));
    let by_number = || id.parse().ok().and_then(|number| inventory.instance_by_number(number));
    match by_uuid().or_else(|| inventory.instance_by_name(&id)).or_else(by_number) {
        Some(instance) => {
            let why = why.then(|| inventory.why(instance));
            let instance = InstanceRecord::of(&inventory, instance);
            reply(&inventory, OneInstance { instance, why })
        }
        None if inventory.is_complete() => {
            Err(Error::NotFound(format!("no instance has the UUID, name or number {id}{}", near(&inventory, &id))))
        }
        None => Err(Error::NotYetKnown),
    }
}

/// What somebody who asked for this may have meant.
fn near(inventory: &Inventory, name: &str) -> String {
    match inventory.near_names(name) {
        names if names.is_empty() => String::new(),
        names => format!("; is it {}?", names.join(" or ")),
    }
}

/// The filters of `vifs`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct VifFilter {
    /// With this id.
    id: Option<Uuid>,
    /// With this MAC address.
    mac: Option<MacAddr>,
    /// With this address, whoever says so.
    #[schemars(with = "String", extend("anyOf" = [{ "format": "ipv4" }, { "format": "ipv6" }]))]
    address: Option<IpAddr>,
    /// Carried by the link with this name.
    device: Option<String>,
    /// Carried by the link with this index.
    ifindex: Option<u32>,
    /// Of the instance with this UUID.
    instance: Option<Uuid>,
    /// Of the project with this id.
    project: Option<String>,
}

impl VifFilter {
    fn admits(&self, inventory: &Inventory, instance: &Instance, vif: &Vif) -> bool {
        let index = vif.device.as_ref().map(|device| device.index);
        let named = |name: &String| inventory.link_by_name(name).map(|link| link.index);
        self.id.is_none_or(|id| vif.id == id)
            && self.mac.is_none_or(|mac| vif.interface.mac == mac)
            && self.address.is_none_or(|wanted| vif.addresses.iter().any(|known| known.address == wanted))
            && self.ifindex.is_none_or(|ifindex| index == Some(ifindex))
            && self.device.as_ref().is_none_or(|name| index.is_some() && named(name) == index)
            && self.instance.is_none_or(|uuid| instance.uuid == uuid)
            && self.project.as_ref().is_none_or(|id| instance.project.as_ref().is_some_and(|p| *p.id == **id))
    }
}

async fn vifs(State(app): State<App>, filter: Result<Query<VifFilter>, QueryRejection>) -> Reply<Vifs> {
    let Query(filter) = filter.map_err(|error| Error::BadRequest(error.body_text()))?;
    let inventory = app.inventory();
    let all = inventory.instances.iter().flat_map(|instance| instance.vifs.iter().map(move |vif| (instance, vif)));
    let vifs = all
        .filter(|(instance, vif)| filter.admits(&inventory, instance, vif))
        .map(|(instance, vif)| VifRecord::of(&inventory, instance, vif))
        .collect();
    reply(&inventory, Vifs { vifs })
}

/// The filters of `devices`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct DeviceFilter {
    /// Of this kind: `tap`, `veth`, `bridge`, …
    kind: Option<String>,
    /// Whose controller has this name.
    controller: Option<String>,
    /// Whether it carries a VIF.
    owned: Option<bool>,
}

async fn devices(State(app): State<App>, filter: Result<Query<DeviceFilter>, QueryRejection>) -> Reply<Devices> {
    let Query(filter) = filter.map_err(|error| Error::BadRequest(error.body_text()))?;
    let inventory = app.inventory();
    let mut devices: Vec<_> = inventory.links().iter().map(|link| DeviceRecord::of(&inventory, link)).collect();
    devices.retain(|device| {
        filter.kind.as_ref().is_none_or(|kind| device.link.kind.to_string() == *kind)
            && filter.controller.as_ref().is_none_or(|name| device.controller_name.as_deref() == Some(name))
            && filter.owned.is_none_or(|owned| device.carries.is_empty() != owned)
    });
    devices.sort_by_key(|device| device.link.index);
    reply(&inventory, Devices { devices })
}

fn find_link<'a>(inventory: &'a Inventory, device: &str) -> Result<&'a Arc<Link>, Error> {
    let by_index = || device.parse().ok().and_then(|index| inventory.links().get(index));
    let link = inventory.link_by_name(device).or_else(by_index);
    link.ok_or_else(|| Error::NotFound(format!("no device has the name or index {device}{}", near(inventory, device))))
}

async fn device(State(app): State<App>, device: Result<Path<String>, PathRejection>) -> Reply<OneDevice> {
    let device = name(device)?;
    let inventory = app.inventory();
    let device = DeviceRecord::of(&inventory, find_link(&inventory, &device)?);
    reply(&inventory, OneDevice { device })
}

async fn device_counters(State(app): State<App>, device: Result<Path<String>, PathRejection>) -> Reply<DeviceCounters> {
    let device = name(device)?;
    let inventory = app.inventory();
    let link = find_link(&inventory, &device)?;
    let counters = app.counters.read().await.ok_or(Error::CountersUnavailable)?;
    let counters = *counters.get(&link.index).ok_or_else(|| Error::NotFound(format!("{} is gone", link.name)))?;
    let body = DeviceCounters { index: link.index, name: Arc::clone(&link.name), view: "host".into(), counters };
    reply(&inventory, body)
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

impl InstanceRecord {
    fn of(inventory: &Inventory, instance: &Arc<Instance>) -> Self {
        let devices = instance.vifs.iter().filter_map(|vif| vif.device.as_ref());
        Self {
            instance: Arc::clone(instance),
            stale: inventory.staleness(instance),
            links: devices.filter_map(|device| inventory.links().get(device.index).cloned()).collect(),
            ovs_ports: instance.vifs.iter().filter_map(|vif| inventory.ovs_port(vif).cloned()).collect(),
        }
    }
}

impl VifRecord {
    fn of(inventory: &Inventory, instance: &Instance, vif: &Vif) -> Self {
        let link = vif.device.as_ref().and_then(|device| inventory.links().get(device.index));
        Self {
            instance_uuid: instance.uuid,
            instance_name: Arc::clone(&instance.name),
            display_name: instance.display_name.clone(),
            vif: vif.clone(),
            link: link.cloned(),
            ovs: inventory.ovs_port(vif).cloned(),
            stale: inventory.staleness(instance),
        }
    }
}

impl DeviceRecord {
    fn of(inventory: &Inventory, link: &Arc<Link>) -> Self {
        let carries = inventory.vifs_by_device(link.index).map(|(instance, vif)| Carried {
            instance_uuid: instance.uuid,
            instance_name: Arc::clone(&instance.name),
            vif_id: vif.id,
        });
        Self {
            link: Arc::clone(link),
            ovs: inventory.ports().of_link(link).cloned(),
            controller_name: controller_name(inventory, link),
            carries: carries.collect(),
        }
    }
}

/// The kernel does not know the bridges of Open vSwitch: a port's controller is none (datapath in user space) or the
/// datapath as a whole (`ovs-system`).
pub(super) fn controller_name(inventory: &Inventory, link: &Link) -> Option<Arc<str>> {
    let bridge = inventory.ports().of_link(link).and_then(|port| port.bridge.as_ref());
    if let Some(bridge) = bridge.filter(|bridge| **bridge != link.name) {
        return Some(Arc::clone(bridge));
    }
    inventory.links().get(link.controller?).map(|controller| Arc::clone(&controller.name))
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
