//! `counters`: the counters of every link, by one listing of the kernel's, and whose they are.

use std::{sync::Arc, time::Duration};

use axum::extract::State;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use uuid::Uuid;

use super::{Answer, Error, Operation, Reply, controller_name, reply};
use crate::{
    http::App,
    source::{
        netlink::link::{Counters, LinkKind},
        now,
    },
};

/// `counters`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AllCounters {
    /// From whose point of view: always `host`. A tap's receive side is what its guest sent.
    pub view: Box<str>,
    /// When they were read.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub read_at: Timestamp,
    /// The same by a clock that nobody sets, in nanoseconds since the host was started: for rates.
    pub uptime_ns: u64,
    /// By ifindex.
    pub links: Vec<CountedLink>,
}

/// The counters of a link.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CountedLink {
    /// The link's index.
    pub index: u32,
    /// Its name.
    pub name: Arc<str>,
    /// What sort of device it is.
    #[serde(flatten)]
    pub kind: LinkKind,
    /// The name of its controller; of an Open vSwitch port, the bridge.
    pub controller_name: Option<Arc<str>>,
    /// The VIF that it carries; absent for a device that no instance owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carries: Option<CarriedVif>,
    /// The counters.
    pub counters: Counters,
}

/// A VIF that a link carries, in the words of people.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CarriedVif {
    /// The instance's UUID.
    pub instance_uuid: Uuid,
    /// The instance's libvirt name.
    pub instance_name: Arc<str>,
    /// The instance's display name.
    pub display_name: Option<Arc<str>>,
    /// The VIF's id.
    pub vif_id: Uuid,
}

pub(super) fn operation() -> Operation {
    let summary = "The counters of every link, read from the kernel now";
    Operation::new::<Answer<AllCounters>>("host_all_counters", summary, 200, "The counters.")
}

pub(super) async fn counters(State(app): State<App>) -> Reply<AllCounters> {
    let counters = timeout(COUNTERS_TIMEOUT, app.counters.read()).await.ok().flatten();
    let counters = counters.ok_or(Error::CountersUnavailable)?;
    let up = clock_gettime(ClockId::Boottime);
    let uptime_ns = u64::try_from(up.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(up.tv_nsec).unwrap_or(0);
    let inventory = app.inventory();
    // One that came or went in between is there the next time.
    let known = inventory.links().iter().filter_map(|link| Some((link, *counters.get(&link.index)?)));
    let mut links: Vec<_> = known
        .map(|(link, counters)| CountedLink {
            index: link.index,
            name: Arc::clone(&link.name),
            kind: link.kind.clone(),
            controller_name: controller_name(&inventory, link),
            carries: inventory.vifs_by_device(link.index).next().map(|(instance, vif)| CarriedVif {
                instance_uuid: instance.uuid,
                instance_name: Arc::clone(&instance.name),
                display_name: instance.display_name.clone(),
                vif_id: vif.id,
            }),
            counters,
        })
        .collect();
    links.sort_unstable_by_key(|link| link.index);
    reply(&inventory, AllCounters { view: "host".into(), read_at: now(), uptime_ns, links })
}

/// The kernel lists thousands of links within milliseconds, unless something holds its lock.
const COUNTERS_TIMEOUT: Duration = Duration::from_secs(3);
