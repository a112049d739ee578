use proptest::{collection::vec, prelude::*, sample::subsequence};
use serde_json::{Map, json};

use super::*;
use crate::inventory::testing::link;

fn decode(tables: &Value) -> Update {
    Update::decode(&serde_json::value::to_raw_value(tables).unwrap()).unwrap()
}

fn tables(rows: &Value) -> Tables {
    let mut tables = Tables::default();
    tables.apply(decode(rows));
    tables
}

fn id(n: usize) -> Uuid {
    Uuid::from_u128(n as u128 + 1)
}

/// Rows of the table `Interface`, each with its columns.
fn interfaces<const N: usize>(rows: [(&str, Value); N]) -> Value {
    let row = |(n, (_, columns)): (usize, (&str, Value))| (id(n).to_string(), json!({ "new": columns }));
    json!({ "Interface": rows.into_iter().enumerate().map(row).collect::<Map<_, _>>() })
}

/// What ovsdb-server 3.1 told of a bridge `br-int` in user space with a tap that libvirt plugged, another, an internal
/// port, a patch to `br-ex`, a tunnel, a device that does not exist and one that the switch cannot open, and of a bond.
fn real() -> Ports {
    let message = include_str!("../../../../tests/data/ovsdb/userspace_datapath.json");
    let message: Value = serde_json::from_str(message).unwrap();
    let update = decode(&message["result"]);
    assert_eq!(update.malformed, []);
    let mut tables = Tables::default();
    tables.apply(update);
    tables.ports()
}

#[test]
fn a_tap_that_libvirt_plugged_is_told_with_its_bridge_and_its_vif() {
    let ports = real();
    let port = ports.by_name("tap56b97e6b-fd").unwrap();
    assert_eq!((port.bridge.as_deref(), port.datapath.as_deref()), (Some("br-int"), Some("netdev")));
    assert_eq!((&*port.kind, port.ofport, port.ifindex), ("system", Some(4), Some(7)));
    assert_eq!(port.iface_id.as_deref(), Some("56b97e6b-fd92-4c9c-a160-ca2d4dcdcbad"));
    assert_eq!(port.attached_mac, Some("fa:16:3e:00:00:07".parse().unwrap()));
    assert_eq!(port.mac_in_use, Some("fe:16:3e:00:00:07".parse().unwrap()));
    // libvirt writes `vm-id`, Nova `vm-uuid`.
    assert_eq!(port.vm_uuid, Some("85e2ccfa-fb50-421a-a87f-4ade5e12e2a2".parse().unwrap()));
    assert_eq!((port.bond.as_ref(), port.error.as_ref(), port.vlan()), (None, None, None));
}

#[test]
fn ports_that_are_no_links_and_ports_that_failed_are_told() {
    let ports = real();
    let names: Vec<_> = ports.iter().map(|port| &*port.name).collect();
    let expected =
        ["br-ex", "br-int", "e0", "e1", "int0", "nodev", "p1", "p2", "tap0", "tap56b97e6b-fd", "vhu1", "vx0"];
    assert_eq!(names, expected);
    let port = |name| ports.by_name(name).unwrap();
    assert_eq!((&*port("p1").kind, port("p1").peer.as_deref(), port("p1").ifindex), ("patch", Some("p2"), None));
    let vhost = port("vhu1");
    assert_eq!((vhost.ofport, vhost.socket.as_deref()), (None, Some("/run/vhu1")));
    assert_eq!(port("nodev").error.as_deref(), Some("could not open network device nodev (No such device)"));
    assert_eq!((port("br-int").ofport, port("br-int").bridge.as_deref()), (Some(65534), Some("br-int")));
    let members = [port("e0"), port("e1")].map(|port| (port.bond.as_deref(), port.bond_mode.as_deref()));
    assert_eq!(members, [(Some("bond0"), Some("active-backup")); 2]);
    assert_eq!(port("tap0").vlan().as_deref(), Some("tag 7"));
}

#[test]
fn secrets_in_columns_that_hold_other_things_too_go_nowhere() {
    let message = include_str!("../../../../tests/data/ovsdb/userspace_datapath.json");
    assert!(message.contains(r#"["psk","secret"]"#));
    assert!(
        !serde_json::to_string(&real().iter().map(|port| Port::clone(port)).collect::<Vec<_>>())
            .unwrap()
            .contains("secret")
    );
    let update = decode(&interfaces([("a", json!({ "name": "a", "options": [["psk", "secret"]] }))]));
    assert_eq!(update.malformed[0].problem.to_string(), "not of the expected type: options");
}

#[test]
fn a_set_is_one_value_or_any_number_of_them() {
    let port = |columns: Value| {
        let interface = interfaces([("tap", json!({ "name": "tap" }))]);
        let mut columns = columns;
        columns["name"] = "tap".into();
        columns["interfaces"] = json!(["uuid", id(0)]);
        let rows = json!({ "Interface": interface["Interface"], "Port": { id(9).to_string(): { "new": columns } } });
        let ports = tables(&rows).ports();
        Port::clone(ports.by_name("tap").unwrap())
    };
    let vlans = |port: Port| (port.tag, port.trunks);
    assert_eq!(vlans(port(json!({ "tag": 7, "trunks": 3 }))), (Some(7), vec![3]));
    assert_eq!(vlans(port(json!({ "tag": ["set", [7]], "trunks": ["set", [1, 2]] }))), (Some(7), vec![1, 2]));
    assert_eq!(vlans(port(json!({ "tag": ["set", []], "trunks": ["set", []] }))), (None, vec![]));
    let both = port(json!({ "tag": 7, "trunks": ["set", [1, 2]], "vlan_mode": "native-untagged" }));
    assert_eq!(
        (both.vlan().as_deref(), both.vlan_mode.as_deref()),
        (Some("tag 7 trunks 1,2"), Some("native-untagged"))
    );
}

#[test]
fn a_port_that_neutrons_agent_has_wired_tells_its_network() {
    let network = |other_config: Value| {
        let ports = json!({ id(9).to_string(): { "new":
            { "name": "tap", "interfaces": ["uuid", id(0)], "other_config": other_config } } });
        let interface = interfaces([("tap", json!({ "name": "tap" }))]);
        let ports = tables(&json!({ "Interface": interface["Interface"], "Port": ports })).ports();
        ports.by_name("tap").unwrap().network_id
    };
    let wired = [["net_uuid", &*id(5).to_string()], ["network_type", "vxlan"], ["physical_network", "None"]];
    assert_eq!(network(json!(["map", wired])), Some(id(5)));
    assert_eq!(network(json!(["map", [["net_uuid", "None"]]])), None);
    assert_eq!(network(json!(["map", []])), None);
}

#[test]
fn a_row_that_cannot_be_used_is_named_and_costs_no_other() {
    let rows = json!({
        "Interface": {
            id(0).to_string(): { "new": { "name": "good", "ofport": 5 } },
            id(1).to_string(): { "new": { "ofport": 5 } },
            id(2).to_string(): { "new": { "name": "half", "ofport": 70000, "ifindex": ["set", [1, 2]], "mtu": 1500 } },
            id(3).to_string(): 7,
            id(4).to_string(): [],
            id(5).to_string(): { "new": null },
            "x": { "new": { "name": "nameless" } },
        },
        "Flow_Table": { "whatever": 0 },
    });
    let update = decode(&rows);
    let mut malformed: Vec<_> = update.malformed.iter().map(|m| (m.table, m.row.clone(), m.problem.clone())).collect();
    malformed.sort_by(|a, b| a.1.cmp(&b.1));
    let expected = [
        (id(1).to_string(), Problem::Name),
        (id(2).to_string(), Problem::Columns(vec!["ifindex", "ofport"])),
        (id(3).to_string(), Problem::Notation),
        (id(4).to_string(), Problem::Notation),
        (id(5).to_string(), Problem::Notation),
        ("x".to_owned(), Problem::Uuid),
    ];
    assert_eq!(malformed, expected.map(|(row, problem)| ("Interface", row, problem)));
    let mut tables = Tables::default();
    tables.apply(update);
    let ports = tables.ports();
    assert_eq!(
        ports.iter().map(|port| (&*port.name, port.ofport, port.mtu)).collect::<Vec<_>>(),
        [("good", Some(5), None), ("half", None, Some(1500)),]
    );
}

#[test]
fn a_row_that_becomes_unusable_keeps_its_last_record() {
    let mut tables = tables(&interfaces([("a", json!({ "name": "a", "ofport": 1 }))]));
    tables.apply(decode(&interfaces([("a", json!({ "name": 5, "ofport": 2 }))])));
    assert_eq!(tables.ports().by_name("a").unwrap().ofport, Some(1));
}

#[test]
fn a_link_is_the_port_of_its_name_or_else_the_only_one_of_its_index() {
    let row = |name, ifindex: u32| (name, json!({ "name": name, "ifindex": ifindex }));
    let ports = tables(&interfaces([row("tap", 4), row("old", 5), row("vx0", 9), row("vx1", 9)])).ports();
    let port = |index, name| ports.of_link(&link(index, name)).map(|port| &*port.name);
    assert_eq!(port(4, "tap"), Some("tap"));
    // Created anew, which the switch has not noticed yet.
    assert_eq!(port(6, "tap"), Some("tap"));
    assert_eq!(port(5, "renamed"), Some("old"));
    assert_eq!(port(9, "vxlan_sys_4789"), None);
    assert_eq!(port(8, "eth0"), None);
}

#[test]
fn what_is_no_set_of_tables_is_refused() {
    for text in ["7", "null", "[]", r#"{"Interface":7}"#, r#"{"Bridge":[]}"#] {
        let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
        assert!(Update::decode(&raw).is_err(), "{text}");
    }
}

/// A row of each table, as the server writes it; references point at the rows of the other tables by number.
fn row(table: &'static str) -> BoxedStrategy<Value> {
    let references = || subsequence((0..ROWS).collect::<Vec<_>>(), 0..=ROWS);
    let reference = |numbers: Vec<usize>| match numbers[..] {
        [one] => json!(["uuid", id(one)]),
        _ => json!(["set", numbers.iter().map(|n| json!(["uuid", id(*n)])).collect::<Vec<_>>()]),
    };
    let optional = |value: Option<u16>| value.map_or(json!(["set", []]), |value| json!(value));
    match table {
        "Interface" => (0..3_u8, any::<Option<u16>>(), prop::option::of("[a-c]{0,2}"))
            .prop_map(move |(name, number, iface_id)| {
                json!({
                    "name": format!("i{name}"), "type": "", "ofport": optional(number), "ifindex": optional(number),
                    "external_ids": ["map", iface_id.iter().map(|id| json!(["iface-id", id])).collect::<Vec<_>>()],
                })
            })
            .boxed(),
        "Port" => (0..3_u8, any::<Option<u16>>(), references())
            .prop_map(move |(name, tag, interfaces)| {
                json!({ "name": format!("p{name}"), "tag": optional(tag), "interfaces": reference(interfaces) })
            })
            .boxed(),
        _ => (0..3_u8, references())
            .prop_map(move |(name, ports)| json!({ "name": format!("b{name}"), "ports": reference(ports) }))
            .boxed(),
    }
}

/// Changes of rows: the table, the number of the row, and the row as it is from then on.
fn history() -> impl Strategy<Value = Vec<(&'static str, usize, Option<Value>)>> {
    let change = prop::sample::select(vec!["Interface", "Port", "Bridge"])
        .prop_flat_map(|table| (Just(table), 0..ROWS, prop::option::weighted(0.8, row(table))));
    vec(change, 0..40)
}

type Rows = BTreeMap<(&'static str, usize), Option<Value>>;

/// `table-updates` that tell of these rows.
fn updates(rows: &Rows) -> Value {
    let mut updates = json!({});
    for ((table, n), row) in rows {
        let change = row.as_ref().map_or(json!({ "old": {} }), |row| json!({ "old": {}, "new": row }));
        updates[table][id(*n).to_string()] = change;
    }
    updates
}

const ROWS: usize = 4;

proptest! {
    #[test]
    fn replaying_any_history_onto_a_dump_equals_a_fresh_dump(history in history(), start in 0..40_usize, batch in 1..5_usize) {
        let (before, after) = history.split_at(start.min(history.len()));
        let mut rows = Rows::new();
        rows.extend(before.iter().map(|(table, n, row)| ((*table, *n), row.clone())));
        rows.retain(|_, row| row.is_some());
        let mut replayed = tables(&updates(&rows));
        for batch in after.chunks(batch) {
            let changed: Rows = batch.iter().map(|(table, n, row)| ((*table, *n), row.clone())).collect();
            replayed.apply(decode(&updates(&changed)));
            rows.extend(changed);
        }
        rows.retain(|_, row| row.is_some());
        let fresh = tables(&updates(&rows));
        prop_assert_eq!(replayed.ports(), fresh.ports());
        prop_assert_eq!(replayed, fresh);
    }

    #[test]
    fn no_value_in_any_column_makes_the_decoder_panic(
        values in vec(r#"[\[\]{}",:0-9a-z \-]{0,12}|\["(set|map|uuid)",(\[\]|"x"|\[\[\]\]|\[1,2\])\]|-?[0-9]{1,20}|""#, 12),
    ) {
        let (mut rows, mut n) = (json!({}), 0);
        for (table, columns) in MONITORED {
            for column in columns {
                let value: Value = serde_json::from_str(&values[n % values.len()]).unwrap_or_default();
                n += 1;
                rows[table][id(n).to_string()] = json!({ "new": { "name": "x", (*column): value } });
            }
        }
        prop_assert!(tables(&rows).ports().len() <= MONITORED[0].1.len());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(text in r#"\{("(Interface|Port|Bridge)":(\{[\[\]{}":,0-9a-z]*\}|[0-9]),?)*\}|.*"#) {
        if let Ok(raw) = serde_json::from_str::<Box<RawValue>>(&text) {
            let _ = Update::decode(&raw);
        }
    }
}
