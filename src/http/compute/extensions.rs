//! The extension queries, as the Virtual Interfaces extension document shows them.

use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{Ask, fault::Fault, format::Body};

/// One extension of the Compute API.
#[derive(Clone, Copy, Serialize)]
struct Extension {
    name: &'static str,
    namespace: &'static str,
    alias: &'static str,
    updated: &'static str,
    description: &'static str,
    links: [(); 0],
}

const VIRTUAL_INTERFACES: Extension = Extension {
    name: "VirtualInterfaces",
    namespace: "http://docs.openstack.org/ext/virtual_interfaces/api/v1.1",
    alias: "virtual_interfaces",
    updated: "2011-08-17T00:00:00+00:00",
    description: "Virtual interface support",
    links: [],
};

/// The name in the document's header and the alias under which Nova later had it.
const OTHER_ALIASES: [&str; 2] = ["MID-VRT", "os-virtual-interfaces"];

/// `GET {base}/extensions`
pub(super) async fn list(ask: Ask) -> Response {
    ask.answer(|ask| Ok(ask.format.body(&List { extensions: [VIRTUAL_INTERFACES] }).into_response()))
}

/// `GET {base}/extensions/{alias}`
pub(super) async fn show(ask: Ask) -> Response {
    ask.answer(|ask| {
        let alias = &*ask.path.alias;
        if alias == VIRTUAL_INTERFACES.alias || OTHER_ALIASES.contains(&alias) {
            Ok(ask.format.body(&One { extension: VIRTUAL_INTERFACES }).into_response())
        } else {
            Err(Fault::not_found(format!("There is no extension with the alias {alias}.")))
        }
    })
}

#[derive(Serialize)]
struct List {
    extensions: [Extension; 1],
}

#[derive(Serialize)]
struct One {
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
            extension: [Element; 1],
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
const COMMON_1_0: &str = "http://docs.openstack.org/common/api/v1.0";
