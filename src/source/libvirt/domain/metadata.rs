//! What cloud managers write into `<metadata>`: who owns a domain, and which ports it has.

use super::*;

/// What a cloud manager says about a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cloud {
    /// Which manager wrote it.
    pub manager: Manager,
    /// The name that the tenant chose.
    pub display_name: Option<Arc<str>>,
    /// The project (tenant) that owns it.
    pub project: Option<Owner>,
    /// The user who made it.
    pub user: Option<Owner>,
    /// Its ports. A port has no MAC address here; the order usually, but not provably, is that of the interfaces.
    pub ports: Vec<CloudPort>,
}

/// Who writes such metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "products")]
pub enum Manager {
    Nova,
    Ovirt,
    Kubevirt,
    OpenNebula,
}

/// A project or a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Owner {
    /// The id; by this, never by the name, ownership is decided.
    pub id: Arc<str>,
    /// The name, at the time when the metadata was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
}

/// A port that the cloud has given to the domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CloudPort {
    /// The port's id.
    pub id: Uuid,
    /// Its fixed addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed_ips: Vec<FixedIp>,
}

/// A fixed address of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FixedIp {
    /// The address.
    pub address: IpAddr,
}

/// Nova writes 1.1 since 2021 and wrote 1.0 before; `nova/virt/libvirt/config.py`.
const NOVA: [&str; 2] = ["http://openstack.org/xmlns/libvirt/nova/1.1", "http://openstack.org/xmlns/libvirt/nova/1.0"];
const OVIRT: &str = "http://ovirt.org/vm/1.0";
const KUBEVIRT: &str = "http://kubevirt.io";
const OPENNEBULA: &str = "http://opennebula.org/xmlns/libvirt/1.0";

impl Cloud {
    /// The first metadata element of a manager that we know.
    pub(super) fn decode(metadata: Node) -> Option<Self> {
        metadata.children().filter(Node::is_element).find_map(|node| {
            let namespace = node.tag_name().namespace()?;
            match (namespace, node.tag_name().name()) {
                (ns, "instance") if NOVA.contains(&ns) => Some(nova(Scope { node, ns })),
                (ns @ OVIRT, "vm") => Some(named(Manager::Ovirt, Scope { node, ns }.text("name"))),
                (KUBEVIRT, _) => Some(named(Manager::Kubevirt, None)),
                (ns @ OPENNEBULA, "vm") => Some(opennebula(Scope { node, ns })),
                _ => None,
            }
        })
    }
}

fn named(manager: Manager, display_name: Option<&str>) -> Cloud {
    Cloud { manager, display_name: display_name.map(Arc::from), project: None, user: None, ports: Vec::new() }
}

fn nova(instance: Scope) -> Cloud {
    let owner = instance.child("owner");
    let of = |name| owner.as_ref().and_then(|owner| owner.child(name)).and_then(|scope| scope.owner());
    let ports = instance.child("ports").map(|ports| ports.children("port").filter_map(nova_port).collect());
    Cloud {
        project: of("project"),
        user: of("user"),
        ports: ports.unwrap_or_default(),
        ..named(Manager::Nova, instance.text("name"))
    }
}

fn nova_port(port: Scope) -> Option<CloudPort> {
    let fixed_ips = port
        .children("ip")
        .filter(|ip| ip.node.attribute("type") == Some("fixed"))
        .filter_map(|ip| Some(FixedIp { address: ip.node.attribute("address")?.parse().ok()? }))
        .collect();
    Some(CloudPort { id: port.node.attribute("uuid")?.parse().ok()?, fixed_ips })
}

fn opennebula(vm: Scope) -> Cloud {
    let owner = |id: &str, name: &str| Some(Owner { id: vm.text(id)?.into(), name: vm.text(name).map(Arc::from) });
    Cloud { project: owner("gid", "gname"), user: owner("uid", "uname"), ..named(Manager::OpenNebula, vm.text("name")) }
}

/// An element and the namespace in which its children are looked for.
#[derive(Clone, Copy)]
struct Scope<'a, 'input> {
    node: Node<'a, 'input>,
    ns: &'a str,
}

impl<'a, 'input> Scope<'a, 'input> {
    fn children(self, name: &str) -> impl Iterator<Item = Self> {
        self.node.children().filter(move |n| n.has_tag_name((self.ns, name))).map(move |node| Self { node, ..self })
    }

    fn child(self, name: &str) -> Option<Self> {
        self.children(name).next()
    }

    fn text(self, name: &str) -> Option<&'a str> {
        self.child(name)?.node.text().map(str::trim).filter(|text| !text.is_empty())
    }

    /// `<user uuid="…">name</user>`.
    fn owner(self) -> Option<Owner> {
        let id = self.node.attribute("uuid")?.into();
        Some(Owner { id, name: self.node.text().map(str::trim).filter(|t| !t.is_empty()).map(Arc::from) })
    }
}
