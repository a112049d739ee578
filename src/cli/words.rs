//! What answers say to people, in words that every command shares.
//!
//! Names are chosen by tenants: whatever a terminal would obey is made harmless by [`plain`].

use jiff::Timestamp;

use super::output::{DOUBT, Page, styled};
use crate::{
    http::host::Sources,
    inventory::{Address, AddressSource, Instance, NoDevice, PassedFunction, Staleness, Vif, Why, Witness},
    source::{
        SyncState,
        libvirt::domain::{DomainState, Interface, Migration},
        moment::Moment,
        netlink::link::Link,
        ovsdb::rows::Port,
    },
};

pub(super) fn instance_name(instance: &Instance) -> String {
    let display = instance.display_name.as_deref().map(|name| format!(" ({})", plain(name))).unwrap_or_default();
    plain(&instance.name) + &display
}

/// `by_process`: it is known by its process alone.
pub(super) fn state(state: DomainState, migration: Option<Migration>, by_process: bool) -> String {
    let migration = match migration {
        None => "",
        Some(Migration::Incoming) => ", migrating in",
        Some(Migration::Outgoing) => ", migrating out",
        Some(Migration::Away) => ", migrated away",
    };
    let state = match (state, by_process) {
        (DomainState::NoState, true) => "started".to_owned(),
        (state, _) => state.to_string(),
    };
    format!("{state}{migration}{}", if by_process { " (by its process)" } else { "" })
}

pub(super) fn attachment(interface: &Interface) -> String {
    let source = interface.attachment.source().map(|source| format!(" on {}", plain(&source))).unwrap_or_default();
    interface.attachment.type_name().to_owned() + &source
}

pub(super) fn device(vif: &Vif) -> String {
    match &vif.device {
        Some(device) => plain(&device.name),
        None => no_device(vif.no_device, vif.interface.target.as_deref()),
    }
}

/// Why there is none, and which one libvirt says.
pub(super) fn no_device(reason: Option<NoDevice>, target: Option<&str>) -> String {
    match (reason, target) {
        (Some(reason), Some(target)) => format!("- ({}: {reason})", plain(target)),
        (Some(reason), None) => format!("- ({reason})"),
        (None, _) => "-".to_owned(),
    }
}

/// An address, and who says so.
pub(super) fn address(known: &Address) -> String {
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

pub(super) fn link_summary(link: &Link) -> String {
    let up = if link.up { "up" } else { "down" };
    let mac = link.mac.map(|mac| format!(", {mac}")).unwrap_or_default();
    format!("{}, set {up}, operational state {}, MTU {}{mac}", link.kind, link.oper_state, link.mtu)
}

pub(super) fn function_summary(passed: &PassedFunction) -> String {
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

pub(super) fn port_summary(port: &Port) -> String {
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

/// What a reader must know about an answer that is not, or not wholly, current. Optional hypervisors that the host
/// does not offer are no news.
pub(super) fn doubts(page: &mut Page, sources: &Sources) {
    let mut lines = Vec::new();
    let mut doubt = |name: &str, sync: &SyncState| match sync {
        SyncState::Synced { .. } | SyncState::Absent => {}
        SyncState::Pending { reason } => {
            let reason = reason.as_deref().unwrap_or("not tried yet");
            lines.push(format!("! {name} has not been read yet: {}", plain(reason)));
        }
        SyncState::Stale { since, reason } => {
            lines.push(format!("! {name} is stale for {}: {}", age(*since), plain(reason)));
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
    if !lines.is_empty() {
        page.gap();
    }
    for line in lines {
        page.line(styled(DOUBT, line));
    }
}

/// Whether what a source says is kept current, and for how long it is or is not.
pub(super) fn freshness(sync: &SyncState) -> String {
    match sync {
        SyncState::Synced { since } => format!("kept current for {}", age(*since)),
        SyncState::Stale { since, reason } => styled(DOUBT, format!("stale for {}: {}", age(*since), plain(reason))),
        SyncState::Pending { .. } => styled(DOUBT, "not read yet"),
        SyncState::Absent => "absent".to_owned(),
    }
}

/// Why a fact is believed, but for the fact.
pub(super) fn because(why: &Why) -> String {
    let by = format!("{}: {}", why.source, plain(&why.by));
    // What vifd makes itself is never old.
    if why.source == Witness::Vifd { by } else { format!("{by}; {}", freshness(&why.sync)) }
}

pub(super) fn staleness(stale: &Staleness) -> String {
    format!("for {}: {}", age(stale.since), plain(&stale.reason))
}

/// How long until then, by the wall clock as the DHCP server has it.
pub(super) fn remaining(end: Timestamp) -> String {
    let seconds = end.duration_since(Timestamp::now()).as_secs();
    if seconds > 0 { format!("in {}", largest_units(seconds.unsigned_abs())) } else { "now".to_owned() }
}

/// How long ago, in the two largest units.
pub(super) fn age(since: Moment) -> String {
    largest_units(since.age().as_secs())
}

pub(super) fn largest_units(seconds: u64) -> String {
    match (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, ..) => format!("{d}d {h}h"),
    }
}

/// Text in which nothing steers the terminal, hides, or changes the order of what stands beside it: that is made visible.
/// What joins and varies emoji is left out, since terminals disagree about its width.
pub(super) fn plain(text: &str) -> String {
    // Nearly always.
    if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return text.to_owned();
    }
    let mut before = None;
    let shown = |c: char| {
        let after_symbol =
            before.replace(c).is_some_and(|before: char| !before.is_alphanumeric() && !before.is_control());
        match c {
            '\u{200d}' | '\u{fe00}'..='\u{fe0f}' if after_symbol => None,
            c if is_harmful(c) => Some(char::REPLACEMENT_CHARACTER),
            c => Some(c),
        }
    };
    text.chars().filter_map(shown).collect()
}

/// Whether a terminal obeys the character, shows nothing for it, or writes from right to left because of it. The last
/// is not said of letters, whose direction ends where they do.
pub(super) fn is_harmful(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control()
        || matches!(c,
            // Soft hyphen, Arabic letter mark, Mongolian vowel separator and its like.
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            // Spaces and joiners without width, marks of direction, separators, embeddings, overrides, isolates.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            // Tags and more variations.
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\r\nc\u{9b}"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}");
        assert_eq!(plain("x\u{202e}gpj.exe\u{2066}"), "x\u{fffd}gpj.exe\u{fffd}");
    }

    #[test]
    fn what_hides_in_a_name_is_made_visible_and_letters_and_emoji_stay() {
        assert_eq!(plain("ad\u{200b}min\u{e0041}\u{200d}"), "ad\u{fffd}min\u{fffd}\u{200d}".replace('\u{200d}', ""));
        assert_eq!(plain("a\u{200d}b"), "a\u{fffd}b");
        assert_eq!(plain("数据库 été שרת 🦀"), "数据库 été שרת 🦀");
        assert_eq!(plain("❤\u{fe0f} 👩\u{200d}🚀"), "❤ 👩🚀");
    }

    #[test]
    fn an_age_is_told_in_its_two_largest_units() {
        assert_eq!([0, 5, 65, 3700, 90000].map(largest_units), ["0s", "5s", "1m 5s", "1h 1m", "1d 1h"]);
    }
}
