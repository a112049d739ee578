//! What is wrong with Open vSwitch's ports.

use super::*;
use crate::support::openvswitch::Switch;

#[test]
#[ignore = "needs root: run by make test"]
fn what_is_wrong_with_a_port_is_raised_and_cleared() {
    let hypervisor = Hypervisor::start();
    let _switch = Switch::start(&hypervisor);
    let firmware = hypervisor.dir().join("halt.bin");
    hypervisor.create(QEMU, &format!("qemu_domain 1 {} qemu 1 virtualport", firmware.display()));
    let vifd = hypervisor.vifd(CONFIG);
    let provoke = |wrong: &[Wrong], cause: &str, mend: &str| provoke(&hypervisor, &vifd, wrong, cause, mend);
    let (tap, id, mac) = (tap(1, 0), port(1, 0), mac(1, 0));
    let uuid = Hypervisor::id("server_uuid 1");
    let other = "11111111-2222-4333-8444-555555555555";
    let set = |key: &str, value: &str| format!("ovs-vsctl set Interface {tap} 'external_ids:{key}=\"{value}\"'");

    provoke(&[("port-mac-differs", &tap)], &set("attached-mac", "fa:16:3e:99:99:99"), &set("attached-mac", &mac));
    provoke(&[("port-id-differs", &tap)], &set("iface-id", other), &set("iface-id", &id));
    provoke(&[("port-instance-differs", &tap)], &set("vm-id", other), &set("vm-id", &uuid));
    let ids = format!("external_ids:iface-id={id} 'external_ids:attached-mac=\"{mac}\"' external_ids:vm-id={uuid}");
    let back = format!("ovs-vsctl add-port br-int {tap} -- set Interface {tap} {ids}");
    provoke(&[("bridge-differs", &tap)], &format!("ovs-vsctl del-port {tap}"), &back);
    provoke(
        &[("bridge-differs", &tap)],
        &format!(
            "ovs-vsctl add-br br-two -- set Bridge br-two datapath_type=netdev
             ovs-vsctl del-port {tap} -- add-port br-two {tap} -- set Interface {tap} {ids}"
        ),
        &format!("ovs-vsctl del-port {tap}; {back}; ovs-vsctl del-br br-two"),
    );
    provoke(&[("port-error", "nothing")], "ovs-vsctl --no-wait add-port br-int nothing", "ovs-vsctl del-port nothing");
    provoke(
        &[("port-leaked", "tap11111111-22")],
        &format!(
            "ovs-vsctl --no-wait add-port br-int tap11111111-22 -- set Interface tap11111111-22 external_ids:iface-id={other}"
        ),
        "ovs-vsctl del-port tap11111111-22",
    );
    // With its devices: one leak.
    provoke(
        &[("port-leaked", "qvo11111111-22")],
        &format!(
            "ip link add qbr11111111-22 type bridge; ip link add qvo11111111-22 type veth peer name qvb11111111-22
             ip link set qvb11111111-22 master qbr11111111-22
             ovs-vsctl add-port br-int qvo11111111-22 -- set Interface qvo11111111-22 external_ids:iface-id={other}"
        ),
        "ovs-vsctl del-port qvo11111111-22; ip link del qvo11111111-22; ip link del qbr11111111-22",
    );
    provoke(
        &[("duplicate-iface-id", &id)],
        &format!("ovs-vsctl add-port br-int twin -- set Interface twin type=internal external_ids:iface-id={id}"),
        "ovs-vsctl del-port twin",
    );
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_narrow_hop_of_a_hybrid_plug_is_raised_and_cleared() {
    let hypervisor = Hypervisor::start();
    let _switch = Switch::start(&hypervisor);
    let (tap, id, mac) = (tap(1, 0), port(1, 0), mac(1, 0));
    let [qbr, qvb, qvo] = ["qbr", "qvb", "qvo"].map(|prefix| format!("{prefix}{}", &tap[3..]));
    hypervisor.run(&format!(
        "ip link add {qbr} type bridge; ip link set {qbr} up; ip link add {qvo} type veth peer name {qvb}
         ip link set {qvb} master {qbr} up; ip link set {qvo} up
         ovs-vsctl add-port br-int {qvo} -- set Interface {qvo} external_ids:iface-id={id} \
         'external_ids:attached-mac=\"{mac}\"' external_ids:vm-uuid={}",
        Hypervisor::id("server_uuid 1")
    ));
    let firmware = hypervisor.dir().join("halt.bin");
    hypervisor.create(QEMU, &format!("qemu_domain 1 {} qemu 1 hybrid", firmware.display()));
    let vifd = hypervisor.vifd(CONFIG);
    let answer = provoke(
        &hypervisor,
        &vifd,
        &[("mtu-exceeds-path", &qvo)],
        &format!("ip link set {qvo} mtu 1400"),
        &format!("ip link set {qvo} mtu 1500"),
    );
    assert_eq!(answer["findings"][0]["severity"], "error");
}
