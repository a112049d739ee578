//! The extension queries, as the Virtual Interfaces extension document shows them.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Ask, fault::Fault, format::Body};
use crate::http::openapi::{Operation, Routes};

/// One extension of the Compute API.
#[derive(Clone, Copy, Serialize, JsonSchema)]
pub(super) struct Extension {
    /// Its name, for people.
    name: &'static str,
    /// Its namespace in XML.
    pub(super) namespace: &'static str,
    /// Its name in URIs, and before fields that it adds.
    alias: &'static str,
    /// When it last changed.
    updated: &'static str,
    /// What it does.
    description: &'static str,
    /// Where to read more.
    links: [(); 0],
}

pub(super) const VIRTUAL_INTERFACES: Extension = Extension {
    name: "VirtualInterfaces",
    namespace: "http://docs.openstack.org/ext/virtual_interfaces/api/v1.1",
    alias: "virtual_interfaces",
    updated: "2011-08-17T00:00:00+00:00",
    description: "Virtual interface support",
    links: [],
};

/// The network's id in the list of virtual interfaces.
pub(super) const EXTENDED_VIF_NET: Extension = Extension {
    name: "ExtendedVIFNet",
    namespace: "http://docs.openstack.org/compute/ext/extended-virtual-interfaces-net/api/v1.1",
    alias: "OS-EXT-VIF-NET",
    updated: "2013-03-07T00:00:00+00:00",
    description: "Adds network id parameter to the virtual interface list.",
    links: [],
};

/// `os-interface`.
const ATTACH_INTERFACES: Extension = Extension {
    name: "AttachInterfaces",
    namespace: "http://docs.openstack.org/compute/ext/interfaces/api/v1.1",
    alias: "os-attach-interfaces",
    updated: "2012-07-22T00:00:00+00:00",
    description: "Attach interface support.",
    links: [],
};

const SERVED: [Extension; 3] = [VIRTUAL_INTERFACES, EXTENDED_VIF_NET, ATTACH_INTERFACES];

/// Further names of [`VIRTUAL_INTERFACES`]: that in its document's header and the alias under which Nova later had it.
const OTHER_ALIASES: [&str; 2] = ["MID-VRT", "os-virtual-interfaces"];

pub(super) fn routes(base: &'static str) -> Routes {
    let list_says = Operation::new::<List>("list_extensions", "The extensions that are served", 200, "The extensions.");
    let show_says = Operation::new::<One>("show_extension", "One of them", 200, "The extension.");
    Routes::at(base).get("/extensions", list, list_says).get("/extensions/{alias}", show, show_says)
}

/// `GET {base}/extensions`
pub(super) async fn list(ask: Ask) -> Response {
    ask.answer(|ask| Ok(ask.format.body(&List { extensions: SERVED })))
}

/// `GET {base}/extensions/{alias}`
pub(super) async fn show(ask: Ask) -> Response {
    ask.answer(|ask| {
        let alias = match &*ask.path.alias {
            other if OTHER_ALIASES.contains(&other) => VIRTUAL_INTERFACES.alias,
            alias => alias,
        };
        let extension = SERVED.into_iter().find(|extension| extension.alias == alias);
        let extension =
            extension.ok_or_else(|| Fault::not_found(format!("There is no extension with the alias {alias}.")))?;
        Ok(ask.format.body(&One { extension }))
    })
}

/// The list of extensions.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Extensions")]
struct List {
    /// The extensions.
    extensions: [Extension; 3],
}

/// One extension.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OneExtension")]
struct One {
    /// The extension.
    extension: Extension,
}

/// Everything but the description is an attribute; `extensions.xsd`.
#[derive(Serialize)]
#[serde(rename = "extension")]
struct Element {
    #[serde(rename = "@xmlns", skip_serializing_if = "Option::is_none")]
    xmlns: Option<&'static str>,
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@namespace")]
    namespace: &'static str,
    #[serde(rename = "@alias")]
    alias: &'static str,
    #[serde(rename = "@updated")]
    updated: &'static str,
    description: &'static str,
}

impl Extension {
    fn element(self, xmlns: Option<&'static str>) -> Element {
        let Self { name, namespace, alias, updated, description, .. } = self;
        Element { xmlns, name, namespace, alias, updated, description }
    }
}

impl Body for List {
    fn xml(&self) -> impl Serialize {
        #[derive(Serialize)]
        #[serde(rename = "extensions")]
        struct Root {
            #[serde(rename = "@xmlns")]
            xmlns: &'static str,
            extension: [Element; 3],
        }
        Root { xmlns: COMMON_1_0, extension: self.extensions.map(|extension| extension.element(None)) }
    }
}

impl Body for One {
    fn xml(&self) -> impl Serialize {
        self.extension.element(Some(COMMON_1_0))
    }
}

/// The namespace of what all OpenStack APIs share.
pub(super) const COMMON_1_0: &str = "http://docs.openstack.org/common/api/v1.0";
