//! A real Open vSwitch, with its datapath in user space, in a private hypervisor; see `tests/testbed/openvswitch`.
//!
//! What vifd says is compared with what `ovs-vsctl` says.

use std::{path::Path, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::watch, task::JoinHandle, time::timeout};
use vifd::{
    config::OvsdbConfig,
    source::{
        Snapshot, SyncState,
        ovsdb::{self, rows::Ports},
    },
};

use crate::support::{LIMIT, eventually, hypervisor::Hypervisor, openvswitch::Switch, vifd::Vifd};

const QEMU: &str = "qemu:///system";

/// What `ovs-vsctl` says of every port: `name ofport tag error`.
fn truth(switch: &Switch) -> Vec<String> {
    let rows = |table: &str, columns: &str| -> Vec<Value> {
        let text = switch.vsctl(&format!("--format=json --columns={columns} list {table}"));
        serde_json::from_str::<Value>(&text).unwrap()["data"].as_array().unwrap().clone()
    };
    let empty = json!(["set", []]);
    let or_dash = |value: &Value| match value {
        Value::String(text) => text.clone(),
        value if *value == empty || *value == json!(-1) => "-".to_owned(),
        value => value.to_string(),
    };
    let tags = rows("Port", "name,tag");
    let tag = |name: &Value| tags.iter().find(|row| row[0] == *name).map_or("-".to_owned(), |row| or_dash(&row[1]));
    let lines = rows("Interface", "name,ofport,error")
        .into_iter()
        .map(|row| format!("{} {} {} {}", or_dash(&row[0]), or_dash(&row[1]), tag(&row[0]), or_dash(&row[2])));
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines
}

/// The source itself, without the daemon around it.
struct Followed {
    runtime: Runtime,
    rx: watch::Receiver<Snapshot<Ports>>,
    task: JoinHandle<()>,
}

impl Followed {
    fn start(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (tx, rx) = watch::channel(Snapshot::default());
        let config = OvsdbConfig {
            socket: socket.to_owned(),
            keepalive_interval: Duration::from_millis(200),
            ..OvsdbConfig::default()
        };
        let task = runtime.spawn(async move { match ovsdb::run(config, tx, Arc::default()).await {} });
        Self { runtime, rx, task }
    }

    fn wait(&mut self, what: &str, wanted: impl Fn(&Snapshot<Ports>) -> bool) -> Arc<Ports> {
        let waited =
            async { timeout(LIMIT, self.rx.wait_for(|snapshot| wanted(snapshot))).await.map(|s| s.unwrap().clone()) };
        let result = self.runtime.block_on(waited);
        let there_is = || (self.rx.borrow().sync.clone(), self.says());
        result.unwrap_or_else(|_| panic!("waited in vain for: {what}; there is: {:#?}", there_is())).data
    }

    /// In the words of [`truth`].
    fn says(&self) -> Vec<String> {
        let snapshot = self.rx.borrow().clone();
        let number = |n: Option<u16>| n.map_or("-".to_owned(), |n| n.to_string());
        let line = |p: &vifd::source::ovsdb::rows::Port| {
            format!("{} {} {} {}", p.name, number(p.ofport), number(p.tag), p.error.as_deref().unwrap_or("-"))
        };
        snapshot.data.iter().map(|port| line(port)).collect()
    }

    fn agrees(&self, switch: &Switch, after: &str) {
        eventually(after, || (self.says() == truth(switch)).then_some(()));
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn synced(snapshot: &Snapshot<Ports>) -> bool {
    snapshot.sync.is_synced()
}

fn stale(snapshot: &Snapshot<Ports>) -> bool {
    matches!(snapshot.sync, SyncState::Stale { .. })
}

/// A VIF as the host's API shows it.
fn vif(vifd: &Vifd, mac: &str) -> Value {
    vifd.get(&format!("/host/v1/vifs?mac={mac}"))["vifs"][0].take()
}

/// Starts the QEMU guest `n`, whose interface is plugged into `br-int` with another id than Nova's metadata says.
fn create_guest(hypervisor: &Hypervisor, n: u32, iface_id: &str) {
    let halt = hypervisor.dir().join("halt.bin");
    let file = hypervisor.xml(&format!("qemu_domain {n} {} qemu 1", halt.display()));
    let xml = std::fs::read_to_string(&file).unwrap();
    let port = format!("<virtualport type='openvswitch'><parameters interfaceid='{iface_id}'/></virtualport>");
    let xml = xml.replace("<source bridge='br0'/>", &format!("<source bridge='br-int'/>{port}"));
    std::fs::write(&file, xml).unwrap();
    hypervisor.virsh(QEMU, &format!("create {file}"));
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_guest_is_known_by_the_port_that_it_is_plugged_into() {
    let hypervisor = Hypervisor::start();
    let switch = Switch::start(&hypervisor);
    let vifd = hypervisor.vifd("");
    let (plugged, claimed) = (Hypervisor::id("port_uuid 1 0"), Hypervisor::id("port_uuid 99 0"));
    let (mac, tap) = (Hypervisor::id("mac_address 1 0"), Hypervisor::id("tap_name 1 0"));
    create_guest(&hypervisor, 1, &plugged);
    let found = vifd.wait("the port", "/host/v1/vifs", |answer| answer["vifs"][0]["ovs"]["ofport"].is_u64());
    let found = &found["vifs"][0];
    assert_eq!((&found["id"], &found["id_source"]), (&json!(plugged), &json!("ovsdb")));
    let ofport = switch.vsctl(&format!("get interface {tap} ofport")).trim().to_owned();
    let expected = json!({ "name": tap, "bridge": "br-int", "datapath": "netdev", "type": "system" });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(found["ovs"][key], *value, "{found}");
    }
    assert_eq!(found["ovs"]["ofport"].to_string(), ofport);
    assert_eq!(found["ovs"]["ifindex"], found["device"]["index"]);
    assert_eq!(found["ovs"]["vm_uuid"], found["instance_uuid"], "libvirt says whose it is");
    assert!(found.get("disagreements").is_none(), "{found}");

    // The kernel has no controller for a port of a datapath in user space.
    let device = &vifd.get(&format!("/host/v1/devices/{tap}"))["device"];
    assert_eq!((&device["controller"], &device["controller_name"]), (&json!(null), &json!("br-int")));
    assert_eq!(vifd.get("/host/v1/devices?controller=br-int")["devices"][0]["name"], json!(tap));
    for thing in [format!("br-int:{ofport}"), format!("ofport:{ofport}"), plugged.clone(), tap.clone()] {
        let found = vifd.get(&format!("/host/v1/who?thing={thing}"));
        assert_eq!(found["matches"][0]["instance"]["name"], "instance-00000001", "{thing}: {found}");
    }

    // Whatever changes in the row changes in the answers.
    switch.vsctl(&format!("set port {tap} tag=101 -- set interface {tap} external_ids:iface-id={claimed}"));
    vifd.wait("another id", &format!("/host/v1/vifs?id={claimed}"), |answer| answer["vifs"][0]["ovs"]["tag"] == 101);
    let network = Hypervisor::id("uuid_of network 1");
    switch.vsctl(&format!("set port {tap} other_config:net_uuid={network}"));
    vifd.wait("its network", "/host/v1/vifs", |answer| answer["vifs"][0]["network_id"] == json!(network));
    let disagreement = &vif(&vifd, &mac)["id_disagreement"][0];
    assert_eq!((&disagreement["source"], &disagreement["id"]), (&json!("virtualport"), &json!(plugged)));
    let ids = format!("external_ids:attached-mac=fa:16:3e:ff:ff:ff external_ids:vm-uuid={claimed}");
    switch.vsctl(&format!("set interface {tap} {ids}"));
    let disagreeing = |answer: &Value| answer["vifs"][0]["disagreements"].as_array().is_some_and(|d| d.len() == 2);
    let doubted = vifd.wait("disagreements", &format!("/host/v1/vifs?mac={mac}"), disagreeing);
    assert_eq!(doubted["vifs"][0]["id"], json!(plugged), "a port of another instance gives no id");

    let (shown, _) = vifd.vifctl(&["show", "instance-00000001"]);
    for words in [&format!("{tap} on br-int, ofport {ofport}, tag 101"), "says MAC address fa:16:3e:ff:ff:ff"] {
        assert!(shown.contains(words), "{words}:\n{shown}");
    }
    let (who, _) = vifd.vifctl(&["who", &format!("br-int:{ofport}")]);
    assert!(who.contains("on br-int") && who.contains("number of the Open vSwitch port"), "{who}");
    let (status, _) = vifd.vifctl(&["status"]);
    assert!(status.lines().any(|line| line.starts_with("ovsdb") && line.contains("synced")), "{status}");

    // The tap goes, and libvirt takes its port along.
    hypervisor.virsh(QEMU, "destroy instance-00000001");
    vifd.wait("no port", "/host/v1/sync", |sync| sync["ovs_ports"] == 1 && sync["vifs"] == 0);
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_hybrid_plug_is_followed_to_the_port() {
    let hypervisor = Hypervisor::start();
    let switch = Switch::start(&hypervisor);
    let vifd = hypervisor.vifd("");
    hypervisor.create_guest(1, 1);
    let (mac, tap) = (Hypervisor::id("mac_address 1 0"), Hypervisor::id("tap_name 1 0"));
    let port = Hypervisor::id("port_uuid 77 0");
    hypervisor.run(&format!(
        "ip link add qbr1 type bridge; ip link add qvo1 type veth peer name qvb1
         for link in qbr1 qvo1 qvb1; do ip link set $link up; done
         ip link set qvb1 master qbr1; ip link set {tap} master qbr1"
    ));
    switch.vsctl(&format!("add-port br-int qvo1 -- set interface qvo1 external_ids:iface-id={port}"));
    let found = vifd.wait("the port", &format!("/host/v1/vifs?id={port}"), |answer| answer["vifs"][0].is_object());
    let found = &found["vifs"][0];
    assert_eq!(
        (&found["mac"], &found["ovs"]["name"], &found["device"]["name"]),
        (&json!(mac), &json!("qvo1"), &json!(tap))
    );
    assert_eq!(vifd.get(&format!("/host/v1/devices/{tap}"))["device"]["controller_name"], "qbr1");
    switch.vsctl("del-port qvo1");
    vifd.wait("no port", &format!("/host/v1/vifs?id={port}"), |answer| answer["vifs"] == json!([]));
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_restart_of_the_database_keeps_ids_and_marks_them_stale() {
    let hypervisor = Hypervisor::start();
    let vifd = hypervisor.vifd("");
    let ovsdb = |vifd: &Vifd| vifd.get("/host/v1/sync")["sources"]["ovsdb"].clone();
    assert_eq!(ovsdb(&vifd), json!({ "state": "absent" }));
    let (status, _) = vifd.vifctl(&["status"]);
    assert!(status.contains("ovsdb") && status.contains("absent") && !status.contains("OVS"), "{status}");
    assert!(!vifd.log().lines().any(|line| line.contains("WARN") && line.contains("vSwitch")), "{}", vifd.log());

    // It comes while vifd runs.
    let switch = Switch::start(&hypervisor);
    let port = Hypervisor::id("port_uuid 77 0");
    create_guest(&hypervisor, 1, &port);
    let list = format!("/host/v1/vifs?id={port}");
    vifd.wait("the id from the port", &list, |answer| answer["vifs"][0]["id_source"] == "ovsdb");
    for signal in ["KILL", "TERM"] {
        switch.control("stop-db", &[signal]);
        vifd.wait("stale", "/host/v1/sync", |sync| sync["sources"]["ovsdb"]["state"] == "stale");
        let found = &vifd.get(&list)["vifs"][0];
        assert_eq!((&found["id_source"], &found["ovs"]["bridge"]), (&json!("ovsdb"), &json!("br-int")));
        assert!(found["stale"].is_object(), "the id may be old: {found}");
        let uuid = Hypervisor::id("server_uuid 1");
        let answer = vifd.request("GET", &format!("/v2.1/servers/{uuid}/os-virtual-interfaces"), &[]);
        assert_eq!((answer.status, answer.json()["virtual_interfaces"][0]["id"].clone()), (203, json!(port)));
        assert_eq!(vifd.request("GET", "/ready", &[]).status, 200);
        switch.control("start-db", &[]);
        vifd.wait("synced", "/host/v1/sync", |sync| sync["sources"]["ovsdb"]["state"] == "synced");
        assert!(vifd.get(&list)["vifs"][0]["stale"].is_null());
    }

    // A daemon that starts while the database is down has its ids from the run before.
    switch.control("stop-db", &["KILL"]);
    assert!(vifd.end("-TERM").success());
    let vifd = hypervisor.vifd("");
    vifd.wait("the id from before", &list, |answer| answer["vifs"][0]["id_source"] == "ovsdb");
    assert!(vifd.get(&list)["vifs"][0]["stale"].is_object());
    switch.control("start-db", &[]);
    vifd.wait("no longer stale", &list, |answer| answer["vifs"][0]["stale"].is_null());

    // Without its socket there is no Open vSwitch any more, for a daemon that has not seen one itself.
    switch.control("stop-db", &["TERM"]);
    assert!(vifd.end("-TERM").success());
    let vifd = hypervisor.vifd("");
    assert_eq!(ovsdb(&vifd), json!({ "state": "absent" }));
    assert_eq!(vifd.get("/host/v1/sync")["ovs_ports"], 0);
}

#[test]
#[ignore = "needs root: run by make test"]
fn ports_that_come_go_and_change_are_followed_whatever_happens_to_the_database() {
    let hypervisor = Hypervisor::start();
    let switch = Switch::start(&hypervisor);
    let mut followed = Followed::start(&switch.socket());
    followed.wait("synced", synced);
    followed.agrees(&switch, "a start");

    let add: String = (0..20)
        .map(|n| format!("ip tuntap add t{n} mode tap; ovs-vsctl --no-wait add-port br-int t{n} tag={n};"))
        .collect();
    hypervisor.run(&add);
    followed.agrees(&switch, "twenty taps were added");
    switch.vsctl(
        "add-br br-ex -- set bridge br-ex datapath_type=netdev
         -- add-port br-int p0 -- set interface p0 type=patch options:peer=p1
         -- add-port br-ex p1 -- set interface p1 type=patch options:peer=p0
         -- set port t1 tag=[] trunks=1,2 -- del-port t0"
            .replace('\n', " ")
            .as_str(),
    );
    followed.agrees(&switch, "a bridge, a patch, another VLAN, and one tap less");
    let ports = followed.wait("the patch", |s| s.data.by_name("p1").is_some_and(|port| port.ofport.is_some()));
    let patch = ports.by_name("p1").unwrap();
    assert_eq!((patch.bridge.as_deref(), patch.peer.as_deref()), (Some("br-ex"), Some("p0")));
    assert_eq!(ports.by_name("t1").unwrap().vlan().as_deref(), Some("trunks 1,2"));

    // Of a device that goes, this switch only forgets the index.
    hypervisor.run("ovs-vsctl --no-wait add-port br-int nothing; ip link del t2");
    followed.wait("an error", |snapshot| snapshot.data.by_name("nothing").is_some_and(|port| port.error.is_some()));
    followed.wait("no index", |snapshot| snapshot.data.by_name("t2").is_some_and(|port| port.ifindex.is_none()));
    followed.agrees(&switch, "devices that do not exist");

    switch.control("stop-db", &["KILL"]);
    let last = followed.wait("stale", stale);
    assert!(last.len() > 20, "what was known is kept");
    hypervisor.run("ip tuntap add t90 mode tap");
    switch.control("start-db", &[]);
    switch.vsctl("add-port br-int t90 -- del-port t3");
    followed.wait("synced", |snapshot| synced(snapshot) && snapshot.data.by_name("t90").is_some());
    followed.agrees(&switch, "the database was killed and started again");

    switch.control("signal-db", &["STOP"]);
    followed.wait("stale, since nothing answers", stale);
    switch.control("signal-db", &["CONT"]);
    followed.wait("synced", synced);
    followed.agrees(&switch, "the database hung");

    // A storm.
    let storm: String = (4..20)
        .map(|n| format!("for i in 1 2 3 4 5; do ovs-vsctl --no-wait set port t{n} tag=$i$i -- set interface t{n} external_ids:x=$i; done & "))
        .collect();
    hypervisor.run(&(storm + "wait; ovs-vsctl del-port t19"));
    followed.agrees(&switch, "a storm of changes");
    let mut fresh = Followed::start(&switch.socket());
    let fresh = fresh.wait("synced", synced);
    assert_eq!(*followed.wait("equality", |snapshot| snapshot.data == fresh), *fresh, "following equals reading anew");
}
