//! What parts of the daemon say about themselves: that they cannot do their work, and why. Answering goes on meanwhile.

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::source::moment::Moment;

/// A part of the daemon that can fail alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The records for the next start.
    Cache,
    /// The flight recorder.
    Journal,
}

/// Since when and why a part cannot do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Since when.
    pub since: Moment,
    /// Why.
    pub reason: Arc<str>,
}

/// The parts that are in trouble.
pub type Troubles = BTreeMap<Part, Trouble>;

/// Where parts say how they are.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<watch::Sender<Troubles>>);

impl Health {
    /// Says that a part is well, or why it is not. The same again is no news.
    pub fn tell(&self, part: Part, trouble: Option<&str>) {
        self.0.send_if_modified(|troubles| match (trouble, troubles.get_mut(&part)) {
            (None, _) => troubles.remove(&part).is_some(),
            (Some(reason), Some(known)) => {
                let news = *known.reason != *reason;
                known.reason = reason.into();
                news
            }
            (Some(reason), None) => {
                troubles.insert(part, Trouble { since: Moment::now(), reason: reason.into() });
                true
            }
        });
    }

    /// What they say.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Troubles> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_in_trouble_until_it_says_that_it_is_well() {
        let health = Health::default();
        let mut said = health.subscribe();
        health.tell(Part::Cache, None);
        assert!(!said.has_changed().unwrap());
        health.tell(Part::Cache, Some("full"));
        let first = said.borrow_and_update()[&Part::Cache].clone();
        health.tell(Part::Cache, Some("full"));
        assert!(!said.has_changed().unwrap());
        health.tell(Part::Cache, Some("read-only"));
        assert_eq!(said.borrow_and_update()[&Part::Cache], Trouble { reason: "read-only".into(), ..first });
        health.tell(Part::Cache, None);
        assert!(said.borrow_and_update().is_empty());
    }
}
