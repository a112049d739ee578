//! The Compute API's calls about virtual interfaces, in JSON and XML, under `/v1.1`, `/v2` and `/v2.1`.
//!
//! Sources: the Virtual Interfaces extension document (2011-09-16, revised 2012-03-30), the Compute API 1.1 developer
//! guide, and what the Nova server and its clients really did. Whatever goes wrong has a fault as its body.
//!
//! | module | what it knows |
//! | --- | --- |
//! | `version`, `format` | what the caller speaks: URI version and microversion; JSON or XML |
//! | `content`, `page` | what the caller sends: the body; the query |
//! | `record`, `fault`, `link` | what answers have in common: about one instance; when something is wrong; links |
//! | `virtual_interfaces`, `interface_attachments` | an instance's virtual interfaces, as the extension has them and as Neutron's ports |
//! | `extensions`, `versions`, `limits` | what else is asked |

use axum::{
    extract::{DefaultBodyLimit, FromRequestParts, Path, Request, rejection::PathRejection},
    http::{HeaderMap, Method, StatusCode, Uri, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use self::{
    fault::Fault,
    format::Format,
    version::{Microversion, Version},
};
use super::{
    App,
    auth::Identity,
    limits::Allowance,
    openapi::{Operation, Routes},
};

mod content;
mod extensions;
pub(super) mod fault;
pub(super) mod format;
mod interface_attachments;
mod limits;
mod link;
mod page;
mod record;
mod version;
mod versions;
mod virtual_interfaces;

/// The version and project that a URI begins with. `/v2.1` may leave the project out.
const BASES: [&str; 4] = ["/v1.1/{project}", "/v2/{project}", "/v2.1/{project}", "/v2.1"];

/// The largest body of a request, in bytes. The largest that means something has some hundred.
const MAX_BODY: usize = 64 << 10;

pub(super) fn routes() -> Routes {
    let mut routes = versions::routes();
    for base in BASES {
        routes = routes
            .merge(virtual_interfaces::routes(base))
            .merge(interface_attachments::routes(base))
            .merge(extensions::routes(base))
            .merge(limits::routes(base));
    }
    let choices = "Where the path is in each version.";
    let elsewhere_says =
        Operation::new::<versions::Choices>("choose_version", "A path without a version", 300, choices);
    routes
        .fallback("/{path}", elsewhere, elsewhere_says)
        .map(|router| router.method_not_allowed_fallback(bad_method).layer(DefaultBodyLimit::max(MAX_BODY)))
}

/// First segments of paths that are no part of the Compute API.
const OWN_ROOTS: [&str; 5] = ["host", "live", "metrics", "openapi.json", "ready"];

/// Takes what says the same as a header off the path, and puts on it what only a header says, before the request is
/// routed: a `.json` or `.xml` is remembered as the format, and a path without a version gets that of a media type.
pub(super) fn normalize(mut request: Request) -> Request {
    let path = request.uri().path();
    if OWN_ROOTS.contains(&first_segment(path)) {
        return request;
    }
    let suffix = Format::split_suffix(path);
    let stem = suffix.map_or(path, |(stem, _)| stem);
    let root = match version::root(path) {
        None if stem.len() > 1 => format::version_of_accept(request.headers()),
        _ => None,
    };
    if suffix.is_none() && root.is_none() {
        return request;
    }
    let format = suffix.map(|(_, format)| format);
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("{}{stem}{query}", root.unwrap_or_default());
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = path.parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        if let Some(format) = format {
            request.extensions_mut().insert(format);
        }
    }
    request
}

fn first_segment(path: &str) -> &str {
    path.split('/').nth(1).unwrap_or_default()
}

/// What is not routed: a path without a version, a call of the API that no host can serve, or nothing.
async fn elsewhere(ask: Ask) -> Response {
    let path = ask.uri.path();
    if path.starts_with('/') && version::root(path).is_none() && !OWN_ROOTS.contains(&first_segment(path)) {
        return versions::choices(&ask);
    }
    ask.answer(|ask| {
        if is_documented(ask.uri.path()) {
            Err(Fault::not_implemented())
        } else {
            Err(Fault::not_found("The resource could not be found."))
        }
    })
}

/// Whether a path is that of a call of the guide or of one of Nova's extensions.
fn is_documented(path: &str) -> bool {
    let segments: Vec<_> = path.split('/').skip(1).collect();
    let is_collection = |name: &str| matches!(name, "servers" | "flavors" | "images") || name.starts_with("os-");
    match segments[..] {
        [] => false,
        _ if segments.iter().any(|segment| segment.is_empty()) => false,
        ["v2.1", collection, ..] if is_collection(collection) => true,
        ["v1.1" | "v2" | "v2.1", _project, collection, ..] => is_collection(collection),
        _ => false,
    }
}

/// Another method than those that the path has. They are in `Allow`, which is all that `OPTIONS` asks for.
pub(super) async fn bad_method(ask: Ask) -> Response {
    ask.answer(|ask| match ask.method {
        Method::OPTIONS => Ok(StatusCode::NO_CONTENT.into_response()),
        _ => Err(Fault::bad_method(&ask.method)),
    })
}

/// What is asked, by whom it is to be answered, and in which format and version.
pub(super) struct Ask {
    app: App,
    format: Format,
    /// The format was named by the path, which therefore had a suffix.
    has_suffix: bool,
    version: Version,
    /// Why this is refused whatever is asked: its version is not that one, or its path is no text.
    refusal: Option<Fault>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    path: PathParameters,
    /// Nobody, where anybody may ask.
    identity: Option<Identity>,
    /// What is left of the caller's rate limit: of the project's or, without one, of the peer's.
    allowance: Option<Allowance>,
}

/// The variable parts of the paths.
#[derive(Default, Deserialize)]
struct PathParameters {
    project: Option<Box<str>>,
    #[serde(default)]
    id: Box<str>,
    #[serde(default)]
    port_id: Box<str>,
    #[serde(default)]
    alias: Box<str>,
}

impl FromRequestParts<App> for Ask {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let path = Path::<PathParameters>::from_request_parts(parts, app).await;
        // A path that is not UTF-8 names nothing, and no project either.
        let not_text = match &path {
            Err(PathRejection::FailedToDeserializePathParams(_)) => {
                Some(Fault::not_found("The resource could not be found."))
            }
            _ => None,
        };
        let (version, refusal) = match Version::of_request(parts.uri.path(), &parts.headers) {
            Ok(version) => (version, not_text),
            Err(fault) => (Version::V2_1(Microversion::MIN), Some(fault)),
        };
        Ok(Self {
            app: app.clone(),
            format: Format::of_request(&parts.headers, &parts.extensions),
            has_suffix: parts.extensions.get::<Format>().is_some(),
            version,
            refusal,
            method: parts.method.clone(),
            uri: std::mem::take(&mut parts.uri),
            headers: std::mem::take(&mut parts.headers),
            path: path.map(|Path(path)| path).unwrap_or_default(),
            identity: parts.extensions.remove(),
            allowance: parts.extensions.remove(),
        })
    }
}

impl Ask {
    fn answer(self, answer: impl FnOnce(&Self) -> Result<Response, Fault>) -> Response {
        let outcome = self.check().and_then(|()| answer(&self));
        self.finish(outcome.unwrap_or_else(|fault| fault.response(self.format)))
    }

    /// The path may name the caller's own project only, whatever is there; and the version must be one that is spoken.
    fn check(&self) -> Result<(), Fault> {
        let may_name = |project: &str| self.identity.as_ref().is_some_and(|identity| identity.may_name(project));
        match (&self.path.project, &self.refusal) {
            (Some(project), _) if !may_name(project) => {
                Err(Fault::forbidden("The project of the path is not that of the caller."))
            }
            (_, Some(refusal)) => Err(refusal.clone()),
            _ => Ok(()),
        }
    }

    /// Says what the answer depends on, and which version it speaks.
    fn finish(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        version::vary(self.uri.path(), headers);
        if self.refusal.is_none() {
            self.version.tell(headers);
        }
        response
    }

    /// What was taken off the path.
    fn suffix(&self) -> &'static str {
        match self.format {
            _ if !self.has_suffix => "",
            Format::Json => ".json",
            Format::Xml => ".xml",
        }
    }
}

/// The namespace of the Compute API 1.1.
pub(super) const COMPUTE_1_1: &str = "http://docs.openstack.org/compute/api/v1.1";

#[cfg(test)]
pub(super) mod tests;
