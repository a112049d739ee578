//! What happens to a hypervisor, and the test's own idea of it, from which the next thing to happen is chosen.
//!
//! The choice depends on nothing but the random numbers and what was chosen before, so a seed tells the whole story.

pub mod device;
pub mod guest;
pub mod switch;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use fastrand::Rng;

use super::fault::Fault;
use crate::support::hypervisor::Hypervisor;

/// One thing that happens. `guest` and `nic` are the numbers of `tests/testbed/domains.sh`.
#[derive(Clone)]
pub enum Operation {
    Guest(guest::Operation),
    Device(device::Operation),
    Switch(switch::Operation),
    Fault(Fault),
}

/// Which operations may be chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// All but faults.
    NoFaults,
    /// Those that need no libvirt.
    NoLibvirt,
    /// Those that need no Open vSwitch.
    NoSwitch,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    Saved,
    Running,
    Paused,
}

/// What the interfaces of a guest are plugged into, and by whom; see `interface` in `tests/testbed/domains.sh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// The bridge br0, by libvirt.
    Bridge,
    /// The Open vSwitch bridge br-int, by libvirt.
    Virtualport,
    /// br-int, by the test, as OpenStack's os-vif does it.
    Unmanaged,
    /// A bridge of its own, by libvirt, and that one by a veth pair to br-int, by the test: OpenStack's hybrid plug.
    Hybrid,
}

struct Guest {
    container: bool,
    wiring: Wiring,
    persistent: bool,
    state: State,
    /// How many interfaces it is defined with.
    defined: u32,
    nics: BTreeMap<u32, Nic>,
    /// Somebody else's tap has the name of its first.
    left_tap: bool,
    /// Each new name is another one.
    display_name: u32,
    /// Nothing can be plugged in, see [`guest::INIT_UNKNOWN`].
    closed: bool,
}

struct Nic {
    plugged: bool,
    /// On which Linux bridge libvirt believes it to be; that is of no matter where it should be on none.
    bridge: String,
    /// On which it is.
    on: Option<String>,
    device: Device,
    altname: bool,
    up: bool,
    /// Whether its Open vSwitch port is there, where it should have one.
    has_port: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Device {
    Own,
    Renamed { altname: bool },
    Replaced,
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
    /// The guests of other hypervisors, whose numbers are taken.
    pub elsewhere: BTreeSet<u32>,
    devices: device::Strangers,
    ports: switch::Strangers,
    ids: RefCell<BTreeMap<(u32, u32), Ids>>,
}

const BRIDGES: [&str; 2] = ["br0", "br1"];
const GUESTS: std::ops::Range<u32> = 1..8;
const CONTAINERS: std::ops::Range<u32> = 11..14;

/// What can happen, and how likely.
#[derive(Default)]
struct Candidates(Vec<(u32, Operation)>);

impl Candidates {
    fn may(&mut self, weight: u32, operation: impl Into<Operation>) {
        self.0.push((weight, operation.into()));
    }

    fn choose(self, rng: &mut Rng) -> Operation {
        let mut point = rng.u32(0..self.0.iter().map(|(weight, _)| weight).sum());
        for (weight, operation) in self.0 {
            match point.checked_sub(weight) {
                Some(rest) => point = rest,
                None => return operation,
            }
        }
        unreachable!("the point lies within the sum of the weights")
    }
}

impl From<guest::Operation> for Operation {
    fn from(operation: guest::Operation) -> Self {
        Self::Guest(operation)
    }
}

impl From<device::Operation> for Operation {
    fn from(operation: device::Operation) -> Self {
        Self::Device(operation)
    }
}

impl From<switch::Operation> for Operation {
    fn from(operation: switch::Operation) -> Self {
        Self::Switch(operation)
    }
}

impl From<Fault> for Operation {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(operation) => operation.fmt(f),
            Self::Device(operation) => operation.fmt(f),
            Self::Switch(operation) => operation.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl Operation {
    /// Its name.
    pub fn kind(&self) -> String {
        let text = format!("{self:?}");
        let name = text.split(' ').next().unwrap_or_default();
        match self {
            Self::Guest(operation) => format!("{name}{}", operation.of_what()),
            Self::Fault(fault) => format!("{name}{}", fault.by_what()),
            Self::Device(_) | Self::Switch(_) => name.to_owned(),
        }
    }
}

impl Wiring {
    /// Its name in `tests/testbed/domains.sh`.
    fn word(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Virtualport => "virtualport",
            Self::Unmanaged => "unmanaged",
            Self::Hybrid => "hybrid",
        }
    }
}

impl Guest {
    fn uri(&self) -> &'static str {
        if self.container { "lxc:///system" } else { "qemu:///system" }
    }

    fn is_active(&self) -> bool {
        matches!(self.state, State::Running | State::Paused)
    }
}

impl<'a> World<'a> {
    /// An empty one, with the bridges that guests are moved between.
    pub fn new(hypervisor: &'a Hypervisor) -> Self {
        hypervisor.run("ip link add br1 type bridge; ip link set br1 up");
        Self {
            hypervisor,
            guests: BTreeMap::new(),
            elsewhere: BTreeSet::new(),
            devices: device::Strangers::default(),
            ports: switch::Strangers::default(),
            ids: RefCell::default(),
        }
    }

    /// The numbers of its guests.
    pub fn guests(&self) -> impl Iterator<Item = u32> {
        self.guests.keys().copied()
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
        let mut candidates = Candidates::default();
        self.guest_candidates(rng, scope, &mut candidates);
        self.device_candidates(rng, &mut candidates);
        if scope != Scope::NoSwitch {
            self.switch_candidates(rng, &mut candidates);
        }
        if scope == Scope::All {
            Fault::candidates(rng).into_iter().for_each(|(weight, fault)| candidates.may(weight, fault));
        }
        candidates.choose(rng)
    }

    /// Takes in that `operation` happens; returns the commands that make it happen, for a shell inside the hypervisor.
    /// They end when libvirt, the kernel and Open vSwitch are as they shall be.
    pub fn apply(&mut self, operation: &Operation) -> String {
        match operation {
            Operation::Guest(operation) => self.apply_to_guest(operation),
            Operation::Device(operation) => self.apply_to_device(operation),
            Operation::Switch(operation) => self.apply_to_switch(operation),
            Operation::Fault(fault) => unreachable!("{fault:?} is not done by a script"),
        }
    }

    fn guest(&mut self, guest: u32) -> &mut Guest {
        self.guests.get_mut(&guest).unwrap()
    }

    fn nic(&mut self, guest: u32, nic: u32) -> &mut Nic {
        self.guest(guest).nics.get_mut(&nic).unwrap()
    }

    /// Every interface of the guests that run, with the numbers of both.
    fn active_nics(&self) -> impl Iterator<Item = (u32, u32, &Guest, &Nic)> {
        let active = self.guests.iter().filter(|(_, g)| g.is_active());
        active.flat_map(|(&guest, g)| g.nics.iter().map(move |(&nic, n)| (guest, nic, g, n)))
    }
}
