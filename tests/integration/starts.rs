//! Starts that hang. libvirt tells of a start only when it has succeeded or failed; until then the kernel's devices are
//! the only sign of it. One that hangs in QEMU is among the [`kinds`](crate::kinds), with a vhost-user socket.

use serde_json::Value;

use crate::support::{eventually, hypervisor::Hypervisor, vifd::Vifd};

const QEMU: &str = "qemu:///system";

fn uuid(n: u32) -> String {
    Hypervisor::id(&format!("server_uuid {n}"))
}

fn status(vifd: &Vifd, n: u32) -> u16 {
    vifd.request("GET", &format!("/v2.1/servers/{}/os-virtual-interfaces", uuid(n)), &[]).status
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_start_that_hangs_with_its_lock_held_is_known_as_one_that_does_not_answer_and_harms_nobody_else() {
    let hypervisor = Hypervisor::start();
    hypervisor.hang_guest_9("start");
    hypervisor.define_guest(9);
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd("[libvirt]\ncall_timeout = '1s'\n");
    let path = format!("/host/v1/instances/{}", uuid(9));
    vifd.wait("it is defined", &path, |answer| answer["instance"]["state"] == "shut_off");
    let mut start = hypervisor.command("virsh").args(["-q", "start", "instance-00000009"]).spawn().unwrap();
    let stale = |answer: &Value| answer["instance"]["stale"]["reason"].to_string();
    vifd.wait("it does not answer", &path, |answer| stale(answer).contains("libvirt does not answer about it"));
    assert_eq!(vifd.get("/host/v1/sync")["sources"]["hypervisors"][0]["state"], "synced");
    assert_eq!((status(&vifd, 1), status(&vifd, 9)), (200, 203));

    // The other is followed.
    let nic = hypervisor.xml("hot_plug_interface 1 1");
    hypervisor.virsh(QEMU, &format!("attach-device instance-00000001 {nic} --live"));
    let other = format!("/host/v1/instances/{}", uuid(1));
    vifd.wait("a hot-plug beside it", &other, |answer| answer["instance"]["vifs"][1]["device"].is_object());

    hypervisor.end_hook();
    // The hook was killed, so the start fails.
    assert!(!start.wait().unwrap().success());
    let whole = |answer: &Value| answer["instance"]["state"] == "shut_off" && answer["instance"]["stale"].is_null();
    vifd.wait("it answers again", &path, whole);
    assert_eq!((status(&vifd, 1), status(&vifd, 9)), (200, 200));
    eventually("the list came", || vifd.log().contains("libvirt lists its domains again").then_some(()));
}
