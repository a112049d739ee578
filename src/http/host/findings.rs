//! `findings`: what is not as it should be.

use std::sync::Arc;

use axum::extract::{Query, State, rejection::QueryRejection};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{App, Error, Reply, reply};
use crate::findings::{Code, Finding, Severity, Unseen};

/// `findings`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FindingsReport {
    /// The worst first.
    pub findings: Vec<Arc<Finding>>,
    /// How many more were seen and are not confirmed yet; of all, whatever was asked for.
    pub unconfirmed: usize,
    /// The daemon has not looked often enough to confirm anything.
    pub young: bool,
    /// How many looks there have been.
    pub looks: u64,
    /// How many rules there are.
    pub rules: usize,
    /// What could not be looked at.
    pub unseen: Vec<Unseen>,
    /// How many instances were looked at.
    pub instances: usize,
    /// How many VIFs.
    pub vifs: usize,
    /// How many links.
    pub links: usize,
    /// How many Open vSwitch ports.
    pub ovs_ports: usize,
}

/// The filters of `findings`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FindingFilter {
    /// With this code.
    code: Option<Code>,
    /// As bad as this.
    severity: Option<Severity>,
    /// About whatever this is: a name, MAC or IP address, ifindex, id, socket or Open vSwitch port (`br-int:5`).
    subject: Option<String>,
    /// Those too that were not seen often enough yet.
    unconfirmed: bool,
}

pub(super) async fn findings(
    State(app): State<App>,
    filter: Result<Query<FindingFilter>, QueryRejection>,
) -> Reply<FindingsReport> {
    let Query(filter) = filter.map_err(|error| Error::BadRequest(error.body_text()))?;
    let inventory = app.inventory();
    let known = Arc::clone(&app.findings.borrow());
    let mut findings = known.raised.clone();
    let mut unconfirmed = known.unconfirmed.len();
    if filter.unconfirmed {
        let others = known.unconfirmed_in(&inventory);
        unconfirmed = others.len();
        findings.extend(others);
        crate::findings::sort(&mut findings);
    }
    let matches = filter.subject.as_ref().map(|thing| inventory.find(thing)).unwrap_or_default();
    findings.retain(|finding| {
        filter.code.is_none_or(|code| finding.code == code)
            && filter.severity.is_none_or(|severity| finding.severity == severity)
            && filter.subject.as_ref().is_none_or(|thing| finding.concerns(thing, &matches))
    });
    if let Some(thing) = filter.subject.filter(|_| matches.is_empty() && findings.is_empty()) {
        return Err(Error::NotFound(format!("nothing on this host matches {thing}")));
    }
    let body = FindingsReport {
        findings,
        unconfirmed,
        young: known.are_young(),
        looks: known.looks,
        rules: crate::findings::rule_count(),
        unseen: crate::findings::unseen(&inventory),
        instances: inventory.instances.len(),
        vifs: inventory.vif_count(),
        links: inventory.links().len(),
        ovs_ports: inventory.ports().len(),
    };
    reply(&inventory, body)
}
