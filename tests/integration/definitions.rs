//! Guests whose persistent definition is not what runs, and what is done to definitions.

use serde_json::{Value, json};

use crate::support::{eventually, hypervisor::Hypervisor, vifd::Vifd};

const QEMU: &str = "qemu:///system";

/// A hypervisor with guest 1, defined and started with one interface, and the daemon.
fn start() -> (Hypervisor, Vifd, String) {
    let hypervisor = Hypervisor::start();
    let xml = hypervisor.xml(&format!("qemu_domain 1 {}", hypervisor.dir().join("halt.bin").display()));
    hypervisor.virsh(QEMU, &format!("define {xml}"));
    hypervisor.virsh(QEMU, "start instance-00000001");
    let vifd = hypervisor.vifd("");
    (hypervisor, vifd, xml)
}

fn uuid() -> String {
    Hypervisor::id("server_uuid 1")
}

fn mac(j: u32) -> String {
    Hypervisor::id(&format!("mac_address 1 {j}"))
}

/// The MAC address of each VIF with what the definition says of it, then the addresses that the definition has alone.
fn told(instance: &Value) -> Value {
    let empty = Vec::new();
    let list = |name: &str| instance[name].as_array().unwrap_or(&empty).iter();
    let vifs: Vec<_> = list("vifs").map(|vif| json!([vif["mac"], vif["definition"]])).collect();
    let others: Vec<_> = list("defined_only").map(|interface| interface["mac"].clone()).collect();
    json!([instance["persistent"], vifs, others])
}

/// Waits until this is told. libvirt sends no event of some changes, so `POST` asks for a reading each time.
fn wait(vifd: &Vifd, what: &str, expected: &Value) {
    let path = format!("/host/v1/instances/{}", uuid());
    let mut last = Value::Null;
    let same = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(what, || {
            vifd.request("POST", &format!("/v2.1/servers/{}/virtual_interfaces", uuid()), &[]);
            last = told(&vifd.get(&path)["instance"]);
            (last == *expected).then_some(())
        });
    }));
    assert!(same.is_ok(), "{what}\nvifd:  {last}\ntruth: {expected}");
}

#[test]
#[ignore = "needs root: run by make test"]
fn what_differs_between_a_running_guest_and_its_definition_is_told_of_each_interface() {
    let (hypervisor, vifd, xml) = start();
    let [first, second, third] = [mac(0), mac(1), mac(2)];
    let virsh = |command: &str| hypervisor.virsh(QEMU, command);
    wait(&vifd, "the same", &json!([true, [[first, "same"]], []]));

    let (live, config) = (hypervisor.xml("hot_plug_interface 1 1"), hypervisor.xml("interface 1 2"));
    virsh(&format!("attach-device instance-00000001 {live} --live"));
    wait(&vifd, "one only live", &json!([true, [[first, "same"], [second, "live_only"]], []]));
    virsh(&format!("attach-device instance-00000001 {config} --config"));
    wait(&vifd, "one only defined", &json!([true, [[first, "same"], [second, "live_only"]], [third]]));
    let list = vifd.request("GET", &format!("/v2.1/servers/{}/os-virtual-interfaces", uuid()), &[]);
    assert_eq!(list.json()["virtual_interfaces"].as_array().unwrap().len(), 2, "what does not run is in no list");
    let (shown, _) = vifd.vifctl(&["show", "instance-00000001"]);
    assert!(shown.contains("has no such interface") && shown.contains(&format!("interface    {third}")), "{shown}");

    virsh(&format!("detach-interface instance-00000001 bridge --mac {first} --config"));
    wait(&vifd, "one no longer defined", &json!([true, [[first, "live_only"], [second, "live_only"]], [third]]));
    virsh(&format!("attach-device instance-00000001 {live} --config"));
    wait(&vifd, "one defined as well", &json!([true, [[first, "live_only"], [second, "same"]], [third]]));
    // The halted guest never lets go; a reset does it for the guest.
    virsh(&format!("detach-interface instance-00000001 bridge --mac {second} --live"));
    virsh("reset instance-00000001");
    wait(&vifd, "one only defined now", &json!([true, [[first, "live_only"]], [third, second]]));

    // Another MAC address, another model.
    let other = "52:54:00:00:00:99";
    let described = std::fs::read_to_string(&xml).unwrap();
    std::fs::write(&xml, described.replace(&first, other)).unwrap();
    virsh(&format!("define {xml}"));
    wait(&vifd, "another address defined", &json!([true, [[first, "live_only"]], [other]]));
    std::fs::write(&xml, described.replace("<model type='virtio'/>", "<model type='e1000'/>")).unwrap();
    virsh(&format!("define {xml}"));
    wait(&vifd, "another model defined", &json!([true, [[first, "changed"]], []]));

    // What comes at the next start is what was defined, and no more is to be told while nothing runs.
    virsh("destroy instance-00000001");
    wait(&vifd, "shut off", &json!([null, [[first, null]], []]));
    virsh("start instance-00000001");
    wait(&vifd, "the same again", &json!([true, [[first, "same"]], []]));
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_definition_that_comes_goes_or_is_renamed_is_followed_by_its_events() {
    let (hypervisor, vifd, xml) = start();
    let virsh = |command: &str| hypervisor.virsh(QEMU, command);
    let path = format!("/host/v1/instances/{}", uuid());
    let wait = |what: &str, expected: Value| {
        vifd.wait(what, &path, |answer| told(&answer["instance"]) == expected);
    };
    wait("persistent", json!([true, [[mac(0), "same"]], []]));
    virsh("undefine instance-00000001");
    wait("transient", json!([false, [[mac(0), null]], []]));
    let (shown, _) = vifd.vifctl(&["show", "instance-00000001"]);
    assert!(shown.contains("gone when it stops"), "{shown}");
    virsh(&format!("define {xml}"));
    wait("persistent again", json!([true, [[mac(0), "same"]], []]));

    virsh("destroy instance-00000001");
    vifd.wait("shut off", &path, |answer| answer["instance"]["state"] == "shut_off");
    virsh("domrename instance-00000001 instance-0000002b");
    vifd.wait("the new name", &path, |answer| answer["instance"]["name"] == "instance-0000002b");
    assert_eq!(vifd.get("/host/v1/instances/instance-0000002b")["instance"]["number"], 43);
    assert_eq!(vifd.request("GET", "/host/v1/instances/instance-00000001", &[]).status, 404);
    // By the new name it is followed as before.
    virsh("start instance-0000002b");
    vifd.wait("running", &path, |answer| answer["instance"]["vifs"][0]["device"].is_object());
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_transient_guest_has_no_definition_to_differ_from() {
    let hypervisor = Hypervisor::start();
    let vifd = hypervisor.vifd("");
    hypervisor.create_guest(1, 1);
    wait(&vifd, "transient", &json!([false, [[mac(0), null]], []]));
    let live = hypervisor.xml("hot_plug_interface 1 1");
    hypervisor.virsh(QEMU, &format!("attach-device instance-00000001 {live} --live"));
    wait(&vifd, "with one more", &json!([false, [[mac(0), null], [mac(1), null]], []]));
}
