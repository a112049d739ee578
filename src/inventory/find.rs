//! Reverse look-ups: whatever an operator has in hand, everything that it matches.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Carriers, Instance, Inventory, Vif, VifPosition};
use crate::{
    mac::MacAddr,
    pci::PciAddress,
    source::{
        netlink::{function::VirtualFunction, link::Link},
        ovsdb::rows::Port,
    },
};

/// One thing that a look-up found: a link, an Open vSwitch port, a VIF with its instance, or those of them that belong
/// together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Match {
    /// Which of its properties matched.
    pub matched_by: Vec<MatchedBy>,
    /// The link; absent where the VIF has none.
    pub link: Option<Arc<Link>>,
    /// The Open vSwitch port that the link is, or that the VIF is plugged into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ovs: Option<Arc<Port>>,
    /// The instance; absent where no instance owns the link or port.
    pub instance: Option<Arc<Instance>>,
    /// The VIF's position in the instance's `vifs`; absent where an instance matched as a whole.
    pub vif: Option<u32>,
}

/// By which of its properties something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
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
    /// A vhost-user socket.
    Socket,
    /// The name of an Open vSwitch port that is no link.
    OvsPort,
    /// An Open vSwitch port's bridge and number.
    Ofport,
    /// The VIF id that an Open vSwitch port names.
    IfaceId,
    /// The MAC address of a VIF that an Open vSwitch port names.
    AttachedMac,
    /// A VIF's MAC address.
    VifMac,
    /// A VIF's id.
    VifId,
    /// A fixed address that the cloud's metadata gives to a VIF.
    FixedIp,
    /// An address that a DHCP server has leased to a VIF.
    Lease,
    /// An address that the kernel's neighbour table has with a VIF.
    Neighbour,
    /// The address of a PCI device: a link's, a virtual function's, or one that was handed to a guest.
    PciAddress,
    /// The MAC address that a network card was told for a virtual function.
    FunctionMac,
    /// The PID of a process of an instance; told by `vifctl`, which looks into `/proc`.
    Process,
    /// An instance's UUID.
    InstanceUuid,
    /// An instance's integer id.
    InstanceNumber,
    /// An instance's libvirt name.
    InstanceName,
    /// An instance's display name.
    DisplayName,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key<'a> {
    Instance(u32),
    Vif(VifPosition),
    Link(u32),
    Port(&'a str),
}

impl Match {
    /// The VIF, where one matched.
    #[must_use]
    pub fn vif(&self) -> Option<&Vif> {
        self.instance.as_ref()?.vifs.get(self.vif? as usize)
    }
}

impl Inventory {
    /// Everything that `thing` may mean: a device name, MAC address, ifindex, VIF id, IP address, PCI address,
    /// vhost-user socket, instance UUID or name, or an Open vSwitch port: by name, or by number as `BRIDGE:NUMBER`. A
    /// number means a port only together with its bridge; where that is not known, `ofport:NUMBER` finds the port of every
    /// bridge.
    #[must_use]
    pub fn find(&self, thing: &str) -> Vec<Match> {
        let mut found = Found::new(self);
        for index in self.links_by_name.get(thing) {
            found.link(index, MatchedBy::DeviceName);
        }
        if let Ok(index) = thing.parse()
            && self.links.get(index).is_some()
        {
            found.link(index, MatchedBy::Ifindex);
        }
        if let Ok(mac) = thing.parse::<MacAddr>() {
            for position in self.by_key.mac.get(&mac) {
                found.add(Key::Vif(position), MatchedBy::VifMac);
            }
            for index in self.links_by_mac.get(&mac) {
                found.link(index, MatchedBy::DeviceMac);
            }
            let told = |function: &VirtualFunction| function.settings.as_ref().is_some_and(|told| told.mac == mac);
            found.virtual_functions(told, MatchedBy::FunctionMac);
        }
        for position in self.by_key.target.get(thing) {
            let (_, vif) = self.vif(position);
            if vif.device.as_ref().is_none_or(|device| &*device.name != thing) {
                found.add(Key::Vif(position), MatchedBy::Target);
            }
        }
        for position in self.by_key.socket.get(thing) {
            found.add(Key::Vif(position), MatchedBy::Socket);
        }
        let wanted = Wanted::new(thing);
        for port in self.ports.iter() {
            for matched_by in wanted.matches(port) {
                // By its name a link has been found already.
                if matched_by != MatchedBy::OvsPort || self.links_by_name.get(thing).next().is_none() {
                    found.port(port, matched_by);
                }
            }
        }
        if let Ok(id) = thing.parse::<Uuid>() {
            for position in self.by_key.vif_id.get(&id) {
                found.add(Key::Vif(position), MatchedBy::VifId);
            }
            for instance in self.by_key.uuid.get(&id) {
                found.add(Key::Instance(instance), MatchedBy::InstanceUuid);
            }
        }
        if let Ok(address) = thing.parse::<IpAddr>() {
            for position in self.by_address.get(&address) {
                let (_, vif) = self.vif(position);
                for known in vif.addresses.iter().filter(|known| known.address == address) {
                    found.add(Key::Vif(position), known.source.matched_by());
                }
            }
        }
        if let Ok(address) = thing.parse::<PciAddress>() {
            for position in self.by_key.pci.get(&address) {
                found.add(Key::Vif(position), MatchedBy::PciAddress);
            }
            for link in self.links.iter().filter(|link| link.pci == Some(address)) {
                found.link(link.index, MatchedBy::PciAddress);
            }
            found.virtual_functions(|function| function.pci == address, MatchedBy::PciAddress);
        }
        for instance in self.by_key.name.get(thing) {
            found.add(Key::Instance(instance), MatchedBy::InstanceName);
        }
        for (n, instance) in (0..).zip(&self.instances) {
            if instance.display_name.as_deref() == Some(thing) {
                found.add(Key::Instance(n), MatchedBy::DisplayName);
            }
        }
        if let Ok(number) = thing.parse() {
            for instance in self.by_key.number.get(&number) {
                found.add(Key::Instance(instance), MatchedBy::InstanceNumber);
            }
        }
        found.matches(usize::MAX)
    }
}

/// What a text may mean for an Open vSwitch port.
struct Wanted<'a> {
    text: &'a str,
    /// Of any bridge, if the bridge is `ofport`.
    ofport: Option<(&'a str, u16)>,
    id: Option<Uuid>,
    mac: Option<MacAddr>,
}

impl<'a> Wanted<'a> {
    fn new(text: &'a str) -> Self {
        let ofport = text.rsplit_once(':').and_then(|(bridge, ofport)| Some((bridge, ofport.parse().ok()?)));
        Self { text, ofport, id: text.parse().ok(), mac: text.parse().ok() }
    }

    /// By which of its properties this port is meant.
    fn matches(&self, port: &Port) -> impl Iterator<Item = MatchedBy> {
        let is = |text: &Option<Arc<str>>| text.as_deref() == Some(self.text);
        let numbered = self.ofport.is_some_and(|(bridge, ofport)| {
            port.ofport == Some(ofport) && (bridge == "ofport" || port.bridge.as_deref() == Some(bridge))
        });
        let id = port.iface_id.as_ref().filter(|_| self.id.is_some()).and_then(|id| id.parse().ok());
        [
            (*port.name == *self.text, MatchedBy::OvsPort),
            (numbered, MatchedBy::Ofport),
            (is(&port.iface_id) || (id.is_some() && id == self.id), MatchedBy::IfaceId),
            (self.mac.is_some() && port.attached_mac == self.mac, MatchedBy::AttachedMac),
            (is(&port.socket), MatchedBy::Socket),
        ]
        .into_iter()
        .filter_map(|(matches, by)| matches.then_some(by))
    }
}

/// What was found so far.
pub(super) struct Found<'a> {
    inventory: &'a Inventory,
    by: BTreeMap<Key<'a>, Vec<MatchedBy>>,
}

impl<'a> Found<'a> {
    pub(super) fn new(inventory: &'a Inventory) -> Self {
        Self { inventory, by: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.by.len()
    }

    pub(super) fn add(&mut self, key: Key<'a>, matched_by: MatchedBy) {
        let by = self.by.entry(key).or_default();
        if !by.contains(&matched_by) {
            by.push(matched_by);
        }
    }

    /// A port stands for the VIFs that are plugged into it, else for the link that it is, else for itself.
    pub(super) fn port(&mut self, port: &'a Arc<Port>, matched_by: MatchedBy) {
        let inventory = self.inventory;
        let mut plugged = inventory.by_carrier.ovs_port.get(&*port.name).peekable();
        if plugged.peek().is_none() {
            let by_index = || inventory.links.get(port.ifindex?);
            let link = inventory.link_by_name(&port.name).or_else(by_index);
            let link = link.filter(|link| inventory.ports.of_link(link) == Some(port));
            return self.add(link.map_or(Key::Port(&port.name), |link| Key::Link(link.index)), matched_by);
        }
        for position in plugged {
            self.add(Key::Vif(position), matched_by);
        }
    }

    /// A virtual function stands for the VIFs that it is, else for the card that has it.
    fn virtual_functions(&mut self, wanted: impl Fn(&VirtualFunction) -> bool, matched_by: MatchedBy) {
        let inventory = self.inventory;
        let functions = inventory.links.iter().flat_map(|link| link.virtual_functions.iter().map(move |f| (link, f)));
        for (link, function) in functions.filter(|(_, function)| wanted(function)) {
            let mut vifs = inventory.by_key.pci.get(&function.pci).map(Key::Vif).peekable();
            if vifs.peek().is_none() {
                self.add(Key::Link(link.index), matched_by);
            }
            for key in vifs {
                self.add(key, matched_by);
            }
        }
    }

    /// A link stands for the VIFs that it carries, or that are its card's virtual functions; for itself only if there are
    /// none.
    pub(super) fn link(&mut self, index: u32, matched_by: MatchedBy) {
        let Carriers { device, virtual_function, .. } = &*self.inventory.by_carrier;
        let mut carried = device.get(&index).chain(virtual_function.get(&index)).map(Key::Vif).peekable();
        if carried.peek().is_none() {
            self.add(Key::Link(index), matched_by);
        }
        for key in carried {
            self.add(key, matched_by);
        }
    }

    /// The first so many.
    pub(super) fn matches(self, most: usize) -> Vec<Match> {
        let inventory = self.inventory;
        let to_match = |(key, matched_by)| match key {
            Key::Link(index) => {
                let link = inventory.links.get(index);
                let ovs = link.and_then(|link| inventory.ports.of_link(link)).cloned();
                Match { matched_by, link: link.cloned(), ovs, instance: None, vif: None }
            }
            Key::Port(name) => {
                Match { matched_by, link: None, ovs: inventory.ports.by_name(name).cloned(), instance: None, vif: None }
            }
            Key::Instance(n) => Match {
                matched_by,
                link: None,
                ovs: None,
                instance: Some(Arc::clone(&inventory.instances[n as usize])),
                vif: None,
            },
            Key::Vif(position) => {
                let (instance, vif) = inventory.vif(position);
                let link = vif.device.as_ref().and_then(|device| inventory.links.get(device.index));
                Match {
                    matched_by,
                    link: link.cloned(),
                    ovs: inventory.ovs_port(vif).cloned(),
                    instance: Some(Arc::clone(instance)),
                    vif: Some(position.vif),
                }
            }
        };
        self.by.into_iter().take(most).map(to_match).collect()
    }
}

impl fmt::Display for MatchedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeviceName => "device name",
            Self::Ifindex => "ifindex",
            Self::DeviceMac => "MAC address of the device",
            Self::Target => "target in the domain XML",
            Self::Socket => "vhost-user socket",
            Self::OvsPort => "name of the Open vSwitch port",
            Self::Ofport => "number of the Open vSwitch port",
            Self::IfaceId => "iface-id of the Open vSwitch port",
            Self::AttachedMac => "attached-mac of the Open vSwitch port",
            Self::VifMac => "MAC address of the VIF",
            Self::VifId => "VIF id",
            Self::FixedIp => "fixed address in the metadata",
            Self::Lease => "DHCP lease",
            Self::Neighbour => "neighbour table",
            Self::PciAddress => "PCI address",
            Self::FunctionMac => "MAC address of the virtual function",
            Self::Process => "PID",
            Self::InstanceUuid => "instance UUID",
            Self::InstanceNumber => "integer id",
            Self::InstanceName => "instance name",
            Self::DisplayName => "display name",
        })
    }
}
