//! What vifd cannot see, or can no longer.

use std::sync::Arc;

use super::{
    Code, Finding, Severity, Subject, SubjectKind,
    scene::{Scene, finding, virsh, word},
};
use crate::source::SyncState;

/// Each source with its name.
fn sources<'a>(scene: &Scene<'a>) -> Vec<(&'a str, &'a SyncState, Severity)> {
    let inventory = scene.inventory;
    let host = [
        ("netlink", &inventory.netlink, Severity::Error),
        ("neighbours", &inventory.neighbours, Severity::Warning),
        ("ovsdb", &inventory.ovsdb, Severity::Warning),
        ("leases", &inventory.leases, Severity::Warning),
    ];
    let host = host.into_iter().filter_map(|(name, sync, severity)| Some((name, sync.as_ref()?, severity)));
    let expected = inventory.hypervisors.iter().filter(|hypervisor| !scene.is_passed_over(hypervisor));
    host.chain(expected.map(|hypervisor| (&*hypervisor.uri, &hypervisor.sync, Severity::Error))).collect()
}

pub(super) fn stale(scene: &Scene, found: &mut Vec<Finding>) {
    for (name, sync, severity) in sources(scene) {
        let SyncState::Stale { since, reason } = sync else { continue };
        let since = jiff::Timestamp::from(*since);
        let finding = finding(Code::SourceStale, severity, Subject::called(SubjectKind::Source, name))
            .says(format!("{name} was lost: what it said last is served, marked with its age"))
            .because(format!("last current at {since}"))
            .because(format!("the last attempt: {reason}"));
        found.push(advise(finding, name));
    }
}

pub(super) fn unread(scene: &Scene, found: &mut Vec<Finding>) {
    for (name, sync, severity) in sources(scene) {
        let SyncState::Pending { reason: Some(reason) } = sync else { continue };
        if scene.surroundings.refused.iter().any(|(source, _)| **source == *name) {
            continue;
        }
        let finding = finding(Code::SourceUnread, severity, Subject::called(SubjectKind::Source, name))
            .says(format!("{name} has never been read since vifd was started"))
            .because(format!("the last attempt: {reason}"));
        found.push(advise(finding, name));
    }
}

fn advise(finding: Finding, source: &str) -> Finding {
    let (advice, command) = match source {
        "netlink" | "neighbours" => (
            "vifd reads everything again within seconds. If it recurs, more changes at once than the receive buffer holds.",
            "sysctl net.core.rmem_max".to_owned(),
        ),
        "ovsdb" => ("Look after ovsdb-server; vifd reconnects by itself.", "systemctl status ovsdb-server".to_owned()),
        "leases" => ("Let vifd's user read libvirt's lease files.", "ls -l /var/lib/libvirt/dnsmasq".to_owned()),
        uri => (
            "Look after libvirt; guests go on without it, and vifd reconnects by itself.",
            format!("virsh -r -c {} list", word(uri)),
        ),
    };
    finding.advise(advice).try_command("vifctl status").try_command(command)
}

pub(super) fn instance_unreadable(scene: &Scene, found: &mut Vec<Finding>) {
    for instance in &scene.inventory.instances {
        let Some(unreadable) = &instance.unreadable else { continue };
        found.push(
            finding(Code::InstanceUnreadable, Severity::Warning, Subject::instance(instance))
                .says(format!("libvirt does not answer about {}: its record is the last one known", instance.name))
                .because(format!("last current at {}", jiff::Timestamp::from(unreadable.since)))
                .because(format!("the last attempt: {}", unreadable.reason))
                .advise("libvirt hangs in this domain: a hook script, its storage, or QEMU itself. Look after that.")
                .try_command(virsh(instance, "domjobinfo"))
                .try_command(format!("pgrep -af {}", instance.uuid)),
        );
    }
    for hypervisor in scene.inventory.hypervisors.iter().filter(|hypervisor| hypervisor.sync.is_synced()) {
        for uuid in &hypervisor.unread {
            let called = Subject::called(SubjectKind::Instance, uuid.to_string());
            let subject = Subject { instance_uuid: Some(*uuid), ..called };
            found.push(
                finding(Code::InstanceUnreadable, Severity::Warning, subject)
                    .says(format!("libvirt has never answered about the instance {uuid}"))
                    .because(format!("{} lists it and does not describe it", hypervisor.uri))
                    .advise(
                        "libvirt hangs in this domain: a hook script, its storage, or QEMU itself. Look after that.",
                    )
                    .try_command(format!("virsh -c {} domjobinfo {uuid}", word(&hypervisor.uri)))
                    .try_command(format!("pgrep -af {uuid}")),
            );
        }
    }
}

pub(super) fn socket_refused(scene: &Scene, found: &mut Vec<Finding>) {
    for (source, path) in &scene.surroundings.refused {
        let severity = if &**source == "ovsdb" { Severity::Warning } else { Severity::Error };
        let advice = if &**source == "ovsdb" {
            "Give vifd's user access. It only reads."
        } else {
            "Give vifd's user access to libvirt's read-only socket: unix_sock_ro_perms in libvirtd.conf. It only reads."
        };
        found.push(
            finding(Code::SocketRefused, severity, Subject::called(SubjectKind::Socket, Arc::clone(path)))
                .says(format!("vifd may not connect to {path}: it knows nothing by {source}"))
                .because(format!(
                    "{path} is a socket to which the user {} may not write",
                    rustix::process::geteuid().as_raw()
                ))
                .advise(advice)
                .try_command(format!("ls -l {}", word(path)))
                .try_command(format!("setfacl -m u:vifd:rw {}", word(path))),
        );
    }
}
