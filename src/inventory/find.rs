//! Reverse look-ups: whatever an operator has in hand, everything that it matches.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Instance, Inventory, Vif, VifPosition};
use crate::{mac::MacAddr, source::netlink::link::Link};

/// One thing that a look-up found: a link, a VIF with its instance, or both where the one carries the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// Which of its properties matched.
    pub matched_by: Vec<MatchedBy>,
    /// The link; absent where the VIF has none.
    pub link: Option<Arc<Link>>,
    /// The instance; absent where no instance owns the link.
    pub instance: Option<Arc<Instance>>,
    /// The VIF's position in the instance's `vifs`; absent where an instance matched as a whole.
    pub vif: Option<u32>,
}

/// By which of its properties something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchedBy {
    /// The name or an alternative name of a link.
    DeviceName,
    /// A link's index.
    Ifindex,
    /// A link's own MAC address.
    DeviceMac,
    /// The target in the domain's description, although no such link carries it.
    Target,
    /// A VIF's MAC address.
    VifMac,
    /// A VIF's id.
    VifId,
    /// An instance's UUID.
    InstanceUuid,
    /// An instance's libvirt name.
    InstanceName,
    /// An instance's display name.
    DisplayName,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Instance(u32),
    Vif(VifPosition),
    Link(u32),
}

impl Match {
    /// The VIF, where one matched.
    #[must_use]
    pub fn vif(&self) -> Option<&Vif> {
        self.instance.as_ref()?.vifs.get(self.vif? as usize)
    }
}

impl Inventory {
    /// Everything that `thing` may mean: a device name, MAC address, ifindex, VIF id, instance UUID or name.
    #[must_use]
    pub fn find(&self, thing: &str) -> Vec<Match> {
        let mut found = Found { inventory: self, by: BTreeMap::new() };
        for index in self.links_by_name.get(thing) {
            found.link(index, MatchedBy::DeviceName);
        }
        if let Ok(index) = thing.parse()
            && self.links.get(index).is_some()
        {
            found.link(index, MatchedBy::Ifindex);
        }
        if let Ok(mac) = thing.parse::<MacAddr>() {
            for position in self.by_mac.get(&mac) {
                found.add(Key::Vif(position), MatchedBy::VifMac);
            }
            for index in self.links_by_mac.get(&mac) {
                found.link(index, MatchedBy::DeviceMac);
            }
        }
        for position in self.by_target.get(thing) {
            let (_, vif) = self.vif(position);
            if vif.device.as_ref().is_none_or(|device| &*device.name != thing) {
                found.add(Key::Vif(position), MatchedBy::Target);
            }
        }
        if let Ok(id) = thing.parse::<Uuid>() {
            for position in self.by_vif_id.get(&id) {
                found.add(Key::Vif(position), MatchedBy::VifId);
            }
            for instance in self.by_uuid.get(&id) {
                found.add(Key::Instance(instance), MatchedBy::InstanceUuid);
            }
        }
        for instance in self.by_name.get(thing) {
            found.add(Key::Instance(instance), MatchedBy::InstanceName);
        }
        for (n, instance) in (0..).zip(&self.instances) {
            if instance.display_name.as_deref() == Some(thing) {
                found.add(Key::Instance(n), MatchedBy::DisplayName);
            }
        }
        found.matches()
    }
}

struct Found<'a> {
    inventory: &'a Inventory,
    by: BTreeMap<Key, Vec<MatchedBy>>,
}

impl Found<'_> {
    fn add(&mut self, key: Key, matched_by: MatchedBy) {
        self.by.entry(key).or_default().push(matched_by);
    }

    /// A link stands for the VIFs that it carries; for itself only if it carries none.
    fn link(&mut self, index: u32, matched_by: MatchedBy) {
        let mut carried = self.inventory.by_device.get(&index).map(Key::Vif).peekable();
        if carried.peek().is_none() {
            self.add(Key::Link(index), matched_by);
        }
        for key in carried {
            self.add(key, matched_by);
        }
    }

    fn matches(self) -> Vec<Match> {
        let inventory = self.inventory;
        let to_match = |(key, matched_by)| match key {
            Key::Link(index) => {
                Match { matched_by, link: inventory.links.get(index).cloned(), instance: None, vif: None }
            }
            Key::Instance(n) => Match {
                matched_by,
                link: None,
                instance: Some(Arc::clone(&inventory.instances[n as usize])),
                vif: None,
            },
            Key::Vif(position) => {
                let (instance, vif) = inventory.vif(position);
                let link = vif.device.as_ref().and_then(|device| inventory.links.get(device.index));
                Match { matched_by, link: link.cloned(), instance: Some(Arc::clone(instance)), vif: Some(position.vif) }
            }
        };
        self.by.into_iter().map(to_match).collect()
    }
}

impl fmt::Display for MatchedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeviceName => "device name",
            Self::Ifindex => "ifindex",
            Self::DeviceMac => "MAC address of the device",
            Self::Target => "target in the domain XML",
            Self::VifMac => "MAC address of the VIF",
            Self::VifId => "VIF id",
            Self::InstanceUuid => "instance UUID",
            Self::InstanceName => "instance name",
            Self::DisplayName => "display name",
        })
    }
}
