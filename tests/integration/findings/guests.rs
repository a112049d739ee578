//! What is wrong with guests: who they are, what their next start changes, and whether they are here at all.

use std::{fs, process::Command};

use super::*;
use crate::support::hypervisor::output;

/// The XML of guest `n`, changed.
fn guest(hypervisor: &Hypervisor, n: u32, interfaces: u32, change: impl FnOnce(String) -> String) -> String {
    let firmware = hypervisor.dir().join("halt.bin");
    let path = hypervisor.xml(&format!("qemu_domain {n} {} qemu {interfaces}", firmware.display()));
    let xml = change(fs::read_to_string(&path).unwrap());
    fs::write(&path, xml).unwrap();
    path
}

#[test]
#[ignore = "needs root: run by make test"]
fn what_two_guests_must_not_share_is_raised_and_cleared() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    hypervisor.run("ip link add br1 type bridge; ip link set br1 up");
    let vifd = hypervisor.vifd(CONFIG);
    let provoke = |wrong: &[Wrong], xml: &str| {
        let (cause, mend) = (format!("virsh -q create {xml}"), "virsh -q destroy instance-00000002");
        provoke(&hypervisor, &vifd, wrong, &cause, mend)
    };
    let (first, second) = (mac(1, 0), mac(2, 0));

    let xml = guest(&hypervisor, 2, 1, |xml| xml.replace(&second, &first));
    let answer = provoke(&[("duplicate-mac", &first)], &xml);
    assert_eq!(answer["findings"][0]["severity"], "error");
    let xml = guest(&hypervisor, 2, 1, |xml| xml.replace(&second, &first).replace("'br0'", "'br1'"));
    let answer = provoke(&[("duplicate-mac", &first)], &xml);
    assert_eq!(answer["findings"][0]["severity"], "warning");

    let id = port(1, 0);
    let xml = guest(&hypervisor, 2, 1, |xml| {
        let named = xml.replace(&format!("<target dev='{}'/>", tap(2, 0)), &format!("<alias name='ua-{id}'/>"));
        named
            .replace(&port(2, 0), "00000000-0000-4000-a000-000000000009")
            .replace("<nova:port ", "<nova:other ")
            .replace("</nova:port>", "</nova:other>")
    });
    provoke(&[("duplicate-vif-id", &id)], &xml);

    let start = &port(2, 0)[..11];
    let twin = format!("{start}{}", &id[11..]);
    let xml = guest(&hypervisor, 2, 2, |xml| xml.replace(&port(2, 1), &twin));
    provoke(&[("ambiguous-vif-id", start)], &xml);
}

#[test]
#[ignore = "needs root: run by make test"]
fn an_address_that_the_next_start_would_change_and_a_device_that_takes_less_than_its_guest() {
    let hypervisor = Hypervisor::start();
    // libvirt sends no event of a definition that is changed so.
    let vifd = hypervisor.vifd(&format!("[libvirt]\nresync_interval = '300ms'\n{CONFIG}"));
    let xml = guest(&hypervisor, 1, 1, |xml| xml);
    hypervisor.virsh(QEMU, &format!("define {xml}"));
    hypervisor.virsh(QEMU, "start instance-00000001");
    let attach = "virsh -q attach-interface instance-00000001 bridge br0 --model virtio --mac 52:54:00:00:00";
    provoke(
        &hypervisor,
        &vifd,
        &[("definition-mac-differs", "vnet0")],
        &format!("{attach}:01 --live; {attach}:02 --config"),
        "virsh -q detach-interface instance-00000001 bridge 52:54:00:00:00:02 --config",
    );
    hypervisor.virsh(QEMU, "destroy instance-00000001");
    let xml = guest(&hypervisor, 2, 1, |xml| {
        xml.replace("<model type='virtio'/>", "<model type='virtio'/><mtu size='1400'/>")
    });
    hypervisor.virsh(QEMU, &format!("create {xml}"));
    let tap = tap(2, 0);
    provoke(
        &hypervisor,
        &vifd,
        &[("mtu-exceeds-device", &tap)],
        &format!("ip link set {tap} mtu 1300"),
        &format!("ip link set {tap} mtu 1400"),
    );
}

#[test]
#[ignore = "needs root: run by make test"]
fn an_instance_that_has_migrated_away_is_no_leak_before_and_a_finding_if_it_stays_defined() {
    let (here, there) = (Hypervisor::start(), Hypervisor::start());
    let (vifd_here, vifd_there) = (here.vifd(CONFIG), there.vifd(CONFIG));
    let xml = guest(&here, 1, 1, |xml| xml);
    here.virsh(QEMU, &format!("define {xml}"));
    here.virsh(QEMU, "start instance-00000001");
    wait(&vifd_here, "nothing is wrong before", &[]);
    let migrateuri = here.dir().join("migration");
    let script = format!(
        "virsh -q -c '{}' migrate --live --persistent instance-00000001 '{}' --migrateuri unix://{}",
        here.uri(),
        there.uri(),
        migrateuri.display()
    );
    output(Command::new("sh").args(["-c", &script]));
    wait(&vifd_here, "its definition is still here", &[("instance-migrated-away", "instance-00000001")]);
    wait(&vifd_there, "it is well there", &[]);
    here.virsh(QEMU, "undefine instance-00000001");
    wait(&vifd_here, "it was undefined", &[]);
}
