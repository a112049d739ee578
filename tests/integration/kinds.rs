//! Each kind of interface that libvirt can make here, with what vifd must know of it: whole records, forward and back.
//!
//! Each is compared with the description that the test wrote, with `virsh domiflist` and with `ip -d link`.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    process::Stdio,
};

use serde_json::{Value, json};

use self::check::*;
use crate::support::{eventually, hypervisor::Hypervisor, vifd::Vifd};

mod check;

#[test]
#[ignore = "needs root: run by make test"]
fn every_interface_of_a_guest_is_known_whole() {
    let hypervisor = Hypervisor::start();
    hypervisor.run(
        "for n in 0 1 2; do
             ip link add low$n type veth peer name far$n; ip link set low$n up; ip link set far$n up
         done
         ip tuntap add dev mine mode tap
         ip tuntap add dev many mode tap multi_queue vnet_hdr",
    );
    create_network(&hypervisor, "own", OPEN);
    create_network(&hypervisor, "given", "<forward mode='bridge'/><bridge name='br0'/>");
    create_network(&hypervisor, "pool", "<forward mode='bridge'><interface dev='low2'/></forward>");
    let vifd = hypervisor.vifd("");
    let port = "3f2c9a10-7b6e-4c0d-9d35-0a1b2c3d4e5f";
    let br0 = json!({ "bridge": "br0" });
    let with = |more: Value| {
        let mut record = br0.clone();
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        record
    };
    let on_br0 = "<source bridge='br0'/>";
    let (bridged, alone) = (Ok(("tap", Some("br0"))), Ok(("tap", None)));
    let taps = nics(
        1,
        [
            ("bridge", &format!("{on_br0}<target dev='one'/>"), with(json!({"target": "one"})), bridged, "br0"),
            (
                "bridge",
                &format!("{on_br0}<target dev='four'/><driver queues='4'/><mtu size='1400'/>"),
                with(json!({"target": "four", "queues": 4, "mtu": 1400})),
                bridged,
                "br0",
            ),
            // libvirt takes its own names away from everybody else.
            ("bridge", &format!("{on_br0}<target dev='vnet77'/>"), br0.clone(), bridged, "br0"),
            (
                "bridge",
                &format!("{on_br0}<port isolated='yes'/><link state='down'/>"),
                with(json!({"link_down": true})),
                bridged,
                "br0",
            ),
            ("bridge", on_br0, with(json!({"mac": mac(1, 99)})), bridged, "br0"),
            (
                "bridge",
                on_br0,
                with(json!({"mac": mac(1, 99), "id": synthetic(1, &format!("{}/1", mac(1, 99)))})),
                bridged,
                "br0",
            ),
            (
                "network",
                "<source network='own'/>",
                json!({"network": "own", "bridge": "virbr7"}),
                Ok(("tap", Some("virbr7"))),
                "own",
            ),
            (
                "network",
                "<source network='given'/>",
                with(json!({"type": "bridge", "network": "given"})),
                bridged,
                "given",
            ),
            ("ethernet", "<target dev='mine' managed='no'/>", json!({"target": "mine", "unmanaged": true}), alone, "-"),
            (
                "ethernet",
                "<target dev='many' managed='no'/><driver queues='3'/>",
                json!({"target": "many", "unmanaged": true, "queues": 3}),
                alone,
                "-",
            ),
            ("ethernet", "<target dev='made'/>", json!({"target": "made"}), alone, "-"),
            ("ethernet", "", json!({}), alone, "-"),
            ("user", "", json!({}), Err("type_has_none"), "-"),
            (
                "udp",
                "<source address='127.0.0.1' port='9001'><local address='127.0.0.1' port='9002'/></source>",
                json!({}),
                Err("type_has_none"),
                "-",
            ),
            ("server", "<source address='127.0.0.1' port='9003'/>", json!({}), Err("type_has_none"), "-"),
            // libvirt does not count those that have a name of their own.
            (
                "bridge",
                &format!("{on_br0}<alias name='ua-{port}'/>"),
                with(json!({"alias": format!("ua-{port}"), "id": port, "id_source": "alias"})),
                bridged,
                "br0",
            ),
        ],
    );
    virsh(&hypervisor, QEMU, "create {}", &guest(&hypervisor, 1, &taps, ""));
    check(&hypervisor, &vifd, QEMU, 1, &taps);

    let upon = |device: &str, mode: &str| json!({"lower_device": device, "mode": mode});
    let macvtap = Ok(("macvtap", None));
    let macvtaps = nics(
        2,
        [
            (
                "direct",
                "<source dev='low0' mode='bridge'/><target dev='mvb'/>",
                upon("low0", "bridge"),
                macvtap,
                "low0",
            ),
            ("direct", "<source dev='low0' mode='vepa'/>", upon("low0", "vepa"), macvtap, "low0"),
            ("direct", "<source dev='low0' mode='private'/>", upon("low0", "private"), macvtap, "low0"),
            ("direct", "<source dev='low1' mode='passthrough'/>", upon("low1", "passthrough"), macvtap, "low1"),
            (
                "network",
                "<source network='pool'/>",
                json!({"type": "direct", "lower_device": "low2", "mode": "bridge", "network": "pool"}),
                macvtap,
                "pool",
            ),
        ],
    );
    virsh(&hypervisor, QEMU, "create {}", &guest(&hypervisor, 2, &macvtaps, ""));
    check(&hypervisor, &vifd, QEMU, 2, &macvtaps);
    // A device passed through takes the guest's address, and is not mistaken for what carries the VIF.
    let low1 = &vifd.get("/host/v1/devices/low1")["device"];
    assert_eq!((&low1["mac"], &low1["carries"]), (&json!(mac(2, 3)), &json!([])));

    virsh(&hypervisor, QEMU, "create {}", &guest(&hypervisor, 3, &[], ""));
    check(&hypervisor, &vifd, QEMU, 3, &[]);

    // More than a PCI bus holds; neither their names nor their MAC addresses are in the order of the devices.
    let forty = (0..40).map(|j| {
        let mac = mac(4, (j * 7) % 40);
        let target = format!("n{:02}", (j * 3) % 40);
        Nic {
            xml: format!("<interface type='bridge'><mac address='{mac}'/>{on_br0}<target dev='{target}'/></interface>"),
            record: with(json!({ "type": "bridge", "target": target })),
            link: bridged,
            source: "br0".to_owned(),
            mac,
        }
    });
    let forty: Vec<_> = forty.collect();
    let bridges =
        "<controller type='pci' index='1' model='pci-bridge'/><controller type='pci' index='2' model='pci-bridge'/>";
    virsh(&hypervisor, QEMU, "create {}", &guest(&hypervisor, 4, &forty, bridges));
    check(&hypervisor, &vifd, QEMU, 4, &forty);

    agrees_with_a_fresh_one(&hypervisor, &vifd);
    for n in 1..=4 {
        hypervisor.virsh(QEMU, &format!("destroy {}", name(n)));
    }
    vifd.wait("all are gone", "/host/v1/sync", |sync| sync["instances"] == 0);
    // What somebody else made outlives its guest, and is nobody's then.
    let mine = &vifd.get("/host/v1/devices/mine")["device"];
    assert_eq!((&mine["persistent"], &mine["carries"]), (&json!(true), &json!([])));
}

#[test]
#[ignore = "needs root: run by make test"]
fn every_interface_of_a_container_is_known_whole() {
    let hypervisor = Hypervisor::start();
    hypervisor.run("ip link add low type veth peer name far; ip link set low up; ip link set far up");
    create_network(&hypervisor, "own", OPEN);
    let vifd = hypervisor.vifd("");
    let (bridged, alone) = (Ok(("veth", Some("br0"))), Ok(("veth", None)));
    let veths = nics(
        1,
        [
            (
                "bridge",
                "<source bridge='br0'/><target dev='outside'/><guest dev='inside'/>",
                json!({"bridge": "br0", "target": "outside", "guest_device": "inside"}),
                bridged,
                "br0",
            ),
            ("bridge", "<source bridge='br0'/>", json!({"bridge": "br0", "guest_device": "eth0"}), bridged, "br0"),
            (
                "direct",
                "<source dev='low' mode='bridge'/>",
                json!({"lower_device": "low", "mode": "bridge", "guest_device": "eth1"}),
                Err("in_container"),
                "low",
            ),
            ("ethernet", "<target dev='made'/>", json!({"target": "made", "guest_device": "eth2"}), alone, "-"),
            ("ethernet", "", json!({"guest_device": "eth3"}), alone, "-"),
            (
                "network",
                "<source network='own'/>",
                json!({"network": "own", "bridge": "virbr7", "guest_device": "eth4"}),
                Ok(("veth", Some("virbr7"))),
                "own",
            ),
        ],
    );
    virsh(&hypervisor, LXC, "create {}", &container(1, &veths));
    check(&hypervisor, &vifd, LXC, 1, &veths);
    virsh(&hypervisor, LXC, "create {}", &container(2, &[]));
    check(&hypervisor, &vifd, LXC, 2, &[]);
    agrees_with_a_fresh_one(&hypervisor, &vifd);
}

/// A switch that negotiates nothing: just what QEMU waits for.
fn vhost_user_switch(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut header = [0; 12];
        while stream.read_exact(&mut header).is_ok() {
            let mut payload = vec![0; usize::from(header[8])];
            stream.read_exact(&mut payload).unwrap();
            // VHOST_USER_GET_FEATURES: VIRTIO_F_VERSION_1, in a reply of protocol version 1.
            if header[0] == 1 {
                header[4] = 5;
                header[8] = 8;
                stream.write_all(&header).unwrap();
                stream.write_all(&(1u64 << 32).to_le_bytes()).unwrap();
            }
        }
    });
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_vhost_user_socket_is_known_also_while_a_start_waits_for_its_switch() {
    let hypervisor = Hypervisor::start();
    let vifd = hypervisor.vifd("");
    let path = |name: &str| hypervisor.dir().join(name).to_str().unwrap().to_owned();
    let both = |n, socket: &str, mode: &str| {
        let xml = format!("<source type='unix' path='{socket}' mode='{mode}'/>");
        let bridged = Ok(("tap", Some("br0")));
        nics(
            n,
            [
                ("vhostuser", &xml, json!({"socket": socket, "mode": mode}), Err("vhost_user"), socket),
                ("bridge", "<source bridge='br0'/>", json!({"bridge": "br0"}), bridged, "br0"),
            ],
        )
    };

    let connecting = both(1, &path("vhu1"), "client");
    vhost_user_switch(&hypervisor.dir().join("vhu1"));
    virsh(&hypervisor, QEMU, "create {}", &guest(&hypervisor, 1, &connecting, ""));
    check(&hypervisor, &vifd, QEMU, 1, &connecting);

    let waiting = both(2, &path("vhu2"), "server");
    let file = path("waiting.xml");
    fs::write(&file, guest(&hypervisor, 2, &waiting, "")).unwrap();
    let mut create = hypervisor.command("virsh").args(["-q", "create", &file]).stderr(Stdio::null()).spawn().unwrap();
    // libvirt says nothing about a start before it has succeeded or failed; the tap tells.
    check_in_state(&hypervisor, &vifd, QEMU, 2, &waiting, "starting_up");
    // Nothing waits with it.
    check(&hypervisor, &vifd, QEMU, 1, &connecting);
    agrees_with_a_fresh_one(&hypervisor, &vifd);
    hypervisor.run(&format!("kill -KILL $(cat /run/libvirt/qemu/{}.pid)", name(2)));
    assert!(!create.wait().unwrap().success());
    gone(&vifd, 2);
    check(&hypervisor, &vifd, QEMU, 1, &connecting);
}

fn gone(vifd: &Vifd, n: u32) {
    let path = format!("/host/v1/instances/{}", uuid(n));
    eventually("it is gone", || (vifd.request("GET", &path, &[]).status == 404).then_some(()));
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_definition_is_known_until_the_guest_runs_and_what_runs_from_then_on() {
    let hypervisor = Hypervisor::start();
    let vifd = hypervisor.vifd("");
    let port = "3f2c9a10-7b6e-4c0d-9d35-0a1b2c3d4e5f";
    let none = Err("not_running");
    let defined = nics(
        1,
        [
            (
                "bridge",
                &format!(
                    "<source bridge='br-int'/><vlan><tag id='101'/></vlan><virtualport type='openvswitch'>
                     <parameters interfaceid='{port}'/></virtualport><target dev='tap3f2c9a10-7b'/>"
                ),
                json!({"bridge": "br-int", "vlans": [101], "target": "tap3f2c9a10-7b", "id": port,
                       "id_source": "virtualport",
                       "virtualport": {"type": "openvswitch", "interface_id": port}}),
                none,
                "br-int",
            ),
            (
                "hostdev",
                "<source><address type='pci' domain='0' bus='0x3b' slot='0x0a' function='3'/></source>
                 <vlan><tag id='102'/></vlan>",
                json!({"pci": "0000:3b:0a.3", "vlans": [102]}),
                none,
                "-",
            ),
            (
                "vdpa",
                "<source dev='/dev/vhost-vdpa-0'/>",
                json!({"character_device": "/dev/vhost-vdpa-0"}),
                none,
                "/dev/vhost-vdpa-0",
            ),
            (
                "vhostuser",
                "<source type='unix' path='/run/vhu' mode='server'/>",
                json!({"socket": "/run/vhu", "mode": "server"}),
                none,
                "/run/vhu",
            ),
            (
                "direct",
                "<source dev='low0' mode='vepa'/>",
                json!({"lower_device": "low0", "mode": "vepa"}),
                none,
                "low0",
            ),
            ("network", "<source network='own'/>", json!({"network": "own", "bridge": null}), none, "own"),
            ("mcast", "<source address='230.0.0.1' port='5558'/>", json!({}), none, "-"),
            ("null", "", json!({}), none, "-"),
        ],
    );
    virsh(&hypervisor, QEMU, "define {}", &guest(&hypervisor, 1, &defined, ""));
    check_in_state(&hypervisor, &vifd, QEMU, 1, &defined, "shut_off");

    // What runs and what is defined differ.
    let on_br0 = || ("bridge", "<source bridge='br0'/>", json!({"bridge": "br0"}), Ok(("tap", Some("br0"))), "br0");
    let [first, plugged, added] = <[Nic; 3]>::try_from(nics(2, [on_br0(), on_br0(), on_br0()])).ok().unwrap();
    let model = |nic: &Nic| nic.xml.replace("</interface>", "<model type='virtio'/></interface>");
    let (mut running, mut next) = (vec![first.clone()], vec![first]);
    virsh(&hypervisor, QEMU, "define {}", &guest(&hypervisor, 2, &running, ""));
    check_in_state(&hypervisor, &vifd, QEMU, 2, &running, "shut_off");
    let virsh_of_2 = |command: &str| hypervisor.virsh(QEMU, &format!("{command} {}", name(2)));
    virsh_of_2("start");
    check(&hypervisor, &vifd, QEMU, 2, &running);
    virsh(&hypervisor, QEMU, &format!("attach-device {} {{}} --live", name(2)), &model(&plugged));
    running.push(plugged);
    check(&hypervisor, &vifd, QEMU, 2, &running);
    virsh(&hypervisor, QEMU, &format!("attach-device {} {{}} --config", name(2)), &model(&added));
    next.push(added);
    virsh_of_2("suspend");
    check_in_state(&hypervisor, &vifd, QEMU, 2, &running, "paused");
    agrees_with_a_fresh_one(&hypervisor, &vifd);
    virsh_of_2("destroy");
    check_in_state(&hypervisor, &vifd, QEMU, 2, &next, "shut_off");
    virsh_of_2("start");
    check(&hypervisor, &vifd, QEMU, 2, &next);
    // Of a definition that was taken away the guest remains, for as long as it runs.
    virsh_of_2("undefine");
    virsh_of_2("suspend");
    check_in_state(&hypervisor, &vifd, QEMU, 2, &next, "paused");
    virsh_of_2("destroy");
    gone(&vifd, 2);
}

/// Firmware that does this and halts; it begins 128 bytes before the end, where a jump leads to it.
fn firmware(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0xf4; 0x10000];
    image[0xff80..0xff80 + code.len()].copy_from_slice(code);
    image[0xfff0..0xfff2].copy_from_slice(&[0xeb, 0x8e]);
    image
}

#[test]
#[ignore = "needs root: run by make test"]
fn every_end_of_a_guest_and_every_return_is_followed() {
    let hypervisor = Hypervisor::start();
    let vifd = hypervisor.vifd("");
    let nics =
        nics(1, [("bridge", "<source bridge='br0'/>", json!({"bridge": "br0"}), Ok(("tap", Some("br0"))), "br0")]);
    let xml = guest(&hypervisor, 1, &nics, "<panic model='isa'/>");
    let (domain, saved) = (name(1), hypervisor.dir().join("saved").to_str().unwrap().to_owned());
    virsh(&hypervisor, QEMU, "define {}", &xml);
    for (command, state) in [
        ("start", "running"),
        (&*format!("save --file {saved}"), "shut_off"),
        (&*format!("restore {saved}; true"), "running"),
        ("managedsave", "shut_off"),
        ("start", "running"),
        ("managedsave --paused", "shut_off"),
        ("start", "paused"),
        ("resume", "running"),
        // To the guest, which is to end with it (on_reboot).
        ("reset", "shut_off"),
        ("start --paused", "paused"),
        ("destroy", "shut_off"),
    ] {
        let command = if command.starts_with("restore") { command.to_owned() } else { format!("{command} {domain}") };
        hypervisor.virsh(QEMU, &command);
        check_in_state(&hypervisor, &vifd, QEMU, 1, &nics, state);
    }

    // mov dx,0x505; mov al,1; out dx,al: a panic. The guest stays, for somebody to look at (on_crash).
    fs::write(hypervisor.dir().join("panic.bin"), firmware(b"\xba\x05\x05\xb0\x01\xee")).unwrap();
    // Port 0x600 for power management, by way of the PCI configuration space; then S5.
    let pci = |register: u8, value: [u8; 2]| {
        let mut code = vec![0x66, 0xb8, register, 0x0b, 0, 0x80, 0xba, 0xf8, 0x0c, 0x66, 0xef];
        code.extend([0x66, 0xb8, value[0], value[1], 0, 0, 0xba, 0xfc, 0x0c, 0x66, 0xef]);
        code
    };
    let power_off = [pci(0x40, [1, 6]), pci(0x80, [1, 0]), b"\xb8\x00\x20\xba\x04\x06\xef".to_vec()].concat();
    fs::write(hypervisor.dir().join("off.bin"), firmware(&power_off)).unwrap();
    for (file, state) in [("panic.bin", "crashed"), ("off.bin", "shut_off")] {
        virsh(&hypervisor, QEMU, "define {}", &xml.replace("halt.bin", file));
        hypervisor.virsh(QEMU, &format!("start {domain} --paused"));
        check_in_state(&hypervisor, &vifd, QEMU, 1, &nics, "paused");
        hypervisor.virsh(QEMU, &format!("resume {domain}"));
        check_in_state(&hypervisor, &vifd, QEMU, 1, &nics, state);
        if state == "crashed" {
            hypervisor.virsh(QEMU, &format!("destroy {domain}"));
        }
        check_in_state(&hypervisor, &vifd, QEMU, 1, &nics, "shut_off");
    }
    hypervisor.virsh(QEMU, &format!("undefine {domain}"));
    gone(&vifd, 1);
}
