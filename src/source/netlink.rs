//! Tables of the kernel: lists and follows them by rtnetlink, and publishes them: [`Links`] and [`Neighbours`].
//!
//! In: a group's messages and dumps, and what sysfs calls the virtual functions of network cards. Out: a [`Snapshot`] of
//! the table. Whatever loses a message (an overrun, a dump that
//! was torn too often, a closed socket) ends the session; the next one reads everything again. Between the two the
//! snapshot is stale and says why.
//!
//! Each table has sockets and a session of its own: a storm in one of them costs the other nothing.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
    neighbour::NeighbourMessage,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep,
};
use tracing::{debug, info, warn};

use self::{
    function::VirtualFunction,
    link::{Counters, DecodeError, LinkEvent, Links},
    neighbour::Neighbours,
    socket::{Socket, ask, dump},
};
use super::{Backoff, Snapshot, chain, publish};
use crate::{config::NetlinkConfig, meters::SourceMeters, pci::PciAddress};

pub mod function;
pub mod link;
pub mod neighbour;
mod socket;

/// Something that the kernel lists, and whose changes it tells.
pub trait Table: Clone + Default + PartialEq + Send + Sync {
    /// What is in it.
    const NAME: &'static str;
    /// The multicast group of its events, as a bit.
    const GROUP: u32;

    /// What asks for all of it.
    fn request() -> RouteNetlinkMessage;

    /// Takes one message in, be it of a listing or an event; one that cannot be used costs a warning.
    fn apply(&mut self, message_type: u16, payload: &[u8]) -> Effect;

    /// Asks for what neither the listing nor the events tell. Says whether anything is news.
    fn ask_for_more(&mut self) -> impl Future<Output = Result<bool, SessionError>> + Send {
        async { Ok(false) }
    }

    /// How many entries there are.
    fn count(&self) -> usize;
}

/// What may be different after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing is.
    Nothing,
    /// Entries of the table.
    Entries,
    /// Those, and what must be asked for.
    More,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No socket could be had.
    #[error("could not open a netlink socket")]
    Open(#[source] io::Error),
    /// The kernel refused to list the table.
    #[error("could not ask for the list")]
    Dump(#[source] io::Error),
    /// The list changed while it was read, on every attempt.
    #[error("the list changed during each of {DUMP_ATTEMPTS} attempts to read it")]
    Torn,
    /// Reading an event failed.
    #[error("could not read events")]
    Receive(#[source] io::Error),
    /// More changed than the receive buffer holds (`ENOBUFS`).
    #[error("events were lost: the receive buffer overran")]
    Overrun,
    /// A message is larger than anything the kernel should send.
    #[error("a message of {0} bytes was truncated")]
    Truncated(usize),
}

/// Follows a table of this process's network namespace for ever; by a socket that was handed over, where there is one.
pub async fn run<T: Table>(
    config: NetlinkConfig,
    handed: Option<OwnedFd>,
    tx: watch::Sender<Snapshot<T>>,
    meters: Arc<SourceMeters>,
) -> Infallible {
    let handed = handed.and_then(|socket| {
        let adopted = Socket::adopt(socket);
        adopted.inspect_err(|error| warn!(table = T::NAME, error = chain(error), "opening a socket in its place")).ok()
    });
    let mut backoff = Backoff::default();
    loop {
        let started = Instant::now();
        let Err(error) = session(&config, handed.as_ref(), &tx, &meters).await;
        meters.failures.count();
        if matches!(error, SessionError::Overrun) {
            meters.overruns.count();
        }
        let reason = chain(&error);
        tx.send_modify(|snapshot| snapshot.mark_stale(&reason));
        if started.elapsed() > HEALTHY {
            backoff.reset();
        }
        let delay = backoff.delay();
        warn!(table = T::NAME, error = reason, ?delay, "lost the kernel's events");
        sleep(delay).await;
    }
}

/// Subscribes, lists, follows. Dropping the future is safe: it publishes whole snapshots.
///
/// A socket that was handed over may hold events from before, of which some were lost: a listing is newer than all.
async fn session<T: Table>(
    config: &NetlinkConfig,
    handed: Option<&Socket>,
    tx: &watch::Sender<Snapshot<T>>,
    meters: &SourceMeters,
) -> Result<Infallible, SessionError> {
    let own;
    let events = match handed {
        Some(handed) => {
            handed.forget().await?;
            handed
        }
        None => {
            own = Socket::subscribe(T::GROUP, config.receive_buffer)?;
            &own
        }
    };
    loop {
        let mut table = list::<T>().await?;
        // Whatever queued up during the listing describes each entry completely, so replaying it ends in the truth;
        // publishing before the queue is empty would show the past again.
        while !take_in(events, &mut table, meters)?.emptied {}
        table.ask_for_more().await?;
        meters.listings.count();
        if !tx.borrow().sync.is_synced() {
            meters.syncs.count();
            info!(entries = table.count(), "read all {}", T::NAME);
        }
        publish(tx, table.clone());
        let resync = sleep(config.resync_interval);
        tokio::pin!(resync);
        loop {
            tokio::select! {
                readable = events.readable() => readable?,
                () = &mut resync => break,
            }
            let mut more = false;
            loop {
                let batch = take_in(events, &mut table, meters)?;
                if batch.effect > Effect::Nothing {
                    publish(tx, table.clone());
                }
                more |= batch.effect == Effect::More;
                if batch.emptied {
                    break;
                }
                tokio::task::yield_now().await;
            }
            if more && table.ask_for_more().await? {
                publish(tx, table.clone());
            }
        }
    }
}

/// The links of this thread's network namespace, once.
///
/// # Errors
/// The kernel does not list them.
pub async fn links() -> Result<Links, SessionError> {
    list().await
}

/// Reads a whole table. A listing that the kernel calls inconsistent is repeated.
async fn list<T: Table>() -> Result<T, SessionError> {
    for attempt in 0..DUMP_ATTEMPTS {
        let mut table = T::default();
        let apply = |message_type, payload: &[u8]| {
            table.apply(message_type, payload);
        };
        if dump(T::request(), apply).await? {
            return Ok(table);
        }
        debug!(table = T::NAME, attempt, "the list changed while it was read");
        sleep(Duration::from_millis(10 << attempt)).await;
    }
    Err(SessionError::Torn)
}

/// What one round of reading events brought.
struct Batch {
    effect: Effect,
    emptied: bool,
}

fn take_in<T: Table>(events: &Socket, table: &mut T, meters: &SourceMeters) -> Result<Batch, SessionError> {
    let mut effect = Effect::Nothing;
    let emptied = events.drain(|message_type, payload| {
        meters.events.count();
        effect = effect.max(table.apply(message_type, payload));
    })?;
    Ok(Batch { effect, emptied })
}

impl Table for Links {
    const NAME: &'static str = "links";
    const GROUP: u32 = RTMGRP_LINK;

    fn request() -> RouteNetlinkMessage {
        // Without VF lists, which overflow the message on hosts with hundreds of virtual functions, and without IPv6's
        // own counters, which are a third of a message.
        RouteNetlinkMessage::GetLink(get_link(&[LinkExtentMask::SkipStats]))
    }

    fn apply(&mut self, message_type: u16, payload: &[u8]) -> Effect {
        match LinkEvent::decode(message_type, payload) {
            Ok(LinkEvent::Irrelevant) => Effect::Nothing,
            Ok(event) => {
                let pci = match &event {
                    LinkEvent::Exists(link) => link.pci,
                    LinkEvent::Left { index, .. } => self.get(*index).and_then(|link| link.pci),
                    LinkEvent::Irrelevant => None,
                };
                Self::apply(self, event);
                // Of a network card, and perhaps with virtual functions.
                if pci.is_some() { Effect::More } else { Effect::Entries }
            }
            Err(error @ DecodeError::Name { index, .. }) => {
                warn!(link.index = index, %error, "ignored a link message");
                Effect::Nothing
            }
            Err(error) => {
                warn!(%error, "ignored a link message");
                Effect::Nothing
            }
        }
    }

    async fn ask_for_more(&mut self) -> Result<bool, SessionError> {
        read_virtual_functions(self).await
    }

    fn count(&self) -> usize {
        self.len()
    }
}

impl Table for Neighbours {
    const NAME: &'static str = "neighbours";
    const GROUP: u32 = RTMGRP_NEIGH;

    fn request() -> RouteNetlinkMessage {
        // Of no family: of IPv4 and of IPv6, and not the forwarding tables of bridges.
        RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default())
    }

    fn apply(&mut self, message_type: u16, payload: &[u8]) -> Effect {
        if Self::apply(self, message_type, payload) { Effect::Entries } else { Effect::Nothing }
    }

    fn count(&self) -> usize {
        self.len()
    }
}

/// Asks for the virtual functions of every card. Says whether anything is news.
///
/// The kernel tells that something about a virtual function was changed only by an event about the card's own link, and
/// only if that is up. A virtual function's link, which appears and disappears as guests give it back and get it, has
/// events of its own. The resync finds the rest.
async fn read_virtual_functions(links: &mut Links) -> Result<bool, SessionError> {
    let cards: Vec<_> = links.iter().filter_map(|link| Some((link.index, link.pci?))).collect();
    let mut changed = false;
    for (index, pci) in cards {
        let numbered = function::numbered(Path::new(function::DEVICES), pci);
        let functions = if numbered.is_empty() { Vec::new() } else { virtual_functions(index, numbered).await? };
        changed |= links.set_virtual_functions(index, functions);
    }
    Ok(changed)
}

/// What the kernel says of the virtual functions that the card of this link has. A card may have more links, such as
/// its representors in a switch; they have none.
async fn virtual_functions(index: u32, numbered: Vec<(u32, PciAddress)>) -> Result<Vec<VirtualFunction>, SessionError> {
    let mut settings = None;
    let mut request = get_link(&[LinkExtentMask::Vf, LinkExtentMask::SkipStats]);
    request.header.index = index;
    let asked = ask(RouteNetlinkMessage::GetLink(request), NLM_F_ACK, |_, payload| {
        settings = function::decode_settings(payload)
    })
    .await;
    let mut settings = match asked {
        Ok(_) if settings.is_none() => return Ok(Vec::new()),
        Ok(_) => settings.unwrap_or_default(),
        // The link is gone already, or there are more than fit into a message.
        Err(SessionError::Dump(error)) => {
            debug!(link.index = index, %error, "the kernel does not tell of its virtual functions");
            HashMap::new()
        }
        Err(error) => return Err(error),
    };
    let told = |(number, pci)| VirtualFunction { number, pci, settings: settings.remove(&number) };
    Ok(numbered.into_iter().map(told).collect())
}

fn get_link(mask: &[LinkExtentMask]) -> LinkMessage {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::ExtMask(mask.to_vec()));
    request
}

/// A handle by which the counters of all links are read on demand. The one question that is put to the kernel when it
/// is asked for; whoever asks while a listing runs shares the next.
#[derive(Clone, Debug)]
pub struct CounterReader(mpsc::Sender<oneshot::Sender<HashMap<u32, Counters>>>);

impl CounterReader {
    /// The handle, and the task that serves it.
    pub fn new() -> (Self, impl Future<Output = ()> + Send) {
        let (tx, rx) = mpsc::channel(COUNTER_REQUESTS);
        (Self(tx), serve_counters(rx))
    }

    /// The counters of every link by index, or nothing if the kernel cannot be asked or too many wait already.
    pub async fn read(&self) -> Option<HashMap<u32, Counters>> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(reply).ok()?;
        answer.await.ok()
    }
}

async fn serve_counters(mut requests: mpsc::Receiver<oneshot::Sender<HashMap<u32, Counters>>>) {
    while let Some(first) = requests.recv().await {
        let mut waiting = vec![first];
        while let Ok(next) = requests.try_recv() {
            waiting.push(next);
        }
        match list_counters().await {
            Ok(counters) => waiting.into_iter().for_each(|reply| drop(reply.send(counters.clone()))),
            Err(error) => warn!(error = chain(&error), "could not read the counters"),
        }
    }
}

/// A listing that the kernel calls inconsistent may lack links, and is repeated; the last one has to do.
async fn list_counters() -> Result<HashMap<u32, Counters>, SessionError> {
    let mut counters = HashMap::new();
    for _ in 0..COUNTER_ATTEMPTS {
        counters.clear();
        if dump(Links::request(), |_, payload| counters.extend(link::decode_counters(payload))).await? {
            break;
        }
    }
    Ok(counters)
}

/// `linux/rtnetlink.h`.
const RTMGRP_LINK: u32 = 1;
const RTMGRP_NEIGH: u32 = 4;
/// A listing takes milliseconds; a host whose links never hold still that long has other troubles.
const DUMP_ATTEMPTS: u32 = 6;
/// A session that lived this long was no failure.
const HEALTHY: Duration = Duration::from_secs(10);
/// Whoever asks for counters waits, and soon asks again.
const COUNTER_ATTEMPTS: u32 = 3;
/// Enough for any honest number of scrapers; the rest are turned away at once.
const COUNTER_REQUESTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_cannot_be_used_changes_nothing() {
        let mut links = Links::default();
        assert_eq!(Table::apply(&mut links, link::RTM_NEWLINK, &[0; 16]), Effect::Nothing);
        assert_eq!(Table::apply(&mut links, link::RTM_NEWLINK, &[0; 3]), Effect::Nothing);
        assert!(links.is_empty());
    }
}
