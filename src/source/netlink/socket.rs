//! Netlink sockets, and the framing of what comes from them: nothing here knows what a message says.
//!
//! They are our own instead of `rtnetlink`'s, because that crate drops messages that it cannot decode whole, and hides
//! `NLM_F_DUMP_INTR` and truncation: the three things about which an answer must not be wrong in silence.

use std::{io, os::fd::OwnedFd};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::{
    io::Errno,
    net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, sockopt},
};
use tokio::io::unix::AsyncFd;
use tracing::{debug, warn};

use super::SessionError;

/// Asks for a whole table. Says whether the listing is consistent (no `NLM_F_DUMP_INTR`).
pub(super) async fn dump(request: RouteNetlinkMessage, each: impl FnMut(u16, &[u8])) -> Result<bool, SessionError> {
    ask(request, NLM_F_DUMP, each).await
}

/// Asks on a socket of its own, so that the answer cannot be mixed up with events. Says whether the answer is
/// consistent.
pub(super) async fn ask(
    request: RouteNetlinkMessage,
    flags: u16,
    mut each: impl FnMut(u16, &[u8]),
) -> Result<bool, SessionError> {
    let socket = Socket::open(0)?;
    let mut request = NetlinkMessage::from(request);
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    net::send(socket.0.get_ref(), &bytes, SendFlags::empty()).map_err(|e| SessionError::Dump(e.into()))?;

    let mut consistent = true;
    let mut buffer = Vec::with_capacity(RECEIVE_SIZE);
    loop {
        if !socket.receive(&mut buffer)? {
            socket.readable().await?;
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

pub(super) struct Socket(AsyncFd<OwnedFd>);

impl Socket {
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

    /// A socket that gets the events of these groups, of which so many bytes may wait.
    pub(super) fn subscribe(groups: u32, receive_buffer: usize) -> Result<Self, SessionError> {
        let socket = Self::open(groups)?;
        let fd = socket.0.get_ref();
        // Beyond net.core.rmem_max takes CAP_NET_ADMIN; without it the kernel grants what it may.
        if sockopt::set_socket_recv_buffer_size_force(fd, receive_buffer).is_err()
            && let Err(error) = sockopt::set_socket_recv_buffer_size(fd, receive_buffer)
        {
            warn!(%error, "could not enlarge the receive buffer");
        }
        if let Ok(granted) = sockopt::socket_recv_buffer_size(fd) {
            debug!(groups, receive_buffer = granted, "subscribed to events");
        }
        Ok(socket)
    }

    /// One that somebody else has opened, who also chose its groups and its buffer.
    pub(super) fn adopt(socket: OwnedFd) -> Result<Self, SessionError> {
        #[expect(deprecated, reason = "as above")]
        let socket = Self(AsyncFd::new(socket).map_err(SessionError::Open)?);
        if let Ok(granted) = sockopt::socket_recv_buffer_size(socket.0.get_ref()) {
            debug!(receive_buffer = granted, "took over a socket for events");
        }
        Ok(socket)
    }

    /// Throws away what waits, and that there was an overrun. Until nothing is left: a socket that overran gets nothing
    /// new before that, and does not say so again.
    pub(super) async fn forget(&self) -> Result<(), SessionError> {
        loop {
            match self.drain(|_, _| {}) {
                Ok(true) => return Ok(()),
                Ok(false) | Err(SessionError::Overrun | SessionError::Truncated(_)) => tokio::task::yield_now().await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until there may be something to read. Readiness is forgotten by then: whoever reads until nothing is left
    /// sleeps through no event, since one that arrives in between sets it again.
    pub(super) async fn readable(&self) -> Result<(), SessionError> {
        self.0.readable().await.map_err(SessionError::Receive)?.clear_ready();
        Ok(())
    }

    /// Reads what waits, but no more than is fit to publish at once. Says whether nothing is left.
    pub(super) fn drain(&self, mut each: impl FnMut(u16, &[u8])) -> Result<bool, SessionError> {
        let mut buffer = Vec::with_capacity(RECEIVE_SIZE);
        for _ in 0..BATCH {
            if !self.receive(&mut buffer)? {
                return Ok(true);
            }
            messages(&buffer).for_each(|message| each(message.message_type(), message.payload()));
        }
        Ok(false)
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

/// `linux/netlink.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Larger than any message: an attribute's length is 16 bits, and the kernel fills dumps in pieces of 32 KiB.
const RECEIVE_SIZE: usize = 128 * 1024;
/// How many events are taken in before they are published, so that readers are not starved by a storm.
const BATCH: usize = 512;

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

    proptest! {
        #[test]
        fn no_bytes_make_the_splitting_panic_or_last_for_ever(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(messages(&datagram).count() <= datagram.len() / 16);
            let _ = error_of(&datagram);
        }
    }
}
