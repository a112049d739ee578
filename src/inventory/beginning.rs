//! Look-ups by what is known of a thing in part: its beginning, or a name with a slip of the finger in it.

use std::{collections::BTreeSet, sync::Arc};

use uuid::Uuid;

use super::{
    Instance, Inventory, Match, MatchedBy, Vif,
    find::{Found, Key},
    join,
};
use crate::mac::MacAddr;

/// What begins as was asked.
#[derive(Clone, Debug, Default)]
pub struct Beginnings {
    /// The first so many.
    pub matches: Vec<Match>,
    /// How many more there are.
    pub left_out: usize,
}

impl Inventory {
    /// Everything of which `beginning` is the beginning: a device, instance, display name or vhost-user socket from two
    /// characters on, in any letter case; a UUID from four digits on; a MAC address from two octets on; an IP or PCI
    /// address. One pass over everything, which takes a fraction of a millisecond for thousands of VIFs.
    #[must_use]
    pub fn find_beginning(&self, beginning: &str) -> Beginnings {
        let wanted = Beginning::new(beginning);
        let mut found = Found::new(self);
        for (n, instance) in (0..).zip(&self.instances) {
            for by in wanted.of_instance(instance) {
                found.add(Key::Instance(n), by);
            }
        }
        for (vif, position) in join::positions(&self.instances) {
            for by in wanted.of_vif(vif) {
                found.add(Key::Vif(position), by);
            }
        }
        for link in self.links.iter() {
            if join::names(link).any(|name| wanted.is_of_text(name)) {
                found.link(link.index, MatchedBy::DeviceName);
            }
            if link.mac.is_some_and(|mac| wanted.is_of_mac(mac)) {
                found.link(link.index, MatchedBy::DeviceMac);
            }
            if link.pci.is_some_and(|pci| wanted.is_of_number(&pci)) {
                found.link(link.index, MatchedBy::PciAddress);
            }
        }
        for port in self.ports.iter() {
            if wanted.is_of_text(&port.name) && self.link_by_name(&port.name).is_none() {
                found.port(port, MatchedBy::OvsPort);
            }
            if port.iface_id.as_deref().and_then(|id| id.parse().ok()).is_some_and(|id| wanted.is_of_uuid(id)) {
                found.port(port, MatchedBy::IfaceId);
            }
        }
        let left_out = found.len().saturating_sub(MOST);
        Beginnings { matches: found.matches(MOST), left_out }
    }

    /// The names of instances and links that are nearly this one, the nearest first.
    #[must_use]
    pub fn near_names(&self, name: &str) -> Vec<Arc<str>> {
        let wanted = name.to_lowercase();
        let of_instance = |instance: &Arc<Instance>| [Some(Arc::clone(&instance.name)), instance.display_name.clone()];
        let instances = self.instances.iter().flat_map(of_instance).flatten();
        let names: BTreeSet<_> = instances.chain(self.links.iter().map(|link| Arc::clone(&link.name))).collect();
        let near = |name: Arc<str>| {
            // Only what is about as long can be near, which spares most of the work.
            let lengths = name.len().abs_diff(wanted.len()) <= 2 && name.len() <= LONGEST;
            let distance = lengths.then(|| strsim::osa_distance(&wanted, &name.to_lowercase()))?;
            (distance <= 2 && distance * 3 <= wanted.chars().count()).then_some((distance, name))
        };
        let mut near: Vec<_> = names.into_iter().filter_map(near).collect();
        near.sort();
        near.into_iter().map(|(_, name)| name).take(3).collect()
    }
}

/// The beginning of something, as everything that it may be.
struct Beginning<'a> {
    text: &'a str,
    /// The digits of a UUID: how many, and which.
    uuid: Option<(u32, u128)>,
    /// Those of a MAC address.
    mac: Option<(u32, u64)>,
    /// Whether a number with points or colons may begin so.
    is_number: bool,
}

impl<'a> Beginning<'a> {
    fn new(text: &'a str) -> Self {
        let digits = |separators: &[char]| {
            let digits: String = text.chars().filter(|c| !separators.contains(c)).collect();
            let length = u32::try_from(digits.len()).ok().filter(|length| (4..=32).contains(length))?;
            // `from_str_radix` would take a sign.
            let digits = digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(digits)?;
            Some((length, u128::from_str_radix(&digits, 16).ok()?))
        };
        let mac = digits(&[':', '-', '.']).filter(|(length, _)| *length <= 12);
        Self {
            text,
            uuid: digits(&['-']),
            mac: mac.and_then(|(length, digits)| Some((length, u64::try_from(digits).ok()?))),
            is_number: text.contains(['.', ':'])
                && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'.' || b == b':'),
        }
    }

    fn is_of_text(&self, text: &str) -> bool {
        self.text.len() >= 2 && text.get(..self.text.len()).is_some_and(|start| start.eq_ignore_ascii_case(self.text))
    }

    fn is_of_uuid(&self, id: Uuid) -> bool {
        self.uuid.is_some_and(|(length, digits)| id.as_u128() >> (128 - 4 * length) == digits)
    }

    fn is_of_mac(&self, mac: MacAddr) -> bool {
        let [a, b, c, d, e, f] = mac.octets();
        let mac = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        self.mac.is_some_and(|(length, digits)| mac >> (48 - 4 * length) == digits)
    }

    fn is_of_number(&self, number: &impl ToString) -> bool {
        self.is_number && self.is_of_text(&number.to_string())
    }

    fn of_instance(&self, instance: &Instance) -> impl Iterator<Item = MatchedBy> {
        [
            (self.is_of_uuid(instance.uuid), MatchedBy::InstanceUuid),
            (self.is_of_text(&instance.name), MatchedBy::InstanceName),
            (instance.display_name.as_deref().is_some_and(|name| self.is_of_text(name)), MatchedBy::DisplayName),
        ]
        .into_iter()
        .filter_map(|(matches, by)| matches.then_some(by))
    }

    fn of_vif(&self, vif: &Vif) -> impl Iterator<Item = MatchedBy> {
        let interface = &vif.interface;
        let is_of = |text: Option<&Arc<str>>| text.is_some_and(|text| self.is_of_text(text));
        let is_device = vif.device.is_some();
        let address = vif.addresses.iter().find(|known| self.is_of_number(&known.address));
        [
            self.is_of_uuid(vif.id).then_some(MatchedBy::VifId),
            self.is_of_mac(interface.mac).then_some(MatchedBy::VifMac),
            (!is_device && is_of(interface.target.as_ref())).then_some(MatchedBy::Target),
            is_of(interface.socket()).then_some(MatchedBy::Socket),
            interface.pci().is_some_and(|pci| self.is_of_number(&pci)).then_some(MatchedBy::PciAddress),
            address.map(|known| known.source.matched_by()),
        ]
        .into_iter()
        .flatten()
    }
}

/// More than a person reads, and few enough for an answer of some kilobytes.
const MOST: usize = 100;
/// Of names that are compared in full.
const LONGEST: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::testing::{PORT, WEB, bridged, joined, link, nova, view};

    fn found(inventory: &Inventory, beginning: &str) -> Vec<Vec<MatchedBy>> {
        inventory.find_beginning(beginning).matches.into_iter().map(|found| found.matched_by).collect()
    }

    fn inventory() -> Inventory {
        let target = format!("tap{}", &PORT.to_string()[..11]);
        let interfaces = bridged("fa:16:3e:00:00:01", &target, "") + &bridged("52:54:00:00:00:02", "gone0", "");
        joined(&view(&[nova(&interfaces, &[PORT])], &[link(7, &target), link(8, "tapleaked")]))
    }

    #[test]
    fn a_thing_is_found_by_its_beginning_whatever_it_is() {
        let inventory = inventory();
        for (beginning, by) in [
            ("tapa756", MatchedBy::DeviceName),
            ("TAPL", MatchedBy::DeviceName),
            ("gon", MatchedBy::Target),
            ("a756", MatchedBy::VifId),
            ("A756CAEF-C7", MatchedBy::VifId),
            ("a756caefc7", MatchedBy::VifId),
            ("8740", MatchedBy::InstanceUuid),
            ("874092fe-19a7-44bd-a16a-4fb617bfef7", MatchedBy::InstanceUuid),
            ("fa:16:3e:00", MatchedBy::VifMac),
            ("FA-16-3", MatchedBy::VifMac),
            ("fa16.3e00", MatchedBy::VifMac),
            ("5254", MatchedBy::VifMac),
            ("instance-", MatchedBy::InstanceName),
            ("WE", MatchedBy::DisplayName),
        ] {
            assert_eq!(found(&inventory, beginning), [vec![by]], "{beginning}");
        }
        assert_eq!(inventory.find_beginning("WE").matches[0].instance.as_ref().unwrap().uuid, WEB);
        assert_eq!(found(&inventory, "tap").len(), 2);
    }

    #[test]
    fn too_little_of_a_thing_finds_nothing() {
        let inventory = inventory();
        for beginning in ["", "t", "w", "a75", "87", "fa", "+a756", "-", "é", "webb", "tapleaked0", "00000000-", "…"]
        {
            assert_eq!(found(&inventory, beginning), [] as [Vec<MatchedBy>; 0], "{beginning}");
        }
    }

    #[test]
    fn what_is_left_out_of_a_long_list_is_counted() {
        let links: Vec<_> = (1..=150).map(|n| link(n, &format!("leak{n}"))).collect();
        let beginnings = joined(&view(&[], &links)).find_beginning("leak");
        assert_eq!((beginnings.matches.len(), beginnings.left_out), (100, 50));
    }

    #[test]
    fn a_name_with_a_slip_in_it_is_near() {
        let inventory = inventory();
        let near = |name: &str| inventory.near_names(name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(near("instance-0000002b"), ["instance-0000002a"]);
        assert_eq!(near("Instnace-0000002a"), ["instance-0000002a"]);
        assert_eq!(near("tapleakd"), ["tapleaked"]);
        assert_eq!(near("wbe"), ["web"]);
        assert_eq!(near("x"), [""; 0]);
    }
}
