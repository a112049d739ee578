//! Following the links of a network namespace: what vifd says is what `ip` says.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    LIMIT, eventually,
    hypervisor::output,
    vifd::{VIFD, Vifd},
};

/// A network namespace with a daemon in it. It ends with the daemon.
struct Namespace {
    vifd: Vifd,
    dir: tempfile::TempDir,
}

impl Namespace {
    fn start(config: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
        let mut command = Command::new("unshare");
        command.args(["--net", "--", VIFD]);
        Self { vifd: start(command, dir.path(), config), dir }
    }

    /// A second daemon, which sees the same links.
    fn another_vifd(&self, config: &str) -> Vifd {
        let dir = self.dir.path().join("another");
        std::fs::create_dir(&dir).unwrap();
        start(self.command(VIFD), &dir, config)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.vifd.pid().to_string(), "--", program]);
        command
    }

    fn ip(&self, arguments: &str) -> String {
        output(self.command("ip").args(arguments.split(' ')))
    }

    /// Runs many `ip` commands in one process.
    fn batch(&self, lines: impl Iterator<Item = String>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines.map(|line| line + "\n").collect::<String>()).unwrap();
        output(self.command("ip").arg("-batch").arg(file.path()));
    }

    /// Runs a command for each of so many, by several processes at once.
    fn storm(&self, count: usize, line: impl Fn(usize) -> String + Sync) {
        std::thread::scope(|scope| {
            for first in 0..4 {
                let line = &line;
                scope.spawn(move || self.batch((first..count).step_by(4).map(line)));
            }
        });
    }

    /// What `ip` says, in our words.
    fn truth(&self) -> Value {
        let links: Value = serde_json::from_str(&self.ip("-d -j link show")).unwrap();
        let mut links: Vec<_> = links.as_array().unwrap().iter().map(in_our_words).collect();
        links.sort_by_key(|link| link["index"].as_u64());
        links.into()
    }

    /// Waits until vifd says what `ip` says.
    fn agree(&self, after: &str) {
        self.agree_with(&self.vifd, after);
    }

    fn agree_with(&self, vifd: &Vifd, after: &str) {
        let started = Instant::now();
        loop {
            let (answer, truth) = (answer(vifd), self.truth());
            if answer == truth {
                return;
            }
            if started.elapsed() > LIMIT {
                let [answer, truth] = [answer, truth]
                    .map(|links| -> BTreeSet<_> { links.as_array().unwrap().iter().map(Value::to_string).collect() });
                let (vifd, ip): (Vec<_>, Vec<_>) =
                    (answer.difference(&truth).collect(), truth.difference(&answer).collect());
                panic!("after {after}\nvifd: {vifd:#?}\nip:   {ip:#?}");
            }
        }
    }
}

fn start(command: Command, dir: &Path, config: &str) -> Vifd {
    let vifd = Vifd::start(command, dir, &format!("[libvirt]\nuris = []\n{config}"));
    vifd.wait_ready();
    vifd
}

/// What vifd says of all links.
fn answer(vifd: &Vifd) -> Value {
    let devices = vifd.get("/host/v1/devices")["devices"].take();
    devices.as_array().unwrap().iter().map(comparable).collect()
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

/// Asks again and again while the links change, until told that it is over. Returns how many answers there were, and
/// how many of them said that the links are not current.
fn ask_until(over: &AtomicBool, vifd: &Vifd, untouched: &Value) -> (usize, usize) {
    let (mut answers, mut stale, mut generation) = (0, 0, 0);
    while !over.load(Ordering::Relaxed) {
        let whole = answers % 100 == 0;
        let answer = vifd.get(if whole { "/host/v1/devices" } else { "/host/v1/devices/untouched" });
        let devices = answer["devices"].as_array().cloned().unwrap_or_else(|| vec![answer["device"].clone()]);
        // What does not change never was away, nor different.
        let found = devices.iter().find(|device| device["name"] == "untouched").map(comparable);
        assert_eq!(found.as_ref(), Some(untouched), "{answer}");
        // The kernel never has two of a name, so there was no moment at which that was right.
        let names: BTreeSet<_> = devices.iter().map(|device| device["name"].as_str().unwrap()).collect();
        assert_eq!(names.len(), devices.len(), "two devices of one name");
        let netlink = &answer["sources"]["netlink"];
        match netlink["state"].as_str() {
            Some("synced") => {}
            Some("stale") if netlink["reason"].is_string() && netlink["since"].is_string() => stale += 1,
            _ => panic!("what was read once is synced or stale, and then says why and since when: {netlink}"),
        }
        assert!(answer["generation"].as_u64() >= Some(generation), "time goes forward");
        generation = answer["generation"].as_u64().unwrap();
        assert_eq!(vifd.request("GET", "/ready", &[]).status, 200, "stale links are links");
        assert_eq!(vifd.request("GET", "/host/v1/devices/no-such-device", &[]).status, 404);
        answers += 1;
        // The machine has more to do.
        std::thread::sleep(Duration::from_millis(10));
    }
    (answers, stale)
}

/// Ends whatever waits for it, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_storm_of_ten_thousand_links_is_served_meanwhile_and_ends_in_the_truth() {
    const LINKS: usize = 10_000;
    // The kernel makes the smallest buffer of it.
    let namespace = Namespace::start("[netlink]\nreceive_buffer = 1\n");
    let by_default = namespace.another_vifd("");
    let daemons = [("smallest", &namespace.vifd), ("default", &by_default)];
    namespace.ip("link add untouched type bridge");
    let agree = |after: &str| {
        for (_, vifd) in daemons {
            // To compare takes long, so not before there is a chance.
            vifd.wait(after, "/host/v1/sync", |sync| sync["sources"]["netlink"]["state"] == "synced");
            namespace.agree_with(vifd, after);
        }
    };
    agree("the start");
    let untouched = comparable(&namespace.vifd.get("/host/v1/devices/untouched")["device"]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = Over(&over);
        let asking = daemons.map(|(_, vifd)| scope.spawn(|| ask_until(&over, vifd, &untouched)));
        // A bridge takes no more than 1,023 ports.
        namespace.batch((0..LINKS / 1000).map(|n| format!("link add br{n} type bridge")));
        namespace.storm(LINKS / 2, |n| format!("link add left{n} type veth peer name right{n}"));
        agree("ten thousand were made");
        namespace.storm(LINKS, |n| {
            let (side, n, bridge) = (if n % 2 == 0 { "left" } else { "right" }, n / 2, n / 1000);
            format!("link set {side}{n} name x{side}{n} master br{bridge} group 7")
        });
        agree("all got another name and a controller");
        // One by one each would wait for the kernel's readers to be done.
        namespace.ip("link del group 7");
        agree("all were deleted");
        drop(ends);
        for ((buffer, vifd), asking) in daemons.iter().zip(asking) {
            let (answers, stale) = asking.join().unwrap();
            let log = vifd.log();
            let (overruns, torn) = (log.matches("receive buffer overran").count(), log.matches(TORN).count());
            println!(
                "{buffer} buffer: {answers} answers, {stale} of them stale; {overruns} overruns, {torn} torn listings"
            );
            assert!(answers > 0);
        }
    });
    let log = namespace.vifd.log();
    assert!(log.contains("the receive buffer overran"), "there was no overrun to speak of");
    assert!(log.contains(TORN), "the kernel tore no listing");
}

/// What the daemon logs about a listing that the kernel calls inconsistent (`NLM_F_DUMP_INTR`).
const TORN: &str = "the list changed while it was read";

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
