//! The join: pure but for the time of changes, from what all sources say at one moment to one [`Inventory`].

use std::{cell::OnceCell, collections::BTreeSet, net::IpAddr, path::Path, sync::Arc};

use uuid::Uuid;

use self::function::Functions;
use super::{
    Address, AddressSource, Carriers, Device, Disagreement, Evidence, Fact, FactSource, Hypervisor, Index, Instance,
    Inventory, Keys, NoDevice, Staleness, View, Vif, VifPosition,
    address::{Sighted, Sightings},
    vif_id::{self, SharedStarts},
};
use crate::{
    config::NameTemplate,
    mac::MacAddr,
    source::{
        libvirt::{
            Domains, Unreadable,
            domain::{Attachment, Domain, Interface},
        },
        moment::Moment,
        netlink::link::{Link, LinkKind, Links},
        ovsdb::rows::{Port, Ports},
    },
};

mod function;

/// Joins what the sources say. A record that is as it was in `previous` is the same record, with its revision.
///
/// Most joins differ from the one before by one link or one domain. What is made of the same things as in `previous`
/// (by the same `template`) is therefore taken from there, which saves most of the time and changes nothing.
#[must_use]
pub fn join(view: &View, template: &NameTemplate, previous: &Inventory) -> Inventory {
    let generation = previous.generation + 1;
    let (links, ports) = (&view.links.data, &view.ports.data);
    let difference = Difference::between(&previous.links, links);
    let links_by_name = if difference.has(|link| (&link.name, &link.altnames)) {
        let new = difference.new.iter().flat_map(|link| names(link).map(|name| (Arc::clone(name), link.index)));
        Arc::new(previous.links_by_name.changed(|index| difference.is_old(index), new))
    } else {
        Arc::clone(&previous.links_by_name)
    };
    let links_by_mac = if difference.has(|link| link.mac) {
        let new = difference.new.iter().filter_map(|link| Some((link.mac?, link.index)));
        Arc::new(previous.links_by_mac.changed(|index| difference.is_old(index), new))
    } else {
        Arc::clone(&previous.links_by_mac)
    };

    let domains: Vec<_> = view.hypervisors.iter().map(|(uri, _, s)| (Arc::clone(uri), Arc::clone(&s.data))).collect();
    let same_domains = domains.len() == previous.origin.domains.len()
        && domains.iter().zip(&previous.origin.domains).all(|(a, b)| a.0 == b.0 && Arc::ptr_eq(&a.1, &b.1));
    let shared = if same_domains {
        previous.origin.shared.clone()
    } else {
        SharedStarts::among(domains.iter().flat_map(|(_, domains)| domains.known.values().map(Arc::as_ref)))
    };

    let pending = view.links.sync.is_pending();
    let same_pending = previous.netlink.as_ref().is_some_and(|sync| sync.is_pending() == pending);
    let same_ports = Arc::ptr_eq(ports, &previous.ports) && (ports.is_empty() || difference.is_empty());
    let same_segments = same_ports && !difference.has(|link| (&link.kind, link.controller, link.peer, link.lower));
    let sightings = previous.origin.sightings.next(view, same_segments);
    let touched = || {
        let mut touched = difference.touched(previous);
        let mut macs = sightings.changed_since(&previous.origin.sightings);
        if !same_segments || difference.has(|link| &link.name) {
            macs.extend(sightings.macs());
        }
        touched.extend(macs.iter().flat_map(|mac| previous.by_key.mac.get(mac)).map(|position| position.instance));
        touched
    };
    let joint = Joint {
        generation,
        now: Moment::now(),
        template,
        shared: &shared,
        same_shared: shared == previous.origin.shared,
        devices: Devices {
            links,
            links_by_name: &links_by_name,
            pending,
            switch: Switch::new(ports, links),
            functions: Functions::new(links),
        },
        sighted: Sighted { sightings: &sightings, links, links_by_name: &links_by_name, ports },
        touched: (same_pending && same_ports).then(touched),
        previous,
    };
    let (instances, origins): (Vec<_>, Arc<[_]>) = if same_domains {
        ((0..previous.instances.len()).map(|n| joint.again(n)).collect(), Arc::clone(&previous.origin.instances))
    } else {
        let (instances, origins): (_, Vec<_>) =
            domains.iter().flat_map(|(uri, domains)| joint.instances(uri, domains)).unzip();
        (instances, origins.into())
    };

    let pairs = || instances.iter().zip(&previous.instances);
    let same_length = instances.len() == previous.instances.len();
    let same_instances = same_length && pairs().all(|(a, b)| Arc::ptr_eq(a, b));
    let same =
        |is: fn(&Instance, &Instance) -> bool| same_length && pairs().all(|(a, b)| Arc::ptr_eq(a, b) || is(a, b));
    let (same_keys, same_addresses) = (same(has_same_keys), same(has_same_addresses));
    Inventory {
        generation,
        netlink: Some(view.links.sync.clone()),
        neighbours: Some(view.neighbours.sync.clone()),
        ovsdb: Some(view.ports.sync.clone()),
        leases: Some(view.leases.sync.clone()),
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
        by_key: if same_keys { Arc::clone(&previous.by_key) } else { Arc::new(Keys::of(&instances)) },
        by_carrier: if same_instances { Arc::clone(&previous.by_carrier) } else { Arc::new(Carriers::of(&instances)) },
        by_address: if same_addresses { Arc::clone(&previous.by_address) } else { Arc::new(by_address(&instances)) },
        links_by_name,
        links_by_mac,
        links: Arc::clone(links),
        ports: Arc::clone(ports),
        instances,
        origin: Origin { domains, instances: origins, shared, sightings },
    }
}

/// What an inventory was made from, for the next to tell what is still the same.
#[derive(Debug, Default)]
pub(super) struct Origin {
    domains: Vec<(Arc<str>, Arc<Domains>)>,
    /// The domain of each of the instances.
    instances: Arc<[Arc<Domain>]>,
    pub(super) shared: SharedStarts,
    sightings: Sightings,
}

/// What a host's links were and are, where that differs.
struct Difference<'a> {
    old: Vec<&'a Arc<Link>>,
    new: Vec<&'a Arc<Link>>,
}

impl<'a> Difference<'a> {
    fn between(before: &'a Links, now: &'a Links) -> Self {
        Self { old: before.not_in(now), new: now.not_in(before) }
    }

    fn is_empty(&self) -> bool {
        self.old.is_empty() && self.new.is_empty()
    }

    fn is_old(&self, index: u32) -> bool {
        self.old.binary_search_by_key(&index, |link| link.index).is_ok()
    }

    /// Whether this property of any link is among what differs.
    fn has<T: PartialEq>(&self, property: impl Fn(&'a Link) -> T) -> bool {
        let of = |link: &&'a Arc<Link>| (link.index, property(link));
        !self.old.iter().map(of).eq(self.new.iter().map(of))
    }

    /// The positions of the instances whose VIFs may be carried by other links now: those whose targets are names that
    /// mean another link, or which were handed a device that such a link knows of. (Where there is an Open vSwitch, more
    /// than that matters.)
    fn touched(&self, previous: &Inventory) -> BTreeSet<u32> {
        let links = || self.old.iter().chain(&self.new);
        let functions = links().flat_map(|link| &link.virtual_functions).map(|function| function.pci);
        let addresses = functions.chain(links().filter_map(|link| link.pci));
        let handed = addresses.flat_map(|address| previous.by_key.pci.get(&address));
        let renamed = self.has(|link| (&link.name, &link.altnames));
        let names = links().filter(|_| renamed).flat_map(|link| names(link));
        let carried = names.flat_map(|name| previous.by_key.target.get(name));
        handed.chain(carried).map(|position| position.instance).collect()
    }
}

/// One join.
struct Joint<'a> {
    generation: u64,
    /// When what differs from before was seen.
    now: Moment,
    template: &'a NameTemplate,
    shared: &'a SharedStarts,
    same_shared: bool,
    devices: Devices<'a>,
    sighted: Sighted<'a>,
    /// The positions in the previous inventory of those instances whose VIFs may be carried or addressed differently now;
    /// absent where that may be any.
    touched: Option<BTreeSet<u32>>,
    previous: &'a Inventory,
}

impl Joint<'_> {
    /// The instances of a hypervisor, by name, each with the domain that it is made from.
    fn instances(&self, uri: &Arc<str>, domains: &Domains) -> Vec<(Arc<Instance>, Arc<Domain>)> {
        let mut instances = Vec::with_capacity(domains.known.len());
        for (uuid, domain) in &domains.known {
            let unreadable = domains.unreadable.get(uuid).map(Staleness::from);
            let mut before = self.previous.by_key.uuid.get(uuid).map(|n| n as usize);
            let before = before.find(|n| self.previous.instances[*n].hypervisor == *uri);
            instances.push((self.instance(uri, domain, unreadable, before), Arc::clone(domain)));
        }
        instances.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        instances
    }

    /// The instance that was at this position, and whose domain is as it was.
    fn again(&self, n: usize) -> Arc<Instance> {
        let before = &self.previous.instances[n];
        if !self.may_differ(n) {
            // Not even looked at: with thousands of them, memory is what takes the time.
            return Arc::clone(before);
        }
        self.instance(&before.hypervisor, &self.previous.origin.instances[n], before.unreadable.clone(), Some(n))
    }

    /// The instance of this domain, which was at the position `before`.
    fn instance(
        &self,
        uri: &Arc<str>,
        domain: &Arc<Domain>,
        unreadable: Option<Staleness>,
        before: Option<usize>,
    ) -> Arc<Instance> {
        let Some(n) = before else { return Arc::new(self.make(uri, domain, unreadable)) };
        let before = &self.previous.instances[n];
        if Arc::ptr_eq(domain, &self.previous.origin.instances[n])
            && unreadable == before.unreadable
            && self.same_shared
            && (!self.may_differ(n) || self.is_found_alike(before, domain))
        {
            return Arc::clone(before);
        }
        let (Instance { revision, changed, .. }, fresh) = (&**before, self.make(uri, domain, unreadable));
        let unchanged = Instance { revision: *revision, changed: *changed, ..fresh };
        if **before == unchanged {
            return Arc::clone(before);
        }
        Arc::new(Instance { revision: self.generation, changed: self.now, ..unchanged })
    }

    fn may_differ(&self, n: usize) -> bool {
        self.touched.as_ref().is_none_or(|touched| u32::try_from(n).is_ok_and(|n| touched.contains(&n)))
    }

    /// Whether each VIF still has the link, the port and the addresses that it would be given now.
    fn is_found_alike(&self, before: &Instance, domain: &Domain) -> bool {
        before.vifs.iter().zip(&domain.interfaces).all(|(vif, interface)| {
            let (device, no_device) = self.devices.find(domain, interface);
            let port = self.devices.switch.find(domain, interface, device.as_ref());
            device == vif.device
                && no_device == vif.no_device
                && port.map(Arc::as_ptr) == self.previous.ovs_port(vif).map(Arc::as_ptr)
                && self.devices.functions.find(interface) == vif.virtual_function
                && vif
                    .addresses
                    .iter()
                    .filter(|address| address.source != AddressSource::Metadata)
                    .eq(&self.sighted.addresses(interface, device.as_ref(), port.map(Arc::as_ref)))
        })
    }

    fn make(&self, uri: &Arc<str>, domain: &Domain, unreadable: Option<Staleness>) -> Instance {
        let cloud = domain.cloud.as_ref();
        Instance {
            uuid: domain.uuid,
            name: Arc::clone(&domain.name),
            number: self.template.number(&domain.name),
            libvirt_id: domain.id,
            display_name: cloud.and_then(|cloud| cloud.display_name.clone()).or_else(|| domain.title.clone()),
            project: cloud.and_then(|cloud| cloud.project.clone()),
            user: cloud.and_then(|cloud| cloud.user.clone()),
            manager: cloud.map(|cloud| cloud.manager),
            state: domain.state,
            migration: domain.migration,
            hypervisor: Arc::clone(uri),
            hypervisor_type: Arc::clone(&domain.kind),
            revision: self.generation,
            changed: self.now,
            unreadable,
            process: domain.process,
            warnings: domain.warnings.clone(),
            persistent: domain.persistent,
            defined_only: domain.defined_only.clone(),
            vifs: (0..domain.interfaces.len()).map(|n| self.vif(domain, n)).collect(),
        }
    }

    fn vif(&self, domain: &Domain, position: usize) -> Vif {
        let interface = &domain.interfaces[position];
        let (device, no_device) = self.devices.find(domain, interface);
        let ovs_port = self.devices.switch.find(domain, interface, device.as_ref()).map(Arc::as_ref);
        let virtual_function = self.devices.functions.find(interface);
        let mut disagreements = ovs_port.map(|port| disagreements(domain, interface, port)).unwrap_or_default();
        if let Some(function) = virtual_function.as_ref().filter(|_| domain.is_active()) {
            disagreements.extend(function::disagreements(interface, function));
        }
        let mut evidence = vif_id::evidence(domain, position, self.shared, ovs_port).into_iter();
        let Evidence { source, id } = evidence.next().expect("there is always some evidence");
        let ports = domain.cloud.iter().flat_map(|cloud| &cloud.ports).filter(|port| port.id == id);
        let fixed = ports.flat_map(|port| &port.fixed_ips);
        let fixed = fixed.map(|ip| Address { source: AddressSource::Metadata, address: ip.address });
        Vif {
            id,
            id_source: source,
            id_disagreement: evidence.filter(|other| other.id != id).collect(),
            network_id: ovs_port
                .filter(|port| port.vm_uuid.is_none_or(|uuid| uuid == domain.uuid))
                .and_then(|p| p.network_id),
            disagreements,
            interface: interface.clone(),
            addresses: fixed.chain(self.sighted.addresses(interface, device.as_ref(), ovs_port)).collect(),
            device,
            no_device,
            virtual_function,
            ovs_port: ovs_port.map(|port| Arc::clone(&port.name)),
        }
    }
}

/// Whether both, and their VIFs, are found by the same keys.
fn has_same_keys(a: &Instance, b: &Instance) -> bool {
    fn keys(vif: &Vif) -> impl PartialEq {
        let Interface { mac, target, .. } = &vif.interface;
        (vif.id, mac, target, vif.interface.pci(), vif.interface.socket())
    }
    let mut vifs = a.vifs.iter().zip(&b.vifs);
    (a.uuid, a.number, &a.name, a.vifs.len()) == (b.uuid, b.number, &b.name, b.vifs.len())
        && vifs.all(|(a, b)| keys(a) == keys(b))
}

/// Whether the VIFs of both have the same addresses, whoever says so.
fn has_same_addresses(a: &Instance, b: &Instance) -> bool {
    let of = |instance: &'_ Instance| -> Vec<Vec<_>> {
        instance.vifs.iter().map(|vif| vif.addresses.iter().map(|address| address.address).collect()).collect()
    };
    of(a) == of(b)
}

fn by_address(instances: &[Arc<Instance>]) -> Index<IpAddr, VifPosition> {
    let addresses = |(vif, position): (&Vif, _)| -> Vec<_> {
        vif.addresses.iter().map(|address| (address.address, position)).collect()
    };
    positions(instances).flat_map(addresses).collect()
}

impl Keys {
    fn of(instances: &[Arc<Instance>]) -> Self {
        let numbered = || (0u32..).zip(instances);
        let vifs = || positions(instances);
        Self {
            uuid: numbered().map(|(n, instance)| (instance.uuid, n)).collect(),
            number: numbered().filter_map(|(n, instance)| Some((instance.number?, n))).collect(),
            name: numbered().map(|(n, instance)| (Arc::clone(&instance.name), n)).collect(),
            vif_id: vifs().map(|(vif, position)| (vif.id, position)).collect(),
            mac: vifs().map(|(vif, position)| (vif.interface.mac, position)).collect(),
            target: vifs().filter_map(|(vif, at)| Some((Arc::clone(vif.interface.target.as_ref()?), at))).collect(),
            pci: vifs().filter_map(|(vif, position)| Some((vif.interface.pci()?, position))).collect(),
            socket: vifs().filter_map(|(vif, position)| Some((vif.interface.socket()?.clone(), position))).collect(),
        }
    }
}

impl Carriers {
    fn of(instances: &[Arc<Instance>]) -> Self {
        let vifs = || positions(instances);
        Self {
            device: vifs().filter_map(|(vif, position)| Some((vif.device.as_ref()?.index, position))).collect(),
            ovs_port: vifs().filter_map(|(vif, position)| Some((vif.ovs_port.clone()?, position))).collect(),
            virtual_function: vifs()
                .filter_map(|(vif, position)| Some((vif.virtual_function.as_ref()?, position)))
                .flat_map(|(function, position)| {
                    let own = function.link.as_ref().map(|link| link.index);
                    own.into_iter().chain([function.physical_function.index]).map(move |index| (index, position))
                })
                .collect(),
        }
    }
}

pub(super) fn positions(instances: &[Arc<Instance>]) -> impl Iterator<Item = (&Vif, VifPosition)> {
    (0..).zip(instances).flat_map(|(instance, record)| {
        (0..).zip(&record.vifs).map(move |(vif, record)| (record, VifPosition { instance, vif }))
    })
}

pub(super) fn names(link: &Link) -> impl Iterator<Item = &Arc<str>> {
    link.altnames.iter().chain([&link.name])
}

impl From<&Unreadable> for Staleness {
    fn from(unreadable: &Unreadable) -> Self {
        Self { since: unreadable.since, reason: Arc::clone(&unreadable.reason) }
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
    functions: Functions<'a>,
}

impl Devices<'_> {
    /// The link that carries the interface, or why there is none.
    fn find(&self, domain: &Domain, interface: &Interface) -> (Option<Device>, Option<NoDevice>) {
        match self.link(domain, interface) {
            Ok(link) => (Some(Device { index: link.index, name: Arc::clone(&link.name) }), None),
            Err(reason) => (None, Some(reason)),
        }
    }

    fn link(&self, domain: &Domain, interface: &Interface) -> Result<&Link, NoDevice> {
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
            Some(link) => Ok(link),
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
    fn find(&self, domain: &Domain, interface: &Interface, device: Option<&Device>) -> Option<&'a Arc<Port>> {
        if self.ports.is_empty() || !domain.is_active() {
            return None;
        }
        match device.and_then(|device| self.links.get(device.index)) {
            Some(link) => self.ports.of_link(link).or_else(|| self.beyond_bridge(link, interface)),
            None => self.without_link(domain, interface),
        }
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

#[cfg(test)]
mod tests;
