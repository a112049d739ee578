//! What happens in Open vSwitch: plugging as OpenStack's os-vif does it, and what others do to the ports.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::{Candidates, Device, Wiring, World};

/// See [`super::Operation`].
#[derive(Clone, Debug)]
pub enum Operation {
    SetTag { guest: u32, nic: u32, tag: Option<u16> },
    SetIds { guest: u32, nic: u32, ids: PortIds },
    DeletePort { guest: u32, nic: u32 },
    AddPort { guest: u32, nic: u32 },
    AddStrangerPort { stranger: u32, kind: Kind },
    DeleteStrangerPort { stranger: u32 },
    PortStorm,
}

/// What a port is made to say about itself.
#[derive(Clone, Copy, Debug)]
pub enum PortIds {
    Right,
    OtherPort,
    NoUuid,
    OtherInstance,
    OtherMac,
    Nothing,
}

/// A port of nobody.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Its device does not exist.
    Missing,
    /// A device that the switch makes.
    Internal,
    /// A bridge, whose own port it is.
    Bridge,
}

/// The ports that are nobody's.
#[derive(Default)]
pub struct Strangers {
    present: BTreeMap<u32, Kind>,
    next: u32,
}

/// What os-vif calls the devices of an interface.
pub(super) struct Names {
    tap: String,
    pub(super) bridge: String,
    /// The ends of the veth pair: on the bridge, and in Open vSwitch.
    veth: [String; 2],
}

const STRANGERS: usize = 4;

impl World<'_> {
    pub(super) fn switch_candidates(&self, rng: &mut Rng, all: &mut Candidates) {
        use Operation as Op;
        if self.ports.present.len() < STRANGERS {
            let kind = *rng.choice(&[Kind::Missing, Kind::Internal, Kind::Bridge]).unwrap();
            all.may(2, Op::AddStrangerPort { stranger: self.ports.next, kind });
        }
        let strangers: Vec<_> = self.ports.present.keys().collect();
        if let Some(&&stranger) = rng.choice(&strangers) {
            all.may(3, Op::DeleteStrangerPort { stranger });
        }
        all.may(1, Op::PortStorm);
        for (guest, nic, g, n) in self.active_nics().filter(|(_, _, g, _)| g.wiring != Wiring::Bridge) {
            if n.has_port {
                all.may(1, Op::SetTag { guest, nic, tag: rng.bool().then(|| rng.u16(1..4095)) });
                use PortIds::*;
                let ids = *rng.choice(&[Right, Right, OtherPort, NoUuid, OtherInstance, OtherMac, Nothing]).unwrap();
                all.may(3, Op::SetIds { guest, nic, ids });
                all.may(1, Op::DeletePort { guest, nic });
            } else if g.wiring == Wiring::Hybrid || n.device == Device::Own {
                all.may(4, Op::AddPort { guest, nic });
            }
        }
    }

    pub(super) fn names(&self, guest: u32, nic: u32) -> Names {
        let tap = self.ids(guest, nic).tap;
        let named = |kind: &str| format!("{kind}{}", &tap[3..]);
        Names { bridge: named("qbr"), veth: [named("qvb"), named("qvo")], tap }
    }

    /// The Open vSwitch port of an interface.
    fn port(&self, guest: u32, nic: u32, wiring: Wiring) -> String {
        let Names { tap, veth: [_, qvo], .. } = self.names(guest, nic);
        if wiring == Wiring::Hybrid { qvo } else { tap }
    }

    /// Makes the port and says whose it is.
    fn add_port(&self, guest: u32, nic: u32, wiring: Wiring) -> String {
        let port = self.port(guest, nic, wiring);
        format!(
            "ovs-vsctl --may-exist add-port br-int {port} -- set interface {port} {}\n",
            self.port_ids(guest, nic, PortIds::Right)
        )
    }

    fn port_ids(&self, guest: u32, nic: u32, ids: PortIds) -> String {
        let right = self.ids(guest, nic);
        let (mut port, mut mac, mut instance) = (right.port, right.mac, self.uuid(guest));
        match ids {
            PortIds::Right => {}
            PortIds::OtherPort => port = self.ids(99, nic).port,
            PortIds::NoUuid => "not-a-uuid".clone_into(&mut port),
            PortIds::OtherInstance => instance = self.uuid(99),
            PortIds::OtherMac => mac = self.ids(99, nic).mac,
            PortIds::Nothing => return "external_ids={}".to_owned(),
        }
        format!(
            "external_ids:iface-id={port} external_ids:iface-status=active \
             external_ids:attached-mac='\"{mac}\"' external_ids:vm-uuid={instance}"
        )
    }

    /// What an interface needs before libvirt can plug it.
    pub(super) fn plug(&self, guest: u32, nic: u32) -> String {
        let g = &self.guests[&guest];
        let Names { tap, bridge, veth: [qvb, qvo] } = self.names(guest, nic);
        let add_port = || self.add_port(guest, nic, g.wiring);
        match g.wiring {
            Wiring::Bridge | Wiring::Virtualport => String::new(),
            Wiring::Unmanaged => {
                // As in `qemu_domain`.
                let queues = if nic == 0 && g.defined > 1 { "multi_queue" } else { "" };
                format!("ip tuntap add dev {tap} mode tap {queues}; ip link set {tap} up\n{}", add_port())
            }
            Wiring::Hybrid => format!(
                "ip link add {bridge} type bridge; ip link set {bridge} up
                ip link add {qvo} type veth peer name {qvb}
                ip link set {qvb} master {bridge}; ip link set {qvb} up; ip link set {qvo} up
                {}",
                add_port()
            ),
        }
    }

    /// The same for all of its interfaces.
    pub fn plug_all(&self, guest: u32) -> String {
        self.guests[&guest].nics.keys().map(|&nic| self.plug(guest, nic)).collect()
    }

    /// Takes away what libvirt does not when it unplugs an interface.
    pub(super) fn unplug(&self, guest: u32, nic: u32) -> String {
        let (g, n) = (&self.guests[&guest], &self.guests[&guest].nics[&nic]);
        let Names { tap, bridge, veth: [_, qvo] } = self.names(guest, nic);
        // What was put in the place of a guest's device does not end with the guest.
        let replaced = if n.device == Device::Replaced { format!("ip link del {tap}\n") } else { String::new() };
        match g.wiring {
            Wiring::Bridge | Wiring::Virtualport => replaced,
            Wiring::Unmanaged => {
                let device = self.device(guest, nic, n);
                format!("ovs-vsctl --if-exists del-port br-int {tap}; ip link del {device}\n")
            }
            Wiring::Hybrid => format!(
                "ovs-vsctl --if-exists del-port br-int {qvo}; ip link del {qvo}; ip link del {bridge}\n{replaced}"
            ),
        }
    }

    /// The same for all of its interfaces.
    pub fn unplug_all(&self, guest: u32) -> String {
        self.guests[&guest].nics.keys().map(|&nic| self.unplug(guest, nic)).collect()
    }

    pub(super) fn apply_to_switch(&mut self, operation: &Operation) -> String {
        use Operation as Op;
        let wiring = |guest: u32| self.guests[&guest].wiring;
        match *operation {
            Op::SetTag { guest, nic, tag } => {
                let tag = tag.map_or("[]".to_owned(), |tag| tag.to_string());
                format!("ovs-vsctl set port {} tag={tag}", self.port(guest, nic, wiring(guest)))
            }
            Op::SetIds { guest, nic, ids } => {
                let port = self.port(guest, nic, wiring(guest));
                format!("ovs-vsctl set interface {port} {}", self.port_ids(guest, nic, ids))
            }
            Op::DeletePort { guest, nic } => {
                let port = self.port(guest, nic, wiring(guest));
                self.nic(guest, nic).has_port = false;
                format!("ovs-vsctl del-port br-int {port}")
            }
            Op::AddPort { guest, nic } => {
                let script = self.add_port(guest, nic, wiring(guest));
                self.nic(guest, nic).has_port = true;
                script
            }
            Op::AddStrangerPort { stranger, kind } => {
                self.ports.present.insert(stranger, kind);
                self.ports.next += 1;
                match kind {
                    // The switch would complain.
                    Kind::Missing => format!("ovs-vsctl --no-wait add-port br-int port{stranger}"),
                    Kind::Internal => format!(
                        "ovs-vsctl add-port br-int port{stranger} -- set interface port{stranger} type=internal"
                    ),
                    Kind::Bridge => {
                        format!("ovs-vsctl add-br port{stranger} -- set bridge port{stranger} datapath_type=netdev")
                    }
                }
            }
            Op::DeleteStrangerPort { stranger } => match self.ports.present.remove(&stranger) {
                Some(Kind::Bridge) => format!("ovs-vsctl del-br port{stranger}"),
                _ => format!("ovs-vsctl del-port port{stranger}"),
            },
            Op::PortStorm => "
                many() { for n in $(seq 20); do eval \"ovs-vsctl --no-wait $1 &\"; done; wait; }
                many 'add-port br-int many$n tag=$n'
                many 'set port many$n tag=4$n -- set interface many$n external_ids:iface-id=$n'
                many 'del-port many$n'"
                .to_owned(),
        }
    }
}
