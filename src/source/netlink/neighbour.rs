//! What the kernel's neighbour tables (ARP for IPv4, NDP for IPv6) say, and the pure decoding of their messages.
//!
//! Kept is which MAC address an IP address has on a link, and nothing that changes while that stays: on a busy host an
//! entry passes through `REACHABLE`, `STALE`, `DELAY` and `PROBE` for ever. So it is known that the kernel has the
//! entry, and not when it was last confirmed: an unused one may stay for days.
//!
//! Sources: `linux/neighbour.h`, `linux/rtnetlink.h`, rtnetlink(7), arp(7).

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{NlaBuffer, NlasIterator};

use crate::mac::MacAddr;

/// `RTM_NEWNEIGH`: an entry appeared or changed.
pub const RTM_NEWNEIGH: u16 = 28;
/// `RTM_DELNEIGH`: an entry was deleted.
pub const RTM_DELNEIGH: u16 = 29;

/// The neighbours on the links of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours(HashMap<Key, Neighbour>);

/// The index of a link, and an address that is reached over it.
type Key = (u32, IpAddr);

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// By its MAC address.
    pub mac: MacAddr,
    /// Somebody on this host said so (`NUD_PERMANENT`); else the network did.
    pub permanent: bool,
}

/// What one neighbour message says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NeighbourEvent {
    Known(Key, Neighbour),
    /// There is no entry, or one that nobody answers for.
    Unknown(Key),
    /// The message is about something else, such as a bridge's forwarding table, which has the same message types.
    Irrelevant,
}

impl Neighbours {
    /// Takes one message in. Says whether an address has another MAC address now, or has one no longer.
    pub fn apply(&mut self, message_type: u16, payload: &[u8]) -> bool {
        match NeighbourEvent::decode(message_type, payload).unwrap_or(NeighbourEvent::Irrelevant) {
            NeighbourEvent::Known(key, neighbour) => match self.0.entry(key) {
                Entry::Occupied(known) if *known.get() == neighbour => false,
                entry => {
                    entry.insert_entry(neighbour);
                    true
                }
            },
            NeighbourEvent::Unknown(key) => self.0.remove(&key).is_some(),
            NeighbourEvent::Irrelevant => false,
        }
    }

    /// The index of each link with an address that is reached over it and whose that is, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, IpAddr, Neighbour)> {
        self.0.iter().map(|((index, address), neighbour)| (*index, *address, *neighbour))
    }

    /// The MAC addresses of the entries that differ between the two.
    pub fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = MacAddr> + 'a {
        let missing = |a: &'a Self, b: &'a Self| {
            a.0.iter().filter(|(key, neighbour)| b.0.get(*key) != Some(*neighbour)).map(|(_, neighbour)| neighbour.mac)
        };
        missing(self, other).chain(missing(other, self))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(u32, IpAddr, Neighbour)> for Neighbours {
    fn from_iter<I: IntoIterator<Item = (u32, IpAddr, Neighbour)>>(neighbours: I) -> Self {
        Self(neighbours.into_iter().map(|(index, address, neighbour)| ((index, address), neighbour)).collect())
    }
}

impl NeighbourEvent {
    /// Decodes the payload of a netlink message, `struct ndmsg` and attributes. Nothing if it is cut short or senseless.
    fn decode(message_type: u16, payload: &[u8]) -> Option<Self> {
        let (header, attributes) = payload.split_first_chunk::<HEADER_LEN>()?;
        // First of all, since a busy bridge says much on this group.
        let [family @ (AF_INET | AF_INET6), _, _, _, index @ .., state_low, state_high, flags, _] = *header else {
            return Some(Self::Irrelevant);
        };
        if !matches!(message_type, RTM_NEWNEIGH | RTM_DELNEIGH) || flags & NTF_PROXY != 0 {
            return Some(Self::Irrelevant);
        }
        let state = u16::from_ne_bytes([state_low, state_high]);
        let (mut address, mut mac) = (None, None);
        for attribute in NlasIterator::new(attributes).map_while(Result::ok) {
            match attribute.kind() {
                NDA_DST => address = ip(family, &attribute),
                NDA_LLADDR => mac = <[u8; 6]>::try_from(attribute.value()).ok(),
                _ => {}
            }
        }
        let key = (u32::try_from(i32::from_ne_bytes(index)).ok()?, address?);
        // Multicast and broadcast addresses are computed, not learnt; so are those of links without any.
        let mac = mac.filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6]);
        Some(match mac {
            Some(mac) if message_type == RTM_NEWNEIGH && state & NUD_KNOWN != 0 => {
                Self::Known(key, Neighbour { mac: mac.into(), permanent: state & NUD_PERMANENT != 0 })
            }
            _ => Self::Unknown(key),
        })
    }
}

fn ip(family: u8, attribute: &NlaBuffer<&[u8]>) -> Option<IpAddr> {
    match family {
        AF_INET => <[u8; 4]>::try_from(attribute.value()).ok().map(|octets| Ipv4Addr::from(octets).into()),
        _ => <[u8; 16]>::try_from(attribute.value()).ok().map(|octets| Ipv6Addr::from(octets).into()),
    }
}

/// `sizeof(struct ndmsg)`.
const HEADER_LEN: usize = 12;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
// linux/neighbour.h
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// An entry by which this host answers for somebody else.
const NTF_PROXY: u8 = 0x08;
const NUD_PERMANENT: u16 = 0x80;
/// `NUD_REACHABLE`, `NUD_STALE`, `NUD_DELAY`, `NUD_PROBE`, `NUD_PERMANENT`: those in which somebody has answered and nobody
/// has given up. Not `NUD_NOARP`, which is computed.
const NUD_KNOWN: u16 = 0x02 | 0x04 | 0x08 | 0x10 | NUD_PERMANENT;

#[cfg(test)]
mod tests;
