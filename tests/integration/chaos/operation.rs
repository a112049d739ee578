//! What happens to a hypervisor, and the test's own idea of it, from which the next thing to happen is chosen.
//!
//! The choice depends on nothing but the random numbers and what was chosen before, so a seed tells the whole story.

use std::{cell::RefCell, collections::BTreeMap};

use fastrand::Rng;

use crate::support::hypervisor::Hypervisor;

/// One thing that happens. `guest` and `nic` are the numbers of `tests/testbed/domains.sh`.
#[derive(Clone, Debug)]
pub enum Operation {
    Create { guest: u32, container: bool, nics: u32 },
    Define { guest: u32, container: bool, nics: u32 },
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
    RenameDevice { guest: u32, nic: u32, keep_altname: bool },
    RenameDeviceBack { guest: u32, nic: u32 },
    ReplaceDevice { guest: u32, nic: u32 },
    MoveDevice { guest: u32, nic: u32, bridge: Option<&'static str> },
    SetMtu { guest: u32, nic: u32, mtu: u32 },
    SetUp { guest: u32, nic: u32, up: bool },
    SetAltname { guest: u32, nic: u32, add: bool },
    // Of strangers.
    AddTap { stranger: u32, mac_of: Option<(u32, u32)> },
    AddVeth { stranger: u32 },
    AddBridge { stranger: u32 },
    DeleteStranger { stranger: u32 },
    Storm,
    // Faults: these are the test's to do.
    RestartLibvirtd { signal: &'static str },
    HangLibvirtd { seconds: u64 },
    RestartVifd { signal: &'static str },
}

/// Which operations may be chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those that need nothing but `ip`.
    Kernel,
    /// All but faults.
    NoFaults,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    Saved,
    Running,
    Paused,
}

struct Guest {
    container: bool,
    persistent: bool,
    state: State,
    /// How many interfaces it is defined with.
    defined: u32,
    nics: BTreeMap<u32, Nic>,
    /// Somebody else's tap has the name of its first.
    left_tap: bool,
    /// Each new name is another one.
    display_name: u32,
    /// Nothing can be plugged in, see [`INIT_UNKNOWN`].
    closed: bool,
}

struct Nic {
    plugged: bool,
    /// On which bridge libvirt believes it to be.
    bridge: &'static str,
    /// On which it is.
    on: Option<&'static str>,
    device: Device,
    altname: bool,
    up: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Device {
    Own,
    Renamed { altname: bool },
    Replaced,
}

enum Stranger {
    Tap,
    Veth,
    Bridge,
}

/// The ids of an interface, see `tests/testbed/domains.sh`.
#[derive(Clone)]
struct Ids {
    tap: String,
    port: String,
    mac: String,
}

/// The hypervisor, as it should be by now.
pub struct World<'a> {
    hypervisor: &'a Hypervisor,
    guests: BTreeMap<u32, Guest>,
    strangers: BTreeMap<u32, Stranger>,
    next_stranger: u32,
    ids: RefCell<BTreeMap<(u32, u32), Ids>>,
}

const BRIDGES: [&str; 2] = ["br0", "br1"];
const GUESTS: std::ops::Range<u32> = 1..7;
const CONTAINERS: std::ops::Range<u32> = 11..14;
const STRANGERS: usize = 6;
/// libvirt can miss the message about a container's first process when it starts; then it cannot reach into it.
pub const INIT_UNKNOWN: &str = "until init PID is known";
const NOVA: &str = "http://openstack.org/xmlns/libvirt/nova/1.1";

impl Operation {
    /// Its name.
    pub fn kind(&self) -> String {
        let text = format!("{self:?}");
        let name = text.split(' ').next().unwrap_or_default();
        match self {
            Self::Create { container: true, .. } | Self::Define { container: true, .. } => format!("{name}Container"),
            Self::RestartLibvirtd { signal } | Self::RestartVifd { signal } => format!("{name}({signal})"),
            _ => name.to_owned(),
        }
    }

    /// Whether it is a fault of a daemon.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::RestartLibvirtd { .. } | Self::HangLibvirtd { .. } | Self::RestartVifd { .. })
    }
}

impl Nic {
    fn new(plugged: bool) -> Self {
        Self { plugged, bridge: "br0", on: Some("br0"), device: Device::Own, altname: false, up: true }
    }
}

impl Guest {
    fn new(container: bool, persistent: bool, defined: u32) -> Self {
        let state = if persistent { State::Off } else { State::Running };
        let mut guest = Self {
            container,
            persistent,
            state,
            defined,
            nics: BTreeMap::new(),
            left_tap: false,
            display_name: 0,
            closed: false,
        };
        guest.plug_defined();
        guest
    }

    fn plug_defined(&mut self) {
        self.nics = (0..self.defined).map(|j| (j, Nic::new(false))).collect();
    }

    fn uri(&self) -> &'static str {
        if self.container { "lxc:///system" } else { "qemu:///system" }
    }
}

impl<'a> World<'a> {
    /// An empty one, with the bridges that guests are moved between.
    pub fn new(hypervisor: &'a Hypervisor) -> Self {
        hypervisor.run("ip link add br1 type bridge; ip link set br1 up");
        Self {
            hypervisor,
            guests: BTreeMap::new(),
            strangers: BTreeMap::new(),
            next_stranger: 0,
            ids: RefCell::default(),
        }
    }

    /// The UUIDs of guests that are not there.
    pub fn absent(&self) -> Vec<String> {
        let all = GUESTS.chain(CONTAINERS).chain([9999]);
        all.filter(|n| !self.guests.contains_key(n)).map(|n| self.uuid(n)).collect()
    }

    fn uuid(&self, guest: u32) -> String {
        // Kept among the ids of an interface that nobody has.
        let key = (guest, u32::MAX);
        let make =
            || Ids { tap: String::new(), port: Hypervisor::id(&format!("server_uuid {guest}")), mac: String::new() };
        self.ids.borrow_mut().entry(key).or_insert_with(make).port.clone()
    }

    fn ids(&self, guest: u32, nic: u32) -> Ids {
        let make = || {
            let of = format!("{guest} {nic}");
            let text = Hypervisor::id(&format!("echo $(tap_name {of}) $(port_uuid {of}) $(mac_address {of})"));
            let mut words = text.split(' ').map(str::to_owned);
            let mut word = || words.next().unwrap();
            Ids { tap: word(), port: word(), mac: word() }
        };
        self.ids.borrow_mut().entry((guest, nic)).or_insert_with(make).clone()
    }

    /// Chooses what happens next.
    pub fn choose(&self, rng: &mut Rng, scope: Scope) -> Operation {
        let candidates = self.candidates(rng, scope);
        let mut point = rng.u32(0..candidates.iter().map(|(weight, _)| weight).sum());
        for (weight, operation) in candidates {
            match point.checked_sub(weight) {
                Some(rest) => point = rest,
                None => return operation,
            }
        }
        unreachable!("the point lies within the sum of the weights")
    }

    /// What can happen, and how likely.
    fn candidates(&self, rng: &mut Rng, scope: Scope) -> Vec<(u32, Operation)> {
        use Operation as Op;
        let mut all = Vec::new();
        let mut may = |weight: u32, operation| all.push((weight, operation));
        let kernel_only = scope == Scope::Kernel;
        if !kernel_only {
            for (range, container, most) in [(GUESTS, false, 3), (CONTAINERS, true, 1)] {
                let free: Vec<_> = range.clone().filter(|n| !self.guests.contains_key(n)).collect();
                if let Some(&guest) = rng.choice(&free) {
                    let nics = rng.u32(1..=most);
                    // The emptier, the likelier.
                    may(4 * u32::try_from(free.len()).unwrap(), Op::Create { guest, container, nics });
                    may(3 * u32::try_from(free.len()).unwrap(), Op::Define { guest, container, nics });
                }
            }
        }
        if self.strangers.len() < STRANGERS {
            let stranger = self.next_stranger;
            let vifs: Vec<_> = self.guests.iter().flat_map(|(&n, g)| g.nics.keys().map(move |&j| (n, j))).collect();
            let mac_of = rng.choice(&vifs).copied().filter(|_| rng.bool());
            may(3, Op::AddTap { stranger, mac_of });
            may(2, Op::AddVeth { stranger });
            may(1, Op::AddBridge { stranger });
        }
        let strangers: Vec<_> = self.strangers.keys().collect();
        if let Some(&&stranger) = rng.choice(&strangers) {
            may(4, Op::DeleteStranger { stranger });
        }
        may(1, Op::Storm);
        if scope == Scope::All {
            for signal in ["TERM", "KILL"] {
                may(2, Op::RestartLibvirtd { signal });
                may(2, Op::RestartVifd { signal });
            }
            may(2, Op::HangLibvirtd { seconds: rng.u64(1..=8) });
        }
        for (&guest, g) in &self.guests {
            self.candidates_of(guest, g, rng, kernel_only, &mut may);
        }
        all
    }

    #[expect(clippy::unused_self, reason = "it belongs to the choice")]
    fn candidates_of(
        &self,
        guest: u32,
        g: &Guest,
        rng: &mut Rng,
        kernel_only: bool,
        may: &mut impl FnMut(u32, Operation),
    ) {
        use Operation as Op;
        let running = g.state == State::Running;
        if !kernel_only {
            match g.state {
                State::Off | State::Saved => {
                    may(6, Op::Start { guest });
                    may(2, Op::Undefine { guest });
                    if !g.left_tap {
                        may(1, Op::LeaveTap { guest });
                    }
                }
                State::Paused => {
                    may(4, Op::Resume { guest });
                    may(1, Op::Destroy { guest });
                }
                State::Running => {
                    may(2, Op::Pause { guest });
                    may(2, Op::Destroy { guest });
                    may(2, Op::Rename { guest, name: g.display_name + 1, forget_ports: rng.u8(0..4) == 0 });
                    if g.persistent {
                        may(1, Op::Undefine { guest });
                    }
                    if !g.container {
                        may(1, Op::Reset { guest });
                        may(1, Op::KillGuest { guest });
                    }
                    let untouched = |nic: &Nic| !nic.plugged && nic.device == Device::Own;
                    if g.persistent && !g.container && g.nics.values().all(untouched) {
                        may(2, Op::Save { guest });
                    }
                    let free = (g.defined..4).find(|nic| !g.nics.contains_key(nic));
                    if let Some(nic) = free.filter(|_| !g.closed) {
                        may(5, Op::Plug { guest, nic });
                    }
                }
            }
        }
        if !matches!(g.state, State::Running | State::Paused) {
            return;
        }
        for (&nic, n) in &g.nics {
            if n.device == Device::Own {
                may(1, Op::RenameDevice { guest, nic, keep_altname: n.up && rng.bool() });
                if !g.container {
                    may(1, Op::ReplaceDevice { guest, nic });
                }
                if running && !kernel_only {
                    if n.plugged {
                        may(6, Op::Unplug { guest, nic });
                    }
                    // Where somebody else has put it on another bridge, libvirt refuses.
                    if !g.container && n.on.is_none_or(|on| on == n.bridge) {
                        let bridge = if n.bridge == BRIDGES[0] { BRIDGES[1] } else { BRIDGES[0] };
                        may(if n.on.is_none() { 6 } else { 2 }, Op::UpdateBridge { guest, nic, bridge });
                    }
                    if !g.container {
                        may(1, Op::PullCable { guest, nic, down: rng.bool() });
                    }
                }
            }
            if matches!(n.device, Device::Renamed { .. }) {
                may(4, Op::RenameDeviceBack { guest, nic });
            }
            let bridge = *rng.choice(&[Some(BRIDGES[0]), Some(BRIDGES[1]), None]).unwrap();
            if bridge != n.on {
                may(2, Op::MoveDevice { guest, nic, bridge });
            }
            may(1, Op::SetMtu { guest, nic, mtu: rng.u32(1280..=1500) });
            may(1, Op::SetUp { guest, nic, up: !n.up });
            // Of a device that is down the kernel does not tell.
            if n.up {
                may(1, Op::SetAltname { guest, nic, add: !n.altname });
            }
        }
    }

    /// The present name of a device.
    fn device(&self, guest: u32, nic: u32) -> String {
        match self.guests[&guest].nics[&nic].device {
            Device::Renamed { .. } => format!("gone{guest}x{nic}"),
            Device::Own | Device::Replaced => self.ids(guest, nic).tap,
        }
    }

    fn description(&self, guest: u32, container: bool, nics: u32) -> String {
        let firmware = self.hypervisor.dir().join("halt.bin");
        if container {
            self.hypervisor.xml(&format!("lxc_domain {guest}"))
        } else {
            self.hypervisor.xml(&format!("qemu_domain {guest} {} qemu {nics}", firmware.display()))
        }
    }

    /// Takes in that `operation` happens; returns the commands that make it happen, for a shell inside the hypervisor.
    /// They end when libvirt and the kernel are as they shall be.
    pub fn apply(&mut self, operation: &Operation) -> String {
        use Operation as Op;
        match *operation {
            Op::Create { guest, container, nics } => {
                let xml = self.description(guest, container, nics);
                let g = Guest::new(container, false, nics);
                let script = format!("virsh -q -c {} create {xml}", g.uri());
                self.guests.insert(guest, g);
                script
            }
            Op::Define { guest, container, nics } => {
                let xml = self.description(guest, container, nics);
                let g = Guest::new(container, true, nics);
                let script = format!("virsh -q -c {} define {xml}", g.uri());
                self.guests.insert(guest, g);
                script
            }
            Op::Start { guest } => {
                let away = self.without_left_tap(guest);
                let g = self.guest(guest);
                if g.state == State::Off {
                    g.plug_defined();
                }
                for nic in g.nics.values_mut() {
                    *nic = Nic { bridge: nic.bridge, on: Some(nic.bridge), ..Nic::new(false) };
                }
                (g.state, g.closed) = (State::Running, false);
                format!("{away}\n{}", self.virsh(guest, "start", ""))
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
                self.guest(guest).state = State::Saved;
                self.virsh(guest, "managedsave", "")
            }
            Op::Reset { guest } => self.virsh(guest, "reset", ""),
            Op::Destroy { guest } => {
                let script =
                    format!("{}\n{}\n{}", thaw(guest), self.virsh(guest, "destroy", ""), self.without_replaced(guest));
                self.stop(guest);
                script
            }
            Op::KillGuest { guest } => {
                let script = format!(
                    "kill -KILL $(cat /run/libvirt/qemu/{name}.pid)
                    while [ \"$(virsh -q -c qemu:///system domstate {name} 2>/dev/null || echo shut off)\" != 'shut off' ]
                    do sleep 0.02; done
                    {}",
                    self.without_replaced(guest),
                    name = name(guest),
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
                if matches!(g.state, State::Off | State::Saved) {
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
                let container = self.guests[&guest].container;
                // Aliases of one's own are QEMU's.
                let function = if container { "interface" } else { "hot_plug_interface" };
                let xml = self.hypervisor.xml(&format!("{function} {guest} {nic}"));
                self.guest(guest).nics.insert(nic, Nic::new(true));
                self.virsh(guest, "attach-device", &format!("{xml} --live"))
            }
            Op::Unplug { guest, nic } => self.unplug(guest, nic),
            Op::UpdateBridge { guest, nic, bridge } => {
                let n = self.nic(guest, nic);
                (n.bridge, n.on) = (bridge, Some(bridge));
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
            _ => self.apply_to_links(operation),
        }
    }

    /// libvirt refused a hot-plug into a container, as it will do again.
    pub fn refused(&mut self, operation: &Operation) {
        if let Operation::Plug { guest, nic } = *operation {
            let g = self.guest(guest);
            g.nics.remove(&nic);
            g.closed = true;
        }
    }

    fn apply_to_links(&mut self, operation: &Operation) -> String {
        use Operation as Op;
        match *operation {
            Op::RenameDevice { guest, nic, keep_altname } => {
                let tap = self.device(guest, nic);
                let n = self.nic(guest, nic);
                n.device = Device::Renamed { altname: keep_altname };
                let up = if n.up { "up" } else { "down" };
                let new = self.device(guest, nic);
                let altname =
                    if keep_altname { format!("ip link property add dev {new} altname {tap}") } else { String::new() };
                format!("ip link set {tap} down; ip link set {tap} name {new}; ip link set {new} {up}; {altname}")
            }
            Op::RenameDeviceBack { guest, nic } => {
                let (now, tap) = (self.device(guest, nic), self.ids(guest, nic).tap);
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
                *n = Nic {
                    plugged: n.plugged,
                    bridge: n.bridge,
                    on: None,
                    up: false,
                    device: Device::Replaced,
                    altname: false,
                };
                format!("ip link del {tap}; ip tuntap add dev {tap} mode tap")
            }
            Op::MoveDevice { guest, nic, bridge } => {
                self.nic(guest, nic).on = bridge;
                let device = self.device(guest, nic);
                match bridge {
                    Some(bridge) => format!("ip link set {device} master {bridge}"),
                    None => format!("ip link set {device} nomaster"),
                }
            }
            Op::SetMtu { guest, nic, mtu } => format!("ip link set {} mtu {mtu}", self.device(guest, nic)),
            Op::SetUp { guest, nic, up } => {
                self.nic(guest, nic).up = up;
                format!("ip link set {} {}", self.device(guest, nic), if up { "up" } else { "down" })
            }
            Op::SetAltname { guest, nic, add } => {
                self.nic(guest, nic).altname = add;
                let verb = if add { "add" } else { "del" };
                let device = self.device(guest, nic);
                format!("ip link property {verb} dev {device} altname a-longer-name-for-{guest}-{nic}")
            }
            Op::AddTap { stranger, mac_of } => {
                let address = mac_of
                    .map(|(guest, nic)| format!("ip link set str{stranger} address {}", self.ids(guest, nic).mac));
                self.add_stranger(stranger, Stranger::Tap);
                format!("ip tuntap add dev str{stranger} mode tap\n{}", address.unwrap_or_default())
            }
            Op::AddVeth { stranger } => {
                self.add_stranger(stranger, Stranger::Veth);
                format!("ip link add str{stranger} type veth peer name rts{stranger}")
            }
            Op::AddBridge { stranger } => {
                self.add_stranger(stranger, Stranger::Bridge);
                format!("ip link add str{stranger} type bridge")
            }
            Op::DeleteStranger { stranger } => {
                self.strangers.remove(&stranger);
                format!("ip link del str{stranger}")
            }
            Op::Storm => "
                for n in $(seq 200); do echo tuntap add dev storm$n mode tap; done | ip -batch -
                for n in $(seq 200); do echo link set storm$n up; done | ip -batch -
                for n in $(seq 200); do echo link del storm$n; done | ip -batch -"
                .to_owned(),
            ref other => unreachable!("{other:?} is not done by a script"),
        }
    }

    fn guest(&mut self, guest: u32) -> &mut Guest {
        self.guests.get_mut(&guest).unwrap()
    }

    fn nic(&mut self, guest: u32, nic: u32) -> &mut Nic {
        self.guest(guest).nics.get_mut(&nic).unwrap()
    }

    fn add_stranger(&mut self, stranger: u32, kind: Stranger) {
        self.strangers.insert(stranger, kind);
        self.next_stranger += 1;
    }

    fn virsh(&self, guest: u32, command: &str, arguments: &str) -> String {
        format!("virsh -q -c {} {command} {} {arguments}", self.guests[&guest].uri(), name(guest))
    }

    fn unplug(&mut self, guest: u32, nic: u32) -> String {
        self.guest(guest).nics.remove(&nic);
        let Ids { tap, port, .. } = self.ids(guest, nic);
        if self.guests[&guest].container {
            let xml = self.hypervisor.xml(&format!("interface {guest} {nic}"));
            return self.virsh(guest, "detach-device", &format!("{xml} --live"));
        }
        // The halted guest never lets go; a reset does it for the guest.
        format!(
            "{}\n{}\nwhile {} | grep -q {tap}; do sleep 0.02; done",
            self.virsh(guest, "detach-device-alias", &format!("ua-{port} --live")),
            self.virsh(guest, "reset", ""),
            self.virsh(guest, "domiflist", ""),
        )
    }

    /// The guest does not run any more.
    fn stop(&mut self, guest: u32) {
        let g = self.guest(guest);
        if g.persistent {
            g.state = State::Off;
            g.plug_defined();
        } else {
            self.guests.remove(&guest);
        }
    }

    /// Devices that were put in the place of a guest's do not end with it.
    fn without_replaced(&self, guest: u32) -> String {
        let replaced = self.guests[&guest].nics.iter().filter(|(_, nic)| nic.device == Device::Replaced);
        replaced.map(|(&nic, _)| format!("ip link del {}\n", self.ids(guest, nic).tap)).collect()
    }

    fn without_left_tap(&mut self, guest: u32) -> String {
        let tap = self.ids(guest, 0).tap;
        let left = std::mem::take(&mut self.guest(guest).left_tap);
        if left { format!("ip link del {tap}") } else { String::new() }
    }
}

fn name(guest: u32) -> String {
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
