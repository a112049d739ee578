//! The join: pure, from what all sources say at one moment to one [`Inventory`].

use std::{cell::OnceCell, path::Path, sync::Arc};

use uuid::Uuid;

use super::{
    Device, Disagreement, Evidence, Fact, FactSource, Hypervisor, Index, Instance, Inventory, NoDevice, Staleness,
    View, Vif, VifPosition,
    vif_id::{self, PortIds},
};
use crate::{
    config::NameTemplate,
    mac::MacAddr,
    source::{
        libvirt::{
            Domains, Unreadable,
            domain::{Attachment, Domain, Interface},
        },
        netlink::link::{Link, LinkKind, Links},
        ovsdb::rows::{Port, Ports},
    },
};

/// Joins what the sources say. A record that is as it was in `previous` is the same record, with its revision.
#[must_use]
pub fn join(view: &View, template: &NameTemplate, previous: &Inventory) -> Inventory {
    let generation = previous.generation + 1;
    let links = &view.links.data;
    let links_by_name: Index<Arc<str>, u32> = links
        .iter()
        .flat_map(|link| link.altnames.iter().chain([&link.name]).map(|name| (Arc::clone(name), link.index)))
        .collect();
    let port_ids = PortIds::new(view.hypervisors.iter().flat_map(|(.., s)| s.data.known.values().map(Arc::as_ref)));
    let devices = Devices {
        links,
        links_by_name: &links_by_name,
        pending: view.links.sync.is_pending(),
        switch: Switch::new(&view.ports.data, links),
    };

    let mut instances = Vec::with_capacity(previous.instances.len());
    for (uri, _, snapshot) in &view.hypervisors {
        let first = instances.len();
        for domain in snapshot.data.known.values() {
            let unreadable = snapshot.data.unreadable.get(&domain.uuid);
            let mut instance = instance(uri, domain, unreadable, template, &port_ids, &devices);
            let mut before = previous.by_uuid.get(&domain.uuid).map(|n| &previous.instances[n as usize]);
            let before = before.find(|before| before.hypervisor == *uri);
            instance.revision = before.map_or(generation, |before| before.revision);
            instances.push(match before {
                Some(before) if **before == instance => Arc::clone(before),
                _ => Arc::new(Instance { revision: generation, ..instance }),
            });
        }
        instances[first..].sort_by(|a, b| a.name.cmp(&b.name));
    }

    let numbered = || (0u32..).zip(&instances);
    let vifs = || {
        numbered().flat_map(|(n, instance)| {
            (0u32..).zip(&instance.vifs).map(move |(vif, v)| (v, VifPosition { instance: n, vif }))
        })
    };
    Inventory {
        generation,
        netlink: Some(view.links.sync.clone()),
        ovsdb: Some(view.ports.sync.clone()),
        hypervisors: view
            .hypervisors
            .iter()
            .map(|(uri, optional, s)| Hypervisor {
                uri: Arc::clone(uri),
                optional: *optional,
                sync: s.sync.clone(),
                unread: never_read(&s.data),
            })
            .collect(),
        by_uuid: numbered().map(|(n, instance)| (instance.uuid, n)).collect(),
        by_number: numbered().filter_map(|(n, instance)| Some((instance.number?, n))).collect(),
        by_name: numbered().map(|(n, instance)| (Arc::clone(&instance.name), n)).collect(),
        by_vif_id: vifs().map(|(vif, position)| (vif.id, position)).collect(),
        by_mac: vifs().map(|(vif, position)| (vif.interface.mac, position)).collect(),
        by_device: vifs().filter_map(|(vif, position)| Some((vif.device.as_ref()?.index, position))).collect(),
        by_target: vifs()
            .filter_map(|(vif, position)| Some((Arc::clone(vif.interface.target.as_ref()?), position)))
            .collect(),
        by_fixed_ip: vifs()
            .flat_map(|(vif, position)| vif.fixed_ips.iter().map(move |ip| (ip.address, position)))
            .collect(),
        by_pci: vifs().filter_map(|(vif, position)| Some((vif.interface.pci()?, position))).collect(),
        by_socket: vifs().filter_map(|(vif, position)| Some((vif.interface.socket()?.clone(), position))).collect(),
        by_ovs_port: vifs().filter_map(|(vif, position)| Some((vif.ovs_port.clone()?, position))).collect(),
        links_by_mac: links.iter().filter_map(|link| Some((link.mac?, link.index))).collect(),
        links_by_name,
        links: Arc::clone(links),
        ports: Arc::clone(&view.ports.data),
        instances,
    }
}

fn never_read(domains: &Domains) -> Vec<Uuid> {
    domains.unreadable.keys().filter(|uuid| !domains.known.contains_key(uuid)).copied().collect()
}

/// What is needed to find the link of an interface.
struct Devices<'a> {
    links: &'a Links,
    links_by_name: &'a Index<Arc<str>, u32>,
    pending: bool,
    switch: Switch<'a>,
}

impl Devices<'_> {
    fn find(&self, domain: &Domain, interface: &Interface) -> Result<Device, NoDevice> {
        if !domain.is_active() {
            return Err(NoDevice::NotRunning);
        }
        match interface.attachment {
            Attachment::Bridge { .. } | Attachment::Network { .. } | Attachment::Ethernet => {}
            Attachment::Direct { .. } if &*domain.kind == "lxc" => return Err(NoDevice::InContainer),
            Attachment::Direct { .. } => {}
            Attachment::Vhostuser { .. } => return Err(NoDevice::VhostUser),
            Attachment::Hostdev { .. } => return Err(NoDevice::PassedThrough),
            Attachment::Vdpa { .. } => return Err(NoDevice::Vdpa),
            Attachment::Other { .. } => return Err(NoDevice::TypeHasNone),
        }
        let target = interface.target.as_deref().ok_or(NoDevice::NoTarget)?;
        let link = self.links_by_name.get(target).find_map(|index| self.links.get(index));
        match link {
            Some(link) => Ok(Device { index: link.index, name: Arc::clone(&link.name) }),
            None if self.pending => Err(NoDevice::LinksPending),
            None => Err(NoDevice::TargetMissing),
        }
    }
}

/// What is needed to find the Open vSwitch port of an interface. Indexes are made when they are first needed: most
/// hosts need none of them.
struct Switch<'a> {
    ports: &'a Ports,
    links: &'a Links,
    enslaved: OnceCell<Index<u32, u32>>,
    by_socket: OnceCell<Index<&'a str, &'a str>>,
    by_claim: OnceCell<Index<(Uuid, MacAddr), &'a str>>,
}

impl<'a> Switch<'a> {
    fn new(ports: &'a Ports, links: &'a Links) -> Self {
        Self { ports, links, enslaved: OnceCell::new(), by_socket: OnceCell::new(), by_claim: OnceCell::new() }
    }

    /// The links that have this controller.
    fn enslaved(&self, controller: u32) -> impl Iterator<Item = &'a Arc<Link>> {
        let pairs = || self.links.iter().filter_map(|link| Some((link.controller?, link.index))).collect();
        let links = self.links;
        self.enslaved.get_or_init(pairs).get(&controller).filter_map(move |index| links.get(index))
    }

    /// The port that uses this vhost-user socket.
    fn by_socket(&self, socket: &str) -> Option<&'a Arc<Port>> {
        let pairs = || self.ports.iter().filter_map(|port| Some((port.socket.as_deref()?, &*port.name))).collect();
        self.by_socket.get_or_init(pairs).get(socket).find_map(|name| self.ports.by_name(name))
    }

    /// The only port that says that it belongs to this VIF.
    fn by_claim(&self, instance: Uuid, mac: MacAddr) -> Option<&'a Arc<Port>> {
        let claim = |port: &'a Arc<Port>| Some(((port.vm_uuid?, port.attached_mac?), &*port.name));
        let claims = self.by_claim.get_or_init(|| self.ports.iter().filter_map(claim).collect());
        let mut claims = claims.get(&(instance, mac));
        claims.next().filter(|_| claims.next().is_none()).and_then(|name| self.ports.by_name(name))
    }

    /// The port that the interface is plugged into.
    fn find(&self, domain: &Domain, interface: &Interface, device: Option<&Device>) -> Option<&'a Port> {
        if self.ports.is_empty() || !domain.is_active() {
            return None;
        }
        let port = match device.and_then(|device| self.links.get(device.index)) {
            Some(link) => self.ports.of_link(link).or_else(|| self.beyond_bridge(link, interface)),
            None => self.without_link(domain, interface),
        };
        port.map(Arc::as_ref)
    }

    /// OpenStack's hybrid plug: the tap is on a Linux bridge of its own (`qbr…`) together with one end (`qvb…`) of a
    /// veth pair, the other end of which (`qvo…`) is the port. Names do not matter here; that the port names its VIF
    /// does, and that nobody else is on the bridge, or else that the port names this VIF's address: a bridge with many
    /// taps and an uplink into Open vSwitch is something else.
    fn beyond_bridge(&self, link: &Link, interface: &Interface) -> Option<&'a Arc<Port>> {
        let bridge = self.links.get(link.controller?).filter(|bridge| bridge.kind == LinkKind::Bridge)?;
        let alone = self.enslaved(bridge.index).count() == 2;
        self.enslaved(bridge.index)
            .filter_map(|link| self.links.get(link.peer.filter(|peer| peer.netns.is_none())?.index))
            .filter_map(|peer| self.ports.of_link(peer).filter(|port| port.iface_id.is_some()))
            .find(|port| alone || port.attached_mac == Some(interface.mac))
    }

    /// A port for which the kernel has no link: by its name, which libvirt knows as the target; by its vhost-user
    /// socket; or as the only one that claims to be this interface's, as the representor of a PCI device does.
    fn without_link(&self, domain: &Domain, interface: &Interface) -> Option<&'a Arc<Port>> {
        if let Some(port) = interface.target.as_deref().and_then(|target| self.ports.by_name(target)) {
            return Some(port);
        }
        match &interface.attachment {
            Attachment::Vhostuser { .. } => {
                let socket = interface.socket()?;
                // A switch that makes the socket itself calls it after the port.
                let by_file_name = || {
                    let name = Path::new(&**socket).file_name()?.to_str()?;
                    self.ports.by_name(name).filter(|port| &*port.kind == "dpdkvhostuser")
                };
                self.by_socket(socket).or_else(by_file_name)
            }
            Attachment::Hostdev { .. } | Attachment::Vdpa { .. } => self.by_claim(domain.uuid, interface.mac),
            _ => None,
        }
    }
}

/// What the port says about itself that the domain's description says otherwise.
fn disagreements(domain: &Domain, interface: &Interface, port: &Port) -> Vec<Disagreement> {
    let mut disagreements = Vec::new();
    let mut add = |what, value: String| {
        disagreements.push(Disagreement { what, source: FactSource::Ovsdb, value: value.into() });
    };
    if let Some(mac) = port.attached_mac.filter(|mac| *mac != interface.mac) {
        add(Fact::MacAddress, mac.to_string());
    }
    if let Some(uuid) = port.vm_uuid.filter(|uuid| *uuid != domain.uuid) {
        add(Fact::Instance, uuid.to_string());
    }
    // Behind a Linux bridge libvirt knows that one, and rightly so.
    let direct = interface.target.as_ref() == Some(&port.name);
    if let Attachment::Bridge { bridge: Some(described), .. } | Attachment::Network { bridge: Some(described), .. } =
        &interface.attachment
        && let Some(bridge) = port.bridge.as_ref().filter(|bridge| direct && *bridge != described)
    {
        add(Fact::Bridge, bridge.to_string());
    }
    disagreements
}

fn instance(
    uri: &Arc<str>,
    domain: &Domain,
    unreadable: Option<&Unreadable>,
    template: &NameTemplate,
    port_ids: &PortIds,
    devices: &Devices,
) -> Instance {
    let cloud = domain.cloud.as_ref();
    Instance {
        uuid: domain.uuid,
        name: Arc::clone(&domain.name),
        number: template.number(&domain.name),
        libvirt_id: domain.id,
        display_name: cloud.and_then(|cloud| cloud.display_name.clone()).or_else(|| domain.title.clone()),
        project: cloud.and_then(|cloud| cloud.project.clone()),
        user: cloud.and_then(|cloud| cloud.user.clone()),
        manager: cloud.map(|cloud| cloud.manager),
        state: domain.state,
        migration: domain.migration,
        hypervisor: Arc::clone(uri),
        hypervisor_type: Arc::clone(&domain.kind),
        revision: 0,
        unreadable: unreadable.map(|u| Staleness { since: u.since, reason: Arc::clone(&u.reason) }),
        warnings: domain.warnings.clone(),
        vifs: (0..domain.interfaces.len()).map(|position| vif(domain, position, port_ids, devices)).collect(),
    }
}

fn vif(domain: &Domain, position: usize, port_ids: &PortIds, devices: &Devices) -> Vif {
    let interface = &domain.interfaces[position];
    let (device, no_device) = match devices.find(domain, interface) {
        Ok(device) => (Some(device), None),
        Err(reason) => (None, Some(reason)),
    };
    let ovs_port = devices.switch.find(domain, interface, device.as_ref());
    let mut evidence = vif_id::evidence(domain, position, port_ids, ovs_port).into_iter();
    let Evidence { source, id } = evidence.next().expect("there is always some evidence");
    let ports = domain.cloud.iter().flat_map(|cloud| &cloud.ports);
    Vif {
        id,
        id_source: source,
        id_disagreement: evidence.filter(|other| other.id != id).collect(),
        disagreements: ovs_port.map(|port| disagreements(domain, interface, port)).unwrap_or_default(),
        interface: interface.clone(),
        fixed_ips: ports.filter(|port| port.id == id).flat_map(|port| port.fixed_ips.iter().cloned()).collect(),
        device,
        no_device,
        ovs_port: ovs_port.map(|port| Arc::clone(&port.name)),
    }
}

#[cfg(test)]
mod tests;
