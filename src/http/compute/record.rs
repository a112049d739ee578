//! What is common to all answers about one instance: which one it is, whether it can be told yet, how fresh it is, and
//! whether the caller has it already.

use std::sync::Arc;

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use uuid::Uuid;

use super::{Ask, fault::Fault, format::Format, version::Microversion};
use crate::{
    http::{auth::Identity, requests::Subject},
    inventory::{Instance, Inventory, NoDevice, Staleness, Vif},
    source::libvirt::domain::DomainState,
};

/// On what an answer about an instance depends, and by what its `ETag` therefore changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MadeFrom {
    /// The instance's own record.
    Record,
    /// Its links' states too, which are no part of the record.
    Links,
}

impl Ask {
    /// Answers about the instance that the path names, with `body`. The guide's 203 is for "a cached copy": here, for a
    /// GET of a record that is not being kept current.
    pub(super) fn about_instance(
        &self,
        made_from: MadeFrom,
        body: impl FnOnce(&Inventory, &Instance) -> Result<Response, Fault>,
    ) -> Result<Response, Fault> {
        let inventory = self.app.inventory();
        // Absence is a fact like any other: it may be out of date.
        let absent =
            |fault: Fault| tell_freshness(fault.response(self.format), inventory.staleness_of_absence().as_ref());
        let instance = match find(&inventory, &self.path.id, self.identity.as_ref()) {
            Ok(instance) => instance,
            Err(fault) => return Ok(absent(fault)),
        };
        if is_being_built(instance) {
            return Err(Fault::build_in_progress());
        }
        let mut response = body(&inventory, instance)?;
        if self.method == Method::POST {
            self.app.rereads.ask(instance.uuid);
        }
        let staleness = inventory.staleness(instance);
        let version = match made_from {
            MadeFrom::Record => instance.revision,
            MadeFrom::Links => inventory.generation,
        };
        let etag = self.etag(version);
        if self.method != Method::POST {
            if self.headers.get(header::IF_NONE_MATCH).is_some_and(|value| etag_matches(value, &etag)) {
                response = StatusCode::NOT_MODIFIED.into_response();
            } else if staleness.is_some() {
                *response.status_mut() = StatusCode::NON_AUTHORITATIVE_INFORMATION;
            }
        }
        response.extensions_mut().insert(Subject { instance: instance.uuid });
        insert(response.headers_mut(), header::ETAG, &etag);
        Ok(tell_freshness(response, staleness.as_ref()))
    }

    /// Names the generation and, since the tag is a strong one, the form: one URI's answers differ by `Accept` and by
    /// microversion.
    fn etag(&self, version: u64) -> String {
        let format = match self.format {
            Format::Json => "j",
            Format::Xml => "x",
        };
        let fields = match self.version {
            version if version.has(Microversion::TAGS) => "t",
            version if version.has(Microversion::NET_ID) => "n",
            _ => "",
        };
        format!("\"{:x}-{version:x}-{format}{fields}\"", self.app.epoch)
    }
}

/// The instance that `{id}` means: a UUID in any letter case, with or without hyphens, or the integer id. One that the
/// caller may not see does not exist.
fn find<'a>(inventory: &'a Inventory, id: &str, by: Option<&Identity>) -> Result<&'a Arc<Instance>, Fault> {
    let found = if id.bytes().all(|b| b.is_ascii_digit()) && id.len() != 32 {
        id.parse().ok().and_then(|number| inventory.instance_by_number(number))
    } else {
        parse_uuid(id).and_then(|uuid| inventory.instance(uuid))
    };
    match found.filter(|instance| by.is_some_and(|identity| identity.may_see(instance))) {
        Some(instance) => Ok(instance),
        None if inventory.is_complete() => Err(Fault::not_found("Instance could not be found.")),
        None => Err(Fault::unavailable("Not every hypervisor of this host has been read yet.")),
    }
}

/// With or without hyphens, but in no braces and with no `urn:` before it.
pub(super) fn parse_uuid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|_| matches!(text.len(), 32 | 36))
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

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether one of the tags of an `If-None-Match` is `etag`; RFC 9110, 13.1.2: a weak comparison.
fn etag_matches(value: &HeaderValue, etag: &str) -> bool {
    let tags = value.to_str().unwrap_or_default().split(',').map(str::trim);
    tags.map(|tag| tag.strip_prefix("W/").unwrap_or(tag)).any(|tag| tag == etag || tag == "*")
}
