//! The stream of changes: `/host/v1/events`.

use serde_json::Value;

use crate::support::{events::Events, eventually, hypervisor::Hypervisor, vifd::Vifd};

const QEMU: &str = "qemu:///system";

fn open(vifd: &Vifd, query: &str) -> Events {
    Events::open(&vifd.socket, query, &[]).unwrap()
}

/// A link that is nobody's, in the hypervisor's namespace.
fn tap(hypervisor: &Hypervisor, name: &str) {
    hypervisor.run(&format!("ip tuntap add {name} mode tap"));
}

#[test]
#[ignore = "needs root: run by make test"]
fn every_change_of_a_guest_and_its_devices_is_told_and_can_be_resumed() {
    let hypervisor = Hypervisor::start();
    let vifd = hypervisor.vifd("[http]\nevent_heartbeat = '50ms'\n");
    let mut stream = open(&vifd, "");
    let begin = stream.next().unwrap();
    assert_eq!(begin.kind, "begin");

    hypervisor.create_guest(1, 1);
    let uuid = Hypervisor::id("server_uuid 1");
    assert_eq!(stream.next_of("instance_appeared").data["after"]["instance_uuid"], *uuid);
    let plugged = stream.next_of("vif_plugged");
    let mac = Hypervisor::id("mac_address 1 0");
    assert_eq!(plugged.data["after"]["mac"], *mac);
    vifd.wait("its device", &format!("/host/v1/instances/{uuid}"), |answer| {
        answer["instance"]["state"] == "running" && answer["instance"]["vifs"][0]["device"].is_object()
    });

    // Only what is about this guest, from here on.
    let mut of_guest = open(&vifd, &format!("?instance={uuid}"));
    of_guest.next_of("begin");
    tap(&hypervisor, "stranger");
    let nic = hypervisor.xml("hot_plug_interface 1 1");
    hypervisor.virsh(QEMU, &format!("attach-device instance-00000001 {nic} --live"));
    let second = of_guest.next_of("vif_plugged");
    let device = second.data["after"]["device"]["name"].as_str().unwrap().to_owned();
    hypervisor.virsh(QEMU, "suspend instance-00000001");
    let paused = of_guest.next_of("instance_state");
    let states = (&paused.data["before"]["state"], &paused.data["after"]["state"]);
    assert_eq!(states, (&Value::from("running"), &Value::from("paused")));
    hypervisor.virsh(QEMU, "resume instance-00000001");
    of_guest.next_of("instance_state");
    hypervisor.run(&format!("ip link set {device} mtu 1400"));
    let mtu = of_guest.next_of("device_changed");
    assert_eq!((&mtu.data["after"]["mtu"], &mtu.data["carries"][0]["instance_uuid"]), (&1400.into(), &(*uuid).into()));
    hypervisor.run(&format!("ip link set {device} down"));
    assert_eq!(of_guest.next_of("device_state").data["after"]["up"], false);
    hypervisor.run(&format!("ip link set {device} name elsewhere"));
    let renamed = of_guest.next_of("device_renamed");
    assert_eq!(
        (&renamed.data["before"]["device"], &renamed.data["after"]["device"]),
        (&(*device).into(), &"elsewhere".into())
    );
    assert_eq!(of_guest.next_of("vif_device").data["after"]["no_device"], "target_missing");
    hypervisor.run(&format!("ip link set elsewhere name {device}"));
    of_guest.next_of("vif_device");
    hypervisor.run(&format!("ip link set {device} nomaster"));
    let moved = of_guest.next_of("device_moved");

    // Whoever reads everything was told the same.
    while stream.next_of("device_moved").id != moved.id {}
    for since in [format!("?since={}", mtu.id), format!("?since={}&device={device}", mtu.id)] {
        let mut resumed = open(&vifd, &since);
        let next = resumed.next().unwrap();
        assert_eq!(next.kind, "device_state", "what comes right after, without a begin: {next:?}");
        assert_eq!(resumed.next_of("device_moved").id, moved.id);
    }
    let mut by_header = Events::open(&vifd.socket, "?since=0", &[&format!("last-event-id: {}", moved.id)]).unwrap();
    // The halted guest never lets go; a reset does it for the guest.
    hypervisor.virsh(QEMU, &format!("detach-device instance-00000001 {nic} --live"));
    hypervisor.virsh(QEMU, "reset instance-00000001");
    assert_eq!(by_header.next_of("vif_unplugged").data["before"]["vif_id"], second.data["after"]["vif_id"]);
    hypervisor.virsh(QEMU, "destroy instance-00000001");
    by_header.next_of("instance_gone");

    // Heartbeats carry an id from which somebody can go on who was told nothing.
    let mut quiet = open(&vifd, "?thing=nobody");
    let begin = quiet.next_of("begin");
    tap(&hypervisor, "somebody");
    let id = eventually("an id further on", || {
        let id = quiet.next_of("heartbeat").id;
        (id != begin.id).then_some(id)
    });
    tap(&hypervisor, "nobody");
    let mut resumed = open(&vifd, &format!("?thing=nobody&since={id}"));
    assert_eq!(resumed.next().unwrap().data["after"]["device"], "nobody");
    assert_eq!(vifd.request("GET", "/host/v1/events?since=x", &[]).status, 400);
    assert_eq!(vifd.request("GET", "/host/v1/events?sense=1", &[]).status, 400);
}

#[test]
#[ignore = "needs root: run by make test"]
fn libvirt_that_is_lost_is_told_and_what_changed_meanwhile_is_found() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd("");
    let mut stream = open(&vifd, "");
    stream.next_of("begin");
    hypervisor.control("stop-libvirtd", &[]);
    while stream.next_of("source_lost").data["after"]["source"] != QEMU {}
    hypervisor.run("pkill -f '[q]emu-system.*instance-00000001'");
    hypervisor.control("start-libvirtd", &[]);
    while stream.next_of("source_regained").data["after"]["source"] != QEMU {}
    let gone = stream.next_of("instance_gone");
    assert_eq!(gone.data["found"], true, "{gone:?}");
}

#[test]
#[ignore = "needs root: run by make test"]
fn whoever_asks_for_too_much_is_told_what_is_missing() {
    let hypervisor = Hypervisor::start();
    let vifd = hypervisor.vifd("");
    let mut stream = open(&vifd, "");
    let begin = stream.next_of("begin");
    let id = begin.id.clone();
    hypervisor.run("for n in $(seq 550); do echo link add d$n type veth peer name e$n; done | ip -batch -");
    hypervisor
        .run("for n in $(seq 550); do echo link set d$n mtu 1400; echo link set e$n mtu 1400; done | ip -batch -");
    vifd.wait("all are seen", "/host/v1/devices?kind=veth", |answer| {
        let devices = answer["devices"].as_array().unwrap();
        devices.len() == 1100 && devices.iter().all(|device| device["mtu"] == 1400)
    });
    let mut late = open(&vifd, &format!("?since={id}"));
    let missed = late.next().unwrap();
    assert_eq!(
        (&*missed.kind, &missed.data["reason"], &missed.data["since"]),
        ("missed", &"too_old".into(), &(*id).into())
    );
    tap(&hypervisor, "after");
    let after = late.next_of("device_appeared");
    assert_eq!(after.data["after"]["device"], "after");
    assert!(after.data["generation"].as_u64() > missed.data["generation"].as_u64());

    for other in ["1-1", "1000-99-3", "99999999"] {
        let missed = open(&vifd, &format!("?since={other}")).next().unwrap();
        assert_eq!((&*missed.kind, &missed.data["reason"]), ("missed", &"another_run".into()), "{other}");
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn streams_are_bounded_and_whoever_does_not_read_is_cut() {
    let hypervisor = Hypervisor::start();
    let vifd = hypervisor.vifd("[http]\nrequest_timeout = '1s'\nevent_heartbeat = '200ms'\n");
    let mut streams: Vec<_> = (0..64).map(|_| open(&vifd, "")).collect();
    assert_eq!(Events::open(&vifd.socket, "", &[]).err(), Some(503));
    // They live on when a request's time is over.
    let first = &mut streams[0];
    first.next_of("begin");
    for _ in 0..10 {
        first.next_of("heartbeat");
    }
    tap(&hypervisor, "one");
    first.next_of("device_appeared");
    drop(streams.pop());
    let deaf = eventually("a place is free again", || Events::open(&vifd.socket, "", &[]).ok());
    hypervisor.run("for n in $(seq 900); do echo link add d$n type veth peer name e$n; done | ip -batch -");
    eventually("it is cut", || vifd.log().contains("the client does not take its answer").then_some(()));
    drop(deaf);
}
