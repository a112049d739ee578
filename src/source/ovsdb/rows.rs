//! What the Open vSwitch database says: the pure decoding of its monitor's updates, and the ports that they describe.
//!
//! An update describes each row that it names completely, so [`Tables::apply`] replaces and never patches. A column
//! that cannot be used is as good as empty, a row without a name is ignored and so keeps its last record; both cost a
//! warning, and never another row.
//!
//! Only what vifd uses is looked at. The rest may hold secrets, such as the `psk` of a tunnel's options: nothing here
//! repeats a value that it does not know.
//!
//! Sources: RFC 7047, sections 4.1.5 and 4.1.6 (updates) and 5.1 (notation); ovs-vswitchd.conf.db(5) (columns);
//! Open vSwitch's `Documentation/topics/integration.rst` (external ids); os-vif and libvirt for what they write.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use uuid::Uuid;

use self::columns::Columns;
use crate::{mac::MacAddr, source::netlink::link::Link};

mod columns;

/// The tables and columns to follow. Not `statistics`, which change every few seconds.
pub const MONITORED: [(&str, &[&str]); 3] = [
    (InterfaceRow::TABLE, InterfaceRow::COLUMNS),
    (PortRow::TABLE, PortRow::COLUMNS),
    (BridgeRow::TABLE, BridgeRow::COLUMNS),
];

/// A port of an Open vSwitch bridge: a row of the table `Interface`, with the `Port` and the `Bridge` that hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Port {
    /// The name: that of the link, where it has one.
    pub name: Arc<str>,
    /// The index of the link, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<u32>,
    /// The bridge. Absent while the port is being added or removed.
    pub bridge: Option<Arc<str>>,
    /// The bridge's datapath: `system` (in the kernel) or `netdev` (in user space).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datapath: Option<Arc<str>>,
    /// The name of the bond that the port is a member of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bond: Option<Arc<str>>,
    /// How that bond chooses among its members, where that is said: `active-backup`, `balance-slb`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bond_mode: Option<Arc<str>>,
    /// `system` (a link of the host), `internal`, `patch`, `dpdkvhostuserclient`, `vxlan`, …
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// Its number in flows. Absent until the switch has opened the device, and if that failed.
    pub ofport: Option<u16>,
    /// Why the switch could not make it work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
    /// The VLAN that its untagged packets belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<u16>,
    /// The VLANs that it trunks; all of them where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trunks: Vec<u16>,
    /// How tag and trunks are meant, where that is said: `access`, `trunk`, `native-untagged`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_mode: Option<Arc<str>>,
    /// `other_config:net_uuid`: the network's id, where Neutron's Open vSwitch agent has wired the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_id: Option<Uuid>,
    /// `external_ids:iface-id`: the VIF's id, by whoever plugged it. Usually a UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iface_id: Option<Arc<str>>,
    /// `external_ids:attached-mac`: the VIF's MAC address, by whoever plugged it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_mac: Option<MacAddr>,
    /// `external_ids:vm-uuid` (Nova) or else `vm-id` (libvirt): the instance, by whoever plugged it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm_uuid: Option<Uuid>,
    /// The port's own MAC address: of a tap's host side, not of its guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_in_use: Option<MacAddr>,
    /// Set up by an administrator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_up: Option<bool>,
    /// Whether it has a carrier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_up: Option<bool>,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The other end of a patch port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Arc<str>>,
    /// The vhost-user socket that the switch connects to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<Arc<str>>,
    /// The IP address of the other end of a tunnel, or `flow` where flows choose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Arc<str>>,
    /// The key of a tunnel: a VXLAN's VNI, or `flow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_key: Option<Arc<str>>,
    /// The device by which the host's routes send the packets of a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Arc<str>>,
}

impl Port {
    /// What packets of the port belong to: `tag 7`, `trunks 1,2`.
    #[must_use]
    pub fn vlan(&self) -> Option<String> {
        let tag = self.tag.map(|tag| format!("tag {tag}"));
        let trunks: Vec<_> = self.trunks.iter().map(u16::to_string).collect();
        let trunks = (!trunks.is_empty()).then(|| format!("trunks {}", trunks.join(",")));
        let all: Vec<_> = tag.into_iter().chain(trunks).collect();
        (!all.is_empty()).then(|| all.join(" "))
    }
}

/// The ports of all Open vSwitch bridges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    by_name: Vec<Arc<Port>>,
    /// Pairs of an ifindex and a position in `by_name`.
    by_ifindex: Vec<(u32, usize)>,
}

impl Ports {
    /// The port with this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Arc<Port>> {
        let position = self.by_name.binary_search_by(|port| (*port.name).cmp(name)).ok()?;
        Some(&self.by_name[position])
    }

    /// The port that a link is: the one with its name, since it is by name that the switch opens a link; else, for a
    /// link that was renamed since, the only one with its index. (Tunnels may share the index of one link.)
    #[must_use]
    pub fn of_link(&self, link: &Link) -> Option<&Arc<Port>> {
        self.by_name(&link.name).or_else(|| {
            let start = self.by_ifindex.partition_point(|(ifindex, _)| *ifindex < link.index);
            let mut same = self.by_ifindex[start..].iter().take_while(|(ifindex, _)| *ifindex == link.index);
            match (same.next(), same.next()) {
                (Some((_, position)), None) => Some(&self.by_name[*position]),
                _ => None,
            }
        })
    }

    /// Every port, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Port>> {
        self.by_name.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

impl FromIterator<Arc<Port>> for Ports {
    fn from_iter<I: IntoIterator<Item = Arc<Port>>>(ports: I) -> Self {
        let mut by_name: Vec<_> = ports.into_iter().collect();
        by_name.sort_by(|a, b| a.name.cmp(&b.name));
        let numbered = by_name.iter().enumerate();
        let mut by_ifindex: Vec<_> = numbered.filter_map(|(n, port)| Some((port.ifindex?, n))).collect();
        by_ifindex.sort_unstable();
        Self { by_name, by_ifindex }
    }
}

/// The rows that the server has, as far as they are followed, and the ports that they describe. Only what an update
/// touches is described anew, since a host has thousands of ports and each that comes or goes is an update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    interfaces: BTreeMap<Uuid, InterfaceRow>,
    ports: BTreeMap<Uuid, PortRow>,
    bridges: BTreeMap<Uuid, BridgeRow>,
    /// The `Port` that holds an `Interface`.
    holders: Holders,
    /// The `Bridge` that holds a `Port`.
    bridge_of: Holders,
    /// The port of each `Interface`.
    described: BTreeMap<(Arc<str>, Uuid), Arc<Port>>,
}

impl Tables {
    /// Takes one update in.
    pub fn apply(&mut self, update: Update) {
        let (mut touched_ports, mut touched) = (BTreeSet::new(), BTreeSet::new());
        for (uuid, row) in update.bridges {
            let old = replace(&mut self.bridges, uuid, row);
            let new = self.bridges.get(&uuid);
            self.bridge_of.regroup(uuid, old.as_ref(), new, &mut touched_ports);
        }
        for (uuid, row) in update.ports {
            let old = replace(&mut self.ports, uuid, row);
            self.holders.regroup(uuid, old.as_ref(), self.ports.get(&uuid), &mut touched);
        }
        for port in touched_ports {
            touched.extend(self.ports.get(&port).into_iter().flat_map(|port| &port.interfaces));
        }
        for (uuid, row) in update.interfaces {
            if let Some(old) = replace(&mut self.interfaces, uuid, row) {
                self.described.remove(&(old.name, uuid));
            }
            touched.insert(uuid);
        }
        for uuid in touched {
            let Some(row) = self.interfaces.get(&uuid) else { continue };
            let holder = self.holders.of(uuid);
            let bridge = holder.and_then(|port| self.bridges.get(&self.bridge_of.of(port)?));
            let port = row.port(holder.and_then(|port| self.ports.get(&port)), bridge);
            self.described.insert((Arc::clone(&row.name), uuid), Arc::new(port));
        }
    }

    /// The ports that the rows describe.
    #[must_use]
    pub fn ports(&self) -> Ports {
        self.described.values().cloned().collect()
    }
}

/// Gives the row as it was.
fn replace<R>(rows: &mut BTreeMap<Uuid, R>, uuid: Uuid, row: Option<R>) -> Option<R> {
    match row {
        Some(row) => rows.insert(uuid, row),
        None => rows.remove(&uuid),
    }
}

/// Which row holds which: pairs of a member and its holder. There should be one holder for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Holders(BTreeSet<(Uuid, Uuid)>);

impl Holders {
    fn of(&self, member: Uuid) -> Option<Uuid> {
        let (found, holder) = self.0.range((member, Uuid::nil())..).next()?;
        (*found == member).then_some(*holder)
    }

    /// Takes in that a holder changed; what that means for its members is added to `touched`.
    fn regroup<H: Holder>(&mut self, holder: Uuid, old: Option<&H>, new: Option<&H>, touched: &mut BTreeSet<Uuid>) {
        let [before, after] = [old, new].map(|row| row.map(H::members).unwrap_or_default());
        for gone in before.iter().filter(|member| after.binary_search(member).is_err()) {
            self.0.remove(&(*gone, holder));
            touched.insert(*gone);
        }
        for come in after.iter().filter(|member| before.binary_search(member).is_err()) {
            self.0.insert((*come, holder));
            touched.insert(*come);
        }
        if let (Some(old), Some(new)) = (old, new)
            && !old.looks_like(new)
        {
            touched.extend(after);
        }
    }
}

/// A row that holds rows of another table.
trait Holder {
    /// Those rows, in order.
    fn members(&self) -> &[Uuid];

    /// Whether both look alike to their members.
    fn looks_like(&self, other: &Self) -> bool;
}

impl Holder for PortRow {
    fn members(&self) -> &[Uuid] {
        &self.interfaces
    }

    fn looks_like(&self, other: &Self) -> bool {
        self == other
    }
}

impl Holder for BridgeRow {
    fn members(&self) -> &[Uuid] {
        &self.ports
    }

    fn looks_like(&self, other: &Self) -> bool {
        (&self.name, &self.datapath) == (&other.name, &other.datapath)
    }
}

/// The rows of one table that changed, each as it is now; nothing for one that was deleted.
type Changes<R> = Vec<(Uuid, Option<R>)>;

/// What one message says: the `table-updates` of RFC 7047, 4.1.6.
#[derive(Debug, Default)]
pub struct Update {
    interfaces: Changes<InterfaceRow>,
    ports: Changes<PortRow>,
    bridges: Changes<BridgeRow>,
    /// What could not be used.
    pub malformed: Vec<MalformedRow>,
}

/// A row that could not be used, wholly or in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedRow {
    /// Its table.
    pub table: &'static str,
    /// Its UUID, or what stands in its place.
    pub row: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It is not identified by a UUID.
    Uuid,
    /// It is not written as rows are.
    Notation,
    /// It has no name. The last record of it stays.
    Name,
    /// These columns are not of the type that they should be. They are as good as empty.
    Columns(Vec<&'static str>),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid => f.write_str("its id is not a UUID"),
            Self::Notation => f.write_str("it is not written as a row"),
            Self::Name => f.write_str("it has no name"),
            Self::Columns(columns) => write!(f, "not of the expected type: {}", columns.join(", ")),
        }
    }
}

impl Update {
    /// Decodes the `table-updates` of an update, or of the answer to the request for a monitor.
    ///
    /// # Errors
    /// There are no tables of rows. What is wrong in a single row is told in [`Self::malformed`].
    pub fn decode(tables: &RawValue) -> Result<Self, serde_json::Error> {
        let tables: Object = serde_json::from_str(tables.get())?;
        let rows = |table| tables.get(table).map_or(Ok(Object::new()), |rows| serde_json::from_str(rows.get()));
        let (interfaces, ports, bridges) = (rows(InterfaceRow::TABLE)?, rows(PortRow::TABLE)?, rows(BridgeRow::TABLE)?);
        let mut malformed = Vec::new();
        Ok(Self {
            interfaces: changes(&interfaces, &mut malformed),
            ports: changes(&ports, &mut malformed),
            bridges: changes(&bridges, &mut malformed),
            malformed,
        })
    }
}

/// An object with members of any sort. (A structure would be had from an array too.)
type Object<'a> = HashMap<String, &'a RawValue>;

fn changes<R: Row>(rows: &Object, malformed: &mut Vec<MalformedRow>) -> Changes<R> {
    let mut changes = Vec::with_capacity(rows.len());
    for (id, change) in rows {
        let mut fault = |problem| malformed.push(MalformedRow { table: R::TABLE, row: id.clone(), problem });
        let Ok(uuid) = Uuid::try_parse(id) else {
            fault(Problem::Uuid);
            continue;
        };
        // What the row was before (`old`) is no matter; without what it is now, it was deleted.
        let new = serde_json::from_str(change.get())
            .and_then(|update: Object| update.get("new").map(|row| serde_json::from_str(row.get())).transpose());
        let values = match new {
            Ok(Some(values)) => values,
            Ok(None) => {
                changes.push((uuid, None));
                continue;
            }
            Err(_) => {
                fault(Problem::Notation);
                continue;
            }
        };
        let mut columns = Columns { values, misfits: Vec::new() };
        match R::decode(&mut columns) {
            Some(row) => changes.push((uuid, Some(row))),
            None => fault(Problem::Name),
        }
        if !columns.misfits.is_empty() {
            fault(Problem::Columns(columns.misfits));
        }
    }
    changes
}

/// A row of one of the tables that are followed.
trait Row: Sized {
    const TABLE: &'static str;
    const COLUMNS: &'static [&'static str];

    /// Nothing if the row has no name.
    fn decode(columns: &mut Columns) -> Option<Self>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct InterfaceRow {
    name: Arc<str>,
    kind: Arc<str>,
    ifindex: Option<u32>,
    ofport: Option<u16>,
    error: Option<Arc<str>>,
    iface_id: Option<Arc<str>>,
    attached_mac: Option<MacAddr>,
    vm_uuid: Option<Uuid>,
    mac_in_use: Option<MacAddr>,
    admin_up: Option<bool>,
    link_up: Option<bool>,
    mtu: Option<u32>,
    peer: Option<Arc<str>>,
    socket: Option<Arc<str>>,
    remote: Option<Arc<str>>,
    tunnel_key: Option<Arc<str>>,
    egress: Option<Arc<str>>,
}

impl Row for InterfaceRow {
    const TABLE: &'static str = "Interface";
    const COLUMNS: &'static [&'static str] = &[
        "name",
        "type",
        "ifindex",
        "ofport",
        "error",
        "external_ids",
        "mac_in_use",
        "admin_state",
        "link_state",
        "mtu",
        "options",
        "status",
    ];

    fn decode(columns: &mut Columns) -> Option<Self> {
        let [iface_id, attached_mac, vm_uuid, vm_id] =
            columns.map("external_ids", ["iface-id", "attached-mac", "vm-uuid", "vm-id"]);
        let [peer, socket, remote, tunnel_key] =
            columns.map("options", ["peer", "vhost-server-path", "remote_ip", "key"]);
        let [egress] = columns.map("status", ["tunnel_egress_iface"]);
        let uuid = |text: Option<Arc<str>>| text.and_then(|text| text.parse().ok());
        Some(Self {
            name: columns.get("name", name)?,
            kind: or_system(columns.get("type", text)),
            // A port without a link has 0.
            ifindex: columns.optional("ifindex", number).filter(|ifindex| *ifindex != 0),
            // -1 says that the switch could not open it; why is in `error`.
            ofport: columns
                .optional("ofport", |value| match value.as_i64()? {
                    -1 => Some(None),
                    ofport => u16::try_from(ofport).ok().map(Some),
                })
                .flatten(),
            error: columns.optional("error", text),
            iface_id,
            attached_mac: attached_mac.and_then(|mac| mac.parse().ok()),
            vm_uuid: uuid(vm_uuid).or_else(|| uuid(vm_id)),
            mac_in_use: columns.optional("mac_in_use", |value| value.as_str()?.parse().ok()),
            admin_up: columns.optional("admin_state", is_up),
            link_up: columns.optional("link_state", is_up),
            mtu: columns.optional("mtu", number),
            peer,
            socket,
            remote,
            tunnel_key,
            egress,
        })
    }
}

impl InterfaceRow {
    fn port(&self, port: Option<&PortRow>, bridge: Option<&BridgeRow>) -> Port {
        let bond = port.filter(|port| port.interfaces.len() > 1);
        Port {
            name: Arc::clone(&self.name),
            ifindex: self.ifindex,
            bridge: bridge.map(|bridge| Arc::clone(&bridge.name)),
            datapath: bridge.map(|bridge| Arc::clone(&bridge.datapath)),
            bond: bond.map(|bond| Arc::clone(&bond.name)),
            bond_mode: bond.and_then(|bond| bond.bond_mode.clone()),
            kind: Arc::clone(&self.kind),
            ofport: self.ofport,
            error: self.error.clone(),
            tag: port.and_then(|port| port.tag),
            trunks: port.map(|port| port.trunks.clone()).unwrap_or_default(),
            vlan_mode: port.and_then(|port| port.vlan_mode.clone()),
            network_id: port.and_then(|port| port.network_id),
            iface_id: self.iface_id.clone(),
            attached_mac: self.attached_mac,
            vm_uuid: self.vm_uuid,
            mac_in_use: self.mac_in_use,
            admin_up: self.admin_up,
            link_up: self.link_up,
            mtu: self.mtu,
            peer: self.peer.clone(),
            socket: self.socket.clone(),
            remote: self.remote.clone(),
            tunnel_key: self.tunnel_key.clone(),
            egress: self.egress.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PortRow {
    name: Arc<str>,
    interfaces: Vec<Uuid>,
    tag: Option<u16>,
    trunks: Vec<u16>,
    vlan_mode: Option<Arc<str>>,
    bond_mode: Option<Arc<str>>,
    network_id: Option<Uuid>,
}

impl Row for PortRow {
    const TABLE: &'static str = "Port";
    const COLUMNS: &'static [&'static str] =
        &["name", "interfaces", "tag", "trunks", "vlan_mode", "bond_mode", "other_config"];

    fn decode(columns: &mut Columns) -> Option<Self> {
        let [network_id] = columns.map("other_config", ["net_uuid"]);
        Some(Self {
            name: columns.get("name", name)?,
            interfaces: columns.references("interfaces"),
            tag: columns.optional("tag", number),
            trunks: columns.set("trunks", number),
            vlan_mode: columns.optional("vlan_mode", text),
            bond_mode: columns.optional("bond_mode", text),
            network_id: network_id.and_then(|id| id.parse().ok()),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct BridgeRow {
    name: Arc<str>,
    ports: Vec<Uuid>,
    datapath: Arc<str>,
}

impl Row for BridgeRow {
    const TABLE: &'static str = "Bridge";
    const COLUMNS: &'static [&'static str] = &["name", "ports", "datapath_type"];

    fn decode(columns: &mut Columns) -> Option<Self> {
        Some(Self {
            name: columns.get("name", name)?,
            ports: columns.references("ports"),
            datapath: or_system(columns.get("datapath_type", text)),
        })
    }
}

/// Where the database leaves it out, a type is `system`.
fn or_system(text: Option<Arc<str>>) -> Arc<str> {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "system".into())
}

fn text(value: &Value) -> Option<Arc<str>> {
    value.as_str().map(Arc::from)
}

fn name(value: &Value) -> Option<Arc<str>> {
    text(value).filter(|name| !name.is_empty())
}

fn number<N: TryFrom<i64>>(value: &Value) -> Option<N> {
    value.as_i64()?.try_into().ok()
}

fn is_up(value: &Value) -> Option<bool> {
    match value.as_str()? {
        "up" => Some(true),
        "down" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
