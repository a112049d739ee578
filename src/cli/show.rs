//! Answers as tables for people.
//!
//! Names are chosen by tenants: whatever a terminal would obey is made harmless by [`plain`].

use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;

use crate::{
    http::host::{Answer, InstanceRecord, Instances, OneInstance, Sources, Sync, Who, WhoMatch},
    inventory::{Address, AddressSource, Instance, Match, PassedFunction, Staleness, Vif},
    source::{
        SyncState,
        libvirt::domain::{InDefinition, Interface, Migration},
        moment::Moment,
        netlink::link::Link,
        ovsdb::rows::Port,
    },
};

/// `vifctl list`
pub(super) fn list(answer: &Answer<Instances>) -> String {
    let mut table = table(&["INSTANCE", "NAME", "STATE", "VIF ID", "MAC ADDRESS", "TYPE", "DEVICE"]);
    for record in &answer.body.instances {
        let instance = &record.instance;
        let start = [
            plain(&instance.name),
            plain(instance.display_name.as_deref().unwrap_or("-")),
            state(instance) + if record.stale.is_some() { " (stale)" } else { "" },
        ];
        if instance.vifs.is_empty() {
            table.add_row(start.iter().map(String::as_str).chain(["-"; 4]));
        }
        for vif in &instance.vifs {
            let vif = [
                vif.id.to_string(),
                vif.interface.mac.to_string(),
                vif.interface.attachment.type_name().to_owned(),
                device(vif),
            ];
            table.add_row(start.iter().chain(&vif));
        }
    }
    let mut text = if answer.body.instances.is_empty() { "No instances.\n".to_owned() } else { lines(&table) };
    text += &doubts(&answer.sources);
    text
}

/// `vifctl show`
pub(super) fn instance(answer: &Answer<OneInstance>) -> String {
    let record = &answer.body.instance;
    let instance = &record.instance;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14} {value}");
    };
    line("instance", instance.uuid.to_string());
    line("libvirt name", plain(&instance.name));
    if let Some(number) = instance.number {
        line("integer id", number.to_string());
    }
    if let Some(name) = &instance.display_name {
        line("display name", plain(name));
    }
    for (what, owner) in [("project", &instance.project), ("user", &instance.user)] {
        if let Some(owner) = owner {
            let name = owner.name.as_deref().map(|name| format!(" ({})", plain(name))).unwrap_or_default();
            line(what, plain(&owner.id) + &name);
        }
    }
    line("state", state(instance));
    line("hypervisor", format!("{} ({})", plain(&instance.hypervisor), plain(&instance.hypervisor_type)));
    if let Some(stale) = &record.stale {
        line("stale", staleness(stale));
    }
    if instance.persistent == Some(false) {
        line("definition", "none: it is gone when it stops".to_owned());
    }
    for warning in &instance.warnings {
        line("warning", plain(warning));
    }
    for (n, vif) in instance.vifs.iter().enumerate() {
        text += "\n";
        vif_lines(&mut text, record, n, vif);
    }
    if !instance.defined_only.is_empty() {
        text += "\nafter the next start also\n";
    }
    for interface in &instance.defined_only {
        let _ = writeln!(text, "  {:<12} {}, {}", "interface", interface.mac, attachment(interface));
    }
    text + &doubts(&answer.sources)
}

fn attachment(interface: &Interface) -> String {
    let source = interface.attachment.source().map(|source| format!(" on {}", plain(&source))).unwrap_or_default();
    interface.attachment.type_name().to_owned() + &source
}

fn vif_lines(text: &mut String, record: &InstanceRecord, n: usize, vif: &Vif) {
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<12} {value}");
    };
    let interface = &vif.interface;
    line(&format!("VIF {n}"), vif.id.to_string());
    line("id from", vif.id_source.to_string());
    for other in &vif.id_disagreement {
        line("but", format!("{} says {}", other.source, other.id));
    }
    for other in &vif.disagreements {
        line("but", format!("{} says {} {}", other.source, other.what, plain(&other.value)));
    }
    if let Some(network) = vif.network_id {
        line("network", network.to_string());
    }
    line("MAC address", interface.mac.to_string());
    line("type", attachment(interface));
    if let Some(model) = &interface.model {
        line("model", plain(model));
    }
    for (n, known) in vif.addresses.iter().enumerate() {
        line(if n == 0 { "addresses" } else { "" }, address(known));
    }
    if interface.link_down {
        line("link", "set down in the guest".to_owned());
    }
    match interface.definition {
        Some(InDefinition::Changed) => line("definition", "differs: otherwise after the next start".to_owned()),
        Some(InDefinition::LiveOnly) => {
            line("definition", "has no such interface: gone after the next start".to_owned())
        }
        Some(InDefinition::Same) | None => {}
    }
    line("device", device(vif));
    let carried_by = |link: &&std::sync::Arc<Link>| vif.device.as_ref().is_some_and(|d| d.index == link.index);
    if let Some(link) = record.links.iter().find(carried_by) {
        line("", link_summary(link));
    }
    if let Some(function) = &vif.virtual_function {
        line("VF", function_summary(function));
    }
    if let Some(port) = record.ovs_ports.iter().find(|port| vif.ovs_port.as_ref() == Some(&port.name)) {
        line("OVS port", port_summary(port));
        if let Some(error) = &port.error {
            line("OVS error", plain(error));
        }
    }
}

/// `vifctl who`
pub(super) fn who(answer: &Answer<Who>, thing: &str) -> String {
    let sentences: Vec<_> = answer.body.matches.iter().map(match_sentence).collect();
    let mut text = sentences.join("\n");
    if answer.body.matches.is_empty() {
        let _ = writeln!(
            text,
            "Nothing on this host matches {}. Searched: device names and alternative names, ifindexes, MAC addresses of \
             devices and VIFs, VIF ids, IP addresses, PCI addresses, targets, vhost-user sockets, names and numbers of \
             Open vSwitch ports, instance UUIDs and names.",
            plain(thing)
        );
    }
    text + &doubts(&answer.sources)
}

/// What a match is, in one sentence and the facts about it.
fn match_sentence(found: &WhoMatch) -> String {
    let mut text = String::new();
    let Match { matched_by, link, ovs, instance, .. } = &found.found;
    let by: Vec<_> = matched_by.iter().map(ToString::to_string).collect();
    let name = |link: &Link| format!("{} (ifindex {}, {})", plain(&link.name), link.index, link.kind);
    match (link, instance, found.found.vif()) {
        (Some(link), Some(instance), Some(vif)) => {
            let _ = write!(
                text,
                "{} carries VIF {} ({}) of instance {}",
                name(link),
                vif.id,
                vif.interface.mac,
                instance_name(instance)
            );
        }
        (None, Some(instance), Some(vif)) => {
            let _ = write!(
                text,
                "VIF {} ({}) of instance {} has no device on this host: {}",
                vif.id,
                vif.interface.mac,
                instance_name(instance),
                device(vif)
            );
        }
        (_, Some(instance), None) => {
            let _ = write!(text, "Instance {} has {} VIFs", instance_name(instance), instance.vifs.len());
        }
        (Some(link), None, _) => {
            let _ = write!(text, "{} carries no VIF of an instance on this host", name(link));
        }
        (None, None, _) => match ovs {
            Some(port) => {
                let _ =
                    write!(text, "Open vSwitch port {} carries no VIF of an instance on this host", plain(&port.name));
            }
            None => text += "an empty match",
        },
    }
    let _ = writeln!(text, ".\n  matched by   {}", by.join(", "));
    if let Some(instance) = instance {
        let _ = writeln!(text, "  instance     {} {}", instance.uuid, state(instance));
    }
    if let Some(project) = instance.as_ref().and_then(|instance| instance.project.as_ref()) {
        let name = project.name.as_deref().map(|name| format!(" ({})", plain(name))).unwrap_or_default();
        let _ = writeln!(text, "  project      {}{name}", plain(&project.id));
    }
    if let Some(link) = link {
        let controller = found.controller_name.as_deref().map(|name| format!(", on {}", plain(name)));
        let _ = writeln!(text, "  device       {}{}", link_summary(link), controller.unwrap_or_default());
    }
    if let Some(function) = found.found.vif().and_then(|vif| vif.virtual_function.as_ref()) {
        let _ = writeln!(text, "  VF           {}", function_summary(function));
    }
    for (n, known) in found.found.vif().iter().flat_map(|vif| &vif.addresses).enumerate() {
        let _ = writeln!(text, "  {:<12} {}", if n == 0 { "addresses" } else { "" }, address(known));
    }
    if let Some(port) = ovs {
        let _ = writeln!(text, "  OVS port     {}", port_summary(port));
        if let Some(error) = &port.error {
            let _ = writeln!(text, "  OVS error    {}", plain(error));
        }
    }
    if let Some(stale) = &found.stale {
        let _ = writeln!(text, "  stale        {}", staleness(stale));
    }
    text
}

/// `vifctl status`
pub(super) fn status(answer: &Answer<Sync>) -> String {
    let Sync { version, ready, instances, vifs, links, ovs_ports, dropped_identity_headers: dropped } = &answer.body;
    let ready = if *ready { "ready" } else { "not ready" };
    let text = format!(
        "vifd {}, {ready}: {instances} instances, {vifs} VIFs, {links} links{}; generation {}\n\n",
        plain(version),
        if answer.sources.ovsdb == SyncState::Absent { String::new() } else { format!(", {ovs_ports} OVS ports") },
        answer.generation
    );
    let mut table = table(&["SOURCE", "STATE", "FOR", "WHY"]);
    let sources = answer.sources.hypervisors.iter().map(|h| (&*h.uri, &h.sync));
    let Sources { netlink, neighbours, ovsdb, leases, .. } = &answer.sources;
    let host = [("netlink", netlink), ("neighbours", neighbours), ("ovsdb", ovsdb), ("leases", leases)];
    for (name, sync) in host.into_iter().chain(sources) {
        let (state, since) = match sync {
            SyncState::Pending { .. } => ("pending", None),
            SyncState::Absent => ("absent", None),
            SyncState::Synced { since } => ("synced", Some(since)),
            SyncState::Stale { since, .. } => ("stale", Some(since)),
        };
        let since = since.map_or("-".to_owned(), |since| age(*since));
        table.add_row([&plain(name), state, &since, &plain(sync.reason().unwrap_or("-"))]);
    }
    let dropped = match dropped {
        0 => String::new(),
        dropped => format!("\n{dropped} identity headers were dropped: who sent them is no named proxy\n"),
    };
    text + &lines(&table) + &dropped
}

/// What a reader must know about an answer that is not, or not wholly, current. Optional hypervisors that the host
/// does not offer are no news.
fn doubts(sources: &Sources) -> String {
    let mut text = String::new();
    let mut doubt = |name: &str, sync: &SyncState| match sync {
        SyncState::Synced { .. } | SyncState::Absent => {}
        SyncState::Pending { reason } => {
            let reason = reason.as_deref().unwrap_or("not tried yet");
            let _ = writeln!(text, "! {name} has not been read yet: {}", plain(reason));
        }
        SyncState::Stale { since, reason } => {
            let _ = writeln!(text, "! {name} is stale for {}: {}", age(*since), plain(reason));
        }
    };
    doubt("netlink", &sources.netlink);
    doubt("neighbours", &sources.neighbours);
    doubt("ovsdb", &sources.ovsdb);
    doubt("leases", &sources.leases);
    let optional_listed = sources.hypervisors.iter().any(|h| h.optional && !h.sync.is_pending());
    for hypervisor in &sources.hypervisors {
        if !(hypervisor.optional && optional_listed && hypervisor.sync.is_pending()) {
            doubt(&plain(&hypervisor.uri), &hypervisor.sync);
        }
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The table's lines without the padding of their last cells.
fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn device(vif: &Vif) -> String {
    match (&vif.device, vif.no_device) {
        (Some(device), _) => plain(&device.name),
        (None, Some(reason)) => match &vif.interface.target {
            Some(target) => format!("- ({}: {reason})", plain(target)),
            None => format!("- ({reason})"),
        },
        (None, None) => "-".to_owned(),
    }
}

/// An address, and who says so.
fn address(known: &Address) -> String {
    let by = match &known.source {
        AddressSource::Metadata => "fixed address in the metadata".to_owned(),
        AddressSource::Lease { bridge, expires, hostname } => {
            let expires = expires.map_or("never expires".to_owned(), |end| format!("expires {}", remaining(end)));
            let hostname = hostname.as_deref().map(|name| format!(", to the host name {}", plain(name)));
            format!("DHCP lease on {}{}, {expires}", plain(bridge), hostname.unwrap_or_default())
        }
        AddressSource::Neighbour { device, permanent: false } => format!("neighbour on {}", plain(&device.name)),
        AddressSource::Neighbour { device, permanent: true } => {
            format!("permanent neighbour on {}, made by somebody on this host", plain(&device.name))
        }
    };
    format!("{} ({by})", known.address)
}

fn link_summary(link: &Link) -> String {
    let up = if link.up { "up" } else { "down" };
    let mac = link.mac.map(|mac| format!(", {mac}")).unwrap_or_default();
    format!("{}, set {up}, operational state {}, MTU {}{mac}", link.kind, link.oper_state, link.mtu)
}

fn function_summary(passed: &PassedFunction) -> String {
    let PassedFunction { function, physical_function, link } = passed;
    let mut parts =
        vec![format!("{} of {}", function.number, plain(&physical_function.name)), function.pci.to_string()];
    match &function.settings {
        None => parts.push("settings unknown".to_owned()),
        Some(settings) => {
            parts.push(settings.mac.to_string());
            parts.extend(settings.vlan.filter(|vlan| *vlan != 0).map(|vlan| format!("VLAN {vlan}")));
            let switch = |on| if on { "on" } else { "off" };
            parts.extend(settings.spoof_check.map(|on| format!("spoof check {}", switch(on))));
            parts.extend(settings.trusted.map(|on| format!("trust {}", switch(on))));
            parts.extend(settings.link_state.map(|state| format!("link {state}")));
        }
    }
    parts.extend(link.as_ref().map(|link| format!("on the host as {}", plain(&link.name))));
    parts.join(", ")
}

fn state(instance: &Instance) -> String {
    let migration = match instance.migration {
        None => "",
        Some(Migration::Incoming) => ", migrating in",
        Some(Migration::Outgoing) => ", migrating out",
    };
    format!("{}{migration}", instance.state)
}

fn port_summary(port: &Port) -> String {
    let mut parts = vec![match &port.bridge {
        Some(bridge) => format!("{} on {}", plain(&port.name), plain(bridge)),
        None => format!("{} on no bridge", plain(&port.name)),
    }];
    parts.push(port.ofport.map_or("no ofport".to_owned(), |ofport| format!("ofport {ofport}")));
    parts.extend(port.vlan());
    parts.extend((&*port.kind != "system").then(|| format!("type {}", plain(&port.kind))));
    parts.extend(port.bond.as_ref().map(|bond| format!("in bond {}", plain(bond))));
    parts.extend(port.peer.as_ref().map(|peer| format!("peer {}", plain(peer))));
    parts.extend(port.socket.as_ref().map(|socket| format!("socket {}", plain(socket))));
    parts.join(", ")
}

fn instance_name(instance: &Instance) -> String {
    let display = instance.display_name.as_deref().map(|name| format!(" ({})", plain(name))).unwrap_or_default();
    plain(&instance.name) + &display
}

fn staleness(stale: &Staleness) -> String {
    format!("for {}: {}", age(stale.since), plain(&stale.reason))
}

/// How long until then, by the wall clock as the DHCP server has it.
fn remaining(end: Timestamp) -> String {
    let seconds = end.duration_since(Timestamp::now()).as_secs();
    if seconds > 0 { format!("in {}", largest_units(seconds.unsigned_abs())) } else { "now".to_owned() }
}

/// How long ago, in the two largest units.
fn age(since: Moment) -> String {
    largest_units(since.age().as_secs())
}

fn largest_units(seconds: u64) -> String {
    match (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, ..) => format!("{d}d {h}h"),
    }
}

/// Text without the control characters that a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\r\nc\u{9b}"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}");
    }

    #[test]
    fn an_age_is_told_in_its_two_largest_units() {
        assert_eq!([0, 5, 65, 3700, 90000].map(largest_units), ["0s", "5s", "1m 5s", "1h 1m", "1d 1h"]);
    }
}
