//! What `ovs-vsctl` says.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Prints the three tables that tell which port is on which bridge.
pub const PORTS: &str = "ovs-vsctl --timeout=20 --format=json \
    -- --columns=_uuid,name,type,ifindex,ofport,error,external_ids,mac_in_use,admin_state,link_state,mtu,options list Interface \
    -- --columns=_uuid,name,interfaces,tag,trunks,vlan_mode list Port \
    -- --columns=name,ports,datapath_type list Bridge";

/// A row of `Interface`, with what holds it.
#[derive(Clone, Debug)]
pub struct Port {
    pub name: String,
    pub bridge: Option<String>,
    pub iface_id: Option<String>,
    pub attached_mac: Option<String>,
    /// The instance that it says to belong to.
    pub instance: Option<String>,
    /// Everything, in vifd's words.
    pub record: Value,
}

/// All ports, by name.
#[derive(Clone, Debug, Default)]
pub struct Ports(BTreeMap<String, Port>);

/// A row: its cells by their columns.
type Row = Map<String, Value>;

impl Ports {
    /// Reads what [`PORTS`] prints.
    pub fn read(text: &str) -> Option<Self> {
        let tables: Vec<Value> = serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().ok()?;
        let [interfaces, ports, bridges] = &*tables.iter().map(rows).collect::<Option<Vec<_>>>()? else { return None };
        let holds = |row: &Row, column: &str, uuid: &Value| match &row[column] {
            Value::Array(members) => members.contains(uuid),
            member => member == uuid,
        };
        let described = interfaces.iter().filter_map(|interface| {
            let port = ports.iter().find(|port| holds(port, "interfaces", &interface["_uuid"]));
            let bridge = port.and_then(|port| bridges.iter().find(|bridge| holds(bridge, "ports", &port["_uuid"])));
            Some((interface["name"].as_str()?.to_owned(), Port::new(interface, port, bridge)))
        });
        Some(Self(described.collect()))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Port> {
        self.0.values()
    }

    pub fn by_name(&self, name: &str) -> Option<&Port> {
        self.0.get(name)
    }

    pub fn only_one_with(&self, ifindex: &Value) -> Option<&Port> {
        let mut with = self.iter().filter(|port| port.record["ifindex"] == *ifindex);
        with.next().filter(|_| with.next().is_none())
    }
}

impl Port {
    fn new(interface: &Row, port: Option<&Row>, bridge: Option<&Row>) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let id = |key: &str| text(&interface["external_ids"][key]);
        let uuid = |key: &str| id(key).filter(|uuid| Uuid::parse_str(uuid).is_ok());
        let instance = uuid("vm-uuid").or_else(|| uuid("vm-id"));
        let of = |row: Option<&Row>, column: &str| row.map_or(Value::Null, |row| row[column].clone());
        let or_system = |kind: Value| if kind == "" { json!("system") } else { kind };
        let is_up = |column: &str| interface[column].as_str().map(|state| state == "up");
        let unless = |nothing: Value, value: &Value| if *value == nothing { Value::Null } else { value.clone() };
        let trunks = match of(port, "trunks") {
            trunks @ (Value::Array(_) | Value::Null) => trunks,
            one => json!([one]),
        };
        let record = json!({
            "name": interface["name"],
            "ifindex": unless(json!(0), &interface["ifindex"]),
            "bridge": of(bridge, "name"),
            "datapath": or_system(of(bridge, "datapath_type")),
            "type": or_system(interface["type"].clone()),
            "ofport": unless(json!(-1), &interface["ofport"]),
            "error": interface["error"],
            "tag": of(port, "tag"),
            "trunks": trunks,
            "vlan_mode": of(port, "vlan_mode"),
            "iface_id": id("iface-id"),
            "attached_mac": id("attached-mac"),
            "vm_uuid": instance,
            "mac_in_use": interface["mac_in_use"],
            "admin_up": is_up("admin_state"),
            "link_up": is_up("link_state"),
            "mtu": interface["mtu"],
            "peer": interface["options"]["peer"],
            "socket": interface["options"]["vhost-server-path"],
        });
        Self {
            name: interface["name"].as_str().unwrap().to_owned(),
            bridge: text(&record["bridge"]),
            iface_id: id("iface-id"),
            attached_mac: id("attached-mac"),
            instance,
            record: comparable(&record),
        }
    }

    /// By what somebody may ask about it.
    pub fn things(&self) -> Vec<String> {
        let numbers = self.record.get("ofport").map(|ofport| {
            let bridge = self.bridge.clone().unwrap_or_default();
            [format!("{bridge}:{ofport}"), format!("ofport:{ofport}")]
        });
        let own = [Some(self.name.clone()), self.iface_id.clone(), self.attached_mac.clone()];
        own.into_iter().flatten().chain(numbers.into_iter().flatten()).collect()
    }

    /// Whether it is meant by that.
    pub fn is_meant(&self, thing: &str) -> bool {
        self.things().iter().any(|own| own == thing)
    }
}

/// A record without what is not there.
pub fn comparable(record: &Value) -> Value {
    let Value::Object(record) = record else { return Value::Null };
    record.iter().filter(|(_, v)| !v.is_null() && **v != json!([])).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn rows(table: &Value) -> Option<Vec<Row>> {
    let headings: Vec<_> = table["headings"].as_array()?.iter().filter_map(Value::as_str).collect();
    let row = |cells: &Value| {
        let cells = cells.as_array()?.iter().map(plain);
        Some(headings.iter().map(|heading| (*heading).to_owned()).zip(cells).collect())
    };
    table["data"].as_array()?.iter().map(row).collect()
}

/// A cell, without the notation of the database (RFC 7047, 5.1).
fn plain(cell: &Value) -> Value {
    let Some([tag, content]) = cell.as_array().map(Vec::as_slice) else { return cell.clone() };
    match (tag.as_str(), content) {
        (Some("set"), Value::Array(members)) if members.is_empty() => Value::Null,
        (Some("set"), Value::Array(members)) => members.iter().map(plain).collect(),
        (Some("map"), Value::Array(pairs)) => {
            pairs.iter().map(|pair| (pair[0].as_str().unwrap_or_default().to_owned(), pair[1].clone())).collect()
        }
        _ => content.clone(),
    }
}
