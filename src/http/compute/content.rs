//! The body of a request.

use axum::{
    body::Bytes,
    extract::rejection::BytesRejection,
    http::{HeaderMap, StatusCode, header},
};
use roxmltree::Document;
use serde_json::Value;

use super::{COMPUTE_1_1, extensions, fault::Fault, format::Format};

/// What a request's body says, in either format.
pub(super) enum Content<'a> {
    Json(Value),
    Xml(Document<'a>),
}

impl<'a> Content<'a> {
    /// Nothing if the body is empty: then it needs no type either.
    ///
    /// # Errors
    /// It could not be read, is of another type than ours, or is not what its type says.
    pub(super) fn of_request(
        headers: &HeaderMap,
        body: &'a Result<Bytes, BytesRejection>,
    ) -> Result<Option<Self>, Fault> {
        let body = match body {
            Ok(body) if body.is_empty() => return Ok(None),
            Ok(body) => &**body,
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                return Err(Fault::over_limit("The request's body is too large."));
            }
            Err(_) => return Err(Fault::bad_request("The request's body could not be read.")),
        };
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        match content_type.and_then(Format::of_media_type).ok_or_else(Fault::bad_media_type)? {
            Format::Json => match serde_json::from_slice(body) {
                Ok(value) => Ok(Some(Self::Json(value))),
                Err(error) => Err(Fault::bad_request(format!("Malformed JSON in the request's body: {error}"))),
            },
            Format::Xml => {
                let text = str::from_utf8(body).map_err(|_| Fault::bad_request("The request's body is not UTF-8."))?;
                // DTDs, and with them entities, are refused.
                match Document::parse(text) {
                    Ok(document) => Ok(Some(Self::Xml(document))),
                    Err(error) => Err(Fault::bad_request(format!("Malformed XML in the request's body: {error}"))),
                }
            }
        }
    }

    /// Whether it asks for the extension's action: `{"virtual_interfaces": null}`, `{"virtual_interfaces": {}}` or the
    /// empty element of that name, in the namespace of the API, of the extension, or in none.
    pub(super) fn is_action(&self) -> bool {
        const ACTION: &str = "virtual_interfaces";
        match self {
            Self::Json(Value::Object(object)) => match object.get(ACTION) {
                Some(Value::Null) => object.len() == 1,
                Some(Value::Object(parameters)) => object.len() == 1 && parameters.is_empty(),
                _ => false,
            },
            Self::Json(_) => false,
            Self::Xml(document) => {
                let root = document.root_element();
                let namespace = root.tag_name().namespace();
                root.tag_name().name() == ACTION
                    && namespace
                        .is_none_or(|uri| [COMPUTE_1_1, extensions::VIRTUAL_INTERFACES.namespace].contains(&uri))
                    && !root.children().any(|child| child.is_element())
            }
        }
    }
}
