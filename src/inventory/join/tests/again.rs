//! What is taken from the inventory before must be what would be made anew.

use proptest::{prelude::*, sample::select};

use super::{
    function::{function_of_card, hostdev, pci},
    *,
};
use crate::{
    config::NameTemplate,
    inventory::testing::{joined, ovs_port, synced},
    source::{
        leases::{Lease, Leases},
        libvirt::domain::DomainState,
        moment::Moment,
        netlink::{
            link::{LinkEvent, Links},
            neighbour::{Neighbour, Neighbours},
        },
    },
};

/// Two of them are starts of the same port ids.
const NAMES: [&str; 4] = ["tap11111111-11", "tap22222222-22", "vnet0", "br0"];
const PORTS: [u128; 3] = [
    0x11111111_1111_4000_8000_000000000001,
    0x11111111_1111_4000_8000_000000000002,
    0x22222222_2222_4000_8000_000000000003,
];

/// One change of one source.
#[derive(Clone, Debug)]
enum Change {
    /// A link has this name, perhaps this alternative name, this MTU, and perhaps this controller; or leaves. One with an
    /// MTU of 2 is a bridge.
    Link(u32, Option<(&'static str, Option<&'static str>, u8, Option<u32>)>),
    /// An instance has one VIF with this target and metadata with these ports, or leaves.
    Domain(u32, Option<(&'static str, Vec<u128>)>),
    Unreadable(u32, bool),
    /// A port with this id is there, or none of that name.
    OvsPort(&'static str, Option<u128>),
    LinksPending(bool),
    /// The link of a card with this function, whose guest has this MAC address; or it leaves.
    Card(u32, Option<(u8, u8)>),
    /// The link of this function itself, or it leaves.
    Function(u8, bool),
    /// On this link there is such a neighbour, or none.
    Neighbour(u32, u8, bool),
    /// A DHCP server has leased this address, or none.
    Lease(Option<(&'static str, u8)>),
}

fn change() -> impl Strategy<Value = Change> {
    let link = (select(&NAMES), prop::option::of(select(&NAMES)), 1..3u8, prop::option::of(1..4u32));
    let ports = prop::collection::vec(select(&PORTS), 0..3);
    prop_oneof![
        (1..4u32, prop::option::of(link)).prop_map(|(n, link)| Change::Link(n, link)),
        (1..4u32, prop::option::of((select(&NAMES), ports))).prop_map(|(n, vif)| Change::Domain(n, vif)),
        (1..4u32, any::<bool>()).prop_map(|(n, is)| Change::Unreadable(n, is)),
        (select(&NAMES), prop::option::of(select(&PORTS))).prop_map(|(name, id)| Change::OvsPort(name, id)),
        any::<bool>().prop_map(Change::LinksPending),
        (4..6u32, prop::option::of((1..4u8, 1..3u8))).prop_map(|(n, function)| Change::Card(n, function)),
        (1..4u8, any::<bool>()).prop_map(|(function, is)| Change::Function(function, is)),
        (1..4u32, 1..3u8, any::<bool>()).prop_map(|(index, address, is)| Change::Neighbour(index, address, is)),
        prop::option::of((select(&NAMES), 1..3u8)).prop_map(Change::Lease),
    ]
}

fn domain(n: u32, target: &str, ports: &[u128]) -> Domain {
    let ports: String = ports.iter().map(|id| format!("<n:port uuid='{}'/>", Uuid::from_u128(*id))).collect();
    let xml = format!(
        "<domain type='kvm' id='{n}'><name>{}</name><uuid>{}</uuid><metadata>
         <n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'><n:ports>{ports}</n:ports></n:instance>
         </metadata><devices>{}</devices></domain>",
        9 - n,
        Uuid::from_u128(n.into()),
        bridged(MAC, target, "") + &hostdev(MAC, n, "")
    );
    Domain::decode(&xml, DomainState::Running).unwrap()
}

/// The view after the change. Sources that it is not about keep their data.
fn changed(mut view: View, change: Change) -> View {
    let uuid = |n: u32| Uuid::from_u128(n.into());
    match change {
        Change::Link(index, properties) => {
            let mut links = Links::clone(&view.links.data);
            links.apply(match properties {
                Some((name, altname, mtu, controller)) => {
                    let altnames = altname.into_iter().map(Arc::from).collect();
                    let mac = Some([0, 0, 0, 0, 0, mtu].into());
                    let plain = link(index, name);
                    let kind = if mtu == 2 { LinkKind::Bridge } else { plain.kind.clone() };
                    LinkEvent::Exists(Arc::new(Link { altnames, mtu: mtu.into(), mac, controller, kind, ..plain }))
                }
                None => LinkEvent::Left { index, moved: None },
            });
            view.links.data = Arc::new(links);
        }
        Change::Card(index, function) => {
            let mut links = Links::clone(&view.links.data);
            links.apply(match function {
                Some(_) => LinkEvent::Exists(Arc::new(link(index, &format!("card{index}")))),
                None => LinkEvent::Left { index, moved: None },
            });
            let functions = function.map(|(n, mac)| function_of_card(n, [0, 0, 0, 0, 0, mac].into()));
            links.set_virtual_functions(index, functions.into_iter().collect());
            view.links.data = Arc::new(links);
        }
        Change::Function(n, is) => {
            let mut links = Links::clone(&view.links.data);
            let index = 6 + u32::from(n);
            let own = Link { pci: Some(pci(n)), ..link(index, &format!("function{n}")) };
            links.apply(if is { LinkEvent::Exists(Arc::new(own)) } else { LinkEvent::Left { index, moved: None } });
            view.links.data = Arc::new(links);
        }
        Change::LinksPending(true) => view.links.sync = SyncState::Pending { reason: None },
        Change::LinksPending(false) => view.links.sync = synced(),
        Change::Domain(n, vif) => {
            let domains = Arc::make_mut(&mut view.hypervisors[0].2.data);
            domains.known.remove(&uuid(n));
            domains.known.extend(vif.map(|(target, ports)| (uuid(n), Arc::new(domain(n, target, &ports)))));
        }
        Change::Unreadable(n, is) => {
            let domains = Arc::make_mut(&mut view.hypervisors[0].2.data);
            domains.unreadable.remove(&uuid(n));
            let reason = Unreadable { since: Moment::LONG_AGO, reason: "stuck".into() };
            domains.unreadable.extend(is.then_some((uuid(n), reason)));
        }
        Change::Neighbour(index, address, is) => {
            let (address, mac) = ([10, 0, 0, address].into(), MAC.parse().unwrap());
            let others = view.neighbours.data.iter().filter(|(n, other, _)| (*n, *other) != (index, address));
            let new = is.then_some((index, address, Neighbour { mac, permanent: false }));
            view.neighbours.data = Arc::new(others.chain(new).collect::<Neighbours>());
        }
        Change::Lease(lease) => {
            let lease = lease.map(|(bridge, address)| Lease {
                mac: MAC.parse().unwrap(),
                bridge: bridge.into(),
                address: [10, 0, 0, address].into(),
                expires: None,
                hostname: None,
            });
            view.leases.data = Arc::new(lease.into_iter().collect::<Leases>());
        }
        Change::OvsPort(name, id) => {
            let others = view.ports.data.iter().filter(|port| &*port.name != name).cloned();
            let iface_id = id.map(|id| Uuid::from_u128(id).to_string().into());
            let new = iface_id.map(|id| Arc::new(Port { iface_id: Some(id), ..ovs_port(name, 1) }));
            view.ports.data = Arc::new(others.chain(new).collect());
        }
    }
    view
}

/// Everything but what tells of the past.
fn content(inventory: &Inventory) -> String {
    let instances: Vec<_> = inventory
        .instances
        .iter()
        .map(|instance| Instance { revision: 0, changed: Moment::LONG_AGO, ..Instance::clone(instance) })
        .collect();
    let Inventory { netlink, ovsdb, hypervisors, by_key, by_carrier, by_address, links_by_name, links_by_mac, .. } =
        inventory;
    format!(
        "{instances:#?} {hypervisors:?} {netlink:?} {ovsdb:?} {by_key:#?} {by_carrier:#?} {by_address:?} {links_by_name:?} {links_by_mac:?}"
    )
}

proptest! {
    #[test]
    fn joining_after_each_change_is_joining_anew(changes in prop::collection::vec(change(), 1..40)) {
        let mut now = view(&[], &[]);
        let mut inventory = joined(&now);
        for change in changes {
            // The view before stays, as the source's channel holds it while the next is made.
            now = changed(now.clone(), change);
            let next = join(&now, &NameTemplate::default(), &inventory);
            prop_assert_eq!(content(&next), content(&joined(&now)));
            for instance in &next.instances {
                let before = inventory.instance(instance.uuid);
                prop_assert_eq!(before.is_some_and(|before| before == instance), instance.revision < next.generation);
            }
            inventory = next;
        }
    }
}
