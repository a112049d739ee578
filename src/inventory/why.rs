//! Why a record says what it says: each fact with who says so, by what, and whether that is kept current.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AddressSource, Fact, FactSource, Instance, Inventory, NoDevice, Vif, VifIdSource};
use crate::source::{
    SyncState,
    libvirt::domain::{Attachment, DescribedBy, InDefinition},
    moment::Moment,
    ovsdb::rows::Port,
};

/// A fact, and why it is believed; or what somebody says against one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// The position of the VIF that it is about; absent where it is about the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vif: Option<u32>,
    /// What it is about, by the name of the record's field.
    pub fact: Box<str>,
    /// What is said.
    pub value: Box<str>,
    /// Who says so.
    pub source: Witness,
    /// By what: an element, a column, a rule.
    pub by: Box<str>,
    /// The record goes by another source, which says otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disagrees: bool,
    /// Whether the source is kept current.
    pub sync: SyncState,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Witness {
    /// libvirt: the domain's description.
    DomainXml,
    /// libvirt: what the cloud's manager wrote into the description.
    Metadata,
    /// libvirt: the domain's state.
    DomainState,
    /// libvirt: the persistent definition of a domain that runs.
    Definition,
    /// The file in which libvirt keeps its state, where libvirt could not be asked.
    StateFile,
    /// The guest's process: its command line and descriptors, where there is nothing better.
    Process,
    /// The kernel's links.
    Links,
    /// The kernel's neighbour table.
    Neighbours,
    /// The Open vSwitch database.
    Ovsdb,
    /// The DHCP leases of libvirt networks.
    Leases,
    /// vifd made it of what others say.
    Vifd,
}

impl Inventory {
    /// Why each fact of the instance's record is there, in the order of the record.
    #[must_use]
    pub fn why(&self, instance: &Instance) -> Vec<Why> {
        let mut reasons = Reasons::new(self, instance);
        reasons.of_instance();
        for (n, vif) in (0..).zip(&instance.vifs) {
            reasons.vif = Some(n);
            reasons.of_interface(vif);
            reasons.of_device(vif);
            reasons.of_port(vif);
            reasons.of_addresses(vif);
        }
        reasons.all
    }

    /// The same of what makes one VIF found: its id, its device and its port.
    #[must_use]
    pub fn why_joined(&self, instance: &Instance, position: u32) -> Vec<Why> {
        let mut reasons = Reasons::new(self, instance);
        if let Some(vif) = instance.vifs.get(position as usize) {
            reasons.vif = Some(position);
            reasons.of_id(vif);
            reasons.of_device(vif);
            reasons.of_port(vif);
        }
        reasons.all
    }
}

struct Reasons<'a> {
    inventory: &'a Inventory,
    instance: &'a Instance,
    libvirt: SyncState,
    vif: Option<u32>,
    all: Vec<Why>,
}

impl<'a> Reasons<'a> {
    fn new(inventory: &'a Inventory, instance: &'a Instance) -> Self {
        let hypervisor = inventory.hypervisors.iter().find(|hypervisor| hypervisor.uri == instance.hypervisor);
        let hypervisor = hypervisor.map_or(SyncState::Pending { reason: None }, |hypervisor| hypervisor.sync.clone());
        let libvirt = match &instance.unreadable {
            Some(stale) if hypervisor.is_synced() => {
                SyncState::Stale { since: stale.since, reason: stale.reason.clone() }
            }
            _ => hypervisor,
        };
        Self { inventory, instance, libvirt, vif: None, all: Vec::new() }
    }

    fn add(&mut self, fact: &str, value: impl ToString, source: Witness, by: impl Into<String>) {
        let source = match (source, self.instance.process) {
            (Witness::DomainXml | Witness::Metadata | Witness::DomainState, Some(process)) => {
                match process.described_by {
                    DescribedBy::StateFile => Witness::StateFile,
                    DescribedBy::CommandLine => Witness::Process,
                }
            }
            _ => source,
        };
        let sync = |sync: &Option<SyncState>| sync.clone().unwrap_or(SyncState::Pending { reason: None });
        let sync = match source {
            Witness::DomainXml
            | Witness::Metadata
            | Witness::DomainState
            | Witness::Definition
            | Witness::StateFile
            | Witness::Process => self.libvirt.clone(),
            Witness::Links => sync(&self.inventory.netlink),
            Witness::Neighbours => sync(&self.inventory.neighbours),
            Witness::Ovsdb => sync(&self.inventory.ovsdb),
            Witness::Leases => sync(&self.inventory.leases),
            Witness::Vifd => SyncState::Synced { since: Moment::now() },
        };
        let (value, by) = (value.to_string().into(), by.into().into());
        self.all.push(Why { vif: self.vif, fact: fact.into(), value, source, by, disagrees: false, sync });
    }

    /// What somebody says against the fact before.
    fn add_against(&mut self, fact: &str, value: impl ToString, source: Witness, by: impl Into<String>) {
        self.add(fact, value, source, by);
        if let Some(why) = self.all.last_mut() {
            why.disagrees = true;
        }
    }

    fn of_instance(&mut self) {
        let instance = self.instance;
        self.add("uuid", instance.uuid, Witness::DomainXml, "<uuid>");
        self.add("name", &instance.name, Witness::DomainXml, "<name>");
        if let Some(number) = instance.number {
            self.add("number", number, Witness::Vifd, "the name, read by instance_name_template");
        }
        match (&instance.display_name, instance.manager) {
            (Some(name), None) => self.add("display_name", name, Witness::DomainXml, "<title>"),
            (Some(name), Some(_)) => {
                self.add("display_name", name, Witness::Metadata, "its name there; without one, the domain's <title>");
            }
            (None, _) => {}
        }
        for (fact, owner) in [("project", &instance.project), ("user", &instance.user)] {
            if let Some(owner) = owner {
                self.add(fact, &owner.id, Witness::Metadata, format!("the {fact} of its owner"));
            }
        }
        self.add("state", instance.state, Witness::DomainState, "read at each of libvirt's events");
        self.add("hypervisor", &instance.hypervisor, Witness::Vifd, "the connection that lists the domain");
        if let Some(persistent) = instance.persistent {
            let value = if persistent { "yes" } else { "no" };
            self.add("persistent", value, Witness::Definition, "whether libvirt keeps a definition");
        }
    }

    fn of_id(&mut self, vif: &Vif) {
        let (source, by) = self.id_evidence(vif, vif.id_source);
        self.add("id", vif.id, source, by);
        for other in &vif.id_disagreement {
            let (source, by) = self.id_evidence(vif, other.source);
            self.add_against("id", other.id, source, by);
        }
    }

    fn id_evidence(&self, vif: &Vif, source: VifIdSource) -> (Witness, String) {
        let target = vif.interface.target.as_deref().unwrap_or_default();
        match source {
            VifIdSource::Ovsdb => {
                let port = vif.ovs_port.as_deref().unwrap_or_default();
                (Witness::Ovsdb, format!("external_ids:iface-id of the port {port}"))
            }
            VifIdSource::Virtualport => (Witness::DomainXml, "<virtualport><parameters interfaceid>".into()),
            VifIdSource::TargetName => {
                (Witness::Metadata, format!("the instance's one port whose id begins as {target} ends"))
            }
            VifIdSource::Alias => (Witness::DomainXml, "<alias name>, which begins with ua-".into()),
            VifIdSource::OnlyPort => (Witness::Metadata, "the only port of an instance with one interface".into()),
            VifIdSource::Synthetic => {
                (Witness::Vifd, "made from the instance's UUID and the MAC address: nobody names one".into())
            }
        }
    }

    fn of_interface(&mut self, vif: &Vif) {
        self.of_id(vif);
        let interface = &vif.interface;
        self.add("mac", interface.mac, Witness::DomainXml, "<mac address>");
        for other in vif.disagreements.clone() {
            let (source, by) = match other.source {
                FactSource::Ovsdb => {
                    let key = match other.what {
                        Fact::MacAddress => "external_ids:attached-mac",
                        Fact::Instance => "external_ids:vm-uuid",
                        Fact::Bridge => "the bridge",
                        Fact::Vlan => "tag",
                    };
                    (Witness::Ovsdb, format!("{key} of the port {}", vif.ovs_port.as_deref().unwrap_or_default()))
                }
                FactSource::PhysicalFunction => (Witness::Links, "what the card was told about the function".into()),
            };
            let fact = match other.what {
                Fact::MacAddress => "mac",
                Fact::Instance => "instance",
                Fact::Bridge => "bridge",
                Fact::Vlan => "vlan",
            };
            self.add_against(fact, other.value, source, by);
        }
        let attachment = &interface.attachment;
        self.add("type", attachment.type_name(), Witness::DomainXml, "<interface type>");
        if let Some(source) = attachment.source() {
            let element = match attachment {
                Attachment::Bridge { .. } => "<source bridge>",
                Attachment::Network { .. } => "<source network>, <source bridge>",
                Attachment::Vhostuser { .. } => "<source path>",
                Attachment::Hostdev { .. } => "<source><address>",
                _ => "<source dev>",
            };
            self.add("source", source, Witness::DomainXml, element);
        }
        if let Some(target) = &interface.target {
            self.add("target", target, Witness::DomainXml, "<target dev>");
        }
        if let Some(model) = &interface.model {
            self.add("model", model, Witness::DomainXml, "<model type>");
        }
        if interface.link_down {
            self.add("link_down", "yes", Witness::DomainXml, "<link state>");
        }
        let definition = interface.definition.as_ref().map(|definition| match definition {
            InDefinition::Same => "the same",
            InDefinition::Changed => "differs",
            InDefinition::LiveOnly => "has no such interface",
        });
        if let Some(definition) = definition {
            self.add("definition", definition, Witness::Definition, "compared with what runs");
        }
    }

    fn of_device(&mut self, vif: &Vif) {
        let target = vif.interface.target.as_deref().unwrap_or_default();
        if let Some(device) = &vif.device {
            let link = self.inventory.links().get(device.index);
            let by = match link {
                Some(link) if *link.name == *target => "the link with the target's name".to_owned(),
                _ => format!("the link with the alternative name {target}, the target's"),
            };
            self.add("device", format!("{} (ifindex {})", device.name, device.index), Witness::Links, by);
            if let Some(link) = link {
                let state = format!("set {}, {}", if link.up { "up" } else { "down" }, link.oper_state);
                self.add("device_state", state, Witness::Links, "IFF_UP, IFLA_OPERSTATE");
                self.add("device_mtu", link.mtu, Witness::Links, "IFLA_MTU");
            }
        }
        if let Some(reason) = vif.no_device {
            let (source, by) = match reason {
                NoDevice::NotRunning => (Witness::DomainState, "a domain that does not run has no devices".to_owned()),
                NoDevice::TargetMissing => (Witness::Links, format!("no link has the name {target}")),
                NoDevice::LinksPending => (Witness::Links, "they have not been read yet".to_owned()),
                NoDevice::NoTarget => (Witness::DomainXml, "there is no <target dev>".to_owned()),
                _ => (Witness::DomainXml, "<interface type>".to_owned()),
            };
            self.add("no_device", reason, source, by);
        }
        if let Some(passed) = &vif.virtual_function {
            let function = format!("{} of {}", passed.function.number, passed.physical_function.name);
            let by = format!("the card's function with the PCI address {}", passed.function.pci);
            self.add("virtual_function", function, Witness::Links, by);
        }
    }

    fn of_port(&mut self, vif: &Vif) {
        let Some(port) = self.inventory.ovs_port(vif) else { return };
        let bridge = port.bridge.as_deref().unwrap_or("no bridge");
        let by = self.port_evidence(vif, port);
        self.add("ovs_port", format!("{} on {bridge}", port.name), Witness::Ovsdb, by);
        if let Some(id) = vif.network_id {
            self.add("network_id", id, Witness::Ovsdb, "other_config:net_uuid of the port");
        }
    }

    /// By which rule of the join the VIF has this port.
    fn port_evidence(&self, vif: &Vif, port: &Port) -> String {
        let links = self.inventory.links();
        match vif.device.as_ref().and_then(|device| links.get(device.index)) {
            Some(link) if link.name == port.name => "the port with the device's name".to_owned(),
            Some(link) if self.inventory.ports().of_link(link).is_some() => {
                "the port with the device's ifindex".to_owned()
            }
            Some(link) => {
                let bridge = link.controller.and_then(|index| links.get(index));
                let bridge = bridge.map_or("its bridge", |bridge| &bridge.name);
                format!("the other end of the veth pair that is on {bridge} with the device")
            }
            None if vif.interface.target.as_deref() == Some(&port.name) => "the port with the target's name".to_owned(),
            None if vif.interface.socket().is_some() => "the port with the socket".to_owned(),
            None => "the only port whose vm-uuid and attached-mac are this VIF's".to_owned(),
        }
    }

    fn of_addresses(&mut self, vif: &Vif) {
        for known in &vif.addresses {
            let (source, by) = match &known.source {
                AddressSource::Metadata => (Witness::Metadata, "a fixed address of the port".to_owned()),
                AddressSource::Lease { bridge, expires, .. } => {
                    let until = expires.map_or("for ever".to_owned(), |end| format!("until {end}"));
                    (Witness::Leases, format!("a lease to the MAC address on {bridge}, {until}"))
                }
                AddressSource::Neighbour { device, permanent } => {
                    let made = if *permanent { "made by somebody on this host" } else { "an answer of the guest" };
                    (Witness::Neighbours, format!("the MAC address's on {}, {made}", device.name))
                }
            };
            self.add("address", known.address, source, by);
        }
    }
}

impl std::fmt::Display for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::DomainXml => "the domain's XML",
            Self::Metadata => "the cloud's metadata",
            Self::DomainState => "the domain's state",
            Self::Definition => "the definition",
            Self::StateFile => "libvirt's state file",
            Self::Process => "its process",
            Self::Links => "the kernel's links",
            Self::Neighbours => "the kernel's neighbours",
            Self::Ovsdb => "Open vSwitch",
            Self::Leases => "the DHCP leases",
            Self::Vifd => "vifd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::testing::{PORT, WEB, bridged, joined, link, nova, ovs_port, stale, view, with_ports};

    const TAP: &str = "tapa756caef-c7";

    fn told(inventory: &Inventory) -> Vec<String> {
        let why = inventory.why(inventory.instance(WEB).unwrap());
        let line = |why: &Why| {
            let against = if why.disagrees { "but " } else { "" };
            format!("{against}{} {}: {}, {}", why.fact, why.value, why.source, why.by)
        };
        why.iter().map(line).collect()
    }

    #[test]
    fn each_fact_names_who_says_so_and_by_what() {
        let inventory = joined(&view(&[nova(&bridged("fa:16:3e:00:00:01", TAP, ""), &[PORT])], &[link(7, TAP)]));
        let told = told(&inventory);
        for wanted in [
            "number 42: vifd, the name, read by instance_name_template",
            "project p1: the cloud's metadata, the project of its owner",
            "id a756caef-c731-4df1-a814-0dba057b039f: the cloud's metadata, the instance's one port whose id begins as \
             tapa756caef-c7 ends",
            "device tapa756caef-c7 (ifindex 7): the kernel's links, the link with the target's name",
            "address 10.0.0.5: the cloud's metadata, a fixed address of the port",
        ] {
            assert!(told.iter().any(|line| line == wanted), "{wanted}\n{told:#?}");
        }
    }

    #[test]
    fn what_is_said_against_a_fact_stands_behind_it() {
        let domain = nova(&bridged("fa:16:3e:00:00:01", TAP, ""), &[PORT]);
        let mut port = ovs_port(TAP, 5);
        port.iface_id = Some(WEB.to_string().into());
        port.attached_mac = Some("fa:16:3e:00:00:09".parse().unwrap());
        let inventory = joined(&with_ports(view(&[domain], &[link(7, TAP)]), &[port]));
        let told = told(&inventory);
        let ids: Vec<_> = told.iter().filter(|line| line.contains("id ")).collect();
        assert!(told.iter().any(|line| line.starts_with(&format!("id {WEB}: Open vSwitch, external_ids:iface-id"))));
        assert!(ids.iter().any(|line| line.starts_with(&format!("but id {PORT}: the cloud's metadata"))), "{told:#?}");
        let macs: Vec<_> = told.iter().filter(|line| line.contains("mac ")).map(|line| &line[..22]).collect();
        assert_eq!(macs, ["mac fa:16:3e:00:00:01:", "but mac fa:16:3e:00:00"]);
        assert!(
            told.iter().any(|line| line.contains("ovs_port tapa756caef-c7 on br-int: Open vSwitch, the port with"))
        );
    }

    #[test]
    fn a_fact_is_as_current_as_its_source() {
        let mut view = view(&[nova(&bridged("fa:16:3e:00:00:01", TAP, ""), &[])], &[link(7, TAP)]);
        view.hypervisors[0].2.sync = stale("closed");
        let inventory = joined(&view);
        let why = inventory.why(inventory.instance(WEB).unwrap());
        let sync = |fact: &str| &why.iter().find(|why| &*why.fact == fact).unwrap().sync;
        assert_eq!(sync("mac"), &stale("closed"));
        assert!(sync("device").is_synced());
    }
}
