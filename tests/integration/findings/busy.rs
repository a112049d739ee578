//! A host on which all is well, however much happens: nothing is found at any time.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::*;
use crate::support::{hypervisor::output, openvswitch::Switch};

/// How long it is busy, at least; every guest has come and gone by then, and some have moved.
const TIME: Duration = Duration::from_secs(25);

#[test]
#[ignore = "needs root: run by make test"]
fn nothing_is_found_on_a_busy_host_on_which_all_is_well() {
    let (here, there) = (Hypervisor::start(), Hypervisor::start());
    let (_switch, _other) = (Switch::start(&here), Switch::start(&there));
    // Ten times as often as vifd looks where nobody tells it otherwise.
    let config = "[findings]\nlook_interval = '500ms'\nleaked_after = '5s'\ninterval = '1s'\n";
    let vifds = [here.vifd(config), there.vifd(config)];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut answers = 0;
            while !done.load(Ordering::Relaxed) {
                for vifd in &vifds {
                    let answer = vifd.get("/host/v1/findings");
                    assert_eq!(raised(&answer), BTreeSet::new(), "{answer:#}");
                    answers += 1;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            answers
        });
        let started = Instant::now();
        let busy = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while started.elapsed() < TIME && !watch.is_finished() {
                keep_busy(&here, &there);
            }
        }));
        done.store(true, Ordering::Relaxed);
        let answers = watch.join().unwrap();
        busy.unwrap();
        let looks = vifds.each_ref().map(|vifd| vifd.get("/host/v1/findings")["looks"].as_u64().unwrap());
        println!("nothing in {answers} answers, {looks:?} looks");
        assert!(looks.iter().all(|looks| *looks > 10), "{looks:?}");
    });
}

/// Guests on a bridge and on Open vSwitch and a container come, are plugged into, restarted, moved, and go.
fn keep_busy(here: &Hypervisor, there: &Hypervisor) {
    let firmware = here.dir().join("halt.bin");
    here.create_guest(1, 2);
    here.create(QEMU, &format!("qemu_domain 2 {} qemu 2 virtualport", firmware.display()));
    here.create(LXC, "lxc_domain 3");
    plug_hybrid(here, 4);
    here.create(QEMU, &format!("qemu_domain 4 {} qemu 1 hybrid", firmware.display()));

    let nic = here.xml("hot_plug_interface 1 2");
    here.virsh(QEMU, &format!("attach-device instance-00000001 {nic} --live"));
    here.virsh(QEMU, "suspend instance-00000001");
    here.virsh(QEMU, "resume instance-00000001");
    let off = here.xml(&format!("qemu_domain 5 {}", firmware.display()));
    here.virsh(QEMU, &format!("define {off}"));
    here.virsh(QEMU, "start instance-00000005");
    here.virsh(QEMU, "destroy instance-00000005");
    here.virsh(QEMU, &format!("detach-device instance-00000001 {nic} --live"));
    here.control("restart-libvirtd", &[]);

    let migrateuri = here.dir().join("migration");
    for (from, to) in [(here, there), (there, here)] {
        let migrate = "migrate --live --unsafe instance-00000001";
        let uris = (from.uri(), to.uri());
        let script =
            format!("virsh -q -c '{}' {migrate} '{}' --migrateuri unix://{}", uris.0, uris.1, migrateuri.display());
        output(Command::new("sh").args(["-c", &script]));
    }
    for n in [1, 2, 4] {
        here.virsh(QEMU, &format!("destroy instance-0000000{n}"));
    }
    unplug_hybrid(here, 4);
    here.virsh(LXC, "destroy instance-00000003");
    here.virsh(QEMU, "undefine instance-00000005");
}

/// What OpenStack does before a guest starts.
fn plug_hybrid(hypervisor: &Hypervisor, n: u32) {
    let tap = tap(n, 0);
    let [qbr, qvb, qvo] = ["qbr", "qvb", "qvo"].map(|prefix| format!("{prefix}{}", &tap[3..]));
    hypervisor.run(&format!(
        "ip link add {qbr} type bridge; ip link set {qbr} up; ip link add {qvo} type veth peer name {qvb}
         ip link set {qvb} master {qbr} up; ip link set {qvo} up
         ovs-vsctl add-port br-int {qvo} -- set Interface {qvo} external_ids:iface-id={} \
         'external_ids:attached-mac=\"{}\"' external_ids:vm-uuid={}",
        port(n, 0),
        mac(n, 0),
        Hypervisor::id(&format!("server_uuid {n}"))
    ));
}

/// And after it has ended.
fn unplug_hybrid(hypervisor: &Hypervisor, n: u32) {
    let start = tap(n, 0)[3..].to_owned();
    hypervisor.run(&format!("ovs-vsctl del-port qvo{start}; ip link del qvo{start}; ip link del qbr{start}"));
}
