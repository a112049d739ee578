//! The change from libvirtd to split daemons (virtqemud) and back, on a host whose guests go on running.

use crate::support::hypervisor::Hypervisor;

const INSTANCES: &str = "/host/v1/instances";

#[test]
#[ignore = "needs root and a virtqemud: run by make test-split-daemons"]
fn a_host_that_changes_to_split_daemons_and_back_is_followed() {
    let virtqemud = std::env::var("VIRTQEMUD").expect("make test-split-daemons names it");
    let hv = Hypervisor::start();
    hv.create_guest(1, 1);
    let vifd = hv.vifd("[libvirt]\nuris = ['qemu:///system']\n");
    let [before, daemon] = [hv.control("libvirtd-pid", &[]), hv.run("echo $(pidof qemu-system-x86_64)")];
    let instances = vifd.get(INSTANCES)["instances"].take();
    let vifs = instances[0]["vifs"].clone();
    assert!(instances[0]["stale"].is_null() && vifs[0]["device"]["index"].is_u64(), "{instances}");
    let is_stale = |stale: bool| {
        let what = if stale { "the record is stale" } else { "the record is current again" };
        let answer = vifd.wait(what, INSTANCES, |answer| answer["instances"][0]["stale"].is_null() != stale);
        assert_eq!(answer["instances"][0]["vifs"], vifs, "{what}");
    };

    // As an upgrade does it: the old daemon and its sockets go, then the new one and its sockets come.
    hv.control("stop-libvirtd", &[]);
    is_stale(true);
    hv.run("cp /etc/libvirt/libvirtd.conf /etc/libvirt/virtqemud.conf");
    hv.run(&format!("{virtqemud} --daemon </dev/null >/dev/null 2>&1"));
    is_stale(false);
    assert_eq!(hv.run("ls /run/libvirt/*-sock-ro"), "/run/libvirt/virtqemud-sock-ro\n");

    // It hears the new daemon's events.
    hv.create_guest(2, 1);
    vifd.wait("another guest", INSTANCES, |answer| answer["instances"].as_array().unwrap().len() == 2);
    hv.virsh("qemu:///system", &format!("destroy {}", Hypervisor::id("domain_name 2")));
    vifd.wait("it is gone", INSTANCES, |answer| answer["instances"].as_array().unwrap().len() == 1);

    // A restart in place, and back to the one daemon for everything.
    hv.run("kill -KILL $(cat /run/virtqemud.pid)");
    is_stale(true);
    hv.run(&format!("{virtqemud} --daemon </dev/null >/dev/null 2>&1"));
    is_stale(false);
    hv.run("kill $(cat /run/virtqemud.pid)");
    is_stale(true);
    hv.control("start-libvirtd", &[]);
    is_stale(false);
    assert_ne!(hv.control("libvirtd-pid", &[]), before);
    assert_eq!(hv.run("echo $(pidof qemu-system-x86_64)"), daemon, "the guest ran on");
}
