//! `path?thing=`: which way the frames of VIFs take on this host.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::extract::{Query, State, rejection::QueryRejection};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{Error, Operation, Reply, reply};
use crate::{
    http::App,
    inventory::{
        Inventory, Staleness,
        path::{Paths, VifPath},
    },
};

/// `path`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PathsOfVifs {
    /// From whose point of view counters are: always `host`. A tap's receive side is what its guest sent.
    pub view: Box<str>,
    /// Why there are no counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_counters: Option<Box<str>>,
    /// How many more VIFs there are, whose paths are left out.
    pub left_out: usize,
    /// One for each VIF, by instance and position.
    pub paths: Vec<PathRecord>,
}

/// The path of one VIF.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PathRecord {
    /// The path.
    #[serde(flatten)]
    pub path: VifPath,
    /// Why and since when the instance's record is not kept current; null if it is.
    pub stale: Option<Staleness>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PathQuery {
    /// An instance, for all its VIFs, or whatever `who` takes that leads to VIFs. Of a device that is no VIF's, the
    /// paths that lead over it.
    thing: String,
}

pub(super) fn operation() -> Operation {
    let summary = "Which way the frames of VIFs take on this host, hop by hop";
    Operation::new::<super::Answer<PathsOfVifs>>("host_path", summary, 200, "The paths.").query::<PathQuery>()
}

pub(super) async fn path(
    State(app): State<App>,
    query: Result<Query<PathQuery>, QueryRejection>,
) -> Reply<PathsOfVifs> {
    let Query(PathQuery { thing }) = query.map_err(|error| Error::BadRequest(error.body_text()))?;
    let inventory = app.inventory();
    let (mut paths, left_out) = find(&inventory, &thing)?;
    let counters = timeout(COUNTERS_TIMEOUT, app.counters.read()).await.ok().flatten();
    if let Some(counters) = &counters {
        for hop in paths.iter_mut().flat_map(|record| &mut record.path.hops) {
            hop.counters = hop.index.and_then(|index| counters.get(&index).copied());
        }
    }
    let no_counters = counters.is_none().then(|| "the kernel's counters could not be read".into());
    reply(&inventory, PathsOfVifs { view: "host".into(), no_counters, left_out, paths })
}

/// The paths that `thing` leads to, and how many there are besides.
fn find(inventory: &Inventory, thing: &str) -> Result<(Vec<PathRecord>, usize), Error> {
    let matches = inventory.find(thing);
    // By the position of the instance and that of the VIF.
    let mut wanted = BTreeSet::new();
    let (mut links, mut switched) = (BTreeSet::new(), BTreeSet::new());
    for found in &matches {
        match &found.instance {
            Some(instance) => {
                let position = inventory.instances.iter().position(|other| Arc::ptr_eq(other, instance));
                let vifs = (0..instance.vifs.len()).filter(|n| found.vif.is_none_or(|vif| vif as usize == *n));
                wanted.extend(vifs.filter_map(|vif| Some((position?, vif))));
            }
            None => {
                links.extend(found.link.as_ref().map(|link| link.index));
                switched.extend(found.ovs.as_ref().map(|port| &*port.name));
            }
        }
    }
    if matches.is_empty() {
        return Err(match inventory.is_complete() {
            true => Error::NotFound(format!("nothing on this host matches {thing}")),
            false => Error::NotYetKnown,
        });
    }
    let ways = Paths::new(inventory);
    let of = |(instance, vif): (usize, usize)| {
        let instance = &inventory.instances[instance];
        PathRecord { path: ways.of(instance, &instance.vifs[vif]), stale: inventory.staleness(instance) }
    };
    let (paths, left_out): (Vec<_>, usize) = if wanted.is_empty() {
        let all =
            (0..).zip(&inventory.instances).flat_map(|(n, instance)| (0..instance.vifs.len()).map(move |vif| (n, vif)));
        let leads_over = |record: &PathRecord| {
            record.path.hops.iter().any(|hop| match hop.index {
                Some(index) => links.contains(&index),
                None => switched.contains(&*hop.name),
            })
        };
        let mut left_out = 0;
        let mut paths = Vec::new();
        for record in all.map(of).filter(leads_over) {
            if paths.len() < MOST_PATHS {
                paths.push(record);
            } else {
                left_out += 1;
            }
        }
        (paths, left_out)
    } else {
        let left_out = wanted.len().saturating_sub(MOST_PATHS);
        (wanted.into_iter().take(MOST_PATHS).map(of).collect(), left_out)
    };
    if paths.is_empty() {
        return Err(Error::NotFound(format!("{thing} leads to no VIF; see what it is with `vifctl who`")));
    }
    Ok((paths, left_out))
}

/// The kernel lists thousands of links within milliseconds, unless something holds its lock.
const COUNTERS_TIMEOUT: Duration = Duration::from_secs(3);
/// An answer is for people to look at: over the uplink of a large host lead a thousand.
const MOST_PATHS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inventory::testing::{bridged, joined, link, nova, view},
        source::netlink::link::{Link, LinkKind},
    };

    #[test]
    fn a_thing_leads_to_the_paths_of_its_vifs() {
        let bridge = Link { kind: LinkKind::Bridge, ..link(2, "br0") };
        let on = |index, name| Link { controller: Some(2), ..link(index, name) };
        let interfaces = bridged("fa:16:3e:00:00:01", "tap1", "") + &bridged("fa:16:3e:00:00:02", "tap2", "");
        let links = [bridge, on(7, "tap1"), on(8, "tap2"), link(9, "lonely")];
        let inventory = joined(&view(&[nova(&interfaces, &[])], &links));
        let names = |thing: &str| {
            let (paths, left_out) = find(&inventory, thing).ok()?;
            assert_eq!(left_out, 0);
            Some(paths.iter().map(|record| record.path.hops[1].name.to_string()).collect::<Vec<_>>())
        };
        for both in ["instance-0000002a", "web", "br0"] {
            assert_eq!(names(both).unwrap(), ["tap1", "tap2"], "{both}");
        }
        for second in ["tap2", "8", "fa:16:3e:00:00:02"] {
            assert_eq!(names(second).unwrap(), ["tap2"], "{second}");
        }
        assert!(names("lonely").is_none() && names("nothing").is_none());
    }
}
