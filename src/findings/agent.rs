//! The daemon's own health.
//!
//! A part that can fail alone has a word in [`Part`], says how it is by [`Health`](crate::health::Health), and gets a code
//! and a rule here.

use super::{
    Code, Finding, Severity, Subject, SubjectKind,
    scene::{Scene, finding, word},
};
use crate::health::Part;

pub(super) fn socket_open(scene: &Scene, found: &mut Vec<Finding>) {
    let Some((path, mode)) = &scene.surroundings.open_socket else { return };
    found.push(
        finding(Code::SocketOpen, Severity::Warning, Subject::called(SubjectKind::Socket, path.clone()))
            .says(format!("every user of this host may connect to {path}"))
            .because(format!("its mode is {mode:04o}"))
            .advise(
                "They are told nothing: vifd looks who they are. But they can take up its connections. Set socket_mode to \
                 \"0660\".",
            )
            .try_command(format!("chmod o-rwx {}", word(path))),
    );
}

pub(super) fn cache_not_written(scene: &Scene, found: &mut Vec<Finding>) {
    let Some(trouble) = scene.surroundings.troubles.get(&Part::Cache) else { return };
    found.push(
        finding(Code::CacheNotWritten, Severity::Warning, Subject::called(SubjectKind::Daemon, "cache"))
            .says("the records for the next start cannot be written")
            .because(trouble.reason.to_string())
            .because(format!("since {}", jiff::Timestamp::from(trouble.since)))
            .advise(
                "Answers are not affected. After a restart vifd knows nothing until it has read libvirt. Is the disk full, \
                 or the directory not writable?",
            )
            .try_command("df -h /var/lib/vifd")
            .try_command("ls -ld /var/lib/vifd"),
    );
}

pub(super) fn journal_not_written(scene: &Scene, found: &mut Vec<Finding>) {
    let Some(trouble) = scene.surroundings.troubles.get(&Part::Journal) else { return };
    found.push(
        finding(Code::JournalNotWritten, Severity::Warning, Subject::called(SubjectKind::Daemon, "journal"))
            .says("changes are not recorded")
            .because(trouble.reason.to_string())
            .because(format!("since {}", jiff::Timestamp::from(trouble.since)))
            .advise(
                "Answers are not affected. What changes now, vifctl history will not be able to tell later. Is the disk \
                 full, or the directory not writable?",
            )
            .try_command("df -h /var/lib/vifd")
            .try_command("ls -ld /var/lib/vifd"),
    );
}
