//! Which versions there are: the list, the detail of each, and the choices for a path that names none.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Ask,
    extensions::COMMON_1_0,
    format::Body,
    link::{self, Link, origin},
    version::Microversion,
};
use crate::http::openapi::{Operation, Routes};

/// A version that is served.
struct Served {
    id: &'static str,
    /// The first segment of its paths.
    root: &'static str,
    status: Status,
    /// That of its media types.
    media_version: &'static str,
    updated: &'static str,
    has_microversions: bool,
}

const SERVED: [Served; 3] = [
    Served {
        id: "v1.1",
        root: "v1.1",
        status: Status::Supported,
        media_version: "1.1",
        updated: "2011-01-21T11:33:21Z",
        has_microversions: false,
    },
    Served {
        id: "v2.0",
        root: "v2",
        status: Status::Supported,
        media_version: "2",
        updated: "2011-01-21T11:33:21Z",
        has_microversions: false,
    },
    Served {
        id: "v2.1",
        root: "v2.1",
        status: Status::Current,
        media_version: "2.1",
        updated: "2013-07-23T11:33:21Z",
        has_microversions: true,
    },
];

pub(super) fn routes() -> Routes {
    let list_says = Operation::new::<List>("list_versions", "The versions that are served", 200, "The versions.");
    let mut routes = Routes::at("").get("/", list, list_says.open());
    for (path, name) in [
        ("/v1.1", "show_version_1_1"),
        ("/v1.1/", "show_version_1_1_slash"),
        ("/v2", "show_version_2"),
        ("/v2/", "show_version_2_slash"),
        ("/v2.1", "show_version_2_1"),
        ("/v2.1/", "show_version_2_1_slash"),
    ] {
        let show_says = Operation::new::<One>(name, "One of the versions", 200, "The version.");
        routes = routes.get(path, show, show_says.open());
    }
    routes
}

/// `GET /`
pub(super) async fn list(ask: Ask) -> Response {
    let versions = SERVED.iter().map(|served| served.version(&ask, "/", false)).collect();
    ask.document(StatusCode::OK, &List { versions })
}

/// `GET /v1.1/` and so on, with or without the slash.
pub(super) async fn show(ask: Ask) -> Response {
    let root = ask.uri.path().trim_matches('/');
    // Only the roots of versions that are served are routed here.
    let served = SERVED.iter().find(|served| served.root == root).unwrap_or(&SERVED[0]);
    let mut version = served.version(&ask, "/", true);
    let (href, media_type) = ("http://docs.openstack.org/".to_owned(), Some("text/html"));
    version.links.push(Link { rel: "describedby", media_type, href });
    ask.document(StatusCode::OK, &One { version })
}

/// 300 for a path without a version: where it is in each of them.
pub(super) fn choices(ask: &Ask) -> Response {
    let rest = format!("{}{}", ask.uri.path(), ask.suffix());
    let choices = SERVED.iter().map(|served| served.version(ask, &rest, true)).collect();
    ask.document(StatusCode::MULTIPLE_CHOICES, &Choices { choices })
}

impl Ask {
    /// These answers are the same in each microversion, and asking for one that does not exist is how a client finds out
    /// which do.
    fn document(&self, status: StatusCode, body: &impl Body) -> Response {
        let response = (status, self.format.body(body)).into_response();
        self.finish(response)
    }
}

/// The list of versions.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Versions")]
struct List {
    versions: Vec<Version>,
}

/// The detail of a version.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OneVersion")]
struct One {
    version: Version,
}

/// The choices for a path without a version.
#[derive(Serialize, JsonSchema)]
pub(super) struct Choices {
    choices: Vec<Version>,
}

/// A version.
#[derive(Serialize, JsonSchema)]
struct Version {
    /// `v2.1`
    id: &'static str,
    /// Whether it is the newest one.
    status: Status,
    /// The newest microversion; empty where there are none.
    version: String,
    /// The oldest microversion; empty where there are none.
    min_version: String,
    /// When it last changed.
    updated: &'static str,
    /// Where it is.
    links: Vec<Link>,
    /// What it is told in; not in the list of versions.
    #[serde(rename = "media-types", skip_serializing_if = "Option::is_none")]
    media_types: Option<[MediaType; 2]>,
}

/// Nova's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Current,
    Supported,
}

/// A format with its name in this version.
#[derive(Clone, Serialize, JsonSchema)]
struct MediaType {
    base: &'static str,
    #[serde(rename = "type")]
    name: String,
}

impl Served {
    /// With the path `rest` under this version as the link.
    fn version(&self, ask: &Ask, rest: &str, detailed: bool) -> Version {
        let microversion = |version: Microversion| {
            if self.has_microversions { version.to_string() } else { String::new() }
        };
        let media_type = |format| MediaType {
            base: if format == "json" { "application/json" } else { "application/xml" },
            name: format!("application/vnd.openstack.compute+{format};version={}", self.media_version),
        };
        Version {
            id: self.id,
            status: self.status,
            version: microversion(Microversion::MAX),
            min_version: microversion(Microversion::MIN),
            updated: self.updated,
            links: vec![Link::new("self", format!("{}/{}{rest}", origin(&ask.headers), self.root))],
            media_types: detailed.then(|| ["json", "xml"].map(media_type)),
        }
    }
}

/// A version in XML: without microversions and with the words of the guide's time.
#[derive(Serialize)]
#[serde(rename = "version")]
struct Element {
    #[serde(rename = "@xmlns", skip_serializing_if = "Option::is_none")]
    xmlns: Option<&'static str>,
    #[serde(rename = "@xmlns:atom", skip_serializing_if = "Option::is_none")]
    xmlns_atom: Option<&'static str>,
    #[serde(rename = "@id")]
    id: &'static str,
    #[serde(rename = "@status")]
    status: &'static str,
    #[serde(rename = "@updated")]
    updated: &'static str,
    #[serde(rename = "media-types", skip_serializing_if = "Option::is_none")]
    media_types: Option<MediaTypes>,
    #[serde(rename = "atom:link")]
    links: Vec<link::Element>,
}

#[derive(Serialize)]
struct MediaTypes {
    #[serde(rename = "media-type")]
    media_types: Vec<MediaTypeElement>,
}

#[derive(Serialize)]
struct MediaTypeElement {
    #[serde(rename = "@base")]
    base: &'static str,
    #[serde(rename = "@type")]
    name: String,
}

impl Version {
    fn element(&self, is_root: bool) -> Element {
        let media_type = |of: &MediaType| MediaTypeElement { base: of.base, name: of.name.clone() };
        let media_types = |of: &[MediaType; 2]| MediaTypes { media_types: of.iter().map(media_type).collect() };
        Element {
            xmlns: is_root.then_some(COMMON_1_0),
            xmlns_atom: is_root.then_some(link::ATOM),
            id: self.id,
            // The schema knows ALPHA, BETA, CURRENT and DEPRECATED.
            status: "CURRENT",
            updated: self.updated,
            media_types: self.media_types.as_ref().map(media_types),
            links: self.links.iter().map(Link::element).collect(),
        }
    }
}

/// The inside of a list's root.
#[derive(Serialize)]
struct Elements {
    #[serde(rename = "@xmlns")]
    xmlns: &'static str,
    #[serde(rename = "@xmlns:atom")]
    xmlns_atom: &'static str,
    #[serde(rename = "version")]
    versions: Vec<Element>,
}

impl Elements {
    fn of(versions: &[Version]) -> Self {
        let versions = versions.iter().map(|version| version.element(false)).collect();
        Self { xmlns: COMMON_1_0, xmlns_atom: link::ATOM, versions }
    }
}

impl Body for List {
    fn xml(&self) -> impl Serialize {
        #[derive(Serialize)]
        #[serde(rename = "versions")]
        struct Root(Elements);
        Root(Elements::of(&self.versions))
    }
}

impl Body for Choices {
    fn xml(&self) -> impl Serialize {
        #[derive(Serialize)]
        #[serde(rename = "choices")]
        struct Root(Elements);
        Root(Elements::of(&self.choices))
    }
}

impl Body for One {
    fn xml(&self) -> impl Serialize {
        self.version.element(true)
    }
}
