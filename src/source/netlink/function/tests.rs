//! `tests/data/links/README.md` says where the recorded messages come from.

use std::os::unix::fs::symlink;

use netlink_packet_core::Emitable;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use proptest::{prelude::*, sample::Index};

use super::*;

const CARD: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/links/enp1s0.bin"));
const FUNCTION: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/links/enp1s0v0.bin"));

fn pci(text: &str) -> PciAddress {
    text.parse().unwrap()
}

#[test]
fn what_a_card_was_told_about_its_functions_is_read_whole() {
    let settings = decode_settings(CARD).unwrap();
    let told = |mac: &str, vlan| Settings {
        mac: mac.parse().unwrap(),
        vlan: Some(vlan),
        spoof_check: Some(true),
        trusted: Some(false),
        link_state: Some(LinkState::Auto),
    };
    let expected =
        [(0, told("00:00:00:00:00:00", 0)), (1, told("fa:16:3e:00:00:2a", 101)), (2, told("76:c1:7f:60:6f:76", 0))];
    assert_eq!(settings, expected.into());
}

#[test]
fn a_link_that_is_no_physical_function_has_none() {
    assert_eq!(decode_settings(FUNCTION), None);
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName("x".to_owned())];
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    assert_eq!(decode_settings(&bytes), None);
}

#[test]
fn addresses_of_another_length_than_ethernets_are_not_told() {
    let mut infiniband = CARD.to_vec();
    infiniband[2..4].copy_from_slice(&u16::from(LinkLayerType::Infiniband).to_ne_bytes());
    assert_eq!(decode_settings(&infiniband), None);
}

#[test]
fn sysfs_numbers_the_functions_up_to_the_first_that_is_missing() {
    let devices = tempfile::tempdir().unwrap();
    let card = devices.path().join("0000:01:00.0");
    fs::create_dir(&card).unwrap();
    for (name, target) in
        [("virtfn0", "../0000:01:10.0"), ("virtfn1", "../0000:01:10.2"), ("virtfn3", "../0000:01:10.6")]
    {
        symlink(target, card.join(name)).unwrap();
    }
    assert_eq!(numbered(devices.path(), pci("0000:01:00.0")), [(0, pci("0000:01:10.0")), (1, pci("0000:01:10.2"))]);
    symlink("../nonsense", card.join("virtfn2")).unwrap();
    assert_eq!(numbered(devices.path(), pci("0000:01:00.0")).len(), 2);
    assert_eq!(numbered(devices.path(), pci("0000:02:00.0")), []);
}

proptest! {
    #[test]
    fn no_damage_to_a_real_message_makes_the_decoder_panic(
        damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
        length in any::<Index>(),
    ) {
        let mut payload = CARD.to_vec();
        for (position, value) in damage {
            let position = position.index(payload.len());
            payload[position] = value;
        }
        payload.truncate(length.index(payload.len()));
        let _ = decode_settings(&payload);
    }
}
