use super::*;
use crate::{
    inventory::{
        record,
        testing::{bridged, joined, link, nova, view},
    },
    journal::history::{History, Question, read},
};

const HOUR: i64 = 3_600_000;

fn config(dir: &tempfile::TempDir) -> JournalConfig {
    JournalConfig { path: dir.path().join("journal.db"), ..JournalConfig::default() }
}

/// So many hours from now; what is written must not be before the span begins.
fn at(hours: i64) -> Timestamp {
    Timestamp::from_millisecond(now().as_millisecond() / HOUR * HOUR + HOUR * (hours + 1)).unwrap()
}

/// The record of the VIF with this MAC address on this tap.
fn vif(mac: &str, tap: &str) -> Record {
    let inventory = joined(&view(&[nova(&bridged(mac, tap, ""), &[])], &[link(7, tap)]));
    record::all(&inventory).find(|record| matches!(record, Record::Vif(_))).unwrap()
}

fn tap(index: u32) -> Record {
    let inventory = joined(&view(&[], &[link(index, &format!("tap{index}"))]));
    record::all(&inventory).next().unwrap()
}

fn entry(time: Timestamp, before: Option<Record>, after: Option<Record>) -> Entry {
    Entry { time, found: false, before, after }
}

fn ask(config: &JournalConfig, thing: &str, at: Option<Timestamp>) -> History {
    let question = Question { thing: thing.to_owned(), at, since: None, until: None, limit: 100_000 };
    read(&config.path, true, &question).unwrap()
}

/// The MAC addresses of the VIFs that a thing was at a moment; nothing where it is not known.
fn macs(config: &JournalConfig, thing: &str, time: Timestamp) -> Option<Vec<String>> {
    let mac = |record: &Record| match record {
        Record::Vif(vif) => Some(vif.mac.to_string()),
        _ => None,
    };
    let known = ask(config, thing, Some(time)).at.unwrap().known;
    Some(known.first()?.records.iter().filter_map(|past| mac(&past.record)).collect())
}

const ONE: &str = "fa:16:3e:00:00:01";
const TWO: &str = "fa:16:3e:00:00:02";

#[test]
fn a_tap_that_had_several_owners_is_told_for_each_moment() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let mut store = Store::open(&config, "killed").unwrap();
    let (one, two) = (vif(ONE, "tap0"), vif(TWO, "tap0"));
    store.write(&[entry(at(1), None, Some(one.clone()))]).unwrap();
    store.write(&[entry(at(3), Some(one), None)]).unwrap();
    store.write(&[entry(at(5), None, Some(two.clone())), entry(at(7), Some(two), Some(vif(TWO, "tap9")))]).unwrap();
    let wanted: [(i64, &[&str]); 8] =
        [(0, &[]), (1, &[ONE]), (2, &[ONE]), (3, &[]), (4, &[]), (5, &[TWO]), (6, &[TWO]), (7, &[])];
    // What is in the future is known as long as vifd records; here its clock is only said to be ahead.
    let query = "UPDATE span SET to_time = ?1, ended = 'stopped'";
    store.db.execute(query, [at(8).as_millisecond()]).unwrap();
    for (hour, wanted) in wanted {
        assert_eq!(macs(&config, "tap0", at(hour)).unwrap(), wanted, "{hour}");
    }
    assert_eq!(macs(&config, "tap9", at(7)).unwrap(), [TWO]);
    assert_eq!(macs(&config, &TWO.to_uppercase(), at(6)).unwrap(), [TWO]);
    assert_eq!(macs(&config, "tap1", at(6)).unwrap(), Vec::<String>::new());
    assert_eq!(macs(&config, "tap0", at(9)), None, "recording had ended");
    assert_eq!(macs(&config, "tap0", at(-3)), None, "before there was a journal");
    let kinds = ask(&config, "tap0", None).changes.into_iter().map(|past| past.change.kind.to_string());
    assert_eq!(kinds.collect::<Vec<_>>(), ["vif_plugged", "vif_unplugged", "vif_plugged", "vif_device"]);
}

#[test]
fn what_nobody_recorded_is_not_known_and_what_differs_afterwards_was_found() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let mut store = Store::open(&config, "killed").unwrap();
    store.write(&[entry(now(), None, Some(vif(ONE, "tap0"))), entry(now(), None, Some(tap(8)))]).unwrap();
    let last = store.time;
    drop(store);
    while now().as_millisecond() < last + 5 {}
    let mut store = Store::open(&config, "killed").unwrap();
    let present = [vif(TWO, "tap0"), tap(8)];
    let entries = reconcile(store.present().unwrap(), present.into_iter(), |_| true);
    assert_eq!(entries.len(), 2, "the device is the same: {entries:?}");
    store.write(&entries).unwrap();
    let of = |time: i64| macs(&config, "tap0", time_of(time));
    assert_eq!(of(last).unwrap(), [ONE]);
    assert_eq!(of(last + 2), None);
    assert_eq!(of(store.time).unwrap(), [TWO]);
    let history = ask(&config, "tap0", None);
    assert!(history.changes.iter().skip(1).all(|past| past.change.found), "{history:?}");
    assert_eq!(history.recorded[0].ended.as_deref(), Some("killed"));
    // A source that was not read says nothing about what is not there.
    assert!(reconcile(store.present().unwrap(), std::iter::empty(), |_| false).is_empty());
}

fn time_of(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap()
}

#[test]
fn a_clock_that_is_set_begins_a_span_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let mut store = Store::open(&config, "killed").unwrap();
    store.write(&[entry(now(), None, Some(vif(ONE, "tap0")))]).unwrap();
    // As if it had been an hour ahead so far.
    store.clock = store.clock.checked_add(SignedDuration::from_hours(1)).unwrap();
    let update = "UPDATE span SET from_time = from_time + ?1";
    store.db.execute(update, [HOUR]).unwrap();
    store.db.execute("UPDATE batch SET time = time + ?1", [HOUR]).unwrap();
    store.write(&[entry(now(), Some(vif(ONE, "tap0")), Some(vif(ONE, "tap1")))]).unwrap();
    let history = ask(&config, "tap0", Some(now()));
    let ended: Vec<_> = history.recorded.iter().map(|span| span.ended.as_deref()).collect();
    assert_eq!(ended, [Some("clock"), None]);
    assert!(history.recorded[0].since > history.recorded[1].since);
    assert_eq!(macs(&config, "tap0", history.recorded[0].until.unwrap()).unwrap(), [ONE]);
    assert_eq!(macs(&config, "tap0", now()).unwrap(), Vec::<String>::new());
    assert_eq!(macs(&config, "tap1", now()).unwrap(), [ONE]);
}

#[test]
fn the_oldest_makes_room_and_what_is_kept_stays_whole() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { max_size: 1 << 20, ..config(&dir) };
    let mut store = Store::open(&config, "killed").unwrap();
    let old = vif(ONE, "tap0");
    store.write(&[entry(now(), None, Some(old))]).unwrap();
    let mut worst = 0;
    for round in 0..200 {
        let records: Vec<_> = (10..60).map(|n| tap(n + round)).collect();
        let come = records.iter().map(|record| entry(now(), None, Some(record.clone())));
        let go = records.iter().map(|record| entry(now(), Some(record.clone()), None));
        store.write(&come.chain(go).collect::<Vec<_>>()).unwrap();
        let files = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
        worst = worst.max(files.sum());
    }
    // Beside the file and its log there is an index of the log, 32 KiB.
    assert!(worst <= config.max_size + (32 << 10), "{worst}");
    let history = ask(&config, "tap0", Some(now()));
    assert_eq!(history.at.unwrap().known[0].records.len(), 1, "what is so since the beginning is kept");
    let first = "SELECT min(seq), (SELECT from_seq FROM span) FROM batch";
    let row = |row: &rusqlite::Row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let (first, span) = store.db.query_row(first, [], row).unwrap();
    assert!(first > 100 && first == span, "{first} {span}");
    let kept = history.recorded[0].since;
    assert_eq!(macs(&config, "tap0", kept).unwrap(), [ONE]);
    let keys = "SELECT count(*) FROM key WHERE record NOT IN (SELECT id FROM record)";
    assert_eq!(store.db.query_row(keys, [], |row| row.get::<_, i64>(0)).unwrap(), 0);

    let tiny = JournalConfig { max_size: 64 << 10, ..config.clone() };
    drop(store);
    let mut store = Store::open(&tiny, "killed").unwrap();
    let many: Vec<_> = (100..400).map(|n| entry(now(), None, Some(tap(n)))).collect();
    assert!(matches!(store.write(&many), Err(JournalError::TooSmall)));
}

#[test]
fn what_ended_too_long_ago_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { max_age: Duration::from_secs(3600), ..config(&dir) };
    let mut store = Store::open(&config, "killed").unwrap();
    let gone = vif(TWO, "tap1");
    store.write(&[entry(now(), None, Some(vif(ONE, "tap0"))), entry(now(), None, Some(gone.clone()))]).unwrap();
    store.write(&[entry(now(), Some(gone), None)]).unwrap();
    for (table, column) in [("batch", "time"), ("record", "from_time"), ("record", "to_time"), ("span", "from_time")] {
        store.db.execute(&format!("UPDATE {table} SET {column} = {column} - ?1"), [3 * HOUR]).unwrap();
    }
    store.writes = 0;
    store.write(&[entry(now(), None, Some(tap(9)))]).unwrap();
    assert!(ask(&config, "tap1", None).changes.is_empty());
    assert_eq!(ask(&config, "tap0", None).changes.len(), 1);
    assert_eq!(macs(&config, "tap0", now()).unwrap(), [ONE]);
}

#[test]
fn a_file_that_is_damaged_or_of_another_version_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let aside = |suffix: &str| dir.path().join(format!("journal.db.{suffix}")).exists();
    fs::write(&config.path, "x".repeat(10_000)).unwrap();
    drop(Store::open(&config, "killed").unwrap());
    assert!(aside("damaged"));
    let store = Store::open(&config, "killed").unwrap();
    store.db.execute_batch("PRAGMA user_version = 2").unwrap();
    drop(store);
    let mut store = Store::open(&config, "killed").unwrap();
    assert!(aside("other"));
    store.write(&(1..500).map(|n| entry(now(), None, Some(tap(n)))).collect::<Vec<_>>()).unwrap();
    drop(store);
    let mut bytes = fs::read(&config.path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 9000].fill(0xa5);
    fs::write(&config.path, bytes).unwrap();
    fs::remove_file(dir.path().join("journal.db.damaged")).unwrap();
    drop(Store::open(&config, "killed").unwrap());
    assert!(aside("damaged"));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&config.path).unwrap().permissions().mode() & 0o777, 0o600);
}
