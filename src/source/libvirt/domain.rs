//! What a domain is, and the pure decoding of libvirt's domain XML.
//!
//! Elements are found by namespace URI, never by prefix; what is not understood is left alone. Everything in the
//! document is untrusted: tenants choose names. DTDs and entities are refused by the parser.
//!
//! Source: <https://libvirt.org/formatdomain.html>, as libvirt 6 to 11 write it.

use std::{fmt, net::IpAddr, sync::Arc};

use roxmltree::{Document, Node};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{mac::MacAddr, pci::PciAddress};

mod definition;
mod metadata;

pub use definition::InDefinition;
pub use metadata::{Cloud, CloudPort, FixedIp, Manager, Owner};

/// A guest, as libvirt describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Domain {
    /// The domain's UUID; for Nova the instance's.
    pub uuid: Uuid,
    /// libvirt's name for it, such as `instance-0000002a`.
    pub name: Arc<str>,
    /// libvirt's number for it while it runs.
    pub id: Option<u32>,
    /// The hypervisor type: `kvm`, `qemu`, `lxc`, …
    pub kind: Arc<str>,
    /// What it is doing.
    pub state: DomainState,
    /// Whether it is on its way to another host, or from one, or has left.
    #[serde(default)]
    pub migration: Option<Migration>,
    /// The free-text title.
    pub title: Option<Arc<str>>,
    /// What the cloud manager wrote into the metadata.
    pub cloud: Option<Cloud>,
    /// Its interfaces, in the order of the devices in the guest.
    pub interfaces: Vec<Interface>,
    /// Of one that runs: whether it has a persistent definition, once that is known.
    #[serde(default)]
    pub persistent: Option<bool>,
    /// The interfaces that only its persistent definition has, while it runs.
    #[serde(default)]
    pub defined_only: Vec<Interface>,
    /// Set where libvirt itself did not tell of it: the process that it is known by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// What in the XML could not be used.
    pub warnings: Vec<String>,
}

/// The process that a domain is known by, where libvirt could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Its PID.
    pub pid: u32,
    /// What says more of it.
    pub described_by: DescribedBy,
}

/// What describes a domain beside libvirt itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DescribedBy {
    /// The file in which libvirt keeps the state of what runs: as complete and as fresh as libvirt left it.
    StateFile,
    /// The command line of the process alone. It has no display name, no project and no persistent definition, and
    /// only the interfaces with which the domain was started.
    CommandLine,
}

/// A live migration: both hosts have the domain and its devices for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Migration {
    /// It is coming from another host, and does not run here yet.
    Incoming,
    /// It is leaving for another host, and runs here until it has arrived there.
    Outgoing,
    /// It has left for another host. What is here is only its definition, or a process that stays paused.
    Away,
}

impl Migration {
    /// Whether it has begun and not ended.
    #[must_use]
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Incoming | Self::Outgoing)
    }
}

/// `virDomainState`, and the one reason for a state that matters to its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "libvirt's own words")]
pub enum DomainState {
    NoState,
    /// Paused because it is being started: its devices may not be there yet.
    StartingUp,
    Running,
    Blocked,
    Paused,
    ShuttingDown,
    ShutOff,
    Crashed,
    Suspended,
}

/// One `<interface>` element. Named by its domain and its position, since every attribute but the type is optional.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interface {
    /// The guest's MAC address.
    pub mac: MacAddr,
    /// How it is connected, and to what.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// The host device that libvirt names. Optional everywhere; prefixes such as `vnet` are filled in at start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Arc<str>>,
    /// Somebody else made the target device (`managed='no'`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmanaged: bool,
    /// The device's name inside a container (`<guest dev=…/>`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_device: Option<Arc<str>>,
    /// libvirt's name for the device, or the user's own where it begins with `ua-`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<Arc<str>>,
    /// What the guest sees, such as `virtio` or `e1000`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Arc<str>>,
    /// In bytes, where the XML sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Queue pairs, where the XML sets them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<u32>,
    /// VLAN tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vlans: Vec<u16>,
    /// The virtual port that a switch knows it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtualport: Option<VirtualPort>,
    /// The guest's view of the cable, set by `<link state='down'/>`. Not visible in the kernel: the tap stays up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub link_down: bool,
    /// What the persistent definition of the domain, which runs, says of it; once that is known, and where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<InDefinition>,
}

/// The `type` of an interface, with the source that belongs to it. In JSON its fields stand among those of the VIF, so
/// none may be called as one of them is: `device` is the link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Attachment {
    /// A tap (QEMU) or veth (LXC) on a bridge of the host, or on an Open vSwitch bridge.
    Bridge {
        /// The bridge's name.
        bridge: Option<Arc<str>>,
        /// The libvirt network that it was taken from, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        network: Option<Arc<str>>,
    },
    /// A port of a libvirt network.
    Network {
        /// The network's name.
        network: Option<Arc<str>>,
        /// The bridge behind it, known while the domain runs.
        bridge: Option<Arc<str>>,
    },
    /// A tap (QEMU) or veth (LXC) that is connected by somebody else.
    Ethernet,
    /// A macvtap (QEMU) or macvlan (LXC) upon a device of the host.
    Direct {
        /// The lower device.
        lower_device: Option<Arc<str>>,
        /// `vepa`, `bridge`, `private` or `passthrough`.
        mode: Option<Arc<str>>,
        /// The libvirt network that it was taken from, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        network: Option<Arc<str>>,
    },
    /// A socket shared with a switch in user space.
    Vhostuser {
        /// The socket's path.
        socket: Option<Arc<str>>,
        /// `client` or `server`, from QEMU's point of view.
        mode: Option<Arc<str>>,
    },
    /// A PCI device handed to the guest, usually an SR-IOV virtual function.
    Hostdev {
        /// Its address on the host.
        pci: Option<PciAddress>,
    },
    /// A vDPA character device.
    Vdpa {
        /// Its path.
        character_device: Option<Arc<str>>,
    },
    /// A type that has no device on the host: `user`, `null`, `mcast`, `server`, `client`, `udp`, `vds`, …
    #[serde(untagged)]
    Other {
        /// The type, in libvirt's word.
        #[serde(rename = "type")]
        name: Arc<str>,
    },
}

/// `<virtualport>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VirtualPort {
    /// `openvswitch`, `midonet`, `802.1Qbg`, `802.1Qbh`; a network may leave it out.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Arc<str>>,
    /// `parameters@interfaceid`: the port id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface_id: Option<Uuid>,
    /// `parameters@profileid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile_id: Option<Arc<str>>,
}

/// The document cannot be used as a domain.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is not well-formed, or has a DTD.
    #[error("malformed XML")]
    Malformed(#[source] roxmltree::Error),
    /// It is XML of another sort.
    #[error("not a <domain>, but <{0}>")]
    NotADomain(String),
    /// It lacks a name.
    #[error("no <name>")]
    NoName,
    /// It lacks a UUID.
    #[error("no usable <uuid>")]
    NoUuid,
}

impl Domain {
    /// Decodes a domain's XML. `state` is not part of it and comes from another call, as does a migration.
    ///
    /// # Errors
    /// The document is not a domain with a name and a UUID. An interface that cannot be used is left out with a
    /// warning in the record.
    pub fn decode(xml: &str, state: DomainState) -> Result<Self, DecodeError> {
        let document = Document::parse(xml).map_err(DecodeError::Malformed)?;
        Self::of(document.root_element(), state)
    }

    /// Decodes the file in which libvirt keeps the state of a domain that runs, with the process that runs it.
    ///
    /// # Errors
    /// It is no such file.
    pub fn decode_state_file(xml: &str) -> Result<Self, DecodeError> {
        let document = Document::parse(xml).map_err(DecodeError::Malformed)?;
        let root = document.root_element();
        let not_one = || DecodeError::NotADomain(root.tag_name().name().to_owned());
        let domain = child(root, "domain").filter(|_| is_plain(root, "domstatus")).ok_or_else(not_one)?;
        let pid = root.attribute("pid").and_then(|pid| pid.parse().ok()).ok_or_else(not_one)?;
        let state = root.attribute("state").and_then(DomainState::from_word).unwrap_or(DomainState::NoState);
        let process = Some(Process { pid, described_by: DescribedBy::StateFile });
        Ok(Self { process, ..Self::of(domain, state)? })
    }

    fn of(root: Node, state: DomainState) -> Result<Self, DecodeError> {
        if !is_plain(root, "domain") {
            return Err(DecodeError::NotADomain(root.tag_name().name().to_owned()));
        }
        let uuid = child_text(root, "uuid").and_then(|t| t.parse().ok()).ok_or(DecodeError::NoUuid)?;
        let mut warnings = Vec::new();
        let interfaces = child(root, "devices")
            .into_iter()
            .flat_map(|devices| children(devices, "interface"))
            .enumerate()
            .filter_map(|(position, node)| match Interface::decode(node) {
                Ok(interface) => Some(interface),
                Err(problem) => {
                    warnings.push(format!("interface {position}: {problem}"));
                    None
                }
            })
            .collect();
        Ok(Self {
            uuid,
            // Not trimmed: libvirt tells ` web` from `web`.
            name: child(root, "name")
                .and_then(|name| name.text())
                .filter(|name| !name.trim().is_empty())
                .ok_or(DecodeError::NoName)?
                .into(),
            id: root.attribute("id").and_then(|id| id.parse().ok()),
            kind: root.attribute("type").unwrap_or_default().into(),
            state,
            migration: None,
            title: child_text(root, "title").map(Arc::from),
            cloud: child(root, "metadata").and_then(Cloud::decode),
            interfaces,
            persistent: None,
            defined_only: Vec::new(),
            process: None,
            warnings,
        })
    }

    /// Whether it has devices on the host.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.id.is_some() || self.process.is_some()
    }
}

impl Interface {
    fn decode(node: Node) -> Result<Self, &'static str> {
        let attribute = |element: &str, name: &str| child(node, element).and_then(|n| n.attribute(name));
        let shared = |element: &str, name: &str| attribute(element, name).map(Arc::from);
        let mac = attribute("mac", "address").ok_or("no MAC address")?;
        let attachment = match node.attribute("type").ok_or("no type")? {
            "bridge" => Attachment::Bridge { bridge: shared("source", "bridge"), network: shared("source", "network") },
            "network" => {
                Attachment::Network { network: shared("source", "network"), bridge: shared("source", "bridge") }
            }
            "ethernet" => Attachment::Ethernet,
            "direct" => Attachment::Direct {
                lower_device: shared("source", "dev"),
                mode: shared("source", "mode"),
                network: shared("source", "network"),
            },
            "vhostuser" => Attachment::Vhostuser { socket: shared("source", "path"), mode: shared("source", "mode") },
            "hostdev" => Attachment::Hostdev {
                pci: child(node, "source").and_then(|n| child(n, "address")).and_then(pci_address),
            },
            "vdpa" => Attachment::Vdpa { character_device: shared("source", "dev") },
            other => Attachment::Other { name: other.into() },
        };
        Ok(Self {
            mac: mac.parse().map_err(|_| "its MAC address is malformed")?,
            attachment,
            target: shared("target", "dev").filter(|dev| !dev.is_empty()),
            unmanaged: attribute("target", "managed") == Some("no"),
            guest_device: shared("guest", "dev"),
            alias: shared("alias", "name"),
            model: shared("model", "type"),
            mtu: attribute("mtu", "size").and_then(|n| n.parse().ok()),
            queues: attribute("driver", "queues").and_then(|n| n.parse().ok()),
            vlans: child(node, "vlan")
                .into_iter()
                .flat_map(|vlan| children(vlan, "tag"))
                .filter_map(|tag| tag.attribute("id")?.parse().ok())
                .collect(),
            virtualport: child(node, "virtualport").map(VirtualPort::decode),
            link_down: attribute("link", "state") == Some("down"),
            definition: None,
        })
    }
}

impl Interface {
    /// One of which nothing else is known.
    #[must_use]
    pub fn bare(mac: MacAddr, attachment: Attachment) -> Self {
        Self {
            mac,
            attachment,
            target: None,
            unmanaged: false,
            guest_device: None,
            alias: None,
            model: None,
            mtu: None,
            queues: None,
            vlans: Vec::new(),
            virtualport: None,
            link_down: false,
            definition: None,
        }
    }

    /// The address of the PCI device that was handed to the guest.
    #[must_use]
    pub fn pci(&self) -> Option<PciAddress> {
        match self.attachment {
            Attachment::Hostdev { pci } => pci,
            _ => None,
        }
    }

    /// The vhost-user socket that it is connected by.
    #[must_use]
    pub fn socket(&self) -> Option<&Arc<str>> {
        match &self.attachment {
            Attachment::Vhostuser { socket, .. } => socket.as_ref(),
            _ => None,
        }
    }
}

impl VirtualPort {
    fn decode(node: Node) -> Self {
        let parameter = |name| child(node, "parameters").and_then(|n| n.attribute(name));
        Self {
            kind: node.attribute("type").map(Arc::from),
            interface_id: parameter("interfaceid").and_then(|id| id.parse().ok()),
            profile_id: parameter("profileid").map(Arc::from),
        }
    }
}

impl Attachment {
    /// libvirt's word for the type.
    #[must_use]
    pub fn type_name(&self) -> &str {
        match self {
            Self::Bridge { .. } => "bridge",
            Self::Network { .. } => "network",
            Self::Ethernet => "ethernet",
            Self::Direct { .. } => "direct",
            Self::Vhostuser { .. } => "vhostuser",
            Self::Hostdev { .. } => "hostdev",
            Self::Vdpa { .. } => "vdpa",
            Self::Other { name } => name,
        }
    }

    /// The libvirt network that it was taken from, where that is told.
    #[must_use]
    pub fn network(&self) -> Option<&Arc<str>> {
        match self {
            Self::Bridge { network, .. } | Self::Network { network, .. } | Self::Direct { network, .. } => {
                network.as_ref()
            }
            _ => None,
        }
    }

    /// What it is connected to: a bridge, network, device, socket or PCI address.
    #[must_use]
    pub fn source(&self) -> Option<String> {
        match self {
            Self::Bridge { bridge, .. } => bridge.as_deref().map(str::to_owned),
            Self::Network { network, .. } => network.as_deref().map(str::to_owned),
            Self::Direct { lower_device: device, .. } | Self::Vdpa { character_device: device } => {
                device.as_deref().map(str::to_owned)
            }
            Self::Vhostuser { socket, .. } => socket.as_deref().map(str::to_owned),
            Self::Hostdev { pci } => pci.map(|pci| pci.to_string()),
            Self::Ethernet | Self::Other { .. } => None,
        }
    }
}

impl DomainState {
    /// From `virDomainState` and its reason; numbers that libvirt may add are [`Self::NoState`].
    #[must_use]
    pub fn from_libvirt(state: u32, reason: i32) -> Self {
        match state {
            1 => Self::Running,
            2 => Self::Blocked,
            3 if reason == PAUSED_STARTING_UP => Self::StartingUp,
            3 => Self::Paused,
            4 => Self::ShuttingDown,
            5 => Self::ShutOff,
            6 => Self::Crashed,
            7 => Self::Suspended,
            _ => Self::NoState,
        }
    }

    /// From libvirt's word for it in its files.
    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "running" => Self::Running,
            "blocked" => Self::Blocked,
            "paused" => Self::Paused,
            "in shutdown" => Self::ShuttingDown,
            "crashed" => Self::Crashed,
            "pmsuspended" => Self::Suspended,
            _ => return None,
        })
    }
}

impl fmt::Display for DomainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoState => "no state",
            Self::StartingUp => "starting up",
            Self::Running => "running",
            Self::Blocked => "blocked",
            Self::Paused => "paused",
            Self::ShuttingDown => "shutting down",
            Self::ShutOff => "shut off",
            Self::Crashed => "crashed",
            Self::Suspended => "suspended",
        })
    }
}

/// `VIR_DOMAIN_PAUSED_STARTING_UP`.
const PAUSED_STARTING_UP: i32 = 11;

/// From `<address type='pci' domain='0x0000' bus='0x03' slot='0x10' function='0x2'/>`.
fn pci_address(node: Node) -> Option<PciAddress> {
    let number = |name| {
        let text = node.attribute(name)?;
        match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    };
    Some(PciAddress {
        domain: if node.has_attribute("domain") { number("domain")? } else { 0 },
        bus: number("bus")?.try_into().ok()?,
        slot: number("slot")?.try_into().ok()?,
        function: if node.has_attribute("function") { number("function")?.try_into().ok()? } else { 0 },
    })
}

/// Whether it is the element of that name in no namespace, as libvirt's own elements are.
fn is_plain(node: Node, name: &str) -> bool {
    node.has_tag_name(name) && node.tag_name().namespace().is_none()
}

/// The child elements of that name in no namespace.
fn children<'a, 'input>(node: Node<'a, 'input>, name: &str) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |n| is_plain(*n, name))
}

/// The first of them.
fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    children(node, name).next()
}

/// The text of that child, without surrounding space; absent where it is empty.
fn child_text<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name)?.text().map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
