//! VIFs that are virtual functions of a network card.

use std::path::Path;

use super::*;
use crate::{
    inventory::PassedFunction,
    pci::PciAddress,
    source::netlink::{
        function::{self, LinkState, Settings, VirtualFunction},
        link::{LinkEvent, RTM_NEWLINK},
    },
};

pub(super) fn pci(function: u8) -> PciAddress {
    PciAddress { domain: 0, bus: 1, slot: 0x10, function }
}

/// An interface that is the function at [`pci`].
pub(super) fn hostdev(mac: &str, function: u32, more: &str) -> String {
    format!(
        "<interface type='hostdev'><mac address='{mac}'/><source>
         <address type='pci' domain='0x0000' bus='0x01' slot='0x10' function='{function}'/></source>{more}</interface>"
    )
}

pub(super) fn function_of_card(function: u8, mac: MacAddr) -> VirtualFunction {
    let settings = Settings { mac, vlan: Some(0), spoof_check: None, trusted: None, link_state: None };
    VirtualFunction { number: function.into(), pci: pci(function), settings: Some(settings) }
}

/// A card, the link with index 2, and its functions with these addresses of guests.
fn card(functions: &[(u8, &str)]) -> Link {
    let functions = functions.iter().map(|(n, mac)| function_of_card(*n, mac.parse().unwrap()));
    Link { virtual_functions: functions.collect(), pci: Some("0000:01:00.0".parse().unwrap()), ..link(2, "enp1s0") }
}

fn own_link(index: u32, name: &str, function: u8) -> Link {
    Link { pci: Some(pci(function)), ..link(index, name) }
}

fn disagreeing(vif: &Vif) -> Vec<(Fact, FactSource, &str)> {
    vif.disagreements.iter().map(|other| (other.what, other.source, &*other.value)).collect()
}

fn finds(inventory: &Inventory, thing: &str) -> Vec<(Option<u32>, Option<String>, Vec<MatchedBy>)> {
    let name = |found: &Match| found.link.as_ref().map(|link| link.name.to_string());
    inventory.find(thing).into_iter().map(|found| (found.vif, name(&found), found.matched_by)).collect()
}

/// What libvirt, the kernel and sysfs said of a running guest in the virtual machine of `make test-sriov`.
#[test]
fn a_recorded_function_is_found_with_its_card_and_what_the_card_was_told() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let message = |name| std::fs::read(data.join("links").join(name)).unwrap();
    let decoded = |name| match LinkEvent::decode(RTM_NEWLINK, &message(name)) {
        Ok(LinkEvent::Exists(link)) => Arc::unwrap_or_clone(link),
        other => panic!("{other:?}"),
    };
    let (mut card, other) = (decoded("enp1s0.bin"), decoded("enp1s0v0.bin"));
    let mut settings = function::decode_settings(&message("enp1s0.bin")).unwrap();
    card.virtual_functions = [(0, 0), (1, 2), (2, 4)]
        .map(|(number, function)| VirtualFunction { number, pci: pci(function), settings: settings.remove(&number) })
        .into();
    let domain = std::fs::read_to_string(data.join("domains/recorded_hostdev.xml")).unwrap();
    let inventory = joined(&view(&[domain], &[card.clone(), other.clone()]));
    let vif = only_vif(&inventory);
    let expected = PassedFunction {
        function: VirtualFunction {
            number: 1,
            pci: "0000:01:10.2".parse().unwrap(),
            settings: Some(Settings {
                mac: "fa:16:3e:00:00:2a".parse().unwrap(),
                vlan: Some(101),
                spoof_check: Some(true),
                trusted: Some(false),
                link_state: Some(LinkState::Auto),
            }),
        },
        physical_function: Device { index: card.index, name: "enp1s0".into() },
        link: None,
    };
    assert_eq!(vif.virtual_function, Some(expected));
    assert_eq!((vif.no_device, disagreeing(vif)), (Some(NoDevice::PassedThrough), vec![]));
    assert_eq!(card.pci, Some("0000:01:00.0".parse().unwrap()));
    assert_eq!(other.pci, Some(pci(0)));
    let json = serde_json::to_value(vif).unwrap();
    assert_eq!(json["virtual_function"]["vlan"], 101);
    assert_eq!(serde_json::from_value::<Vif>(json).unwrap(), *vif);
    let json = serde_json::to_value(&card).unwrap();
    assert_eq!(serde_json::from_value::<Link>(json).unwrap(), card);
}

#[test]
fn a_recorded_tap_on_the_kernels_datapath_is_found_although_its_controller_is_no_bridge() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let decoded = |name| match LinkEvent::decode(RTM_NEWLINK, &std::fs::read(data.join("links").join(name)).unwrap()) {
        Ok(LinkEvent::Exists(link)) => Arc::unwrap_or_clone(link),
        other => panic!("{other:?}"),
    };
    let (tap, datapath) = (decoded("tapa756caef-c7.bin"), decoded("ovs-system.bin"));
    assert_eq!((tap.controller, &*datapath.name), (Some(datapath.index), "ovs-system"));
    let domain = std::fs::read_to_string(data.join("domains/recorded_openvswitch.xml")).unwrap();
    let inventory = joined(&view(&[domain], &[tap.clone(), datapath]));
    assert_eq!(only_vif(&inventory).device, Some(Device { index: tap.index, name: tap.name }));
    assert!(inventory.doubts().domains.is_empty());
}

#[test]
fn a_function_that_its_card_describes_otherwise_says_so_while_the_instance_runs() {
    let tagged = hostdev(MAC, 2, "<vlan><tag id='101'/></vlan>");
    let domain = nova(&tagged, &[]);
    let card = card(&[(2, "fa:16:3e:00:00:99")]);
    let inventory = joined(&view(std::slice::from_ref(&domain), std::slice::from_ref(&card)));
    let source = FactSource::PhysicalFunction;
    assert_eq!(
        disagreeing(only_vif(&inventory)),
        [(Fact::MacAddress, source, "fa:16:3e:00:00:99"), (Fact::Vlan, source, "0")]
    );
    let stopped = joined(&view(&[domain.replace(" id='3'", "")], &[card.clone(), own_link(4, "enp1s0v2", 2)]));
    let vif = only_vif(&stopped);
    assert_eq!(disagreeing(vif), []);
    assert_eq!(vif.virtual_function.as_ref().unwrap().link, Some(Device { index: 4, name: "enp1s0v2".into() }));
    let mut silent = card;
    silent.virtual_functions[0].settings = None;
    assert_eq!(disagreeing(only_vif(&joined(&view(&[domain], &[silent])))), []);
}

#[test]
fn a_function_is_found_by_its_address_its_mac_and_its_card() {
    let domain = nova(&hostdev(MAC, 2, ""), &[]);
    let free = "fa:16:3e:00:00:04";
    let links = [card(&[(2, MAC), (4, free)]), own_link(5, "enp1s0v4", 4)];
    let inventory = joined(&view(&[domain], &links));
    let vif = |by: &[MatchedBy]| vec![(Some(0), None, by.to_vec())];
    assert_eq!(finds(&inventory, "0000:01:10.2"), vif(&[MatchedBy::PciAddress]));
    assert_eq!(finds(&inventory, MAC), vif(&[MatchedBy::VifMac, MatchedBy::FunctionMac]));
    assert_eq!(finds(&inventory, "enp1s0"), vif(&[MatchedBy::DeviceName]));
    assert_eq!(finds(&inventory, "0000:01:00.0"), vif(&[MatchedBy::PciAddress]));
    let link = |name: &str, by: MatchedBy| (None, Some(name.to_owned()), vec![by]);
    assert_eq!(finds(&inventory, free), [link("enp1s0", MatchedBy::FunctionMac)]);
    let by = MatchedBy::PciAddress;
    assert_eq!(finds(&inventory, "0000:01:10.4"), [link("enp1s0", by), link("enp1s0v4", by)]);
    assert_eq!(finds(&inventory, "0000:01:10.6"), []);
}

#[test]
fn a_function_of_no_card_of_this_host_is_found_by_its_address_alone() {
    let inventory = joined(&view(&[nova(&hostdev(MAC, 2, ""), &[])], &[]));
    assert_eq!(only_vif(&inventory).virtual_function, None);
    assert_eq!(finds(&inventory, "0000:01:10.2"), [(Some(0), None, vec![MatchedBy::PciAddress])]);
}
