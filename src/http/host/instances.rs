//! `instances?project=&state=&bridge=` and `instances/{id}?why=`: everything about instances.

use std::sync::Arc;

use axum::extract::{
    Path, Query, State,
    rejection::{PathRejection, QueryRejection},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Error, Reply, name, near, reply};
use crate::{
    http::App,
    inventory::{Instance, Inventory, Staleness, Vif, Why},
    source::{libvirt::domain::Attachment, netlink::link::Link, ovsdb::rows::Port},
};

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

/// The filters of `instances` and of `summary`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct InstanceFilter {
    /// Of the project with this id or name.
    project: Option<String>,
    /// In this state, such as `running`, `paused` or `shut_off`.
    state: Option<String>,
    /// With a VIF on this bridge or lower device, or of this libvirt network; of those instances, only such VIFs.
    bridge: Option<String>,
}

impl InstanceFilter {
    /// The instance as far as it is wanted.
    pub(super) fn admit(&self, inventory: &Inventory, instance: &Arc<Instance>) -> Option<Arc<Instance>> {
        let owned = |wanted: &String| {
            let project = instance.project.as_ref();
            project.is_some_and(|project| *project.id == **wanted || project.name.as_deref() == Some(wanted))
        };
        let in_state =
            |wanted: &String| instance.state.to_string().eq_ignore_ascii_case(&wanted.replace(['_', '-'], " "));
        if !self.project.as_ref().is_none_or(owned) || !self.state.as_ref().is_none_or(in_state) {
            return None;
        }
        let mut instance = Arc::clone(instance);
        if let Some(bridge) = &self.bridge {
            let is_upon = |vif: &Vif| upon(inventory, vif).any(|name| **name == **bridge);
            if !instance.vifs.iter().all(is_upon) {
                Arc::make_mut(&mut instance).vifs.retain(is_upon);
            }
            if instance.vifs.is_empty() {
                return None;
            }
        }
        Some(instance)
    }
}

/// What the VIF is plugged into, by all of its names: Open vSwitch's bridge first, which libvirt may not know.
pub(super) fn upon<'a>(inventory: &'a Inventory, vif: &'a Vif) -> impl Iterator<Item = &'a Arc<str>> {
    let bridge = inventory.ovs_port(vif).and_then(|port| port.bridge.as_ref());
    let (source, network) = match &vif.interface.attachment {
        Attachment::Bridge { bridge, network } | Attachment::Network { network, bridge } => (bridge, network),
        Attachment::Direct { lower_device, network, .. } => (lower_device, network),
        _ => (&None, &None),
    };
    [bridge, source.as_ref(), network.as_ref()].into_iter().flatten()
}

pub(super) async fn instances(
    State(app): State<App>,
    filter: Result<Query<InstanceFilter>, QueryRejection>,
) -> Reply<Instances> {
    let Query(filter) = filter.map_err(|error| Error::BadRequest(error.body_text()))?;
    let inventory = app.inventory();
    let admitted = inventory.instances.iter().filter_map(|instance| filter.admit(&inventory, instance));
    let instances = admitted.map(|instance| InstanceRecord::of(&inventory, &instance)).collect();
    reply(&inventory, Instances { instances })
}

/// What may be asked of one instance.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct InstanceQuery {
    /// Whether to tell why each fact is believed.
    why: bool,
}

pub(super) async fn instance(
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
