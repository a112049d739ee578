//! The kernel's links: follows them by rtnetlink and publishes [`Links`].
//!
//! In: `RTNLGRP_LINK` messages and dumps, and what sysfs calls the virtual functions of network cards. Out: [`Snapshot<Links>`]. Whatever loses a message (an overrun, a dump that
//! was torn too often, a closed socket) ends the session; the next one reads everything again. Between the two the
//! snapshot is stale and says why.
//!
//! The sockets are our own instead of `rtnetlink`'s, because that crate drops messages that it cannot decode whole,
//! and hides `NLM_F_DUMP_INTR` and truncation: the three things about which an answer must not be wrong in silence.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
};
use rustix::{
    io::Errno,
    net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, sockopt},
};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, oneshot, watch},
    time::sleep,
};
use tracing::{debug, info, warn};

use self::{
    function::VirtualFunction,
    link::{Counters, DecodeError, LinkEvent, Links},
};
use super::{Backoff, Snapshot, chain, publish};
use crate::{config::NetlinkConfig, pci::PciAddress};

pub mod function;
pub mod link;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No socket could be had.
    #[error("could not open a netlink socket")]
    Open(#[source] io::Error),
    /// The kernel refused to list the links.
    #[error("could not list the links")]
    Dump(#[source] io::Error),
    /// The list of links changed while it was read, on every attempt.
    #[error("the list of links changed during each of {DUMP_ATTEMPTS} attempts to read it")]
    Torn,
    /// Reading an event failed.
    #[error("could not read link events")]
    Receive(#[source] io::Error),
    /// More changed than the receive buffer holds (`ENOBUFS`).
    #[error("link events were lost: the receive buffer overran")]
    Overrun,
    /// A message is larger than anything the kernel should send.
    #[error("a link message of {0} bytes was truncated")]
    Truncated(usize),
}

/// Follows the links of this process's network namespace for ever.
pub async fn run(config: NetlinkConfig, tx: watch::Sender<Snapshot<Links>>) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        let started = Instant::now();
        let Err(error) = session(&config, &tx).await;
        let reason = chain(&error);
        tx.send_modify(|snapshot| snapshot.mark_stale(&reason));
        if started.elapsed() > HEALTHY {
            backoff.reset();
        }
        let delay = backoff.delay();
        warn!(error = reason, ?delay, "lost the kernel's link events");
        sleep(delay).await;
    }
}

/// Subscribes, lists, follows. Dropping the future is safe: it owns its sockets and publishes whole snapshots.
async fn session(config: &NetlinkConfig, tx: &watch::Sender<Snapshot<Links>>) -> Result<Infallible, SessionError> {
    let events = LinkSocket::subscribe(config.receive_buffer)?;
    loop {
        let mut links = list().await?;
        // Whatever queued up during the listing describes each link completely, so replaying it ends in the truth;
        // publishing before the queue is empty would show the past again.
        while events.take_in(&mut links)?.is_more() {}
        read_virtual_functions(&mut links).await?;
        if !tx.borrow().sync.is_synced() {
            info!(links = links.len(), "read all links");
        }
        publish(tx, links.clone());
        let resync = sleep(config.resync_interval);
        tokio::pin!(resync);
        loop {
            tokio::select! {
                readable = events.0.readable() => readable.map_err(SessionError::Receive)?.clear_ready(),
                () = &mut resync => break,
            }
            // Readiness was cleared before the socket is read until it is empty: an event that arrives in between
            // sets it again, and none can be slept through.
            let mut cards_changed = false;
            loop {
                let batch = events.take_in(&mut links)?;
                if batch.effect > Effect::Nothing {
                    publish(tx, links.clone());
                }
                cards_changed |= batch.effect == Effect::Cards;
                if !batch.is_more() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            if cards_changed && read_virtual_functions(&mut links).await? {
                publish(tx, links.clone());
            }
        }
    }
}

/// Reads every link. A listing that the kernel calls inconsistent is repeated.
///
/// # Errors
/// The kernel cannot be asked, or the list never holds still.
pub async fn list() -> Result<Links, SessionError> {
    for attempt in 0..DUMP_ATTEMPTS {
        let mut links = Links::default();
        let consistent = dump(|message_type, payload| {
            apply(&mut links, message_type, payload);
        })
        .await?;
        if consistent {
            return Ok(links);
        }
        debug!(attempt, "the list of links changed while it was read");
        sleep(Duration::from_millis(10 << attempt)).await;
    }
    Err(SessionError::Torn)
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
    let asked = ask(request, NLM_F_ACK, |_, payload| settings = function::decode_settings(payload)).await;
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
        let mut counters = HashMap::new();
        let result = dump(|_, payload| counters.extend(link::decode_counters(payload))).await;
        match result {
            Ok(_) => waiting.into_iter().for_each(|reply| drop(reply.send(counters.clone()))),
            Err(error) => warn!(error = chain(&error), "could not read the counters"),
        }
    }
}

/// Asks for all links. Says whether the listing is consistent (no `NLM_F_DUMP_INTR`).
async fn dump(each: impl FnMut(u16, &[u8])) -> Result<bool, SessionError> {
    // Without VF lists, which overflow the message on hosts with hundreds of virtual functions, and without IPv6's own
    // counters, which are a third of a message.
    ask(get_link(&[LinkExtentMask::SkipStats]), NLM_F_DUMP, each).await
}

fn get_link(mask: &[LinkExtentMask]) -> LinkMessage {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::ExtMask(mask.to_vec()));
    request
}

/// Asks on a socket of its own, so that the answer cannot be mixed up with events. Says whether the answer is
/// consistent.
async fn ask(request: LinkMessage, flags: u16, mut each: impl FnMut(u16, &[u8])) -> Result<bool, SessionError> {
    let socket = LinkSocket::open(0)?;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(request));
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    net::send(socket.0.get_ref(), &bytes, SendFlags::empty()).map_err(|e| SessionError::Dump(e.into()))?;

    let mut consistent = true;
    let mut buffer = Vec::with_capacity(RECEIVE_SIZE);
    loop {
        if !socket.receive(&mut buffer)? {
            socket.0.readable().await.map_err(SessionError::Receive)?.clear_ready();
            continue;
        }
        for message in messages(&buffer) {
            consistent &= message.flags() & NLM_F_DUMP_INTR == 0;
            match message.message_type() {
                NLMSG_DONE => return Ok(consistent),
                NLMSG_ERROR => match error_of(message.payload()) {
                    // The acknowledgement, which follows an answer that is no list.
                    error if error.raw_os_error() == Some(0) => return Ok(consistent),
                    error => return Err(SessionError::Dump(error)),
                },
                message_type => each(message_type, message.payload()),
            }
        }
    }
}

/// What one round of reading events brought.
struct Batch {
    effect: Effect,
    emptied: bool,
}

/// What may be different after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Nothing,
    Links,
    /// Links of network cards, and with them what only questions tell.
    Cards,
}

impl Batch {
    fn is_more(&self) -> bool {
        !self.emptied
    }
}

struct LinkSocket(AsyncFd<OwnedFd>);

impl LinkSocket {
    fn open(groups: u32) -> Result<Self, SessionError> {
        let open = || -> io::Result<_> {
            // No protocol means the first: NETLINK_ROUTE is 0.
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
            net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
            #[expect(deprecated, reason = "its replacement is unsafe; what it warns of cannot happen to an OwnedFd")]
            AsyncFd::new(socket)
        };
        open().map(Self).map_err(SessionError::Open)
    }

    fn subscribe(receive_buffer: usize) -> Result<Self, SessionError> {
        let socket = Self::open(RTMGRP_LINK)?;
        let fd = socket.0.get_ref();
        // Beyond net.core.rmem_max takes CAP_NET_ADMIN; without it the kernel grants what it may.
        if sockopt::set_socket_recv_buffer_size_force(fd, receive_buffer).is_err()
            && let Err(error) = sockopt::set_socket_recv_buffer_size(fd, receive_buffer)
        {
            warn!(%error, "could not enlarge the receive buffer");
        }
        if let Ok(granted) = sockopt::socket_recv_buffer_size(fd) {
            debug!(receive_buffer = granted, "subscribed to link events");
        }
        Ok(socket)
    }

    /// Reads what waits, but no more than is fit to publish at once, into `links`.
    fn take_in(&self, links: &mut Links) -> Result<Batch, SessionError> {
        let mut effect = Effect::Nothing;
        let mut buffer = Vec::with_capacity(RECEIVE_SIZE);
        for _ in 0..BATCH {
            if !self.receive(&mut buffer)? {
                return Ok(Batch { effect, emptied: true });
            }
            for message in messages(&buffer) {
                effect = effect.max(apply(links, message.message_type(), message.payload()));
            }
        }
        Ok(Batch { effect, emptied: false })
    }

    /// Reads one datagram into `buffer`, or nothing if none waits.
    fn receive(&self, buffer: &mut Vec<u8>) -> Result<bool, SessionError> {
        buffer.clear();
        let spare = rustix::buffer::spare_capacity(buffer);
        match net::recv(self.0.get_ref(), spare, RecvFlags::TRUNC) {
            Ok((_, length)) if length > buffer.len() => Err(SessionError::Truncated(length)),
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::NOBUFS) => Err(SessionError::Overrun),
            Err(error) => Err(SessionError::Receive(error.into())),
        }
    }
}

/// Takes one message in; one that cannot be used costs a warning.
fn apply(links: &mut Links, message_type: u16, payload: &[u8]) -> Effect {
    match LinkEvent::decode(message_type, payload) {
        Ok(LinkEvent::Irrelevant) => Effect::Nothing,
        Ok(event) => {
            let pci = match &event {
                LinkEvent::Exists(link) => link.pci,
                LinkEvent::Left { index, .. } => links.get(*index).and_then(|link| link.pci),
                LinkEvent::Irrelevant => None,
            };
            links.apply(event);
            if pci.is_some() { Effect::Cards } else { Effect::Links }
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

/// The messages of a datagram, up to the first whose length makes no sense.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(datagram).ok()?;
        let length = (message.length() as usize).next_multiple_of(4).min(datagram.len());
        datagram = &datagram[length..];
        Some(message)
    })
}

/// The errno of an `NLMSG_ERROR` payload, `struct nlmsgerr`.
fn error_of(payload: &[u8]) -> io::Error {
    let code = payload.first_chunk().copied().map_or(0, i32::from_ne_bytes);
    io::Error::from_raw_os_error(code.saturating_neg())
}

/// `RTMGRP_LINK` of `linux/rtnetlink.h`.
const RTMGRP_LINK: u32 = 1;
/// `linux/netlink.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Larger than any message: an attribute's length is 16 bits, and the kernel fills dumps in pieces of 32 KiB.
const RECEIVE_SIZE: usize = 128 * 1024;
/// How many events are taken in before they are published, so that readers are not starved by a storm.
const BATCH: usize = 512;
/// A listing takes milliseconds; a host whose links never hold still that long has other troubles.
const DUMP_ATTEMPTS: u32 = 6;
/// A session that lived this long was no failure.
const HEALTHY: Duration = Duration::from_secs(10);
/// Enough for any honest number of scrapers; the rest are turned away at once.
const COUNTER_REQUESTS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(length: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn a_datagram_is_split_into_its_messages_up_to_the_first_senseless_length() {
        let mut datagram = framed(18, &[1, 2, 0, 0]);
        datagram.extend(framed(16, &[]));
        datagram.extend(framed(99, &[3]));
        let payloads: Vec<_> = messages(&datagram).map(|message| message.payload().to_vec()).collect();
        assert_eq!(payloads, [vec![1, 2], vec![]]);
        assert_eq!(messages(&framed(3, &[0; 8])).count(), 0);
    }

    #[test]
    fn a_message_that_cannot_be_used_changes_nothing() {
        let mut links = Links::default();
        assert_eq!(apply(&mut links, link::RTM_NEWLINK, &[0; 16]), Effect::Nothing);
        assert_eq!(apply(&mut links, link::RTM_NEWLINK, &[0; 3]), Effect::Nothing);
        assert!(links.is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_splitting_panic_or_last_for_ever(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(messages(&datagram).count() <= datagram.len() / 16);
            let _ = error_of(&datagram);
        }
    }
}
