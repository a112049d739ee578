//! What is true, by `virsh` and `ip`, and what vifd says, both as lines of text that can be compared.
//!
//! Nothing of vifd's own code is used here: a mistake in it must not be made a second time by its judge.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{netlink, support::vifd::Vifd};

/// Facts, one a line.
pub type Facts = BTreeSet<String>;

/// Prints every domain of every driver: its description, then its state. `virsh` without a command would read them
/// from standard input, hence the test.
pub const DOMAINS: &str = r#"
    for uri in qemu:///system lxc:///system; do
        commands=
        for uuid in $(virsh -q -c $uri list --all --uuid); do
            commands="$commands echo =$uri; dumpxml $uuid; domstate $uuid;"
        done
        [ -z "$commands" ] || virsh -q -c $uri "$commands"
    done"#;

/// Prints every link.
pub const LINKS: &str = "ip -d -j link show";

/// A domain, in libvirt's words.
#[derive(Clone, Debug)]
pub struct Domain {
    uri: String,
    pub uuid: String,
    pub name: String,
    pub state: String,
    active: bool,
    display_name: Option<String>,
    /// The ids of the ports in the cloud's metadata.
    ports: Vec<String>,
    interfaces: Vec<Interface>,
}

#[derive(Clone, Debug)]
struct Interface {
    kind: String,
    mac: String,
    target: Option<String>,
    bridge: Option<String>,
    alias: Option<String>,
}

/// What libvirt and the kernel say.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    pub domains: Vec<Domain>,
    pub links: Vec<Value>,
    /// libvirt cannot be asked: these are the domains of before.
    pub stale: bool,
}

/// Reads what [`DOMAINS`] prints. Nothing if a domain went away meanwhile.
pub fn domains(text: &str) -> Option<Vec<Domain>> {
    text.split("\n=").filter(|part| !part.trim().is_empty()).map(domain).collect()
}

fn domain(part: &str) -> Option<Domain> {
    // `virsh -q echo` ends without a newline.
    let part = part.trim_start_matches(['=', '\n']);
    let (uri, rest) = part.split_at(part.find('<')?);
    let end = rest.find("</domain>")? + "</domain>".len();
    let (xml, state) = rest.split_at(end);
    let document = roxmltree::Document::parse(xml.trim()).ok()?;
    let root = document.root_element();
    let child = |name: &str| root.children().find(|node| node.has_tag_name(name));
    let text = |name: &str| Some(child(name)?.text()?.to_owned());
    let cloud = child("metadata").and_then(|metadata| metadata.first_element_child());
    let named = |node: &roxmltree::Node, name: &str| node.tag_name().name() == name;
    let cloud_nodes = || cloud.iter().flat_map(roxmltree::Node::descendants);
    let interfaces = child("devices")?.children().filter(|node| node.has_tag_name("interface"));
    Some(Domain {
        uri: uri.trim().to_owned(),
        uuid: text("uuid")?,
        name: text("name")?,
        state: state.trim().replace(' ', "_"),
        active: root.has_attribute("id"),
        display_name: cloud_nodes().find(|node| named(node, "name")).and_then(|name| name.text()).map(str::to_owned),
        ports: cloud_nodes()
            .filter(|node| named(node, "port"))
            .filter_map(|port| Some(port.attribute("uuid")?.to_owned()))
            .collect(),
        interfaces: interfaces
            .map(|node| {
                let attribute = |child: &str, name: &str| {
                    let child = node.children().find(|node| node.has_tag_name(child))?;
                    child.attribute(name).map(str::to_owned)
                };
                Interface {
                    kind: node.attribute("type").unwrap_or("?").to_owned(),
                    mac: attribute("mac", "address").unwrap_or_default(),
                    target: attribute("target", "dev"),
                    bridge: attribute("source", "bridge"),
                    alias: attribute("alias", "name"),
                }
            })
            .collect(),
    })
}

impl Domain {
    /// The id of a VIF and where it comes from. One that vifd has to make up is not foretold.
    fn vif_id(&self, interface: &Interface) -> (String, &str) {
        let by_target = || {
            let target = interface.target.as_deref()?;
            self.ports.iter().find(|port| target.len() == 14 && target.ends_with(&port[..11]))
        };
        let by_alias = || interface.alias.as_deref()?.strip_prefix("ua-");
        match (by_target(), by_alias(), &*self.ports) {
            (Some(port), ..) => (port.clone(), "target_name"),
            (_, Some(port), _) => (port.to_owned(), "alias"),
            (_, _, [port]) if self.interfaces.len() == 1 => (port.clone(), "only_port"),
            _ => ("made".to_owned(), "synthetic"),
        }
    }
}

/// Whether a link has this name, as its own or as an alternative one.
fn is_called(link: &Value, name: &str) -> bool {
    link["ifname"] == name || link["altnames"].as_array().is_some_and(|names| names.contains(&json!(name)))
}

impl Truth {
    /// The link of an interface.
    fn device(&self, domain: &Domain, interface: &Interface) -> Option<&Value> {
        let target = interface.target.as_deref().filter(|_| domain.active)?;
        self.links.iter().find(|link| is_called(link, target))
    }

    fn vifs(&self) -> impl Iterator<Item = (&Domain, usize, &Interface)> {
        self.domains.iter().flat_map(|domain| {
            domain.interfaces.iter().enumerate().map(move |(position, interface)| (domain, position, interface))
        })
    }

    /// Everything, as vifd should say it.
    pub fn facts(&self) -> Facts {
        let instances = self.domains.iter().map(|domain| {
            instance_line(
                &domain.uuid,
                &domain.uri,
                &domain.name,
                &domain.state,
                domain.display_name.as_deref(),
                domain.active,
                self.stale,
            )
        });
        let vifs = self.vifs().map(|(domain, position, interface)| {
            let device = match self.device(domain, interface) {
                Some(link) => format!("{}#{}", link["ifname"].as_str().unwrap(), link["ifindex"]),
                None if domain.active => "target_missing".to_owned(),
                None => "not_running".to_owned(),
            };
            let (id, source) = domain.vif_id(interface);
            vif_line(
                &domain.uuid,
                position,
                &interface.mac,
                &interface.kind,
                interface.target.as_deref(),
                interface.bridge.as_deref(),
                &device,
                &id,
                source,
            )
        });
        let devices = self.links.iter().map(|link| {
            let mut carries: Vec<_> = self
                .vifs()
                .filter(|(domain, _, interface)| {
                    self.device(domain, interface).is_some_and(|device| device["ifindex"] == link["ifindex"])
                })
                .map(|(domain, ..)| domain.uuid.clone())
                .collect();
            carries.sort();
            format!("device {} carries {carries:?}", netlink::in_our_words(link))
        });
        instances.chain(vifs).chain(devices).collect()
    }

    /// Everything that somebody may ask about.
    fn things(&self) -> BTreeSet<String> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let links = self.links.iter().flat_map(|link| {
            let altnames = link["altnames"].as_array().into_iter().flatten().filter_map(text);
            let own = [text(&link["ifname"]), text(&link["address"]), Some(link["ifindex"].to_string())];
            altnames.chain(own.into_iter().flatten())
        });
        let vifs = self.vifs().flat_map(|(_, _, vif)| [Some(vif.mac.clone()), vif.target.clone()]);
        let instances = self
            .domains
            .iter()
            .flat_map(|domain| [Some(domain.uuid.clone()), Some(domain.name.clone()), domain.display_name.clone()]);
        links.chain(vifs.chain(instances).flatten()).collect()
    }

    /// Whose `thing` is.
    fn owners(&self, thing: &str) -> Facts {
        let mut owners = Facts::new();
        let number = thing.parse().ok();
        let meant = |link: &&Value| {
            is_called(link, thing)
                || link["address"] == thing
                || (number.is_some() && link["ifindex"].as_u64() == number)
        };
        for link in self.links.iter().filter(meant) {
            let index = &link["ifindex"];
            let before = owners.len();
            for (domain, position, interface) in self.vifs() {
                if self.device(domain, interface).is_some_and(|device| device["ifindex"] == *index) {
                    owners.insert(format!("{}/{position} #{index}", domain.uuid));
                }
            }
            if owners.len() == before {
                owners.insert(format!("nobody #{index}"));
            }
        }
        for (domain, position, interface) in self.vifs() {
            if interface.mac == thing || interface.target.as_deref() == Some(thing) {
                let device = self.device(domain, interface);
                let index = device.map_or("none".to_owned(), |link| link["ifindex"].to_string());
                owners.insert(format!("{}/{position} #{index}", domain.uuid));
            }
        }
        for domain in &self.domains {
            if domain.uuid == thing || domain.name == thing || domain.display_name.as_deref() == Some(thing) {
                owners.insert(domain.uuid.clone());
            }
        }
        owners
    }

    /// Asks vifd everything else that there is to ask, when `instances` is what it says and is right. Returns how many
    /// answers were compared, and the wrong ones.
    pub fn compare_all(&self, vifd: &Vifd, instances: &Value, absent: &[String]) -> (usize, Vec<String>) {
        let mut compared = 0;
        let mut wrong = Vec::new();
        let mut compare = |what: String, answer: String, truth: String| {
            compared += 1;
            if answer != truth {
                wrong.push(format!("{what}\n    vifd:  {answer}\n    truth: {truth}"));
            }
        };
        for domain in &self.domains {
            let record = array(&instances["instances"]).iter().find(|record| record["uuid"] == *domain.uuid);
            let made = |position: usize| record.unwrap()["vifs"][position]["id"].as_str().unwrap().to_owned();
            let vifs = domain.interfaces.iter().enumerate().map(|(position, interface)| {
                let id = match domain.vif_id(interface) {
                    (_, "synthetic") => made(position),
                    (id, _) => id,
                };
                json!({"id": id, "mac_address": interface.mac})
            });
            let list = json!({"virtual_interfaces": vifs.collect::<Value>()});
            let number = u32::from_str_radix(domain.name.trim_start_matches("instance-"), 16).unwrap();
            let fresh = if self.stale { 203 } else { 200 };
            for (method, path, status) in [
                ("POST", format!("/v2.1/servers/{}/virtual_interfaces", domain.uuid), 202),
                ("GET", format!("/v2.1/servers/{}/os-virtual-interfaces", domain.uuid), fresh),
                ("GET", format!("/v1.1/project/servers/{number}/os-virtual-interfaces"), fresh),
            ] {
                let answer = vifd.request(method, &path, &[]);
                compare(
                    format!("{method} {path}"),
                    format!("{} {}", answer.status, answer.json()),
                    format!("{status} {list}"),
                );
            }
        }
        for uuid in absent {
            let path = format!("/v2.1/servers/{uuid}/os-virtual-interfaces");
            let status = vifd.request("GET", &path, &[]).status;
            compare(format!("GET {path}"), status.to_string(), "404".to_owned());
        }
        for thing in self.things() {
            let answer = vifd.get(&format!("/host/v1/who?thing={thing}"));
            let owners: Facts = array(&answer["matches"]).iter().map(owner).collect();
            compare(format!("who {thing}"), format!("{owners:?}"), format!("{:?}", self.owners(&thing)));
        }
        (compared, wrong)
    }
}

fn owner(found: &Value) -> String {
    let index = found["link"].get("index").map_or("none".to_owned(), Value::to_string);
    match (found["instance"]["uuid"].as_str(), found["vif"].as_u64()) {
        (Some(uuid), Some(position)) => format!("{uuid}/{position} #{index}"),
        (Some(uuid), None) => uuid.to_owned(),
        (None, _) => format!("nobody #{index}"),
    }
}

/// What vifd answers to `instances` and `devices`, in the same words.
pub fn answers(instances: &Value, devices: &Value) -> Facts {
    let mut facts = Facts::new();
    for instance in array(&instances["instances"]) {
        let uuid = instance["uuid"].as_str().unwrap();
        facts.insert(instance_line(
            uuid,
            instance["hypervisor"].as_str().unwrap(),
            instance["name"].as_str().unwrap(),
            instance["state"].as_str().unwrap(),
            instance["display_name"].as_str(),
            !instance["libvirt_id"].is_null(),
            !instance["stale"].is_null(),
        ));
        for (position, vif) in array(&instance["vifs"]).iter().enumerate() {
            let device = match vif["device"]["name"].as_str() {
                Some(name) => format!("{name}#{}", vif["device"]["index"]),
                None => vif["no_device"].as_str().unwrap().to_owned(),
            };
            let source = vif["id_source"].as_str().unwrap();
            let id = if source == "synthetic" { "made" } else { vif["id"].as_str().unwrap() };
            facts.insert(vif_line(
                uuid,
                position,
                vif["mac"].as_str().unwrap(),
                vif["type"].as_str().unwrap(),
                vif["target"].as_str(),
                vif["bridge"].as_str(),
                &device,
                id,
                source,
            ));
        }
    }
    for device in array(&devices["devices"]) {
        let uuid = |carried: &Value| carried["instance_uuid"].as_str().unwrap().to_owned();
        let mut carries: Vec<_> = array(&device["carries"]).iter().map(uuid).collect();
        carries.sort();
        facts.insert(format!("device {} carries {carries:?}", netlink::comparable(device)));
    }
    facts
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn instance_line(
    uuid: &str,
    uri: &str,
    name: &str,
    state: &str,
    display_name: Option<&str>,
    active: bool,
    stale: bool,
) -> String {
    format!(
        "instance {uuid} {uri} {name} {state} {} called {display_name:?}{}",
        if active { "active" } else { "inactive" },
        if stale { ", stale" } else { "" }
    )
}

#[expect(clippy::too_many_arguments, reason = "a line has many words")]
fn vif_line(
    uuid: &str,
    position: usize,
    mac: &str,
    kind: &str,
    target: Option<&str>,
    bridge: Option<&str>,
    device: &str,
    id: &str,
    source: &str,
) -> String {
    format!("vif {uuid}/{position} {mac} {kind} {target:?} on {bridge:?} device {device} id {id} by {source}")
}
