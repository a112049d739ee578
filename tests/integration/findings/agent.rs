//! What vifd cannot see or do, and how `vifctl doctor` tells of it.

use std::fs;

use super::*;
use crate::support::{eventually, openvswitch::Switch, vifd::VIFD};

#[test]
#[ignore = "needs root: run by make test"]
fn a_lost_source_is_a_finding_and_what_rests_on_it_is_neither_raised_nor_cleared() {
    let hypervisor = Hypervisor::start();
    let switch = Switch::start(&hypervisor);
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd(CONFIG);
    wait(&vifd, "nothing is wrong before", &[]);
    hypervisor.run("ip tuntap add dev vnet7 mode tap");
    wait(&vifd, "a leak", &[("device-leaked", "vnet7")]);
    hypervisor.control("stop-libvirtd", &[]);
    // A second one, while nobody can say whose it is; and the first one goes.
    hypervisor.run("ip tuntap add dev vnet8 mode tap; ip link del vnet7");
    let lost = [("source-stale", QEMU), ("source-stale", LXC), ("device-leaked", "vnet7")];
    wait(&vifd, "libvirt is away", &lost);
    let (text, status) = vifd.vifctl(&["doctor"]);
    assert_eq!(status, Some(11), "{text}");
    assert!(text.contains("! not looked at: its instances, and whose a device is: qemu:///system"), "{text}");
    hypervisor.control("start-libvirtd", &[]);
    wait(&vifd, "libvirt is back", &[("device-leaked", "vnet8")]);
    hypervisor.run("ip link del vnet8");
    wait(&vifd, "all is well", &[]);
    switch.control("stop-db", &[]);
    wait(&vifd, "Open vSwitch is away", &[("source-stale", "ovsdb")]);
    switch.control("start-db", &[]);
    wait(&vifd, "Open vSwitch is back", &[]);
}

#[test]
#[ignore = "needs root: run by make test"]
fn an_instance_about_which_libvirt_does_not_answer_is_a_finding() {
    let hypervisor = Hypervisor::start();
    hypervisor.hang_guest_9("start");
    hypervisor.define_guest(9);
    let vifd = hypervisor.vifd(&format!("[libvirt]\ncall_timeout = '1s'\n{CONFIG}"));
    wait(&vifd, "nothing is wrong before", &[]);
    let mut start = hypervisor.command("virsh").args(["-q", "start", "instance-00000009"]).spawn().unwrap();
    wait(&vifd, "it hangs", &[("instance-unreadable", "instance-00000009")]);
    hypervisor.end_hook();
    assert!(!start.wait().unwrap().success());
    wait(&vifd, "it answers again", &[]);
}

#[test]
#[ignore = "needs root: run by make test"]
fn what_vifd_may_not_read_or_write_is_a_finding() {
    let hypervisor = Hypervisor::start();
    let _switch = Switch::start(&hypervisor);
    let dir = hypervisor.dir().display();
    // For nobody, as vifd's own user is to Open vSwitch.
    hypervisor.run(&format!("chmod 777 {dir}; chmod 755 /run/openvswitch"));
    let mut command = hypervisor.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--", VIFD]);
    let config = format!("socket_mode = '0666'\ncache = '{dir}/none/cache'\n{CONFIG}");
    let vifd = Vifd::start(command, hypervisor.dir(), &config);
    vifd.wait_ready();
    // Only when there is something to keep.
    hypervisor.create_guest(1, 1);
    let (socket, db) = (vifd.socket.display().to_string(), "/run/openvswitch/db.sock".to_owned());
    let db = if hypervisor.dir().join("run/openvswitch/db.sock").exists() {
        hypervisor.dir().join("run/openvswitch/db.sock").display().to_string()
    } else {
        db
    };
    let wrong = [("socket-open", &*socket), ("socket-refused", &*db), ("cache-not-written", "cache")];
    wait(&vifd, "what it may not do", &wrong);
    fs::create_dir(hypervisor.dir().join("none")).unwrap();
    hypervisor.run(&format!("chmod 777 {dir}/none; chmod 660 {socket}; chmod 666 /run/openvswitch/db.sock"));
    wait(&vifd, "it may", &[]);
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_daemon_that_keeps_no_records_looks_as_often_as_any() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd(&format!("cache = ''\n{CONFIG}"));
    provoke(&hypervisor, &vifd, &[("bridge-down", "br0")], "ip link set br0 down", "ip link set br0 up");
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_hypervisor_that_was_never_there_is_a_finding() {
    let hypervisor = Hypervisor::start();
    let config = format!("[libvirt]\nuris = ['qemu:///system', 'qemu+unix:///system?socket=/run/none']\n{CONFIG}");
    let vifd = Vifd::start(hypervisor.command(VIFD), hypervisor.dir(), &config);
    wait(&vifd, "it is not there", &[("source-unread", "qemu+unix:///system?socket=/run/none")]);
}

#[test]
#[ignore = "needs root: run by make test"]
fn the_doctor_tells_what_is_wrong_since_when_and_what_to_do() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 2);
    let vifd = hypervisor.vifd(CONFIG);
    wait(&vifd, "nothing is wrong before", &[]);
    let healthy = eventually("the daemon is no longer young", || {
        let (text, status) = vifd.vifctl(&["doctor"]);
        assert_eq!(status, Some(0), "{text}");
        (!text.contains("once")).then_some(text)
    });
    assert!(healthy.starts_with("Nothing is wrong.\n\nLooked at 1 instance, 2 VIFs, "), "{healthy}");

    let (one, two) = (tap(1, 0), tap(1, 1));
    hypervisor.run(&format!("ip tuntap add dev vnet7 mode tap; ip link set {one} down"));
    wait(&vifd, "both", &[("device-down", &one), ("device-leaked", "vnet7")]);
    let (text, status) = vifd.vifctl(&["doctor"]);
    assert_eq!(status, Some(11), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..3], ["1 error and 1 warning.", "", &format!("ERROR  device-down  {one}")], "{text}");
    for part in [
        format!("  evidence     kernel: {one} (ifindex "),
        "  concerns     1 VIF of instance-00000001".to_owned(),
        "  since        seen for ".to_owned(),
        format!("                 ip link set dev {one} up"),
        "  read         docs/findings.md#device-down".to_owned(),
        "WARNING  device-leaked  vnet7".to_owned(),
    ] {
        assert!(text.contains(&part), "{part}:\n{text}");
    }
    // By whatever it is about.
    for thing in [&*one, &mac(1, 0), "instance-00000001"] {
        assert_eq!(vifd.vifctl(&["doctor", thing]).1, Some(11), "{thing}");
    }
    assert_eq!(vifd.vifctl(&["doctor", "vnet7"]).1, Some(10));
    assert_eq!(vifd.vifctl(&["doctor", "--code", "device-leaked"]).1, Some(10));
    assert_eq!(vifd.vifctl(&["doctor", &two]), (vifd.vifctl(&["doctor", &two]).0, Some(0)));
    assert_eq!(vifd.vifctl(&["doctor", "nonsense"]).1, Some(1));
    assert_eq!(vifd.vifctl(&["doctor", "--code", "nonsense"]).1, Some(2));
    let (json, _) = vifd.vifctl(&["-o", "json", "doctor"]);
    assert_eq!(raised(&serde_json::from_str(&json).unwrap()).len(), 2);

    // Without a daemon everything was seen once.
    let (text, status) = vifctl_offline(&hypervisor);
    assert_eq!(status, Some(11), "{text}");
    for part in ["ERROR  device-down", "WARNING  device-leaked", "seen once", " once: "] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
}

/// What `vifctl --offline doctor` prints inside, and its exit status.
fn vifctl_offline(hypervisor: &Hypervisor) -> (String, Option<i32>) {
    let mut command = hypervisor.command(crate::support::vifd::VIFCTL);
    command.arg("--config").arg(hypervisor.dir().join("vifd.toml")).args(["--offline", "doctor"]);
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}
