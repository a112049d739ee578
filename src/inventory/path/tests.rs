use std::sync::Arc;

use super::*;
use crate::{
    inventory::{
        Inventory,
        testing::{bridged, joined, link, nova, ovs_port, synced, view, with_ports},
    },
    source::{
        netlink::{
            function::{Settings, VirtualFunction},
            link::{Link, LinkKind, LinkRef},
        },
        ovsdb::rows::Port,
    },
};

const MAC: &str = "fa:16:3e:00:00:01";

fn host(interface: &str, links: &[Link], ports: &[Port]) -> Inventory {
    let view = view(&[nova(interface, &[])], links);
    joined(&if ports.is_empty() { view } else { with_ports(view, ports) })
}

fn only(inventory: &Inventory) -> VifPath {
    Paths::new(inventory).of(&inventory.instances[0], &inventory.instances[0].vifs[0])
}

/// The main line of the only VIF.
fn line(inventory: &Inventory) -> Vec<String> {
    only(inventory).main_hops().skip(1).map(|hop| hop.name.to_string()).collect()
}

/// What is wrong, and where.
fn faults(inventory: &Inventory) -> Vec<(String, FaultCode)> {
    let path = only(inventory);
    path.hops.iter().flat_map(|hop| hop.faults.iter().map(|fault| (hop.name.to_string(), fault.code))).collect()
}

fn fault(name: &str, code: FaultCode) -> Vec<(String, FaultCode)> {
    vec![(name.to_owned(), code)]
}

fn on(controller: u32, link: Link) -> Link {
    Link { controller: Some(controller), ..link }
}

fn of_kind(kind: LinkKind, link: Link) -> Link {
    Link { kind, ..link }
}

fn bridge(index: u32, name: &str) -> Link {
    of_kind(LinkKind::Bridge, link(index, name))
}

fn card(index: u32, name: &str) -> Link {
    of_kind(LinkKind::Physical, link(index, name))
}

fn upon(lower: u32, link: Link) -> Link {
    Link { lower: Some(LinkRef { index: lower, netns: None }), ..link }
}

fn pair(near: Link, far: Link) -> [Link; 2] {
    let end = |near: &Link, far: &Link| Link {
        kind: LinkKind::Veth,
        peer: Some(LinkRef { index: far.index, netns: None }),
        ..near.clone()
    };
    [end(&near, &far), end(&far, &near)]
}

fn on_switch(bridge: &str, kind: &str, name: &str) -> Port {
    Port { bridge: Some(bridge.into()), kind: kind.into(), ..ovs_port(name, 1) }
}

fn patch(bridge: &str, name: &str, peer: &str) -> Port {
    Port { peer: Some(peer.into()), ..on_switch(bridge, "patch", name) }
}

/// A tap on the Linux bridge `br0` whose only uplink is what is given.
fn tap_with_uplink(uplink: &[Link]) -> Inventory {
    host(&bridged(MAC, "tap1", ""), &[&[on(2, link(7, "tap1")), bridge(2, "br0")], uplink].concat(), &[])
}

/// Another instance's VIF, by its tap on `br0`.
fn neighbour(n: u32) -> (String, Link) {
    let tap = format!("other{n}");
    let domain = nova(&bridged(&format!("fa:16:3e:00:01:{n:02x}"), &tap, ""), &[]);
    let uuid = format!("00000000-0000-0000-0000-{n:012}");
    let domain = domain.replace("874092fe-19a7-44bd-a16a-4fb617bfef7a", &uuid).replace("instance-0000002a", &tap);
    (domain, on(2, link(100 + n, &tap)))
}

/// OpenStack's hybrid plug: `tap1`, `qbr1`, `qvb1`, `qvo1`, `br-int`, and beyond that these links and ports.
fn hybrid(links: &[Link], ports: &[Port]) -> Inventory {
    let interface = bridged(MAC, "tap1", "").replace("br0", "qbr1");
    let own = [&[on(2, link(7, "tap1")), bridge(2, "qbr1")], &pair(on(2, link(3, "qvb1")), link(4, "qvo1"))[..]];
    let port = Port { iface_id: Some("a".into()), tag: Some(7), ..on_switch("br-int", "system", "qvo1") };
    host(
        &interface,
        &[&own.concat(), links].concat(),
        &[&[port, on_switch("br-int", "internal", "br-int")], ports].concat(),
    )
}

#[test]
fn a_tap_on_a_bridge_leaves_by_the_bond_of_a_vlan() {
    let vlan = upon(10, on(2, of_kind(LinkKind::Vlan { id: 100 }, link(9, "bond0.100"))));
    let bond = of_kind(LinkKind::Bond, link(10, "bond0"));
    let inventory = tap_with_uplink(&[vlan, bond, on(10, card(11, "eth0")), on(10, card(12, "eth1"))]);
    assert_eq!(line(&inventory), ["tap1", "br0", "bond0.100", "bond0", "eth0"]);
    let path = only(&inventory);
    let joins: Vec<_> = path.edges.iter().map(|edge| edge.by).collect();
    use Join::*;
    assert_eq!(joins, [CarriedBy, BridgePort, BridgePort, Upon, BondMember, BondMember]);
    assert_eq!(path.hops[3].vlan.as_deref(), Some("VLAN 100"));
    assert!(path.is_whole() && path.hops.len() == 7, "{path:?}");
}

#[test]
fn a_hybrid_plug_leaves_by_patch_ports_and_a_bridge_with_a_card() {
    let ports = [
        patch("br-int", "int-br-ex", "phy-br-ex"),
        patch("br-ex", "phy-br-ex", "int-br-ex"),
        on_switch("br-ex", "system", "eth0"),
        on_switch("br-ex", "internal", "br-ex"),
    ];
    // Nobody sets br-int up, which only concerns the host itself.
    let own = [card(20, "eth0"), Link { up: false, ..link(21, "br-int") }, link(22, "br-ex")];
    let inventory = hybrid(&own, &ports);
    let expected = ["tap1", "qbr1", "qvb1", "qvo1", "br-int", "int-br-ex", "phy-br-ex", "br-ex", "eth0"];
    assert_eq!(line(&inventory), expected);
    let path = only(&inventory);
    assert_eq!(path.hops[4].vlan.as_deref(), Some("tag 7"));
    assert!(path.is_whole(), "{path:?}");
}

#[test]
fn tunnels_leave_together_by_the_device_that_the_hosts_routes_choose() {
    let tunnel = |n: u32| Port {
        remote: Some(format!("192.0.2.{n}").into()),
        egress: Some("bond0".into()),
        ..on_switch("br-tun", "vxlan", &format!("vxlan-{n}"))
    };
    let patches = [patch("br-int", "patch-tun", "patch-int"), patch("br-tun", "patch-int", "patch-tun")];
    let ports = [&patches[..], &[tunnel(1), tunnel(2), tunnel(3)]].concat();
    let links = |mtu| {
        let bond = Link { mtu, ..of_kind(LinkKind::Bond, link(10, "bond0")) };
        [bond, Link { mtu, ..on(10, card(11, "eth0")) }]
    };
    let inventory = hybrid(&links(1550), &ports);
    assert_eq!(line(&inventory)[4..], ["br-int", "patch-tun", "patch-int", "br-tun", "vxlan-1", "bond0", "eth0"]);
    let path = only(&inventory);
    let tunnels = path.hops.iter().find(|hop| &*hop.name == "vxlan-1").unwrap();
    assert_eq!(tunnels.notes, ["to 192.0.2.1", "and 2 more vxlan tunnels by the same way"]);
    assert!(path.is_whole(), "{path:?}");
    // 1500 bytes and the tunnel's 50 do not fit into 1500, which is told once.
    assert_eq!(faults(&hybrid(&links(1500), &ports)), fault("bond0", FaultCode::Mtu));
}

#[test]
fn a_macvtap_leaves_by_its_lower_device_and_that_ones_bond() {
    let direct = |lower: &str| {
        format!(
            "<interface type='direct'><mac address='{MAC}'/><source dev='{lower}' mode='bridge'/><target dev='macvtap0'/></interface>"
        )
    };
    let links = [
        upon(9, of_kind(LinkKind::Macvtap, link(7, "macvtap0"))),
        upon(10, of_kind(LinkKind::Vlan { id: 5 }, link(9, "bond0.5"))),
        of_kind(LinkKind::Bond, link(10, "bond0")),
        on(10, card(11, "eth0")),
    ];
    let inventory = host(&direct("bond0.5"), &links, &[]);
    assert_eq!(line(&inventory), ["macvtap0", "bond0.5", "bond0", "eth0"]);
    assert!(only(&inventory).is_whole());
    assert_eq!(faults(&host(&direct("eth0"), &links, &[])), fault("macvtap0", FaultCode::NotEnslaved));
}

#[test]
fn a_card_below_a_vlan_is_the_end_although_it_is_on_a_bridge_too() {
    let vlan = upon(10, on(2, of_kind(LinkKind::Vlan { id: 100 }, link(9, "eth0.100"))));
    let inventory = tap_with_uplink(&[vlan, on(3, card(10, "eth0")), bridge(3, "br1")]);
    assert_eq!(line(&inventory), ["tap1", "br0", "eth0.100", "eth0"]);
}

#[test]
fn of_a_containers_veth_the_end_inside_is_named_and_said_to_be_unreadable() {
    let veth =
        Link { peer: Some(LinkRef { index: 8, netns: Some(3) }), ..of_kind(LinkKind::Veth, on(2, link(7, "tap1"))) };
    let inventory = host(&bridged(MAC, "tap1", ""), &[veth, bridge(2, "br0"), on(2, card(9, "eth0"))], &[]);
    assert_eq!(line(&inventory), ["veth 8 of network namespace 3", "tap1", "br0", "eth0"]);
    let inside = &only(&inventory).hops[1];
    assert_eq!(inside.kind, HopKind::Elsewhere);
    assert!(inside.notes[0].contains("not readable from here"), "{inside:?}");
}

#[test]
fn a_macvlan_in_a_container_leads_to_its_lower_device() {
    let interface =
        format!("<interface type='direct'><mac address='{MAC}'/><source dev='eth0' mode='bridge'/></interface>");
    let domain = nova(&interface, &[]).replace("type='kvm'", "type='lxc'");
    let inventory = joined(&view(&[domain], &[card(9, "eth0")]));
    assert_eq!(line(&inventory), [MAC, "eth0"]);
}

#[test]
fn a_virtual_function_leaves_by_its_card_and_not_by_the_cards_bond() {
    let pci = "0000:03:10.2".parse().unwrap();
    let settings =
        Settings { mac: MAC.parse().unwrap(), vlan: Some(9), spoof_check: None, trusted: None, link_state: None };
    let functions = vec![VirtualFunction { number: 1, pci, settings: Some(settings) }];
    let card = Link { virtual_functions: functions, ..on(10, card(9, "eth0")) };
    let bond = of_kind(LinkKind::Bond, link(10, "bond0"));
    let interface = format!(
        "<interface type='hostdev'><mac address='{MAC}'/><source><address type='pci' domain='0' bus='3' slot='16' function='2'/></source></interface>"
    );
    let inventory = host(&interface, &[card, bond], &[]);
    assert_eq!(line(&inventory), ["0000:03:10.2", "eth0"]);
    let path = only(&inventory);
    assert_eq!((path.hops[1].vlan.as_deref(), path.hops[1].sort.as_deref()), (Some("VLAN 9"), Some("VF 1")));
    assert!(path.hops[2].notes[0].contains("it is on bond0"), "{path:?}");
}

#[test]
fn a_vhost_user_socket_leads_to_its_port_and_switch() {
    let interface = format!(
        "<interface type='vhostuser'><mac address='{MAC}'/><source type='unix' path='/run/vhu1' mode='server'/></interface>"
    );
    let port = |link_up| Port {
        socket: Some("/run/vhu1".into()),
        link_up,
        ..on_switch("br-int", "dpdkvhostuserclient", "vhu1")
    };
    let uplink = on_switch("br-int", "dpdk", "dpdk0");
    let inventory = host(&interface, &[], &[port(Some(true)), uplink.clone()]);
    assert_eq!(line(&inventory), ["/run/vhu1", "vhu1", "br-int", "dpdk0"]);
    assert!(only(&inventory).is_whole());
    assert_eq!(faults(&host(&interface, &[], &[port(Some(false)), uplink])), fault("vhu1", FaultCode::NoCarrier));
    assert_eq!(only(&host(&interface, &[], &[])).end, "what comes then cannot be seen from here");
}

#[test]
fn where_there_is_no_path_it_is_said_why() {
    let end = |interface: &str| only(&host(interface, &[], &[])).end;
    assert!(end(&format!("<interface type='user'><mac address='{MAC}'/></interface>")).contains("passt"));
    assert!(end(&format!("<interface type='mcast'><mac address='{MAC}'/></interface>")).contains("socket of its own"));
    let stopped = nova(&bridged(MAC, "tap1", ""), &[]).replace(" id='3'", "");
    let path = only(&joined(&view(&[stopped], &[])));
    assert_eq!((&*path.end, path.hops.len()), ("the instance does not run", 1));
}

#[test]
fn each_thing_that_breaks_the_way_is_a_fault_of_its_hop() {
    let eth0 = on(2, card(9, "eth0"));
    let with = |uplink: Link| faults(&tap_with_uplink(&[uplink]));
    assert_eq!(with(eth0.clone()), []);
    assert_eq!(with(Link { up: false, ..eth0.clone() }), fault("eth0", FaultCode::Down));
    assert_eq!(with(Link { carrier: Some(false), ..eth0.clone() }), fault("eth0", FaultCode::NoCarrier));
    let lower_down = Link { oper_state: OperState::LowerLayerDown, ..eth0.clone() };
    assert_eq!(with(lower_down), fault("eth0", FaultCode::NotOperational));
    assert_eq!(with(Link { mtu: 1400, ..eth0.clone() }), fault("eth0", FaultCode::Mtu));
    assert_eq!(with(Link { mtu: 9000, ..eth0.clone() }), []);
    assert_eq!(with(on(2, of_kind(LinkKind::Bond, link(9, "bond0")))), fault("bond0", FaultCode::NoMembers));
    assert_eq!(faults(&tap_with_uplink(&[])), fault("br0", FaultCode::NoUplink));
    // The MTU of a bridge is the host's own matter.
    let links = [on(2, link(7, "tap1")), Link { mtu: 1400, ..bridge(2, "br0") }, eth0];
    assert_eq!(faults(&host(&bridged(MAC, "tap1", ""), &links, &[])), []);
    let asked = bridged(MAC, "tap1", "<mtu size='9000'/>");
    assert_eq!(faults(&host(&asked, &links, &[])), fault("tap1", FaultCode::Mtu));
    let unplugged = bridged(MAC, "tap1", "<link state='down'/>");
    assert_eq!(faults(&host(&unplugged, &links, &[])), fault(MAC, FaultCode::Down));
}

#[test]
fn an_isolated_network_of_libvirt_needs_no_uplink() {
    let interface = format!(
        "<interface type='network'><mac address='{MAC}'/><source network='n' bridge='br0'/><target dev='tap1'/></interface>"
    );
    assert_eq!(faults(&host(&interface, &[on(2, link(7, "tap1")), bridge(2, "br0")], &[])), []);
}

#[test]
fn a_device_that_is_gone_or_elsewhere_is_told_with_where_it_should_be() {
    let rest = [bridge(2, "br0"), on(2, card(9, "eth0")), bridge(3, "br1"), on(3, card(10, "eth1"))];
    let tap = bridged(MAC, "tap1", "");
    let gone = host(&tap, &rest, &[]);
    assert_eq!(
        (line(&gone), faults(&gone)),
        (vec!["tap1".into(), "br0".into(), "eth0".into()], fault("tap1", FaultCode::Missing))
    );
    assert_eq!(only(&gone).edges[1].by, Join::ShouldBe);
    let elsewhere = host(&tap, &[&rest[..], &[on(3, link(7, "tap1"))]].concat(), &[]);
    assert_eq!(line(&elsewhere), ["tap1", "br1", "eth1"]);
    assert_eq!(faults(&elsewhere), fault("tap1", FaultCode::NotEnslaved));
    let nowhere = host(&tap, &[&rest[..], &[link(7, "tap1")]].concat(), &[]);
    assert_eq!(line(&nowhere), ["tap1", "br0", "eth0"]);
    assert_eq!(faults(&nowhere), fault("tap1", FaultCode::NotEnslaved));
    let no_bridge = host(&tap, &[link(7, "tap1")], &[]);
    let both = faults(&no_bridge);
    assert_eq!(both, [("tap1".to_owned(), FaultCode::NotEnslaved), ("br0".to_owned(), FaultCode::Missing)]);
}

#[test]
fn what_open_vswitch_cannot_do_is_told_in_its_words() {
    let error = Some("could not open network device eth0 (No such device)".into());
    let uplink = Port { error, ..on_switch("br-int", "system", "eth0") };
    let inventory = hybrid(&[], &[uplink]);
    assert_eq!(faults(&inventory), fault("eth0", FaultCode::SwitchError));
    assert_eq!(line(&inventory).last().unwrap(), "eth0");
    let broken = hybrid(&[], &[patch("br-int", "p1", "p2")]);
    assert_eq!(faults(&broken), fault("p1", FaultCode::PatchBroken));
}

#[test]
fn a_bond_of_a_switch_leads_to_its_members_and_the_whole_line_is_the_main_one() {
    let member = |name| Port {
        bond: Some("bond0".into()),
        bond_mode: Some("balance-slb".into()),
        ..on_switch("br-int", "system", name)
    };
    let links = [Link { carrier: Some(false), ..card(20, "e0") }, card(21, "e1")];
    let inventory = hybrid(&links, &[member("e0"), member("e1")]);
    assert_eq!(line(&inventory)[4..], ["br-int", "bond0", "e1"]);
    assert_eq!(faults(&inventory), fault("e0", FaultCode::NoCarrier));
    assert!(only(&inventory).is_whole());
}

#[test]
fn ports_of_other_vifs_are_counted_and_leftovers_do_not_show() {
    let others: Vec<_> = (1..=3).map(neighbour).collect();
    let domains: Vec<_> =
        [nova(&bridged(MAC, "tap1", ""), &[])].into_iter().chain(others.iter().map(|(d, _)| d.clone())).collect();
    let left_over = pair(on(2, link(30, "old")), on(3, link(31, "dlo")));
    let mut links = vec![on(2, link(7, "tap1")), bridge(2, "br0"), on(2, card(9, "eth0")), bridge(3, "leftover")];
    links.extend(left_over);
    links.extend(others.into_iter().map(|(_, link)| link));
    let inventory = joined(&view(&domains, &links));
    let instance = inventory.instance_by_name("instance-0000002a").unwrap();
    let path = Paths::new(&inventory).of(instance, &instance.vifs[0]);
    let names: Vec<_> = path.hops.iter().map(|hop| &*hop.name).collect();
    assert_eq!(names, [MAC, "tap1", "br0", "eth0"]);
    assert_eq!(path.hops[2].notes, ["3 other ports carry VIFs"]);
}

#[test]
fn bridges_that_are_joined_twice_or_in_a_ring_end() {
    let twice = [
        &[bridge(3, "br1")],
        &pair(on(2, link(30, "a0")), on(3, link(31, "a1")))[..],
        &pair(on(2, link(32, "b0")), on(3, link(33, "b1")))[..],
    ]
    .concat();
    let inventory = tap_with_uplink(&twice);
    assert_eq!(line(&inventory), ["tap1", "br0", "a0", "a1", "br1"]);
    assert_eq!(only(&inventory).edges.len(), 8);
    assert_eq!(faults(&inventory), fault("br1", FaultCode::NoUplink));
    let ring = [
        &[bridge(3, "br1"), bridge(4, "br2")],
        &pair(on(2, link(30, "a0")), on(3, link(31, "a1")))[..],
        &pair(on(3, link(32, "b0")), on(4, link(33, "b1")))[..],
        &pair(on(4, link(34, "c0")), on(2, link(35, "c1")))[..],
    ]
    .concat();
    assert_eq!(only(&tap_with_uplink(&ring)).end, "nothing leads on from there; the host itself may route");
    let with_card = [ring, vec![on(4, card(40, "eth0"))]].concat();
    assert_eq!(line(&tap_with_uplink(&with_card)), ["tap1", "br0", "c1", "c0", "br2", "eth0"]);
    // A veth pair with both ends on one bridge.
    let own = pair(on(2, link(30, "a0")), on(2, link(31, "a1")));
    assert_eq!(faults(&tap_with_uplink(&own)), fault("br0", FaultCode::NoUplink));
}

#[test]
fn a_bridge_with_a_thousand_uplinks_is_not_followed_for_ever() {
    let cards: Vec<_> = (0..1000).map(|n| on(2, card(1000 + n, &format!("eth{n}")))).collect();
    let path = only(&tap_with_uplink(&cards));
    assert_eq!(path.hops.len(), 100);
    assert!(path.hops[2].notes[0].contains("too much of it"), "{:?}", path.hops[2]);
    assert_eq!(path.main.len(), 4);
}

#[test]
fn what_is_not_known_is_not_called_broken() {
    let mut view = view(&[nova(&bridged(MAC, "tap1", ""), &[])], &[]);
    view.links.sync = crate::source::SyncState::Pending { reason: None };
    assert_eq!(only(&joined(&view)).end, "the links of this host have not been read yet");
    view.links.sync = synced();
    assert_eq!(faults(&joined(&view))[0].1, FaultCode::Missing);
    let lonely = Arc::new(format!(
        "<interface type='ethernet'><mac address='{MAC}'/><target dev='tap1' managed='no'/></interface>"
    ));
    let routed = host(&lonely, &[link(7, "tap1")], &[]);
    assert_eq!((faults(&routed), &*only(&routed).end), (vec![], "from there on the host's own routes decide"));
}
