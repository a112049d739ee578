//! Following the links of a network namespace: what vifd says is what `ip` says.

use std::{process::Command, time::Instant};

use serde_json::{Value, json};

use crate::support::{
    LIMIT, eventually,
    hypervisor::output,
    vifd::{VIFD, Vifd},
};

/// A network namespace with a daemon in it. It ends with the daemon.
struct Namespace {
    vifd: Vifd,
    _dir: tempfile::TempDir,
}

impl Namespace {
    fn start(config: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
        let mut command = Command::new("unshare");
        command.args(["--net", "--", VIFD]);
        let vifd = Vifd::start(command, dir.path(), &format!("[libvirt]\nuris = []\n{config}"));
        vifd.wait_ready();
        Self { vifd, _dir: dir }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.vifd.pid().to_string(), "--", program]);
        command
    }

    fn ip(&self, arguments: &str) -> String {
        output(self.command("ip").args(arguments.split(' ')))
    }

    /// Runs many `ip` commands at once.
    fn batch(&self, lines: impl Iterator<Item = String>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines.map(|line| line + "\n").collect::<String>()).unwrap();
        output(self.command("ip").arg("-batch").arg(file.path()));
    }

    /// What `ip` says, in our words.
    fn truth(&self) -> Value {
        let links: Value = serde_json::from_str(&self.ip("-d -j link show")).unwrap();
        let mut links: Vec<_> = links.as_array().unwrap().iter().map(in_our_words).collect();
        links.sort_by_key(|link| link["index"].as_u64());
        links.into()
    }

    /// What vifd says.
    fn answer(&self) -> Value {
        let devices = self.vifd.get("/host/v1/devices")["devices"].take();
        devices.as_array().unwrap().iter().map(comparable).collect()
    }

    /// Waits until vifd says what `ip` says.
    fn agree(&self, after: &str) {
        let started = Instant::now();
        loop {
            let (answer, truth) = (self.answer(), self.truth());
            if answer == truth {
                return;
            }
            assert!(started.elapsed() < LIMIT, "after {after}\nvifd: {answer}\nip:   {truth}");
        }
    }
}

/// What `ip` says of a link, in our words.
pub fn in_our_words(link: &Value) -> Value {
    let kind = match (&link["linkinfo"]["info_kind"], &link["linkinfo"]["info_data"]["type"], &link["link_type"]) {
        (Value::String(kind), Value::String(tun), _) if kind == "tun" => tun.clone(),
        (Value::String(kind), ..) => kind.clone(),
        (_, _, Value::String(kind)) if kind == "loopback" => "loopback".to_owned(),
        _ => "physical".to_owned(),
    };
    json!({
        "index": link["ifindex"],
        "name": link["ifname"],
        "altnames": link.get("altnames").cloned().unwrap_or(json!([])),
        "kind": kind,
        "mac": if link["link_type"] == "none" { Value::Null } else { link["address"].clone() },
        "mtu": link["mtu"],
        "up": link["flags"].as_array().unwrap().contains(&json!("UP")),
        "controller_name": link["master"],
        "tx_queues": link["num_tx_queues"],
    })
}

/// What vifd says of a link, in the same.
pub fn comparable(device: &Value) -> Value {
    let mut link = json!({"altnames": []});
    for key in ["index", "name", "kind", "mac", "mtu", "up", "controller_name", "tx_queues"] {
        link[key] = device[key].clone();
    }
    if let Some(names) = device.get("altnames") {
        link["altnames"] = names.clone();
    }
    link
}

#[test]
#[ignore = "needs root: run by make test"]
fn every_change_of_a_link_is_followed() {
    let namespace = Namespace::start("");
    namespace.agree("the start");
    for change in [
        "link set lo up",
        "link add br0 type bridge",
        "link add br1 type bridge",
        "tuntap add dev tap0 mode tap",
        "tuntap add dev mq0 mode tap multi_queue",
        "tuntap add dev tun0 mode tun",
        "link add qvb0 type veth peer name qvo0",
        "link add link qvo0 name mvt0 type macvtap mode bridge",
        "link add vx0 type vxlan id 42 dstport 4789 local 127.0.0.1",
        "link set tap0 master br0",
        "link set tap0 up",
        "link set br0 up",
        "link set tap0 mtu 1400",
        "link set tap0 master br1",
        "link set tap0 nomaster",
        "link set tap0 address 02:00:00:00:00:07",
        "link property add dev tap0 altname a-name-longer-than-a-device-may-have",
        "link set tap0 name tap1",
        "link property del dev tap1 altname a-name-longer-than-a-device-may-have",
        "link set qvb0 master br0",
        "link del mvt0",
        "link del qvb0",
        "link del tap1",
        "tuntap add dev tap1 mode tap",
        "link del br0",
    ] {
        namespace.ip(change);
        namespace.agree(change);
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn exchanged_names_and_reused_indexes_end_in_the_truth() {
    let namespace = Namespace::start("");
    let add = |name: &str, index: u32| format!("link add name {name} index {index} type bridge");
    namespace.batch([add("br0", 100), add("br1", 101)].into_iter());
    for round in 0..50 {
        let swap = ["link set br0 name br2", "link set br1 name br0", "link set br2 name br1"].map(str::to_owned);
        let (one, other) = (100 + round % 2, 101 - round % 2);
        let reuse = ["link del br0".to_owned(), "link del br1".to_owned(), add("br0", one), add("br1", other)];
        namespace.batch(swap.into_iter().chain(reuse));
    }
    namespace.agree("fifty exchanges");
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_link_that_moves_to_another_namespace_leaves_and_may_return() {
    let namespace = Namespace::start("");
    namespace.ip("link add veth0 type veth peer name veth1");
    namespace.agree("a pair was made");
    // A process with a namespace of its own, to be the other side.
    let mut other = namespace.command("unshare").args(["--net", "sleep", "60"]).spawn().unwrap();
    let pid = other.id().to_string();
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let inside = std::fs::read_link(format!("/proc/{}/ns/net", namespace.vifd.pid())).unwrap();
    eventually("the other namespace", || {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
        (link != own && link != inside).then_some(())
    });
    namespace.ip(&format!("link set veth1 netns {pid}"));
    namespace.agree("one end left");
    let peer = &namespace.vifd.get("/host/v1/devices/veth0")["device"]["peer"];
    assert!(peer["netns"].is_i64(), "the peer is known to be elsewhere: {peer}");
    output(Command::new("nsenter").args([
        "--net",
        "--target",
        &pid,
        "--",
        "ip",
        "link",
        "set",
        "veth1",
        "netns",
        &namespace.vifd.pid().to_string(),
    ]));
    namespace.agree("it came back");
    assert!(namespace.vifd.get("/host/v1/devices/veth0")["device"]["peer"].get("netns").is_none());
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
#[ignore = "needs root: run by make test"]
fn an_overrun_is_noticed_and_ends_in_the_truth() {
    // The kernel makes the smallest buffer of it.
    let namespace = Namespace::start("[netlink]\nreceive_buffer = 1\n");
    namespace.batch((0..300).map(|n| format!("tuntap add dev tap{n} mode tap")));
    for round in 0..3 {
        namespace.batch((0..300).filter(|n| n % 10 == round).map(|n| format!("link del tap{n}")));
        namespace.agree("a storm");
        namespace.batch((0..300).filter(|n| n % 10 == round).map(|n| format!("tuntap add dev tap{n} mode tap")));
        namespace.batch((0..300).map(|n| format!("link set tap{n} name x{n}")));
        namespace.agree("a storm of new names");
        namespace.batch((0..300).map(|n| format!("link set x{n} name tap{n}")));
    }
    namespace.agree("the end of the storm");
    assert!(namespace.vifd.log().contains("the receive buffer overran"), "there was no overrun to speak of");
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_storm_that_the_buffer_holds_is_followed_without_a_resync() {
    let namespace = Namespace::start("");
    namespace.batch(
        (0..1000).flat_map(|n| [format!("tuntap add dev tap{n} mode tap"), format!("link set tap{n} mtu 1400")]),
    );
    namespace.agree("a thousand taps");
    assert_eq!(namespace.vifd.log().matches("read all links").count(), 1);
}

#[test]
#[ignore = "needs root: run by make test"]
fn counters_are_read_on_demand_and_are_the_kernels() {
    let namespace = Namespace::start("");
    namespace.ip("link set lo up");
    let before = namespace.vifd.get("/host/v1/devices/lo/counters");
    assert_eq!((&before["view"], &before["counters"]["rx_packets"]), (&json!("host"), &json!(0)));
    output(namespace.command("bash").args(["-c", "for n in 1 2 3; do echo x > /dev/udp/127.0.0.1/9; done"]));
    let after = namespace.vifd.get("/host/v1/devices/lo/counters");
    let truth: Value = serde_json::from_str(&namespace.ip("-s -j link show lo")).unwrap();
    let truth = &truth[0]["stats64"];
    assert!(truth["rx"]["packets"].as_u64().unwrap() >= 3);
    for (ours, theirs) in [("rx_packets", &truth["rx"]["packets"]), ("tx_bytes", &truth["tx"]["bytes"])] {
        assert_eq!(&after["counters"][ours], theirs);
    }
    assert_eq!(namespace.vifd.request("GET", "/host/v1/devices/none/counters", &[]).status, 404);
}
