//! Which id a VIF has: evidence from several sources, the strongest first.
//!
//! OpenStack's Neutron names its taps after the port (`tap` and the first 11 characters of the port's id), writes the
//! id into the virtualport where libvirt plugs the port, and lists the ports of an instance in Nova's metadata. Each of
//! these is missing on some cloud. Where the device is a port of Open vSwitch, whoever plugged it wrote the id there.

use uuid::Uuid;

use super::{Evidence, VifIdSource};
use crate::source::{
    libvirt::domain::{Domain, Interface},
    ovsdb::rows::Port,
};

/// The ids of ports of this host's domains that begin with the same five bytes as another's: of those, 11 characters are
/// not enough. In order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SharedStarts(Vec<Uuid>);

impl SharedStarts {
    pub(super) fn among<'a>(domains: impl Iterator<Item = &'a Domain>) -> Self {
        let ports = domains.flat_map(|domain| domain.cloud.iter().flat_map(|cloud| &cloud.ports));
        let mut ids: Vec<_> = ports.map(|port| port.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let alike = ids.chunk_by(|a, b| start_of(*a) == start_of(*b)).filter(|alike| alike.len() > 1);
        Self(alike.flatten().copied().collect())
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = Uuid> {
        self.0.iter().copied()
    }
}

fn start_of(id: Uuid) -> [u8; 5] {
    let [a, b, c, d, e, ..] = id.into_bytes();
    [a, b, c, d, e]
}

/// The evidence for the id of the interface at `position`, strongest first, never empty.
///
/// A port that says of itself that it belongs to another instance, such as one that was left behind under a name which
/// libvirt used again, is the weakest evidence and not the strongest.
pub(super) fn evidence(domain: &Domain, position: usize, shared: &SharedStarts, port: Option<&Port>) -> Vec<Evidence> {
    let interface = &domain.interfaces[position];
    let iface_id = port.and_then(|port| port.iface_id.as_deref()?.parse().ok());
    let foreign = port.and_then(|port| port.vm_uuid).is_some_and(|uuid| uuid != domain.uuid);
    let mut evidence = Vec::with_capacity(1);
    let mut add = |source, id: Option<Uuid>| evidence.extend(id.map(|id| Evidence { source, id }));
    add(VifIdSource::Ovsdb, iface_id.filter(|_| !foreign));
    add(VifIdSource::Virtualport, interface.virtualport.as_ref().and_then(|port| port.interface_id));
    add(VifIdSource::TargetName, by_target(domain, interface, shared));
    add(VifIdSource::Alias, interface.alias.as_deref().and_then(|alias| alias.strip_prefix("ua-")?.parse().ok()));
    add(VifIdSource::OnlyPort, only_port(domain));
    if evidence.is_empty() {
        evidence.push(Evidence { source: VifIdSource::Synthetic, id: synthetic(domain, position) });
    }
    evidence.extend(iface_id.filter(|_| foreign).map(|id| Evidence { source: VifIdSource::Ovsdb, id }));
    evidence
}

/// The domain's port whose id the target's name carries after a prefix of three letters (`tap`, `vhu`, `qvo`, …).
fn by_target(domain: &Domain, interface: &Interface, shared: &SharedStarts) -> Option<Uuid> {
    let target = interface.target.as_deref()?;
    let (_, start) = target.split_at_checked(3).filter(|(kind, _)| kind.bytes().all(|b| b.is_ascii_lowercase()))?;
    if start.len() != 11 {
        return None;
    }
    let mut buffer = Uuid::encode_buffer();
    let named = domain.cloud.as_ref()?.ports.iter().map(|port| port.id);
    let mut named = named.filter(|id| id.hyphenated().encode_lower(&mut buffer).starts_with(start));
    named.find(|id| shared.0.binary_search(id).is_err())
}

fn only_port(domain: &Domain) -> Option<Uuid> {
    match (domain.interfaces.as_slice(), domain.cloud.as_ref()?.ports.as_slice()) {
        ([_], [port]) => Some(port.id),
        _ => None,
    }
}

/// Stable over restarts and hosts: version 5, in the namespace of the instance's UUID, of the MAC address, and for
/// the second and later VIFs with the same address of how many came before.
fn synthetic(domain: &Domain, position: usize) -> Uuid {
    let mac = domain.interfaces[position].mac;
    let before = domain.interfaces[..position].iter().filter(|other| other.mac == mac).count();
    let name = if before == 0 { mac.to_string() } else { format!("{mac}/{before}") };
    Uuid::new_v5(&domain.uuid, name.as_bytes())
}
