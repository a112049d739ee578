//! `vifctl path` on real devices: every wiring, and every way in which it breaks.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{eventually, hypervisor::Hypervisor, openvswitch::Switch, vifd::Vifd};

const QEMU: &str = "qemu:///system";
const GUEST: &str = "/host/v1/path?thing=instance-00000001";

/// The names of the main line's hops, but for the guest's card.
fn line(answer: &Value) -> Vec<String> {
    let path = &answer["paths"][0];
    let main = path["main"].as_array().into_iter().flatten().skip(1);
    main.map(|at| path["hops"][usize::try_from(at.as_u64().unwrap()).unwrap()]["name"].as_str().unwrap().to_owned())
        .collect()
}

/// `name code` of everything that is wrong.
fn faults(answer: &Value) -> Vec<String> {
    let hops = answer["paths"][0]["hops"].as_array().into_iter().flatten();
    let of = |hop: &Value| -> Vec<String> {
        let faults = hop["faults"].as_array().into_iter().flatten();
        faults.map(|fault| format!("{} {}", hop["name"].as_str().unwrap(), fault["code"].as_str().unwrap())).collect()
    };
    hops.flat_map(of).collect()
}

fn wait_line(vifd: &Vifd, path: &str, expected: &[&str]) -> Value {
    eventually_equal(vifd, path, line, expected)
}

fn wait_faults(vifd: &Vifd, expected: &[&str]) -> Value {
    eventually_equal(vifd, GUEST, faults, expected)
}

fn eventually_equal(vifd: &Vifd, path: &str, of: impl Fn(&Value) -> Vec<String>, expected: &[&str]) -> Value {
    let mut last = Vec::new();
    eventually(&format!("{expected:?} at {path}"), || {
        let answer = vifd.get(path);
        let now = of(&answer);
        if now != expected && now != last {
            eprintln!("so far: {now:?}");
            last.clone_from(&now);
        }
        (now == expected).then_some(answer)
    })
}

/// What a program makes of text.
fn piped(program: &str, arguments: &[&str], input: &str) -> String {
    let mut process =
        Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} refuses:\n{input}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_break_on_the_way_of_a_tap_on_a_bridge_is_told_where_it_is() {
    let hypervisor = Hypervisor::start();
    let vifd = hypervisor.vifd("");
    hypervisor.create_guest(1, 1);
    let tap = Hypervisor::id("tap_name 1 0");
    wait_line(&vifd, GUEST, &[&tap, "br0"]);
    wait_faults(&vifd, &["br0 no_uplink"]);
    let up = "for link in up0 up1; do ip link set $link up; done";
    hypervisor.run(&format!("ip link add up0 type veth peer name up1; ip link set up0 master br0; {up}"));
    let whole = wait_line(&vifd, GUEST, &[&tap, "br0", "up0", "up1"]);
    wait_faults(&vifd, &[]);
    let hop = &whole["paths"][0]["hops"][1];
    let truth: Value = serde_json::from_str(&hypervisor.run(&format!("ip -j -s -s link show {tap}"))).unwrap();
    assert_eq!((&hop["index"], &hop["mtu"], &hop["up"]), (&truth[0]["ifindex"], &truth[0]["mtu"], &json!(true)));
    assert_eq!(hop["counters"]["rx_dropped"], truth[0]["stats64"]["rx"]["dropped"]);
    assert_eq!(whole["view"], "host");

    for (breaks, mends, expected) in [
        ("ip link set up0 down", "ip link set up0 up", &["up0 down", "up1 no_carrier"][..]),
        ("ip link set up1 mtu 1400", "ip link set up1 mtu 1500", &["up1 mtu"]),
        ("ip link set br0 down", "ip link set br0 up", &["br0 down"]),
        (
            &format!("ip link set {tap} nomaster"),
            &format!("ip link set {tap} master br0"),
            &[&format!("{tap} not_enslaved")],
        ),
    ] {
        hypervisor.run(breaks);
        wait_faults(&vifd, expected);
        let (text, status) = vifd.vifctl(&["path", "instance-00000001"]);
        assert_eq!(status, Some(0), "{text}");
        assert!(text.lines().any(|line| line.starts_with("!! ")) && !text.contains('\u{1b}'), "{breaks}:\n{text}");
        hypervisor.run(mends);
        wait_faults(&vifd, &[]);
    }
    // A second uplink, into which the guest's packets do not fit.
    hypervisor
        .run("ip link add vx0 type vxlan id 9 dev up1 dstport 4789; ip link set vx0 master br0; ip link set vx0 up");
    let both = wait_faults(&vifd, &["vx0 mtu"]);
    assert_eq!(line(&both), [&tap, "br0", "up0", "up1"]);
    hypervisor.run("ip link del vx0");
    wait_faults(&vifd, &[]);

    // From whatever is in the hand.
    let port = Hypervisor::id("port_uuid 1 0");
    for thing in [&tap, &port, "br0", "up1", &Hypervisor::id("mac_address 1 0")] {
        let (text, status) = vifd.vifctl(&["path", thing]);
        assert!(status == Some(0) && text.contains("up1") && !text.contains("!!"), "{thing}:\n{text}");
    }
    let qemu = Command::new("pgrep").args(["-f", &format!("qemu.*-uuid {}", Hypervisor::id("server_uuid 1"))]).output();
    let pid = String::from_utf8(qemu.unwrap().stdout).unwrap().split_whitespace().last().unwrap().to_owned();
    assert!(vifd.vifctl(&["path", &pid]).0.contains("up1"));
    assert_eq!(vifd.vifctl(&["path", "nothing-of-the-kind"]).1, Some(1));
    assert_eq!(vifd.vifctl(&["path", "lo"]).1, Some(1));

    // Drawn, by the programs that draw.
    hypervisor.run("ip link set up0 down");
    wait_faults(&vifd, &["up0 down", "up1 no_carrier"]);
    let drawn = |format: &str| vifd.vifctl(&["path", "instance-00000001", "-o", format]).0;
    let by_graphviz = piped("dot", &["-Tsvg"], &drawn("dot")).replace("&#45;", "-");
    for svg in [&by_graphviz, &drawn("svg")] {
        assert!(svg.contains(&tap) && svg.contains("set down"), "{svg}");
        piped("xmllint", &["--nonet", "--noout", "-"], svg);
    }
    assert!(drawn("mermaid").contains(":::broken"));
    assert_eq!(serde_json::from_str::<Value>(&drawn("json")).unwrap()["paths"][0]["vif_id"], json!(port));
    assert_eq!(vifd.vifctl(&["list", "-o", "dot"]).1, Some(2));

    hypervisor.run("ip link set up0 up; ip link del up0");
    wait_faults(&vifd, &["br0 no_uplink"]);
    hypervisor.run(&format!("ip link del {tap}"));
    wait_faults(&vifd, &[&format!("{tap} missing"), "br0 no_carrier", "br0 no_uplink"]);
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_hybrid_plug_is_followed_through_open_vswitch_to_the_card_and_the_tunnel() {
    let hypervisor = Hypervisor::start();
    let switch = Switch::start(&hypervisor);
    let vifd = hypervisor.vifd("");
    hypervisor.run(
        "ip link add qbr1 type bridge; ip link add qvo1 type veth peer name qvb1; ip link set qvb1 master qbr1
         ip link add eth0 type veth peer name wire0; ip link add eth1 type veth peer name wire1
         for link in qbr1 qvo1 qvb1 eth0 eth1 wire0 wire1; do ip link set $link up; done
         ip addr add 192.0.2.1/24 dev eth1",
    );
    let patch = |a: &str, b: &str, from: &str, to: &str| {
        format!(
            "-- add-port {a} {from} -- set interface {from} type=patch options:peer={to} \
             -- add-port {b} {to} -- set interface {to} type=patch options:peer={from} "
        )
    };
    switch.vsctl(&format!(
        "add-port br-int qvo1 tag=7 -- set interface qvo1 external_ids:iface-id={} \
         -- add-br br-ex -- set bridge br-ex datapath_type=netdev -- add-port br-ex eth0 {}",
        Hypervisor::id("port_uuid 1 0"),
        patch("br-int", "br-ex", "int-br-ex", "phy-br-ex"),
    ));
    // The domain says qbr1, as Nova writes it.
    let file = hypervisor.xml(&format!("qemu_domain 1 {} qemu 1", hypervisor.dir().join("halt.bin").display()));
    let xml = std::fs::read_to_string(&file).unwrap().replace("bridge='br0'", "bridge='qbr1'");
    std::fs::write(&file, xml).unwrap();
    hypervisor.virsh(QEMU, &format!("create {file}"));
    let tap = Hypervisor::id("tap_name 1 0");
    let start = [&tap, "qbr1", "qvb1", "qvo1", "br-int"];
    let by_card = [&start[..], &["int-br-ex", "phy-br-ex", "br-ex", "eth0", "wire0"]].concat();
    let whole = wait_line(&vifd, GUEST, &by_card);
    wait_faults(&vifd, &[]);
    let joins: Vec<_> = whole["paths"][0]["edges"].as_array().unwrap().iter().map(|edge| edge["by"].clone()).collect();
    let expected = json!([
        "carried_by",
        "bridge_port",
        "bridge_port",
        "veth_pair",
        "ovs_port",
        "ovs_port",
        "patch",
        "ovs_port",
        "ovs_port",
        "veth_pair"
    ]);
    assert_eq!(json!(joins), expected);
    assert_eq!(whole["paths"][0]["hops"][4]["vlan"], "tag 7");
    for thing in ["qbr1", "qvb1", "qvo1", "br-int", "br-ex", "eth0"] {
        wait_line(&vifd, &format!("/host/v1/path?thing={thing}"), &by_card);
    }

    // A VXLAN in the place of the card.
    switch.vsctl(&format!(
        "add-br br-tun -- set bridge br-tun datapath_type=netdev \
         -- add-port br-tun vx1 -- set interface vx1 type=vxlan options:remote_ip=192.0.2.2 options:key=flow \
         -- del-port int-br-ex -- del-port phy-br-ex {}",
        patch("br-int", "br-tun", "patch-tun", "patch-int"),
    ));
    let by_tunnel = [&start[..], &["patch-tun", "patch-int", "br-tun", "vx1", "eth1", "wire1"]].concat();
    let tunnel = wait_line(&vifd, GUEST, &by_tunnel);
    assert_eq!(tunnel["paths"][0]["hops"][9]["notes"], json!(["to 192.0.2.2, key flow"]));
    // 1500 bytes and 50 of the tunnel's do not fit.
    wait_faults(&vifd, &["eth1 mtu"]);
    hypervisor.run("ip link set eth1 mtu 1550; ip link set wire1 mtu 1550");
    wait_faults(&vifd, &[]);
    hypervisor.run("ip link set qvb1 mtu 1400");
    wait_faults(&vifd, &["qvb1 mtu"]);
    hypervisor.run("ip link set qvb1 mtu 1500; ip link set qvo1 down");
    wait_faults(&vifd, &["qvb1 no_carrier", "qvo1 down"]);
    hypervisor.run("ip link set qvo1 up; ip link set qvb1 nomaster");
    eventually_equal(&vifd, GUEST, line, &[&tap, "qbr1"]);
    hypervisor.run("ip link set qvb1 master qbr1");
    switch.vsctl("set interface patch-int options:peer=nowhere");
    wait_faults(&vifd, &["patch-tun switch_error", "patch-tun patch_broken"]);
    hypervisor.run("ovs-vsctl --no-wait add-port br-int eth7");
    let error = wait_faults(&vifd, &["eth7 switch_error", "patch-tun switch_error", "patch-tun patch_broken"]);
    assert!(error.to_string().contains("could not open network device eth7"), "{error}");
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_macvtap_leads_to_its_lower_device_and_a_container_is_said_to_have_the_other_end() {
    let hypervisor = Hypervisor::start();
    let vifd = hypervisor.vifd("");
    hypervisor.run(
        "ip link add low0 type veth peer name wire0
         for link in low0 wire0; do ip link set $link up; done",
    );
    let file = hypervisor.xml(&format!("qemu_domain 1 {} qemu 1", hypervisor.dir().join("halt.bin").display()));
    let xml = std::fs::read_to_string(&file).unwrap();
    let direct = xml.replace("interface type='bridge'", "interface type='direct'");
    std::fs::write(&file, direct.replace("<source bridge='br0'/>", "<source dev='low0' mode='bridge'/>")).unwrap();
    hypervisor.virsh(QEMU, &format!("create {file}"));
    // libvirt chooses the macvtap's name.
    let beneath = |answer: &Value| line(answer).get(1..).map(<[_]>::to_vec).unwrap_or_default();
    eventually_equal(&vifd, GUEST, beneath, &["low0", "wire0"]);
    wait_faults(&vifd, &[]);
    let upon = vifd.get(GUEST)["paths"][0]["edges"][1]["by"].clone();
    assert_eq!(upon, "upon");
    hypervisor.run("ip link set wire0 down");
    let all = |answer: &Value| faults(answer).into_iter().skip(1).collect();
    eventually_equal(&vifd, GUEST, all, &["low0 no_carrier", "wire0 down"]);

    hypervisor.create("lxc:///system", "lxc_domain 2");
    let container = "/host/v1/path?thing=instance-00000002";
    let answer = vifd.wait("the container", container, |answer| line(answer).len() == 3);
    let inside = &answer["paths"][0]["hops"][1];
    assert_eq!(inside["kind"], "elsewhere");
    assert!(inside["notes"][0].as_str().unwrap().contains("not readable from here"), "{inside}");
    assert_eq!(line(&answer)[2], "br0");
}
