//! Each rule, by what it finds in hosts that are right but for one thing.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    testing::{found, look},
    *,
};
use crate::{
    inventory::testing::{PORT, WEB, bridged, joined, link, nova, ovs_port, stale, view, with_ports},
    source::{
        libvirt::{
            Domains,
            domain::{Domain, DomainState, Migration},
        },
        netlink::{
            function::{Settings, VirtualFunction},
            link::{Link, LinkKind, LinkRef, OperState},
        },
        ovsdb::rows::Port,
    },
};

const MAC: &str = "fa:16:3e:00:00:01";
const TAP: &str = "tapa756caef-c7";
const OTHER: Uuid = Uuid::from_u128(0x11111111_2222_4333_8444_555555555555);

fn on(link: Link, controller: u32) -> Link {
    Link { controller: Some(controller), ..link }
}

fn kind(index: u32, name: &str, kind: LinkKind) -> Link {
    Link { kind, ..link(index, name) }
}

fn bridge(index: u32, name: &str) -> Link {
    kind(index, name, LinkKind::Bridge)
}

fn veth(index: u32, name: &str, peer: u32, netns: Option<i32>) -> Link {
    Link { peer: Some(LinkRef { index: peer, netns }), ..kind(index, name, LinkKind::Veth) }
}

/// A guest with a tap on br0, which has an uplink.
fn host() -> (String, Vec<Link>) {
    let links = vec![bridge(1, "br0"), on(kind(2, "eth0", LinkKind::Physical), 1), on(link(7, TAP), 1)];
    (nova(&bridged(MAC, TAP, ""), &[PORT]), links)
}

/// What is found when something is changed about the links.
fn with_links(change: impl FnOnce(&mut Vec<Link>)) -> Vec<(Code, String)> {
    let (domain, mut links) = host();
    change(&mut links);
    found(&joined(&view(&[domain], &links)))
}

/// What is found when the interface has further elements.
fn with_xml(more: &str) -> Vec<(Code, String)> {
    let (_, links) = host();
    found(&joined(&view(&[nova(&bridged(MAC, TAP, more), &[PORT])], &links)))
}

fn one(code: Code, name: &str) -> Vec<(Code, String)> {
    vec![(code, name.to_owned())]
}

/// A second domain with the same or another interface.
fn second(xml: &str) -> String {
    xml.replace(&WEB.to_string(), &OTHER.to_string()).replace("instance-0000002a", "instance-0000002b")
}

#[test]
fn the_runbook_has_a_section_for_each_code_and_no_other() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/findings.md")).unwrap();
    let sections: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let codes: Vec<_> = Code::value_variants().iter().map(Code::to_string).collect();
    assert_eq!(sections, codes);
    for (code, section) in codes.iter().zip(text.split("\n## ").skip(1)) {
        for part in ["How it comes about", "Verify.", "Do.", "Harmless"] {
            assert!(section.contains(part), "{code} lacks: {part}");
        }
    }
}

#[test]
fn a_code_is_written_alike_in_text_and_in_json() {
    for code in Code::value_variants() {
        assert_eq!(serde_json::to_value(code).unwrap(), code.to_string());
    }
}

#[test]
fn nothing_is_found_on_a_host_that_is_right() {
    assert_eq!(with_links(|_| ()), []);
}

#[test]
fn a_device_that_is_not_there_down_or_without_anybody_behind_it() {
    assert_eq!(with_links(|links| drop(links.pop())), one(Code::DeviceMissing, TAP));
    assert_eq!(with_links(|links| links[2].up = false), one(Code::DeviceDown, TAP));
    assert_eq!(with_links(|links| links[2].carrier = Some(false)), one(Code::DeviceNoCarrier, TAP));
}

/// What is found of the guest without its device, when its domain is changed.
fn with_domain(change: impl Fn(&mut Domain)) -> Vec<(Code, String)> {
    let (domain, links) = host();
    let mut view = view(&[domain], &links[..2]);
    let mut known = view.hypervisors[0].2.data.known.clone();
    known.values_mut().for_each(|domain| change(Arc::make_mut(domain)));
    view.hypervisors[0].2.data = Arc::new(Domains { known, ..Domains::default() });
    found(&joined(&view))
}

#[test]
fn a_guest_that_is_starting_or_migrating_is_left_alone() {
    assert_eq!(with_domain(|_| ()), one(Code::DeviceMissing, TAP));
    assert_eq!(with_domain(|domain| domain.state = DomainState::StartingUp), []);
    for migration in [Migration::Incoming, Migration::Outgoing] {
        assert_eq!(with_domain(|domain| domain.migration = Some(migration)), []);
    }
}

#[test]
fn an_instance_that_has_left() {
    let defined = with_domain(|domain| {
        (domain.id, domain.state, domain.migration) = (None, DomainState::ShutOff, Some(Migration::Away));
    });
    assert_eq!(defined, one(Code::InstanceMigratedAway, "instance-0000002a"));
    let paused = with_domain(|domain| (domain.state, domain.migration) = (DomainState::Paused, Some(Migration::Away)));
    assert_eq!(paused, one(Code::InstanceMigratedAway, "instance-0000002a"));
}

#[test]
fn a_card_that_was_told_otherwise_of_a_function_or_is_down() {
    let nic = format!(
        "<interface type='hostdev'><mac address='{MAC}'/><source>
         <address type='pci' domain='0x0000' bus='0x01' slot='0x10' function='0x0'/></source>
         <vlan><tag id='101'/></vlan></interface>"
    );
    let card = |mac: &str, vlan: u16, up: bool| {
        let settings = Settings {
            mac: mac.parse().unwrap(),
            vlan: Some(vlan),
            spoof_check: None,
            trusted: None,
            link_state: None,
        };
        let pci = "0000:01:10.0".parse().unwrap();
        let virtual_functions = vec![VirtualFunction { number: 0, pci, settings: Some(settings) }];
        let card = Link { virtual_functions, pci: "0000:01:00.0".parse().ok(), up, ..link(2, "enp1s0") };
        found(&joined(&view(&[nova(&nic, &[PORT])], &[Link { kind: LinkKind::Physical, ..card }])))
    };
    assert_eq!(card(MAC, 101, true), []);
    assert_eq!(card("fa:16:3e:00:00:99", 101, true), one(Code::FunctionDiffers, MAC));
    assert_eq!(card("fa:16:3e:00:00:99", 7, true), one(Code::FunctionDiffers, MAC));
    assert_eq!(card(MAC, 101, false), one(Code::UplinkDown, "enp1s0"));
}

#[test]
fn a_device_without_an_owner_is_known_by_its_name_or_by_the_company_that_it_keeps() {
    let tap = |name: &str| with_links(|links| links.push(link(9, name)));
    assert_eq!(tap("tap11111111-22"), one(Code::DeviceLeaked, "tap11111111-22"));
    assert_eq!(tap("vnet3"), one(Code::DeviceLeaked, "vnet3"));
    // Somebody else's.
    for name in ["tap0", "vpn", "tun-work", "tap1234", "vnetwork", "vnet"] {
        assert_eq!(tap(name), [], "{name}");
    }
    assert_eq!(with_links(|links| links.push(kind(9, "tun0", LinkKind::Tun))), []);
    // On a bridge that guests use, with and without a process behind it.
    assert_eq!(with_links(|links| links.push(on(link(9, "vpn"), 1))), []);
    let dead = Link { carrier: Some(false), oper_state: OperState::Down, ..on(link(9, "old"), 1) };
    assert_eq!(with_links(|links| links.push(dead.clone())), one(Code::DeviceLeaked, "old"));
    assert_eq!(with_links(|links| links.push(Link { name: "br0-nic".into(), ..dead })), []);
    let macvtap = kind(9, "macvtap0", LinkKind::Macvtap);
    assert_eq!(with_links(|links| links.push(macvtap)), one(Code::DeviceLeaked, "macvtap0"));
}

#[test]
fn a_veth_pair_is_leaked_only_if_it_leads_nowhere_else() {
    assert_eq!(with_links(|links| links.push(veth(9, "vnet3", 2, Some(4)))), []);
    assert_eq!(with_links(|links| links.push(veth(9, "tap11111111-22", 2, Some(4)))), []);
    let pair = [veth(9, "vnet3", 10, None), veth(10, "vnet4", 9, None)];
    assert_eq!(with_links(|links| links.extend(pair)).len(), 2);
    let docker = [veth(9, "veth1a2b3c4", 10, None), veth(10, "veth5d6e7f8", 9, None)];
    assert_eq!(with_links(|links| links.extend(docker)), []);
}

#[test]
fn the_devices_of_one_vif_are_one_leak() {
    let plug = || {
        vec![
            bridge(20, "qbr11111111-22"),
            on(veth(21, "qvb11111111-22", 22, None), 20),
            veth(22, "qvo11111111-22", 21, None),
        ]
    };
    assert_eq!(with_links(|links| links.extend(plug())), one(Code::DeviceLeaked, "qvo11111111-22"));
    // Those of a guest that is only shut off are where Nova leaves them.
    let (domain, links) = host();
    let off = second(&nova(&bridged("fa:16:3e:00:00:02", "tap11111111-22", ""), &[OTHER])).replace(" id='3'", "");
    let links: Vec<_> = links.into_iter().chain(plug()).collect();
    assert_eq!(found(&joined(&view(&[domain, off], &links))), []);
}

#[test]
fn a_bridge_that_is_another_down_or_full() {
    let other = with_links(|links| {
        links.push(bridge(3, "br1"));
        links[2].controller = Some(3);
    });
    assert_eq!(other, one(Code::BridgeDiffers, TAP));
    assert_eq!(with_links(|links| links[2].controller = None), one(Code::BridgeDiffers, TAP));
    assert_eq!(with_links(|links| links[0].up = false), one(Code::BridgeDown, "br0"));
    let (domain, mut links) = host();
    links.extend((100..1019).map(|n| on(veth(n, &format!("v{n}"), 2, Some(4)), 1)));
    assert_eq!(found(&joined(&view(std::slice::from_ref(&domain), &links))), []);
    links.push(on(veth(1019, "v1019", 2, Some(4)), 1));
    let nearly = look(&joined(&view(std::slice::from_ref(&domain), &links)));
    assert_eq!((nearly[0].code, nearly[0].severity), (Code::BridgeNearlyFull, Severity::Warning));
    links.extend((1020..1200).map(|n| on(veth(n, &format!("v{n}"), 2, Some(4)), 1)));
    assert_eq!(look(&joined(&view(&[domain], &links)))[0].severity, Severity::Error);
}

#[test]
fn an_uplink_that_is_down_or_has_no_carrier() {
    assert_eq!(with_links(|links| links[1].up = false), one(Code::UplinkDown, "eth0"));
    assert_eq!(with_links(|links| links[1].carrier = Some(false)), one(Code::UplinkNoCarrier, "eth0"));
    // No guest uses it.
    assert_eq!(with_links(|links| (links[1].up, links[1].controller) = (false, None)), []);
    let two = |links: &mut Vec<Link>| {
        links[1].up = false;
        links.push(on(kind(3, "eth1", LinkKind::Physical), 1));
    };
    let (domain, mut links) = host();
    two(&mut links);
    let found = look(&joined(&view(&[domain], &links)));
    assert_eq!((found.len(), found[0].severity), (1, Severity::Warning));
}

#[test]
fn what_an_uplink_rests_on_counts_as_well() {
    let bond = |out: &[u32]| {
        with_links(|links| {
            links[1] = on(kind(2, "bond0.7", LinkKind::Vlan { id: 7 }), 1);
            links[1].lower = Some(LinkRef { index: 3, netns: None });
            links.push(kind(3, "bond0", LinkKind::Bond));
            for index in [4, 5] {
                let carrier = Some(!out.contains(&index));
                links.push(Link { carrier, ..on(kind(index, &format!("eth{index}"), LinkKind::Physical), 3) });
            }
        })
    };
    assert_eq!(bond(&[]), []);
    assert_eq!(bond(&[4]), one(Code::UplinkNoCarrier, "eth4"));
}

#[test]
fn packets_that_are_larger_than_what_comes_after() {
    assert_eq!(with_xml("<mtu size='1500'/>"), []);
    assert_eq!(with_xml("<mtu size='9000'/>"), one(Code::MtuExceedsDevice, TAP));
    assert_eq!(with_links(|links| links[0].mtu = 1400), one(Code::MtuExceedsPath, "br0"));
    assert_eq!(with_links(|links| links[1].mtu = 1400), one(Code::MtuExceedsPath, "eth0"));
    // Another way is wide enough.
    let two = with_links(|links| {
        links[1].mtu = 1400;
        links.push(on(kind(3, "eth1", LinkKind::Physical), 1));
    });
    assert_eq!(two, []);
}

#[test]
fn a_narrow_wire_behind_a_guests_own_bridge() {
    let domain = nova(&bridged(MAC, TAP, "").replace("'br0'", "'qbra756caef-c7'"), &[PORT]);
    let hybrid = |qvb: u32, qvo: u32| {
        let links = [
            bridge(1, "qbra756caef-c7"),
            on(link(7, TAP), 1),
            on(Link { mtu: qvb, ..veth(8, "qvba756caef-c7", 9, None) }, 1),
            Link { mtu: qvo, ..veth(9, "qvoa756caef-c7", 8, None) },
        ];
        let port = Port { iface_id: Some(PORT.to_string().into()), ..ovs_port("qvoa756caef-c7", 3) };
        found(&joined(&with_ports(view(std::slice::from_ref(&domain), &links), &[port])))
    };
    assert_eq!(hybrid(1500, 1500), []);
    assert_eq!(hybrid(1450, 1500), one(Code::MtuExceedsPath, "qvba756caef-c7"));
    assert_eq!(hybrid(1500, 1450), one(Code::MtuExceedsPath, "qvoa756caef-c7"));
}

#[test]
fn a_device_with_fewer_queues_than_its_guest() {
    assert_eq!(with_xml("<driver queues='1'/>"), []);
    assert_eq!(with_xml("<driver queues='4'/>"), one(Code::QueuesDiffer, TAP));
}

/// The guest on br-int, and further ports.
fn switch(port: Port, others: &[Port], links: &[Link]) -> Inventory {
    let virtualport = format!("<virtualport type='openvswitch'><parameters interfaceid='{PORT}'/></virtualport>");
    let domain = nova(&bridged(MAC, TAP, &virtualport).replace("'br0'", "'br-int'"), &[PORT]);
    let links: Vec<_> = [link(7, TAP)].iter().chain(links).cloned().collect();
    let ports: Vec<_> = [port].iter().chain(others).cloned().collect();
    joined(&with_ports(view(&[domain], &links), &ports))
}

fn port() -> Port {
    Port {
        iface_id: Some(PORT.to_string().into()),
        attached_mac: Some(MAC.parse().unwrap()),
        vm_uuid: Some(WEB),
        ..ovs_port(TAP, 3)
    }
}

#[test]
fn a_port_that_says_otherwise_than_the_description() {
    assert_eq!(found(&switch(port(), &[], &[])), []);
    let mac = Port { attached_mac: Some("fa:16:3e:00:00:99".parse().unwrap()), ..port() };
    assert_eq!(found(&switch(mac, &[], &[])), one(Code::PortMacDiffers, TAP));
    let id = Port { iface_id: Some(OTHER.to_string().into()), ..port() };
    assert_eq!(found(&switch(id, &[], &[])), one(Code::PortIdDiffers, TAP));
    let instance = Port { vm_uuid: Some(OTHER), ..port() };
    assert_eq!(found(&switch(instance, &[], &[])), one(Code::PortInstanceDiffers, TAP));
    let elsewhere = Port { bridge: Some("br-other".into()), ..port() };
    assert_eq!(found(&switch(elsewhere, &[], &[])), one(Code::BridgeDiffers, TAP));
    let error = Port { error: Some("could not open".into()), ..port() };
    assert_eq!(found(&switch(error, &[], &[])), one(Code::PortError, TAP));
}

#[test]
fn a_guest_whose_port_was_taken_away() {
    let gone = switch(ovs_port("other", 9), &[], &[]);
    assert_eq!(found(&gone), one(Code::BridgeDiffers, TAP));
}

#[test]
fn a_port_of_a_vif_that_is_not_here() {
    let claims = |name: &str| Port { iface_id: Some(OTHER.to_string().into()), ..ovs_port(name, 4) };
    let leaked = |port: Port, links: &[Link]| found(&switch(self::port(), &[port], links));
    let name = "tap11111111-22";
    assert_eq!(leaked(claims(name), &[]), one(Code::PortLeaked, name));
    // With its device, and with the error that it is gone.
    assert_eq!(leaked(claims(name), &[link(9, name)]), one(Code::PortLeaked, name));
    let error = Port { error: Some("No such device".into()), ofport: None, ..claims(name) };
    assert_eq!(leaked(error, &[]), one(Code::PortLeaked, name));
    let instance = Port { vm_uuid: Some(OTHER), ..ovs_port(name, 4) };
    assert_eq!(leaked(instance, &[]), one(Code::PortLeaked, name));
    // Neutron's servers, trunks, other container engines.
    assert_eq!(leaked(Port { kind: "internal".into(), ..claims(name) }, &[link(9, name)]), []);
    assert_eq!(leaked(Port { kind: "patch".into(), ..claims("spt1") }, &[]), []);
    assert_eq!(leaked(claims("veth1"), &[veth(9, "veth1", 2, Some(3))]), []);
    assert_eq!(leaked(Port { iface_id: Some("default_web-0".into()), ..ovs_port("veth1", 4) }, &[]), []);
    let known = Port { vm_uuid: Some(WEB), ..ovs_port("port9", 4) };
    assert_eq!(leaked(known, &[]), []);
}

#[test]
fn one_mac_address_twice() {
    let twice = |bridges: [&str; 2]| {
        let nics = [("tap0", bridges[0]), ("tap1", bridges[1])];
        let nics = nics.map(|(tap, bridge)| bridged(MAC, tap, "").replace("'br0'", &format!("'{bridge}'")));
        let links = [bridge(1, "br0"), bridge(2, "br1"), on(link(7, "tap0"), 1)];
        let other = on(link(8, "tap1"), if bridges[1] == "br0" { 1 } else { 2 });
        let links: Vec<_> = links.into_iter().chain([other]).collect();
        let inventory = joined(&view(&[nova(&nics[0], &[]), second(&nova(&nics[1], &[]))], &links));
        let found = look(&inventory);
        assert_eq!(found.iter().map(|f| (f.code, &*f.subject.name)).collect::<Vec<_>>(), [(Code::DuplicateMac, MAC)]);
        assert_eq!(found[0].affects.len(), 2);
        found[0].severity
    };
    assert_eq!(twice(["br0", "br0"]), Severity::Error);
    assert_eq!(twice(["br0", "br1"]), Severity::Warning);
}

#[test]
fn one_id_twice() {
    let nic = |mac: &str, tap: &str| bridged(mac, tap, &format!("<alias name='ua-{OTHER}'/>"));
    let links = [bridge(1, "br0"), on(link(7, "tap0"), 1), on(link(8, "tap1"), 1)];
    let domains = [nova(&nic(MAC, "tap0"), &[]), second(&nova(&nic("fa:16:3e:00:00:02", "tap1"), &[]))];
    assert_eq!(found(&joined(&view(&domains, &links))), one(Code::DuplicateVifId, &OTHER.to_string()));
    let twin = Port { vm_uuid: Some(WEB), iface_id: Some(PORT.to_string().into()), ..ovs_port("port9", 4) };
    assert_eq!(found(&switch(port(), &[twin], &[])), one(Code::DuplicateIfaceId, &PORT.to_string()));
}

#[test]
fn two_ids_with_one_beginning() {
    let (_, links) = host();
    let twin: Uuid = PORT.to_string().replace("4df1", "4df2").parse().unwrap();
    let domain = nova(&bridged(MAC, TAP, ""), &[PORT, twin]);
    assert_eq!(found(&joined(&view(&[domain], &links))), one(Code::AmbiguousVifId, "a756caef-c7"));
}

#[test]
fn what_a_lost_source_would_have_to_prove_is_not_found() {
    let (domain, links) = host();
    let mut view = view(&[domain], &[links.clone(), vec![link(9, "vnet3")]].concat());
    view.hypervisors[0].2.sync = stale("closed");
    // Not that vnet3 is leaked: it may be a new guest's.
    assert_eq!(found(&joined(&view)), one(Code::SourceStale, "qemu:///system"));
    view.links.sync = stale("overrun");
    let codes: BTreeSet<_> = found(&joined(&view)).into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, BTreeSet::from([Code::SourceStale]));
}

#[test]
fn a_finding_is_found_by_everything_that_it_concerns() {
    let (domain, mut links) = host();
    links[0].up = false;
    let inventory = joined(&view(&[domain], &links));
    let found = look(&inventory);
    let concerns = |thing: &str| found[0].concerns(thing, &inventory.find(thing));
    for thing in ["br0", "1", TAP, MAC, "instance-0000002a", &WEB.to_string(), &PORT.to_string()] {
        assert!(concerns(thing), "{thing}");
    }
    for thing in ["eth0", "2", "nothing"] {
        assert!(!concerns(thing), "{thing}");
    }
}
