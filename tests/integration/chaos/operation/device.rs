//! What happens to the kernel's links behind libvirt's back: to those of guests, and to those of strangers.

use std::collections::BTreeSet;

use fastrand::Rng;

use super::{BRIDGES, Candidates, Device, Nic, Wiring, World};

/// See [`super::Operation`].
#[derive(Clone, Debug)]
pub enum Operation {
    RenameDevice { guest: u32, nic: u32, keep_altname: bool },
    RenameDeviceBack { guest: u32, nic: u32 },
    ReplaceDevice { guest: u32, nic: u32 },
    MoveDevice { guest: u32, nic: u32, bridge: Option<String> },
    SetMtu { guest: u32, nic: u32, mtu: u32 },
    SetUp { guest: u32, nic: u32, up: bool },
    SetAltname { guest: u32, nic: u32, add: bool },
    AddTap { stranger: u32, mac_of: Option<(u32, u32)> },
    AddVeth { stranger: u32 },
    AddBridge { stranger: u32 },
    DeleteStranger { stranger: u32 },
    Storm,
}

/// The links that are nobody's.
#[derive(Default)]
pub struct Strangers {
    present: BTreeSet<u32>,
    next: u32,
}

const STRANGERS: usize = 6;

impl World<'_> {
    pub(super) fn device_candidates(&self, rng: &mut Rng, all: &mut Candidates) {
        use Operation as Op;
        if self.devices.present.len() < STRANGERS {
            let stranger = self.devices.next;
            let vifs: Vec<_> = self.guests.iter().flat_map(|(&n, g)| g.nics.keys().map(move |&j| (n, j))).collect();
            let mac_of = rng.choice(&vifs).copied().filter(|_| rng.bool());
            all.may(3, Op::AddTap { stranger, mac_of });
            all.may(2, Op::AddVeth { stranger });
            all.may(1, Op::AddBridge { stranger });
        }
        let strangers: Vec<_> = self.devices.present.iter().collect();
        if let Some(&&stranger) = rng.choice(&strangers) {
            all.may(4, Op::DeleteStranger { stranger });
        }
        all.may(1, Op::Storm);
        for (guest, nic, g, n) in self.active_nics() {
            if n.device == Device::Own {
                all.may(1, Op::RenameDevice { guest, nic, keep_altname: n.up && rng.bool() });
                if !g.container {
                    all.may(1, Op::ReplaceDevice { guest, nic });
                }
            }
            if matches!(n.device, Device::Renamed { .. }) {
                all.may(4, Op::RenameDeviceBack { guest, nic });
            }
            // Those that are ports of Open vSwitch are on no bridge that could be left.
            if matches!(g.wiring, Wiring::Bridge | Wiring::Hybrid) {
                let own = self.bridge(guest, nic, g.wiring);
                let bridge = rng.choice([Some(&*own), Some(BRIDGES[1]), None]).unwrap().map(str::to_owned);
                if bridge != n.on {
                    all.may(2, Op::MoveDevice { guest, nic, bridge });
                }
            }
            all.may(1, Op::SetMtu { guest, nic, mtu: rng.u32(1280..=1500) });
            all.may(1, Op::SetUp { guest, nic, up: !n.up });
            // Of a device that is down the kernel does not tell.
            if n.up {
                all.may(1, Op::SetAltname { guest, nic, add: !n.altname });
            }
        }
    }

    /// The present name of a device.
    pub(super) fn device(&self, guest: u32, nic: u32, n: &Nic) -> String {
        match n.device {
            Device::Renamed { .. } => format!("gone{guest}x{nic}"),
            Device::Own | Device::Replaced => self.ids(guest, nic).tap,
        }
    }

    fn present(&self, guest: u32, nic: u32) -> String {
        self.device(guest, nic, &self.guests[&guest].nics[&nic])
    }

    pub(super) fn apply_to_device(&mut self, operation: &Operation) -> String {
        use Operation as Op;
        match operation.clone() {
            Op::RenameDevice { guest, nic, keep_altname } => {
                let tap = self.present(guest, nic);
                let n = self.nic(guest, nic);
                n.device = Device::Renamed { altname: keep_altname };
                let up = if n.up { "up" } else { "down" };
                let new = self.present(guest, nic);
                let altname =
                    if keep_altname { format!("ip link property add dev {new} altname {tap}") } else { String::new() };
                format!("ip link set {tap} down; ip link set {tap} name {new}; ip link set {new} {up}; {altname}")
            }
            Op::RenameDeviceBack { guest, nic } => {
                let (now, tap) = (self.present(guest, nic), self.ids(guest, nic).tap);
                let n = self.nic(guest, nic);
                let altname = match n.device {
                    Device::Renamed { altname: true } => format!("ip link property del dev {now} altname {tap}"),
                    _ => String::new(),
                };
                n.device = Device::Own;
                let up = if n.up { "up" } else { "down" };
                format!("{altname}\nip link set {now} down; ip link set {now} name {tap}; ip link set {tap} {up}")
            }
            Op::ReplaceDevice { guest, nic } => {
                let tap = self.ids(guest, nic).tap;
                let n = self.nic(guest, nic);
                (n.on, n.up, n.device, n.altname) = (None, false, Device::Replaced, false);
                format!("ip link del {tap}; ip tuntap add dev {tap} mode tap")
            }
            Op::MoveDevice { guest, nic, bridge } => {
                let device = self.present(guest, nic);
                let script = match &bridge {
                    Some(bridge) => format!("ip link set {device} master {bridge}"),
                    None => format!("ip link set {device} nomaster"),
                };
                self.nic(guest, nic).on = bridge;
                script
            }
            Op::SetMtu { guest, nic, mtu } => format!("ip link set {} mtu {mtu}", self.present(guest, nic)),
            Op::SetUp { guest, nic, up } => {
                self.nic(guest, nic).up = up;
                format!("ip link set {} {}", self.present(guest, nic), if up { "up" } else { "down" })
            }
            Op::SetAltname { guest, nic, add } => {
                self.nic(guest, nic).altname = add;
                let verb = if add { "add" } else { "del" };
                let device = self.present(guest, nic);
                format!("ip link property {verb} dev {device} altname a-longer-name-for-{guest}-{nic}")
            }
            Op::AddTap { stranger, mac_of } => {
                let address = mac_of
                    .map(|(guest, nic)| format!("ip link set str{stranger} address {}", self.ids(guest, nic).mac));
                self.devices.add(stranger);
                format!("ip tuntap add dev str{stranger} mode tap\n{}", address.unwrap_or_default())
            }
            Op::AddVeth { stranger } => {
                self.devices.add(stranger);
                format!("ip link add str{stranger} type veth peer name rts{stranger}")
            }
            Op::AddBridge { stranger } => {
                self.devices.add(stranger);
                format!("ip link add str{stranger} type bridge")
            }
            Op::DeleteStranger { stranger } => {
                self.devices.present.remove(&stranger);
                format!("ip link del str{stranger}")
            }
            Op::Storm => "
                for n in $(seq 200); do echo tuntap add dev storm$n mode tap; done | ip -batch -
                for n in $(seq 200); do echo link set storm$n up; done | ip -batch -
                for n in $(seq 200); do echo link del storm$n; done | ip -batch -"
                .to_owned(),
        }
    }
}

impl Strangers {
    fn add(&mut self, stranger: u32) {
        self.present.insert(stranger);
        self.next += 1;
    }
}
