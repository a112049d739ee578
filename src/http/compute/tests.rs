//! The contract, rule by rule: each row of a table is a rule's name, a request and what must come back. Every XML body
//! that comes back is held against the schemas in `tests/data/xsd`, whatever else its row says.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::{Layer, ServiceExt, util::MapRequestLayer};
use uuid::Uuid;

use super::*;
use crate::{
    http::{
        auth::{Authenticator, peer::Admins},
        host::events::Events,
        metrics::Metrics,
    },
    inventory::{
        Inventory,
        births::Births,
        recent::Recent,
        testing::{PORT, WEB, bridged, joined, link, nova, ovs_port, view, with_ports},
    },
    journal::{JournalState, history::Journal},
    meters::Meters,
    source::{libvirt::reread::Rereads, moment::Moment, netlink::CounterReader, ovsdb::rows::Port},
};

mod bodies;
mod calls;
mod faults;
mod formats;
mod freshness;
mod pages;
mod versions;

/// A rule of the contract.
struct Rule {
    name: &'static str,
    /// The host that is asked.
    on: fn() -> Inventory,
    /// Method and path.
    ask: &'static str,
    /// Headers of the request.
    with: &'static [(&'static str, &'static str)],
    body: &'static str,
    status: u16,
    /// Headers of the answer, with all of their values; nothing for one that must not be there.
    headers: &'static [(&'static str, &'static str)],
    answer: Answer,
}

/// What the body of an answer must be.
enum Answer {
    Any,
    Empty,
    /// This text.
    Text(&'static str),
    /// XML with this root element.
    Xml(&'static str),
    /// JSON that is equal to this.
    Json(&'static str),
    /// VIFs with these ids, and the link to what follows.
    Page(&'static [u128], Option<&'static str>),
    /// The fault of this name with the status as its code, in JSON; and the same in XML, if asked for with `.xml`.
    Fault(&'static str),
}

/// What a row does not say.
const RULE: Rule =
    Rule { name: "", on: one_vif, ask: "", with: &[], body: "", status: 200, headers: &[], answer: Answer::Any };

/// The instance 42, which has one VIF with a tap.
pub(in crate::http) fn one_vif() -> Inventory {
    joined(&view(&[nova(&bridged(MAC, "tapa756caef-c7", ""), &[PORT])], &[link(7, "tapa756caef-c7")]))
}

/// The same instance, with the VIF on a network that Open vSwitch knows.
fn on_a_network() -> Inventory {
    let port = Port { network_id: Some(NETWORK), ..ovs_port("tapa756caef-c7", 5) };
    let domain = nova(&bridged(MAC, "tapa756caef-c7", ""), &[PORT]);
    joined(&with_ports(view(&[domain], &[link(7, "tapa756caef-c7")]), &[port]))
}

/// The same instance without an interface.
fn no_vif() -> Inventory {
    joined(&view(&[nova("", &[])], &[]))
}

const MAC: &str = "fa:16:3e:00:00:01";
const NETWORK: Uuid = Uuid::from_u128(0x3d1f);

pub(in crate::http) async fn ask(inventory: Inventory, mut request: Request) -> Response {
    let (counters, _) = CounterReader::new();
    let (rereads, ..) = Rereads::new();
    let (_, births) = watch::channel(Births::default());
    let now = Moment::now();
    let metrics = Metrics { meters: Arc::new(Meters::new([])), births, boot: now, start: now, most: 100 };
    let auth = Authenticator::new(Admins { own: 0, group: 0 }, None).unwrap().into();
    let inventory = watch::channel(Arc::new(inventory)).1;
    let (recent, _) = Recent::new(inventory.clone());
    let journal = Journal::new(Path::new(""), watch::channel(JournalState::Off).1);
    let events = Events::new(recent, Duration::from_secs(60), CancellationToken::new());
    let findings = watch::channel(Arc::default()).1;
    let app = App { inventory, findings, counters, rereads, epoch: 1, auth, metrics, journal, events };
    request.extensions_mut().get_or_insert_with(Identity::admin);
    MapRequestLayer::new(normalize).layer(super::super::router(app)).oneshot(request).await.unwrap()
}

pub(in crate::http) fn request(method_and_path: &str, headers: &[(&str, &str)], body: &str) -> Request {
    let (method, path) = method_and_path.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

pub(in crate::http) async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Holds every row, and says of each that does not hold what came back.
async fn hold(rules: &[Rule]) {
    let mut broken = String::new();
    for rule in rules {
        for (suffix, is_xml) in [("", false), (".xml", true)] {
            // A fault is the same in both formats; other rows say themselves what they want.
            if is_xml && !(matches!(rule.answer, Answer::Fault(_)) && rule.is_without_format()) {
                continue;
            }
            let (path, query) =
                rule.ask.split_once('?').map_or((rule.ask, String::new()), |(path, query)| (path, format!("?{query}")));
            let request = request(&format!("{path}{suffix}{query}"), rule.with, rule.body);
            let response = ask((rule.on)(), request).await;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = text(response).await;
            if let Err(problem) = rule.check(status, &headers, &body) {
                broken +=
                    &format!("{}\n  {}{suffix}\n  {problem}\n  {status} {headers:?}\n  {body}\n", rule.name, rule.ask);
            }
        }
    }
    assert!(broken.is_empty(), "broken rules:\n{broken}");
}

impl Rule {
    /// Whether neither its path nor a header names a format.
    fn is_without_format(&self) -> bool {
        !self.ask.contains(".json")
            && !self.ask.contains(".xml")
            && !self.with.iter().any(|(name, _)| *name == "accept")
    }

    fn check(&self, status: u16, headers: &HeaderMap, body: &str) -> Result<(), String> {
        if status != self.status {
            return Err(format!("wanted the status {}", self.status));
        }
        for (name, wanted) in self.headers {
            let values: Vec<_> = headers.get_all(*name).iter().map(|value| value.to_str().unwrap()).collect();
            if values.join(", ") != *wanted {
                return Err(format!("wanted {name}: {wanted}"));
            }
        }
        let content_type = headers.get("content-type").map(|value| value.to_str().unwrap());
        let is_xml = match content_type {
            _ if body.is_empty() => false,
            Some("application/json") => false,
            Some("application/xml; charset=UTF-8") => true,
            other => return Err(format!("the type is {other:?}")),
        };
        if is_xml {
            validate(body)?;
        }
        let wanted = |what: bool, wanted: &str| if what { Ok(()) } else { Err(format!("wanted {wanted}")) };
        match self.answer {
            Answer::Any => Ok(()),
            Answer::Empty => wanted(body.is_empty(), "no body"),
            Answer::Text(text) => wanted(body == text, text),
            Answer::Xml(root) => wanted(
                is_xml && roxmltree::Document::parse(body).unwrap().root_element().tag_name().name() == root,
                root,
            ),
            Answer::Json(json) => {
                let (body, json): (Option<Value>, Value) =
                    (serde_json::from_str(body).ok(), serde_json::from_str(json).unwrap());
                wanted(body.as_ref() == Some(&json), &json.to_string())
            }
            Answer::Page(ids, next) => {
                let vif = |id: &u128| json!({ "id": Uuid::from_u128(*id), "mac_address": MAC });
                let mut page = json!({ "virtual_interfaces": ids.iter().map(vif).collect::<Vec<_>>() });
                if let Some(next) = next {
                    page["virtual_interfaces_links"] = json!([{ "rel": "next", "href": next }]);
                }
                wanted(serde_json::from_str::<Value>(body).ok().as_ref() == Some(&page), &page.to_string())
            }
            Answer::Fault(name) if is_xml => {
                let document = roxmltree::Document::parse(body).unwrap();
                let root = document.root_element();
                let code = root.attribute("code") == Some(&status.to_string());
                wanted(code && root.has_tag_name((COMPUTE_1_1, name)), name)
            }
            Answer::Fault(name) => {
                let body: Value = serde_json::from_str(body).unwrap_or_default();
                let fault = &body[name];
                let whole = fault["code"] == status && fault["message"].as_str().is_some_and(|text| !text.is_empty());
                wanted(whole && body.as_object().is_some_and(|body| body.len() == 1), name)
            }
        }
    }
}

/// Holds a document against the schemas.
pub(super) fn validate(xml: &str) -> Result<(), String> {
    const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/xsd/all.xsd");
    let mut command = Command::new("xmllint");
    command.args(["--nonet", "--noout", "--schema", SCHEMA, "-"]);
    let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut process = process.expect("xmllint is there: packaging/install-deps test");
    process.stdin.take().unwrap().write_all(xml.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
