//! Whose an address is, and who says so.

use std::net::IpAddr;

use jiff::Timestamp;

use super::*;
use crate::{
    inventory::testing::{ovs_port, synced, with_ports},
    source::{
        leases::{Lease, Leases},
        netlink::{
            link::LinkRef,
            neighbour::{Neighbour, Neighbours},
        },
    },
};

const OTHER_MAC: &str = "fa:16:3e:00:00:02";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn neighbour(index: u32, address: &str, mac: &str) -> (u32, IpAddr, Neighbour) {
    (index, ip(address), Neighbour { mac: mac.parse().unwrap(), permanent: false })
}

fn lease(bridge: &str, address: &str, mac: &str) -> Lease {
    let (mac, bridge) = (mac.parse().unwrap(), bridge.into());
    Lease { mac, bridge, address: ip(address), expires: None, hostname: Some("web".into()) }
}

fn seen(view: View, neighbours: &[(u32, IpAddr, Neighbour)], leases: &[Lease]) -> View {
    let neighbours: Neighbours = neighbours.iter().copied().collect();
    let leases: Leases = leases.iter().cloned().collect();
    View {
        neighbours: Snapshot { data: Arc::new(neighbours), sync: synced() },
        leases: Snapshot { data: Arc::new(leases), sync: synced() },
        ..view
    }
}

fn bridge(index: u32, name: &str) -> Link {
    Link { kind: LinkKind::Bridge, ..link(index, name) }
}

fn on(link: Link, controller: u32) -> Link {
    Link { controller: Some(controller), ..link }
}

fn physical(index: u32, name: &str) -> Link {
    Link { kind: LinkKind::Physical, ..link(index, name) }
}

fn upon(kind: LinkKind, index: u32, name: &str, lower: u32) -> Link {
    Link { kind, lower: Some(LinkRef { index: lower, netns: None }), ..link(index, name) }
}

fn vlan(index: u32, name: &str, lower: u32) -> Link {
    upon(LinkKind::Vlan { id: 100 }, index, name, lower)
}

fn veth(near: Link, far: Link) -> [Link; 2] {
    let end = |near: &Link, far: &Link| {
        let peer = Some(LinkRef { index: far.index, netns: None });
        Link { kind: LinkKind::Veth, peer, ..near.clone() }
    };
    [end(&near, &far), end(&far, &near)]
}

fn says(vif: &Vif) -> Vec<String> {
    let source = |address: &Address| match &address.source {
        AddressSource::Metadata => "metadata".to_owned(),
        AddressSource::Lease { bridge, .. } => format!("lease of {bridge}"),
        AddressSource::Neighbour { device, .. } => format!("neighbour on {}", device.name),
    };
    vif.addresses.iter().map(|address| format!("{} {}", address.address, source(address))).collect()
}

/// The names of those of these links on which a neighbour with the VIF's MAC address is taken for the VIF.
fn taken_for_the_vif(links: &[Link], ports: &[Port]) -> Vec<String> {
    let everywhere: Vec<_> = links.iter().map(|link| neighbour(link.index, "10.0.0.9", MAC)).collect();
    let view = with_ports(view(&[nova(&bridged(MAC, TAP, ""), &[])], links), ports);
    let inventory = joined(&seen(view, &everywhere, &[]));
    let device = |address: &Address| match &address.source {
        AddressSource::Neighbour { device, .. } => device.name.to_string(),
        other => panic!("{other:?}"),
    };
    only_vif(&inventory).addresses.iter().map(device).collect()
}

#[test]
fn each_source_is_listed_for_itself_and_leads_to_the_vif() {
    let view = view(&[nova(&bridged(MAC, TAP, ""), &[PORT])], &[bridge(1, "br0"), on(link(7, TAP), 1)]);
    let neighbours = [neighbour(1, "10.0.0.5", MAC), neighbour(1, "fe80::5", MAC), neighbour(1, "10.0.0.6", OTHER_MAC)];
    let leases = [lease("br0", "10.0.0.8", MAC), lease("br0", "10.0.0.6", OTHER_MAC), lease("br9", "10.0.0.4", MAC)];
    let inventory = joined(&seen(view, &neighbours, &leases));
    let expected =
        ["10.0.0.5 metadata", "10.0.0.8 lease of br0", "10.0.0.5 neighbour on br0", "fe80::5 neighbour on br0"];
    assert_eq!(says(only_vif(&inventory)), expected);
    let found = |thing: &str| inventory.find(thing).into_iter().map(|found| found.matched_by).collect::<Vec<_>>();
    assert_eq!(found("10.0.0.5"), [vec![MatchedBy::FixedIp, MatchedBy::Neighbour]]);
    assert_eq!(found("10.0.0.8"), [vec![MatchedBy::Lease]]);
    assert_eq!(found("FE80:0::5"), [vec![MatchedBy::Neighbour]]);
    assert!(found("10.0.0.6").is_empty() && found("10.0.0.4").is_empty());
}

#[test]
fn an_address_is_written_with_its_source() {
    let view = view(&[nova(&bridged(MAC, TAP, ""), &[PORT])], &[bridge(1, "br0"), on(link(7, TAP), 1)]);
    let expires = Some(Timestamp::UNIX_EPOCH);
    let lease = Lease { expires, ..lease("br0", "10.0.0.8", MAC) };
    let inventory = joined(&seen(view, &[neighbour(1, "fd00::5", MAC)], &[lease]));
    let written = serde_json::to_value(&only_vif(&inventory).addresses).unwrap();
    let expected = serde_json::json!([
        {"address": "10.0.0.5", "source": "metadata"},
        {"address": "10.0.0.8", "source": "lease", "bridge": "br0", "expires": "1970-01-01T00:00:00Z", "hostname": "web"},
        {"address": "fd00::5", "source": "neighbour", "device": {"index": 1, "name": "br0"}},
    ]);
    assert_eq!(written, expected);
    assert_eq!(serde_json::from_value::<Vec<Address>>(written).unwrap(), only_vif(&inventory).addresses);
}

#[test]
fn a_neighbour_is_a_vif_only_on_the_segment_that_the_vif_is_on() {
    let tap = || link(7, TAP);
    let lone = [tap(), bridge(1, "br0"), physical(2, "eth0")];
    assert_eq!(taken_for_the_vif(&lone, &[]), [TAP]);

    let uplink = [
        on(tap(), 1),
        bridge(1, "br0"),
        vlan(3, "br0.100", 1),
        on(physical(4, "eth0"), 1),
        vlan(5, "eth0.100", 4),
        physical(6, "eth1"),
        bridge(8, "br1"),
        on(vlan(9, "br0.200", 1), 8),
    ];
    assert_eq!(taken_for_the_vif(&uplink, &[]), ["br0", "br0.100", "eth0", TAP]);

    let [near, far] = veth(on(link(2, "v0"), 1), on(link(3, "v1"), 4));
    let beyond = [on(tap(), 1), bridge(1, "br0"), near, far, bridge(4, "br1"), vlan(5, "br1.100", 4), bridge(6, "br2")];
    assert_eq!(taken_for_the_vif(&beyond, &[]), ["br0", "v0", "v1", "br1", "br1.100", TAP]);

    let elsewhere = Some(LinkRef { index: 4, netns: Some(0) });
    let away = Link { kind: LinkKind::Veth, peer: elsewhere, ..on(link(2, "v0"), 1) };
    assert_eq!(taken_for_the_vif(&[on(tap(), 1), bridge(1, "br0"), away, bridge(4, "br1")], &[]), ["br0", "v0", TAP]);

    let macvtap = upon(LinkKind::Macvtap, 7, TAP, 1);
    let macvtaps = [physical(1, "eth0"), macvtap, upon(LinkKind::Macvlan, 8, "shim", 1), physical(9, "eth1")];
    assert_eq!(taken_for_the_vif(&macvtaps, &[]), [TAP, "shim"]);
}

#[test]
fn a_neighbour_is_a_vif_on_the_ports_of_its_open_vswitch() {
    let ports = |names: &[(&str, &str)]| -> Vec<Port> {
        let port = |(name, bridge): &(&str, &str)| Port { bridge: Some((*bridge).into()), ..ovs_port(name, 1) };
        names.iter().map(port).collect()
    };
    let plugged = [(TAP, "br-int"), ("br-int", "br-int"), ("mgmt0", "br-int"), ("br-ex", "br-ex")];
    let links = [link(7, TAP), link(1, "br-int"), link(2, "mgmt0"), link(3, "br-ex"), vlan(4, "br-int.100", 1)];
    assert_eq!(taken_for_the_vif(&links, &ports(&plugged)), ["br-int", "mgmt0", "br-int.100", TAP]);

    let mut patched = ports(&[&plugged[..], &[("int-ex", "br-int"), ("ex-int", "br-ex")]].concat());
    patched[4].peer = Some("ex-int".into());
    assert_eq!(taken_for_the_vif(&links, &patched), ["br-int", "mgmt0", "br-ex", "br-int.100", TAP]);

    let [qvb, qvo] = veth(on(link(5, "qvb0"), 6), link(8, "qvo0"));
    let hybrid = [on(link(7, TAP), 6), bridge(6, "qbr0"), qvb, qvo, link(1, "br-int"), link(3, "br-ex")];
    let plugged = ports(&[("qvo0", "br-int"), ("br-int", "br-int"), ("br-ex", "br-ex")]);
    assert_eq!(taken_for_the_vif(&hybrid, &plugged), ["br-int", "qvb0", "qbr0", TAP, "qvo0"]);
}

#[test]
fn vifs_with_the_same_mac_address_have_the_neighbours_of_their_own_bridges() {
    let interfaces = bridged(MAC, "tap0", "") + &bridged(MAC, "tap1", "");
    let links = [bridge(1, "br0"), bridge(2, "br1"), on(link(7, "tap0"), 1), on(link(8, "tap1"), 2)];
    let neighbours = [neighbour(1, "10.0.0.1", MAC), neighbour(2, "10.0.0.2", MAC)];
    let inventory = joined(&seen(view(&[nova(&interfaces, &[])], &links), &neighbours, &[]));
    let [one, two] = inventory.instances[0].vifs.as_slice() else { panic!() };
    assert_eq!(says(one), ["10.0.0.1 neighbour on br0"]);
    assert_eq!(says(two), ["10.0.0.2 neighbour on br1"]);
}

#[test]
fn an_instance_that_does_not_run_keeps_its_lease_and_has_no_neighbours() {
    let interface = format!("<interface type='network'><mac address='{MAC}'/><source network='default'/></interface>");
    let stopped = nova(&interface, &[]).replace(" id='3'", "");
    let view = view(&[stopped], &[bridge(1, "virbr0")]);
    let leases = [lease("virbr0", "10.0.0.8", MAC)];
    let inventory = joined(&seen(view, &[neighbour(1, "10.0.0.8", MAC)], &leases));
    assert_eq!(says(only_vif(&inventory)), ["10.0.0.8 lease of virbr0"]);
}

#[test]
fn a_lost_source_keeps_its_addresses_and_a_record_changes_with_its_addresses_alone() {
    let links = [bridge(1, "br0"), on(link(7, TAP), 1)];
    let view = view(&[nova(&bridged(MAC, TAP, ""), &[])], &links);
    let first = joined(&seen(view.clone(), &[neighbour(1, "10.0.0.9", MAC)], &[]));
    let again = |view: &View, before: &Inventory| join(view, &NameTemplate::default(), before);

    let mut lost = seen(view.clone(), &[neighbour(1, "10.0.0.9", MAC)], &[]);
    lost.neighbours.sync = stale("the receive buffer overran");
    let second = again(&lost, &first);
    assert!(Arc::ptr_eq(&first.instances[0], &second.instances[0]));
    assert_eq!(second.neighbours, Some(stale("the receive buffer overran")));

    let stranger = [neighbour(1, "10.0.0.9", MAC), neighbour(1, "10.0.0.7", OTHER_MAC)];
    let third = again(&seen(view.clone(), &stranger, &[]), &second);
    assert!(Arc::ptr_eq(&first.instances[0], &third.instances[0]));

    let fourth = again(&seen(view, &[neighbour(1, "10.0.0.10", MAC)], &[]), &third);
    assert_eq!((fourth.instances[0].revision, says(only_vif(&fourth))), (4, vec!["10.0.0.10 neighbour on br0".into()]));
    assert!(fourth.find("10.0.0.9").is_empty());
}
