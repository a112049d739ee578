//! `summary?project=&state=&bridge=`: a line for each VIF, as `vifctl list` shows it. A fifth of what `instances` answers.

use std::{net::IpAddr, sync::Arc};

use axum::extract::{Query, State, rejection::QueryRejection};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Error, Reply,
    instances::{InstanceFilter, upon},
    reply,
};
use crate::{
    http::App,
    inventory::{Instance, Inventory, NoDevice, Vif},
    mac::MacAddr,
    source::libvirt::domain::{DomainState, Migration},
};

/// `summary`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// By hypervisor and name.
    pub instances: Vec<InstanceSummary>,
}

/// An instance, in short.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InstanceSummary {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its libvirt name.
    pub name: Arc<str>,
    /// Its display name.
    pub display_name: Option<Arc<str>>,
    /// Its project's name, else its id.
    pub project: Option<Arc<str>>,
    /// Its state.
    pub state: DomainState,
    /// Whether it migrates.
    pub migration: Option<Migration>,
    /// Whether it was found by its process alone: no hypervisor tells about it.
    pub by_process: bool,
    /// Whether its record is not kept current.
    pub stale: bool,
    /// Its VIFs.
    pub vifs: Vec<VifSummary>,
}

/// A VIF, in short.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VifSummary {
    /// Its id.
    pub id: Uuid,
    /// Its MAC address.
    pub mac: MacAddr,
    /// The type of its interface, as libvirt calls it.
    #[serde(rename = "type")]
    pub kind: Box<str>,
    /// The link that carries it.
    pub device: Option<DeviceSummary>,
    /// The name that libvirt says, where there is no such link.
    pub target: Option<Arc<str>>,
    /// Why there is no link.
    pub no_device: Option<NoDevice>,
    /// The bridge, lower device or network that it is on.
    pub on: Option<Arc<str>>,
    /// Its IP addresses, whoever says so.
    pub addresses: Vec<IpAddr>,
}

/// A link, in short.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeviceSummary {
    /// `ifindex`.
    pub index: u32,
    /// Its name.
    pub name: Arc<str>,
    /// In bytes; absent if the link has just gone.
    pub mtu: Option<u32>,
}

impl InstanceSummary {
    fn of(inventory: &Inventory, instance: &Instance) -> Self {
        Self {
            uuid: instance.uuid,
            name: Arc::clone(&instance.name),
            display_name: instance.display_name.clone(),
            project: instance.project.as_ref().map(|project| project.name.as_ref().unwrap_or(&project.id).clone()),
            state: instance.state,
            migration: instance.migration,
            by_process: instance.process.is_some(),
            stale: inventory.staleness(instance).is_some(),
            vifs: instance.vifs.iter().map(|vif| VifSummary::of(inventory, vif)).collect(),
        }
    }
}

impl VifSummary {
    fn of(inventory: &Inventory, vif: &Vif) -> Self {
        let mut addresses: Vec<_> = vif.addresses.iter().map(|known| known.address).collect();
        addresses.sort();
        addresses.dedup();
        let device = vif.device.as_ref().map(|device| DeviceSummary {
            index: device.index,
            name: Arc::clone(&device.name),
            mtu: inventory.links().get(device.index).map(|link| link.mtu),
        });
        Self {
            id: vif.id,
            mac: vif.interface.mac,
            kind: vif.interface.attachment.type_name().into(),
            target: vif.interface.target.clone().filter(|_| device.is_none()),
            device,
            no_device: vif.no_device,
            on: upon(inventory, vif).next().cloned(),
            addresses,
        }
    }
}

pub(super) async fn summary(
    State(app): State<App>,
    filter: Result<Query<InstanceFilter>, QueryRejection>,
) -> Reply<Summary> {
    let Query(filter) = filter.map_err(|error| Error::BadRequest(error.body_text()))?;
    let inventory = app.inventory();
    let admitted = inventory.instances.iter().filter_map(|instance| filter.admit(&inventory, instance));
    let instances = admitted.map(|instance| InstanceSummary::of(&inventory, &instance)).collect();
    reply(&inventory, Summary { instances })
}
