//! What is wrong with devices, bridges and what leads out of them.

use super::*;
use crate::support::eventually;

#[test]
#[ignore = "needs root: run by make test"]
fn what_is_wrong_with_a_guests_device_is_raised_and_cleared() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 2);
    let vifd = hypervisor.vifd(CONFIG);
    let provoke = |wrong: &[Wrong], cause: &str, mend: &str| provoke(&hypervisor, &vifd, wrong, cause, mend);
    let (one, two) = (tap(1, 0), tap(1, 1));

    let away = format!("ip link set {one} down; ip link set {one} name away up");
    let back = format!("ip link set away down; ip link set away name {one} up");
    provoke(&[("device-missing", &one)], &away, &back);
    provoke(&[("device-down", &two)], &format!("ip link set {two} down"), &format!("ip link set {two} up"));
    // Another device under its name, with nobody behind it, and with one queue where the guest has two.
    provoke(
        &[("device-no-carrier", &one), ("queues-differ", &one)],
        &format!("{away}; ip tuntap add dev {one} mode tap; ip link set {one} master br0 up"),
        &format!("ip link del {one}; {back}"),
    );
    provoke(
        &[("bridge-differs", &two)],
        &format!("ip link add br1 type bridge; ip link set br1 up; ip link set {two} master br1"),
        &format!("ip link set {two} master br0; ip link del br1"),
    );
    provoke(
        &[("device-leaked", "tap11111111-22"), ("device-leaked", "vnet77"), ("device-leaked", "old")],
        "ip tuntap add dev tap11111111-22 mode tap; ip tuntap add dev vnet77 mode tap
         ip tuntap add dev old mode tap; ip link set old master br0 up",
        "ip link del tap11111111-22; ip link del vnet77; ip link del old",
    );
    let answer = provoke(
        &[("device-leaked", "qvo11111111-22")],
        "ip link add qbr11111111-22 type bridge; ip link add qvo11111111-22 type veth peer name qvb11111111-22
         ip link set qvb11111111-22 master qbr11111111-22",
        "ip link del qvo11111111-22; ip link del qbr11111111-22",
    );
    assert_eq!(answer["findings"][0]["evidence"].as_array().unwrap().len(), 4, "{answer}");
}

#[test]
#[ignore = "needs root: run by make test"]
fn what_belongs_to_other_programs_is_no_leak() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    hypervisor.create(LXC, "lxc_domain 2");
    let vifd = hypervisor.vifd(CONFIG);
    // VPNs; Docker; Neutron's DHCP by the Linux bridge agent; a placeholder of older libvirts.
    hypervisor.run(
        "ip tuntap add dev tun0 mode tun; ip tuntap add dev tap0 mode tap; ip netns add box
         ip link add veth0a1b2c3 type veth peer name eth0 netns box; ip link set veth0a1b2c3 master br0 up
         ip link add tap22222222-33 type veth peer name ns-2 netns box; ip link set tap22222222-33 master br0 up
         ip tuntap add dev br0-nic mode tap; ip link set br0-nic master br0
         ip link add mac0 link br0 type macvtap",
    );
    // Looked at often enough.
    let looks = |vifd: &Vifd| vifd.get("/host/v1/findings?unconfirmed=true")["looks"].as_u64().unwrap();
    vifd.wait("vifd knows them", "/host/v1/devices", |answer| answer.to_string().contains("mac0"));
    let before = looks(&vifd);
    hypervisor.run("for n in $(seq 8); do ip link set tun0 up; sleep 0.2; ip link set tun0 down; sleep 0.2; done");
    eventually("some looks", || (looks(&vifd) > before + 4).then_some(()));
    let answer = vifd.get("/host/v1/findings?unconfirmed=true");
    assert_eq!(raised(&answer), BTreeSet::new(), "{answer}");
}

#[test]
#[ignore = "needs root: run by make test"]
fn what_is_wrong_with_a_bridge_and_its_uplinks_is_raised_and_cleared() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 2);
    let vifd = hypervisor.vifd(CONFIG);
    let provoke = |wrong: &[Wrong], cause: &str, mend: &str| provoke(&hypervisor, &vifd, wrong, cause, mend);

    provoke(&[("bridge-down", "br0")], "ip link set br0 down", "ip link set br0 up");
    // Down, since both ends are on the one bridge.
    let many = "for n in $(seq 461); do echo link add port$n type veth peer name other$n; \
                echo link set port$n master br0; echo link set other$n master br0; done";
    let gone = "for n in $(seq 461); do echo link del port$n; done";
    provoke(&[("bridge-nearly-full", "br0")], &format!("({many}) | ip -batch -"), &format!("({gone}) | ip -batch -"));
    provoke(
        &[("uplink-down", "out0")],
        "ip link add out0 type vxlan id 7 dev lo dstport 4789; ip link set out0 mtu 1500 master br0",
        "ip link set out0 up",
    );
    provoke(&[("uplink-no-carrier", "out0")], "ip link set out0 protodown on", "ip link set out0 protodown off");
    // Where another way out works, it is no more than a warning.
    hypervisor.run("ip link add out1 type vxlan id 8 dev lo dstport 4790; ip link set out1 mtu 1500 master br0 up");
    let answer = provoke(&[("uplink-down", "out0")], "ip link set out0 down", "ip link set out0 up");
    assert_eq!(answer["findings"][0]["severity"], "warning");
    hypervisor.run("ip link del out1");
    provoke(&[("mtu-exceeds-path", "br0")], "ip link set br0 mtu 1400", "ip link set br0 mtu 1500");
    let answer = provoke(
        &[("mtu-exceeds-path", "out0")],
        "ip link set br0 mtu 1500; ip link set out0 mtu 1400; ip link set br0 mtu 1500",
        "ip link set out0 mtu 1500",
    );
    assert_eq!(answer["findings"][0]["severity"], "error");
    assert_eq!(answer["findings"][0]["affects"].as_array().unwrap().len(), 2);
}

#[test]
#[ignore = "needs root: run by make test"]
fn packets_that_go_on_being_lost_are_raised_and_cleared() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd("[findings]\nlook_interval = '50ms'\ninterval = '400ms'\n");
    wait(&vifd, "nothing is wrong before", &[]);
    // The guest halts at once and takes no packet: what its device does not hold is lost.
    hypervisor.run(&format!(
        "ip addr add 10.9.0.1/24 dev br0; ip neigh add 10.9.0.2 lladdr {} dev br0
         bash -c 'while ! [ -e /run/enough ]; do for n in {{1..200}}; do echo x; done >/dev/udp/10.9.0.2/9; done' \
         </dev/null >/dev/null 2>&1 &",
        mac(1, 0)
    ));
    let answer = wait(&vifd, "packets are lost", &[("drops-rising", &tap(1, 0))]);
    assert!(answer["findings"][0]["evidence"].to_string().contains("sent to the guest"), "{answer}");
    hypervisor.run("touch /run/enough");
    wait(&vifd, "no packet is lost any more", &[]);
}
