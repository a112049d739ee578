//! `tests/data/domains/README.md` says where the fixtures come from.

use super::*;

use std::{collections::BTreeSet, fs, sync::LazyLock};

use proptest::{prelude::*, sample::Index};

use self::fixtures::*;

mod fixtures;

#[test]
fn each_interface_has_its_mac_type_source_and_target() {
    for (name, expected) in DOMAINS {
        let interfaces: Vec<_> = decode(name).interfaces.iter().map(summary).collect();
        assert_eq!(interfaces, *expected, "{name}");
    }
}

#[test]
fn no_fixture_is_forgotten_by_the_tables() {
    let files: BTreeSet<_> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "xml"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let tables = DOMAINS.iter().map(|(name, _)| *name).chain(REFUSED.iter().copied()).map(str::to_owned).collect();
    assert_eq!(files, tables);
}

#[test]
fn interfaces_survive_the_way_to_the_command_line_and_back() {
    for (name, _) in DOMAINS {
        for interface in decode(name).interfaces {
            let json = serde_json::to_string(&interface).unwrap();
            let back: Interface = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{name}: {error}: {json}"));
            assert_eq!(back, interface, "{name}: {json}");
        }
    }
}

#[test]
fn json_has_the_type_beside_the_other_fields() {
    let json = |name, position| serde_json::to_value(interface(name, position)).unwrap();
    assert_eq!(json("recorded_user", 0)["type"], "user");
    assert_eq!(
        json("nova_sriov", 0),
        serde_json::json!({
            "mac": "fa:16:3e:5e:10:01",
            "type": "hostdev",
            "pci": "0000:3b:0a.3",
            "alias": "hostdev0",
            "vlans": [142],
        })
    );
}

#[test]
fn a_tap_is_read_with_all_that_its_interface_says() {
    let expected = Interface {
        mtu: Some(1450),
        ..in_guest(
            "52:54:00:0a:00:01",
            bridge("br0"),
            Some("mail0"),
            "ua-7d3f0c2e-54a1-4c57-9d1e-0f4b3c9a1e11",
            "virtio",
        )
    };
    assert_eq!(interface("recorded_bridge_tap", 0), expected);

    let unplugged = in_guest("52:54:00:0a:00:02", bridge("br0"), Some("vnet0"), "net0", "e1000");
    assert_eq!(interface("recorded_bridge_tap", 1), Interface { link_down: true, ..unplugged });

    let multiqueue = in_guest("52:54:00:0a:00:03", bridge("br0"), Some("proxy0"), "net0", "virtio");
    assert_eq!(interface("recorded_multiqueue_tap", 0), Interface { queues: Some(4), ..multiqueue });

    let hybrid = in_guest("fa:16:3e:4f:a1:08", bridge("qbre07a9c33-1b"), Some("tape07a9c33-1b"), "net1", "virtio");
    assert_eq!(interface("nova_ovs_hybrid_plug", 1), Interface { mtu: Some(9000), ..hybrid });
}

#[test]
fn a_tap_that_somebody_else_made_is_told_from_one_of_libvirt() {
    let calico = in_guest("52:54:00:0a:00:07", Attachment::Ethernet, Some("cali7f3a21b0c4d"), "net0", "virtio");
    assert_eq!(interface("recorded_ethernet_unmanaged", 0), Interface { unmanaged: true, ..calico });

    let managed = in_guest("52:54:00:0a:00:08", Attachment::Ethernet, Some("worker1"), "net1", "virtio");
    assert_eq!(interface("recorded_ethernet_unmanaged", 1), managed);

    let nova = in_guest("fa:16:3e:7c:00:1f", Attachment::Ethernet, Some("tap5f0e1d2c-3b"), "net0", "virtio");
    let nova = Interface { unmanaged: true, queues: Some(4), mtu: Some(1442), ..nova };
    assert_eq!(interface("nova_ovs_native", 0), nova);

    let kubevirt =
        in_guest("02:00:00:8f:3a:11", Attachment::Ethernet, Some("tap0"), "ua-default", "virtio-non-transitional");
    assert_eq!(interface("kubevirt", 0), Interface { unmanaged: true, mtu: Some(1480), ..kubevirt });
}

#[test]
fn a_network_has_its_bridge_while_the_domain_runs() {
    let default =
        |bridge: Option<&str>| Attachment::Network { network: Some("default".into()), bridge: bridge.map(Arc::from) };
    let running = in_guest("52:54:00:0a:00:04", default(Some("virbr0")), Some("vnet1"), "net0", "virtio");
    assert_eq!(interface("recorded_network", 0), running);

    let shut_off = Interface { model: Some("e1000e".into()), ..bare("52:54:00:0a:00:11", default(None)) };
    assert_eq!(interface("recorded_shut_off", 1), shut_off);
}

#[test]
fn a_running_network_interface_has_the_type_that_its_network_made_of_it() {
    let name = "recorded_network_of_host_bridge_and_macvtap";
    let bridge = Attachment::Bridge { bridge: Some("br0".into()), network: Some("lan".into()) };
    let on_bridge = in_guest("52:54:00:0a:00:1a", bridge, Some("vnet6"), "net0", "virtio");
    assert_eq!(interface(name, 0), on_bridge);
    let direct = Attachment::Direct {
        lower_device: Some("up0".into()),
        mode: Some("bridge".into()),
        network: Some("uplink".into()),
    };
    let on_device = in_guest("52:54:00:0a:00:1b", direct, Some("macvtap1"), "net1", "virtio");
    assert_eq!(interface(name, 1), on_device);
}

#[test]
fn a_macvtap_has_its_lower_device_and_mode() {
    for (name, position, expected) in [
        ("recorded_macvtap", 0, direct("up0", "bridge")),
        ("recorded_macvtap", 1, direct("up1", "vepa")),
        ("recorded_virtualports_shut_off", 0, direct("up0", "private")),
        ("nova_sriov", 1, direct("ens2f0v7", "passthrough")),
    ] {
        assert_eq!(interface(name, position).attachment, expected, "{name}");
    }
}

#[test]
fn a_container_names_its_end_of_the_veth() {
    let expected = Interface {
        target: Some("dns-host0".into()),
        guest_device: Some("ens3".into()),
        ..bare("52:54:00:0a:00:0c", bridge("br0"))
    };
    assert_eq!(interface("recorded_lxc_veth", 0), expected);

    let moved_inside =
        Interface { guest_device: Some("eth0".into()), ..bare("52:54:00:0a:00:0f", direct("up0", "bridge")) };
    assert_eq!(interface("recorded_lxc_direct", 0), moved_inside);
    assert_eq!(&*decode("recorded_lxc_direct").kind, "lxc");
}

#[test]
fn interfaces_without_a_link_on_the_host_are_read_like_others() {
    let vhu = vhostuser("/var/lib/vhost_sockets/vhu0c5b4a39-28", "server");
    let vhu = in_guest("fa:16:3e:d0:0d:01", vhu, Some("vhu0c5b4a39-28"), "net0", "virtio");
    assert_eq!(interface("nova_vhostuser", 0), Interface { queues: Some(4), mtu: Some(9000), ..vhu });
    let client = vhostuser("/run/openvswitch/vhu9b1f6a3e-2c", "client");
    assert_eq!(interface("recorded_vhostuser_shut_off", 0).attachment, client);

    let function = Interface {
        alias: Some("hostdev0".into()),
        vlans: vec![142],
        ..bare("fa:16:3e:5e:10:01", hostdev("0000:3b:0a.3"))
    };
    assert_eq!(interface("nova_sriov", 0), function);

    let vdpa = Attachment::Vdpa { character_device: Some("/dev/vhost-vdpa-0".into()) };
    let vdpa = in_guest("52:54:00:95:db:c0", vdpa, None, "net0", "virtio");
    assert_eq!(interface("vdpa", 0), Interface { queues: Some(8), ..vdpa });

    let passt = in_guest("52:54:00:98:d8:b7", Attachment::Other { name: "user".into() }, None, "net0", "virtio");
    assert_eq!(interface("passt", 0), passt);
    let passt = Attachment::Vhostuser { socket: None, mode: None };
    assert_eq!(interface("passt", 1), in_guest("52:54:00:98:d8:b8", passt, None, "net1", "virtio"));
}

#[test]
fn a_pci_domain_of_more_than_16_bits_is_not_taken_for_another() {
    let pci = |text: &str| text.parse::<PciAddress>();
    assert_eq!(interface("recorded_hostdev_shut_off", 1).attachment, hostdev("10000:3b:0a.4"));
    assert_eq!(pci("10000:3b:0a.4"), Ok(PciAddress { domain: 0x10000, bus: 0x3b, slot: 0x0a, function: 4 }));
    for text in ["", "3b:0a.4", "0000:3b:0a", "0000:3b:0a:4", "0:0000:3b:0a.4", "0000:13b:0a.4", "0000:3b:0a.x"] {
        assert!(pci(text).is_err(), "{text}");
    }
}

#[test]
fn a_malformed_pci_address_is_no_address() {
    let xml = fixture("nova_sriov");
    for (good, bad) in [
        ("domain='0x0000' bus='0x3b'", "domain='0x100000000' bus='0x3b'"),
        ("bus='0x3b'", "bus='0x100'"),
        ("bus='0x3b'", ""),
        ("slot='0x0a'", "slot='ten'"),
        ("function='0x3'", "function=''"),
    ] {
        let domain = Domain::decode(&xml.replacen(good, bad, 1), DomainState::Running).unwrap();
        assert_eq!(domain.interfaces[0].attachment, Attachment::Hostdev { pci: None }, "{bad}");
    }
}

#[test]
fn a_virtual_port_is_known_by_its_kind_id_and_profile() {
    let ovs = "recorded_openvswitch_shut_off";
    let ports = "recorded_virtualports_shut_off";
    let made_up_by_libvirt = interface(ovs, 1).virtualport.unwrap().interface_id.unwrap().to_string();
    for (name, position, expected) in [
        (ovs, 0, virtualport(Some("openvswitch"), Some("09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f"), Some("test-profile"))),
        (ovs, 1, virtualport(Some("openvswitch"), Some(&made_up_by_libvirt), None)),
        (ovs, 2, virtualport(None, Some("5e8d7a3b-0a5e-4a6c-bb3d-0e6d3f1a2b3c"), Some("blue"))),
        (ports, 0, virtualport(Some("802.1Qbh"), None, Some("finance"))),
        (ports, 1, virtualport(Some("802.1Qbg"), None, None)),
        (ports, 2, virtualport(Some("midonet"), Some("0b2d64da-3d0e-431e-afdd-804415d6ebbb"), None)),
        (
            "nova_1_0_ovs_interfaceid",
            0,
            virtualport(Some("openvswitch"), Some("7a6b5c4d-3e2f-4100-9f8e-7d6c5b4a3928"), None),
        ),
        ("nova_ovs_native", 0, None),
    ] {
        assert_eq!(interface(name, position).virtualport, expected, "{name} {position}");
    }
    assert_eq!(interface(ovs, 0).vlans, [42, 47]);
}

#[test]
fn only_a_running_domain_has_an_id() {
    for (name, _) in DOMAINS {
        let domain = decode(name);
        assert_eq!(domain.is_active(), !name.ends_with("shut_off"), "{name}");
    }
    assert_eq!(decode("cloudstack").id, Some(6));
}

#[test]
fn a_domain_has_the_uuid_name_kind_and_title_that_libvirt_shows() {
    let domain = decode("recorded_bridge_tap");
    assert_eq!(domain.uuid.to_string(), "0c1d5a5e-9b0e-4d0c-8f3a-6f1f2a6d7b01");
    assert_eq!((&*domain.name, &*domain.kind), ("mail", "kvm"));
    assert_eq!(domain.title.as_deref(), Some("Mail server of the lab"));
    assert_eq!(domain.state, DomainState::Running);
    assert_eq!(&*decode("cloudstack").name, "i-2-10-VM");
    assert_eq!(decode("cloudstack").title, None);
}

#[test]
fn nova_metadata_names_the_owner_and_the_ports() {
    let expected = Cloud {
        manager: Manager::Nova,
        display_name: Some("web & mail".into()),
        project: owner("3c5d1f3e9a9b4b7a8d2f6e0c1b4a5d6e", "web-shop"),
        user: owner("7e1f0e6ab7c64f4f8b6c6b1c8c2d9f10", "alice"),
        ports: vec![port("2f1b6c0e-8d4a-4b5e-9c3f-1a2b3c4d5e6f", &["10.0.0.12", "2001:db8::12"])],
    };
    assert_eq!(decode("recorded_nova_metadata").cloud, Some(expected));
}

#[test]
fn a_floating_ip_of_nova_is_no_address_of_the_port() {
    let expected = [
        port("b15d2b64-3a7e-4c19-8f0d-2e6b9c5a1d70", &["10.20.0.7"]),
        port("e07a9c33-1b2d-4f5e-a6c8-7d9e0f1a2b3c", &["10.30.0.7", "fd00:30::7"]),
    ];
    assert_eq!(decode("nova_ovs_hybrid_plug").cloud.unwrap().ports, expected);
}

#[test]
fn nova_before_2021_names_the_owner_but_no_ports() {
    let expected = Cloud {
        manager: Manager::Nova,
        display_name: Some("legacy-app".into()),
        project: owner("00112233445566778899aabbccddeeff", "admin"),
        user: owner("99887766554433221100ffeeddccbbaa", "admin"),
        ports: Vec::new(),
    };
    assert_eq!(decode("nova_1_0_ovs_interfaceid").cloud, Some(expected));
}

#[test]
fn a_namespace_counts_and_its_prefix_does_not() {
    let expected = Cloud {
        manager: Manager::Nova,
        display_name: Some("this name".into()),
        project: owner("33333333333333333333333333333333", "this project"),
        user: owner("22222222222222222222222222222222", "carol"),
        ports: vec![port("c0ffee00-1234-4abc-9def-0123456789ab", &["172.16.0.9"])],
    };
    assert_eq!(decode("nova_1_1_other_prefix").cloud, Some(expected));
}

#[test]
fn other_managers_are_recognised_by_their_namespace() {
    let nameless = |manager| Cloud { manager, display_name: None, project: None, user: None, ports: Vec::new() };
    let opennebula = Cloud {
        display_name: Some("ticket system <prod> & more".into()),
        project: owner("104", "support"),
        user: owner("5", "dave"),
        ..nameless(Manager::OpenNebula)
    };
    for (name, expected) in [
        ("ovirt", Some(nameless(Manager::Ovirt))),
        ("kubevirt", Some(nameless(Manager::Kubevirt))),
        ("opennebula", Some(opennebula)),
        ("cloudstack", None),
        ("virt_install", None),
        ("recorded_bridge_tap", None),
    ] {
        assert_eq!(decode(name).cloud, expected, "{name}");
    }
    assert_eq!(interface("ovirt", 0).alias.as_deref(), Some("ua-3e1f5f0d-2b7a-4a5e-9c7d-6f1e2d3c4b5a"));
    assert!(interface("ovirt", 1).link_down);
}

#[test]
fn an_unusable_interface_is_left_out_with_a_warning_and_the_others_stay() {
    assert_eq!(
        decode("unusable_interfaces").warnings,
        ["interface 1: no MAC address", "interface 2: its MAC address is malformed", "interface 3: no type"]
    );
    for (name, _) in DOMAINS.iter().filter(|(name, _)| *name != "unusable_interfaces") {
        assert_eq!(decode(name).warnings, [""; 0], "{name}");
    }
}

#[test]
fn what_libvirt_may_add_one_day_is_kept_by_name_and_odd_numbers_are_left_out() {
    let quantum = Attachment::Other { name: "quantum".into() };
    let expected = in_guest("52:54:00:fe:00:01", quantum, Some("qnt0"), "net0", "virtio");
    assert_eq!(interface("future_interface_type", 0), expected);

    let odd = in_guest("52:54:00:fe:00:02", bridge("br0"), Some("vnet0"), "net1", "virtio");
    assert_eq!(interface("future_interface_type", 1), Interface { vlans: vec![12], ..odd });
}

#[test]
fn hostile_names_arrive_letter_by_letter() {
    let domain = decode("hostile_names");
    assert_eq!(&*domain.name, " <b>\"x' &amp; 𝕎💀 ", "libvirt tells names with spaces around them from those without");
    assert_eq!(domain.title.as_deref(), Some("</title><script>alert(1)</script> ]]>"));
    let expected = Cloud {
        manager: Manager::Nova,
        display_name: Some("</nova:name><nova:owner/> 🦀 &lt; \u{202e}txt.exe".into()),
        project: owner("../../etc/passwd", "{{7*7}} ${HOME} %s"),
        user: owner("\" or 1=1 --", "名前"),
        ports: vec![port("12345678-9abc-4def-8123-456789abcdef", &["10.0.0.67"])],
    };
    assert_eq!(domain.cloud, Some(expected));
    assert_eq!(domain.interfaces[0].alias.as_deref(), Some("ua-'; DROP TABLE vifs; --"));
}

#[test]
fn elements_elsewhere_or_of_other_namespaces_do_not_count() {
    let domain = decode("hostile_metadata");
    assert_eq!(domain.cloud, None);
    assert_eq!(domain.title, None);
    let vlans = vec![6];
    let target = Some("vnet0".into());
    assert_eq!(domain.interfaces, [Interface { target, vlans, ..bare("52:54:00:69:00:00", bridge("br0")) }]);
}

#[test]
fn a_document_that_is_no_domain_is_refused() {
    let refusal = |xml: &str| Domain::decode(xml, DomainState::Running).unwrap_err();
    let domain = fixture("virt_install");
    let uuid = "<uuid>4f2d8c1a-6b3e-4a7f-9c5d-0e1f2a3b4c5d</uuid>";
    assert!(matches!(refusal(&fixture("hostile_entity_bomb")), DecodeError::Malformed(roxmltree::Error::DtdDetected)));
    assert!(
        matches!(refusal(&fixture("hostile_wrong_root")), DecodeError::NotADomain(root) if root == "domainsnapshot")
    );
    assert!(matches!(refusal("<domain xmlns='urn:example:evil'/>"), DecodeError::NotADomain(_)));
    assert!(matches!(refusal(""), DecodeError::Malformed(_)));
    assert!(matches!(refusal(domain.trim_end().trim_end_matches("</domain>")), DecodeError::Malformed(_)));
    assert!(matches!(refusal(&domain.replace("<name>debian12</name>", "<name> </name>")), DecodeError::NoName));
    assert!(matches!(refusal(&domain.replace(uuid, "")), DecodeError::NoUuid));
    assert!(matches!(refusal(&domain.replace(uuid, "<uuid>4f2d8c1a</uuid>")), DecodeError::NoUuid));
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    let (open, close) = ("<a>".repeat(100_000), "</a>".repeat(100_000));
    let xml = fixture("virt_install").replace("<devices>", &format!("{open}{close}<devices>"));
    assert_eq!(Domain::decode(&xml, DomainState::Running).unwrap().interfaces.len(), 1);
}

/// One thing that may happen to a document on its way.
#[derive(Clone, Debug)]
enum Damage {
    Delete(Index, usize),
    Duplicate(Index, usize),
    Overwrite(Index, u8),
    Truncate(Index),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let range = |at: &Index, length: usize| {
            let start = at.index(bytes.len());
            start..(start + length).min(bytes.len())
        };
        match self {
            Self::Delete(at, length) => drop(bytes.drain(range(at, *length))),
            Self::Duplicate(at, length) => bytes.extend_from_within(range(at, *length)),
            Self::Overwrite(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Self::Truncate(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<Index>(), 1..40usize).prop_map(|(at, length)| Damage::Delete(at, length)),
        4 => (any::<Index>(), 1..400usize).prop_map(|(at, length)| Damage::Duplicate(at, length)),
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Overwrite(at, byte)),
        1 => any::<Index>().prop_map(Damage::Truncate),
    ]
}

static FIXTURES: LazyLock<Vec<String>> =
    LazyLock::new(|| DOMAINS.iter().map(|(name, _)| *name).chain(REFUSED.iter().copied()).map(fixture).collect());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_damaged_document_panics(which: Index, damages in prop::collection::vec(damage(), 1..6)) {
        let mut bytes = which.get(&FIXTURES).clone().into_bytes();
        for damage in &damages {
            damage.apply(&mut bytes);
        }
        let _ = Domain::decode(&String::from_utf8_lossy(&bytes), DomainState::Running);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Domain::decode(&String::from_utf8_lossy(&bytes), DomainState::Running);
    }
}
