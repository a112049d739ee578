//! The extension's action and the query that Nova served in its place: an instance's virtual interfaces.

use axum::{
    body::Bytes,
    extract::rejection::BytesRejection,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::{
    Ask, COMPUTE_1_1,
    content::Content,
    extensions::EXTENDED_VIF_NET,
    fault::Fault,
    format::Body,
    link::{self, Link},
    page::Page,
    record::MadeFrom,
    version::{Microversion, Version},
};
use crate::{
    http::openapi::{Operation, Routes},
    inventory::Vif,
    mac::MacAddr,
};

pub(super) fn routes(base: &'static str) -> Routes {
    let operation = |name, summary, status| {
        let list = "Its virtual interfaces, in the order of the devices in the guest.";
        Operation::new::<VirtualInterfaces>(name, summary, status, list).about_instance().query::<Page>()
    };
    let act_says =
        operation("act", "The extension's action: an instance's virtual interfaces, which are read again", 202);
    let by_name = operation("act_by_name", "The same, named in the body", 202);
    let action = json!({
        "type": "object", "required": ["virtual_interfaces"], "additionalProperties": false,
        "properties": { "virtual_interfaces": { "type": ["object", "null"], "maxProperties": 0 } },
    });
    let list_says =
        operation("list_virtual_interfaces", "An instance's virtual interfaces, until microversion 2.43", 200);
    Routes::at(base)
        .post("/servers/{id}/virtual_interfaces", act, act_says.body(json!({}), false))
        .post("/servers/{id}/action", act_by_name, by_name.body(action, true))
        .get("/servers/{id}/os-virtual-interfaces", list, list_says)
}

/// `POST {base}/servers/{id}/virtual_interfaces`: the extension's action. It takes no parameters, but what is sent must
/// be what it says it is.
pub(super) async fn act(ask: Ask, body: Result<Bytes, BytesRejection>) -> Response {
    ask.answer(|ask| {
        Content::of_request(&ask.headers, &body)?;
        virtual_interfaces(ask, StatusCode::ACCEPTED)
    })
}

/// `POST {base}/servers/{id}/action`: the same, named in the body as the guide's own actions are.
pub(super) async fn act_by_name(ask: Ask, body: Result<Bytes, BytesRejection>) -> Response {
    ask.answer(|ask| match Content::of_request(&ask.headers, &body)? {
        Some(content) if content.is_action() => virtual_interfaces(ask, StatusCode::ACCEPTED),
        Some(_) => Err(Fault::bad_request("The only action that is served here is virtual_interfaces.")),
        None => Err(Fault::bad_request("The request's body names no action.")),
    })
}

/// `GET {base}/servers/{id}/os-virtual-interfaces`: the call that clients of nova-network know.
pub(super) async fn list(ask: Ask) -> Response {
    ask.answer(|ask| {
        if ask.version.has(Microversion::NO_VIRTUAL_INTERFACES) {
            return Err(Fault::not_found("From microversion 2.44 there is os-interface in its place."));
        }
        virtual_interfaces(ask, StatusCode::OK)
    })
}

fn virtual_interfaces(ask: &Ask, status: StatusCode) -> Result<Response, Fault> {
    let page = Page::of_request(&ask.uri)?;
    ask.about_instance(MadeFrom::Record, |_, instance| {
        // Nova's 2.x found fault with the request where the guide's 1.1 found no item.
        let unknown = if ask.version == Version::V1_1 { Fault::not_found } else { Fault::bad_request };
        let (vifs, more) = page.of(&instance.vifs, |vif| vif.id, unknown)?;
        let next = || Some(next_link(ask, &page, vifs.last()?.id));
        let next = if more && ask.version == Version::V1_1 { next() } else { None };
        let body = VirtualInterfaces {
            extended: ask.version == Version::V2,
            virtual_interfaces: vifs.iter().map(|vif| VirtualInterface::of(vif, ask.version)).collect(),
            links: next.into_iter().collect(),
        };
        Ok((status, ask.format.body(&body)).into_response())
    })
}

/// The link to the page after that which ends with this VIF.
fn next_link(ask: &Ask, page: &Page, last: Uuid) -> Link {
    let (origin, path, suffix) = (link::origin(&ask.headers), ask.uri.path(), ask.suffix());
    Link::new("next", format!("{origin}{path}{suffix}?limit={}&marker={last}", page.limit))
}

/// A list of virtual interfaces, in the order of the devices in the guest. As Nova wrote it: validators in the field
/// forbid further fields.
#[derive(Serialize, JsonSchema)]
struct VirtualInterfaces {
    #[serde(skip)]
    extended: bool,
    /// The virtual interfaces.
    virtual_interfaces: Vec<VirtualInterface>,
    /// In 1.1, where more follow: the link to them.
    #[serde(rename = "virtual_interfaces_links", skip_serializing_if = "Vec::is_empty")]
    links: Vec<Link>,
}

/// A virtual interface.
#[derive(Clone, Copy, Serialize, JsonSchema)]
struct VirtualInterface {
    /// The VIF id.
    id: Uuid,
    /// Its MAC address, in lower case and with colons.
    mac_address: MacAddr,
    /// In `/v2`: the id of its network, where that is known.
    #[serde(rename = "OS-EXT-VIF-NET:net_id", skip_serializing_if = "Option::is_none")]
    extended_net_id: Option<Uuid>,
    /// From microversion 2.12: the id of its network. Where that is not known it is null, not absent: clients read this
    /// field without asking for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    net_id: Option<Option<Uuid>>,
}

impl VirtualInterface {
    fn of(vif: &Vif, version: Version) -> Self {
        Self {
            id: vif.id,
            mac_address: vif.interface.mac,
            extended_net_id: vif.network_id.filter(|_| version == Version::V2),
            net_id: version.has(Microversion::NET_ID).then_some(vif.network_id),
        }
    }
}

impl Body for VirtualInterfaces {
    fn xml(&self) -> impl Serialize {
        #[derive(Serialize)]
        #[serde(rename = "virtual_interfaces")]
        struct Root {
            #[serde(rename = "@xmlns")]
            xmlns: &'static str,
            #[serde(rename = "@xmlns:OS-EXT-VIF-NET", skip_serializing_if = "Option::is_none")]
            xmlns_extended: Option<&'static str>,
            #[serde(rename = "@xmlns:atom", skip_serializing_if = "Option::is_none")]
            xmlns_atom: Option<&'static str>,
            virtual_interface: Vec<Element>,
            #[serde(rename = "atom:link")]
            links: Vec<link::Element>,
        }
        #[derive(Serialize)]
        struct Element {
            #[serde(rename = "@id")]
            id: Uuid,
            #[serde(rename = "@mac_address")]
            mac_address: MacAddr,
            #[serde(rename = "@OS-EXT-VIF-NET:net_id", skip_serializing_if = "Option::is_none")]
            extended_net_id: Option<Uuid>,
            #[serde(rename = "@net_id", skip_serializing_if = "Option::is_none")]
            net_id: Option<Uuid>,
        }
        let element = |&VirtualInterface { id, mac_address, extended_net_id, net_id }: &VirtualInterface| Element {
            id,
            mac_address,
            extended_net_id,
            net_id: net_id.flatten(),
        };
        Root {
            xmlns: COMPUTE_1_1,
            xmlns_extended: self.extended.then_some(EXTENDED_VIF_NET.namespace),
            xmlns_atom: (!self.links.is_empty()).then_some(link::ATOM),
            virtual_interface: self.virtual_interfaces.iter().map(element).collect(),
            links: self.links.iter().map(Link::element).collect(),
        }
    }
}
