//! Following libvirt by its own test driver: no root, no hypervisor.

use std::{path::Path, process::Command, time::Duration};

use serde_json::json;

use crate::support::{
    eventually,
    vifd::{VIFD, Vifd},
};

const HOST: &str = concat!("test://", env!("CARGO_MANIFEST_DIR"), "/tests/data/host.xml");
const UUID: &str = "874092fe-19a7-44bd-a16a-4fb617bfef7a";
const PORT: &str = "a756caef-c731-4df1-a814-0dba057b039f";

struct Host {
    vifd: Vifd,
    _dir: tempfile::TempDir,
}

fn host(more_uris: &str) -> Host {
    let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
    let config = format!("[libvirt]\nuris = ['{HOST}'{more_uris}]\n");
    let vifd = Vifd::start(Command::new(VIFD), dir.path(), &config);
    vifd.wait("the test host is read", "/host/v1/sync", |sync| sync["instances"] == 2);
    Host { vifd, _dir: dir }
}

#[test]
fn the_action_answers_with_the_interfaces_in_the_guests_order() {
    let host = host("");
    let vifd = &host.vifd;
    vifd.wait_ready();
    let response = vifd.request("POST", &format!("/v2.1/servers/{UUID}/virtual_interfaces"), &[]);
    assert_eq!((response.status, response.header("age")), (202, Some("0")));
    let list = &response.json()["virtual_interfaces"];
    assert_eq!(list[0], json!({"id": PORT, "mac_address": "fa:16:3e:00:00:2a"}));
    assert_eq!(list[1]["mac_address"], "52:54:00:00:00:01");
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(vifd.get("/v1.1/p/servers/42/os-virtual-interfaces")["virtual_interfaces"], *list);
    assert_eq!(vifd.request("GET", "/v2.1/servers/43/os-virtual-interfaces", &[]).status, 404);
}

#[test]
fn the_hosts_own_api_tells_everything_about_an_instance() {
    let host = host("");
    let vifd = &host.vifd;
    for id in [UUID, "instance-0000002a", "42"] {
        let instance = &vifd.get(&format!("/host/v1/instances/{id}"))["instance"];
        assert_eq!(instance["uuid"], UUID);
        assert_eq!(instance["display_name"], "web");
        assert_eq!(instance["state"], "running");
        assert_eq!(instance["project"], json!({"id": "bf75459b5c334ca1ada07d66736389fc", "name": "shop"}));
        assert_eq!(instance["stale"], json!(null));
        let vif = &instance["vifs"][0];
        assert_eq!(vif["id_source"], "target_name");
        assert_eq!((&vif["type"], &vif["bridge"], &vif["model"]), (&json!("bridge"), &json!("br0"), &json!("virtio")));
        assert_eq!((&vif["target"], &vif["no_device"]), (&json!("tapa756caef-c7"), &json!("target_missing")));
        assert_eq!(instance["vifs"][1]["no_device"], "type_has_none");
    }
    let error = vifd.request("GET", "/host/v1/instances/nobody", &[]);
    assert_eq!((error.status, &error.json()["error"]["code"]), (404, &json!("not_found")));
}

#[test]
fn vifs_are_filtered_by_what_is_asked_and_unknown_filters_are_refused() {
    let host = host("");
    let vifd = &host.vifd;
    let count = |query: &str| vifd.get(&format!("/host/v1/vifs{query}"))["vifs"].as_array().unwrap().len();
    assert_eq!(count(""), 2);
    assert_eq!(count(&format!("?id={PORT}")), 1);
    assert_eq!(count("?mac=52-54-00-00-00-01"), 1);
    assert_eq!(count(&format!("?instance={UUID}&mac=52:54:00:00:00:01")), 1);
    assert_eq!(count("?project=bf75459b5c334ca1ada07d66736389fc"), 2);
    assert_eq!(count("?project=shop"), 0, "a name is no id");
    assert_eq!(count("?device=lo"), 0);
    for query in ["?macs=x", "?mac=zz", "?ifindex=-1", "?id=1"] {
        assert_eq!(vifd.request("GET", &format!("/host/v1/vifs{query}"), &[]).status, 400, "{query}");
    }
    assert_eq!(vifd.request("PUT", "/host/v1/vifs", &[]).status, 405);
}

#[test]
fn a_hypervisor_that_cannot_be_reached_is_pending_and_the_other_is_served() {
    let host = host(", 'test:///nonexistent.xml'");
    let vifd = &host.vifd;
    let sync =
        vifd.wait("both were tried", "/host/v1/sync", |sync| sync["sources"]["hypervisors"][1]["reason"].is_string());
    assert_eq!(sync["sources"]["hypervisors"][0]["state"], "synced");
    assert_eq!(sync["sources"]["hypervisors"][1]["state"], "pending");
    assert_eq!(sync["ready"], false);
    let known = vifd.request("GET", &format!("/v2.1/servers/{UUID}/os-virtual-interfaces"), &[]);
    assert_eq!(known.status, 200);
    // The other hypervisor may have it: absence cannot be claimed.
    assert_eq!(vifd.request("GET", "/v2.1/servers/43/os-virtual-interfaces.xml", &[]).status, 503);
    assert_eq!(vifd.request("GET", "/ready", &[]).status, 503);
    let (said, _) = vifd.vifctl(&["list"]);
    assert!(said.contains("! test:///nonexistent.xml has not been read yet: could not connect"), "{said}");
}

#[test]
fn vifctl_prints_tables_for_people_and_json_for_programs() {
    let host = host("");
    let vifd = &host.vifd;
    let (list, status) = vifd.vifctl(&["list"]);
    assert_eq!(status, Some(0));
    let lines: Vec<_> = list.lines().collect();
    assert!(lines[0].starts_with("INSTANCE") && lines.len() == 4, "{list}");
    let row = lines.iter().find(|line| line.contains("fa:16:3e:00:00:2a")).unwrap();
    assert!(row.contains(PORT) && row.contains("tapa756caef-c7: missing"), "{row}");

    let (show, status) = vifd.vifctl(&["show", "42"]);
    assert!(status == Some(0) && show.contains("(shop)") && show.contains("the target's name"), "{show}");

    let (who, status) = vifd.vifctl(&["who", "FA:16:3E:00:00:2A"]);
    assert!(status == Some(0) && who.contains(&format!("VIF {PORT}")) && who.contains("instance-0000002a"), "{who}");
    assert_eq!(vifd.vifctl(&["who", "nothing"]).1, Some(1));
    assert_eq!(vifd.vifctl(&["show", "nothing"]).1, Some(1));
    assert_eq!(vifd.vifctl(&["frobnicate"]).1, Some(2));

    let (status, _) = vifd.vifctl(&["status"]);
    assert!(
        status.contains("2 instances, 2 VIFs") && status.contains("netlink") && status.contains("synced"),
        "{status}"
    );

    for command in [&["list"][..], &["show", "42"], &["who", PORT], &["status"]] {
        let (json, _) = vifd.vifctl(&[&["-o", "json"], command].concat());
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(json["generation"].is_u64() && json["sources"]["netlink"]["state"] == "synced", "{json}");
    }
}

fn start(dir: &Path) -> Vifd {
    Vifd::start(Command::new(VIFD), dir, &format!("[libvirt]\nuris = ['{HOST}']\n"))
}

#[test]
fn killed_at_any_moment_two_hundred_times_it_never_loses_its_records() {
    let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
    let cache = dir.path().join("vifd.cache");
    let first = start(dir.path());
    eventually("the records are written", || cache.exists().then_some(()));
    drop(first);
    for round in 0..200u64 {
        let vifd = start(dir.path());
        // It has listened for a moment already; the records of the run before are there from the first answer on.
        assert_eq!(vifd.get("/host/v1/sync")["instances"], 2, "round {round}:\n{}", vifd.log());
        // Until after the next write, every tenth time.
        std::thread::sleep(Duration::from_micros(if round % 10 == 0 { 1_000_000 + round * 150 } else { round * 100 }));
        assert!(!vifd.log().contains("beginning without the records"), "round {round}:\n{}", vifd.log());
        vifd.end("-KILL");
    }
}

#[test]
fn a_file_of_records_that_cannot_be_used_costs_a_warning_and_nothing_else() {
    let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
    let cache = dir.path().join("vifd.cache");
    for bytes in [&b""[..], b"vifd-cache 1 2 00000000\n{}", b"vifd-cache 9 2 00000000\n{}", &[0xff; 1 << 20]] {
        std::fs::write(&cache, bytes).unwrap();
        let vifd = start(dir.path());
        vifd.wait_ready();
        assert_eq!(vifd.log().matches("beginning without the records").count(), 1, "{}", vifd.log());
        assert_eq!(vifd.get("/host/v1/sync")["instances"], 2);
        assert!(vifd.end("-TERM").success());
        assert!(std::fs::read(&cache).unwrap().starts_with(b"vifd-cache 1 "), "an orderly stop writes good ones");
    }
    // A directory in its place can be neither read nor replaced.
    std::fs::remove_file(&cache).unwrap();
    std::fs::create_dir(&cache).unwrap();
    let vifd = start(dir.path());
    vifd.wait_ready();
    eventually("a warning", || vifd.log().contains("a restart will begin without the records").then_some(()));
    assert!(vifd.end("-TERM").success());
}
