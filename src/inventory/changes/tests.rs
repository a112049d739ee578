use proptest::prelude::*;

use super::*;
use crate::{
    config::NameTemplate,
    inventory::{
        View, join,
        testing::{PORT, WEB, bridged, link, nova, ovs_port, stale, synced, view, with_ports},
    },
    source::{
        Snapshot,
        libvirt::domain::{Domain, DomainState, Migration},
        netlink::link::{LinkEvent, LinkKind, Links},
    },
};

const MAC: &str = "fa:16:3e:00:00:01";
const OTHER_MAC: &str = "fa:16:3e:00:00:02";

/// What is told of these views, one after the other.
fn told(views: &[View]) -> Vec<Vec<Change>> {
    let mut before = join(&views[0], &NameTemplate::default(), &Inventory::default());
    let mut told = Vec::new();
    for view in &views[1..] {
        let after = join(view, &NameTemplate::default(), &before);
        told.push(diff(&before, &after));
        before = after;
    }
    told
}

fn kinds(before: &View, after: &View) -> Vec<Kind> {
    told(&[before.clone(), after.clone()]).remove(0).into_iter().map(|change| change.kind).collect()
}

fn one() -> View {
    view(&[nova(&bridged(MAC, "tap0", ""), &[PORT])], &[link(7, "tap0"), bridge(2, "br0"), bridge(3, "br1")])
}

fn bridge(index: u32, name: &str) -> Link {
    Link { kind: LinkKind::Bridge, ..link(index, name) }
}

/// The view with one link otherwise.
fn with_link(view: &View, change: impl Fn(&mut Link)) -> View {
    let links = view.links.data.iter().map(|link| {
        let mut link = Link::clone(link);
        if link.index == 7 {
            change(&mut link);
        }
        link
    });
    View { links: Snapshot { data: Arc::new(links.collect::<Links>()), sync: synced() }, ..view.clone() }
}

/// The view with its domain otherwise.
fn with_domain(view: &View, change: impl Fn(&mut Domain)) -> View {
    let mut view = view.clone();
    let domains = Arc::make_mut(&mut view.hypervisors[0].2.data);
    domains.known.values_mut().for_each(|domain| change(Arc::make_mut(domain)));
    view
}

#[test]
fn of_what_is_the_same_nothing_is_told() {
    assert_eq!(kinds(&one(), &one()), []);
    // Not even if everything was read anew.
    assert_eq!(kinds(&one(), &with_link(&with_domain(&one(), |_| {}), |_| {})), []);
}

#[test]
fn a_guest_comes_with_its_vifs_and_goes_after_them() {
    let none = View { hypervisors: view(&[], &[]).hypervisors, ..one() };
    assert_eq!(kinds(&none, &one()), [Kind::InstanceAppeared, Kind::VifPlugged]);
    assert_eq!(kinds(&one(), &none), [Kind::VifUnplugged, Kind::InstanceGone]);
}

#[test]
fn each_change_of_a_device_has_its_kind_and_names_the_vif_that_it_carries() {
    let moved = |to: Option<u32>| move |link: &mut Link| link.controller = to;
    let on_br0 = with_link(&one(), moved(Some(2)));
    type Edit<'a> = &'a dyn Fn(&mut Link);
    let cases: [(Edit, Kind); 6] = [
        (&moved(Some(3)), Kind::DeviceMoved),
        (&moved(None), Kind::DeviceMoved),
        (&|link| link.up = false, Kind::DeviceState),
        (&|link| link.carrier = Some(false), Kind::DeviceState),
        (&|link| link.mtu = 9000, Kind::DeviceChanged),
        (&|link| link.altnames = vec!["long".into()], Kind::DeviceChanged),
    ];
    for (change, kind) in cases {
        let after = with_link(&on_br0, |link| {
            if kind != Kind::DeviceMoved {
                link.controller = Some(2);
            }
            change(link);
        });
        let changes = told(&[on_br0.clone(), after]).remove(0);
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!((changes[0].kind, changes[0].carries[0].vif_id), (kind, PORT));
        for thing in ["tap0", "7", "web"] {
            assert!(changes[0].is_about(thing), "{thing}");
        }
        assert!(changes[0].is_of_instance(&WEB.to_string()) && changes[0].is_of_device("tap0"));
        assert!(!changes[0].is_of_instance("x") && !changes[0].is_of_device("tap1") && !changes[0].is_about("8"));
    }
    // A name that libvirt does not know leaves the VIF without a device.
    let renamed = with_link(&one(), |link| link.name = "tap9".into());
    assert_eq!(kinds(&one(), &renamed), [Kind::DeviceRenamed, Kind::VifDevice]);
}

#[test]
fn a_bridge_that_is_renamed_is_told_of_its_ports_too() {
    let on_br0 = with_link(&one(), |link| link.controller = Some(2));
    let mut after = on_br0.clone();
    let mut links = Links::clone(&after.links.data);
    let renamed = LinkEvent::Exists(Arc::new(bridge(2, "br9")));
    links.apply(renamed);
    after.links.data = Arc::new(links);
    let changes = told(&[on_br0, after]).remove(0);
    assert_eq!(
        changes.iter().map(|change| change.kind).collect::<Vec<_>>(),
        [Kind::DeviceRenamed, Kind::DeviceChanged]
    );
    let Some(Record::Device(device)) = changes[1].after.as_deref() else { panic!("{changes:?}") };
    assert_eq!(&*device.controller.as_ref().unwrap().name, "br9");
}

#[test]
fn links_that_nobody_owns_are_told_as_they_come_and_go() {
    let more = [link(7, "tap0"), bridge(2, "br0"), bridge(3, "br1"), link(8, "leaked")];
    let after = View { links: view(&[], &more).links, ..one() };
    let changes = told(&[one(), after.clone()]).remove(0);
    assert_eq!((changes.len(), changes[0].kind), (1, Kind::DeviceAppeared));
    assert!(changes[0].carries.is_empty() && changes[0].is_about("leaked"));
    assert_eq!(kinds(&after, &one()), [Kind::DeviceGone]);
}

#[test]
fn each_change_of_an_instance_has_its_kind() {
    let paused = |domain: &mut crate::source::libvirt::domain::Domain| domain.state = DomainState::Paused;
    let leaving = |domain: &mut crate::source::libvirt::domain::Domain| domain.migration = Some(Migration::Outgoing);
    assert_eq!(kinds(&one(), &with_domain(&one(), paused)), [Kind::InstanceState]);
    assert_eq!(kinds(&one(), &with_domain(&one(), leaving)), [Kind::MigrationBegun]);
    assert_eq!(kinds(&with_domain(&one(), leaving), &one()), [Kind::MigrationOver]);
    let renamed = with_domain(&one(), |domain| domain.name = "other".into());
    assert_eq!(kinds(&one(), &renamed), [Kind::InstanceRenamed]);
    let swapped = View { hypervisors: view(&[nova(&bridged(OTHER_MAC, "tap0", ""), &[])], &[]).hypervisors, ..one() };
    assert_eq!(kinds(&one(), &swapped), [Kind::VifPlugged, Kind::VifUnplugged]);
}

#[test]
fn a_port_of_open_vswitch_is_told_of() {
    let port = ovs_port("tap0", 5);
    let none = with_ports(one(), &[]);
    assert_eq!(kinds(&none, &with_ports(one(), std::slice::from_ref(&port))), [Kind::PortAppeared, Kind::VifChanged]);
    let moved = Port { bridge: Some("br-ex".into()), ..port.clone() };
    let moved = (with_ports(one(), &[port]), with_ports(one(), &[moved]));
    assert_eq!(kinds(&moved.0, &moved.1), [Kind::PortChanged]);
}

#[test]
fn what_a_source_says_first_is_no_change_and_what_it_says_when_it_is_back_was_found() {
    let unread = View {
        links: Snapshot::default(),
        hypervisors: vec![("qemu:///system".into(), true, Snapshot::default())],
        ..one()
    };
    assert_eq!(kinds(&unread, &one()), [Kind::SourceRead, Kind::SourceRead]);

    let mut lost = one();
    lost.hypervisors[0].2.sync = stale("closed");
    lost.links.sync = stale("closed");
    let back = with_domain(&with_link(&one(), |link| link.mtu = 9000), |domain| domain.state = DomainState::Paused);
    let told = told(&[one(), lost, back]);
    let of = |n: usize| told[n].iter().map(|change| (change.kind, change.found)).collect::<Vec<_>>();
    assert_eq!(of(0), [(Kind::SourceLost, false), (Kind::SourceLost, false)]);
    assert_eq!(
        of(1),
        [
            (Kind::SourceRegained, false),
            (Kind::SourceRegained, false),
            (Kind::DeviceChanged, true),
            (Kind::InstanceState, true)
        ]
    );
}

#[test]
fn a_kind_is_written_as_in_json() {
    assert_eq!(Kind::InstanceAppeared.to_string(), "instance_appeared");
}

/// A host in any of many states: which links are there, how each is, and whose guests have which VIFs.
fn any_view() -> impl Strategy<Value = View> {
    let links = proptest::collection::btree_map(1u32..6, (0u8..3, 0u32..3, any::<bool>()), 0..5);
    let vifs = proptest::collection::vec((0u8..3, 0u8..4), 0..4);
    (links, vifs, any::<bool>(), any::<bool>()).prop_map(|(links, vifs, guest, paused)| {
        let links: Vec<_> = links
            .into_iter()
            .map(|(index, (name, controller, up))| Link {
                controller: Some(controller).filter(|n| *n > 0),
                up,
                ..link(index, &format!("tap{name}{index}"))
            })
            .collect();
        let vifs: String = vifs
            .into_iter()
            .map(|(mac, target)| bridged(&format!("fa:16:3e:00:00:0{mac}"), &format!("tap{target}1"), ""))
            .collect();
        let domains: Vec<_> = guest.then(|| nova(&vifs, &[])).into_iter().collect();
        let view = view(&domains, &links);
        if paused { with_domain(&view, |domain| domain.state = DomainState::Paused) } else { view }
    })
}

/// Every record, as text.
fn records(inventory: &Inventory) -> Vec<String> {
    let mut records: Vec<_> = record::all(inventory).map(|record| serde_json::to_string(&record).unwrap()).collect();
    records.sort();
    records
}

proptest! {
    #[test]
    fn the_records_before_with_the_changes_are_the_records_after(before in any_view(), after in any_view()) {
        let before = join(&before, &NameTemplate::default(), &Inventory::default());
        let after = join(&after, &NameTemplate::default(), &before);
        let mut patched = records(&before);
        for change in diff(&before, &after) {
            prop_assert_ne!(&change.before, &change.after);
            if let Some(old) = &change.before {
                let old = serde_json::to_string(old).unwrap();
                let position = patched.iter().position(|record| *record == old);
                prop_assert!(position.is_some(), "{}", old);
                patched.remove(position.unwrap());
            }
            patched.extend(change.after.iter().map(|new| serde_json::to_string(new).unwrap()));
        }
        patched.sort();
        prop_assert_eq!(patched, records(&after));
        prop_assert!(diff(&after, &after).is_empty());
    }
}
