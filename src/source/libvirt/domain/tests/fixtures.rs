//! The fixtures, what is in each, and how an interface is written down to be compared.

use std::{fs, path::PathBuf};

use super::*;

/// Every fixture that is a domain, and each of its interfaces as [`summary`] writes it.
pub(super) const DOMAINS: &[(&str, &[&str])] = &[
    ("cloudstack", &["02:00:0f:af:00:2b bridge breth1-200 vnet6"]),
    ("future_interface_type", &["52:54:00:fe:00:01 quantum - qnt0", "52:54:00:fe:00:02 bridge br0 vnet0"]),
    ("hostile_metadata", &["52:54:00:69:00:00 bridge br0 vnet0"]),
    ("hostile_names", &["52:54:00:66:66:66 bridge br \"0\" a b\"<\n😈"]),
    ("kubevirt", &["02:00:00:8f:3a:11 ethernet - tap0", "02:00:00:8f:3a:12 ethernet - tap3f2a9c1b7de"]),
    ("nova_1_0_ovs_interfaceid", &["fa:16:3e:00:5b:d2 bridge br-int tap7a6b5c4d-3e"]),
    ("nova_1_1_other_prefix", &["fa:16:3e:c0:ff:ee ethernet - tapc0ffee00-12"]),
    (
        "nova_ovs_hybrid_plug",
        &[
            "fa:16:3e:4f:a1:07 bridge qbrb15d2b64-3a tapb15d2b64-3a",
            "fa:16:3e:4f:a1:08 bridge qbre07a9c33-1b tape07a9c33-1b",
        ],
    ),
    ("nova_ovs_native", &["fa:16:3e:7c:00:1f ethernet - tap5f0e1d2c-3b"]),
    (
        "nova_sriov",
        &[
            "fa:16:3e:5e:10:01 hostdev 0000:3b:0a.3 -",
            "fa:16:3e:5e:10:02 direct ens2f0v7 macvtap0",
            "fa:16:3e:5e:10:03 hostdev 10000:01:00.2 -",
        ],
    ),
    ("nova_vhostuser", &["fa:16:3e:d0:0d:01 vhostuser /var/lib/vhost_sockets/vhu0c5b4a39-28 vhu0c5b4a39-28"]),
    ("opennebula", &["02:00:c0:a8:64:0a bridge onebr.42 one-173-0", "02:00:0a:00:00:11 bridge ovsbr0 one-173-1"]),
    ("ovirt", &["56:6f:1c:5a:00:03 bridge ovirtmgmt vnet14", "56:6f:1c:5a:00:04 bridge storage vnet15"]),
    ("passt", &["52:54:00:98:d8:b7 user - -", "52:54:00:98:d8:b8 vhostuser - -"]),
    ("recorded_bridge_tap", &["52:54:00:0a:00:01 bridge br0 mail0", "52:54:00:0a:00:02 bridge br0 vnet0"]),
    (
        "recorded_ethernet_unmanaged",
        &["52:54:00:0a:00:07 ethernet - cali7f3a21b0c4d", "52:54:00:0a:00:08 ethernet - worker1"],
    ),
    ("recorded_hostdev", &["fa:16:3e:00:00:2a hostdev 0000:01:10.2 -"]),
    (
        "recorded_hostdev_shut_off",
        &["52:54:00:0a:00:18 hostdev 0000:3b:0a.3 -", "52:54:00:0a:00:19 hostdev 10000:3b:0a.4 -"],
    ),
    ("recorded_lxc_direct", &["52:54:00:0a:00:0f direct up0 -"]),
    (
        "recorded_lxc_veth",
        &[
            "52:54:00:0a:00:0c bridge br0 dns-host0",
            "52:54:00:0a:00:0d network default vnet3",
            "52:54:00:0a:00:0e ethernet - dns-host2",
        ],
    ),
    ("recorded_macvtap", &["52:54:00:0a:00:05 direct up0 macvtap0", "52:54:00:0a:00:06 direct up1 files-vepa"]),
    ("recorded_multiqueue_tap", &["52:54:00:0a:00:03 bridge br0 proxy0"]),
    ("recorded_network", &["52:54:00:0a:00:04 network default vnet1"]),
    (
        "recorded_network_of_host_bridge_and_macvtap",
        &["52:54:00:0a:00:1a bridge br0 vnet6", "52:54:00:0a:00:1b direct up0 macvtap1"],
    ),
    ("recorded_nova_metadata", &["fa:16:3e:0a:00:01 bridge br0 tap2f1b6c0e-8d"]),
    ("recorded_openvswitch", &["fa:16:3e:00:00:2b bridge br-int tapa756caef-c7"]),
    (
        "recorded_openvswitch_shut_off",
        &[
            "52:54:00:0a:00:12 bridge br-int ovs0",
            "52:54:00:0a:00:13 bridge br-int -",
            "52:54:00:0a:00:14 network ovs-net -",
        ],
    ),
    ("recorded_shut_off", &["52:54:00:0a:00:10 bridge br0 -", "52:54:00:0a:00:11 network default -"]),
    (
        "recorded_types_without_link_shut_off",
        &[
            "52:54:00:0a:00:20 user - -",
            "52:54:00:0a:00:21 mcast - -",
            "52:54:00:0a:00:22 server - -",
            "52:54:00:0a:00:23 client - -",
            "52:54:00:0a:00:24 udp - -",
            "52:54:00:0a:00:25 null - -",
            "52:54:00:0a:00:26 vds - -",
            "52:54:00:0a:00:27 internal - -",
            "52:54:00:0a:00:28 vdpa /dev/vhost-vdpa-0 -",
        ],
    ),
    ("recorded_user", &["52:54:00:0a:00:09 user - -"]),
    (
        "recorded_vhostuser_shut_off",
        &[
            "52:54:00:0a:00:0a vhostuser /run/openvswitch/vhu9b1f6a3e-2c -",
            "52:54:00:0a:00:0b vhostuser /var/lib/vhost_sockets/dpdk-1.sock vhost1",
        ],
    ),
    (
        "recorded_virtualports_shut_off",
        &["52:54:00:0a:00:15 direct up0 -", "52:54:00:0a:00:16 direct up0 -", "52:54:00:0a:00:17 bridge br0 -"],
    ),
    ("unusable_interfaces", &["52:54:00:00:00:a0 bridge br0 vnet0", "52:54:00:00:00:a0 bridge br0 vnet4"]),
    ("vdpa", &["52:54:00:95:db:c0 vdpa /dev/vhost-vdpa-0 -"]),
    ("virt_install", &["52:54:00:6b:3c:58 network default vnet2"]),
];

/// Every fixture that is not a domain.
pub(super) const REFUSED: &[&str] = &["hostile_entity_bomb", "hostile_wrong_root"];

pub(super) fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/domains"))
}

pub(super) fn fixture(name: &str) -> String {
    fs::read_to_string(directory().join(name).with_extension("xml")).unwrap()
}

pub(super) fn decode(name: &str) -> Domain {
    Domain::decode(&fixture(name), DomainState::Running).unwrap()
}

pub(super) fn interface(name: &str, position: usize) -> Interface {
    decode(name).interfaces[position].clone()
}

/// MAC address, type, source and target.
pub(super) fn summary(interface: &Interface) -> String {
    let Interface { mac, attachment, target, .. } = interface;
    let source = attachment.source();
    let [source, target] = [source.as_deref(), target.as_deref()].map(|field| field.unwrap_or("-"));
    format!("{mac} {} {source} {target}", attachment.type_name())
}

/// An interface of which only this much is known.
pub(super) fn bare(mac: &str, attachment: Attachment) -> Interface {
    Interface::bare(mac.parse().unwrap(), attachment)
}

/// The same in a running virtual machine.
pub(super) fn in_guest(mac: &str, attachment: Attachment, target: Option<&str>, alias: &str, model: &str) -> Interface {
    Interface {
        target: target.map(Arc::from),
        alias: Some(alias.into()),
        model: Some(model.into()),
        ..bare(mac, attachment)
    }
}

pub(super) fn bridge(name: &str) -> Attachment {
    Attachment::Bridge { bridge: Some(name.into()), network: None }
}

pub(super) fn direct(device: &str, mode: &str) -> Attachment {
    Attachment::Direct { lower_device: Some(device.into()), mode: Some(mode.into()), network: None }
}

pub(super) fn vhostuser(socket: &str, mode: &str) -> Attachment {
    Attachment::Vhostuser { socket: Some(socket.into()), mode: Some(mode.into()) }
}

pub(super) fn hostdev(pci: &str) -> Attachment {
    Attachment::Hostdev { pci: Some(pci.to_owned().try_into().unwrap()) }
}

pub(super) fn virtualport(
    kind: Option<&str>,
    interface_id: Option<&str>,
    profile_id: Option<&str>,
) -> Option<VirtualPort> {
    Some(VirtualPort {
        kind: kind.map(Arc::from),
        interface_id: interface_id.map(|id| id.parse().unwrap()),
        profile_id: profile_id.map(Arc::from),
    })
}

pub(super) fn owner(id: &str, name: &str) -> Option<Owner> {
    Some(Owner { id: id.into(), name: Some(name.into()) })
}

pub(super) fn port(id: &str, fixed_ips: &[&str]) -> CloudPort {
    let fixed_ips = fixed_ips.iter().map(|ip| FixedIp { address: ip.parse().unwrap() }).collect();
    CloudPort { id: id.parse().unwrap(), fixed_ips }
}
