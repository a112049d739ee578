use super::*;
use crate::{
    inventory::{
        Match, MatchedBy, VifIdSource,
        testing::{PORT, WEB, bridged, joined, link, nova, stale, view},
    },
    source::{
        Snapshot, SyncState,
        libvirt::{Unreadable, domain::DomainState},
        moment::Moment,
    },
};

mod addresses;
mod again;
mod function;
mod ovs;

const MAC: &str = "fa:16:3e:00:00:01";
const TAP: &str = "tapa756caef-c7";

fn only_vif(inventory: &Inventory) -> &Vif {
    let [vif] = inventory.instances[0].vifs.as_slice() else { panic!("{:?}", inventory.instances) };
    vif
}

#[test]
fn an_instance_is_found_by_each_of_its_names_with_its_device() {
    let inventory = joined(&view(&[nova(&bridged(MAC, TAP, ""), &[PORT])], &[link(7, TAP)]));
    for instance in
        [inventory.instance(WEB), inventory.instance_by_number(42), inventory.instance_by_name("instance-0000002a")]
    {
        let instance = instance.unwrap();
        assert_eq!((instance.display_name.as_deref(), instance.number), (Some("web"), Some(42)));
        assert_eq!(instance.project.as_ref().unwrap().name.as_deref(), Some("shop"));
    }
    let vif = only_vif(&inventory);
    assert_eq!((vif.id, vif.id_source), (PORT, VifIdSource::TargetName));
    assert_eq!(vif.device, Some(Device { index: 7, name: TAP.into() }));
    assert_eq!(vif.addresses.len(), 1);
    assert_eq!(inventory.vifs_by_device(7).count(), 1);
    assert_eq!(inventory.vifs_by_id(PORT).count(), 1);
    assert_eq!(inventory.vifs_by_mac(MAC.parse().unwrap()).count(), 1);
}

#[test]
fn the_strongest_evidence_gives_the_id_and_disagreement_is_kept() {
    let [a, b, c] = [1, 2, 3].map(|n: u128| Uuid::from_u128(n << 64));
    let virtualport = format!("<virtualport type='openvswitch'><parameters interfaceid='{a}'/></virtualport>");
    let alias = format!("<alias name='ua-{b}'/>");
    let id = |interface: &str, ports: &[Uuid]| {
        let inventory = joined(&view(&[nova(interface, ports)], &[]));
        let vif = only_vif(&inventory).clone();
        (vif.id, vif.id_source, vif.id_disagreement.iter().map(|e| (e.source, e.id)).collect::<Vec<_>>())
    };
    assert_eq!(
        id(&bridged(MAC, TAP, &(virtualport.clone() + &alias)), &[PORT]),
        (
            a,
            VifIdSource::Virtualport,
            vec![(VifIdSource::TargetName, PORT), (VifIdSource::Alias, b), (VifIdSource::OnlyPort, PORT)]
        )
    );
    assert_eq!(id(&bridged(MAC, TAP, &alias), &[PORT, c]).0, PORT);
    assert_eq!(id(&bridged(MAC, "vnet0", &alias), &[c, PORT]), (b, VifIdSource::Alias, vec![]));
    assert_eq!(id(&bridged(MAC, "vnet0", ""), &[c]), (c, VifIdSource::OnlyPort, vec![]));
    let (synthetic, source, _) = id(&bridged(MAC, "vnet0", ""), &[b, c]);
    assert_eq!((synthetic, source), (Uuid::new_v5(&WEB, MAC.as_bytes()), VifIdSource::Synthetic));
}

#[test]
fn eleven_characters_that_two_ports_of_the_host_share_are_no_evidence() {
    let twin = Uuid::from_u128(PORT.as_u128() ^ 1);
    let mut domains = vec![nova(&bridged(MAC, TAP, ""), &[PORT, Uuid::nil()])];
    let other = nova("", &[twin]).replace(&WEB.to_string(), &Uuid::max().to_string());
    assert_eq!(only_vif(&joined(&view(&domains, &[]))).id_source, VifIdSource::TargetName);
    domains.push(other);
    let inventory = joined(&view(&domains, &[]));
    assert_eq!(inventory.instance(WEB).unwrap().vifs[0].id_source, VifIdSource::Synthetic);
}

#[test]
fn the_same_mac_twice_in_one_instance_gives_two_stable_ids_and_a_list() {
    let twice = bridged(MAC, "vnet0", "") + &bridged(MAC, "vnet1", "");
    let inventory = joined(&view(&[nova(&twice, &[])], &[]));
    let ids: Vec<_> = inventory.instances[0].vifs.iter().map(|vif| vif.id).collect();
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[0], Uuid::new_v5(&WEB, MAC.as_bytes()));
    assert_eq!(inventory.vifs_by_mac(MAC.parse().unwrap()).count(), 2);
}

#[test]
fn a_vif_without_a_link_says_why() {
    let reason = |xml: String| only_vif(&joined(&view(&[xml], &[link(1, "other")]))).no_device;
    let typed = |kind: &str, more: &str| {
        nova(&format!("<interface type='{kind}'><mac address='{MAC}'/>{more}</interface>"), &[])
    };
    let target = "<target dev='x0'/>";
    for (xml, expected) in [
        (typed("bridge", target).replace(" id='3'", ""), NoDevice::NotRunning),
        (typed("bridge", ""), NoDevice::NoTarget),
        (typed("bridge", target), NoDevice::TargetMissing),
        (typed("ethernet", target), NoDevice::TargetMissing),
        (typed("user", ""), NoDevice::TypeHasNone),
        (typed("vhostuser", target), NoDevice::VhostUser),
        (typed("hostdev", ""), NoDevice::PassedThrough),
        (typed("vdpa", ""), NoDevice::Vdpa),
        (typed("direct", "").replace("'kvm'", "'lxc'"), NoDevice::InContainer),
    ] {
        assert_eq!(reason(xml.clone()), Some(expected), "{xml}");
    }
    let mut early = view(&[typed("bridge", target)], &[]);
    early.links = Snapshot::default();
    assert_eq!(only_vif(&joined(&early)).no_device, Some(NoDevice::LinksPending));
}

#[test]
fn a_record_of_each_kind_is_read_from_json_as_it_was_written() {
    for file in std::fs::read_dir("tests/data/domains").unwrap() {
        let path = file.unwrap().path();
        let xml = std::fs::read_to_string(&path).unwrap();
        if Domain::decode(&xml, DomainState::Running).is_ok() {
            let instance = &joined(&view(&[xml], &[link(7, "macvtap0")])).instances[0];
            let json = serde_json::to_string(instance).unwrap();
            let read: Instance =
                serde_json::from_str(&json).unwrap_or_else(|e| panic!("{e}: {}: {json}", path.display()));
            // A moment is told to the millisecond.
            assert_eq!(Instance { changed: instance.changed, ..read }, **instance);
        }
    }
}

#[test]
fn a_target_is_found_by_an_alternative_name_after_a_rename() {
    let mut renamed = link(7, "renamed");
    renamed.altnames.push(TAP.into());
    let inventory = joined(&view(&[nova(&bridged(MAC, TAP, ""), &[])], &[renamed]));
    assert_eq!(only_vif(&inventory).device, Some(Device { index: 7, name: "renamed".into() }));
}

#[test]
fn a_record_keeps_its_revision_until_it_changes() {
    let template = NameTemplate::default();
    let mut view = view(&[nova(&bridged(MAC, TAP, ""), &[PORT])], &[link(7, TAP)]);
    let first = join(&view, &template, &Inventory::default());
    view.links.data = Arc::new([link(7, TAP), link(8, "tapother")].into_iter().collect());
    let second = join(&view, &template, &first);
    assert_eq!((second.generation, second.instances[0].revision), (2, 1));
    assert!(Arc::ptr_eq(&first.instances[0], &second.instances[0]));
    view.links.data = Arc::default();
    let third = join(&view, &template, &second);
    assert_eq!((third.generation, third.instances[0].revision), (3, 3));
}

#[test]
fn a_lost_hypervisor_makes_its_instances_stale_and_removes_none() {
    let mut view = view(&[nova(&bridged(MAC, TAP, ""), &[])], &[]);
    assert_eq!(joined(&view).staleness(&joined(&view).instances[0]), None);
    view.hypervisors[0].2.sync = stale("closed");
    let inventory = joined(&view);
    assert_eq!(&*inventory.staleness(inventory.instance(WEB).unwrap()).unwrap().reason, "closed");
    assert!(inventory.is_complete() && inventory.is_ready());
}

#[test]
fn one_domain_that_cannot_be_read_is_stale_alone() {
    let mut view = view(&[nova("", &[]), nova("", &[]).replace(&WEB.to_string(), &PORT.to_string())], &[]);
    let domains = Arc::make_mut(&mut view.hypervisors[0].2.data);
    let unreadable = Unreadable { since: Moment::LONG_AGO, reason: "hangs".into() };
    domains.unreadable.insert(WEB, unreadable.clone());
    let inventory = joined(&view);
    assert!(inventory.staleness(inventory.instance(WEB).unwrap()).is_some());
    assert!(inventory.staleness(inventory.instance(PORT).unwrap()).is_none());
    assert!(inventory.is_complete());
    // One that has never been read may be anything: absence proves nothing then.
    Arc::make_mut(&mut view.hypervisors[0].2.data).unreadable.insert(Uuid::max(), unreadable);
    assert!(!joined(&view).is_complete());
}

#[test]
fn absence_proves_nothing_until_every_hypervisor_was_listed() {
    let mut view = view(&[], &[]);
    let pending = || Snapshot { sync: SyncState::Pending { reason: Some("no socket".into()) }, ..Snapshot::default() };
    view.hypervisors.push(("lxc:///system".into(), true, pending()));
    assert!(joined(&view).is_complete(), "an optional one is not waited for when another was listed");
    view.hypervisors[1].1 = false;
    assert!(!joined(&view).is_complete());
    view.hypervisors = vec![("qemu:///system".into(), true, pending()), ("lxc:///system".into(), true, pending())];
    let inventory = joined(&view);
    assert!(!inventory.is_complete() && inventory.is_decided());
}

#[test]
fn a_reverse_look_up_lists_everything_that_matches() {
    let mut tap = link(7, TAP);
    tap.mac = Some(MAC.parse().unwrap());
    let mut lone = link(8, "tapleaked");
    lone.mac = tap.mac;
    let domain = nova(&(bridged(MAC, TAP, "") + &bridged("fa:16:3e:00:00:02", "gone0", "")), &[PORT]);
    let inventory = joined(&view(&[domain], &[tap, lone]));
    let found = |thing: &str| -> Vec<_> {
        let name = |m: &Match| m.link.as_ref().map(|link| link.name.to_string()).unwrap_or_default();
        inventory.find(thing).iter().map(|m| (m.matched_by.clone(), name(m), m.vif)).collect()
    };
    assert_eq!(found(TAP), [(vec![MatchedBy::DeviceName], TAP.into(), Some(0))]);
    assert_eq!(found("7"), [(vec![MatchedBy::Ifindex], TAP.into(), Some(0))]);
    assert_eq!(
        found("FA-16-3E-00-00-01"),
        [
            (vec![MatchedBy::VifMac, MatchedBy::DeviceMac], TAP.into(), Some(0)),
            (vec![MatchedBy::DeviceMac], "tapleaked".into(), None)
        ]
    );
    assert_eq!(found("gone0"), [(vec![MatchedBy::Target], String::new(), Some(1))]);
    assert_eq!(found(&PORT.to_string()), [(vec![MatchedBy::VifId], TAP.into(), Some(0))]);
    assert_eq!(found(&WEB.to_string()), [(vec![MatchedBy::InstanceUuid], String::new(), None)]);
    assert_eq!(found("10.0.0.5"), [(vec![MatchedBy::FixedIp], TAP.into(), Some(0))]);
    assert_eq!(found("web"), [(vec![MatchedBy::DisplayName], String::new(), None)]);
    assert_eq!(found("nothing"), []);
}
