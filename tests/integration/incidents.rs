//! Incidents as they happened to people, rebuilt, and solved with `vifctl` alone: those that README tells.
//!
//! With `-- --nocapture` each prints what a person would have typed and read.

use std::process::{Command, Stdio};

use crate::support::{eventually, hypervisor::Hypervisor, vifd::Vifd};

/// What somebody types, and what they read.
struct Terminal<'a> {
    vifd: &'a Vifd,
}

impl Terminal<'_> {
    /// Types it until everything that is wanted is there.
    fn find(&self, command: &str, wanted: &[&str]) {
        let mut said = Said(String::new());
        eventually(&format!("vifctl {command} says {wanted:?}"), || {
            said.0 = self.vifd.vifctl(&command.split(' ').collect::<Vec<_>>()).0;
            wanted.iter().all(|wanted| said.0.contains(wanted)).then_some(())
        });
        println!("$ vifctl {command}\n{}", said.0);
    }
}

/// What was read last, shown if it was not what was wanted.
struct Said(String);

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it said:\n{}", self.0);
        }
    }
}

/// What a function of `tests/testbed/domains.sh` prints.
fn id(function: &str) -> String {
    Hypervisor::id(function)
}

/// A live migration is given up, and the cloud forgets to remove the tap that it had made on the other host.
#[test]
#[ignore = "needs root: run by make test"]
fn a_tap_that_a_failed_migration_left_behind_is_found_and_explained() {
    let (here, there) = (Hypervisor::start(), Hypervisor::start());
    here.make_guests_heavy();
    let tap = id("tap_name 42 0");
    let plug = format!("ip tuntap add {tap} mode tap && ip link set {tap} master br0 up");
    here.run(&plug);
    here.create(
        "qemu:///system",
        &format!("qemu_domain 42 {} qemu 1 unmanaged", here.dir().join("halt.bin").display()),
    );
    let vifd = there.vifd("");
    there.run(&plug);
    let script = format!(
        "virsh -q -c '{}' migrate --live --bandwidth 1 instance-0000002a '{}' --migrateuri unix://{}",
        here.uri(),
        there.uri(),
        here.dir().join("migration").display()
    );
    let migration = Command::new("bash").args(["-c", &script]).stderr(Stdio::piped()).spawn().unwrap();
    let path = format!("/host/v1/instances/{}", id("server_uuid 42"));
    vifd.wait("it is coming", &path, |answer| answer["instance"]["migration"] == "incoming");
    here.virsh("qemu:///system", "domjobabort instance-0000002a");
    assert!(!migration.wait_with_output().unwrap().status.success());

    let terminal = Terminal { vifd: &vifd };
    terminal.find("doctor", &["device-leaked", &tap]);
    terminal.find(&format!("who {tap}"), &["carries no VIF"]);
    terminal.find(&format!("history {tap}"), &["instance-0000002a"]);
    there.run(&format!("ip tuntap del {tap} mode tap"));
    terminal.find("doctor", &["Nothing is wrong"]);
}

/// Guests that were given jumbo frames, on a host whose uplink has none: small packets pass, large ones vanish.
#[test]
#[ignore = "needs root: run by make test"]
fn the_one_hop_with_a_smaller_mtu_is_found() {
    let hypervisor = Hypervisor::start();
    hypervisor.run(
        "ip link add uplink type veth peer name switch && ip link set uplink master br0 up && ip link set switch up",
    );
    hypervisor.create_guest(42, 1);
    let tap = id("tap_name 42 0");
    hypervisor.run(&format!("ip link set br0 mtu 9000; ip link set {tap} mtu 9000"));
    let vifd = hypervisor.vifd("");
    let terminal = Terminal { vifd: &vifd };
    terminal.find("doctor", &["mtu-exceeds-path", "takes 1500 bytes; devices before it take 9000"]);
    terminal.find("path web-42", &["!! veth", "its MTU of 1500 is too small"]);
    hypervisor.run("ip link set uplink mtu 9000");
    terminal.find("doctor", &["Nothing is wrong"]);
}

/// Two guests with one MAC address on one bridge: each has the network every other minute.
#[test]
#[ignore = "needs root: run by make test"]
fn two_nics_with_the_same_mac_address_are_found() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(42, 1);
    let other = hypervisor.xml(&format!("qemu_domain 43 {} qemu 1", hypervisor.dir().join("halt.bin").display()));
    let (mac, copied) = (id("mac_address 43 0"), id("mac_address 42 0"));
    hypervisor.run(&format!("sed -i s/{mac}/{copied}/ {other}"));
    hypervisor.virsh("qemu:///system", &format!("create {other}"));
    let vifd = hypervisor.vifd("");
    let terminal = Terminal { vifd: &vifd };
    terminal.find("doctor", &["duplicate-mac", &copied]);
    terminal.find(&format!("who {copied}"), &["web-42", "web-43"]);
    hypervisor.virsh("qemu:///system", "destroy instance-0000002b");
    terminal.find("doctor", &["Nothing is wrong"]);
}
