//! Packets that are lost, and go on being lost: two readings of the counters are compared, an interval apart.

use std::{collections::HashMap, sync::Arc};

use super::{
    Affected, Code, Finding, Severity, Subject,
    scene::{Scene, finding, word},
};
use crate::source::{
    libvirt::domain::DomainState,
    netlink::link::{Counters, LinkKind},
};

/// In so many intervals in a row.
const INTERVALS: u32 = 2;
/// Fewer in an interval are of no matter.
const FEWEST: u64 = 10;
/// One of so many packets.
const SHARE: u64 = 100;

/// What the counters said last, and which links have been losing packets since when.
#[derive(Clone, Debug, Default)]
pub(super) struct Drops {
    last: Arc<HashMap<u32, Counters>>,
    rising: Arc<HashMap<u32, Rise>>,
}

/// What a link has lost in its last intervals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rise {
    intervals: u32,
    /// Lost in the last of them, and counted in all.
    received: (u64, u64),
    sent: (u64, u64),
}

impl Drops {
    /// Takes in a reading.
    pub(super) fn count(&mut self, counters: HashMap<u32, Counters>) {
        let mut rising = HashMap::new();
        for (index, now) in &counters {
            let Some(rise) = self.last.get(index).and_then(|last| Rise::between(last, now)) else { continue };
            let before = self.rising.get(index).map_or(0, |rise| rise.intervals);
            rising.insert(*index, Rise { intervals: before + 1, ..rise });
        }
        *self = Self { last: Arc::new(counters), rising: Arc::new(rising) };
    }
}

impl Rise {
    /// Nothing if few were lost, or if it is another link by now.
    fn between(last: &Counters, now: &Counters) -> Option<Self> {
        let lost = |c: &Counters| (c.rx_dropped + c.rx_errors, c.tx_dropped + c.tx_errors);
        let (before, after) = (lost(last), lost(now));
        let received = (after.0.checked_sub(before.0)?, now.rx_packets.checked_sub(last.rx_packets)?);
        let sent = (after.1.checked_sub(before.1)?, now.tx_packets.checked_sub(last.tx_packets)?);
        let much = |(lost, passed): (u64, u64)| lost >= FEWEST && lost.saturating_mul(SHARE) >= passed;
        (much(received) || much(sent)).then_some(Self { intervals: 1, received, sent })
    }
}

pub(super) fn rising(scene: &Scene, found: &mut Vec<Finding>) {
    let rising = scene.surroundings.drops.rising.iter().filter(|(_, rise)| rise.intervals >= INTERVALS);
    for (index, rise) in rising {
        let Some(link) = scene.link(*index) else { continue };
        let running = scene.running().filter(|(instance, _)| instance.state == DomainState::Running);
        let of_guest = running.filter(|(_, vif)| vif.device.as_ref().is_some_and(|device| device.index == *index));
        let affects: Vec<_> = of_guest.map(|(instance, vif)| Affected::of(instance, vif)).collect();
        // Of other programs' devices nothing is known, nor is it our business; a guest that does not run takes nothing.
        if affects.is_empty() && !matches!(link.kind, LinkKind::Physical | LinkKind::Bond) {
            continue;
        }
        let tap = matches!(link.kind, LinkKind::Tap { .. });
        let line = |what: &str, (lost, passed): (u64, u64)| format!("kernel: {what}: {lost} lost, {passed} passed");
        let (received, sent) = if tap { ("sent by the guest", "sent to the guest") } else { ("received", "sent") };
        found.push(
            finding(Code::DropsRising, Severity::Warning, Subject::link(link))
                .says(format!("{} goes on losing packets", link.name))
                .because(format!("in each of the last {} readings of the counters; in the last:", rise.intervals))
                .because(line(received, rise.received))
                .because(line(sent, rise.sent))
                .affecting(affects)
                .advise(
                    "Packets to a guest are lost where the guest does not take them fast enough, or has not set its device \
                     up: look inside the guest first. On a network card, look at its rings and at the switch.",
                )
                .try_command(format!("ip -s -s link show dev {}", word(&link.name))),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(packets: u64, dropped: u64) -> HashMap<u32, Counters> {
        HashMap::from([(7, Counters { tx_packets: packets, tx_dropped: dropped, ..Counters::default() })])
    }

    fn intervals(readings: &[(u64, u64)]) -> u32 {
        let mut drops = Drops::default();
        for (packets, dropped) in readings {
            drops.count(reading(*packets, *dropped));
        }
        drops.rising.get(&7).map_or(0, |rise| rise.intervals)
    }

    #[test]
    fn a_loss_must_go_on_be_of_some_size_and_of_a_share_of_all() {
        assert_eq!(intervals(&[(0, 500)]), 0);
        assert_eq!(intervals(&[(0, 0), (100, 50), (200, 100)]), 2);
        assert_eq!(intervals(&[(0, 0), (100, 50), (200, 50)]), 0);
        assert_eq!(intervals(&[(0, 0), (100, 9), (200, 18)]), 0);
        assert_eq!(intervals(&[(0, 0), (100_000, 50), (200_000, 100)]), 0);
    }

    #[test]
    fn a_device_that_was_made_anew_starts_again() {
        assert_eq!(intervals(&[(0, 0), (100, 50), (0, 0), (100, 50)]), 1);
    }
}
