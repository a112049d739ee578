//! What happens to guests, by libvirt and behind its back.

use fastrand::Rng;

use super::{BRIDGES, CONTAINERS, Candidates, Device, GUESTS, Guest, Ids, Nic, Scope, State, Wiring, World};

/// See [`super::Operation`].
#[derive(Clone, Debug)]
pub enum Operation {
    Create { guest: u32, shape: Shape },
    Define { guest: u32, shape: Shape },
    Start { guest: u32 },
    Pause { guest: u32 },
    Resume { guest: u32 },
    Save { guest: u32 },
    Destroy { guest: u32 },
    Undefine { guest: u32 },
    Reset { guest: u32 },
    Rename { guest: u32, name: u32, forget_ports: bool },
    Plug { guest: u32, nic: u32 },
    Unplug { guest: u32, nic: u32 },
    UpdateBridge { guest: u32, nic: u32, bridge: &'static str },
    PullCable { guest: u32, nic: u32, down: bool },
    // Behind libvirt's back.
    KillGuest { guest: u32 },
    LeaveTap { guest: u32 },
}

/// How a new guest is made.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    container: bool,
    nics: u32,
    wiring: Wiring,
}

/// libvirt can miss the message about a container's first process when it starts; then it cannot reach into it.
pub const INIT_UNKNOWN: &str = "until init PID is known";
const NOVA: &str = "http://openstack.org/xmlns/libvirt/nova/1.1";

impl Operation {
    /// What a new guest is.
    pub fn of_what(&self) -> String {
        match self {
            Self::Create { shape, .. } | Self::Define { shape, .. } if shape.container => "(container)".to_owned(),
            Self::Create { shape, .. } => format!("({})", shape.wiring.word()),
            _ => String::new(),
        }
    }
}

impl Nic {
    pub(super) fn new(bridge: &str, plugged: bool) -> Self {
        let (bridge, on) = (bridge.to_owned(), Some(bridge.to_owned()));
        Self { plugged, bridge, on, device: Device::Own, altname: false, up: true, has_port: true }
    }
}

impl World<'_> {
    pub(super) fn guest_candidates(&self, rng: &mut Rng, scope: Scope, all: &mut Candidates) {
        if scope == Scope::NoLibvirt {
            return;
        }
        for (range, container, most) in [(GUESTS, false, 3), (CONTAINERS, true, 1)] {
            let is_free = |n: &u32| !self.guests.contains_key(n) && !self.elsewhere.contains(n);
            let free: Vec<_> = range.filter(is_free).collect();
            let wirings = [Wiring::Bridge, Wiring::Virtualport, Wiring::Unmanaged, Wiring::Hybrid];
            let wiring = if container || scope == Scope::NoSwitch { &wirings[..1] } else { &wirings[..] };
            if let Some(&guest) = rng.choice(&free) {
                let shape = Shape { container, nics: rng.u32(1..=most), wiring: *rng.choice(wiring).unwrap() };
                // The emptier, the likelier.
                let free = u32::try_from(free.len()).unwrap();
                all.may(4 * free, Operation::Create { guest, shape });
                all.may(3 * free, Operation::Define { guest, shape });
            }
        }
        for (&guest, g) in &self.guests {
            if scope != Scope::NoSwitch || g.wiring == Wiring::Bridge {
                candidates_of(guest, g, rng, all);
            }
        }
    }

    /// The Linux bridge that an interface is on at first.
    pub(super) fn bridge(&self, guest: u32, nic: u32, wiring: Wiring) -> String {
        match wiring {
            Wiring::Hybrid => self.names(guest, nic).bridge,
            _ => BRIDGES[0].to_owned(),
        }
    }

    fn insert(&mut self, guest: u32, shape: Shape, persistent: bool) {
        let Shape { container, nics: defined, wiring } = shape;
        let nics = (0..defined).map(|nic| (nic, Nic::new(&self.bridge(guest, nic, wiring), false))).collect();
        let state = if persistent { State::Off } else { State::Running };
        let g = Guest {
            container,
            wiring,
            persistent,
            state,
            defined,
            nics,
            left_tap: false,
            display_name: 0,
            closed: false,
        };
        self.guests.insert(guest, g);
    }

    fn description(&self, guest: u32, shape: Shape) -> String {
        let firmware = self.hypervisor.dir().join("halt.bin");
        if shape.container {
            self.hypervisor.xml(&format!("lxc_domain {guest}"))
        } else {
            let (nics, wiring) = (shape.nics, shape.wiring.word());
            self.hypervisor.xml(&format!("qemu_domain {guest} {} qemu {nics} {wiring}", firmware.display()))
        }
    }

    pub(super) fn apply_to_guest(&mut self, operation: &Operation) -> String {
        use Operation as Op;
        match *operation {
            Op::Create { guest, shape } => {
                let xml = self.description(guest, shape);
                self.insert(guest, shape, false);
                format!("{}virsh -q -c {} create {xml}", self.plug_all(guest), self.guests[&guest].uri())
            }
            Op::Define { guest, shape } => {
                let xml = self.description(guest, shape);
                self.insert(guest, shape, true);
                format!("virsh -q -c {} define {xml}", self.guests[&guest].uri())
            }
            Op::Start { guest } => {
                let away = self.without_left_tap(guest);
                self.as_defined(guest);
                let g = self.guest(guest);
                (g.state, g.closed) = (State::Running, false);
                format!("{away}\n{}{}", self.plug_all(guest), self.virsh(guest, "start", ""))
            }
            Op::Pause { guest } => {
                self.guest(guest).state = State::Paused;
                self.virsh(guest, "suspend", "")
            }
            Op::Resume { guest } => {
                self.guest(guest).state = State::Running;
                let resume = self.virsh(guest, "resume", "");
                let state = self.virsh(guest, "domstate", "");
                format!("{resume} || {state} | grep running\n{}", thaw(guest))
            }
            Op::Save { guest } => {
                let script = format!("{}\n{}", self.virsh(guest, "managedsave", ""), self.unplug_all(guest));
                self.guest(guest).state = State::Saved;
                script
            }
            Op::Reset { guest } => self.virsh(guest, "reset", ""),
            Op::Destroy { guest } => {
                let script =
                    format!("{}\n{}\n{}", thaw(guest), self.virsh(guest, "destroy", ""), self.unplug_all(guest));
                self.stop(guest);
                script
            }
            Op::KillGuest { guest } => {
                let name = name(guest);
                let state = format!("virsh -q -c qemu:///system domstate {name} 2>/dev/null || echo shut off");
                let script = format!(
                    "kill -KILL $(cat /run/libvirt/qemu/{name}.pid)
                    while [ \"$({state})\" != 'shut off' ]; do sleep 0.02; done
                    {}",
                    self.unplug_all(guest),
                );
                self.stop(guest);
                script
            }
            Op::Undefine { guest } => {
                let away = self.without_left_tap(guest);
                let saved = self.guests[&guest].state == State::Saved;
                let script = self.virsh(guest, "undefine", if saved { "--managed-save" } else { "" });
                let g = self.guest(guest);
                g.persistent = false;
                if !g.is_active() {
                    self.guests.remove(&guest);
                }
                format!("{script}\n{away}")
            }
            Op::Rename { guest, name, forget_ports } => {
                let ports = if forget_ports { 0 } else { 4 };
                let ports: String =
                    (0..ports).map(|j| format!("<port uuid=\"{}\"/>", self.ids(guest, j).port)).collect();
                self.guest(guest).display_name = name;
                let xml = format!("<instance><name>web-{guest}.{name}</name><ports>{ports}</ports></instance>");
                self.virsh(guest, "metadata", &format!("{NOVA} --live --key nova --set '{xml}'"))
            }
            Op::Plug { guest, nic } => {
                let (container, wiring) = (self.guests[&guest].container, self.guests[&guest].wiring);
                // Aliases of one's own are QEMU's.
                let function = if container { "interface" } else { "hot_plug_interface" };
                let wired = if container { "" } else { wiring.word() };
                let xml = self.hypervisor.xml(&format!("{function} {guest} {nic} {wired}"));
                let n = Nic::new(&self.bridge(guest, nic, wiring), true);
                self.guest(guest).nics.insert(nic, n);
                let attach = self.virsh(guest, "attach-device", &format!("{xml} --live"));
                format!("{}{attach}", self.plug(guest, nic))
            }
            Op::Unplug { guest, nic } => self.hot_unplug(guest, nic),
            Op::UpdateBridge { guest, nic, bridge } => {
                let n = self.nic(guest, nic);
                (n.bridge, n.on) = (bridge.to_owned(), Some(bridge.to_owned()));
                let file = self.hypervisor.dir().join("update.xml");
                format!(
                    "virsh -q -c qemu:///system dumpxml {name} |
                        awk '/<interface /{{b=\"\"; i=1}} i{{b=b $0 \"\\n\"}} /<\\/interface>/{{if (b ~ /{tap}/) printf \"%s\", b; i=0}}' |
                        sed \"s/bridge='[^']*'/bridge='{bridge}'/\" >{file}
                    {update}",
                    name = name(guest),
                    tap = self.ids(guest, nic).tap,
                    file = file.display(),
                    update = self.virsh(guest, "update-device", &format!("{} --live", file.display())),
                )
            }
            Op::PullCable { guest, nic, down } => {
                let state = if down { "down" } else { "up" };
                self.virsh(guest, "domif-setlink", &format!("{} {state}", self.ids(guest, nic).tap))
            }
            Op::LeaveTap { guest } => {
                self.guest(guest).left_tap = true;
                format!("ip tuntap add dev {} mode tap", self.ids(guest, 0).tap)
            }
        }
    }

    /// libvirt refused a hot-plug into a container, as it will do again.
    pub fn refused(&mut self, operation: &super::Operation) {
        if let super::Operation::Guest(Operation::Plug { guest, nic }) = *operation {
            let g = self.guest(guest);
            g.nics.remove(&nic);
            g.closed = true;
        }
    }

    /// A guest that can be migrated: it runs, and nobody has touched its devices.
    pub fn movable(&self, rng: &mut Rng) -> Option<u32> {
        let untouched = |nic: &Nic| nic.device == Device::Own && nic.has_port;
        let movable = |g: &Guest| !g.container && g.state == State::Running && g.nics.values().all(untouched);
        let movable: Vec<_> = self.guests.iter().filter(|(_, g)| movable(g)).map(|(&guest, _)| guest).collect();
        rng.choice(&movable).copied()
    }

    /// Whether a guest has a definition, which goes with it.
    pub fn is_persistent(&self, guest: u32) -> bool {
        self.guests[&guest].persistent
    }

    /// The guest comes from another hypervisor. libvirt has plugged its interfaces anew.
    pub fn welcome(&mut self, other: &mut World, guest: u32) {
        let mut g = other.guests.remove(&guest).unwrap();
        for (&nic, n) in &mut g.nics {
            let bridge = if g.wiring == Wiring::Bridge { n.bridge.clone() } else { self.bridge(guest, nic, g.wiring) };
            *n = Nic::new(&bridge, n.plugged);
        }
        self.guests.insert(guest, g);
    }

    pub(super) fn virsh(&self, guest: u32, command: &str, arguments: &str) -> String {
        format!("virsh -q -c {} {command} {} {arguments}", self.guests[&guest].uri(), name(guest))
    }

    fn hot_unplug(&mut self, guest: u32, nic: u32) -> String {
        let Ids { tap, port, .. } = self.ids(guest, nic);
        let after = self.unplug(guest, nic);
        self.guest(guest).nics.remove(&nic);
        if self.guests[&guest].container {
            let xml = self.hypervisor.xml(&format!("interface {guest} {nic}"));
            return self.virsh(guest, "detach-device", &format!("{xml} --live"));
        }
        // The halted guest never lets go; a reset does it for the guest.
        format!(
            "{}\n{}\nwhile {} | grep -q {tap}; do sleep 0.02; done\n{after}",
            self.virsh(guest, "detach-device-alias", &format!("ua-{port} --live")),
            self.virsh(guest, "reset", ""),
            self.virsh(guest, "domiflist", ""),
        )
    }

    /// The guest does not run any more.
    fn stop(&mut self, guest: u32) {
        if self.guests[&guest].persistent {
            self.guest(guest).state = State::Off;
            self.as_defined(guest);
        } else {
            self.guests.remove(&guest);
        }
    }

    /// It has the interfaces of its definition, as they are at first.
    fn as_defined(&mut self, guest: u32) {
        let g = &self.guests[&guest];
        let nics = (0..g.defined).map(|nic| (nic, Nic::new(&self.bridge(guest, nic, g.wiring), false))).collect();
        self.guest(guest).nics = nics;
    }

    fn without_left_tap(&mut self, guest: u32) -> String {
        let tap = self.ids(guest, 0).tap;
        let left = std::mem::take(&mut self.guest(guest).left_tap);
        if left { format!("ip link del {tap}") } else { String::new() }
    }
}

fn candidates_of(guest: u32, g: &Guest, rng: &mut Rng, all: &mut Candidates) {
    use Operation as Op;
    match g.state {
        State::Off | State::Saved => {
            all.may(6, Op::Start { guest });
            all.may(2, Op::Undefine { guest });
            if !g.left_tap {
                all.may(1, Op::LeaveTap { guest });
            }
        }
        State::Paused => {
            all.may(4, Op::Resume { guest });
            all.may(1, Op::Destroy { guest });
        }
        State::Running => {
            all.may(2, Op::Pause { guest });
            all.may(2, Op::Destroy { guest });
            all.may(2, Op::Rename { guest, name: g.display_name + 1, forget_ports: rng.u8(0..4) == 0 });
            if g.persistent {
                all.may(1, Op::Undefine { guest });
            }
            if !g.container {
                all.may(1, Op::Reset { guest });
                all.may(1, Op::KillGuest { guest });
            }
            let untouched = |nic: &Nic| !nic.plugged && nic.device == Device::Own;
            if g.persistent && !g.container && g.nics.values().all(untouched) {
                all.may(2, Op::Save { guest });
            }
            let free = (g.defined..4).find(|nic| !g.nics.contains_key(nic));
            if let Some(nic) = free.filter(|_| !g.closed) {
                all.may(5, Op::Plug { guest, nic });
            }
            for (&nic, n) in g.nics.iter().filter(|(_, n)| n.device == Device::Own) {
                if n.plugged {
                    all.may(6, Op::Unplug { guest, nic });
                }
                if !g.container {
                    all.may(1, Op::PullCable { guest, nic, down: rng.bool() });
                }
                // Where somebody else has put it on another bridge, libvirt refuses.
                let there = n.on.as_ref().is_none_or(|on| *on == n.bridge);
                if !g.container && g.wiring == Wiring::Bridge && there {
                    let bridge = if n.bridge == BRIDGES[0] { BRIDGES[1] } else { BRIDGES[0] };
                    all.may(if n.on.is_none() { 6 } else { 2 }, Op::UpdateBridge { guest, nic, bridge });
                }
            }
        }
    }
}

/// What libvirt calls a guest.
pub fn name(guest: u32) -> String {
    format!("instance-{guest:08x}")
}

/// A restart of libvirtd makes libvirt believe that a paused container runs. It is frozen all the same, and then cannot
/// be resumed by it, nor killed.
fn thaw(guest: u32) -> String {
    let files = |file: &str| format!("$(find /sys/fs/cgroup -path '*{}*' -name {file} 2>/dev/null)", name(guest));
    format!(
        "for file in {}; do echo THAWED >$file; done\nfor file in {}; do echo 0 >$file; done",
        files("freezer.state"),
        files("cgroup.freeze")
    )
}
