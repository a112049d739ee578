//! What is told about a single hop.

use std::sync::Arc;

use super::{super::Inventory, FaultCode, Hop, HopKind, ports::is_tunnel};
use crate::source::{
    netlink::link::{Link, LinkKind, OperState},
    ovsdb::rows::Port,
};

/// Whether it only passes frames on: a bridge of either sort.
pub(super) fn is_bridge(hop: &Hop) -> bool {
    hop.kind == HopKind::OvsBridge || (hop.kind == HopKind::Link && hop.sort.as_deref() == Some("bridge"))
}

/// A link, with what Open vSwitch says about it as a port.
pub(super) fn link_hop(inventory: &Inventory, link: &Link) -> Hop {
    let mut hop = Hop {
        sort: Some(link.kind.to_string().into()),
        index: Some(link.index),
        up: Some(link.up),
        oper_state: Some(link.oper_state),
        carrier: link.carrier,
        mtu: Some(link.mtu),
        ..Hop::new(HopKind::Link, Arc::clone(&link.name))
    };
    if !link.up {
        hop.fault(FaultCode::Down, "it is set down: nothing passes");
    } else if link.carrier == Some(false) {
        hop.fault(FaultCode::NoCarrier, "it has no carrier: nothing is at its other end, or that is down");
    } else if !matches!(link.oper_state, OperState::Up | OperState::Unknown) {
        hop.fault(FaultCode::NotOperational, format!("its operational state is: {}", link.oper_state));
    }
    match link.kind {
        LinkKind::Vlan { id } => hop.vlan = Some(format!("VLAN {id}")),
        LinkKind::Vxlan { vni: Some(vni) } => hop.note(format!("VNI {vni}")),
        _ => {}
    }
    if let Some(port) = inventory.ports().of_link(link) {
        hop.vlan = port.vlan().or(hop.vlan);
        switch_error(&mut hop, port);
    }
    hop
}

/// A port that is no link.
pub(super) fn port_hop(port: &Port) -> Hop {
    let mut hop = Hop {
        sort: Some(port.kind[..].into()),
        vlan: port.vlan(),
        ..Hop::new(HopKind::OvsPort, Arc::clone(&port.name))
    };
    if &*port.kind != "patch" && !is_tunnel(&port.kind) {
        (hop.up, hop.carrier, hop.mtu) = (port.admin_up, port.link_up, port.mtu);
        if hop.up == Some(false) {
            hop.fault(FaultCode::Down, "it is set down: nothing passes");
        } else if hop.carrier == Some(false) {
            hop.fault(FaultCode::NoCarrier, "it has no carrier: nothing is at its other end");
        }
    }
    if let Some(remote) = &port.remote {
        hop.note(format!(
            "to {remote}{}",
            port.tunnel_key.as_deref().map(|key| format!(", key {key}")).unwrap_or_default()
        ));
    }
    switch_error(&mut hop, port);
    hop
}

fn switch_error(hop: &mut Hop, port: &Port) {
    if let Some(error) = &port.error {
        hop.fault(FaultCode::SwitchError, format!("Open vSwitch says: {error}"));
    }
}

/// A device that should exist.
pub(super) fn missing(name: &Arc<str>, says: &str) -> Hop {
    let mut hop = Hop::new(HopKind::Link, Arc::clone(name));
    hop.fault(FaultCode::Missing, says);
    hop
}
