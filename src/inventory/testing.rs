//! Inventories for unit tests, joined from domain XML and links as the real ones are.

use std::sync::Arc;

use uuid::Uuid;

use super::{Inventory, View, join};
use crate::{
    config::NameTemplate,
    source::{
        Snapshot, SyncState,
        libvirt::{
            Domains,
            domain::{Domain, DomainState},
        },
        moment::Moment,
        netlink::link::{Link, LinkKind, Links, OperState},
        ovsdb::rows::Port,
    },
};

pub(crate) const WEB: Uuid = Uuid::from_u128(0x874092fe_19a7_44bd_a16a_4fb617bfef7a);
pub(crate) const PORT: Uuid = Uuid::from_u128(0xa756caef_c731_4df1_a814_0dba057b039f);

/// A running Nova instance, `instance-0000002a`, with these interfaces and ports.
pub(crate) fn nova(interfaces: &str, ports: &[Uuid]) -> String {
    let ports: String = ports
        .iter()
        .map(|id| format!("<n:port uuid='{id}'><n:ip type='fixed' address='10.0.0.5' ipVersion='4'/></n:port>"))
        .collect();
    format!(
        "<domain type='kvm' id='3'><name>instance-0000002a</name><uuid>{WEB}</uuid><metadata>
         <n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'><n:name>web</n:name>
         <n:owner><n:user uuid='u1'>alice</n:user><n:project uuid='p1'>shop</n:project></n:owner>
         <n:ports>{ports}</n:ports></n:instance></metadata><devices>{interfaces}</devices></domain>"
    )
}

/// An interface on a bridge, with further elements.
pub(crate) fn bridged(mac: &str, target: &str, more: &str) -> String {
    format!(
        "<interface type='bridge'><mac address='{mac}'/><source bridge='br0'/><target dev='{target}'/>{more}</interface>"
    )
}

pub(crate) fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.into(),
        altnames: vec![],
        kind: LinkKind::Tap { multi_queue: false, persistent: false },
        mac: None,
        mtu: 1500,
        up: true,
        promiscuous: false,
        oper_state: OperState::Up,
        carrier: Some(true),
        controller: None,
        peer: None,
        lower: None,
        pci: None,
        virtual_functions: vec![],
        tx_queues: 1,
        rx_queues: 1,
    }
}

/// An Open vSwitch port on `br-int` that names no VIF.
pub(crate) fn ovs_port(name: &str, ofport: u16) -> Port {
    Port {
        name: name.into(),
        ifindex: None,
        bridge: Some("br-int".into()),
        datapath: Some("netdev".into()),
        bond: None,
        bond_mode: None,
        kind: "system".into(),
        ofport: Some(ofport),
        error: None,
        tag: None,
        trunks: vec![],
        vlan_mode: None,
        network_id: None,
        iface_id: None,
        attached_mac: None,
        vm_uuid: None,
        mac_in_use: None,
        admin_up: None,
        link_up: None,
        mtu: None,
        peer: None,
        socket: None,
        remote: None,
        tunnel_key: None,
        egress: None,
    }
}

/// The same view on a host whose Open vSwitch has these ports.
pub(crate) fn with_ports(view: View, ports: &[Port]) -> View {
    View { ports: Snapshot { data: Arc::new(ports.iter().cloned().map(Arc::new).collect()), sync: synced() }, ..view }
}

pub(crate) fn synced() -> SyncState {
    SyncState::Synced { since: Moment::LONG_AGO }
}

pub(crate) fn stale(reason: &str) -> SyncState {
    SyncState::Stale { since: Moment::LONG_AGO, reason: reason.into() }
}

/// What one hypervisor and the kernel say.
pub(crate) fn view(domains: &[String], links: &[Link]) -> View {
    let known = domains.iter().map(|xml| Domain::decode(xml, DomainState::Running).unwrap());
    let known = known.map(|domain| (domain.uuid, Arc::new(domain))).collect();
    let domains = Snapshot { data: Arc::new(Domains { known, ..Domains::default() }), sync: synced() };
    View {
        links: Snapshot { data: Arc::new(links.iter().cloned().collect::<Links>()), sync: synced() },
        neighbours: Snapshot { data: Arc::default(), sync: synced() },
        ports: Snapshot::absent(),
        leases: Snapshot::absent(),
        hypervisors: vec![("qemu:///system".into(), true, domains)],
    }
}

pub(crate) fn joined(view: &View) -> Inventory {
    join(view, &NameTemplate::default(), &Inventory::default())
}
