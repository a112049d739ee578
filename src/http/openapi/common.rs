//! What calls have in common: how they are refused, and which headers and parameters they know.

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::Operation;
use crate::http::{
    compute::{COMPUTE_1_1, fault::FaultBody},
    host::ErrorBody,
};

pub(super) const DESCRIPTION: &str = "\
Which virtual interfaces the instances of this hypervisor have, and which devices carry them.

The Compute API's calls are there under four bases, which differ in the version that they speak. They answer in JSON \
or XML: a suffix of the path, `.json` or `.xml`, goes before `Accept`. XML is described here as text; its elements are \
those of the Compute API 1.1 developer guide, its schemas, and the extensions. Other documented calls of the Compute \
API are refused with 501: no host can serve them.

The host's own API, below `/host/v1`, is for the administrators of the host. A call is answered to whom the connection \
proves to be somebody (a process of root or of the socket's group; a proxy that vouches for a user), or a token.

An answer with another status than those described is a fault of vifd.";

pub(super) const STALE: &str = "The same, of a record that is not being kept current: `Age` says since when.";
pub(super) const UNCHANGED: &str = "The caller has the answer already.";

/// To which API a call belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Compute { microversions: bool },
    Host,
    Own,
}

impl Api {
    pub(super) fn of_path(path: &str) -> Self {
        match path.split('/').nth(1).unwrap_or_default() {
            "host" => Self::Host,
            "live" | "ready" | "openapi.json" | "metrics" => Self::Own,
            root => Self::Compute { microversions: root == "v2.1" },
        }
    }

    pub(super) fn tag(self) -> &'static str {
        match self {
            Self::Compute { .. } => "compute",
            Self::Host => "host",
            Self::Own => "daemon",
        }
    }

    pub(super) fn faults(self) -> &'static [Fault] {
        if self == Self::Host { &HOST_ERRORS } else { &FAULTS }
    }

    pub(super) fn request_media_types(self, schema: &Value) -> Value {
        // The only element that means something in a request. Where anything may be sent in JSON, so it may in it.
        let element = json!({ "name": "virtual_interfaces", "namespace": COMPUTE_1_1 });
        let anything = schema.get("additionalProperties").is_none_or(|allowed| *allowed == json!(true));
        let xml = json!({ "schema": { "type": "object", "additionalProperties": anything, "xml": element } });
        json!({
            "application/json": { "schema": schema },
            "application/vnd.openstack.compute+json": { "schema": schema },
            "application/xml": xml,
            "application/vnd.openstack.compute+xml": xml,
        })
    }

    pub(super) fn answer_media_types(self, schema: &Value) -> Value {
        let json = json!({ "schema": schema });
        match self {
            Self::Compute { .. } => json!({ "application/json": json, "application/xml": xml() }),
            Self::Host | Self::Own => json!({ "application/json": json }),
        }
    }

    /// Of answers that are no refusals.
    pub(super) fn answer_headers(self, needs_identity: bool) -> Map<String, Value> {
        let names: &[&str] = match self {
            Self::Compute { microversions: true } if needs_identity => {
                &["Vary", "OpenStack-API-Version", "X-OpenStack-Nova-API-Version"]
            }
            Self::Compute { .. } => &["Vary"],
            Self::Host | Self::Own => &[],
        };
        IDS.iter().chain(names).map(|name| ((*name).to_owned(), header(name))).collect()
    }

    pub(super) fn header_parameters(self, needs_identity: bool) -> Vec<Value> {
        let microversions = matches!(self, Self::Compute { microversions: true }) && needs_identity;
        let names: &[&str] =
            if microversions { &["OpenStack-API-Version", "X-OpenStack-Nova-API-Version"] } else { &[] };
        names.iter().chain(&["X-Openstack-Request-Id"]).map(|name| parameter(name)).collect()
    }
}

/// XML, of which only the JSON's fields are described.
fn xml() -> Value {
    json!({ "schema": { "type": "string" } })
}

const IDS: [&str; 2] = ["X-Openstack-Request-Id", "X-Compute-Request-Id"];

/// A refusal that calls have in common.
pub(super) struct Fault {
    pub(super) status: u16,
    /// The member of the JSON object; of the host's API, there is one for all.
    name: &'static str,
    description: &'static str,
    who: Who,
}

/// Which calls meet a refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    All,
    WithIdentity,
    WithMicroversion,
    WithBody,
    OfInstance,
    Elsewhere,
}

impl Fault {
    const fn new(status: u16, name: &'static str, description: &'static str, who: Who) -> Self {
        Self { status, name, description, who }
    }

    pub(super) fn meets(&self, api: Api, operation: &Operation) -> bool {
        match self.who {
            Who::All => true,
            Who::WithIdentity => operation.needs_identity,
            Who::WithMicroversion => operation.needs_identity && api == Api::Compute { microversions: true },
            Who::WithBody => operation.body.is_some(),
            Who::OfInstance => operation.about_instance,
            Who::Elsewhere => operation.status == self.status,
        }
    }
}

const BAD_REQUEST: &str = "A parameter or the body is malformed.";
const UNAUTHORIZED: &str = "Nothing proves who asks; `WWW-Authenticate` says what would.";
const FORBIDDEN: &str = "It is known who asks, and this is not for them.";
const TOO_SLOW: &str = "The request did not arrive in time, or was not answered in time.";
const OVER_LIMIT: &str = "Too many requests; `Retry-After` says when to come back. Or the body is too large.";
const URI_TOO_LONG: &str = "The path and query are too long.";
const UNAVAILABLE: &str = "What was asked for is not known yet, somebody who must be asked cannot be (Keystone, the \
                           kernel), or every connection is taken.";

const FAULTS: [Fault; 12] = [
    Fault::new(400, "badRequest", BAD_REQUEST, Who::All),
    Fault::new(401, "unauthorized", UNAUTHORIZED, Who::WithIdentity),
    Fault::new(403, "forbidden", FORBIDDEN, Who::WithIdentity),
    Fault::new(404, "itemNotFound", "There is no such thing, or not for the one who asks.", Who::WithIdentity),
    Fault::new(406, "computeFault", "The microversion is not spoken here.", Who::WithMicroversion),
    Fault::new(408, "computeFault", TOO_SLOW, Who::All),
    Fault::new(
        409,
        "buildInProgress",
        "The instance is being started; its devices are not there yet.",
        Who::OfInstance,
    ),
    Fault::new(413, "overLimit", OVER_LIMIT, Who::All),
    Fault::new(414, "computeFault", URI_TOO_LONG, Who::All),
    Fault::new(415, "badMediaType", "The body is neither JSON nor XML, or does not say so.", Who::WithBody),
    Fault::new(501, "notImplemented", "A documented call that no host can serve.", Who::Elsewhere),
    Fault::new(503, "serviceUnavailable", UNAVAILABLE, Who::All),
];

const HOST_ERRORS: [Fault; 8] = [
    Fault::new(400, "error", BAD_REQUEST, Who::All),
    Fault::new(401, "error", UNAUTHORIZED, Who::All),
    Fault::new(403, "error", FORBIDDEN, Who::All),
    Fault::new(404, "error", "There is no such thing.", Who::All),
    Fault::new(408, "error", TOO_SLOW, Who::All),
    Fault::new(413, "error", OVER_LIMIT, Who::All),
    Fault::new(414, "error", URI_TOO_LONG, Who::All),
    Fault::new(503, "error", UNAVAILABLE, Who::All),
];

pub(super) fn fault_response(api: Api, fault: &Fault) -> Value {
    let of = if api == Api::Host { "host" } else { "compute" };
    json!({ "$ref": format!("#/components/responses/{of}-{}", fault.status) })
}

/// Either this answer or the fault with a status.
pub(super) fn or_fault(content: &Value, status: u16) -> Value {
    let fault = format!("#/components/responses/compute-{status}/content/application~1json/schema");
    let schema = &content["application/json"]["schema"];
    json!({ "application/json": { "schema": { "anyOf": [schema, { "$ref": fault }] } }, "application/xml": xml() })
}

/// A response of the components.
fn refusal(fault: &Fault, generator: &mut SchemaGenerator) -> Value {
    let content = if fault.name == "error" {
        json!({ "application/json": { "schema": generator.subschema_for::<ErrorBody>() } })
    } else {
        let fault_body = generator.subschema_for::<FaultBody>();
        let schema = json!({
            "type": "object", "required": [fault.name], "properties": { fault.name: fault_body },
            "additionalProperties": false,
        });
        json!({ "application/json": { "schema": schema }, "application/xml": xml() })
    };
    let further: &[&str] = match fault.status {
        401 => &["WWW-Authenticate"],
        413 => &["Retry-After"],
        503 => &["Retry-After", "Warning"],
        404 => &["Warning"],
        _ => &[],
    };
    let headers: Map<_, _> = IDS.iter().chain(further).map(|name| ((*name).to_owned(), header(name))).collect();
    json!({ "description": fault.description, "headers": headers, "content": content })
}

pub(super) fn header(name: &str) -> Value {
    json!({ "$ref": format!("#/components/headers/{name}") })
}

pub(super) fn parameter(name: &str) -> Value {
    json!({ "$ref": format!("#/components/parameters/{name}") })
}

/// The variable parts of a path.
pub(super) fn path_parameters(path: &str) -> Vec<Value> {
    let host = Api::of_path(path) == Api::Host;
    let variables = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    variables.map(|name| if host && name == "id" { parameter("host-id") } else { parameter(name) }).collect()
}

/// Of headers of answers: name, whether it is always there, pattern, description.
const HEADERS: [(&str, bool, &str, &str); 10] = [
    ("X-Openstack-Request-Id", true, REQUEST_ID, "The id of this request, in vifd's log too."),
    ("X-Compute-Request-Id", true, REQUEST_ID, "The same."),
    ("Vary", true, "^Accept", "On which headers of the request the answer depends."),
    ("OpenStack-API-Version", true, "^compute 2\\.[0-9]+$", "The microversion that the answer speaks."),
    ("X-OpenStack-Nova-API-Version", true, "^2\\.[0-9]+$", "The same, as older clients read it."),
    ("ETag", true, "^\"[^\"]+\"$", "Changes with the answer, for `If-None-Match`."),
    ("Age", true, "^[0-9]+$", "The seconds since the answer was last known to be current: 0 while it is kept so."),
    ("Warning", false, "^110 ", "There while the answer is not kept current."),
    ("Retry-After", false, "^[0-9]+$", "After so many seconds it is worth to ask again."),
    ("WWW-Authenticate", true, ".", "What would prove who asks."),
];

const REQUEST_ID: &str = "^req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";

/// Parameters: key, name, where, pattern (none where anything goes), description.
const PARAMETERS: [(&str, &str, &str, &str, &str); 11] = [
    ("project", "project", "path", "^[^/]+$", "The id of the caller's project; an administrator may name any."),
    (
        "id",
        "id",
        "path",
        "^[^/]+$",
        "The instance: its UUID in any letter case, with or without hyphens, or the integer id of the API 1.1.",
    ),
    ("port_id", "port_id", "path", "^[^/]+$", "The VIF's id: of Neutron's port, where there is one."),
    ("alias", "alias", "path", "^[^/]+$", "The extension's alias."),
    ("host-id", "id", "path", "^[^/]+$", "The instance: its UUID, libvirt name or integer id."),
    ("device", "device", "path", "^[^/]+$", "The link: its name, an alternative name, or its index."),
    ("path", "path", "path", "^[^/]+$", "A path without a version."),
    (
        "OpenStack-API-Version",
        "OpenStack-API-Version",
        "header",
        "^compute (2\\.([1-9][0-9]?|100)|latest)$",
        "The microversion that the answer is to speak: `compute 2.12`, `compute latest`. Without it 2.1.",
    ),
    (
        "X-OpenStack-Nova-API-Version",
        "X-OpenStack-Nova-API-Version",
        "header",
        "^(2\\.([1-9][0-9]?|100)|latest)$",
        "The same, as older clients say it; the other one goes before.",
    ),
    (
        "X-Openstack-Request-Id",
        "X-Openstack-Request-Id",
        "header",
        "",
        "The id that the request has in the caller's log; ours names it. What is not `req-` and a UUID is passed over.",
    ),
    ("If-None-Match", "If-None-Match", "header", "", "The `ETag` of an answer that the caller has."),
];

/// What paths refer to, but for the schemas.
pub(super) fn components(generator: &mut SchemaGenerator) -> Value {
    let compute = FAULTS.iter().map(|fault| ("compute", fault));
    let faults = compute.chain(HOST_ERRORS.iter().map(|error| ("host", error)));
    let responses: Map<_, _> =
        faults.map(|(of, fault)| (format!("{of}-{}", fault.status), refusal(fault, generator))).collect();
    let headers = HEADERS.map(|(name, required, pattern, description)| {
        let schema = json!({ "type": "string", "pattern": pattern });
        (name.to_owned(), json!({ "description": description, "required": required, "schema": schema }))
    });
    let parameters = PARAMETERS.map(|(key, name, place, pattern, description)| {
        let required = place == "path";
        let schema = if pattern.is_empty() {
            json!({ "type": "string" })
        } else {
            json!({ "type": "string", "pattern": pattern })
        };
        let parameter = json!({
            "name": name, "in": place, "required": required, "description": description, "schema": schema,
        });
        (key.to_owned(), parameter)
    });
    json!({
        "responses": responses,
        "headers": Map::from_iter(headers),
        "parameters": Map::from_iter(parameters),
        "securitySchemes": {
            "token": {
                "type": "apiKey", "in": "header", "name": "X-Auth-Token",
                "description": "A token of Keystone's, where the configuration names a Keystone.",
            },
            "certificate": {
                "type": "mutualTLS",
                "description": "The certificate of a proxy that the configuration names, which vouches for a user by \
                                X-Identity-Status, X-Project-Id, X-User-Id and X-Roles.",
            },
        },
    })
}

/// A token, a proxy's certificate, or nothing: the kernel says who is at the other end of a Unix socket.
pub(super) fn security() -> Value {
    json!([{ "token": [] }, { "certificate": [] }, {}])
}

pub(super) fn tags() -> Value {
    json!([
        { "name": "compute", "description": "The Compute API's calls about virtual interfaces." },
        { "name": "host", "description": "The host's own API." },
        { "name": "daemon", "description": "About the daemon itself." },
    ])
}
