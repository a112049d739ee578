//! `/metrics`, with real guests that send and receive, held against what the kernel and libvirt say of them.

use std::process::Command;

use serde_json::Value;

use crate::support::{
    eventually,
    http::Response,
    hypervisor::Hypervisor,
    metrics::{Scrape, check_text},
    vifd::{VIFD, Vifd},
};

const QEMU: &str = "qemu:///system";
const LXC: &str = "lxc:///system";
/// libvirt's test driver, with two instances.
const HOST: &str = concat!("test://", env!("CARGO_MANIFEST_DIR"), "/tests/data/host.xml");

fn id(function: &str) -> String {
    Hypervisor::id(function)
}

/// The labels of a VIF's counters.
fn key(n: u32, j: u32) -> String {
    let (device, uuid, port) =
        (id(&format!("tap_name {n} {j}")), id(&format!("server_uuid {n}")), id(&format!("port_uuid {n} {j}")));
    format!("{{device={device},instance_uuid={uuid},vif_id={port}}}")
}

/// The eight counters of a VIF.
fn counters(scrape: &Scrape, key: &str) -> Vec<u64> {
    let all = ["receive", "transmit"].map(|way| ["bytes", "packets", "errors", "drops"].map(|what| (way, what)));
    let value = |(way, what)| scrape.get(&format!("vifd_vif_{way}_{what}_total{key}"));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters of a test are small")]
    all.into_iter().flatten().map(|what| value(what) as u64).collect()
}

/// The same of a device, as `ip -s link` has it, in the host's view.
fn of_ip(hypervisor: &Hypervisor, device: &str, ways: [&str; 2]) -> Vec<u64> {
    let text = hypervisor.run(&format!("ip -s -json link show {device}"));
    let stats = serde_json::from_str::<Value>(&text).unwrap()[0]["stats64"].take();
    let of = |way: &str| ["bytes", "packets", "errors", "dropped"].map(|what| stats[way][what].as_u64().unwrap());
    ways.into_iter().flat_map(of).collect()
}

/// The same as libvirt has it, in the guest's view.
fn of_libvirt(hypervisor: &Hypervisor, uri: &str, n: u32, device: &str) -> Vec<u64> {
    let text = hypervisor.virsh(uri, &format!("domifstat {} {device}", id(&format!("domain_name {n}"))));
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Runs commands in the network of a container.
fn in_container(hypervisor: &Hypervisor, n: u32, commands: &str) {
    let init = hypervisor.virsh(LXC, &format!("domid {}", id(&format!("domain_name {n}"))));
    hypervisor.run(&format!("nsenter --net --target $(pgrep --parent {}) sh -c '{commands}'", init.trim()));
}

#[test]
#[ignore = "needs root: run by make test"]
fn the_counters_of_real_guests_are_the_guests_own_by_the_word_of_ip_and_of_libvirt() {
    let hypervisor = Hypervisor::start();
    hypervisor.run(
        "ip link add low0 type veth peer name far0; ip link set low0 up; ip link set far0 up
         ip address add 10.7.0.1/24 dev far0; ip address add 10.8.0.1/24 dev br0",
    );
    hypervisor.create(QEMU, "pxe_domain 1 low0");
    hypervisor.create(LXC, "lxc_domain 2");
    let vifd = hypervisor.vifd("");
    // The container has a conversation with the host, and everybody hears the host shout.
    in_container(
        &hypervisor,
        2,
        "ip link set eth0 up; ip address add 10.8.0.2/24 dev eth0; busybox ping -c 3 10.8.0.1",
    );
    let [tap, macvtap, veth] = [(1, 0), (1, 1), (2, 0)].map(|(n, j)| id(&format!("tap_name {n} {j}")));
    eventually("the guest's firmware sends and receives on both devices", || {
        hypervisor.run("busybox ping -c 1 -W 1 10.7.0.9 || :; busybox ping -c 1 -W 1 10.8.0.9 || :");
        let scrape = Scrape::of(&vifd);
        let busy = |key: String| {
            let counters = counters(&scrape, &key);
            counters[1] > 0 && counters[5] > 0
        };
        (busy(key(1, 0)) && busy(key(1, 1)) && busy(key(2, 0))).then_some(())
    });
    hypervisor.virsh(QEMU, "suspend instance-00000001");

    // A tap and a veth receive what their guests send; a macvtap receives what its guest receives.
    for (uri, n, j, device, [receives, sends]) in
        [(QEMU, 1, 0, &tap, ["tx", "rx"]), (QEMU, 1, 1, &macvtap, ["rx", "tx"]), (LXC, 2, 0, &veth, ["tx", "rx"])]
    {
        // Now and then the kernel itself has something to say to a link.
        eventually("three agree", || {
            let ours = counters(&Scrape::of(&vifd), &key(n, j));
            let same = ours == of_ip(&hypervisor, device, [receives, sends])
                && ours == of_libvirt(&hypervisor, uri, n, device);
            same.then_some(())
        });
    }
    check_text(&vifd);

    let scrape = Scrape::of(&vifd);
    let index = hypervisor.run(&format!("cat /sys/class/net/{tap}/ifindex"));
    let info = format!(
        "vifd_vif_info{{bridge=br0,device={tap},display_name=web-1,ifindex={},instance_uuid={},kind=tap,\
         libvirt_name=instance-00000001,mac={},project_id={},project_name=shop,vif_id={}}}",
        index.trim(),
        id("server_uuid 1"),
        id("mac_address 1 0"),
        id("keystone_id project shop"),
        id("port_uuid 1 0"),
    );
    assert_eq!(scrape.get(&info), 1.0);
    for (series, value) in [
        ("vifd_ready{}", 1.0),
        ("vifd_counters_read{}", 1.0),
        ("vifd_instances{state=running}", 1.0),
        ("vifd_instances{state=paused}", 1.0),
        ("vifd_links{kind=macvtap}", 1.0),
        ("vifd_vifs{carrier=link}", 3.0),
        ("vifd_vifs_left_out{reason=limit}", 0.0),
        ("vifd_source_state{source=netlink,state=synced}", 1.0),
        ("vifd_source_state{source=qemu:///system,state=synced}", 1.0),
        ("vifd_source_stale_seconds{source=qemu:///system}", 0.0),
    ] {
        assert_eq!(scrape.get(series), value, "{series}");
    }
    for series in [
        "vifd_source_events_total{source=netlink}",
        "vifd_source_events_total{source=qemu:///system}",
        "vifd_source_listings_total{source=lxc:///system}",
        "vifd_join_duration_seconds_count{}",
        "vifd_http_request_duration_seconds_count{api=agent,status=2xx}",
        "vifd_http_connections_total{listener=unix}",
        "process_resident_memory_bytes{}",
        "process_start_time_seconds{}",
        "process_threads{}",
        "process_open_fds{}",
    ] {
        assert!(scrape.get(series) > 0.0, "{series}");
    }

    // One interface on, the rest are only counted.
    drop(vifd);
    let vifd = hypervisor.vifd("[metrics]\nmax_interfaces = 1\n");
    let scrape = Scrape::of(&vifd);
    assert_eq!(scrape.named("vifd_vif_info").len(), 1);
    assert_eq!(scrape.named("vifd_vif_receive_bytes_total").len(), 1);
    assert_eq!(scrape.get("vifd_vifs_left_out{reason=limit}"), 2.0);
    check_text(&vifd);
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_device_that_is_made_again_tells_since_when_it_counts() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd("");
    let series = format!("vifd_vif_receive_bytes_created{}", key(1, 0));
    let told = |vifd: &Vifd| {
        let scrape = Scrape::of(vifd);
        scrape.named(&series).first().map(|series| scrape.get(series))
    };
    let created = |vifd: &Vifd| eventually("the VIF has its device", || told(vifd));
    // Older than vifd: as old as the host, and so it stays.
    let boot = created(&vifd);
    let uptime: f64 = hypervisor.run("cut -d ' ' -f 1 /proc/uptime").trim().parse().unwrap();
    let now: f64 = hypervisor.run("date +%s.%N").trim().parse().unwrap();
    assert!((now - uptime - boot).abs() < 60.0, "{boot} is not {uptime} s ago");
    assert_eq!(created(&vifd), boot);

    hypervisor.virsh(QEMU, "destroy instance-00000001");
    let before: f64 = hypervisor.run("date +%s.%N").trim().parse().unwrap();
    hypervisor.create_guest(1, 1);
    let again = eventually("the VIF has another device", || told(&vifd).filter(|created| *created != boot));
    let now: f64 = hypervisor.run("date +%s.%N").trim().parse().unwrap();
    assert!((before - 0.001..=now).contains(&again), "{again} is not between {before} and {now}");
    assert_eq!(created(&vifd), again);
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_scrape_goes_on_and_says_so_while_libvirt_hangs() {
    let hypervisor = Hypervisor::start();
    hypervisor.create(LXC, "lxc_domain 1");
    in_container(&hypervisor, 1, "ip link set eth0 up");
    hypervisor.run("ip address add 10.8.0.1/24 dev br0");
    let vifd = hypervisor.vifd("[libvirt]\nkeepalive_interval = '1s'\n[findings]\nlook_interval = '50ms'\n");
    let pid = hypervisor.control("libvirtd-pid", &[]).trim().to_owned();
    let kill = |signal: &str| assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    kill("-STOP");
    let stale = "vifd_source_state{source=lxc:///system,state=stale}";
    let scrape = eventually("stale", || Some(Scrape::of(&vifd)).filter(|scrape| scrape.get(stale) == 1.0));
    assert_eq!(scrape.get("vifd_source_state{source=lxc:///system,state=synced}"), 0.0);
    assert_eq!(scrape.get("vifd_stale_instances{}"), 1.0);
    eventually("its age grows, and the failure is counted", || {
        let scrape = Scrape::of(&vifd);
        (scrape.get("vifd_source_stale_seconds{source=lxc:///system}") > 0.0
            && scrape.get("vifd_source_failures_total{source=lxc:///system}") > 0.0)
            .then_some(())
    });
    // The counters are the kernel's, which does not hang.
    let count = || counters(&Scrape::of(&vifd), &key(1, 0)).iter().sum::<u64>();
    let before = count();
    eventually("the counters go on", || {
        hypervisor.run("busybox ping -c 1 -W 1 10.8.0.9 || :");
        (count() > before).then_some(())
    });
    eventually("it is found, too", || {
        (!Scrape::of(&vifd).named("vifd_findings{code=source-stale").is_empty()).then_some(())
    });
    check_text(&vifd);
    kill("-CONT");
    eventually("current again", || (Scrape::of(&vifd).get(stale) == 0.0).then_some(()));
    assert!(Scrape::of(&vifd).get("vifd_source_syncs_total{source=lxc:///system}") >= 2.0);
}

#[test]
fn scrapers_without_an_identity_have_an_address_of_their_own_with_nothing_else() {
    let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "secret").unwrap();
    let keystone = format!(
        "[tcp]\nlisten = '127.0.0.1:0'\n[tcp.keystone]\nurl = 'http://127.0.0.1:1/v3'\npassword_file = '{}'\n",
        password.display()
    );
    let config = format!("[metrics]\nlisten = '127.0.0.1:0'\n[libvirt]\nuris = ['{HOST}']\n{keystone}");
    let vifd = Vifd::start(Command::new(VIFD), dir.path(), &config);
    vifd.wait("the test host is read", "/host/v1/sync", |sync| sync["instances"] == 2);
    let ask =
        |method, path: &str| -> Response { crate::support::http::over_tcp(vifd.scraped(), method, path, &[]).unwrap() };
    let text = ask("GET", "/metrics");
    assert_eq!(text.status, 200);
    assert!(text.body.contains("\nvifd_instances{state=\"running\"} "), "{}", text.body);
    assert_eq!(ask("HEAD", "/metrics").status, 200);
    assert_eq!(ask("POST", "/metrics").status, 405);
    for path in ["/", "/live", "/host/v1/instances", "/v2.1/servers", "/metrics/", "/openapi.json"] {
        assert_eq!(ask("GET", path).status, 404, "{path}");
    }
    // Elsewhere one must be an administrator.
    for path in ["/metrics", "/metrics/", "//metrics", "/metrics.json"] {
        let status = crate::support::http::over_tcp(vifd.tcp(), "GET", path, &[]).unwrap().status;
        assert_eq!(status, 401, "{path}");
    }
    let over_unix = Scrape::of(&vifd);
    assert!(over_unix.get("vifd_http_request_duration_seconds_count{api=agent,status=4xx}") >= 8.0);
    assert!(over_unix.get("vifd_http_connections_total{listener=metrics}") >= 9.0);
}
