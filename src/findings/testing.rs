//! Findings for unit tests.

use std::collections::BTreeMap;

use super::{Code, Finding, Severity, Subject, SubjectKind, rules, scene, scene::Scene, surroundings::Surroundings};
use crate::inventory::Inventory;

/// A finding of which only code and name matter.
pub(super) fn finding(code: Code, name: &str) -> Finding {
    scene::finding(code, Severity::Warning, Subject::called(SubjectKind::Device, name))
}

/// What a look at this inventory finds: codes and subjects.
pub(super) fn found(inventory: &Inventory) -> Vec<(Code, String)> {
    look(inventory).into_iter().map(|finding| (finding.code, finding.subject.name.to_string())).collect()
}

/// The same with everything about them.
pub(super) fn look(inventory: &Inventory) -> Vec<Finding> {
    let surroundings = Surroundings::default();
    let found = rules::look(&Scene::of(inventory, &surroundings));
    let keys: BTreeMap<_, _> = found.iter().map(|finding| ((finding.code, &finding.subject), ())).collect();
    assert_eq!(keys.len(), found.len(), "a finding is told twice");
    found
}
