//! What `vifctl top` shows: rates from two readings of the counters, in an order, in a view, through a filter. Pure.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use serde::Serialize;

use super::super::words::plain;
use crate::{
    http::host::{AllCounters, CountedLink},
    source::netlink::link::Counters,
};

/// From whose side receiving and transmitting are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum View {
    /// Of devices that carry VIFs, the guest's; of others, the host's.
    #[default]
    Guest,
    /// As the kernel counts.
    Host,
}

/// By what rows are in order; the largest first, names from a to z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sort {
    /// Bits in both directions
    #[default]
    Total,
    /// Bits received
    Rx,
    /// Bits transmitted
    Tx,
    /// Packets in both directions
    Packets,
    /// Drops
    Drops,
    /// Errors
    Errors,
    /// Names of instances, and of devices
    Name,
}

/// What a device does, in units a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    pub(super) rx_bits: f64,
    pub(super) tx_bits: f64,
    pub(super) rx_packets: f64,
    pub(super) tx_packets: f64,
    pub(super) drops: f64,
    pub(super) errors: f64,
}

/// A device.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) index: u32,
    pub(super) device: String,
    pub(super) instance: Option<String>,
    pub(super) display_name: Option<String>,
    pub(super) bridge: Option<String>,
    /// Nothing until it has been seen twice.
    pub(super) rates: Option<Rates>,
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) view: View,
    pub(super) sort: Sort,
    pub(super) filter: String,
    /// The two latest readings.
    pub(super) before: Option<Reading>,
    pub(super) now: Option<Reading>,
    /// In order, and through the filter.
    pub(super) rows: Vec<Row>,
}

pub(super) struct Reading {
    uptime_ns: u64,
    links: Vec<CountedLink>,
    by_index: HashMap<u32, Counters>,
}

impl Model {
    /// Takes a reading in.
    pub(super) fn take(&mut self, counters: AllCounters) {
        let by_index = counters.links.iter().map(|link| (link.index, link.counters)).collect();
        let reading = Reading { uptime_ns: counters.uptime_ns, links: counters.links, by_index };
        self.before = self.now.replace(reading);
        self.arrange();
    }

    /// How many devices there are, seen or not.
    pub(super) fn devices(&self) -> usize {
        self.now.as_ref().map_or(0, |now| now.links.len())
    }

    /// Makes the rows anew: after anything has changed.
    pub(super) fn arrange(&mut self) {
        let Some(now) = &self.now else { return };
        let rates = |link: &CountedLink| {
            let before = self.before.as_ref()?;
            let seconds = now.uptime_ns.checked_sub(before.uptime_ns).filter(|elapsed| *elapsed > 0)? as f64 / 1e9;
            let [old, new] =
                [*before.by_index.get(&link.index)?, link.counters].map(|counters| self.seen(link, counters));
            Rates::between(&old, &new, seconds)
        };
        let text = |text: &Arc<str>| plain(text);
        let rows = now.links.iter().map(|link| Row {
            index: link.index,
            device: text(&link.name),
            instance: link.carries.as_ref().map(|vif| text(&vif.instance_name)),
            display_name: link.carries.as_ref().and_then(|vif| vif.display_name.as_ref()).map(text),
            bridge: link.controller_name.as_ref().map(text),
            rates: rates(link),
        });
        let mut rows: Vec<_> = rows.filter(|row| row.contains(&self.filter)).collect();
        rows.sort_by(|a, b| self.sort.compare(a, b));
        self.rows = rows;
    }

    fn seen(&self, link: &CountedLink, counters: Counters) -> Counters {
        if self.view == View::Guest && link.carries.is_some() { counters.in_guests_view(&link.kind) } else { counters }
    }
}

impl Rates {
    /// Nothing if a counter has gone back: it is of another device then, which has got the index of the old one.
    fn between(old: &Counters, new: &Counters, seconds: f64) -> Option<Self> {
        let rate = |of: fn(&Counters) -> u64| Some(of(new).checked_sub(of(old))? as f64 / seconds);
        Some(Self {
            rx_bits: rate(|c| c.rx_bytes)? * 8.0,
            tx_bits: rate(|c| c.tx_bytes)? * 8.0,
            rx_packets: rate(|c| c.rx_packets)?,
            tx_packets: rate(|c| c.tx_packets)?,
            drops: rate(|c| c.rx_dropped)? + rate(|c| c.tx_dropped)?,
            errors: rate(|c| c.rx_errors)? + rate(|c| c.tx_errors)?,
        })
    }
}

impl Row {
    fn contains(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let texts = [Some(&self.device), self.instance.as_ref(), self.display_name.as_ref(), self.bridge.as_ref()];
        texts.into_iter().flatten().any(|known| known.to_lowercase().contains(&text))
    }
}

impl Sort {
    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let value = |row: &Row| {
            let rates = row.rates.unwrap_or_default();
            match self {
                Self::Total => rates.rx_bits + rates.tx_bits,
                Self::Rx => rates.rx_bits,
                Self::Tx => rates.tx_bits,
                Self::Packets => rates.rx_packets + rates.tx_packets,
                Self::Drops => rates.drops,
                Self::Errors => rates.errors,
                Self::Name => 0.0,
            }
        };
        // Those of nobody come last where names count.
        let name = |row: &'_ Row| (row.instance.is_none(), row.instance.clone(), row.device.clone(), row.index);
        value(b).total_cmp(&value(a)).then_with(|| name(a).cmp(&name(b)))
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Total => "total bits",
            Self::Rx => "bits received",
            Self::Tx => "bits transmitted",
            Self::Packets => "packets",
            Self::Drops => "drops",
            Self::Errors => "errors",
            Self::Name => "name",
        }
    }
}

impl View {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Guest => "guest's view",
            Self::Host => "host's view",
        }
    }
}

/// A number of units in a few characters.
pub(super) fn short(rate: f64) -> String {
    let mut scaled = rate;
    for unit in ["", "k", "M", "G", "T"] {
        if scaled < 999.5 {
            return match unit {
                "" if rate > 0.0 && rate < 9.95 => format!("{rate:.1}"),
                "" => format!("{rate:.0}"),
                unit => format!("{scaled:.*}{unit}", usize::from(scaled < 99.5)),
            };
        }
        scaled /= 1000.0;
    }
    format!("{scaled:.0}P")
}
