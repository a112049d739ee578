//! Sockets that systemd opens and hands over: those of `vifd.socket`, which stay open while vifd is restarted, and those
//! of `vifd-netlink.socket`, whose receive buffer is larger than what the kernel grants to a user without capabilities.
//!
//! What each is for is told by what it is. Whatever is not handed over, vifd opens by itself.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixListener},
};

use listenfd::ListenFd;
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    net::{AddressFamily, SocketType, getsockname, netlink::SocketAddrNetlink},
};

/// What was handed over.
#[derive(Debug, Default)]
pub struct Handed {
    /// For HTTP over a Unix socket.
    pub unix: Option<UnixListener>,
    tcp: Vec<TcpListener>,
    netlink: Vec<(u32, OwnedFd)>,
}

impl Handed {
    /// Takes what systemd has handed to this process. To be called once, before there are threads: it changes the
    /// environment.
    ///
    /// # Errors
    /// Something was handed over for which there is no use.
    pub fn take() -> io::Result<Self> {
        let mut handed = Self::default();
        let mut fds = ListenFd::from_env();
        for index in 0..fds.len() {
            if let Ok(Some(unix)) = fds.take_unix_listener(index) {
                unix.set_nonblocking(true)?;
                if handed.unix.replace(unix).is_some() {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "there are several Unix sockets"));
                }
            } else if let Ok(Some(tcp)) = fds.take_tcp_listener(index) {
                tcp.set_nonblocking(true)?;
                handed.tcp.push(tcp);
            } else {
                handed.netlink.push(netlink(fds.take_custom(index, NETLINK, RAW, "netlink socket")?)?);
            }
        }
        Ok(handed)
    }

    /// The TCP socket with this address, once.
    pub fn tcp(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let position = self.tcp.iter().position(|tcp| tcp.local_addr().is_ok_and(|bound| bound == address))?;
        Some(self.tcp.swap_remove(position))
    }

    /// The address of a TCP socket that nobody has taken: a socket cannot say who may ask there.
    #[must_use]
    pub fn left_over(&self) -> Option<SocketAddr> {
        self.tcp.first().and_then(|tcp| tcp.local_addr().ok())
    }

    /// The netlink socket that gets the events of this group and no others, once.
    pub fn netlink(&mut self, group: u32) -> Option<OwnedFd> {
        let position = self.netlink.iter().position(|(groups, _)| *groups == group)?;
        Some(self.netlink.swap_remove(position).1)
    }
}

/// With its groups. systemd leaves it blocking.
fn netlink(socket: Option<OwnedFd>) -> io::Result<(u32, OwnedFd)> {
    let socket = socket.ok_or(io::ErrorKind::NotFound)?;
    fcntl_setfl(&socket, fcntl_getfl(&socket)? | OFlags::NONBLOCK)?;
    let address: SocketAddrNetlink = getsockname(&socket)?.try_into()?;
    Ok((address.groups(), socket))
}

const NETLINK: i32 = AddressFamily::NETLINK.as_raw() as i32;
#[expect(clippy::cast_possible_wrap, reason = "it is 3")]
const RAW: i32 = SocketType::RAW.as_raw() as i32;
