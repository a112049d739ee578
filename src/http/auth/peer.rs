//! Processes of this host, which the kernel vouches for: who connected to the Unix socket.
//!
//! Root, the daemon's own user and the members of the socket's group are administrators. Nobody else gets anything,
//! whatever the socket's mode lets connect.

use std::{collections::BTreeSet, fs};

use tokio::net::unix::UCred;

/// Who a process was when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its user.
    pub uid: u32,
    /// Its groups: the effective and the supplementary ones.
    pub groups: BTreeSet<u32>,
}

impl Credentials {
    /// Those of the process that connected with these.
    #[must_use]
    pub fn of(credentials: UCred) -> Self {
        let uid = credentials.uid();
        let mut groups = BTreeSet::from([credentials.gid()]);
        // The kernel vouches for user and group. The supplementary groups are those of the process that has its pid now:
        // should that be another one already, it is at least one of the same user.
        if let Some(status) = credentials.pid().and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok()) {
            groups.extend(supplementary_groups(&status, uid));
        }
        Self { uid, groups }
    }
}

/// The line `Groups:` of a `/proc/PID/status` whose process has this effective user.
fn supplementary_groups(status: &str, uid: u32) -> Vec<u32> {
    let line = |name: &str| {
        let values = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        values.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()
    };
    // Real, effective, saved, of the file system.
    if line("Uid:").get(1) == Some(&uid) { line("Groups:") } else { Vec::new() }
}

/// The administrators of this host.
#[derive(Clone, Debug)]
pub struct Admins {
    /// The daemon's own user, who could look into its memory as well.
    pub own: u32,
    /// The group whose members are.
    pub group: u32,
}

impl Admins {
    /// Whether this process is one.
    #[must_use]
    pub fn include(&self, peer: &Credentials) -> bool {
        peer.uid == 0 || peer.uid == self.own || peer.groups.contains(&self.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_daemons_user_and_the_members_of_the_group_are_administrators() {
        let admins = Admins { own: 64, group: 100 };
        for (uid, groups, admin) in [
            (0, vec![0], true),
            (64, vec![64], true),
            (1000, vec![100], true),
            (1000, vec![1000, 27, 100], true),
            (1000, vec![1000], false),
            (1000, vec![0], false),
            (100, vec![64], false),
        ] {
            let peer = Credentials { uid, groups: groups.iter().copied().collect() };
            assert_eq!(admins.include(&peer), admin, "{peer:?}");
        }
    }

    #[test]
    fn supplementary_groups_are_those_of_a_process_of_the_same_user() {
        let status = "Name:\tGroups:\t9\nUid:\t0\t1000\t0\t0\nGid:\t5\t5\t5\t5\nGroups:\t4 27 100 \n";
        assert_eq!(supplementary_groups(status, 1000), vec![4u32, 27, 100]);
        assert!(supplementary_groups(status, 0).is_empty());
        assert!(supplementary_groups("", 0).is_empty());
    }

    #[tokio::test]
    async fn the_other_end_of_a_socket_is_known() {
        let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
        let own = Credentials::of(ours.peer_cred().unwrap());
        assert_eq!(own.uid, rustix::process::geteuid().as_raw());
        assert!(own.groups.contains(&rustix::process::getegid().as_raw()));
    }
}
