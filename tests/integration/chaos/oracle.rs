//! What is true, by `virsh`, `ip` and `ovs-vsctl`, and what vifd says, both as lines of text that can be compared.
//!
//! Nothing of vifd's own code is used here: a mistake in it must not be made a second time by its judge.

mod switch;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use self::switch::{Port, Ports};
use crate::{netlink, support::vifd::Vifd};

/// Facts, one a line.
pub type Facts = BTreeSet<String>;

/// Prints every domain of every driver: its description, then its state and its job, if there can be one. `virsh`
/// without a command would read them from standard input, hence the test.
const DOMAINS: &str = r#"
    for uri in qemu:///system lxc:///system; do
        commands=
        for uuid in $(virsh -q -c $uri list --all --uuid); do
            commands="$commands echo =$uri; dumpxml $uuid; domstate $uuid --reason; domjobinfo $uuid;"
        done
        [ -z "$commands" ] || virsh -q -c $uri "$commands echo"
    done"#;

/// Prints every link.
const LINKS: &str = "ip -d -j link show";

/// What vifd is asked.
pub const QUESTIONS: [&str; 3] = ["/host/v1/instances", "/host/v1/devices", "/host/v1/sync"];

/// A domain, in libvirt's words.
#[derive(Clone, Debug)]
pub struct Domain {
    uri: String,
    pub uuid: String,
    pub name: String,
    pub state: String,
    active: bool,
    migration: Option<&'static str>,
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
    /// Of the port that libvirt makes for it.
    port: Option<String>,
}

/// What libvirt, the kernel and Open vSwitch say.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    pub domains: Vec<Domain>,
    links: Vec<Value>,
    ports: Ports,
    /// libvirt cannot be asked: these are the domains of before.
    pub libvirt_is_stale: bool,
    /// The database of Open vSwitch cannot be asked: these are the ports of before.
    pub switch_is_stale: bool,
}

/// Reads what [`DOMAINS`] prints. Nothing if a domain went away meanwhile.
fn domains(text: &str) -> Option<Vec<Domain>> {
    text.split("\n=").filter(|part| !part.trim().is_empty()).map(domain).collect()
}

fn domain(part: &str) -> Option<Domain> {
    // `virsh -q echo` ends without a newline.
    let part = part.trim_start_matches(['=', '\n']);
    let (uri, rest) = part.split_at(part.find('<')?);
    let end = rest.find("</domain>")? + "</domain>".len();
    let (xml, status) = rest.split_at(end);
    let (state, reason) = status.trim().lines().next()?.trim_end_matches(')').split_once(" (")?;
    let outgoing = status.contains("Outgoing migration");
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
        // It is not vifd's word for all that libvirt calls paused.
        state: if reason == "starting up" { reason } else { state }.replace(' ', "_"),
        active: root.has_attribute("id"),
        migration: match reason {
            _ if outgoing => Some("outgoing"),
            "migrating" => Some("incoming"),
            _ => None,
        },
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
                    port: node
                        .descendants()
                        .find_map(|node| node.attribute("interfaceid").filter(|_| node.has_tag_name("parameters")))
                        .map(str::to_owned),
                }
            })
            .collect(),
    })
}

/// Whether a link has this name, as its own or as an alternative one.
fn is_called(link: &Value, name: &str) -> bool {
    link["ifname"] == name || link["altnames"].as_array().is_some_and(|names| names.contains(&json!(name)))
}

impl Truth {
    /// Asks all that can be asked. What cannot be told at this moment is as it was.
    pub fn ask(&mut self, mut run: impl FnMut(&str) -> Result<String, String>) {
        if !self.libvirt_is_stale
            && let Some(domains) = run(DOMAINS).ok().and_then(|text| domains(&text))
        {
            self.domains = domains;
        }
        if !self.switch_is_stale
            && let Some(ports) = run(switch::PORTS).ok().and_then(|text| Ports::read(&text))
        {
            self.ports = ports;
        }
        let links: Value = serde_json::from_str(&run(LINKS).unwrap()).unwrap();
        self.links = links.as_array().unwrap().clone();
    }

    /// The link of an interface.
    fn device(&self, domain: &Domain, interface: &Interface) -> Option<&Value> {
        let target = interface.target.as_deref().filter(|_| domain.active)?;
        self.links.iter().find(|link| is_called(link, target))
    }

    /// The Open vSwitch port of a link: the one with its name, else the only one with its index.
    fn port_of_link(&self, link: &Value) -> Option<&Port> {
        self.ports.by_name(link["ifname"].as_str().unwrap()).or_else(|| self.ports.only_one_with(&link["ifindex"]))
    }

    /// The Open vSwitch port that an interface is plugged into.
    fn port(&self, domain: &Domain, interface: &Interface) -> Option<&Port> {
        match self.device(domain, interface) {
            Some(link) => self.port_of_link(link).or_else(|| self.port_beyond_bridge(link, interface)),
            None => self.ports.by_name(interface.target.as_deref().filter(|_| domain.active)?),
        }
    }

    /// That of a hybrid plug: the other end of a veth pair whose one end is on the same Linux bridge, if nothing else
    /// is there, or if the port names the interface's address.
    fn port_beyond_bridge(&self, link: &Value, interface: &Interface) -> Option<&Port> {
        let bridge = link["master"].as_str()?;
        let is_bridge = |link: &&Value| link["ifname"] == bridge && link["linkinfo"]["info_kind"] == "bridge";
        self.links.iter().find(is_bridge)?;
        let members: Vec<_> = self.links.iter().filter(|link| link["master"] == bridge).collect();
        let ends = members.iter().filter(|link| link["linkinfo"]["info_kind"] == "veth");
        // In another namespace an end has no name here.
        let others = ends.filter_map(|end| self.links.iter().find(|link| link["ifname"] == end["link"]));
        let ports: Vec<_> = others.filter_map(|other| self.port_of_link(other)).collect();
        let is_its = |port: &&&Port| {
            port.iface_id.is_some() && (members.len() == 2 || port.attached_mac.as_ref() == Some(&interface.mac))
        };
        ports.iter().find(is_its).copied()
    }

    /// Who says what about the id of a VIF, and first whose word counts. One that vifd has to make up is not foretold.
    fn ids(&self, domain: &Domain, interface: &Interface) -> Vec<(&'static str, String)> {
        let port = self.port(domain, interface);
        let claimed = port.and_then(|port| port.iface_id.clone()).filter(|id| Uuid::parse_str(id).is_ok());
        let foreign = port.and_then(|port| port.instance.as_ref()).is_some_and(|uuid| *uuid != domain.uuid);
        let by_target = || {
            let target = interface.target.as_deref()?;
            domain.ports.iter().find(|port| target.len() == 14 && target.ends_with(&port[..11])).cloned()
        };
        let by_alias = || interface.alias.as_deref()?.strip_prefix("ua-").map(str::to_owned);
        let only_one = || match (&*domain.interfaces, &*domain.ports) {
            ([_], [port]) => Some(port.clone()),
            _ => None,
        };
        let in_order = [
            ("ovsdb", claimed.clone().filter(|_| !foreign)),
            ("virtualport", interface.port.clone()),
            ("target_name", by_target()),
            ("alias", by_alias()),
            ("only_port", only_one()),
        ];
        let mut ids: Vec<_> = in_order.into_iter().filter_map(|(source, id)| Some((source, id?))).collect();
        if ids.is_empty() {
            ids.push(("synthetic", "made".to_owned()));
        }
        ids.extend(claimed.filter(|_| foreign).map(|id| ("ovsdb", id)));
        ids
    }

    /// What the port says that the domain's description says otherwise.
    fn disagreements(&self, domain: &Domain, interface: &Interface) -> Vec<String> {
        let Some(port) = self.port(domain, interface) else { return vec![] };
        let bridge = interface.bridge.as_ref().filter(|_| interface.target.as_ref() == Some(&port.name));
        let pairs = [
            ("mac_address", port.attached_mac.as_ref(), Some(&interface.mac)),
            ("instance", port.instance.as_ref(), Some(&domain.uuid)),
            ("bridge", port.bridge.as_ref(), bridge),
        ];
        let differs = |&(_, said, described): &(_, Option<&String>, Option<&String>)| {
            said.is_some() && described.is_some() && said != described
        };
        pairs.into_iter().filter(differs).map(|(what, said, _)| format!("{what} {}", said.unwrap())).collect()
    }

    fn is_stale(&self, domain: &Domain) -> bool {
        let by_switch = || domain.interfaces.iter().any(|interface| self.ids(domain, interface)[0].0 == "ovsdb");
        self.libvirt_is_stale || (self.switch_is_stale && by_switch())
    }

    fn vifs(&self) -> impl Iterator<Item = (&Domain, usize, &Interface)> {
        self.domains.iter().flat_map(|domain| {
            domain.interfaces.iter().enumerate().map(move |(position, interface)| (domain, position, interface))
        })
    }

    /// Everything, as vifd should say it.
    pub fn facts(&self) -> Facts {
        let state = |stale| if stale { "stale" } else { "synced" };
        let sources = ["netlink synced".to_owned(), format!("ovsdb {}", state(self.switch_is_stale))];
        let uris = ["qemu:///system", "lxc:///system"];
        let hypervisors = uris.map(|uri| format!("{uri} {}", state(self.libvirt_is_stale)));
        let instances = self.domains.iter().map(|domain| {
            instance_line(
                &domain.uuid,
                &domain.uri,
                &domain.name,
                &domain.state,
                domain.display_name.as_deref(),
                domain.active,
                domain.migration,
                self.is_stale(domain),
            )
        });
        let vifs = self.vifs().map(|(domain, position, interface)| {
            let device = match self.device(domain, interface) {
                Some(link) => format!("{}#{}", link["ifname"].as_str().unwrap(), link["ifindex"]),
                None if domain.active => "target_missing".to_owned(),
                None => "not_running".to_owned(),
            };
            let ids = self.ids(domain, interface);
            let others: Vec<_> = ids[1..].iter().filter(|(_, id)| *id != ids[0].1).collect();
            let port = self.port(domain, interface).map(|port| &port.record);
            format!(
                "vif {}/{position} {} {} {:?} on {:?} device {device} id {:?} not {others:?} port {} disagrees {:?}",
                domain.uuid,
                interface.mac,
                interface.kind,
                interface.target,
                interface.bridge,
                ids[0],
                json!(port),
                self.disagreements(domain, interface)
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
            let port = self.port_of_link(link);
            let mut ours = netlink::in_our_words(link);
            // The kernel does not know the bridges of Open vSwitch.
            if let Some(bridge) = port.and_then(|port| port.bridge.as_ref()).filter(|bridge| link["ifname"] != **bridge)
            {
                ours["controller_name"] = json!(bridge);
            }
            format!("device {ours} carries {carries:?} is port {}", json!(port.map(|port| &port.record)))
        });
        let count = format!("{} ports", self.ports.iter().count());
        sources.into_iter().chain(hypervisors).chain(instances).chain(vifs).chain(devices).chain([count]).collect()
    }

    /// Everything that somebody may ask about.
    fn things(&self) -> BTreeSet<String> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let links = self.links.iter().flat_map(|link| {
            let altnames = link["altnames"].as_array().into_iter().flatten().filter_map(text);
            let own = [text(&link["ifname"]), text(&link["address"]), Some(link["ifindex"].to_string())];
            altnames.chain(own.into_iter().flatten())
        });
        let vifs = self.vifs().flat_map(|(domain, _, vif)| {
            let ids = self.ids(domain, vif).into_iter().map(|(_, id)| id).filter(|id| id != "made");
            ids.chain([Some(vif.mac.clone()), vif.target.clone()].into_iter().flatten()).collect::<Vec<_>>()
        });
        let ports = self.ports.iter().flat_map(Port::things);
        let instances = self
            .domains
            .iter()
            .flat_map(|domain| [Some(domain.uuid.clone()), Some(domain.name.clone()), domain.display_name.clone()]);
        links.chain(vifs).chain(ports).chain(instances.flatten()).collect()
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
            let has_id = || self.ids(domain, interface)[0].1 == thing;
            if interface.mac == thing || interface.target.as_deref() == Some(thing) || has_id() {
                owners.insert(self.vif_word(domain, position, interface));
            }
        }
        // By its name a link is meant, where there is one.
        let is_link = self.links.iter().any(|link| is_called(link, thing));
        for port in self.ports.iter().filter(|port| port.is_meant(thing) && !(is_link && port.name == thing)) {
            let is_its = |port_of: Option<&Port>| port_of.is_some_and(|other| other.name == port.name);
            let plugged = self.vifs().filter(|(domain, _, interface)| is_its(self.port(domain, interface)));
            let plugged: Vec<_> = plugged.map(|(domain, n, interface)| self.vif_word(domain, n, interface)).collect();
            let link = self.links.iter().find(|link| is_its(self.port_of_link(link)));
            match (&*plugged, link) {
                ([], Some(link)) => owners.insert(format!("nobody #{}", link["ifindex"])),
                ([], None) => owners.insert(format!("port {}", port.name)),
                _ => plugged.into_iter().fold(false, |_, vif| owners.insert(vif)),
            };
        }
        for domain in &self.domains {
            if domain.uuid == thing || domain.name == thing || domain.display_name.as_deref() == Some(thing) {
                owners.insert(domain.uuid.clone());
            }
        }
        owners
    }

    /// A VIF and its device, as [`owner`] writes them.
    fn vif_word(&self, domain: &Domain, position: usize, interface: &Interface) -> String {
        let index = self.device(domain, interface).map_or("none".to_owned(), |link| link["ifindex"].to_string());
        format!("{}/{position} #{index}", domain.uuid)
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
                let id = match self.ids(domain, interface).swap_remove(0) {
                    ("synthetic", _) => made(position),
                    (_, id) => id,
                };
                json!({"id": id, "mac_address": interface.mac})
            });
            let list = json!({"virtual_interfaces": vifs.collect::<Value>()});
            let number = u32::from_str_radix(domain.name.trim_start_matches("instance-"), 16).unwrap();
            let fresh = if self.is_stale(domain) { 203 } else { 200 };
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
            // An ifindex may be an instance's integer id as well, which was asked for above.
            let meant = |found: &&Value| found["matched_by"] != json!(["instance_number"]);
            let owners: Facts = array(&answer["matches"]).iter().filter(meant).map(owner).collect();
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
        (None, _) if found["link"].is_null() => format!("port {}", found["ovs"]["name"].as_str().unwrap()),
        (None, _) => format!("nobody #{index}"),
    }
}

/// What vifd answers to [`QUESTIONS`], in the same words.
pub fn answers([instances, devices, sync]: &[Value; 3]) -> Facts {
    let mut facts = Facts::from([format!("{} ports", sync["ovs_ports"])]);
    let sources = &instances["sources"];
    let state = |what: &str, source: &Value| format!("{what} {}", source["state"].as_str().unwrap_or("unknown"));
    facts.extend(["netlink", "ovsdb"].map(|source| state(source, &sources[source])));
    facts.extend(array(&sources["hypervisors"]).iter().map(|source| state(source["uri"].as_str().unwrap(), source)));
    for instance in array(&instances["instances"]) {
        let uuid = instance["uuid"].as_str().unwrap();
        facts.insert(instance_line(
            uuid,
            instance["hypervisor"].as_str().unwrap(),
            instance["name"].as_str().unwrap(),
            instance["state"].as_str().unwrap(),
            instance["display_name"].as_str(),
            !instance["libvirt_id"].is_null(),
            instance["migration"].as_str(),
            !instance["stale"].is_null(),
        ));
        let vifs = array(&instance["vifs"]).iter().enumerate();
        facts.extend(vifs.map(|(position, vif)| vif_line(uuid, position, vif, array(&instance["ovs_ports"]))));
    }
    for device in array(&devices["devices"]) {
        let uuid = |carried: &Value| carried["instance_uuid"].as_str().unwrap().to_owned();
        let mut carries: Vec<_> = array(&device["carries"]).iter().map(uuid).collect();
        carries.sort();
        let (ours, port) = (netlink::comparable(device), switch::comparable(&device["ovs"]));
        facts.insert(format!("device {ours} carries {carries:?} is port {port}"));
    }
    facts
}

fn vif_line(uuid: &str, position: usize, vif: &Value, ports: &[Value]) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let device = match vif["device"]["name"].as_str() {
        Some(name) => format!("{name}#{}", vif["device"]["index"]),
        None => vif["no_device"].as_str().unwrap().to_owned(),
    };
    let id = |source: &Value, id: &Value| {
        let source = source.as_str().unwrap();
        (source.to_owned(), if source == "synthetic" { "made" } else { id.as_str().unwrap() }.to_owned())
    };
    let others: Vec<_> =
        array(&vif["id_disagreement"]).iter().map(|other| id(&other["source"], &other["id"])).collect();
    let port = ports.iter().find(|port| port["name"] == vif["ovs_port"]).unwrap_or(&Value::Null);
    let disagreements: Vec<_> = array(&vif["disagreements"])
        .iter()
        .map(|said| format!("{} {}", said["what"].as_str().unwrap(), said["value"].as_str().unwrap()))
        .collect();
    format!(
        "vif {uuid}/{position} {} {} {:?} on {:?} device {device} id {:?} not {others:?} port {} disagrees {disagreements:?}",
        vif["mac"].as_str().unwrap(),
        vif["type"].as_str().unwrap(),
        text(&vif["target"]),
        text(&vif["bridge"]),
        id(&vif["id_source"], &vif["id"]),
        switch::comparable(port),
    )
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[expect(clippy::too_many_arguments, reason = "a line has many words")]
fn instance_line(
    uuid: &str,
    uri: &str,
    name: &str,
    state: &str,
    display_name: Option<&str>,
    active: bool,
    migration: Option<&str>,
    stale: bool,
) -> String {
    format!(
        "instance {uuid} {uri} {name} {state} {} {} called {display_name:?}{}",
        if active { "active" } else { "inactive" },
        migration.unwrap_or("here"),
        if stale { ", stale" } else { "" }
    )
}
