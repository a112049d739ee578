//! What stands in for what libvirt does not tell.

use super::*;
use crate::source::{SyncState, libvirt::Unreadable, moment::Moment};

const QEMU: &str = "753f173b-d4ac-4a45-aae0-fe9a4fbe0fc0";
const LXC: &str = "e7d56858-8b2d-4a6e-a1bd-614201f628e0";

fn recorded_command_line() -> CommandLine {
    CommandLine::decode(include_bytes!("../../../tests/data/processes/recorded_qemu.cmdline")).unwrap()
}

fn recorded_state() -> Domain {
    Domain::decode_state_file(include_str!("../../../tests/data/processes/recorded_qemu_state.xml")).unwrap()
}

fn container() -> Domain {
    Domain::decode_state_file(include_str!("../../../tests/data/processes/recorded_lxc_state.xml")).unwrap()
}

fn held(pairs: &[(u32, &str)]) -> Vec<Held> {
    pairs.iter().map(|(descriptor, device)| Held { descriptor: *descriptor, device: (*device).into() }).collect()
}

fn targets(domain: &Domain) -> Vec<Option<&str>> {
    domain.interfaces.iter().map(|interface| interface.target.as_deref()).collect()
}

#[test]
fn a_state_file_tells_all_that_libvirt_knew() {
    let domain = recorded_state();
    assert_eq!((domain.uuid.to_string(), domain.id, domain.state), (QEMU.to_owned(), Some(1), DomainState::Running));
    assert_eq!(domain.process, Some(Process { pid: 104, described_by: DescribedBy::StateFile }));
    assert_eq!(domain.cloud.as_ref().unwrap().display_name.as_deref(), Some("web-1"));
    assert_eq!(targets(&domain), [Some("tapebffdf78-b3"), Some("tap32be6201-55"), Some("tapa849f83a-d0")]);
    let all = held(&[(11, "tapa849f83a-d0"), (30, "tapebffdf78-b3"), (32, "tapebffdf78-b3"), (33, "tap32be6201-55")]);
    assert_eq!(confirmed(domain.clone(), &all), domain);
    let renamed = confirmed(domain, &held(&[(30, "mine"), (32, "mine")]));
    assert_eq!(renamed.warnings, ["its process holds the device mine, which libvirt's state file does not name"]);
    assert_eq!(targets(&container()), [Some("tape232c7c8-25")]);
}

#[test]
fn what_is_no_state_file_is_refused() {
    for xml in ["", "<domain/>", "<domstatus pid='1'/>", "<domstatus><domain/></domstatus>"] {
        assert!(Domain::decode_state_file(xml).is_err(), "{xml}");
    }
}

#[test]
fn descriptors_tell_the_device_of_each_interface_on_the_command_line() {
    let all = held(&[(11, "tapa849f83a-d0"), (30, "renamed"), (32, "renamed"), (33, "tap32be6201-55")]);
    let domain = described(104, &recorded_command_line(), Ok(all)).unwrap();
    assert_eq!(targets(&domain), [Some("renamed"), Some("tap32be6201-55")]);
    assert!(domain.is_active() && domain.warnings.len() == 1, "{domain:?}");
    assert!(domain.warnings[0].contains("tapa849f83a-d0 too") && domain.warnings[0].contains("later"));

    let refused = described(104, &recorded_command_line(), Err(io::ErrorKind::PermissionDenied.into())).unwrap();
    assert_eq!(targets(&refused), [None, None]);
    assert!(refused.warnings[0].contains("descriptors cannot be read"), "{refused:?}");
}

#[test]
fn a_containers_uuid_is_in_the_environment_of_its_init() {
    let environment = format!("PATH=/bin\0container=lxc-libvirt\0LIBVIRT_LXC_UUID={LXC}\0LIBVIRT_LXC_NAME=x\0");
    assert_eq!(container_uuid(environment.as_bytes()), LXC.parse().ok());
    assert_eq!(container_uuid(b"LIBVIRT_LXC_UUID=\xff\0"), None);
    assert_eq!(container_uuid(b""), None);
}

fn synced(known: Vec<Domain>, unreadable: &[&str]) -> Snapshot<Domains> {
    let unreadable = unreadable
        .iter()
        .map(|uuid| (uuid.parse().unwrap(), Unreadable { since: Moment::now(), reason: "it hangs".into() }));
    let known = known.into_iter().map(|domain| (domain.uuid, Arc::new(domain))).collect();
    let domains = Domains { known, unreadable: unreadable.collect() };
    Snapshot { data: Arc::new(domains), sync: SyncState::Synced { since: Moment::now() } }
}

fn pending() -> Snapshot<Domains> {
    Snapshot { data: Arc::default(), sync: SyncState::Pending { reason: Some("no answer".into()) } }
}

#[test]
fn a_process_stands_in_for_what_its_hypervisor_cannot_tell_and_doubles_nothing() {
    let found = |told: &[(&str, Snapshot<Domains>)]| {
        let told: Vec<_> = told.iter().map(|(uri, told)| (Arc::from(*uri), told.clone())).collect();
        let domains = stand_in(vec![recorded_state(), container()], &told);
        domains.known.into_keys().map(|uuid| uuid.to_string()).collect::<Vec<_>>()
    };
    let (qemu, lxc) = ("qemu:///system", "lxc:///system");
    assert_eq!(found(&[(qemu, pending()), (lxc, pending())]), [QEMU, LXC]);
    assert_eq!(found(&[("qemu+unix:///system?socket=/x", pending()), (lxc, synced(vec![container()], &[]))]), [QEMU]);
    // libvirt says that there is no such domain, and is believed.
    assert_eq!(found(&[(qemu, synced(vec![], &[])), (lxc, pending())]), [LXC]);
    // It hangs in this one alone, and has told of it before, or not.
    assert_eq!(found(&[(qemu, synced(vec![], &[QEMU])), (lxc, synced(vec![], &[]))]), [QEMU]);
    assert!(found(&[(qemu, synced(vec![recorded_state()], &[QEMU]))]).is_empty());
    // Nobody asked for these.
    assert!(found(&[("test:///default", pending())]).is_empty() && found(&[]).is_empty());
}

#[tokio::test]
async fn nothing_is_said_before_each_hypervisor_has_been_decided() {
    let (told_tx, told) = watch::channel(Snapshot::default());
    let (tx, mut rx) = watch::channel(Snapshot::default());
    tokio::spawn(run(vec![("qemu:///system".into(), told)], tx));
    tokio::task::yield_now().await;
    assert!(!rx.borrow().sync.is_decided());
    told_tx.send_replace(synced(vec![recorded_state()], &[]));
    let domains = rx.wait_for(|snapshot| snapshot.sync.is_synced()).await.unwrap().data.clone();
    assert!(domains.known.is_empty(), "{domains:?}");
}
