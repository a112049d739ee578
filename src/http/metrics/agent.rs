//! vifd's own state: its sources, its inventory, its requests. No label is an id, so that the number of series does not
//! grow with the host.

use std::collections::BTreeMap;

use super::exposition::{Exposition, Labels, Seconds};
use crate::{
    findings::Findings,
    inventory::Inventory,
    meters::{ConnectionMeters, Counter, Meters, SourceMeters},
    source::{SyncState, moment::Moment},
};

/// Writes all of it. `start` is when vifd was started.
pub(super) fn write(
    exposition: &mut Exposition,
    inventory: &Inventory,
    findings: &Findings,
    meters: &Meters,
    start: Moment,
) {
    let version = Labels::default().with("version", env!("CARGO_PKG_VERSION"));
    exposition.info("vifd_build", "The version of vifd.").sample(&version);
    write_sources(exposition, inventory, start);
    write_source_meters(exposition, meters);
    write_hypervisors(exposition, inventory, meters);
    write_inventory(exposition, inventory);
    write_findings(exposition, findings);
    exposition
        .histogram("vifd_join_duration_seconds", "How long it took to join what the sources say.")
        .sample(&Labels::default(), &meters.joins);
    write_requests(exposition, meters);
    write_connections(exposition, meters);
}

fn source(name: &str) -> Labels {
    Labels::default().with("source", name)
}

/// The state of each source, by the names that `vifctl status` has for them.
fn write_sources(exposition: &mut Exposition, inventory: &Inventory, start: Moment) {
    let host = [
        ("netlink", &inventory.netlink),
        ("neighbours", &inventory.neighbours),
        ("ovsdb", &inventory.ovsdb),
        ("leases", &inventory.leases),
    ];
    let pending = SyncState::Pending { reason: None };
    let host = host.map(|(name, sync)| (name, sync.as_ref().unwrap_or(&pending)));
    // One that is only tried because most hosts have it is no loss where it is not.
    let sync = |h| if inventory.is_dispensable(h) { &SyncState::Absent } else { &h.sync };
    let hypervisors = inventory.hypervisors.iter().map(|h| (&*h.uri, sync(h)));
    let sources: Vec<_> = host.into_iter().chain(hypervisors).collect();

    let mut states = exposition.gauge("vifd_source_state", "1 for the state that the source is in.");
    for (name, sync) in &sources {
        let now = match sync {
            SyncState::Pending { .. } => "pending",
            SyncState::Absent => "absent",
            SyncState::Synced { .. } => "synced",
            SyncState::Stale { .. } => "stale",
        };
        for state in ["synced", "stale", "pending", "absent"] {
            states.sample(&source(name).with("state", state), u8::from(state == now));
        }
    }
    let help = "For how long the source has not been kept current: 0 if it is, or if this host has none.";
    let mut ages = exposition.gauge("vifd_source_stale_seconds", help);
    for (name, sync) in &sources {
        let age = match sync {
            SyncState::Synced { .. } | SyncState::Absent => 0,
            SyncState::Stale { since, .. } => since.age().as_nanos(),
            SyncState::Pending { .. } => start.age().as_nanos(),
        };
        ages.sample(&source(name), Seconds(age));
    }
}

fn write_source_meters(exposition: &mut Exposition, meters: &Meters) {
    let host = [
        ("netlink", &meters.links),
        ("neighbours", &meters.neighbours),
        ("ovsdb", &meters.ovsdb),
        ("leases", &meters.leases),
    ];
    let hypervisors = meters.hypervisors.iter().map(|(uri, meters)| (&**uri, meters));
    let sources: Vec<_> = host.into_iter().chain(hypervisors).collect();
    let mut write = |name, help, of: fn(&SourceMeters) -> &Counter, whose: fn(&str) -> bool| {
        let mut family = exposition.counter(name, help);
        for (name, meters) in sources.iter().filter(|(name, _)| whose(name)) {
            family.sample(&source(name), of(meters).get());
        }
    };
    let all = |_: &str| true;
    write("vifd_source_events", "Events taken in.", |m| &m.events, all);
    write("vifd_source_listings", "Complete readings: at first, after a loss, and to be safe.", |m| &m.listings, all);
    write("vifd_source_syncs", "Times that the source became current, at first or again.", |m| &m.syncs, all);
    write("vifd_source_failures", "Times that the source was lost, or could not be reached.", |m| &m.failures, all);
    let netlink = |name: &str| matches!(name, "netlink" | "neighbours");
    write("vifd_source_overruns", "Losses because events came faster than they fit.", |m| &m.overruns, netlink);
}

fn write_hypervisors(exposition: &mut Exposition, inventory: &Inventory, meters: &Meters) {
    let help = "Calls to libvirt that were left behind because they hung.";
    let mut abandoned = exposition.counter("vifd_libvirt_abandoned_calls", help);
    for (uri, meters) in &meters.hypervisors {
        abandoned.sample(&source(uri), meters.abandoned_calls.get());
    }
    let help = "Domains that cannot be read although their hypervisor answers.";
    let mut quarantined = exposition.gauge("vifd_libvirt_quarantined_domains", help);
    for hypervisor in &inventory.hypervisors {
        let of_it = inventory.instances.iter().filter(|instance| instance.hypervisor == hypervisor.uri);
        let unreadable = of_it.filter(|instance| instance.unreadable.is_some()).count();
        quarantined.sample(&source(&hypervisor.uri), unreadable + hypervisor.unread.len());
    }
}

fn write_inventory(exposition: &mut Exposition, inventory: &Inventory) {
    let none = Labels::default();
    let help = "Grows with each change of what is known.";
    exposition.gauge("vifd_inventory_generation", help).sample(&none, inventory.generation);
    let help = "Whether every source has been read at least once.";
    exposition.gauge("vifd_ready", help).sample(&none, u8::from(inventory.is_ready()));

    let states = inventory.instances.iter().map(|instance| instance.state.to_string());
    write_counts(exposition, "vifd_instances", "Instances, by state.", "state", states);
    let vifs = inventory.instances.iter().flat_map(|instance| &instance.vifs);
    let carriers = vifs.map(|vif| match (&vif.device, vif.no_device) {
        (Some(_), _) => "link".to_owned(),
        (None, Some(reason)) => reason.to_string(),
        (None, None) => "unknown".to_owned(),
    });
    write_counts(exposition, "vifd_vifs", "VIFs, by what carries them, or why nothing does.", "carrier", carriers);
    let kinds = inventory.links().iter().map(|link| link.kind.to_string());
    write_counts(exposition, "vifd_links", "Links of the kernel, by kind.", "kind", kinds);
    exposition.gauge("vifd_ovs_ports", "Open vSwitch ports.").sample(&none, inventory.ports().len());
    let stale = inventory.instances.iter().filter(|instance| inventory.staleness(instance).is_some()).count();
    exposition.gauge("vifd_stale_instances", "Instances whose records are not kept current.").sample(&none, stale);
}

fn write_findings(exposition: &mut Exposition, findings: &Findings) {
    let mut counts = BTreeMap::<_, u64>::new();
    for finding in &findings.raised {
        *counts.entry((finding.severity, finding.code)).or_default() += 1;
    }
    let help = "What is not as it should be, where there is any: vifctl doctor tells about each.";
    let mut gauge = exposition.gauge("vifd_findings", help);
    for ((severity, code), count) in counts {
        gauge.sample(&Labels::default().with("code", code).with("severity", severity), count);
    }
    let help = "Looks for what is not as it should be.";
    exposition.counter("vifd_findings_looks", help).sample(&Labels::default(), findings.looks);
}

/// How many there are of each sort.
fn write_counts(
    exposition: &mut Exposition,
    name: &'static str,
    help: &str,
    label: &'static str,
    sorts: impl Iterator<Item = String>,
) {
    let mut counts = BTreeMap::<_, u64>::new();
    for sort in sorts {
        *counts.entry(sort).or_default() += 1;
    }
    let mut gauge = exposition.gauge(name, help);
    for (sort, count) in counts {
        gauge.sample(&Labels::default().with(label, sort), count);
    }
}

fn write_requests(exposition: &mut Exposition, meters: &Meters) {
    let help = "How long answers took, by API and class of status.";
    let mut durations = exposition.histogram("vifd_http_request_duration_seconds", help);
    for (api, class, histogram) in meters.requests.durations() {
        durations.sample(&Labels::default().with("api", api.name()).with("status", class), histogram);
    }
    let scope = |scope| Labels::default().with("scope", scope);
    exposition
        .counter("vifd_http_requests_rate_limited", "Requests turned away because there were too many.")
        .sample(&scope("peer"), meters.requests.limited_by_peer.get())
        .sample(&scope("project"), meters.requests.limited_by_project.get());
    exposition
        .counter("vifd_http_request_panics", "Requests that met a bug of vifd.")
        .sample(&Labels::default(), meters.requests.panics.get());
}

fn write_connections(exposition: &mut Exposition, meters: &Meters) {
    let mut write = |name, help, of: fn(&ConnectionMeters) -> &Counter| {
        let mut family = exposition.counter(name, help);
        for (listener, meters) in &meters.listeners {
            family.sample(&Labels::default().with("listener", listener), of(meters).get());
        }
    };
    write("vifd_http_connections", "Connections accepted.", |m| &m.accepted);
    let help = "Connections told that every place is taken; they are among those accepted.";
    write("vifd_http_connections_refused", help, |m| &m.refused);
    let help = "Connections closed without a word because there were far too many.";
    write("vifd_http_connections_dropped", help, |m| &m.dropped);
    let mut open = exposition.gauge("vifd_http_open_connections", "Connections that are open now.");
    for (listener, meters) in &meters.listeners {
        // Closed first: a connection is accepted before it is closed.
        let closed = meters.closed.get();
        open.sample(&Labels::default().with("listener", listener), meters.accepted.get().saturating_sub(closed));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::exposition::Format, *};
    use crate::inventory::{
        Hypervisor,
        testing::{joined, stale, synced, view},
    };

    #[test]
    fn what_a_host_need_not_have_is_absent_and_what_was_lost_is_stale() {
        let pending = || SyncState::Pending { reason: Some("refused".into()) };
        let hypervisor = |uri: &str, optional, sync| Hypervisor { uri: uri.into(), optional, sync, unread: vec![] };
        let mut inventory = joined(&view(&[], &[]));
        let states = |inventory: &Inventory| {
            let mut exposition = Exposition::new(Format::Text);
            write(&mut exposition, inventory, &Findings::default(), &Meters::new([]), Moment::LONG_AGO);
            let text = exposition.finish();
            let state = |line: &str| {
                let labels = line.strip_prefix("vifd_source_state{source=\"")?.strip_suffix("\"} 1")?;
                Some(labels.replace("\",state=\"", " "))
            };
            text.lines().filter_map(state).skip(4).collect::<Vec<_>>()
        };
        inventory.hypervisors = vec![hypervisor("q", true, synced()), hypervisor("l", true, pending())];
        assert_eq!(states(&inventory), ["q synced", "l absent"]);
        inventory.hypervisors = vec![hypervisor("q", true, pending()), hypervisor("l", true, pending())];
        assert_eq!(states(&inventory), ["q pending", "l pending"]);
        inventory.hypervisors = vec![hypervisor("q", true, stale("closed")), hypervisor("l", false, pending())];
        assert_eq!(states(&inventory), ["q stale", "l pending"]);
    }
}
