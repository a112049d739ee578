//! `who`: whatever somebody has in hand.

use std::sync::Arc;

use axum::extract::{Query, State, rejection::QueryRejection};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, App, Error, Reply, controller_name, reply};
use crate::{
    http::openapi::Operation,
    inventory::{Beginnings, Inventory, Match, Staleness, Why},
};

/// `who`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Who {
    /// Everything that matched.
    pub matches: Vec<WhoMatch>,
    /// Nothing matched as a whole: these are what begins so, in any letter case.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_beginning: bool,
    /// How many more begin so.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// Where nothing matched at all: names of instances and devices that are nearly so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<Arc<str>>,
}

/// One thing that matched.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WhoMatch {
    /// What matched.
    #[serde(flatten)]
    pub found: Match,
    /// The name of the link's controller; of an Open vSwitch port, the bridge.
    pub controller_name: Option<Arc<str>>,
    /// The processes that hold the link, a tap or macvtap, open; told by `vifctl`, which looks into `/proc`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<Holder>,
    /// Why and since when the instance's record is not kept current; null if it is.
    pub stale: Option<Staleness>,
    /// Of a VIF: why it has its id, its device and its port; where there are few matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<Why>,
}

/// A process that holds a link open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// Its PID.
    pub pid: u32,
    /// The name of its program.
    pub command: Box<str>,
    /// The name of the guest that it runs, by its command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Arc<str>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WhoQuery {
    /// A name, MAC address, ifindex, id, socket or Open vSwitch port (`br-int:5`); else its beginning.
    thing: String,
}

pub(super) fn operation() -> Operation {
    let (summary, says) = ("Whatever a thing of the host is", "Everything that matched.");
    Operation::new::<Answer<Who>>("host_who", summary, 200, says).query::<WhoQuery>()
}

pub(super) async fn who(State(app): State<App>, query: Result<Query<WhoQuery>, QueryRejection>) -> Reply<Who> {
    let Query(WhoQuery { thing }) = query.map_err(|error| Error::BadRequest(error.body_text()))?;
    let inventory = app.inventory();
    let exact = inventory.find(&thing);
    let by_beginning = exact.is_empty();
    let Beginnings { matches, left_out } =
        if by_beginning { inventory.find_beginning(&thing) } else { Beginnings { matches: exact, left_out: 0 } };
    let near = if matches.is_empty() { inventory.near_names(&thing) } else { Vec::new() };
    let explain = matches.len() <= FEW;
    let matches: Vec<_> = matches.into_iter().map(|found| WhoMatch::of(&inventory, found, explain)).collect();
    reply(&inventory, Who { by_beginning: by_beginning && !matches.is_empty(), matches, left_out, near })
}

impl WhoMatch {
    fn of(inventory: &Inventory, found: Match, explain: bool) -> Self {
        let why = match (&found.instance, found.vif) {
            (Some(instance), Some(vif)) if explain => inventory.why_joined(instance, vif),
            _ => Vec::new(),
        };
        Self {
            controller_name: found.link.as_ref().and_then(|link| controller_name(inventory, link)),
            stale: found.instance.as_ref().and_then(|instance| inventory.staleness(instance)),
            held_by: Vec::new(),
            why,
            found,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// So many are explained: of more a list is wanted.
const FEW: usize = 8;
