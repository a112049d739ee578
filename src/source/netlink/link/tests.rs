use netlink_packet_core::Emitable;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, Stats64};
use proptest::{prelude::*, sample::Index};

use super::*;

/// Payloads of `RTM_NEWLINK` as Linux 6.18 sent them.
macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/links/", $name, ".bin")).as_slice()
    };
}

fn decoded(payload: &[u8]) -> Link {
    match LinkEvent::decode(RTM_NEWLINK, payload) {
        Ok(LinkEvent::Exists(link)) => Arc::unwrap_or_clone(link),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tap_on_a_bridge_is_read_whole() {
    let tap = decoded(recorded!("tap367b74c6-f0"));
    let bridge = decoded(recorded!("br0"));
    assert_eq!(&*tap.name, "tap367b74c6-f0");
    assert_eq!(tap.kind, LinkKind::Tap { multi_queue: true, persistent: true });
    assert_eq!((tap.mtu, tap.up, tap.controller), (1500, true, Some(bridge.index)));
    assert_eq!((tap.peer, tap.lower), (None, None));
    assert!(tap.mac.is_some() && tap.tx_queues == 256);
    // Nobody holds its other end.
    assert_eq!((tap.carrier, tap.oper_state), (Some(false), OperState::Down));
    assert_eq!(bridge.kind, LinkKind::Bridge);
}

#[test]
fn the_ends_of_a_veth_pair_know_each_other() {
    let (qvb, qvo) = (decoded(recorded!("qvb0")), decoded(recorded!("qvo0")));
    assert_eq!((&qvb.kind, &qvo.kind), (&LinkKind::Veth, &LinkKind::Veth));
    assert_eq!(qvb.peer, Some(LinkRef { index: qvo.index, netns: None }));
    assert_eq!(qvo.peer, Some(LinkRef { index: qvb.index, netns: None }));
    assert_eq!(qvo.altnames, ["port-367b74c6-f016-4feb-ad0b-f1682d9a7f9a".into()]);
}

#[test]
fn a_peer_in_another_namespace_is_not_taken_for_one_of_ours() {
    let peer = decoded(recorded!("lxc0")).peer.unwrap();
    assert!(peer.netns.is_some());
}

#[test]
fn stacked_links_name_what_is_beneath_them() {
    let beneath = decoded(recorded!("qvo0")).index;
    for (payload, kind) in [(recorded!("mvt0"), LinkKind::Macvtap), (recorded!("mvl0"), LinkKind::Macvlan)] {
        let link = decoded(payload);
        assert_eq!((&link.kind, link.lower), (&kind, Some(LinkRef { index: beneath, netns: None })));
    }
}

#[test]
fn kinds_are_told_apart() {
    assert_eq!(decoded(recorded!("tun0")).kind, LinkKind::Tun);
    assert_eq!(decoded(recorded!("lo")).kind, LinkKind::Loopback);
    assert_eq!(decoded(recorded!("vx0")).kind, LinkKind::Vxlan { vni: Some(42) });
    assert_eq!(decoded(recorded!("vx1")).kind, LinkKind::Vxlan { vni: None });
    let of = |kind, data| {
        let mut message = message(7, "x");
        let mut info = vec![LinkInfo::Kind(kind)];
        info.extend(data);
        message.attributes.push(LinkAttribute::LinkInfo(info));
        decoded(&bytes(&message)).kind
    };
    let vlan = InfoData::Vlan(vec![InfoVlan::Id(101)]);
    assert_eq!(of(InfoKind::Vlan, Some(LinkInfo::Data(vlan))), LinkKind::Vlan { id: 101 });
    assert_eq!(of(InfoKind::Bond, None), LinkKind::Bond);
    assert_eq!(of(InfoKind::Dummy, None), LinkKind::Other { name: "dummy".into() });
}

#[test]
fn what_was_asked_for_about_a_card_outlives_its_events_but_not_another_card() {
    let card = |name: &str, pci: &str| Link { pci: Some(pci.parse().unwrap()), ..decoded(&bytes(&message(7, name))) };
    let function = VirtualFunction { number: 0, pci: "0000:01:10.0".parse().unwrap(), settings: None };
    let mut links: Links = [card("eth0", "0000:01:00.0")].into_iter().collect();
    assert!(links.set_virtual_functions(7, vec![function.clone()]));
    assert!(!links.set_virtual_functions(7, vec![function.clone()]));
    assert!(!links.set_virtual_functions(8, vec![function.clone()]));
    links.apply(LinkEvent::Exists(Arc::new(card("enp1s0", "0000:01:00.0"))));
    let link = links.get(7).unwrap();
    assert_eq!((&*link.name, &*link.virtual_functions), ("enp1s0", &[function][..]));
    links.apply(LinkEvent::Exists(Arc::new(card("eth0", "0000:02:00.0"))));
    assert!(links.get(7).unwrap().virtual_functions.is_empty());
}

#[test]
fn a_link_survives_the_way_to_the_command_line_and_back() {
    let mut link = decoded(recorded!("tap367b74c6-f0"));
    for kind in [
        link.kind.clone(),
        LinkKind::Vlan { id: 5 },
        LinkKind::Vxlan { vni: None },
        LinkKind::Other { name: "dummy".into() },
    ] {
        link.kind = kind;
        let json = serde_json::to_value(&link).unwrap();
        assert_eq!(json["kind"], link.kind.to_string());
        assert_eq!(json["name"], "tap367b74c6-f0");
        assert_eq!(serde_json::from_value::<Link>(json).unwrap(), link);
    }
}

#[test]
fn leaving_a_bridge_is_not_deletion() {
    let mut message = message(7, "tap0");
    message.header.interface_family = AddressFamily::Bridge;
    assert_eq!(LinkEvent::decode(RTM_DELLINK, &bytes(&message)), Ok(LinkEvent::Irrelevant));
}

#[test]
fn a_message_without_a_name_is_an_error_that_names_the_link() {
    let mut message = message(7, "tap0");
    message.attributes.clear();
    let error = LinkEvent::decode(RTM_NEWLINK, &bytes(&message)).unwrap_err();
    assert_eq!(error, DecodeError::Name { index: 7, attributes: 0 });
    assert_eq!(LinkEvent::decode(RTM_NEWLINK, &[0; 15]), Err(DecodeError::Header(15)));
}

#[test]
fn a_message_cut_short_keeps_what_came_before_the_cut() {
    let whole = recorded!("br0");
    let link = decoded(&whole[..whole.len() - 9]);
    assert_eq!((&*link.name, link.mtu), ("br0", 1500));
}

#[test]
fn counters_are_the_kernels_64_bit_ones() {
    let mut message = message(7, "tap0");
    let mut stats = Stats64::default();
    (stats.rx_packets, stats.tx_bytes, stats.tx_dropped) = (1, u64::MAX, 3);
    message.attributes.push(LinkAttribute::Stats64(stats));
    let expected = Counters { rx_packets: 1, tx_bytes: u64::MAX, tx_dropped: 3, ..Counters::default() };
    assert_eq!(decode_counters(&bytes(&message)), Some((7, expected)));
    assert_eq!(decode_counters(&bytes(&self::message(7, "tap0"))), None);
    let (index, recorded) = decode_counters(recorded!("br0")).unwrap();
    assert_eq!((index, recorded.tx_packets, recorded.tx_bytes), (2, 2, 164));
}

fn message(index: u32, name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    message
}

fn bytes(message: &LinkMessage) -> Vec<u8> {
    let mut buffer = vec![0; message.buffer_len()];
    message.emit(&mut buffer);
    buffer
}

#[test]
fn the_end_of_a_pair_that_stays_learns_where_the_other_went() {
    let pair = |index, peer| {
        let mut message = message(index, &format!("veth{index}"));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]));
        message.attributes.push(LinkAttribute::Link(peer));
        message
    };
    let mut links: Links = [decoded(&bytes(&pair(7, 8))), decoded(&bytes(&pair(8, 7)))].into_iter().collect();
    let mut moved = pair(8, 7);
    moved.attributes.extend([LinkAttribute::NewNetnsId(5), LinkAttribute::NewIfIndex(2)]);
    links.apply(LinkEvent::decode(RTM_DELLINK, &bytes(&moved)).unwrap());
    assert_eq!(links.get(7).unwrap().peer, Some(LinkRef { index: 2, netns: Some(5) }));
    links.apply(LinkEvent::decode(RTM_NEWLINK, &bytes(&pair(9, 7))).unwrap());
    assert_eq!(links.get(7).unwrap().peer, Some(LinkRef { index: 9, netns: None }));
}

/// What may happen to the links of a namespace. Links are picked by position, so that every step does something.
#[derive(Clone, Debug)]
enum Step {
    Create { index: u32, name: u8 },
    Rename(Index, u8),
    Enslave(Index, u32),
    LeaveBridge(Index),
    CreatePair { index: u32 },
    MoveAway,
    Return { index: u32 },
    Delete(Index),
}

fn step() -> impl Strategy<Value = Step> {
    // Few indexes and names, so that they are reused.
    prop_oneof![
        3 => (1..9u32, 0..6u8).prop_map(|(index, name)| Step::Create { index, name }),
        2 => (any::<Index>(), 0..6u8).prop_map(|(which, name)| Step::Rename(which, name)),
        1 => (any::<Index>(), 1..9u32).prop_map(|(which, controller)| Step::Enslave(which, controller)),
        1 => any::<Index>().prop_map(Step::LeaveBridge),
        1 => (9..12u32).prop_map(|index| Step::CreatePair { index }),
        2 => Just(Step::MoveAway),
        2 => (9..12u32).prop_map(|index| Step::Return { index }),
        2 => any::<Index>().prop_map(Step::Delete),
    ]
}

/// The kernel: which links there are, and the messages that it sends when a step is taken. One veth pair may exist,
/// whose first end stays and whose second end moves between the namespaces.
#[derive(Default)]
struct Kernel(std::collections::BTreeMap<u32, LinkMessage>);

/// The index of the veth end that stays.
const STAYS: u32 = 20;

fn veth(index: u32, name: &str, peer: u32, netns: Option<i32>) -> LinkMessage {
    let mut veth = message(index, name);
    veth.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]));
    veth.attributes.push(LinkAttribute::Link(peer));
    veth.attributes.extend(netns.map(LinkAttribute::LinkNetNsId));
    veth
}

impl Kernel {
    fn take(&mut self, step: &Step) -> Vec<(u16, Vec<u8>)> {
        let keys: Vec<u32> = self.0.keys().copied().collect();
        let pick = |which: &Index| (!keys.is_empty()).then(|| keys[which.index(keys.len())]);
        let pick_single = |which: &Index| pick(which).filter(|index| *index < 9);
        let free = |name: u8| !self.0.values().any(|m| m.attributes[0] == LinkAttribute::IfName(format!("tap{name}")));
        match step {
            Step::Create { index, name } if !self.0.contains_key(index) && free(*name) => {
                self.0.insert(*index, message(*index, &format!("tap{name}")));
                vec![(RTM_NEWLINK, bytes(&self.0[index]))]
            }
            Step::Rename(which, name) if free(*name) => pick_single(which).map_or(vec![], |index| {
                let link = self.0.get_mut(&index).unwrap();
                link.attributes[0] = LinkAttribute::IfName(format!("tap{name}"));
                vec![(RTM_NEWLINK, bytes(link))]
            }),
            Step::Enslave(which, controller) => pick_single(which).map_or(vec![], |index| {
                let link = self.0.get_mut(&index).unwrap();
                link.attributes.truncate(1);
                link.attributes.push(LinkAttribute::Controller(*controller));
                vec![(RTM_NEWLINK, bytes(link))]
            }),
            Step::LeaveBridge(which) => pick_single(which).map_or(vec![], |index| {
                let link = self.0.get_mut(&index).unwrap();
                link.attributes.truncate(1);
                let mut port = link.clone();
                port.header.interface_family = AddressFamily::Bridge;
                vec![(RTM_DELLINK, bytes(&port)), (RTM_NEWLINK, bytes(link))]
            }),
            Step::CreatePair { index } if !self.0.contains_key(&STAYS) => {
                self.0.insert(STAYS, veth(STAYS, "stays", *index, None));
                self.0.insert(*index, veth(*index, "moves", STAYS, None));
                vec![(RTM_NEWLINK, bytes(&self.0[index])), (RTM_NEWLINK, bytes(&self.0[&STAYS]))]
            }
            Step::MoveAway => (9..12).find(|index| self.0.contains_key(index)).map_or(vec![], |index| {
                let mut moves = self.0.remove(&index).unwrap();
                moves.attributes.extend([LinkAttribute::NewNetnsId(5), LinkAttribute::NewIfIndex(2)]);
                self.0.insert(STAYS, veth(STAYS, "stays", 2, Some(5)));
                vec![(RTM_DELLINK, bytes(&moves))]
            }),
            Step::Return { index } => match self.0.get(&STAYS).map(|stays| decoded(&bytes(stays)).peer.unwrap()) {
                Some(LinkRef { netns: Some(_), .. }) => {
                    self.0.insert(STAYS, veth(STAYS, "stays", *index, None));
                    self.0.insert(*index, veth(*index, "moves", STAYS, None));
                    vec![(RTM_NEWLINK, bytes(&self.0[index]))]
                }
                _ => vec![],
            },
            // Both ends of a pair go together.
            Step::Delete(which) if pick(which).is_some_and(|index| index >= 9) => {
                self.0.split_off(&9).values().map(|end| (RTM_DELLINK, bytes(end))).collect()
            }
            Step::Delete(which) => {
                pick(which).map_or(vec![], |index| vec![(RTM_DELLINK, bytes(&self.0.remove(&index).unwrap()))])
            }
            _ => vec![],
        }
    }

    fn dump(&self) -> Links {
        self.0.values().map(|message| decoded(&bytes(message))).collect()
    }
}

#[test]
fn what_a_tap_sends_its_guest_receives_and_a_macvtap_receives_what_its_guest_does() {
    let counters = Counters {
        rx_packets: 1,
        tx_packets: 2,
        rx_bytes: 3,
        tx_bytes: 4,
        rx_errors: 5,
        tx_errors: 6,
        rx_dropped: 7,
        tx_dropped: 8,
    };
    let tap = counters.in_guests_view(&LinkKind::Tap { multi_queue: false, persistent: false });
    assert_eq!((tap.rx_packets, tap.rx_bytes, tap.rx_errors, tap.rx_dropped), (2, 4, 6, 8));
    assert_eq!(tap.in_guests_view(&LinkKind::Veth), counters);
    assert_eq!(counters.in_guests_view(&LinkKind::Macvtap), counters);
}

proptest! {
    /// The order of a session: subscribe, take a dump some time later, then replay everything since the subscription.
    #[test]
    fn replaying_any_history_onto_a_dump_equals_a_fresh_dump(
        steps in prop::collection::vec(step(), 1..60),
        subscribed in any::<Index>(),
        dumped in any::<Index>(),
    ) {
        let subscribed = subscribed.index(steps.len());
        let dumped = subscribed + dumped.index(steps.len() - subscribed);
        let (mut kernel, mut queue, mut links) = (Kernel::default(), vec![], Links::default());
        for (n, step) in steps.iter().enumerate() {
            let messages = kernel.take(step);
            if n >= subscribed {
                queue.extend(messages);
            }
            if n == dumped {
                links = kernel.dump();
            }
        }
        for (message_type, payload) in queue {
            links.apply(LinkEvent::decode(message_type, &payload).unwrap());
        }
        prop_assert_eq!(links, kernel.dump());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(message_type in 15..19u16, payload in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = LinkEvent::decode(message_type, &payload);
        let _ = decode_counters(&payload);
    }

    #[test]
    fn no_damage_to_a_real_message_makes_the_decoder_panic(
        which in 0..4usize,
        damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
        length in any::<Index>(),
    ) {
        let mut payload = [recorded!("br0"), recorded!("vx0"), recorded!("qvo0"), recorded!("tap367b74c6-f0")][which].to_vec();
        for (position, value) in damage {
            let position = position.index(payload.len());
            payload[position] = value;
        }
        payload.truncate(length.index(payload.len()));
        let _ = LinkEvent::decode(RTM_NEWLINK, &payload);
        let _ = decode_counters(&payload);
    }
}
