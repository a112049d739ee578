//! A change in one line.

use std::fmt::Write;

use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Map, Value};

use super::words::plain;
use crate::inventory::{
    changes::{Change, Kind},
    record::{DeviceFacts, InstanceFacts, InstanceName, KnownAddress, Record, VifFacts},
};

/// A moment in the local time zone.
pub(super) fn moment(time: Timestamp) -> String {
    time.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// What other commands take for it.
pub(super) fn identifier(record: &Record) -> String {
    match record {
        Record::Instance(facts) => facts.instance.uuid.to_string(),
        Record::Vif(facts) => facts.vif_id.to_string(),
        Record::Device(facts) => facts.device.to_string(),
        Record::Port(facts) => facts.port.to_string(),
        Record::Source(facts) => facts.source.to_string(),
    }
}

/// What has happened to what, in one line without its end.
pub(super) fn line(change: &Change) -> String {
    let mut text = match (change.before.as_deref(), change.after.as_deref()) {
        (Some(before), Some(after)) => differs(change.kind, before, after),
        (None, Some(record)) => appeared(record),
        (Some(record), None) => gone(record),
        (None, None) => "nothing".to_owned(),
    };
    for carried in &change.carries {
        let _ = write!(text, "; it carries VIF {} of {}", carried.vif_id, instance(&carried.instance));
    }
    if change.found {
        text += " (found; it may have been earlier)";
    }
    text
}

/// What a record says, for a moment at which it was so.
pub(super) fn statement(record: &Record) -> String {
    match record {
        Record::Instance(facts) => format!("{}, {}", instance(&facts.instance), facts.state),
        Record::Vif(facts) => {
            let addresses: String =
                facts.addresses.iter().map(|known| format!(", {} ({})", known.address, known.by)).collect();
            format!("{}, {}{addresses}", vif(facts), carried_by(facts))
        }
        Record::Device(facts) => format!("{}, {}", device(facts), device_state(facts)),
        Record::Port(_) => appeared(record),
        Record::Source(source) => format!("{}, {}", plain(&source.source), source.state),
    }
}

fn appeared(record: &Record) -> String {
    match record {
        Record::Instance(facts) => format!("{} appeared, {}", instance(&facts.instance), facts.state),
        Record::Vif(facts) => format!("{} plugged, {}", vif(facts), carried_by(facts)),
        Record::Device(facts) => format!("{} appeared, {}", device(facts), device_state(facts)),
        Record::Port(port) => {
            let bridge = port.bridge.as_deref().map(|name| format!(" on {}", plain(name)));
            let ofport = port.ofport.map(|number| format!(", ofport {number}"));
            let error = port.error.as_deref().map(|error| format!(", error {}", plain(error)));
            let more: String = [bridge, ofport, error].into_iter().flatten().collect();
            format!("Open vSwitch port {}{more}", plain(&port.port))
        }
        Record::Source(source) => format!("{} is {}", plain(&source.source), source.state),
    }
}

fn gone(record: &Record) -> String {
    match record {
        Record::Instance(facts) => format!("{} is gone", instance(&facts.instance)),
        Record::Vif(facts) => {
            let from = facts.device.as_ref().map(|device| format!(", from {}", plain(&device.name)));
            format!("{} unplugged{}", vif(facts), from.unwrap_or_default())
        }
        Record::Device(facts) => format!("{} is gone", device(facts)),
        Record::Port(port) => format!("Open vSwitch port {} is gone", plain(&port.port)),
        Record::Source(source) => format!("{} is gone", plain(&source.source)),
    }
}

fn differs(kind: Kind, before: &Record, after: &Record) -> String {
    match (kind, before, after) {
        (Kind::MigrationBegun, _, Record::Instance(facts)) => {
            let way = facts.migration.map(|way| format!("{way:?}").to_lowercase()).unwrap_or_default();
            format!("{} begins to migrate, {way}", instance(&facts.instance))
        }
        (Kind::MigrationOver, _, Record::Instance(facts)) => {
            format!("{} has ended its migration, {}", instance(&facts.instance), facts.state)
        }
        (Kind::InstanceRenamed, Record::Instance(before), Record::Instance(after)) => {
            format!("{} was called {}", instance(&after.instance), instance(&before.instance))
        }
        (Kind::InstanceStale, _, Record::Instance(InstanceFacts { instance: of, unreadable: Some(why), .. })) => {
            format!("{} cannot be read: {}", instance(of), plain(why))
        }
        (Kind::InstanceCurrent, _, Record::Instance(facts)) => {
            format!("{} can be read again", instance(&facts.instance))
        }
        (Kind::InstanceState, Record::Instance(before), Record::Instance(after)) => {
            format!("{}: {} -> {}", instance(&after.instance), before.state, after.state)
        }
        (Kind::VifDevice, Record::Vif(before), Record::Vif(after)) => {
            let was = before.device.as_ref().map(|device| format!(", before on {}", plain(&device.name)));
            format!("{}, {}{}", vif(after), carried_by(after), was.unwrap_or_default())
        }
        (Kind::VifAddresses, Record::Vif(before), Record::Vif(after)) => {
            let only = |these: &VifFacts, those: &VifFacts, sign: &str| -> String {
                let only = these.addresses.iter().filter(|known| !those.addresses.contains(known));
                only.map(|KnownAddress { address, by }| format!(" {sign}{address} ({by})")).collect()
            };
            format!("{}, addresses{}{}", vif(after), only(after, before, "+"), only(before, after, "-"))
        }
        (Kind::DeviceMoved, Record::Device(before), Record::Device(after)) => {
            let on = |facts: &DeviceFacts| facts.controller.as_ref().map_or("none".to_owned(), |c| plain(&c.name));
            format!("{}: controller {} -> {}", device(after), on(before), on(after))
        }
        (Kind::SourceRead, _, Record::Source(source)) => {
            format!("{} was read for the first time, {}", plain(&source.source), source.state)
        }
        (Kind::SourceLost, _, Record::Source(source)) => {
            let why = source.reason.as_deref().unwrap_or("no reason known");
            format!("{} was lost, what it said is stale: {}", plain(&source.source), plain(why))
        }
        (Kind::SourceRegained, _, Record::Source(source)) => format!("{} is there again", plain(&source.source)),
        _ => format!("{}: {}", name(after), differences(before, after)),
    }
}

/// Each field that differs, in the words of JSON.
fn differences(before: &Record, after: &Record) -> String {
    let fields = |record: &Record| match serde_json::to_value(record) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (before, after) = (fields(before), fields(after));
    let mut names: Vec<_> = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))).collect();
    names.retain(|name| before.get(*name) != after.get(*name));
    let value = |fields: &Map<String, Value>, name: &str| match fields.get(name) {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => plain(text),
        Some(Value::Object(object)) if object.contains_key("name") => {
            plain(object["name"].as_str().unwrap_or_default())
        }
        Some(other) => plain(&other.to_string()),
    };
    let difference = |name: &String| format!("{name} {} -> {}", value(&before, name), value(&after, name));
    names.into_iter().map(difference).collect::<Vec<_>>().join(", ")
}

fn name(record: &Record) -> String {
    match record {
        Record::Instance(facts) => instance(&facts.instance),
        Record::Vif(facts) => vif(facts),
        Record::Device(facts) => device(facts),
        Record::Port(port) => format!("Open vSwitch port {}", plain(&port.port)),
        Record::Source(source) => plain(&source.source),
    }
}

fn instance(instance: &InstanceName) -> String {
    let display = instance.display_name.as_deref().map(|name| format!(" ({})", plain(name))).unwrap_or_default();
    format!("instance {}{display}", plain(&instance.name))
}

fn vif(facts: &VifFacts) -> String {
    format!("VIF {} ({}) of {}", facts.vif_id, facts.mac, instance(&facts.instance))
}

fn carried_by(facts: &VifFacts) -> String {
    match (&facts.device, facts.no_device) {
        (Some(device), _) => format!("on {} (ifindex {})", plain(&device.name), device.index),
        (None, Some(why)) => format!("without a device: {why}"),
        (None, None) => "without a device".to_owned(),
    }
}

fn device(facts: &DeviceFacts) -> String {
    format!("{} (ifindex {}, {})", plain(&facts.device), facts.ifindex, plain(&facts.kind))
}

fn device_state(facts: &DeviceFacts) -> String {
    let on = facts.controller.as_ref().map(|on| format!("on {}, ", plain(&on.name))).unwrap_or_default();
    format!("{on}set {}, MTU {}", if facts.up { "up" } else { "down" }, facts.mtu)
}
