//! Faults: the body that every error has, in both formats.

use std::time::Duration;

use axum::{
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::format::{Body, Format, xml_text};
use crate::source::now;

/// An error as the Compute API 1.1 developer guide writes it (section 3.13, `faults.xsd`).
#[derive(Clone, Debug)]
pub(in crate::http) struct Fault {
    status: StatusCode,
    name: &'static str,
    message: String,
    retry_after: Option<Duration>,
    challenge: Option<HeaderValue>,
}

/// How long to stay away from a daemon that is about to know more, or to have room.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Fault {
    fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> Self {
        Self { status, name, message: message.into(), retry_after: None, challenge: None }
    }

    pub(in crate::http) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "badRequest", message)
    }

    /// Who asks is not known; the challenge says how to become it.
    pub(in crate::http) fn unauthorized(challenge: HeaderValue) -> Self {
        let fault = Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "This takes credentials.");
        Self { challenge: Some(challenge), ..fault }
    }

    pub(in crate::http) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub(in crate::http) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "itemNotFound", message)
    }

    pub(in crate::http) fn bad_method(method: &Method) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "badMethod", format!("{method} is not allowed here."))
    }

    /// A version that is not spoken here.
    pub(in crate::http) fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "computeFault", message)
    }

    pub(in crate::http) fn build_in_progress() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "buildInProgress",
            "The instance is being started; its devices are not there yet.",
        )
    }

    pub(in crate::http) fn over_limit(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "overLimit", message)
    }

    pub(in crate::http) fn bad_media_type() -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "badMediaType", "The body must be JSON or XML, and say so.")
    }

    pub(in crate::http) fn not_implemented() -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "notImplemented", "This call is not served by the agent of a host.")
    }

    /// Nothing is known yet; it will be soon, or libvirt is down.
    pub(in crate::http) fn unavailable(message: impl Into<String>) -> Self {
        let fault = Self::new(StatusCode::SERVICE_UNAVAILABLE, "serviceUnavailable", message);
        Self { retry_after: Some(RETRY_AFTER), ..fault }
    }

    /// Too many requests; `wait` from now there may be another.
    pub(in crate::http) fn over_rate_limit(wait: Duration) -> Self {
        let fault = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "overLimit", "This request was rate-limited.");
        Self { retry_after: Some(wait), ..fault }
    }

    pub(in crate::http) fn uri_too_long() -> Self {
        Self::new(StatusCode::URI_TOO_LONG, "computeFault", "The request's URI is too long.")
    }

    /// The request's body did not arrive in time, or its answer could not be made in time.
    pub(in crate::http) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "computeFault", "The request took too long.")
    }

    /// A bug of ours.
    pub(in crate::http) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "computeFault", "The agent failed to answer this request.")
    }

    /// A request that never was one: no HTTP, or too much of it, or not in time.
    pub(in crate::http) fn unreadable(status: StatusCode) -> Self {
        let name = if status == StatusCode::BAD_REQUEST { "badRequest" } else { "computeFault" };
        Self::new(status, name, status.canonical_reason().unwrap_or("The request could not be read."))
    }

    pub(in crate::http) fn status(&self) -> StatusCode {
        self.status
    }

    pub(in crate::http) fn message(&self) -> &str {
        &self.message
    }

    pub(in crate::http) fn response(self, format: Format) -> Response {
        let mut response = (self.status, format.body(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        self.tell(headers);
        response
    }

    /// `Retry-After`, in whole seconds, after which it is worth it; `WWW-Authenticate`.
    pub(in crate::http) fn tell(&self, headers: &mut HeaderMap) {
        if let Some(challenge) = &self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge.clone());
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(wait)));
        }
    }
}

fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl Fault {
    /// When to come back, of a rate limit: RFC 3339, in UTC.
    fn retry_at(&self) -> Option<String> {
        let wait = self.retry_after.filter(|_| self.name == "overLimit")?;
        let at = now().checked_add(Duration::from_secs(seconds(wait))).ok()?;
        Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }
}

/// What is wrong.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Fault")]
pub(in crate::http) struct FaultBody<'a> {
    /// The status.
    code: u16,
    /// For people.
    message: &'a str,
    /// When to come back.
    #[serde(rename = "retryAt", skip_serializing_if = "Option::is_none")]
    retry_at: Option<String>,
    /// After how many seconds.
    #[serde(rename = "retryAfter", skip_serializing_if = "Option::is_none")]
    retry_after: Option<String>,
}

/// `{"<fault>": {"code": N, "message": "…"}}`; of a rate limit also when to come back, twice: clients of the time read
/// `retryAfter`.
impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        let retry_at = self.retry_at();
        let retry_after = self.retry_after.filter(|_| retry_at.is_some()).map(|wait| seconds(wait).to_string());
        let code = self.status.as_u16();
        map.serialize_entry(self.name, &FaultBody { code, message: &self.message, retry_at, retry_after })?;
        map.end()
    }
}

impl Body for Fault {
    fn xml(&self) -> impl Serialize {
        Element {
            name: self.name,
            namespace: super::COMPUTE_1_1,
            code: self.status.as_u16(),
            retry_at: self.retry_at(),
            message: xml_text(&self.message),
        }
    }
}

/// `<itemNotFound xmlns="…" code="404"><message>…</message></itemNotFound>`
struct Element {
    name: &'static str,
    namespace: &'static str,
    code: u16,
    retry_at: Option<String>,
    message: String,
}

impl Serialize for Element {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut element = serializer.serialize_struct(self.name, 4)?;
        element.serialize_field("@xmlns", self.namespace)?;
        element.serialize_field("@code", &self.code)?;
        if let Some(retry_at) = &self.retry_at {
            element.serialize_field("@retryAt", retry_at)?;
        }
        element.serialize_field("message", &self.message)?;
        element.end()
    }
}
