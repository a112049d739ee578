//! The join: pure, from what all sources say at one moment to one [`Inventory`].

use std::sync::Arc;

use super::{
    Device, Evidence, Hypervisor, Index, Instance, Inventory, NoDevice, Staleness, View, Vif, VifPosition,
    vif_id::{self, PortIds},
};
use crate::{
    config::NameTemplate,
    source::{
        libvirt::{
            Domains, Unreadable,
            domain::{Attachment, Domain, Interface},
        },
        netlink::link::Links,
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
    let devices = Devices { links, links_by_name: &links_by_name, pending: view.links.sync.is_pending() };

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
        links_by_mac: links.iter().filter_map(|link| Some((link.mac?, link.index))).collect(),
        links_by_name,
        links: Arc::clone(links),
        instances,
    }
}

fn never_read(domains: &Domains) -> Vec<uuid::Uuid> {
    domains.unreadable.keys().filter(|uuid| !domains.known.contains_key(uuid)).copied().collect()
}

/// What is needed to find the link of an interface.
struct Devices<'a> {
    links: &'a Links,
    links_by_name: &'a Index<Arc<str>, u32>,
    pending: bool,
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
    let mut evidence = vif_id::evidence(domain, position, port_ids).into_iter();
    let Evidence { source, id } = evidence.next().expect("there is always some evidence");
    let ports = domain.cloud.iter().flat_map(|cloud| &cloud.ports);
    let (device, no_device) = match devices.find(domain, interface) {
        Ok(device) => (Some(device), None),
        Err(reason) => (None, Some(reason)),
    };
    Vif {
        id,
        id_source: source,
        id_disagreement: evidence.filter(|other| other.id != id).collect(),
        interface: interface.clone(),
        fixed_ips: ports.filter(|port| port.id == id).flat_map(|port| port.fixed_ips.iter().cloned()).collect(),
        device,
        no_device,
    }
}

#[cfg(test)]
mod tests;
