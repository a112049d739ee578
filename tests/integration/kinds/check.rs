//! Looks at a domain from all sides: what vifd says, forward and back, beside `virsh domiflist` and `ip -d link`.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    LIMIT,
    hypervisor::Hypervisor,
    vifd::{VIFD, Vifd},
};

pub(super) const QEMU: &str = "qemu:///system";
pub(super) const LXC: &str = "lxc:///system";

/// The kind of a link and the name of its controller, or why there is no link.
pub(super) type Link = Result<(&'static str, Option<&'static str>), &'static str>;

/// An interface: how it is written, and what is to be known of it.
#[derive(Clone)]
pub(super) struct Nic {
    /// Its XML without the MAC address.
    pub(super) xml: String,
    pub(super) mac: String,
    /// What its record says beside the above, its model, its alias and its device.
    pub(super) record: Value,
    /// The link that carries it while the domain runs.
    pub(super) link: Link,
    /// The source that `virsh domiflist` names.
    pub(super) source: String,
}

/// A row of a table of interfaces: type, XML, record, link and source; see [`Nic`].
pub(super) type Row<'a> = (&'a str, &'a str, Value, Link, &'a str);

/// The interfaces of the domain number `n`.
pub(super) fn nics<const N: usize>(n: u32, table: [Row; N]) -> Vec<Nic> {
    let nics = table.into_iter().enumerate().map(|(j, (kind, xml, mut record, link, source))| {
        record.as_object_mut().unwrap().entry("type").or_insert_with(|| json!(kind));
        let mac = record.get("mac").map_or_else(|| mac(n, j), |mac| mac.as_str().unwrap().to_owned());
        Nic {
            xml: format!("<interface type='{kind}'><mac address='{mac}'/>{xml}</interface>"),
            mac,
            record,
            link,
            source: source.to_owned(),
        }
    });
    nics.collect()
}

pub(super) fn mac(n: u32, j: usize) -> String {
    format!("52:54:00:00:{n:02x}:{j:02x}")
}

pub(super) fn uuid(n: u32) -> Uuid {
    format!("00000000-0000-4000-a000-{n:012}").parse().unwrap()
}

pub(super) fn name(n: u32) -> String {
    format!("kind-{n}")
}

/// The id that vifd makes where nobody gives one.
pub(super) fn synthetic(n: u32, name: &str) -> String {
    Uuid::new_v5(&uuid(n), name.as_bytes()).to_string()
}

/// A guest that halts at once; `more` are further devices.
pub(super) fn guest(hypervisor: &Hypervisor, n: u32, nics: &[Nic], more: &str) -> String {
    let nics: String =
        nics.iter().map(|nic| nic.xml.replace("</interface>", "<model type='virtio'/></interface>")).collect();
    format!(
        "<domain type='qemu'><name>{}</name><uuid>{}</uuid><memory unit='KiB'>2048</memory>
           <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
           <os><type arch='x86_64' machine='pc'>hvm</type><loader readonly='yes' type='rom'>{}</loader></os>
           <features><acpi/><tcg><tb-cache unit='MiB'>1</tb-cache></tcg></features>
           <on_reboot>destroy</on_reboot><on_crash>preserve</on_crash>
           <devices><controller type='usb' model='none'/><memballoon model='none'/>{more}{nics}</devices></domain>",
        name(n),
        uuid(n),
        hypervisor.dir().join("halt.bin").display()
    )
}

/// A container that sleeps.
pub(super) fn container(n: u32, nics: &[Nic]) -> String {
    let nics: String = nics.iter().map(|nic| &*nic.xml).collect();
    format!(
        "<domain type='lxc'><name>{}</name><uuid>{}</uuid><memory unit='MiB'>64</memory>
           <os><type>exe</type><init>/bin/sleep</init><initarg>infinity</initarg></os>
           <devices><console type='pty'/>{nics}</devices></domain>",
        name(n),
        uuid(n)
    )
}

/// Writes XML into a file and hands it to a command of `virsh`, which has `{}` for the file.
pub(super) fn virsh(hypervisor: &Hypervisor, uri: &str, command: &str, xml: &str) {
    let file = hypervisor.dir().join("kinds.xml");
    fs::write(&file, xml).unwrap();
    hypervisor.virsh(uri, &command.replace("{}", file.to_str().unwrap()));
}

/// With a bridge of libvirt's own: it needs neither firewall rules nor dnsmasq.
pub(super) const OPEN: &str = "<forward mode='open'/><bridge name='virbr7' stp='off'/><dns enable='no'/>
    <ip address='10.7.0.1' netmask='255.255.255.0'/>";

pub(super) fn create_network(hypervisor: &Hypervisor, name: &str, inside: &str) {
    // libvirt keeps its ports there, and makes it together with the first dnsmasq only.
    hypervisor.run("mkdir -p /var/lib/libvirt/dnsmasq");
    virsh(hypervisor, QEMU, "net-create {}", &format!("<network><name>{name}</name>{inside}</network>"));
}

/// Waits until both lists are the same; tells the elements that stay different.
pub(super) fn agree(what: &str, mut both: impl FnMut() -> (Vec<Value>, Vec<Value>)) {
    let started = Instant::now();
    loop {
        let (said, truth) = both();
        if said == truth {
            return;
        }
        if started.elapsed() > LIMIT {
            let different = said.iter().zip(&truth).filter(|(said, truth)| said != truth);
            let different: Vec<_> = different.map(|(said, truth)| format!("vifd:  {said}\ntruth: {truth}")).collect();
            panic!("{what}: {} said, {} true\n{}", said.len(), truth.len(), different.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Takes a list out of an answer.
pub(super) fn list(answer: &mut Value) -> Vec<Value> {
    serde_json::from_value(answer.take()).unwrap()
}

pub(super) fn instance(vifd: &Vifd, n: u32) -> Value {
    vifd.get(&format!("/host/v1/instances/{}", uuid(n)))["instance"].take()
}

pub(super) fn wait_state(vifd: &Vifd, n: u32, state: &str) -> Value {
    let path = format!("/host/v1/instances/{}", uuid(n));
    vifd.wait(state, &path, |answer| answer["instance"]["state"] == state)["instance"].take()
}

/// What `virsh domiflist` says: target, type, source, model and MAC address of each.
pub(super) fn listed(hypervisor: &Hypervisor, uri: &str, n: u32) -> Vec<Vec<String>> {
    let rows = hypervisor.virsh(uri, &format!("domiflist {}", name(n)));
    rows.lines()
        .map(|row| row.split_whitespace().map(str::to_owned).collect())
        .filter(|row: &Vec<_>| !row.is_empty())
        .collect()
}

/// What `ip` says of each link, in vifd's words; a tap's queues in use are not among them.
pub(super) fn links(hypervisor: &Hypervisor) -> Vec<Value> {
    let links: Vec<Value> = serde_json::from_str(&hypervisor.run("ip -j -d link")).unwrap();
    let index = |name: &Value| {
        let link = links.iter().find(|link| link["ifname"] == *name);
        link.map_or(Value::Null, |link| link["ifindex"].clone())
    };
    let in_words = |link: &Value| {
        let (info, flags) = (&link["linkinfo"], link["flags"].as_array().unwrap());
        let other = match &link["link_netnsid"] {
            Value::Null => json!({ "index": index(&link["link"]) }),
            netns => json!({ "index": link["link_index"], "netns": netns }),
        };
        let mut words = json!({
            "index": link["ifindex"], "name": link["ifname"], "mac": link["address"], "mtu": link["mtu"],
            "kind": info["info_kind"], "controller": index(&link["master"]),
            "up": flags.contains(&json!("UP")), "promiscuous": flags.contains(&json!("PROMISC")),
            "oper_state": link["operstate"].as_str().unwrap().to_ascii_lowercase(),
            "tx_queues": link["num_tx_queues"], "rx_queues": link["num_rx_queues"],
        });
        match info["info_kind"].as_str() {
            Some("tun") => {
                words["kind"] = info["info_data"]["type"].clone();
                words["multi_queue"] = info["info_data"]["multi_queue"].clone();
                words["persistent"] = info["info_data"]["persist"].clone();
            }
            Some("veth") => words["peer"] = other,
            Some("macvtap") => words["lower"] = other,
            _ => {}
        }
        words
    };
    links.iter().map(in_words).collect()
}

/// Looks at a running domain from all sides.
pub(super) fn check(hypervisor: &Hypervisor, vifd: &Vifd, uri: &str, n: u32, nics: &[Nic]) {
    check_in_state(hypervisor, vifd, uri, n, nics, "running");
}

pub(super) fn check_in_state(hypervisor: &Hypervisor, vifd: &Vifd, uri: &str, n: u32, nics: &[Nic], state: &str) {
    let active = state != "shut_off";
    wait_state(vifd, n, state);
    let listed = listed(hypervisor, uri, n);
    assert_eq!(listed.len(), nics.len(), "{listed:?}");

    agree("the links", || {
        let mut links = links(hypervisor);
        links.retain(|link| listed.iter().any(|row| link["name"] == row[0]));
        let mut said = list(&mut instance(vifd, n)["links"]);
        for link in &mut said {
            let link = link.as_object_mut().unwrap();
            link.remove("carrier");
            let state = link["oper_state"].as_str().unwrap().replace('_', "");
            link.insert("oper_state".to_owned(), json!(state));
        }
        links.sort_by_key(|link| listed.iter().position(|row| link["name"] == row[0]));
        (said, links)
    });

    let all_links = links(hypervisor);
    let expected: Vec<Value> = nics
        .iter()
        .enumerate()
        .map(|(j, nic)| {
            let mut record = json!({
                "id": synthetic(n, &nic.mac), "id_source": "synthetic", "mac": nic.mac, "device": null,
            });
            if uri == QEMU {
                record["model"] = json!("virtio");
            }
            if uri == QEMU && active {
                record["alias"] = json!(format!("net{j}"));
            }
            let target = &listed[j][0];
            if target != "-" {
                record["target"] = json!(target);
            }
            match nic.link {
                _ if !active => record["no_device"] = json!("not_running"),
                Ok(_) => {
                    let index = &all_links.iter().find(|link| link["name"] == *target).unwrap()["index"];
                    record["device"] = json!({ "index": index, "name": target });
                }
                Err(reason) => record["no_device"] = json!(reason),
            }
            record.as_object_mut().unwrap().extend(nic.record.as_object().unwrap().clone());
            record
        })
        .collect();
    agree("the records", || {
        let mut said = list(&mut instance(vifd, n)["vifs"]);
        // Looked at in `definitions`.
        said.iter_mut().for_each(|vif| drop(vif.as_object_mut().unwrap().remove("definition")));
        (said, expected.clone())
    });

    for ((record, row), nic) in expected.iter().zip(&listed).zip(nics) {
        let text = |name: &str| record[name].as_str().unwrap_or("-");
        assert_eq!(row[..], [text("target"), text("type"), &nic.source, text("model"), &nic.mac]);
    }
    let list = vifd.request("POST", &format!("/v2.1/servers/{}/virtual_interfaces", uuid(n)), &[]).json();
    let in_order: Vec<_> = expected.iter().map(|vif| json!({"id": vif["id"], "mac_address": vif["mac"]})).collect();
    assert_eq!(list["virtual_interfaces"], json!(in_order));
    let (shown, status) = vifd.vifctl(&["show", &name(n)]);
    assert!(status == Some(0) && nics.iter().all(|nic| shown.contains(&nic.mac)), "{shown}");
    for (vif, nic) in expected.iter().zip(nics) {
        look_up(vifd, n, &expected, vif, nic);
    }
}

/// Finds a VIF by everything that it has.
pub(super) fn look_up(vifd: &Vifd, n: u32, all: &[Value], vif: &Value, nic: &Nic) {
    let same_mac: Vec<usize> = (0..all.len()).filter(|j| all[*j]["mac"] == vif["mac"]).collect();
    let who = |thing: &str| -> Vec<usize> {
        let answer = vifd.get(&format!("/host/v1/who?thing={thing}"));
        let found = answer["matches"].as_array().unwrap().iter().filter(|found| !found["instance"].is_null());
        let vif = |found: &Value| {
            assert_eq!(found["instance"]["uuid"], json!(uuid(n)), "{thing}");
            usize::try_from(found["vif"].as_u64().unwrap()).unwrap()
        };
        found.map(vif).collect()
    };
    let ids = |filter: &str| -> Vec<Value> {
        let answer = vifd.get(&format!("/host/v1/vifs?{filter}"));
        answer["vifs"].as_array().unwrap().iter().map(|vif| vif["id"].clone()).collect()
    };
    let position = all.iter().position(|other| other == vif).unwrap();
    let (id, mac) = (vif["id"].as_str().unwrap(), vif["mac"].as_str().unwrap());
    assert_eq!((who(id), ids(&format!("id={id}"))), (vec![position], vec![json!(id)]));
    let with_mac: Vec<_> = same_mac.iter().map(|j| all[*j]["id"].clone()).collect();
    assert_eq!((who(mac), ids(&format!("mac={mac}"))), (same_mac, with_mac));

    for thing in [&vif["socket"], &vif["target"]].into_iter().filter_map(Value::as_str) {
        assert_eq!(who(thing), [position], "{thing}");
    }
    if vif["device"].is_null() {
        return;
    }
    let (kind, controller) = nic.link.unwrap();
    let (device, index) = (vif["device"]["name"].as_str().unwrap(), vif["device"]["index"].to_string());
    assert_eq!((who(device), who(&index)), (vec![position], vec![position]));
    assert_eq!(
        (ids(&format!("device={device}")), ids(&format!("ifindex={index}"))),
        (vec![json!(id)], vec![json!(id)])
    );
    let link = &vifd.get(&format!("/host/v1/devices/{device}"))["device"];
    assert_eq!((&link["kind"], &link["controller_name"]), (&json!(kind), &json!(controller)), "{device}");
    let carried = json!([{ "instance_uuid": uuid(n), "instance_name": name(n), "vif_id": id }]);
    assert_eq!(link["carries"], carried, "{device}");
}

/// What was followed, event by event, must be what a daemon reads that starts now.
pub(super) fn agrees_with_a_fresh_one(hypervisor: &Hypervisor, vifd: &Vifd) {
    let dir = hypervisor.dir().join("fresh");
    fs::create_dir(&dir).unwrap();
    let fresh = Vifd::start(hypervisor.command(VIFD), &dir, "");
    fresh.wait_ready();
    let all = |vifd: &Vifd| {
        let mut instances = list(&mut vifd.get("/host/v1/instances")["instances"]);
        for instance in &mut instances {
            for past in ["revision", "changed"] {
                instance.as_object_mut().unwrap().remove(past);
            }
        }
        instances
    };
    agree("a fresh daemon", || (all(vifd), all(&fresh)));
}
