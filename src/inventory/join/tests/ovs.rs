//! VIFs that are plugged into Open vSwitch.

use super::*;
use crate::{
    inventory::testing::{ovs_port, synced, with_ports},
    source::netlink::link::LinkRef,
};

const OTHER: Uuid = Uuid::from_u128(0x11);

/// A port that says whose it is, as Nova and libvirt write it.
fn plugged(name: &str, ofport: u16) -> Port {
    Port {
        iface_id: Some(PORT.to_string().into()),
        attached_mac: Some(MAC.parse().unwrap()),
        vm_uuid: Some(WEB),
        ..ovs_port(name, ofport)
    }
}

/// One running instance with these interfaces.
fn host(interfaces: &str, links: &[Link], ports: &[Port]) -> Inventory {
    joined(&with_ports(view(&[nova(interfaces, &[])], links), ports))
}

fn enslaved(index: u32, name: &str, controller: u32) -> Link {
    Link { controller: Some(controller), ..link(index, name) }
}

fn bridge(index: u32, name: &str) -> Link {
    Link { kind: LinkKind::Bridge, ..link(index, name) }
}

/// Both ends of a veth pair.
fn veth(near: Link, far: Link) -> [Link; 2] {
    let end = |near: &Link, far: &Link| {
        let peer = Some(LinkRef { index: far.index, netns: None });
        Link { kind: LinkKind::Veth, peer, ..near.clone() }
    };
    [end(&near, &far), end(&far, &near)]
}

/// What was found: the position of the VIF or else the device or else the port.
fn finds(inventory: &Inventory, thing: &str) -> Vec<(String, Vec<MatchedBy>)> {
    let name = |found: &Match| match (&found.link, &found.ovs, found.vif) {
        (.., Some(vif)) => format!("VIF {vif}"),
        (Some(link), ..) => link.name.to_string(),
        (None, Some(port), None) => format!("port {}", port.name),
        (None, None, None) => "instance".to_owned(),
    };
    inventory.find(thing).into_iter().map(|found| (name(&found), found.matched_by)).collect()
}

#[test]
fn the_port_of_a_tap_gives_the_strongest_evidence() {
    let virtualport = format!("<virtualport type='openvswitch'><parameters interfaceid='{OTHER}'/></virtualport>");
    let inventory = host(&bridged(MAC, "vnet0", &virtualport), &[link(7, "vnet0")], &[plugged("vnet0", 5)]);
    let vif = only_vif(&inventory);
    assert_eq!((vif.id, vif.id_source), (PORT, VifIdSource::Ovsdb));
    assert_eq!(vif.id_disagreement, [Evidence { source: VifIdSource::Virtualport, id: OTHER }]);
    assert_eq!(inventory.ovs_port(vif).unwrap().ofport, Some(5));
    assert_eq!(vif.device.as_ref().unwrap().index, 7);
}

#[test]
fn the_network_is_that_of_the_port_unless_the_port_is_another_instances() {
    let network = |vm_uuid| {
        let port = Port { network_id: Some(OTHER), vm_uuid, ..ovs_port("vnet0", 5) };
        only_vif(&host(&bridged(MAC, "vnet0", ""), &[link(7, "vnet0")], &[port])).network_id
    };
    assert_eq!([network(Some(WEB)), network(None), network(Some(OTHER))], [Some(OTHER), Some(OTHER), None]);
}

#[test]
fn an_iface_id_that_is_no_uuid_is_no_evidence() {
    let port = Port { iface_id: Some("pod.namespace".into()), ..ovs_port("vnet0", 5) };
    let inventory = host(&bridged(MAC, "vnet0", ""), &[link(7, "vnet0")], &[port]);
    assert_eq!(only_vif(&inventory).id_source, VifIdSource::Synthetic);
    assert_eq!(finds(&inventory, "pod.namespace"), [("VIF 0".to_owned(), vec![MatchedBy::IfaceId])]);
}

#[test]
fn what_the_port_says_otherwise_is_kept_and_does_not_win() {
    let port = Port {
        attached_mac: Some("fa:16:3e:00:00:99".parse().unwrap()),
        bridge: Some("br-int".into()),
        ..plugged("vnet0", 5)
    };
    let inventory = host(&bridged(MAC, "vnet0", ""), &[link(7, "vnet0")], &[port]);
    let vif = only_vif(&inventory);
    let says = |what, value: &str| Disagreement { what, source: FactSource::Ovsdb, value: value.into() };
    assert_eq!(vif.disagreements, [says(Fact::MacAddress, "fa:16:3e:00:00:99"), says(Fact::Bridge, "br-int")]);
    assert_eq!((vif.id, vif.interface.mac), (PORT, MAC.parse().unwrap()));
    // libvirt sends no event when an interface moves to another bridge.
    assert!(inventory.doubts().domains.contains_key(&WEB));
    assert_eq!(finds(&inventory, "fa:16:3e:00:00:99"), [("VIF 0".to_owned(), vec![MatchedBy::AttachedMac])]);
}

#[test]
fn a_port_of_another_instance_under_the_same_name_is_the_weakest_evidence() {
    let port = Port { vm_uuid: Some(OTHER), ..plugged("vnet0", 5) };
    let inventory = host(&bridged(MAC, "vnet0", ""), &[link(7, "vnet0")], &[port]);
    let vif = only_vif(&inventory);
    assert_eq!(vif.id_source, VifIdSource::Synthetic);
    assert_eq!(vif.id_disagreement, [Evidence { source: VifIdSource::Ovsdb, id: PORT }]);
    assert_eq!(vif.disagreements[0].what, Fact::Instance);
}

#[test]
fn a_tap_on_a_bridge_of_its_own_is_plugged_where_the_veth_leads() {
    let links = |more: &[Link]| {
        let pair = veth(enslaved(3, "qvb1", 2), link(4, "qvo1"));
        [&[bridge(2, "qbr1"), enslaved(7, "tap1", 2)], &pair[..], more].concat()
    };
    let tap = bridged(MAC, "tap1", "");
    let id = |links: &[Link], port: Port| only_vif(&host(&tap, links, &[port])).id;
    let inventory = host(&tap, &links(&[]), &[plugged("qvo1", 5)]);
    let vif = only_vif(&inventory);
    assert_eq!((vif.id, vif.ovs_port.as_deref()), (PORT, Some("qvo1")));
    // libvirt knows the Linux bridge, which is no disagreement.
    assert_eq!(vif.disagreements, []);
    for thing in ["br-int:5", "ofport:5"] {
        assert_eq!(finds(&inventory, thing), [("VIF 0".to_owned(), vec![MatchedBy::Ofport])]);
    }
    let silent = Port { attached_mac: None, vm_uuid: None, ..plugged("qvo1", 5) };
    assert_eq!(id(&links(&[]), silent.clone()), PORT);
    // A third device on the bridge: only a port that names the VIF's address is believed.
    let third = [enslaved(8, "tap2", 2)];
    assert_eq!(id(&links(&third), plugged("qvo1", 5)), PORT);
    assert_ne!(id(&links(&third), silent), PORT);
}

#[test]
fn a_bridge_with_an_uplink_into_open_vswitch_is_no_hybrid_plug() {
    let pair = veth(enslaved(3, "up", 2), link(4, "uplink"));
    let links = [&[bridge(2, "br0"), enslaved(7, "vnet0", 2)], &pair[..]].concat();
    let inventory = host(&bridged(MAC, "vnet0", ""), &links, &[ovs_port("uplink", 5)]);
    assert_eq!(only_vif(&inventory).ovs_port, None);
    assert_eq!(finds(&inventory, "br-int:5"), [("uplink".to_owned(), vec![MatchedBy::Ofport])]);
}

#[test]
fn a_vhost_user_port_is_found_by_target_and_by_socket() {
    let interface = |target: &str, socket: &str| {
        format!(
            "<interface type='vhostuser'><mac address='{MAC}'/><source type='unix' path='{socket}' mode='server'/>{target}</interface>"
        )
    };
    let client = Port {
        kind: "dpdkvhostuserclient".into(),
        socket: Some("/run/vhu1.sock".into()),
        ..Port { vm_uuid: None, attached_mac: None, ..plugged("vhu1", 5) }
    };
    let server = Port { kind: "dpdkvhostuser".into(), socket: None, ..client.clone() };
    let port =
        |interface: String, port: &Port| only_vif(&host(&interface, &[], std::slice::from_ref(port))).ovs_port.clone();
    assert_eq!(port(interface("<target dev='vhu1'/>", "/elsewhere"), &client).as_deref(), Some("vhu1"));
    assert_eq!(port(interface("", "/run/vhu1.sock"), &client).as_deref(), Some("vhu1"));
    assert_eq!(port(interface("", "/run/openvswitch/vhu1"), &server).as_deref(), Some("vhu1"));
    assert_eq!(port(interface("", "/run/openvswitch/vhu1"), &client), None);
    let inventory = host(&interface("", "/run/vhu1.sock"), &[], &[client]);
    assert_eq!(only_vif(&inventory).no_device, Some(NoDevice::VhostUser));
    assert_eq!(finds(&inventory, "/run/vhu1.sock"), [("VIF 0".to_owned(), vec![MatchedBy::Socket])]);
    assert_eq!(finds(&inventory, "vhu1"), [("VIF 0".to_owned(), vec![MatchedBy::OvsPort])]);
}

#[test]
fn a_pci_device_is_plugged_into_the_only_port_that_claims_it() {
    let hostdev = format!("<interface type='hostdev'><mac address='{MAC}'/></interface>");
    let port = |ports: &[Port]| only_vif(&host(&hostdev, &[link(9, "pf0vf1")], ports)).ovs_port.clone();
    assert_eq!(port(&[plugged("pf0vf1", 5)]).as_deref(), Some("pf0vf1"));
    assert_eq!(port(&[plugged("pf0vf1", 5), plugged("pf0vf2", 6)]), None);
    assert_eq!(port(&[Port { vm_uuid: Some(OTHER), ..plugged("pf0vf1", 5) }]), None);
    // What has a link of its own is where that link is.
    let tap = host(&bridged(MAC, "vnet0", ""), &[link(7, "vnet0")], &[plugged("qvo1", 5)]);
    assert_eq!(only_vif(&tap).ovs_port, None);
}

#[test]
fn a_port_whose_tap_is_gone_still_tells_why() {
    let error = "could not open network device vnet0 (No such device)";
    let port = Port { ofport: None, error: Some(error.into()), ..plugged("vnet0", 5) };
    let inventory = host(&bridged(MAC, "vnet0", ""), &[], &[port]);
    let vif = only_vif(&inventory);
    assert_eq!((vif.no_device, vif.id), (Some(NoDevice::TargetMissing), PORT));
    assert_eq!(inventory.ovs_port(vif).unwrap().error.as_deref(), Some(error));
}

#[test]
fn a_stopped_instance_is_plugged_nowhere() {
    let domain = nova(&bridged(MAC, "vnet0", ""), &[]).replace(" id='3'", "");
    let inventory = joined(&with_ports(view(&[domain], &[]), &[plugged("vnet0", 5)]));
    assert_eq!(only_vif(&inventory).ovs_port, None);
}

#[test]
fn a_port_that_no_instance_owns_is_found_by_all_that_it_says() {
    let orphan = Port { vm_uuid: None, ..plugged("old", 5) };
    let patch = Port { kind: "patch".into(), peer: Some("p2".into()), ..ovs_port("p1", 6) };
    let inventory = host("", &[link(4, "br-int")], &[orphan, patch, ovs_port("br-int", 65534)]);
    let port = |by| [("port old".to_owned(), vec![by])];
    assert_eq!(finds(&inventory, &PORT.to_string().to_uppercase()), port(MatchedBy::IfaceId));
    assert_eq!(finds(&inventory, MAC), port(MatchedBy::AttachedMac));
    assert_eq!(finds(&inventory, "br-int:5"), port(MatchedBy::Ofport));
    assert_eq!(finds(&inventory, "old"), port(MatchedBy::OvsPort));
    assert_eq!(finds(&inventory, "p1"), [("port p1".to_owned(), vec![MatchedBy::OvsPort])]);
    assert_eq!(finds(&inventory, "br-int"), [("br-int".to_owned(), vec![MatchedBy::DeviceName])]);
    assert_eq!(
        finds(&inventory, "br-ex:5").len() + finds(&inventory, "br-int:7").len() + finds(&inventory, "5").len(),
        0
    );
}

#[test]
fn a_lost_database_makes_only_those_records_stale_whose_ids_it_gave() {
    let mut view =
        with_ports(view(&[nova(&bridged(MAC, "vnet0", ""), &[])], &[link(7, "vnet0")]), &[plugged("vnet0", 5)]);
    let staleness = |view: &View| {
        let inventory = joined(view);
        inventory.staleness(&inventory.instances[0]).map(|stale| stale.reason)
    };
    assert_eq!(staleness(&view), None);
    view.ports.sync = stale("closed");
    assert_eq!(staleness(&view).as_deref(), Some("closed"));
    view.ports.data = Arc::default();
    assert_eq!(staleness(&view), None);
}

#[test]
fn a_host_waits_for_the_first_attempt_to_read_open_vswitch_and_no_longer() {
    let mut view = view(&[], &[]);
    assert_eq!(view.ports.sync, SyncState::Absent);
    let ready = |view: &View| (joined(view).is_decided(), joined(view).is_ready());
    assert_eq!(ready(&view), (true, true));
    view.ports.sync = SyncState::Pending { reason: None };
    assert_eq!(ready(&view), (false, true));
    view.ports.sync = SyncState::Pending { reason: Some("permission denied".into()) };
    assert_eq!(ready(&view), (true, true));
    for sync in [synced(), stale("closed")] {
        view.ports.sync = sync;
        assert_eq!(ready(&view), (true, true));
    }
}
