//! The ends of a container's links, from inside its network namespace: the kernel's word for which device of the host
//! carries which interface.

use std::{fs::File, io, os::fd::AsFd, path::Path, sync::Arc, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime;

use super::descriptor;
use crate::{
    mac::MacAddr,
    source::netlink::{
        self,
        link::{LinkKind, LinkRef},
    },
};

/// An interface of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Its name in there.
    pub(super) name: Arc<str>,
    /// Its MAC address.
    pub(super) mac: MacAddr,
    /// The other end of its pair, by its index on the host; a macvlan has none.
    pub(super) peer: Option<u32>,
}

/// The interfaces in the network namespace of a process.
///
/// # Errors
/// It is gone, or this needs root.
pub(super) fn ends(process: &Path) -> io::Result<Vec<End>> {
    let namespace = File::open(process.join("ns/net"))?;
    // A thread of its own, since it does not come back from there.
    let list = move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(netlink::links()).map_err(io::Error::other)
    };
    let links = thread::Builder::new().name("namespace".into()).spawn(list)?;
    let links = links.join().map_err(|_| io::Error::other("the thread panicked"))??;
    let beyond = |end: &Option<LinkRef>| end.filter(|end| end.netns.is_some()).map(|end| end.index);
    let ends = links.iter().filter_map(|link| {
        let (peer, end) = match link.kind {
            LinkKind::Veth => (beyond(&link.peer), beyond(&link.peer)),
            LinkKind::Macvlan => (None, beyond(&link.lower)),
            _ => (None, None),
        };
        // Others are the container's own affair.
        end.and_then(|_| Some(End { name: Arc::clone(&link.name), mac: link.mac?, peer }))
    });
    Ok(ends.collect())
}

impl End {
    /// The name of the other end on the host.
    pub(super) fn device(&self) -> Option<Arc<str>> {
        descriptor::name(self.peer?)
    }
}
