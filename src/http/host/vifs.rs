//! `vifs?id=&mac=&address=&device=&ifindex=&instance=&project=`: VIFs with whose they are and what carries them.

use std::{net::IpAddr, sync::Arc};

use axum::extract::{Query, State, rejection::QueryRejection};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Error, Reply, reply};
use crate::{
    http::App,
    inventory::{Instance, Inventory, Staleness, Vif},
    mac::MacAddr,
    source::{netlink::link::Link, ovsdb::rows::Port},
};

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

/// The filters of `vifs`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct VifFilter {
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

pub(super) async fn vifs(State(app): State<App>, filter: Result<Query<VifFilter>, QueryRejection>) -> Reply<Vifs> {
    let Query(filter) = filter.map_err(|error| Error::BadRequest(error.body_text()))?;
    let inventory = app.inventory();
    let all = inventory.instances.iter().flat_map(|instance| instance.vifs.iter().map(move |vif| (instance, vif)));
    let vifs = all
        .filter(|(instance, vif)| filter.admits(&inventory, instance, vif))
        .map(|(instance, vif)| VifRecord::of(&inventory, instance, vif))
        .collect();
    reply(&inventory, Vifs { vifs })
}
