//! Links in answers: absolute, as the guide's are, from where the caller reached us.

use axum::http::{HeaderMap, header, uri::Authority};
use schemars::JsonSchema;
use serde::Serialize;

use super::format::xml_text;
use crate::http::requests::FORWARDED_PROTO;

/// A link, in JSON.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "AtomLink")]
pub(super) struct Link {
    /// What it is to the answer that it stands in.
    pub(super) rel: &'static str,
    /// Its target's media type, where that is not the answer's.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) media_type: Option<&'static str>,
    /// Where it leads.
    pub(super) href: String,
}

impl Link {
    pub(super) fn new(rel: &'static str, href: String) -> Self {
        Self { rel, media_type: None, href }
    }

    /// `<atom:link>`, the prefix of which the root declares by [`ATOM`].
    pub(super) fn element(&self) -> Element {
        Element { rel: self.rel, media_type: self.media_type, href: xml_text(&self.href) }
    }
}

/// A link, in XML.
#[derive(Serialize)]
pub(super) struct Element {
    #[serde(rename = "@rel")]
    rel: &'static str,
    #[serde(rename = "@type", skip_serializing_if = "Option::is_none")]
    media_type: Option<&'static str>,
    #[serde(rename = "@href")]
    href: String,
}

/// The namespace of links in XML.
pub(super) const ATOM: &str = "http://www.w3.org/2005/Atom";

/// What goes before a path to make it absolute: `http://host:port`. A proxy that ends TLS says so by
/// `X-Forwarded-Proto`. Nothing for a caller that names no host: a path is a link too.
pub(super) fn origin(headers: &HeaderMap) -> String {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).filter(|host| !host.contains('@') && host.parse::<Authority>().is_ok());
    let https = headers.get(FORWARDED_PROTO).is_some_and(|proto| proto == "https");
    let scheme = if https { "https" } else { "http" };
    host.map(|host| format!("{scheme}://{host}")).unwrap_or_default()
}
