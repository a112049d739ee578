//! The Compute API's calls about virtual interfaces, in JSON and XML, under `/v1.1`, `/v2` and `/v2.1`.
//!
//! Sources: the Virtual Interfaces extension document (2011-09-16, revised 2012-03-30), the Compute API 1.1 developer
//! guide, and what the Nova server and its clients really did. Whatever goes wrong has a fault as its body.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Request, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::{fault::Fault, format::Format};
use super::{App, auth::Identity};
use crate::{
    inventory::{Instance, Inventory, NoDevice, Staleness, Vif},
    mac::MacAddr,
    source::libvirt::domain::DomainState,
};

mod extensions;
pub(super) mod fault;
pub(super) mod format;

/// The version and project that a URI begins with. `/v2.1` may leave the project out.
const BASES: [&str; 4] = ["/v1.1/{project}", "/v2/{project}", "/v2.1/{project}", "/v2.1"];
/// Calls of the guide that a host cannot serve: they are told apart from paths that mean nothing.
const OTHER_CALLS: [&str; 7] = [
    "/servers",
    "/servers/{id}",
    "/servers/{id}/{*rest}",
    "/flavors",
    "/flavors/{*rest}",
    "/images",
    "/images/{*rest}",
];

/// The largest body of a request, in bytes. The largest that means something has some hundred.
const MAX_BODY: usize = 64 << 10;

pub(super) fn router() -> Router<App> {
    let mut router = Router::new();
    for base in BASES {
        let at = |path: &str| format!("{base}{path}");
        router = router
            .route(&at("/servers/{id}/virtual_interfaces"), post(act))
            .route(&at("/servers/{id}/os-virtual-interfaces"), get(list))
            .route(&at("/extensions"), get(extensions::list))
            .route(&at("/extensions/{alias}"), get(extensions::show));
        for call in OTHER_CALLS {
            router = router.route(&at(call), axum::routing::any(not_implemented));
        }
    }
    router.fallback(not_found).method_not_allowed_fallback(bad_method).layer(DefaultBodyLimit::max(MAX_BODY))
}

/// Takes a `.json` or `.xml` off the path, before the request is routed, and remembers it.
pub(super) fn take_suffix(mut request: Request) -> Request {
    let path = request.uri().path();
    let Some((stem, format)) = Format::split_suffix(path).filter(|_| !path.starts_with("/host/")) else {
        return request;
    };
    let stem = match request.uri().query() {
        Some(query) => format!("{stem}?{query}"),
        None => stem.to_owned(),
    };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = stem.parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(format);
    }
    request
}

/// `POST {base}/servers/{id}/virtual_interfaces`: the extension's action.
async fn act(ask: Ask, body: Result<Bytes, BytesRejection>) -> Response {
    ask.answer(|ask| {
        check_body(&ask.headers, &body.map_err(|_| Fault::over_limit("The request's body is too large."))?)?;
        ask.interfaces(StatusCode::ACCEPTED, StatusCode::ACCEPTED)
    })
}

/// `GET {base}/servers/{id}/os-virtual-interfaces`: the call that clients of nova-network know.
async fn list(ask: Ask) -> Response {
    // The guide's 203 is for "a cached copy": here, a record that is not being kept current.
    ask.answer(|ask| ask.interfaces(StatusCode::OK, StatusCode::NON_AUTHORITATIVE_INFORMATION))
}

async fn not_found(ask: Ask) -> Response {
    ask.answer(|_| Err(Fault::not_found("The resource could not be found.")))
}

async fn bad_method(ask: Ask) -> Response {
    ask.answer(|ask| Err(Fault::bad_method(&ask.method)))
}

async fn not_implemented(ask: Ask) -> Response {
    ask.answer(|_| Err(Fault::not_implemented()))
}

/// The action takes no parameters, but what is sent must be what it says it is.
fn check_body(headers: &HeaderMap, body: &[u8]) -> Result<(), Fault> {
    if body.is_empty() {
        return Ok(());
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match content_type.and_then(Format::of_media_type) {
        Some(Format::Json) => serde_json::from_slice::<serde::de::IgnoredAny>(body)
            .map(drop)
            .map_err(|error| Fault::bad_request(format!("Malformed JSON in the request's body: {error}"))),
        Some(Format::Xml) => {
            let text = std::str::from_utf8(body).map_err(|_| Fault::bad_request("The request's body is not UTF-8."))?;
            roxmltree::Document::parse(text)
                .map(drop)
                .map_err(|error| Fault::bad_request(format!("Malformed XML in the request's body: {error}")))
        }
        None => Err(Fault::bad_media_type()),
    }
}

/// What is asked, by whom it is to be answered, and in which format.
struct Ask {
    app: App,
    format: Format,
    method: Method,
    headers: HeaderMap,
    path: PathParameters,
    /// Nobody, where anybody may ask.
    identity: Option<Identity>,
}

/// The variable parts of the paths.
#[derive(Default, Deserialize)]
struct PathParameters {
    project: Option<Box<str>>,
    #[serde(default)]
    id: Box<str>,
    #[serde(default)]
    alias: Box<str>,
}

impl FromRequestParts<App> for Ask {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let path = Path::<PathParameters>::from_request_parts(parts, app).await;
        Ok(Self {
            app: app.clone(),
            format: Format::of_request(&parts.headers, &parts.extensions),
            method: parts.method.clone(),
            headers: std::mem::take(&mut parts.headers),
            path: path.map(|Path(path)| path).unwrap_or_default(),
            identity: parts.extensions.remove(),
        })
    }
}

impl Ask {
    fn answer(self, answer: impl FnOnce(&Self) -> Result<Response, Fault>) -> Response {
        let outcome = self.check_project().and_then(|()| answer(&self));
        let mut response = outcome.unwrap_or_else(|fault| fault.response(self.format));
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        response
    }

    /// The path may name the caller's own project only, whatever is there.
    fn check_project(&self) -> Result<(), Fault> {
        match &self.path.project {
            Some(project) if !self.identity.as_ref().is_some_and(|identity| identity.may_name(project)) => {
                Err(Fault::forbidden("The project of the path is not that of the caller."))
            }
            _ => Ok(()),
        }
    }

    /// The list of the instance's virtual interfaces.
    fn interfaces(&self, current: StatusCode, stale: StatusCode) -> Result<Response, Fault> {
        let inventory = self.app.inventory();
        let instance = match find(&inventory, &self.path.id, self.identity.as_ref()) {
            Ok(instance) => instance,
            // Absence is a fact like any other: it may be out of date.
            Err(fault) => {
                let staleness = inventory.staleness_of_absence();
                return Ok(tell_freshness(fault.response(self.format), staleness.as_ref()));
            }
        };
        if is_being_built(instance) {
            return Err(Fault::build_in_progress());
        }
        if self.method == Method::POST {
            self.app.rereads.ask(instance.uuid);
        }
        let staleness = inventory.staleness(instance);
        let etag = format!("\"{:x}-{:x}\"", self.app.epoch, instance.revision);
        let matches = self.headers.get(header::IF_NONE_MATCH).is_some_and(|value| etag_matches(value, &etag));
        let mut response = if self.method != Method::POST && matches {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let status = if staleness.is_some() { stale } else { current };
            (status, self.format.body(&VirtualInterfaces::of(instance))).into_response()
        };
        insert(response.headers_mut(), header::ETAG, &etag);
        Ok(tell_freshness(response, staleness.as_ref()))
    }
}

/// Whether the instance is being started and some of its devices are not there yet.
fn is_being_built(instance: &Instance) -> bool {
    let awaited = |vif: &Vif| matches!(vif.no_device, Some(NoDevice::NoTarget | NoDevice::TargetMissing));
    instance.state == DomainState::StartingUp && instance.vifs.iter().any(awaited)
}

/// `Age`, the seconds since what is answered was last known to be current, and `Warning: 110` if it is not.
fn tell_freshness(mut response: Response, staleness: Option<&Staleness>) -> Response {
    let age = staleness.map_or(0, |staleness| staleness.since.age().as_secs());
    let headers = response.headers_mut();
    insert(headers, header::AGE, &age.to_string());
    if staleness.is_some() {
        headers.insert(header::WARNING, HeaderValue::from_static("110 vifd \"Response is Stale\""));
    }
    response
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether one of the tags of an `If-None-Match` is `etag`; RFC 9110, 13.1.2: a weak comparison.
fn etag_matches(value: &HeaderValue, etag: &str) -> bool {
    let tags = value.to_str().unwrap_or_default().split(',').map(str::trim);
    tags.map(|tag| tag.strip_prefix("W/").unwrap_or(tag)).any(|tag| tag == etag || tag == "*")
}

/// The instance that `{id}` means: a UUID in any letter case, with or without hyphens, or the integer id. One that the
/// caller may not see does not exist.
fn find<'a>(inventory: &'a Inventory, id: &str, by: Option<&Identity>) -> Result<&'a Arc<Instance>, Fault> {
    let found = if id.bytes().all(|b| b.is_ascii_digit()) && id.len() != 32 {
        id.parse().ok().and_then(|number| inventory.instance_by_number(number))
    } else if matches!(id.len(), 32 | 36) {
        Uuid::try_parse(id).ok().and_then(|uuid| inventory.instance(uuid))
    } else {
        None
    };
    match found.filter(|instance| by.is_some_and(|identity| identity.may_see(instance))) {
        Some(instance) => Ok(instance),
        None if inventory.is_complete() => Err(Fault::not_found("Instance could not be found.")),
        None => Err(Fault::unavailable("Not every hypervisor of this host has been read yet.")),
    }
}

/// The list's body, as Nova wrote it. Validators in the field forbid further fields.
#[derive(Serialize)]
struct VirtualInterfaces {
    virtual_interfaces: Vec<VirtualInterface>,
}

#[derive(Clone, Copy, Serialize)]
struct VirtualInterface {
    id: Uuid,
    mac_address: MacAddr,
}

impl VirtualInterfaces {
    fn of(instance: &Instance) -> Self {
        let interface = |vif: &Vif| VirtualInterface { id: vif.id, mac_address: vif.interface.mac };
        Self { virtual_interfaces: instance.vifs.iter().map(interface).collect() }
    }
}

impl format::Body for VirtualInterfaces {
    fn xml(&self) -> impl Serialize {
        #[derive(Serialize)]
        #[serde(rename = "virtual_interfaces")]
        struct Root {
            #[serde(rename = "@xmlns")]
            xmlns: &'static str,
            virtual_interface: Vec<Element>,
        }
        #[derive(Serialize)]
        struct Element {
            #[serde(rename = "@id")]
            id: Uuid,
            #[serde(rename = "@mac_address")]
            mac_address: MacAddr,
        }
        let element = |&VirtualInterface { id, mac_address }: &VirtualInterface| Element { id, mac_address };
        Root { xmlns: COMPUTE_1_1, virtual_interface: self.virtual_interfaces.iter().map(element).collect() }
    }
}

/// The namespace of the Compute API 1.1.
const COMPUTE_1_1: &str = "http://docs.openstack.org/compute/api/v1.1";

#[cfg(test)]
mod tests;
