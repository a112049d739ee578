//! A real Open vSwitch in a private hypervisor; see `tests/testbed/openvswitch`.

use std::{path::PathBuf, process::Command};

use super::hypervisor::{Hypervisor, output};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/openvswitch");

/// Open vSwitch in a hypervisor. It ends with the hypervisor.
pub struct Switch<'a>(&'a Hypervisor);

impl<'a> Switch<'a> {
    /// Starts it, with the bridge `br-int`.
    pub fn start(hypervisor: &'a Hypervisor) -> Self {
        let switch = Self(hypervisor);
        switch.control("start", &[]);
        switch
    }

    /// Runs a command of the script.
    pub fn control(&self, command: &str, arguments: &[&str]) {
        output(Command::new(SCRIPT).arg(command).arg(self.0.dir()).args(arguments));
    }

    /// Runs `ovs-vsctl`, which waits until the switch has done what it says.
    pub fn vsctl(&self, arguments: &str) -> String {
        self.0.run(&format!("ovs-vsctl {arguments}"))
    }

    /// The socket of its database.
    pub fn socket(&self) -> PathBuf {
        self.0.dir().join("run/openvswitch/db.sock")
    }
}
