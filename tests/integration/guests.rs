//! Real guests on a private hypervisor: QEMU with taps and LXC with veths, on a Linux bridge.
//!
//! What vifd says is compared with what `virsh` and `ip` say.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{
    eventually, http,
    hypervisor::Hypervisor,
    vifd::{VIFCTL, VIFD, Vifd},
};

const QEMU: &str = "qemu:///system";
const LXC: &str = "lxc:///system";

pub fn uuid(n: u32) -> String {
    Hypervisor::id(&format!("server_uuid {n}"))
}

fn port(n: u32, j: u32) -> String {
    Hypervisor::id(&format!("port_uuid {n} {j}"))
}

fn tap(n: u32, j: u32) -> String {
    Hypervisor::id(&format!("tap_name {n} {j}"))
}

fn mac(n: u32, j: u32) -> String {
    Hypervisor::id(&format!("mac_address {n} {j}"))
}

/// What libvirt and the kernel say of every running domain's interfaces: `domain target mac ifindex`.
fn truth(hypervisor: &Hypervisor) -> Vec<String> {
    let script = r#"
        for uri in qemu:///system lxc:///system; do
            for domain in $(virsh -q -c $uri list --name); do
                virsh -q -c $uri domiflist "$domain" | while read -r target type source model mac; do
                    echo "$domain $target $mac $(cat /sys/class/net/"$target"/ifindex)"
                done
            done
        done"#;
    let mut lines: Vec<_> = hypervisor.run(script).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// What vifd says, in the same words.
fn answer(vifd: &Vifd) -> Vec<String> {
    let vifs = vifd.get("/host/v1/vifs")["vifs"].take();
    let mut lines: Vec<_> = vifs
        .as_array()
        .unwrap()
        .iter()
        .filter(|vif| vif["no_device"] != "not_running")
        .map(|vif| {
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let (domain, mac) = (text(&vif["instance_name"]), text(&vif["mac"]));
            format!("{domain} {} {mac} {}", text(&vif["device"]["name"]), vif["device"]["index"])
        })
        .collect();
    lines.sort();
    lines
}

pub fn agree(hypervisor: &Hypervisor, vifd: &Vifd, after: &str) {
    let mut last = (vec![], vec![]);
    let agreed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(after, || {
            last = (answer(vifd), truth(hypervisor));
            (last.0 == last.1).then_some(())
        });
    }));
    assert!(agreed.is_ok(), "after {after}\nvifd:    {:#?}\nlibvirt: {:#?}", last.0, last.1);
}

#[test]
#[ignore = "needs root: run by make test"]
fn guests_and_containers_come_and_go_with_their_devices() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd("");
    agree(&hypervisor, &vifd, "a start beside a running guest");
    hypervisor.create_guest(2, 2);
    hypervisor.create(LXC, "lxc_domain 3");
    agree(&hypervisor, &vifd, "a guest and a container started");
    assert_eq!(answer(&vifd).len(), 4);

    let list = vifd.request("POST", &format!("/v2.1/servers/{}/virtual_interfaces", uuid(2)), &[]);
    let expected = json!({"virtual_interfaces": [
        {"id": port(2, 0), "mac_address": mac(2, 0)},
        {"id": port(2, 1), "mac_address": mac(2, 1)},
    ]});
    assert_eq!((list.status, list.json()), (202, expected));

    let instance = &vifd.get(&format!("/host/v1/instances/{}", uuid(3)))["instance"];
    assert_eq!((&instance["hypervisor"], &instance["hypervisor_type"]), (&json!(LXC), &json!("lxc")));
    let veth = &instance["links"][0];
    assert_eq!(veth["kind"], "veth");
    assert!(veth["peer"]["netns"].is_i64(), "the other end is in the container: {veth}");
    let tap_of_two = &vifd.get(&format!("/host/v1/devices/{}", tap(2, 0)))["device"];
    assert_eq!((&tap_of_two["controller_name"], &tap_of_two["kind"]), (&json!("br0"), &json!("tap")));
    assert_eq!(tap_of_two["multi_queue"], true);

    let who = |pid: &str| hypervisor.run(&format!("{VIFCTL} --socket {} who {}", vifd.socket.display(), pid.trim()));
    let qemu = who(&hypervisor.run("pgrep -f '[q]emu-system.*instance-00000002'"));
    assert!(qemu.contains("Instance instance-00000002") && qemu.contains("matched by   PID"), "{qemu}");
    let container = who(&hypervisor.run("pgrep -P $(pgrep -f '[l]ibvirt_lxc --name instance-00000003') | head -n 1"));
    assert!(container.contains("Instance instance-00000003"), "{container}");

    hypervisor.virsh(QEMU, "destroy instance-00000001");
    hypervisor.virsh(LXC, "destroy instance-00000003");
    agree(&hypervisor, &vifd, "two were destroyed");
    let gone = vifd.request("GET", &format!("/v2.1/servers/{}/os-virtual-interfaces", uuid(1)), &[]);
    assert_eq!(gone.status, 404);
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_hot_plug_and_a_hot_unplug_are_seen() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd("");
    let nic = hypervisor.xml("hot_plug_interface 1 1");
    let list = format!("/v2.1/servers/{}/os-virtual-interfaces", uuid(1));
    hypervisor.virsh(QEMU, &format!("attach-device instance-00000001 {nic} --live"));
    let both = vifd.wait("the new interface", &list, |list| list["virtual_interfaces"].as_array().unwrap().len() == 2);
    assert_eq!(both["virtual_interfaces"][1], json!({"id": port(1, 1), "mac_address": mac(1, 1)}));
    agree(&hypervisor, &vifd, "a hot-plug");

    // The halted guest never lets go; a reset does it for the guest.
    hypervisor.virsh(QEMU, &format!("detach-device-alias instance-00000001 ua-{} --live", port(1, 1)));
    hypervisor.virsh(QEMU, "reset instance-00000001");
    vifd.wait("the interface is gone", &list, |list| list["virtual_interfaces"].as_array().unwrap().len() == 1);
    agree(&hypervisor, &vifd, "a hot-unplug");

    hypervisor.create(LXC, "lxc_domain 2");
    let nic = hypervisor.xml("interface 2 1");
    // A container is created a moment before libvirt knows its first process, which plugging in needs.
    eventually("the interface is plugged in", || {
        let mut attach = hypervisor.command("virsh");
        attach.args(["-q", "-c", LXC, "attach-device", "--live"]);
        attach.args(["instance-00000002", &nic]).status().unwrap().success().then_some(())
    });
    agree(&hypervisor, &vifd, "a hot-plug into a container");
    assert_eq!(answer(&vifd).len(), 3);
    hypervisor.virsh(LXC, &format!("detach-device instance-00000002 {nic} --live"));
    agree(&hypervisor, &vifd, "a hot-unplug from a container");
}

#[test]
#[ignore = "needs root: run by make test"]
fn states_definitions_and_metadata_are_followed() {
    let hypervisor = Hypervisor::start();
    let vifd = hypervisor.vifd("");
    let path = format!("/host/v1/instances/{}", uuid(1));
    let firmware = hypervisor.dir().join("halt.bin");
    let xml = hypervisor.xml(&format!("qemu_domain 1 {}", firmware.display()));
    hypervisor.virsh(QEMU, &format!("define {xml}"));
    let state = |state: &str, device: bool| {
        vifd.wait(&format!("{state}, device: {device}"), &path, |answer| {
            let instance = &answer["instance"];
            instance["state"] == state && instance["vifs"][0]["device"].is_object() == device
        })
    };
    let defined = state("shut_off", false);
    assert_eq!(defined["instance"]["vifs"][0]["no_device"], "not_running");
    for (command, expected, device) in
        [("start", "running", true), ("suspend", "paused", true), ("resume", "running", true)]
    {
        hypervisor.virsh(QEMU, &format!("{command} instance-00000001"));
        state(expected, device);
    }
    hypervisor.virsh(
        QEMU,
        "metadata instance-00000001 http://openstack.org/xmlns/libvirt/nova/1.1 --live --key nova \
         --set '<instance><name>renamed</name></instance>'",
    );
    vifd.wait("the new name", &path, |answer| answer["instance"]["display_name"] == "renamed");
    hypervisor.virsh(QEMU, "destroy instance-00000001");
    state("shut_off", false);
    hypervisor.virsh(QEMU, "undefine instance-00000001");
    eventually("it is gone", || (vifd.request("GET", &path, &[]).status == 404).then_some(()));
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_renamed_or_deleted_device_is_not_claimed() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd("");
    let (tap, path) = (tap(1, 0), format!("/host/v1/instances/{}", uuid(1)));
    hypervisor.run(&format!("ip link set {tap} down; ip link set {tap} name elsewhere"));
    let missing = |answer: &Value| answer["instance"]["vifs"][0]["no_device"] == "target_missing";
    vifd.wait("the target is missing", &path, missing);
    let (who, status) = vifd.vifctl(&["who", "elsewhere"]);
    assert!(status == Some(0) && who.contains("carries no VIF"), "{who}");
    hypervisor.run(&format!("ip link set elsewhere name {tap}"));
    vifd.wait("it is back", &path, |answer| !missing(answer));
    hypervisor.run(&format!("ip link del {tap}"));
    vifd.wait("it was deleted", &path, missing);
    // Somebody makes another device under the same name: it is that one now, with another index.
    hypervisor.run(&format!("ip tuntap add dev {tap} mode tap"));
    let again = vifd.wait("another under the same name", &path, |answer| !missing(answer));
    let index = hypervisor.run(&format!("cat /sys/class/net/{tap}/ifindex"));
    assert_eq!(again["instance"]["vifs"][0]["device"]["index"].to_string(), index.trim());
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_move_to_another_bridge_is_seen_although_libvirt_sends_no_event() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    hypervisor.run("ip link add br1 type bridge; ip link set br1 up");
    let vifd = hypervisor.vifd("");
    let path = format!("/host/v1/instances/{}", uuid(1));
    assert_eq!(vifd.get(&path)["instance"]["vifs"][0]["bridge"], "br0");
    let xml = hypervisor.run(
        "virsh dumpxml instance-00000001 | sed -n \"/<interface/,/<.interface>/p\" | sed \"s/bridge='br0'/bridge='br1'/\"",
    );
    let moved = hypervisor.dir().join("moved.xml");
    std::fs::write(&moved, xml).unwrap();
    hypervisor.virsh(QEMU, &format!("update-device instance-00000001 {} --live", moved.display()));
    vifd.wait("the other bridge", &path, |answer| answer["instance"]["vifs"][0]["bridge"] == "br1");
    let device = vifd.get(&format!("/host/v1/devices/{}", tap(1, 0)));
    assert_eq!(device["device"]["controller_name"], "br1");
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_libvirt_restart_keeps_instances_and_marks_them_stale() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    hypervisor.create(LXC, "lxc_domain 2");
    let vifd = hypervisor.vifd("");
    let list = format!("/v2.1/servers/{}/os-virtual-interfaces", uuid(1));
    for signal in ["TERM", "KILL"] {
        hypervisor.control("stop-libvirtd", &[signal]);
        let stale = eventually("stale", || Some(vifd.request("GET", &list, &[])).filter(|list| list.status == 203));
        assert!(stale.header("warning").unwrap().starts_with("110 "));
        assert_eq!(stale.json()["virtual_interfaces"][0]["id"], port(1, 0));
        assert_eq!(vifd.request("POST", &format!("/v2.1/servers/{}/virtual_interfaces", uuid(2)), &[]).status, 202);
        let (said, status) = vifd.vifctl(&["list"]);
        assert!(
            status == Some(0) && said.contains("running (stale)") && said.contains("! qemu:///system is stale"),
            "{said}"
        );
        // The kernel is still followed.
        hypervisor.run(&format!("ip link set {} mtu 1400", tap(1, 0)));
        let device = format!("/host/v1/devices/{}", tap(1, 0));
        vifd.wait("the kernel is still followed", &device, |answer| answer["device"]["mtu"] == 1400);
        hypervisor.run(&format!("ip link set {} mtu 1500", tap(1, 0)));

        hypervisor.control("start-libvirtd", &[]);
        eventually("current again", || (vifd.request("GET", &list, &[]).status == 200).then_some(()));
        hypervisor.create_guest(7, 1);
        agree(&hypervisor, &vifd, "a restart and a new guest");
        hypervisor.virsh(QEMU, "destroy instance-00000007");
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn answers_come_at_once_while_libvirt_hangs() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd("[libvirt]\nkeepalive_interval = '1s'\ncall_timeout = '2s'\n");
    let list = format!("/v2.1/servers/{}/os-virtual-interfaces", uuid(1));
    let pid = hypervisor.control("libvirtd-pid", &[]).trim().to_owned();
    let kill = |signal: &str| assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    kill("-STOP");
    eventually("stale", || (vifd.request("GET", &list, &[]).status == 203).then_some(()));
    // New connections hang as well: they are given up, and their threads are bounded.
    let hypervisors = |sync: &Value| sync["sources"]["hypervisors"][0]["reason"].to_string();
    vifd.wait("a connection was given up", "/host/v1/sync", |sync| {
        hypervisors(sync).contains("virConnectOpenReadOnly")
    });
    std::thread::sleep(std::time::Duration::from_secs(12));
    let threads = std::fs::read_dir(format!("/proc/{}/task", vifd.daemon_pid())).unwrap().count();
    assert!(threads < 20, "{threads} threads");
    assert_eq!(vifd.request("GET", &list, &[]).status, 203);
    kill("-CONT");
    eventually("current again", || (vifd.request("GET", &list, &[]).status == 200).then_some(()));
    hypervisor.create_guest(2, 1);
    agree(&hypervisor, &vifd, "libvirt went on");
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_connection_that_dies_while_two_domains_are_read_is_noticed_and_survived() {
    let hypervisor = Hypervisor::start();
    (1..=3).for_each(|n| hypervisor.create_guest(n, 1));
    let vifd = hypervisor.vifd("[libvirt]\nkeepalive_interval = '2s'\ncall_timeout = '1s'\n");
    let pid = hypervisor.control("libvirtd-pid", &[]).trim().to_owned();
    let kill = |signal: &str| assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    let list = format!("/v2.1/servers/{}/os-virtual-interfaces", uuid(3));
    for off_or_on in ["nomaster", "master br0"] {
        kill("-STOP");
        // The two are read again, and what is asked about them hangs until keepalive gives the connections up.
        hypervisor.run(&format!("ip link set {} {off_or_on}; ip link set {} {off_or_on}", tap(1, 0), tap(2, 0)));
        eventually("stale", || (vifd.request("GET", &list, &[]).status == 203).then_some(()));
        let sync = vifd.get("/host/v1/sync");
        assert_eq!(sync["sources"]["hypervisors"][0]["state"], "stale");
        kill("-CONT");
        eventually("current again", || (vifd.request("GET", &list, &[]).status == 200).then_some(()));
        agree(&hypervisor, &vifd, "libvirt went on");
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_live_migration_is_a_state_of_the_record_on_both_hosts() {
    let (here, there) = (Hypervisor::start(), Hypervisor::start());
    here.create_guest(1, 2);
    let (vifd_here, vifd_there) = (here.vifd(""), there.vifd(""));
    let path = format!("/host/v1/instances/{}", uuid(1));
    // Slow enough to be looked at; over a Unix socket, since the two share no network.
    let migrate = |from: &Hypervisor, to: &Hypervisor| {
        let script = format!(
            "virsh -q -c '{}' migrate --live --bandwidth 1 instance-00000001 '{}' --migrateuri unix://{}",
            from.uri(),
            to.uri(),
            from.dir().join("migration").display()
        );
        Command::new("bash").args(["-c", &script]).stderr(Stdio::piped()).spawn().unwrap()
    };
    let is = |wanted: Value| move |answer: &Value| answer["instance"]["migration"] == wanted;
    for (from, to, source, target) in
        [(&here, &there, &vifd_here, &vifd_there), (&there, &here, &vifd_there, &vifd_here)]
    {
        let mut migration = migrate(from, to);
        target.wait("it is coming", &path, is(json!("incoming")));
        source.wait("it is leaving", &path, is(json!("outgoing")));
        assert!(migration.wait().unwrap().success());
        let arrived = target
            .wait("it runs there", &path, |answer| answer["instance"]["state"] == "running" && is(Value::Null)(answer));
        assert_eq!(arrived["instance"]["vifs"][1]["device"]["name"], tap(1, 1));
        eventually("it is gone", || (source.request("GET", &path, &[]).status == 404).then_some(()));
        agree(to, target, "a migration");
        agree(from, source, "a migration");
    }
    // One that is given up half-way: libvirt sends no event then.
    let migration = migrate(&here, &there);
    vifd_here.wait("it is leaving", &path, is(json!("outgoing")));
    here.virsh(QEMU, "domjobabort instance-00000001");
    assert!(!migration.wait_with_output().unwrap().status.success());
    vifd_here.wait("it stays", &path, is(Value::Null));
    eventually("it is not there", || (vifd_there.request("GET", &path, &[]).status == 404).then_some(()));
    agree(&here, &vifd_here, "a migration that was given up");
    agree(&there, &vifd_there, "a migration that was given up");
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_restart_in_the_middle_of_a_migration_knows_that_the_guest_is_leaving() {
    let (here, there) = (Hypervisor::start(), Hypervisor::start());
    here.make_guests_heavy();
    here.create_guest(1, 1);
    let vifd = here.vifd("");
    let path = format!("/host/v1/instances/{}", uuid(1));
    let outgoing = |answer: &Value| answer["instance"]["migration"] == "outgoing";
    let script = format!(
        "virsh -q -c '{}' migrate --live --bandwidth 1 instance-00000001 '{}' --migrateuri unix://{}",
        here.uri(),
        there.uri(),
        here.dir().join("migration").display()
    );
    let mut migration = Command::new("bash").args(["-c", &script]).spawn().unwrap();
    vifd.wait("it is leaving", &path, outgoing);
    assert!(vifd.end("-TERM").success());
    let vifd = here.vifd("");
    let synced = |answer: &Value| answer["instance"]["stale"].is_null() || answer["error"].is_object();
    let first = vifd.wait("libvirt was read", &path, synced);
    assert!(outgoing(&first), "{first}");
    assert!(migration.wait().unwrap().success());
    eventually("it has left", || (vifd.request("GET", &path, &[]).status == 404).then_some(()));
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_domain_that_never_answers_is_stale_alone() {
    let hypervisor = Hypervisor::start();
    hypervisor.hang_guest_9("stopped");
    hypervisor.create_guest(1, 1);
    hypervisor.create_guest(9, 1);
    let vifd = hypervisor.vifd("[libvirt]\ncall_timeout = '1s'\nresync_interval = '2s'\n");
    let mut destroy = hypervisor.command("virsh").args(["-q", "destroy", "instance-00000009"]).spawn().unwrap();
    let stuck = format!("/host/v1/instances/{}", uuid(9));
    let answer = vifd.wait("it does not answer", &stuck, |answer| answer["instance"]["stale"].is_object());
    assert!(answer["instance"]["stale"]["reason"].as_str().unwrap().contains("libvirt does not answer about it"));
    let list = |n| vifd.request("GET", &format!("/v2.1/servers/{}/os-virtual-interfaces", uuid(n)), &[]);
    assert_eq!((list(9).status, list(1).status), (203, 200));

    // The other is followed, past the next resyncs.
    let nic = hypervisor.xml("hot_plug_interface 1 1");
    for _ in 0..3 {
        hypervisor.virsh(QEMU, &format!("attach-device instance-00000001 {nic} --live"));
        eventually("a hot-plug beside it", || {
            (list(1).json()["virtual_interfaces"].as_array().unwrap().len() == 2).then_some(())
        });
        std::thread::sleep(std::time::Duration::from_secs(2));
        hypervisor.virsh(QEMU, &format!("detach-device-alias instance-00000001 ua-{} --live", port(1, 1)));
        hypervisor.virsh(QEMU, "reset instance-00000001");
        eventually("a hot-unplug beside it", || {
            (list(1).json()["virtual_interfaces"].as_array().unwrap().len() == 1).then_some(())
        });
    }
    assert_eq!((list(9).status, list(1).status), (203, 200));
    assert_eq!(vifd.get("/host/v1/sync")["sources"]["hypervisors"][0]["state"], "synced");

    hypervisor.end_hook();
    assert!(destroy.wait().unwrap().success());
    eventually("it answered at last, and is gone", || (list(9).status == 404).then_some(()));
    assert_eq!(list(1).header("warning"), None);
}

#[test]
#[ignore = "needs root: run by make test"]
fn without_libvirt_at_the_start_the_kernel_is_served_and_libvirt_is_pending() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    hypervisor.control("stop-libvirtd", &["TERM"]);
    let vifd = Vifd::start(hypervisor.command(VIFD), hypervisor.dir(), "");
    let sync = vifd.wait("both were tried", "/host/v1/sync", |sync| {
        let hypervisors = sync["sources"]["hypervisors"].as_array().unwrap();
        hypervisors.iter().all(|hypervisor| hypervisor["reason"].is_string())
    });
    assert_eq!(sync["sources"]["hypervisors"][0]["state"], "pending");
    let tap = tap(1, 0);
    assert_eq!(vifd.get(&format!("/host/v1/devices/{tap}"))["device"]["name"], tap);
    let list = format!("/v2.1/servers/{}/os-virtual-interfaces", uuid(1));
    assert_eq!(vifd.request("GET", &list, &[]).status, 503);
    hypervisor.control("start-libvirtd", &[]);
    eventually("libvirt came", || (vifd.request("GET", &list, &[]).status == 200).then_some(()));
    agree(&hypervisor, &vifd, "libvirt came");
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_restart_serves_the_records_of_the_run_before_until_libvirt_was_read() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd("");
    let records = || std::fs::read_to_string(hypervisor.dir().join("vifd.cache")).unwrap_or_default();
    eventually("the records are written", || records().contains(&uuid(1)).then_some(()));
    hypervisor.control("stop-libvirtd", &["KILL"]);
    let pid = vifd.daemon_pid();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    drop(vifd);
    let vifd = Vifd::start(hypervisor.command(VIFD), hypervisor.dir(), "");
    let list = format!("/v2.1/servers/{}/os-virtual-interfaces", uuid(1));
    let cached = vifd.request("GET", &list, &[]);
    assert_eq!((cached.status, &cached.json()["virtual_interfaces"][0]["id"]), (203, &json!(port(1, 0))));
    assert!(cached.header("age").unwrap().parse::<u64>().unwrap() < 60);
    // The links are the kernel's of now.
    let vifs = vifd.wait("the links are read", "/host/v1/vifs", |answer| answer["vifs"][0]["device"].is_object());
    assert_eq!(vifs["vifs"][0]["device"]["name"], tap(1, 0));
    hypervisor.control("start-libvirtd", &[]);
    eventually("current again", || (vifd.request("GET", &list, &[]).status == 200).then_some(()));
}

#[test]
#[ignore = "needs root: run by make test"]
fn neither_root_nor_capabilities_are_needed() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let own = hypervisor.dir().join("nobody");
    std::fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(65534), Some(65534)).unwrap();
    // Its log and configuration are written by the test; the socket is its own.
    let binary = own.join("vifd");
    std::fs::copy(VIFD, &binary).unwrap();
    let mut command = hypervisor.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--no-new-privs", "--"]);
    command.arg(&binary);
    let vifd = Vifd::start(command, &own, "");
    vifd.wait_ready();
    agree(&hypervisor, &vifd, "a start as nobody");
    hypervisor.create_guest(2, 1);
    agree(&hypervisor, &vifd, "a guest started");
}

#[test]
#[ignore = "needs root: run by make test"]
fn the_tcp_listener_answers_as_the_socket_does() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd("");
    let address = vifd.tcp();
    let path = format!("/v2.1/servers/{}/virtual_interfaces", uuid(1));
    let over_tcp = hypervisor.run(&format!("curl -s -X POST http://{address}{path}"));
    assert_eq!(over_tcp, vifd.request("POST", &path, &[]).body);
    assert!(http::over_tcp(address, "GET", "/live", &[]).is_none(), "it is loopback of its own namespace");
}
