//! What differs between two inventories: pure, and cheap, since what is the same object in both is not looked at.

use std::{collections::HashMap, fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Instance, Inventory, Vif,
    record::{
        self, DeviceFacts, InstanceFacts, InstanceName, PortFacts, Record, SourceFacts, SourceState, VifFacts, normal,
    },
};
use crate::source::{SyncState, libvirt::domain::Migration, netlink::link::Link, ovsdb::rows::Port};

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// What has happened to it: the most telling of what differs.
    pub kind: Kind,
    /// It was found when its source was read again: it happened at some time since that was lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
    /// What it was like; absent of what is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Record>>,
    /// What it is like; absent of what is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Box<Record>>,
    /// Of a device: the VIFs that it carries, or did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carries: Vec<Carried>,
}

/// A VIF that a device carries, with its instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Carried {
    /// The instance.
    #[serde(flatten)]
    pub instance: InstanceName,
    /// The VIF's id.
    pub vif_id: Uuid,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// There is a new instance.
    InstanceAppeared,
    /// An instance is gone.
    InstanceGone,
    /// A migration has begun.
    MigrationBegun,
    /// A migration is over.
    MigrationOver,
    /// An instance is in another state.
    InstanceState,
    /// An instance has another name.
    InstanceRenamed,
    /// An instance can no longer be read: its record is stale.
    InstanceStale,
    /// An instance can be read again.
    InstanceCurrent,
    /// Something else about an instance.
    InstanceChanged,
    /// An instance has a new VIF.
    VifPlugged,
    /// An instance has lost a VIF.
    VifUnplugged,
    /// A VIF is carried by another device, or by none.
    VifDevice,
    /// A VIF has other addresses.
    VifAddresses,
    /// Something else about a VIF.
    VifChanged,
    /// There is a new device.
    DeviceAppeared,
    /// A device is gone.
    DeviceGone,
    /// A device has another name.
    DeviceRenamed,
    /// A device is on another bridge (or bond, …), or on none.
    DeviceMoved,
    /// A device was set up or down, or has another operational state or carrier.
    DeviceState,
    /// Something else about a device, such as its MTU.
    DeviceChanged,
    /// Open vSwitch has a new port.
    PortAppeared,
    /// A port of Open vSwitch is gone.
    PortGone,
    /// Something about a port of Open vSwitch.
    PortChanged,
    /// A source was read for the first time. What it says then is no change, and is not told as one.
    SourceRead,
    /// A source was lost: what it has said is no longer kept current.
    SourceLost,
    /// A source was lost and is there again.
    SourceRegained,
    /// Something else about a source: this host has it no longer.
    SourceChanged,
}

impl Change {
    /// What leads from one record to another of the same thing.
    #[must_use]
    pub fn new(before: Option<Record>, after: Option<Record>) -> Self {
        let kind = Kind::of(before.as_ref(), after.as_ref());
        Self { kind, found: false, before: before.map(Box::new), after: after.map(Box::new), carries: Vec::new() }
    }

    /// Its records: one, or before and after.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.before.iter().chain(&self.after).map(Box::as_ref)
    }

    /// Whether it is about this thing (by its [`normal`] form): by its own names, addresses and ids, or as the device of
    /// a VIF.
    #[must_use]
    pub fn is_about(&self, thing: &str) -> bool {
        let carried = |carried: &Carried| {
            let Carried { instance, vif_id } = carried;
            let names = [Some(&instance.name), instance.display_name.as_ref()];
            names.into_iter().flatten().any(|name| **name == *thing)
                || [instance.uuid, *vif_id].iter().any(|id| id.to_string() == *thing)
        };
        self.records().any(|record| record.keys().contains(thing)) || self.carries.iter().any(carried)
    }

    /// Whether it is about this instance, by UUID or name.
    #[must_use]
    pub fn is_of_instance(&self, wanted: &str) -> bool {
        let wanted = normal(wanted);
        let is = |instance: &InstanceName| {
            instance.uuid.to_string() == wanted
                || *instance.name == *wanted
                || instance.display_name.as_deref() == Some(&wanted)
        };
        let own = |record: &Record| match record {
            Record::Instance(InstanceFacts { instance, .. }) | Record::Vif(VifFacts { instance, .. }) => is(instance),
            _ => false,
        };
        self.records().any(own) || self.carries.iter().any(|carried| is(&carried.instance))
    }

    /// Whether it is about this device, by name or index: itself, a VIF that it carries, or its Open vSwitch port.
    #[must_use]
    pub fn is_of_device(&self, wanted: &str) -> bool {
        let index = wanted.parse::<u32>().ok();
        let is = |name: &str, of: Option<u32>| name == wanted || (index.is_some() && of == index);
        self.records().any(|record| match record {
            Record::Device(device) => {
                is(&device.device, Some(device.ifindex)) || device.altnames.iter().any(|name| **name == *wanted)
            }
            Record::Vif(vif) => vif.device.as_ref().is_some_and(|device| is(&device.name, Some(device.index))),
            Record::Port(port) => is(&port.port, port.ifindex),
            Record::Instance(_) | Record::Source(_) => false,
        })
    }
}

impl Kind {
    fn of(before: Option<&Record>, after: Option<&Record>) -> Self {
        match (before, after) {
            (Some(Record::Instance(before)), Some(Record::Instance(after))) => Self::of_instance(before, after),
            (Some(Record::Vif(before)), Some(Record::Vif(after))) => Self::of_vif(before, after),
            (Some(Record::Device(before)), Some(Record::Device(after))) => Self::of_device(before, after),
            (Some(Record::Source(before)), Some(Record::Source(after))) => Self::of_source(before, after),
            (None, Some(Record::Instance(_))) => Self::InstanceAppeared,
            (None, Some(Record::Vif(_))) => Self::VifPlugged,
            (None, Some(Record::Device(_))) => Self::DeviceAppeared,
            (None, Some(Record::Port(_))) => Self::PortAppeared,
            (Some(Record::Instance(_)), _) => Self::InstanceGone,
            (Some(Record::Vif(_)), _) => Self::VifUnplugged,
            (Some(Record::Device(_)), _) => Self::DeviceGone,
            (Some(Record::Port(_)), None) => Self::PortGone,
            (Some(Record::Port(_)), _) => Self::PortChanged,
            (None, Some(Record::Source(source))) if source.state == SourceState::Stale => Self::SourceLost,
            (Some(Record::Source(_)), _) | (None, Some(Record::Source(_)) | None) => Self::SourceChanged,
        }
    }

    fn of_instance(before: &InstanceFacts, after: &InstanceFacts) -> Self {
        let moves = |facts: &InstanceFacts| facts.migration.is_some_and(Migration::is_under_way);
        match (moves(before), moves(after)) {
            (false, true) => return Self::MigrationBegun,
            (true, false) => return Self::MigrationOver,
            _ => {}
        }
        let names = |facts: &InstanceFacts| (facts.instance.name.clone(), facts.instance.display_name.clone());
        if before.state != after.state {
            Self::InstanceState
        } else if names(before) != names(after) {
            Self::InstanceRenamed
        } else if before.unreadable.is_none() && after.unreadable.is_some() {
            Self::InstanceStale
        } else if before.unreadable.is_some() && after.unreadable.is_none() {
            Self::InstanceCurrent
        } else {
            Self::InstanceChanged
        }
    }

    fn of_vif(before: &VifFacts, after: &VifFacts) -> Self {
        if (&before.device, before.no_device) != (&after.device, after.no_device) {
            Self::VifDevice
        } else if before.addresses != after.addresses {
            Self::VifAddresses
        } else {
            Self::VifChanged
        }
    }

    fn of_device(before: &DeviceFacts, after: &DeviceFacts) -> Self {
        let state = |device: &DeviceFacts| (device.up, device.oper_state, device.carrier);
        let controller = |device: &DeviceFacts| device.controller.as_ref().map(|controller| controller.index);
        if before.device != after.device {
            Self::DeviceRenamed
        } else if controller(before) != controller(after) {
            Self::DeviceMoved
        } else if state(before) != state(after) {
            Self::DeviceState
        } else {
            Self::DeviceChanged
        }
    }

    fn of_source(before: &SourceFacts, after: &SourceFacts) -> Self {
        match (before.state, after.state) {
            (SourceState::Pending, _) => Self::SourceRead,
            (_, SourceState::Stale) => Self::SourceLost,
            (_, SourceState::Synced) => Self::SourceRegained,
            _ => Self::SourceChanged,
        }
    }
}

/// What has changed from `before` to `after`, in the order in which it usually comes about: sources, devices, ports,
/// instances.
///
/// What a source says when it is read for the first time is no change: nobody knew what was there before.
#[must_use]
pub fn diff(before: &Inventory, after: &Inventory) -> Vec<Change> {
    let mut changes = Differ { before, after, first: false, changes: Vec::new() };
    changes.sources();
    changes.devices();
    changes.ports();
    changes.instances();
    changes.changes
}

struct Differ<'a> {
    before: &'a Inventory,
    after: &'a Inventory,
    /// A source on which the records of VIFs depend was read for the first time.
    first: bool,
    changes: Vec<Change>,
}

impl Differ<'_> {
    fn add(&mut self, found: bool, before: Option<Record>, after: Option<Record>) {
        if before != after {
            self.changes.push(Change { found, ..Change::new(before, after) });
        }
    }

    fn sources(&mut self) {
        let before: HashMap<_, _> = record::sources(self.before).collect();
        for (name, after) in record::sources(self.after) {
            let facts = |sync: &SyncState| SourceFacts::of(name, sync);
            let old =
                before.get(name).map_or(SourceFacts { state: SourceState::Pending, ..facts(after) }, |s| facts(s));
            let new = facts(after);
            // The reason may be another one at each attempt.
            if old.state != new.state {
                self.first |= old.state == SourceState::Pending && !name.contains(':');
                self.add(false, Some(Record::Source(old)), Some(Record::Source(new)));
            }
        }
    }

    fn devices(&mut self) {
        let Reading::Kept { found } = reading(self.before.netlink.as_ref(), self.after.netlink.as_ref()) else {
            return;
        };
        let (before, after) = (self.before.links(), self.after.links());
        let (old, new) = (before.not_in(after), after.not_in(before));
        let renamed: Vec<u32> = old
            .iter()
            .filter(|link| after.get(link.index).is_some_and(|now| now.name != link.name))
            .map(|link| link.index)
            .collect();
        for link in &old {
            self.device(found, Some(link), after.get(link.index));
        }
        for link in new.iter().filter(|link| before.get(link.index).is_none()) {
            self.device(found, None, Some(link));
        }
        if !renamed.is_empty() {
            // Their records name a controller that is called otherwise now.
            let ported = |link: &&Arc<Link>| link.controller.is_some_and(|index| renamed.contains(&index));
            for link in after.iter().filter(ported) {
                if before.get(link.index).is_some_and(|old| Arc::ptr_eq(old, link)) {
                    self.device(found, Some(link), Some(link));
                }
            }
        }
    }

    fn device(&mut self, found: bool, old: Option<&Arc<Link>>, new: Option<&Arc<Link>>) {
        let before = old.map(|link| Record::Device(DeviceFacts::of(self.before, link)));
        let after = new.map(|link| Record::Device(DeviceFacts::of(self.after, link)));
        let told = self.changes.len();
        self.add(found, before, after);
        let Some(index) = old.or(new).map(|link| link.index) else { return };
        if let Some(change) = self.changes.get_mut(told) {
            let carried = |(instance, vif): (&Arc<Instance>, &Vif)| {
                let InstanceFacts { instance, .. } = InstanceFacts::of(instance);
                Carried { instance, vif_id: vif.id }
            };
            change.carries = self.after.vifs_by_device(index).map(carried).collect();
            if change.carries.is_empty() {
                change.carries = self.before.vifs_by_device(index).map(carried).collect();
            }
        }
    }

    fn ports(&mut self) {
        let (before, after) = (self.before.ports(), self.after.ports());
        let Reading::Kept { found } = reading(self.before.ovsdb.as_ref(), self.after.ovsdb.as_ref()) else { return };
        let facts = |port: &Arc<Port>| Record::Port(PortFacts::of(port));
        for port in before.iter() {
            let now = after.by_name(&port.name);
            if now.is_none_or(|now| !Arc::ptr_eq(now, port)) {
                self.add(found, Some(facts(port)), now.map(facts));
            }
        }
        for port in after.iter().filter(|port| before.by_name(&port.name).is_none()) {
            self.add(found, None, Some(facts(port)));
        }
    }

    fn instances(&mut self) {
        let (before, after) = (&self.before.instances[..], &self.after.instances[..]);
        // Both are in the same order: mostly one differs, or one more or less is there.
        let same = |(a, b): &(&Arc<Instance>, &Arc<Instance>)| Arc::ptr_eq(a, b);
        let start = before.iter().zip(after).take_while(same).count();
        let (before, after) = (&before[start..], &after[start..]);
        let end = before.iter().rev().zip(after.iter().rev()).take_while(same).count();
        let (before, after) = (&before[..before.len() - end], &after[..after.len() - end]);

        let key = |instance: &Instance| (Arc::clone(&instance.hypervisor), instance.uuid);
        let mut old: HashMap<_, _> = before.iter().map(|instance| (key(instance), instance)).collect();
        let readings: HashMap<_, _> =
            self.after.hypervisors.iter().map(|h| (&h.uri, self.reading_of(&h.uri))).collect();
        for new in after {
            let old = old.remove(&key(new));
            if let Some(Reading::Kept { found }) = readings.get(&new.hypervisor)
                && old.is_none_or(|old| !Arc::ptr_eq(old, new))
            {
                self.instance(*found, old, Some(new));
            }
        }
        let mut gone: Vec<_> = old.into_values().collect();
        gone.sort_by_key(|instance| (&instance.hypervisor, &instance.name, instance.uuid));
        for old in gone {
            if let Some(Reading::Kept { found }) = readings.get(&old.hypervisor) {
                self.instance(*found, Some(old), None);
            }
        }
    }

    fn reading_of(&self, uri: &str) -> Reading {
        let of =
            |inventory: &'_ Inventory| inventory.hypervisors.iter().find(|h| *h.uri == *uri).map(|h| h.sync.clone());
        reading(of(self.before).as_ref(), of(self.after).as_ref())
    }

    fn instance(&mut self, found: bool, old: Option<&Arc<Instance>>, new: Option<&Arc<Instance>>) {
        let facts = |instance: &Arc<Instance>| Record::Instance(InstanceFacts::of(instance));
        // A guest comes before its VIFs, and goes after them.
        if new.is_some() {
            self.add(found, old.map(facts), new.map(facts));
        }
        if !(self.first && old.is_some() && new.is_some()) {
            self.vifs(found, old, new);
        }
        if new.is_none() {
            self.add(found, old.map(facts), None);
        }
    }

    fn vifs(&mut self, found: bool, old: Option<&Arc<Instance>>, new: Option<&Arc<Instance>>) {
        let mut left: Vec<&Vif> = old.iter().flat_map(|instance| &instance.vifs).collect();
        let facts = |instance: Option<&Arc<Instance>>, vif: &Vif| instance.map(|of| VifFacts::of(of, vif));
        for vif in new.iter().flat_map(|instance| &instance.vifs) {
            let same_mac = |other: &&&Vif| other.interface.mac == vif.interface.mac;
            let same = left.iter().position(|other| same_mac(&other) && other.id == vif.id);
            let same = same.or_else(|| left.iter().position(|other| same_mac(&other)));
            let before = same.map(|n| left.remove(n)).and_then(|before| facts(old, before));
            let after = facts(new, vif);
            // That its instance has another name is told of the instance.
            let before = before.map(|before| match &after {
                Some(after) => VifFacts { instance: after.instance.clone(), ..before },
                None => before,
            });
            self.add(found, before.map(Record::Vif), after.map(Record::Vif));
        }
        for vif in left {
            self.add(found, facts(old, vif).map(Record::Vif), None);
        }
    }
}

/// How two views of a source belong together.
#[derive(Clone, Copy, Debug)]
enum Reading {
    /// The second is the first that there is.
    First,
    /// It is kept current, or, if `found`, was read again.
    Kept { found: bool },
}

fn reading(before: Option<&SyncState>, after: Option<&SyncState>) -> Reading {
    match (before, after) {
        (None | Some(SyncState::Pending { .. }), _) => Reading::First,
        (Some(before), Some(after)) => Reading::Kept { found: !before.is_synced() && after.is_synced() },
        (Some(_), None) => Reading::Kept { found: false },
    }
}

/// The word that it has in JSON, as the name of an event.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // serde's word for a variant without content.
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests;
