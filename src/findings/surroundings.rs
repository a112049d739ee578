//! What findings rest on beside the inventory: counters, the permissions of sockets, and what the daemon's parts say.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use rustix::fs::{Access, access};

use super::{Sources, drops::Drops};
use crate::{health::Troubles, inventory::Inventory};

/// Where libvirt's daemons wait for those who only read.
const LIBVIRT: [(&str, &str); 4] = [
    ("qemu:///system", "/run/libvirt/virtqemud-sock-ro"),
    ("qemu:///system", "/run/libvirt/libvirt-sock-ro"),
    ("lxc:///system", "/run/libvirt/virtlxcd-sock-ro"),
    ("lxc:///system", "/run/libvirt/libvirt-sock-ro"),
];

/// All of that at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) drops: Drops,
    pub(super) troubles: Troubles,
    /// vifd's own socket and its permissions, if every user may connect to it.
    pub(super) open_socket: Option<(Arc<str>, u32)>,
    /// Sockets that exist and that vifd's user may not connect to, each with the source behind it.
    pub(super) refused: Vec<(Arc<str>, Arc<str>)>,
}

impl Surroundings {
    /// Looks at the sockets, which takes microseconds.
    pub(super) fn look(&mut self, sources: &Sources, inventory: &Inventory) {
        self.troubles = sources.health.borrow().clone();
        let mode = fs::metadata(&sources.socket).map(|metadata| metadata.permissions().mode() & 0o777);
        let open = mode.ok().filter(|mode| mode & 0o002 != 0);
        self.open_socket = open.map(|mode| (sources.socket.display().to_string().into(), mode));
        let lost = |uri: &str| inventory.hypervisors.iter().any(|h| *h.uri == *uri && !h.sync.is_synced());
        let libvirt = LIBVIRT.into_iter().filter(|(uri, _)| lost(uri)).map(|(uri, path)| (uri, Path::new(path)));
        let ovsdb_is_lost = inventory.ovsdb.as_ref().is_some_and(|sync| !sync.is_synced());
        let ovsdb = ovsdb_is_lost.then_some(("ovsdb", &*sources.ovsdb));
        let refused = libvirt.chain(ovsdb).filter(|(_, path)| is_refused(path));
        self.refused = refused.map(|(source, path)| (source.into(), path.display().to_string().into())).collect();
        // One socket, two drivers behind it.
        self.refused.dedup_by(|a, b| a.1 == b.1);
    }
}

/// Whether there is a socket to which this process may not connect.
fn is_refused(path: &Path) -> bool {
    let is_socket = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket && access(path, Access::WRITE_OK).is_err()
}
