//! `devices?kind=&controller=&owned=`, `devices/{device}` and its `counters`: links with whose VIFs they carry.

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
    inventory::Inventory,
    source::{
        netlink::link::{Counters, Link},
        ovsdb::rows::Port,
    },
};

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

/// The filters of `devices`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeviceFilter {
    /// Of this kind: `tap`, `veth`, `bridge`, …
    kind: Option<String>,
    /// Whose controller has this name.
    controller: Option<String>,
    /// Whether it carries a VIF.
    owned: Option<bool>,
}

pub(super) async fn devices(
    State(app): State<App>,
    filter: Result<Query<DeviceFilter>, QueryRejection>,
) -> Reply<Devices> {
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

pub(super) async fn device(State(app): State<App>, device: Result<Path<String>, PathRejection>) -> Reply<OneDevice> {
    let device = name(device)?;
    let inventory = app.inventory();
    let device = DeviceRecord::of(&inventory, find_link(&inventory, &device)?);
    reply(&inventory, OneDevice { device })
}

pub(super) async fn device_counters(
    State(app): State<App>,
    device: Result<Path<String>, PathRejection>,
) -> Reply<DeviceCounters> {
    let device = name(device)?;
    let inventory = app.inventory();
    let link = find_link(&inventory, &device)?;
    let counters = app.counters.read().await.ok_or(Error::CountersUnavailable)?;
    let counters = *counters.get(&link.index).ok_or_else(|| Error::NotFound(format!("{} is gone", link.name)))?;
    let body = DeviceCounters { index: link.index, name: Arc::clone(&link.name), view: "host".into(), counters };
    reply(&inventory, body)
}

/// The kernel does not know the bridges of Open vSwitch: a port's controller is none (datapath in user space) or the
/// datapath as a whole (`ovs-system`).
pub(in crate::http) fn controller_name(inventory: &Inventory, link: &Link) -> Option<Arc<str>> {
    let bridge = inventory.ports().of_link(link).and_then(|port| port.bridge.as_ref());
    if let Some(bridge) = bridge.filter(|bridge| **bridge != link.name) {
        return Some(Arc::clone(bridge));
    }
    inventory.links().get(link.controller?).map(|controller| Arc::clone(&controller.name))
}
