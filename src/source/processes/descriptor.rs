//! Which links a process holds open: the kernel's own word for what carries a guest's interface.
//!
//! A descriptor of `/dev/net/tun` has a line `iff:` in `/proc/PID/fdinfo`, with the present name of its device; one of a
//! macvtap is `/dev/tapN`, where N is the link's index. Root may read this of any process, others of their own.

use std::{fs, io, path::Path, sync::Arc};

use rustix::net::{AddressFamily, SocketType, netdevice, socket};

/// A link that a process holds open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// By which descriptor.
    pub descriptor: u32,
    /// The link's name.
    pub device: Arc<str>,
}

/// The links that a process of our network namespace holds open.
///
/// # Errors
/// It may not be looked at, or is gone.
pub fn of(process: &Path) -> io::Result<Vec<Held>> {
    let mut held = Vec::new();
    for entry in fs::read_dir(process.join("fd"))? {
        let entry = entry?;
        // Closed meanwhile, most likely.
        let Ok(file) = fs::read_link(entry.path()) else { continue };
        let Some(descriptor) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let device = match Device::of(&file) {
            None => continue,
            Some(Device::Tun) => {
                let info = fs::read_to_string(process.join("fdinfo").join(entry.file_name())).unwrap_or_default();
                interface(&info).map(Arc::from)
            }
            Some(Device::Macvtap(index)) => name(index),
        };
        held.extend(device.map(|device| Held { descriptor, device }));
    }
    Ok(held)
}

/// A file by which a link is held open.
#[derive(Debug, PartialEq, Eq)]
enum Device {
    Tun,
    Macvtap(u32),
}

impl Device {
    fn of(file: &Path) -> Option<Self> {
        match file.to_str()? {
            "/dev/net/tun" => Some(Self::Tun),
            path => path.strip_prefix("/dev/tap")?.parse().ok().map(Self::Macvtap),
        }
    }
}

/// The line `iff:` of a descriptor's `fdinfo`; a descriptor that has no device yet has an empty one.
fn interface(info: &str) -> Option<&str> {
    info.lines().find_map(|line| line.strip_prefix("iff:")).map(str::trim).filter(|name| !name.is_empty())
}

/// The name of the link with this index.
pub(super) fn name(index: u32) -> Option<Arc<str>> {
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
    netdevice::index_to_name(socket, index).ok().map(Arc::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_names_the_tap_of_a_descriptor() {
        let recorded = include_str!("../../../tests/data/processes/recorded_tap.fdinfo");
        assert_eq!(interface(recorded), Some("tapebffdf78-b3"));
        assert_eq!(interface("pos:\t0\niff:\t\n"), None);
        assert_eq!(interface("pos:\t0\nflags:\t02\n"), None);
    }

    #[test]
    fn a_macvtap_is_known_by_its_index() {
        assert_eq!(Device::of(Path::new("/dev/tap17")), Some(Device::Macvtap(17)));
        assert_eq!(Device::of(Path::new("/dev/net/tun")), Some(Device::Tun));
        for other in ["/dev/tap", "/dev/tape", "/dev/null", "socket:[7]"] {
            assert_eq!(Device::of(Path::new(other)), None, "{other}");
        }
        assert_eq!(name(1).as_deref(), Some("lo"));
    }

    #[test]
    fn a_process_without_such_descriptors_holds_none() {
        assert_eq!(of(Path::new("/proc/self")).unwrap(), []);
        assert!(of(Path::new("/proc/0")).is_err());
    }
}
