//! Whose an IP address is, by source: containers that answer to ARP and NDP, and that ask a DHCP server for an address.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{LIMIT, eventually, hypervisor::Hypervisor, vifd::Vifd};

const QEMU: &str = "qemu:///system";
const LXC: &str = "lxc:///system";

/// The container number `n`, on br0, with its own interface up.
fn container(hypervisor: &Hypervisor, n: u32) -> Container<'_> {
    hypervisor.create(LXC, &format!("lxc_domain {n}"));
    let container = Container { hypervisor, name: Hypervisor::id(&format!("domain_name {n}")) };
    container.run("ip link set eth0 up");
    container
}

struct Container<'a> {
    hypervisor: &'a Hypervisor,
    name: String,
}

impl Container<'_> {
    /// Runs a command in its network namespace.
    fn run(&self, command: &str) -> String {
        let Self { hypervisor, name } = self;
        let (first, rest) = name.split_at(1);
        let pid = format!("pgrep -P $(pgrep -f '[l]ibvirt_lxc --name [{first}]{rest}') | head -n 1");
        let pid = eventually("the container's first process", || {
            Some(hypervisor.run(&pid).trim().to_owned()).filter(|pid| !pid.is_empty())
        });
        hypervisor.run(&format!("nsenter --net --target {pid} {command}"))
    }

    fn uuid(n: u32) -> String {
        Hypervisor::id(&format!("server_uuid {n}"))
    }
}

/// The addresses of an instance's first VIF that this source gives.
fn addresses(vifd: &Vifd, uuid: &str, source: &str) -> Vec<Value> {
    let vifs = vifd.get(&format!("/host/v1/vifs?instance={uuid}"))["vifs"].take();
    let all = vifs[0]["addresses"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|address| address["source"] == source).collect()
}

/// Waits until an instance's first VIF has these addresses from this source.
fn wait(vifd: &Vifd, uuid: &str, source: &str, what: &str, wanted: impl Fn(&[Value]) -> bool) {
    eventually(what, || wanted(&addresses(vifd, uuid, source)).then_some(()));
}

/// Those of the global neighbours that `ip` lists with this MAC address, as `address device`.
fn neighbours_by_ip(hypervisor: &Hypervisor, mac: &str) -> Vec<String> {
    let neighbours: Value = serde_json::from_str(&hypervisor.run("ip -j neigh show")).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let ours = neighbours.as_array().unwrap().iter().filter(|neighbour| neighbour["lladdr"] == mac);
    let mut lines: Vec<_> = ours.map(|n| format!("{} {}", text(&n["dst"]), text(&n["dev"]))).collect();
    lines.sort();
    lines
}

fn in_the_same_words(addresses: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut lines: Vec<_> =
        addresses.iter().map(|a| format!("{} {}", text(&a["address"]), text(&a["device"]["name"]))).collect();
    lines.sort();
    lines
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_guest_that_answers_to_arp_or_ndp_has_that_address_until_the_kernel_forgets_it() {
    let hypervisor = Hypervisor::start();
    // With an address of its own it does not take that of a new port, which would make the kernel forget its neighbours.
    hypervisor.run("ip link set br0 address 02:00:00:00:00:01");
    hypervisor.run("ip addr add 10.9.0.1/24 dev br0; ip addr add fd00:9::1/64 dev br0 nodad");
    let container = container(&hypervisor, 1);
    let (uuid, mac) = (Container::uuid(1), Hypervisor::id("mac_address 1 0"));
    container.run("ip addr add 10.9.0.5/24 dev eth0");
    container.run("ip addr add fd00:9::5/64 dev eth0 nodad");
    let vifd = hypervisor.vifd("");
    let agree = |after: &str, count: usize| {
        let started = Instant::now();
        loop {
            let said = in_the_same_words(&addresses(&vifd, &uuid, "neighbour"));
            let truth = neighbours_by_ip(&hypervisor, &mac);
            if said == truth && truth.len() >= count {
                return;
            }
            assert!(started.elapsed() < LIMIT, "after {after}, {count} expected\nvifd: {said:#?}\nip:   {truth:#?}");
        }
    };
    let fixed = json!({"source": "metadata", "address": "10.0.0.4"});
    wait(&vifd, &uuid, "metadata", "the container is known", |said| *said == [fixed.clone()]);
    assert_eq!(addresses(&vifd, &uuid, "neighbour"), [] as [Value; 0]);

    // The kernel asks who has the address before it can send there.
    hypervisor.run("bash -c 'echo x > /dev/udp/10.9.0.5/9; echo x > /dev/udp/fd00:9::5/9'");
    agree("the host sent to the guest", 2);
    for address in ["10.9.0.5", "fd00:9::5"] {
        let (text, status) = vifd.vifctl(&["who", address]);
        assert!(text.contains(&format!("({mac}) of instance {}", container.name)), "{text}");
        assert!(text.contains("matched by   neighbour table\n"), "{text}");
        assert!(text.contains(&format!("{address} (neighbour on br0)")), "{text}");
        assert_eq!(status, Some(0));
        let vifs = vifd.get(&format!("/host/v1/vifs?address={address}"))["vifs"].take();
        assert_eq!((vifs.as_array().unwrap().len(), &vifs[0]["instance_uuid"]), (1, &json!(uuid)));
    }
    assert_eq!(vifd.request("GET", "/host/v1/vifs?address=10.9.0", &[]).status, 400);

    // Another host's guest may have the same MAC address; behind a device that is not connected to ours it is not ours.
    hypervisor.run("ip link add up0 type veth peer name up1; ip link set up0 up");
    hypervisor.run(&format!("ip neigh add 10.9.1.1 lladdr {mac} dev up0 nud permanent"));
    hypervisor.run(&format!("ip neigh add 10.9.0.7 lladdr {mac} dev br0 nud permanent"));
    wait(&vifd, &uuid, "neighbour", "an entry was made by hand", |said| {
        said.iter().any(|n| n["address"] == "10.9.0.7" && n["permanent"] == true)
    });
    assert!(addresses(&vifd, &uuid, "neighbour").iter().all(|n| n["device"]["name"] == "br0"));
    hypervisor.run("ip link set up0 master br0");
    agree("the device was connected", 4);
    hypervisor.run("ip link set up0 nomaster; ip link del up0");
    agree("it went away", 3);

    hypervisor.run("ip link set br0 name br7; ip neigh change 10.9.0.5 lladdr fa:16:3e:ff:ff:ff dev br7 nud stale");
    agree("the bridge has another name and the address another owner", 2);
    assert_eq!(vifd.vifctl(&["who", "10.9.0.5"]).1, Some(1));
    hypervisor.run("ip neigh flush dev br7 nud all");
    wait(&vifd, &uuid, "neighbour", "the kernel forgot them", |said| said.is_empty());
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_storm_of_neighbours_overruns_their_own_socket_alone_and_ends_in_the_truth() {
    let hypervisor = Hypervisor::start();
    let _container = container(&hypervisor, 1);
    let (uuid, mac) = (Container::uuid(1), Hypervisor::id("mac_address 1 0"));
    // The kernel makes the smallest buffer of it.
    let vifd = hypervisor.vifd("[netlink]\nreceive_buffer = 1\n");
    let batch = hypervisor.dir().join("batch");
    let run = |lines: String| {
        std::fs::write(&batch, lines).unwrap();
        hypervisor.run(&format!("ip -batch {}", batch.display()));
    };
    let each = |verb: &str, mac: &str| -> String {
        let one =
            |n: u32| format!("neigh {verb} 10.9.{}.{} lladdr {mac} dev br0 nud permanent\n", n / 250, n % 250 + 1);
        (0..2000).map(one).collect()
    };
    run(each("add", &mac) + &each("change", "fa:16:3e:ff:ff:ff"));
    run("neigh change 10.9.0.9 lladdr ".to_owned() + &mac + " dev br0 nud permanent\n");
    wait(&vifd, &uuid, "neighbour", "the storm is over", |said| {
        in_the_same_words(said) == neighbours_by_ip(&hypervisor, &mac) && said.len() == 1
    });
    vifd.wait("they are followed again", "/host/v1/sync", |sync| sync["sources"]["neighbours"]["state"] == "synced");
    let log = vifd.log();
    let overruns: Vec<_> = log.lines().filter(|line| line.contains("the receive buffer overran")).collect();
    assert!(!overruns.is_empty(), "there was no storm to speak of");
    assert!(overruns.iter().all(|line| line.contains("neighbours")), "{overruns:#?}");
}

/// A network with a DHCP server. Forwarding is left to the host, which needs no firewall; and no address is tried out for
/// seconds before it is given away.
const NETWORK: &str = "<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>
    <name>leases</name><forward mode='open'/><bridge name='virbr7' stp='off'/>
    <ip address='192.0.2.1' netmask='255.255.255.0'><dhcp><range start='192.0.2.7' end='192.0.2.99'/></dhcp></ip>
    <dnsmasq:options><dnsmasq:option value='no-ping'/></dnsmasq:options></network>";

#[test]
#[ignore = "needs root: run by make test"]
fn a_lease_is_the_guests_from_the_moment_it_is_given_even_while_libvirtd_is_down() {
    let hypervisor = Hypervisor::start();
    let file = |name: &str, text: &str| {
        let path = hypervisor.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    hypervisor.virsh(QEMU, &format!("net-create {}", file("network.xml", NETWORK)));
    let xml = std::fs::read_to_string(hypervisor.xml("lxc_domain 1")).unwrap();
    let mac = Hypervisor::id("mac_address 1 0");
    let interface = format!("<interface type='network'><mac address='{mac}'/><source network='leases'/></interface>");
    let start = xml.find("<interface").unwrap()..xml.find("</interface>").unwrap() + "</interface>".len();
    let xml = xml.replace(&xml[start], &interface);
    hypervisor.virsh(LXC, &format!("create {}", file("container.xml", &xml)));
    let container = Container { hypervisor: &hypervisor, name: Hypervisor::id("domain_name 1") };
    let uuid = Container::uuid(1);
    container.run("ip link set eth0 up");
    let vifd = hypervisor.vifd("");
    assert_eq!(addresses(&vifd, &uuid, "lease"), [] as [Value; 0]);

    hypervisor.control("stop-libvirtd", &[]);
    container.run("busybox udhcpc -i eth0 -n -q -f -t 30 -T 1 -s /bin/true -x hostname:web-1");
    wait(&vifd, &uuid, "lease", "the guest asked for an address", |said| said.len() == 1);
    assert_eq!(vifd.get("/host/v1/sync")["sources"]["leases"]["state"], "synced");
    hypervisor.control("start-libvirtd", &[]);
    let lease = addresses(&vifd, &uuid, "lease").remove(0);
    // Expiry time, MAC address, protocol, address, host name, client id.
    let truth = hypervisor.virsh(QEMU, "net-dhcp-leases leases");
    let truth: Vec<_> = truth.split_whitespace().collect();
    let (address, expires) = (truth[4].split('/').next().unwrap(), lease["expires"].as_str().unwrap());
    let same = hypervisor.run(&format!("date --date {expires} '+%F %T'"));
    assert_eq!(same.trim(), format!("{} {}", truth[0], truth[1]));
    let expected = json!({
        "source": "lease", "address": address, "bridge": "virbr7", "expires": expires, "hostname": "web-1",
    });
    assert_eq!((&lease, truth[2]), (&expected, &*mac));
    let (text, _) = vifd.vifctl(&["who", address]);
    assert!(text.contains("matched by   DHCP lease"), "{text}");
    assert!(
        text.contains(&format!("{address} (DHCP lease on virbr7, to the host name web-1, expires in 59m")),
        "{text}"
    );
    let (text, _) = vifd.vifctl(&["show", &uuid]);
    assert!(text.contains("10.0.0.4 (fixed address in the metadata)\n") && text.contains(address), "{text}");

    hypervisor.virsh(QEMU, "net-destroy leases");
    wait(&vifd, &uuid, "lease", "the network is gone, and its leases with it", <[Value]>::is_empty);
}
