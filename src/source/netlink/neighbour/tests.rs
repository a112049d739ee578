use proptest::{prelude::*, sample::Index};

use super::*;

// Payloads as Linux 6.18 sent them: a bridge has the index 2, and the guest fa:16:3e:00:00:2a is behind it.
const REACHABLE: &str = "020000000200000002000001080001000a0000050a000200fa163e00002a0000\
    08000400040000001400030000000000000000000000000002000000";
const STALE: &str = "020000000200000004000001080001000a0000050a000200fa163e00002a0000\
    08000400000000001400030070170000000000000000000001000000";
const REACHABLE_IPV6: &str = "0a000000020000000200000114000100fd0000000000000000000000000000050a000200fa163e00002a0000\
    08000400040000001400030000000000000000000000000002000000";
const PERMANENT: &str = "020000000200000080000001080001000a00004d0a000200fa163e0000770000\
    08000400000000001400030000000000000000000000000001000000";
const FAILED: &str = "020000000200000020000001080001000a000005080004000400000014000300a6000000a6000000a600000001000000";
const MULTICAST: &str = "0a000000020000004000000514000100ff0200000000000000000000000000160a0002003333000000160000\
    08000400000000001400030075170000050000000500000000000000";
const FORWARDING: &str = "0700000004000000020000000a000200fa163e00002a0000080009000200000008000f0000000000\
    1400030000000000000000000000000000000000";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect()
}

fn entries(neighbours: &Neighbours) -> Vec<String> {
    let mut entries: Vec<_> = neighbours.iter().map(|(n, ip, who)| format!("{n} {ip} {}", who.mac)).collect();
    entries.sort();
    entries
}

#[test]
fn whoever_has_answered_is_a_neighbour_by_either_protocol() {
    let mut neighbours = Neighbours::default();
    assert!(neighbours.apply(RTM_NEWNEIGH, &bytes(REACHABLE)));
    assert!(neighbours.apply(RTM_NEWNEIGH, &bytes(REACHABLE_IPV6)));
    assert_eq!(entries(&neighbours), ["2 10.0.0.5 fa:16:3e:00:00:2a", "2 fd00::5 fa:16:3e:00:00:2a"]);
    assert!(neighbours.iter().all(|(.., neighbour)| !neighbour.permanent));
    assert!(neighbours.apply(RTM_DELNEIGH, &bytes(REACHABLE)));
    assert_eq!(neighbours.len(), 1);
}

#[test]
fn an_entry_that_ages_is_the_same_and_one_that_failed_is_gone() {
    let mut neighbours = Neighbours::default();
    assert!(neighbours.apply(RTM_NEWNEIGH, &bytes(REACHABLE)));
    assert!(!neighbours.apply(RTM_NEWNEIGH, &bytes(STALE)));
    assert!(!neighbours.apply(RTM_NEWNEIGH, &bytes(REACHABLE)));
    assert!(neighbours.apply(RTM_NEWNEIGH, &bytes(FAILED)));
    assert!(neighbours.is_empty());
    assert!(!neighbours.apply(RTM_DELNEIGH, &bytes(FAILED)));
}

#[test]
fn an_address_that_moves_to_another_guest_is_a_change() {
    let mut neighbours = Neighbours::default();
    neighbours.apply(RTM_NEWNEIGH, &bytes(REACHABLE));
    let before = neighbours.clone();
    assert!(neighbours.apply(RTM_NEWNEIGH, &bytes(&STALE.replace("fa163e00002a", "fa163e00002b"))));
    assert_eq!(entries(&neighbours), ["2 10.0.0.5 fa:16:3e:00:00:2b"]);
    let mut macs: Vec<_> = neighbours.difference(&before).map(|mac| mac.to_string()).collect();
    macs.sort();
    assert_eq!(macs, ["fa:16:3e:00:00:2a", "fa:16:3e:00:00:2b"]);
    assert_eq!(neighbours.difference(&neighbours).count(), 0);
}

#[test]
fn what_somebody_configured_is_told_from_what_the_network_said() {
    let mut neighbours = Neighbours::default();
    assert!(neighbours.apply(RTM_NEWNEIGH, &bytes(PERMANENT)));
    assert!(neighbours.iter().all(|(.., neighbour)| neighbour.permanent));
}

#[test]
fn forwarding_entries_multicast_groups_and_proxies_are_no_neighbours() {
    let proxy = REACHABLE.replacen("0200000108", "0200080108", 1);
    assert_ne!(proxy, REACHABLE);
    for payload in [FORWARDING, MULTICAST, &proxy] {
        let mut neighbours = Neighbours::default();
        assert!(!neighbours.apply(RTM_NEWNEIGH, &bytes(payload)), "{payload}");
        assert!(neighbours.is_empty());
    }
    let mut neighbours = Neighbours::default();
    neighbours.apply(RTM_NEWNEIGH, &bytes(REACHABLE));
    assert!(!neighbours.apply(RTM_DELNEIGH, &bytes(FORWARDING)) && !neighbours.apply(RTM_DELNEIGH, &bytes(&proxy)));
    assert_eq!(neighbours.len(), 1);
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoding_panic(payload in prop::collection::vec(any::<u8>(), 0..120), kind in 28u16..30) {
        Neighbours::default().apply(kind, &payload);
    }

    #[test]
    fn a_message_that_was_damaged_is_an_entry_or_none(position in any::<Index>(), value in any::<u8>(), length in any::<Index>()) {
        let mut payload = bytes(REACHABLE_IPV6);
        let position = position.index(payload.len());
        payload[position] = value;
        payload.truncate(length.index(payload.len() + 1));
        let mut neighbours = Neighbours::default();
        let changed = neighbours.apply(RTM_NEWNEIGH, &payload);
        prop_assert_eq!(changed, neighbours.len() == 1);
    }
}
