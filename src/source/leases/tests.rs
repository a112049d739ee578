use proptest::{prelude::*, sample::Index};

use super::*;

/// As libvirt 9.0 wrote it.
const RECORDED: &str = r#"[
  {
    "ip-address": "192.0.2.87",
    "mac-address": "52:54:00:00:00:2a",
    "hostname": "web-1",
    "client-id": "01:52:54:00:00:00:2a",
    "expiry-time": 1795462329
  }
]
"#;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn decoded(text: &str) -> Vec<Lease> {
    decode("virbr8", text.as_bytes(), at(1_795_462_328)).unwrap()
}

#[test]
fn a_lease_is_read_whole_until_it_expires() {
    let lease = Lease {
        mac: "52:54:00:00:00:2a".parse().unwrap(),
        bridge: "virbr8".into(),
        address: "192.0.2.87".parse().unwrap(),
        expires: Some(at(1_795_462_329)),
        hostname: Some("web-1".into()),
    };
    assert_eq!(decoded(RECORDED), [lease]);
    assert_eq!(decode("virbr8", RECORDED.as_bytes(), at(1_795_462_329)).unwrap(), []);
    assert_eq!(decoded(""), []);
    assert_eq!(decoded("[\n]\n"), []);
}

#[test]
fn leases_without_end_or_name_and_of_either_protocol_are_read() {
    let text = r#"[{"ip-address": "2001:db8::7", "mac-address": "52:54:00:00:00:2a", "iaid": "1", "expiry-time": 0},
                   {"ip-address": "2001:db8::8", "iaid": "2", "client-id": "00:01", "expiry-time": 1895462329}]"#;
    let [lease] = decoded(text).try_into().unwrap();
    assert_eq!((lease.address, lease.expires, lease.hostname), ("2001:db8::7".parse().unwrap(), None, None));
}

#[test]
fn a_lease_that_cannot_be_used_costs_no_other() {
    let bad = r#"[{"ip-address": "192.0.2.300", "mac-address": "52:54:00:00:00:2b"}, 7, {},
                  {"ip-address": "192.0.2.3", "mac-address": "x"},
                  {"ip-address": "192.0.2.3", "mac-address": "52:54:00:00:00:2b", "expiry-time": 9223372036854775807},"#;
    assert_eq!(decoded(&RECORDED.replacen('[', bad, 1)).len(), 1);
    assert!(decode("virbr8", b"{}", at(0)).is_err());
}

#[test]
fn leases_are_found_by_mac_address_and_compared_by_it() {
    let lease = |mac: u8, address: u8| Lease {
        mac: [2, 0, 0, 0, 0, mac].into(),
        bridge: "virbr8".into(),
        address: [192, 0, 2, address].into(),
        expires: None,
        hostname: None,
    };
    let leases: Leases = [lease(3, 1), lease(1, 2), lease(2, 4), lease(2, 3)].into_iter().collect();
    assert_eq!(leases.of([2, 0, 0, 0, 0, 2].into()), [lease(2, 3), lease(2, 4)]);
    assert_eq!(leases.of([2, 0, 0, 0, 0, 4].into()), []);
    let others: Leases = [lease(3, 1), lease(1, 9), lease(2, 4), lease(2, 3)].into_iter().collect();
    assert!(leases.difference(&others).all(|mac| mac == [2, 0, 0, 0, 0, 1].into()));
    assert_eq!(leases.difference(&others).count(), 2);
}

/// A source that follows this directory.
fn follow(directory: &Path) -> watch::Receiver<Snapshot<Leases>> {
    let (tx, rx) = watch::channel(Snapshot::default());
    let config = LeasesConfig { directory: directory.to_owned(), ..LeasesConfig::default() };
    tokio::spawn(async move { run(config, tx, Arc::default()).await });
    rx
}

fn replace(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join("new"), text).unwrap();
    fs::rename(directory.join("new"), directory.join(name)).unwrap();
}

#[tokio::test]
async fn each_way_in_which_a_file_changes_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut rx = follow(dir.path());
    let forever = RECORDED.replace("1795462329", "0");
    let mut count = async |wanted: usize| {
        rx.wait_for(|leases| leases.sync.is_synced() && leases.data.iter().count() == wanted).await.unwrap();
    };
    count(0).await;
    replace(dir.path(), "virbr0.status", &forever);
    count(1).await;
    fs::write(dir.path().join("virbr1.status"), &forever).unwrap();
    count(2).await;
    fs::remove_file(dir.path().join("virbr0.status")).unwrap();
    count(1).await;
    fs::rename(dir.path().join("virbr1.status"), dir.path().join("virbr1.old")).unwrap();
    count(0).await;
}

#[tokio::test]
async fn a_lease_ends_when_it_expires_although_nobody_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let soon = Timestamp::now().as_second() + 2;
    replace(dir.path(), "virbr0.status", &RECORDED.replace("1795462329", &soon.to_string()));
    let mut rx = follow(dir.path());
    rx.wait_for(|leases| leases.data.iter().count() == 1).await.unwrap();
    rx.wait_for(|leases| leases.data.iter().count() == 0).await.unwrap();
    assert!(rx.borrow().sync.is_synced() && Timestamp::now() >= at(soon));
}

#[tokio::test]
async fn what_cannot_be_read_leaves_the_last_leases_marked_as_stale_until_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let forever = RECORDED.replace("1795462329", "0");
    replace(dir.path(), "virbr0.status", &forever);
    let mut rx = follow(dir.path());
    rx.wait_for(|leases| leases.sync.is_synced()).await.unwrap();
    replace(dir.path(), "virbr0.status", "[{");
    let stale = rx.wait_for(|leases| leases.sync.reason().is_some()).await.unwrap().clone();
    assert!(stale.sync.reason().unwrap().contains("virbr0.status makes no sense"), "{:?}", stale.sync);
    assert_eq!(stale.data.iter().count(), 1);
    replace(dir.path(), "virbr0.status", "");
    rx.wait_for(|leases| leases.sync.is_synced() && leases.data.iter().count() == 0).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_absent_and_one_that_goes_away_is_stale() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("dnsmasq");
    let mut rx = follow(&directory);
    rx.wait_for(|leases| leases.sync == SyncState::Absent).await.unwrap();
    fs::create_dir(&directory).unwrap();
    rx.wait_for(|leases| leases.sync.is_synced()).await.unwrap();
    fs::remove_dir(&directory).unwrap();
    rx.wait_for(|leases| matches!(leases.sync, SyncState::Stale { .. })).await.unwrap();
}

proptest! {
    #[test]
    fn no_damage_to_a_file_makes_the_decoding_panic(
        position in any::<Index>(), value in any::<u8>(), length in any::<Index>(),
    ) {
        let mut bytes = RECORDED.as_bytes().to_vec();
        let position = position.index(bytes.len());
        bytes[position] = value;
        bytes.truncate(length.index(bytes.len() + 1));
        let _ = decode("virbr8", &bytes, at(0));
    }
}
