//! Which instance a process belongs to, from what every user may read in `/proc`; and which process holds a link open,
//! from what root may.

use std::fs;

use crate::{
    http::host::Holder,
    source::processes::{command_line::CommandLine, descriptor},
};

/// The UUID or libvirt name of the instance that this process runs, or runs in: QEMU itself, one of its vhost threads, the
/// controller of a container, or any process inside the container.
pub(super) fn instance_of(pid: u32) -> Option<String> {
    let mut pid = pid;
    // A process's ancestors; a container's are few.
    for _ in 0..DEEPEST {
        if let Some(instance) = instance_in(&fs::read(format!("/proc/{pid}/cmdline")).ok()?) {
            return Some(instance);
        }
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        pid = match comm.trim_end().strip_prefix("vhost-").and_then(|owner| owner.parse().ok()) {
            Some(owner) => owner,
            None => parent(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?).filter(|pid| *pid > 1)?,
        };
    }
    None
}

/// From a command line as libvirt makes it: QEMU's UUID, or a container's name.
fn instance_in(cmdline: &[u8]) -> Option<String> {
    let guest = CommandLine::decode(cmdline)?;
    guest.uuid.map(|uuid| uuid.to_string()).or_else(|| guest.name.as_deref().map(str::to_owned))
}

/// The processes that hold this link open, as far as we may look into them: a tap's guest, say.
pub(super) fn holders(device: &str) -> Vec<Holder> {
    let own = fs::read_link("/proc/self/ns/net").ok();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut holders: Vec<_> = entries
        .filter_map(|entry| {
            let (pid, path) = (entry.file_name().to_str()?.parse().ok()?, entry.path());
            // A link of the same name in another namespace is another link.
            let ours = fs::read_link(path.join("ns/net")).ok() == own;
            let holds = ours && descriptor::of(&path).ok()?.iter().any(|held| &*held.device == device);
            let command = fs::read_to_string(path.join("comm")).ok()?;
            let guest = || CommandLine::decode(&fs::read(path.join("cmdline")).ok()?)?.name;
            holds.then(|| Holder { pid, command: command.trim_end().into(), guest: guest() })
        })
        .collect();
    holders.sort_by_key(|holder| holder.pid);
    holders
}

/// The `PPid:` of `/proc/PID/status`.
fn parent(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

const DEEPEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_is_in_the_command_line_that_libvirt_makes() {
        let of = |words: &str| instance_in(words.replace(' ', "\0").as_bytes());
        let uuid = "874092fe-19a7-44bd-a16a-4fb617bfef7a";
        let qemu =
            format!("/usr/bin/qemu-system-x86_64 -name guest=instance-0000002a,debug-threads=on -uuid {uuid} -S");
        assert_eq!(of(&qemu).as_deref(), Some(uuid));
        assert_eq!(of("/usr/libexec/qemu-kvm -uuid"), None);
        assert_eq!(
            of("/usr/lib/libvirt/libvirt_lxc --name instance-00000007 --console 22").unwrap(),
            "instance-00000007"
        );
        assert_eq!(of("/bin/grep -uuid x"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn a_process_that_is_no_guests_has_none() {
        assert_eq!(instance_of(std::process::id()), None);
        assert_eq!(instance_of(u32::MAX), None);
        assert_eq!(parent("Name:\tx\nPid:\t7\nPPid:\t3\n"), Some(3));
    }
}
