//! `os-interface`, which today's clients call: an instance's virtual interfaces as attachments of Neutron ports.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{
    Ask, COMPUTE_1_1, elsewhere,
    fault::Fault,
    format::Body,
    record::{MadeFrom, parse_uuid},
    version::Microversion,
};
use crate::{
    http::openapi::{Operation, Routes},
    inventory::{Inventory, NoDevice, Vif},
    mac::MacAddr,
};

pub(super) fn routes(base: &'static str) -> Routes {
    let all = "Its attachments, in the order of the devices in the guest.";
    let list_says = Operation::new::<List>("list_attachments", "An instance's VIFs as attachments of ports", 200, all);
    let show_says = Operation::new::<One>("show_attachment", "One of them", 200, "The attachment.");
    // To attach and to detach are documented calls too.
    Routes::at(base)
        .get("/servers/{id}/os-interface", list, list_says.about_instance())
        .post(
            "/servers/{id}/os-interface",
            elsewhere,
            Operation::elsewhere("attach", "Attaching, which a host's agent does not"),
        )
        .get("/servers/{id}/os-interface/{port_id}", show, show_says.about_instance())
        .delete(
            "/servers/{id}/os-interface/{port_id}",
            elsewhere,
            Operation::elsewhere("detach", "Detaching, which a host's agent does not"),
        )
}

/// `GET {base}/servers/{id}/os-interface`
pub(super) async fn list(ask: Ask) -> Response {
    ask.answer(|ask| {
        ask.about_instance(MadeFrom::Links, |inventory, instance| {
            let attachment = |vif: &Vif| Attachment::of(vif, inventory, ask);
            Ok(ask.format.body(&List { attachments: instance.vifs.iter().map(attachment).collect() }))
        })
    })
}

/// `GET {base}/servers/{id}/os-interface/{port_id}`
pub(super) async fn show(ask: Ask) -> Response {
    ask.answer(|ask| {
        ask.about_instance(MadeFrom::Links, |inventory, instance| {
            let vif = parse_uuid(&ask.path.port_id).and_then(|id| instance.vifs.iter().find(|vif| vif.id == id));
            let vif = vif.ok_or_else(|| Fault::not_found("The instance has no interface with this port id."))?;
            Ok(ask.format.body(&One { attachment: Attachment::of(vif, inventory, ask) }))
        })
    })
}

/// A list of attachments, in the order of the devices in the guest.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "InterfaceAttachments")]
struct List {
    #[serde(rename = "interfaceAttachments")]
    attachments: Vec<Attachment>,
}

/// One attachment.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OneInterfaceAttachment")]
struct One {
    #[serde(rename = "interfaceAttachment")]
    attachment: Attachment,
}

/// An attachment. What a host cannot know is null.
#[derive(Clone, Serialize, JsonSchema)]
#[schemars(rename = "InterfaceAttachment")]
struct Attachment {
    /// Whether packets can pass, as far as this host can tell.
    port_state: Option<PortState>,
    /// The VIF id.
    port_id: Uuid,
    /// Its MAC address, in lower case and with colons.
    mac_addr: MacAddr,
    /// The id of its network.
    net_id: Option<Uuid>,
    /// The fixed addresses that the cloud's metadata gives to it.
    fixed_ips: Vec<FixedIp>,
    /// From microversion 2.70: its tag, which Nova keeps to itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<()>,
}

/// Neutron's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum PortState {
    /// The link that carries the VIF is up and has a carrier.
    Active,
    /// It is not, or there should be one and is none.
    Down,
}

/// A fixed address.
#[derive(Clone, Serialize, JsonSchema)]
#[schemars(rename = "AttachedIp")]
struct FixedIp {
    /// The address.
    ip_address: std::net::IpAddr,
    /// The id of its subnet.
    subnet_id: Option<Uuid>,
}

impl Attachment {
    fn of(vif: &Vif, inventory: &Inventory, ask: &Ask) -> Self {
        let fixed_ip = |ip_address| FixedIp { ip_address, subnet_id: None };
        Self {
            port_state: PortState::of(vif, inventory),
            port_id: vif.id,
            mac_addr: vif.interface.mac,
            net_id: vif.network_id,
            fixed_ips: vif.fixed_ips().map(fixed_ip).collect(),
            tag: ask.version.has(Microversion::TAGS).then_some(()),
        }
    }
}

impl PortState {
    fn of(vif: &Vif, inventory: &Inventory) -> Option<Self> {
        let of = |up| if up { Self::Active } else { Self::Down };
        let link = vif.device.as_ref().and_then(|device| inventory.links().get(device.index));
        match (link, vif.no_device) {
            (Some(link), _) => Some(of(link.up && link.carrier != Some(false))),
            (None, Some(NoDevice::NotRunning | NoDevice::NoTarget | NoDevice::TargetMissing)) => Some(Self::Down),
            // A switch in user space knows of a port without a link.
            (None, _) => inventory.ovs_port(vif)?.link_up.map(of),
        }
    }
}

/// In XML every field is an element, and what is null is left out.
#[derive(Serialize)]
#[serde(rename = "interfaceAttachment")]
struct Element {
    #[serde(rename = "@xmlns", skip_serializing_if = "Option::is_none")]
    xmlns: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port_state: Option<PortState>,
    port_id: Uuid,
    mac_addr: MacAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    net_id: Option<Uuid>,
    fixed_ips: FixedIps,
}

#[derive(Serialize)]
struct FixedIps {
    fixed_ip: Vec<Address>,
}

#[derive(Serialize)]
struct Address {
    ip_address: std::net::IpAddr,
}

impl Attachment {
    fn element(&self, xmlns: Option<&'static str>) -> Element {
        let address = |ip: &FixedIp| Address { ip_address: ip.ip_address };
        Element {
            xmlns,
            port_state: self.port_state,
            port_id: self.port_id,
            mac_addr: self.mac_addr,
            net_id: self.net_id,
            fixed_ips: FixedIps { fixed_ip: self.fixed_ips.iter().map(address).collect() },
        }
    }
}

impl Body for List {
    fn xml(&self) -> impl Serialize {
        #[derive(Serialize)]
        #[serde(rename = "interfaceAttachments")]
        struct Root {
            #[serde(rename = "@xmlns")]
            xmlns: &'static str,
            #[serde(rename = "interfaceAttachment")]
            attachments: Vec<Element>,
        }
        let element = |attachment: &Attachment| attachment.element(None);
        Root { xmlns: COMPUTE_1_1, attachments: self.attachments.iter().map(element).collect() }
    }
}

impl Body for One {
    fn xml(&self) -> impl Serialize {
        self.attachment.element(Some(COMPUTE_1_1))
    }
}
