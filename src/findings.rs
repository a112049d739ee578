//! What is not as it should be: findings, each with a stable code, evidence, and what to do. Nothing is ever repaired.
//!
//! In: the inventory, the counters now and then, the sockets' permissions, and what parts of the daemon say about
//! themselves. Out: [`Findings`], published whole.
//!
//! `rules` are pure: from one `Scene` to what does not look right in it. A moment's look proves little (a
//! guest that starts has a device before it has a description), so `confirm` raises only what holds over several
//! looks, and clears it after as many. What a lost source would have to prove is neither raised nor cleared.
//!
//! A look is made when the inventory has changed, and while anything is undecided, some seconds after the one before.
//! A host on which nothing happens is looked at once in `findings.interval`.

use std::{cmp::Ordering, convert::Infallible, fmt, path::PathBuf, sync::Arc, time::Duration};

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until},
};
use tracing::{info, warn};
use uuid::Uuid;

pub use self::scene::Unseen;
use self::{
    confirm::{Book, Patience},
    scene::Scene,
    surroundings::Surroundings,
};
use crate::{
    config::FindingsConfig,
    health::Troubles,
    inventory::{Inventory, Match},
    source::{moment::Moment, netlink::CounterReader},
};

mod agent;
mod bridge;
mod confirm;
mod definition;
mod device;
mod drops;
mod identity;
mod leak;
mod migration;
mod mtu;
mod port;
mod rules;
mod scene;
mod source;
mod surroundings;
#[cfg(test)]
mod testing;

/// What is wrong. Each has a section in the runbook, `docs/findings.md`. A code never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// A running guest's device does not exist.
    DeviceMissing,
    /// A running guest's device is set down.
    DeviceDown,
    /// A running guest's device has no carrier.
    DeviceNoCarrier,
    /// A device of the kind that guests have, and no guest has it.
    DeviceLeaked,
    /// A device loses packets, and goes on losing them.
    DropsRising,
    /// A device has fewer queues than its guest.
    QueuesDiffer,
    /// A device is on another bridge than the domain's description says.
    BridgeDiffers,
    /// A bridge that guests use is set down.
    BridgeDown,
    /// A bridge that guests use can take few more ports, or none.
    BridgeNearlyFull,
    /// What connects guests with the network outside is set down.
    UplinkDown,
    /// What connects guests with the network outside has no carrier.
    UplinkNoCarrier,
    /// A guest may send larger packets than its device takes.
    MtuExceedsDevice,
    /// Devices of guests take larger packets than what comes after them.
    MtuExceedsPath,
    /// An interface has another MAC address after the next start.
    DefinitionMacDiffers,
    /// Its Open vSwitch port has another MAC address than the guest.
    PortMacDiffers,
    /// Its Open vSwitch port has another id than the domain's description.
    PortIdDiffers,
    /// Its Open vSwitch port says that it is another instance's.
    PortInstanceDiffers,
    /// The switch could not make a port work.
    PortError,
    /// An Open vSwitch port of a guest that is not here.
    PortLeaked,
    /// A network card was told otherwise of a virtual function than the domain's description says.
    FunctionDiffers,
    /// Several VIFs of running guests have one MAC address.
    DuplicateMac,
    /// Several VIFs of running guests have one id.
    DuplicateVifId,
    /// Several Open vSwitch ports claim to be one VIF.
    DuplicateIfaceId,
    /// The ids of several VIFs begin with the same 11 characters, which is what their devices are called after.
    AmbiguousVifId,
    /// An instance that has left for another host is still here.
    InstanceMigratedAway,
    /// libvirt does not answer about an instance.
    InstanceUnreadable,
    /// A source was lost: what it said last is served, marked with its age.
    SourceStale,
    /// A source has never been read.
    SourceUnread,
    /// vifd may not connect to a socket that it needs.
    SocketRefused,
    /// Every user of the host may connect to vifd's socket.
    SocketOpen,
    /// The records for the next start cannot be written.
    CacheNotWritten,
    /// Changes are not recorded.
    JournalNotWritten,
}

impl Code {
    /// Where in the runbook it is explained.
    #[must_use]
    pub fn runbook(self) -> String {
        format!("docs/findings.md#{self}")
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_possible_value().expect("no code is hidden").get_name())
    }
}

/// How bad a finding is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A guest's network does not work, or vifd cannot do its work.
    Error,
    /// It works, but not as it should, or not for long.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What is wrong.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// With what. A code and a subject together are one finding.
    pub subject: Subject,
    /// The VIFs that it concerns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub affects: Vec<Affected>,
    /// The finding in one sentence.
    pub summary: String,
    /// What was seen.
    pub evidence: Vec<String>,
    /// What to do.
    pub advice: String,
    /// Commands to look further and to mend it.
    pub commands: Vec<String>,
    /// Where in vifd's documentation it is explained.
    pub runbook: String,
    /// When it was seen first, since vifd was started.
    pub first_seen: Moment,
    /// It was seen in several looks. Before that it may be something that is just being made, or taken away.
    pub confirmed: bool,
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    /// What sort of thing it is.
    pub kind: SubjectKind,
    /// What it is called.
    pub name: Arc<str>,
    /// The index of the link that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<u32>,
    /// The instance that it is, or whose VIF it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_uuid: Option<Uuid>,
    /// The VIF that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vif_id: Option<Uuid>,
}

/// What sort of thing a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    /// A VIF, called after its device, or else its MAC address.
    Vif,
    /// A link of the kernel.
    Device,
    /// An Open vSwitch port.
    Port,
    /// An instance, called as libvirt does.
    Instance,
    /// A MAC address.
    MacAddress,
    /// A VIF id, or the beginning of several.
    VifId,
    /// A source.
    Source,
    /// A socket, called by its path.
    Socket,
    /// A part of the daemon.
    Daemon,
}

/// A VIF that a finding concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Affected {
    /// Its instance's UUID.
    pub instance_uuid: Uuid,
    /// Its instance's libvirt name.
    pub instance_name: Arc<str>,
    /// The VIF's id.
    pub vif_id: Uuid,
    /// The name of its device, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Arc<str>>,
}

/// Every finding of one moment.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// How many looks there have been since vifd was started.
    pub looks: u64,
    /// Those that are confirmed, the worst first.
    pub raised: Vec<Arc<Finding>>,
    /// Those that were seen, and not yet often or long enough.
    pub unconfirmed: Vec<Arc<Finding>>,
    surroundings: Arc<Surroundings>,
}

impl Findings {
    /// Whether there have been too few looks to confirm anything.
    #[must_use]
    pub fn are_young(&self) -> bool {
        self.looks < u64::from(confirm::LOOKS)
    }

    /// The confirmed ones that are about this instance, or concern it.
    pub fn of_instance(&self, uuid: Uuid) -> impl Iterator<Item = &Arc<Finding>> {
        self.raised.iter().filter(move |finding| finding.concerns_instance(uuid))
    }

    /// The confirmed ones that are about the device of this name, or concern whom it carries.
    pub fn of_device(&self, name: &str) -> impl Iterator<Item = &Arc<Finding>> {
        self.raised.iter().filter(move |finding| finding.concerns_device(name))
    }

    /// What a look at this inventory finds that is not raised, with when it was seen first.
    #[must_use]
    pub fn unconfirmed_in(&self, inventory: &Inventory) -> Vec<Arc<Finding>> {
        let scene = Scene::of(inventory, &self.surroundings);
        let mut found: Vec<_> = rules::look(&scene)
            .into_iter()
            .filter(|seen| !self.raised.iter().any(|raised| raised.is(seen)))
            .map(|seen| {
                let before = self.unconfirmed.iter().find(|before| before.is(&seen));
                let first_seen = before.map_or_else(Moment::now, |before| before.first_seen);
                Arc::new(Finding { first_seen, ..seen })
            })
            .collect();
        sort(&mut found);
        found
    }
}

impl Finding {
    /// Whether the other one is about the same.
    fn is(&self, other: &Self) -> bool {
        (self.code, &self.subject) == (other.code, &other.subject)
    }

    fn concerns_instance(&self, uuid: Uuid) -> bool {
        self.subject.instance_uuid == Some(uuid) || self.affects.iter().any(|vif| vif.instance_uuid == uuid)
    }

    fn concerns_device(&self, name: &str) -> bool {
        *self.subject.name == *name || self.affects.iter().any(|vif| vif.device.as_deref() == Some(name))
    }

    /// Whether it is about what a person has asked for, which is everything that `matches` names.
    #[must_use]
    pub fn concerns(&self, thing: &str, matches: &[Match]) -> bool {
        let about = |found: &Match| {
            let link = found.link.as_ref();
            let (vif, instance) = (found.vif().map(|vif| vif.id), found.instance.as_ref().map(|i| i.uuid));
            let is_instance = instance.is_some() && vif.is_none() && link.is_none();
            link.is_some_and(|link| self.subject.ifindex == Some(link.index))
                || found.ovs.as_ref().is_some_and(|port| self.concerns_device(&port.name))
                || instance.is_some_and(|uuid| {
                    let own = self.subject.instance_uuid == Some(uuid);
                    (is_instance && self.concerns_instance(uuid))
                        || (own && (self.subject.vif_id.is_none() || self.subject.vif_id == vif))
                        || self.affects.iter().any(|of| of.instance_uuid == uuid && Some(of.vif_id) == vif)
                })
        };
        self.subject.name.eq_ignore_ascii_case(thing) || matches.iter().any(about)
    }
}

/// The worst first, then by code and subject, so that the order is always the same.
pub(crate) fn sort(findings: &mut [Arc<Finding>]) {
    fn key(finding: &Finding) -> (Severity, Code, &Subject) {
        (finding.severity, finding.code, &finding.subject)
    }
    findings.sort_by(|a, b| -> Ordering { key(a).cmp(&key(b)) });
}

/// What cannot be looked at now.
#[must_use]
pub fn unseen(inventory: &Inventory) -> Vec<Unseen> {
    Scene::of(inventory, &Surroundings::default()).unseen()
}

/// How many rules there are.
#[must_use]
pub fn rule_count() -> usize {
    rules::COUNT
}

/// What the task looks at.
#[derive(Debug)]
pub struct Sources {
    /// The newest inventory.
    pub inventory: watch::Receiver<Arc<Inventory>>,
    /// The counters of all links, on demand.
    pub counters: CounterReader,
    /// What parts of the daemon say about themselves.
    pub health: watch::Receiver<Troubles>,
    /// vifd's own socket.
    pub socket: PathBuf,
    /// Open vSwitch's.
    pub ovsdb: PathBuf,
}

/// Looks for ever. Dropping the future is safe: it publishes whole values.
pub async fn run(mut sources: Sources, config: FindingsConfig, tx: watch::Sender<Arc<Findings>>) -> Infallible {
    let patience = Patience { leaked_after: config.leaked_after };
    let mut book = Book::default();
    let mut surroundings = Surroundings::default();
    let counting = !config.interval.is_zero();
    let period = if counting { config.interval } else { Duration::MAX };
    let mut count = interval_at(Instant::now() + config.interval, period.min(LONGEST));
    count.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What nobody has read yet is nothing to judge.
    let _ = sources.inventory.wait_for(|inventory| inventory.is_decided()).await;
    loop {
        let inventory = Arc::clone(&sources.inventory.borrow_and_update());
        surroundings.look(&sources, &inventory);
        let shared = Arc::new(surroundings.clone());
        let scene = Scene::of(&inventory, &shared);
        let found = rules::look(&scene);
        let news = book.look(found, |finding| rules::can_judge(&scene, finding), &patience);
        drop(scene);
        news.tell();
        publish(&tx, &book, shared);
        // However much happens, looks take no more than this.
        let next = Instant::now() + config.look_interval;
        sleep_until(next).await;
        tokio::select! {
            changed = sources.inventory.changed() => if changed.is_err() {
                // Its task has ended, which stops the daemon.
                std::future::pending::<()>().await;
            },
            // Where no part has anything to say, there is nobody at the other end.
            Ok(()) = sources.health.changed() => {}
            _ = count.tick(), if counting => {
                if inventory.vif_count() > 0 && let Some(counters) = sources.counters.read().await {
                    surroundings.drops.count(counters);
                }
            }
            () = sleep(Duration::ZERO), if !book.is_decided() || tx.borrow().are_young() => {}
        }
    }
}

fn publish(tx: &watch::Sender<Arc<Findings>>, book: &Book, surroundings: Arc<Surroundings>) {
    let (raised, unconfirmed) = book.findings();
    tx.send_if_modified(|published| {
        let next = Findings { looks: published.looks + 1, raised, unconfirmed, surroundings };
        // Whoever waits, waits for news; the number of looks alone is none.
        let news = next.raised != published.raised
            || next.unconfirmed != published.unconfirmed
            || next.are_young() != published.are_young();
        *published = Arc::new(next);
        news
    });
}

/// What was raised and cleared by one look.
#[derive(Debug, Default)]
struct News {
    raised: Vec<Arc<Finding>>,
    cleared: Vec<Arc<Finding>>,
}

impl News {
    fn tell(&self) {
        for finding in &self.raised {
            let Finding { code, subject, summary, .. } = &**finding;
            warn!(%code, subject = %subject.name, summary, "found");
        }
        for finding in &self.cleared {
            info!(code = %finding.code, subject = %finding.subject.name, "no longer found");
        }
    }
}

/// Far enough for a timer that nobody waits for.
const LONGEST: Duration = Duration::from_secs(1 << 30);

#[cfg(test)]
mod tests;
