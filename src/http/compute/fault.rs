//! Faults: the body that every error has, in both formats.

use axum::{
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::format::{Body, Format, xml_text};

/// An error as the Compute API 1.1 developer guide writes it (section 3.13, `faults.xsd`).
#[derive(Clone, Debug)]
pub(super) struct Fault {
    status: StatusCode,
    name: &'static str,
    message: String,
}

impl Fault {
    fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> Self {
        Self { status, name, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "badRequest", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "itemNotFound", message)
    }

    pub(super) fn bad_method(method: &Method) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "badMethod", format!("{method} is not allowed here."))
    }

    pub(super) fn build_in_progress() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "buildInProgress",
            "The instance is being started; its devices are not there yet.",
        )
    }

    pub(super) fn over_limit(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "overLimit", message)
    }

    pub(super) fn bad_media_type() -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "badMediaType", "The body must be JSON or XML, and say so.")
    }

    pub(super) fn not_implemented() -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "notImplemented", "This call is not served by the agent of a host.")
    }

    /// Nothing is known yet; it will be soon, or libvirt is down.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "serviceUnavailable", message)
    }

    pub(super) fn response(self, format: Format) -> Response {
        let mut response = (self.status, format.body(&self)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

/// `{"<fault>": {"code": N, "message": "…"}}`
impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Inner<'a> {
            code: u16,
            message: &'a str,
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.name, &Inner { code: self.status.as_u16(), message: &self.message })?;
        map.end()
    }
}

impl Body for Fault {
    fn xml(&self) -> impl Serialize {
        Element {
            name: self.name,
            namespace: super::COMPUTE_1_1,
            code: self.status.as_u16(),
            message: xml_text(&self.message),
        }
    }
}

/// `<itemNotFound xmlns="…" code="404"><message>…</message></itemNotFound>`
struct Element {
    name: &'static str,
    namespace: &'static str,
    code: u16,
    message: String,
}

impl Serialize for Element {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut element = serializer.serialize_struct(self.name, 3)?;
        element.serialize_field("@xmlns", self.namespace)?;
        element.serialize_field("@code", &self.code)?;
        element.serialize_field("message", &self.message)?;
        element.end()
    }
}
