//! What happens to the daemons: each is ended or hangs, and vifd stays right, or says that it is not.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use fastrand::Rng;

use super::{
    Run,
    host::{CONFIG, Host},
    operation::Scope,
};
use crate::support::vifd::{VIFD, Vifd};

/// A fault of a daemon.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    RestartLibvirtd { signal: &'static str },
    HangLibvirtd { seconds: u64 },
    RestartVifd { signal: &'static str },
    RestartOvsdb { signal: &'static str },
    HangOvsdb { seconds: u64 },
}

/// A daemon that hangs for so long must have been noticed: by keepalive after three intervals, or in a call.
const NOTICED: u64 = 6;

impl Fault {
    /// What can happen, and how likely.
    pub fn candidates(rng: &mut Rng) -> Vec<(u32, Self)> {
        let restarts = ["TERM", "KILL"].into_iter().flat_map(|signal| {
            [Self::RestartLibvirtd { signal }, Self::RestartVifd { signal }, Self::RestartOvsdb { signal }]
        });
        let seconds = rng.u64(1..=8);
        let hangs = [Self::HangLibvirtd { seconds }, Self::HangOvsdb { seconds }];
        restarts.chain(hangs).map(|fault| (2, fault)).collect()
    }

    /// The signal that it is done by.
    pub fn by_what(self) -> String {
        match self {
            Self::RestartLibvirtd { signal } | Self::RestartVifd { signal } | Self::RestartOvsdb { signal } => {
                format!("({signal})")
            }
            Self::HangLibvirtd { .. } | Self::HangOvsdb { .. } => String::new(),
        }
    }
}

impl Host<'_> {
    /// It happens, and is over in the end.
    pub fn suffer(&mut self, fault: Fault, run: &mut Run) {
        match fault {
            Fault::RestartLibvirtd { signal } => self.restart_libvirtd(signal, run),
            Fault::HangLibvirtd { seconds } => self.hang_libvirtd(seconds, run),
            Fault::RestartVifd { signal } => self.restart_vifd(signal, Scope::NoFaults, run),
            Fault::RestartOvsdb { signal } => self.restart_ovsdb(signal, run),
            Fault::HangOvsdb { seconds } => self.hang_ovsdb(seconds, run),
        }
    }

    fn restart_libvirtd(&mut self, signal: &str, run: &mut Run) {
        self.hypervisor.control("stop-libvirtd", &[signal]);
        self.truth.libvirt_is_stale = true;
        self.agree(Some("(libvirtd is gone)".to_owned()), run);
        self.meanwhile(Scope::NoLibvirt, run);
        self.agree(Some("(libvirtd is gone; others)".to_owned()), run);
        self.hypervisor.control("start-libvirtd", &[]);
        self.truth.libvirt_is_stale = false;
    }

    fn hang_libvirtd(&mut self, seconds: u64, run: &mut Run) {
        let pid = self.hypervisor.control("libvirtd-pid", &[]).trim().to_owned();
        let kill = |signal: &str| assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        kill("-STOP");
        let until = Instant::now() + Duration::from_secs(seconds);
        self.meanwhile(Scope::NoLibvirt, run);
        self.assert_all_are_served_until(until);
        if seconds >= NOTICED {
            self.truth.libvirt_is_stale = true;
            self.agree(Some("(libvirtd hangs)".to_owned()), run);
        }
        kill("-CONT");
        self.truth.libvirt_is_stale = false;
    }

    fn restart_ovsdb(&mut self, signal: &str, run: &mut Run) {
        self.switch.control("stop-db", &[signal]);
        self.truth.switch_is_stale = true;
        self.agree(Some("(ovsdb-server is gone)".to_owned()), run);
        self.meanwhile(Scope::NoSwitch, run);
        self.agree(Some("(ovsdb-server is gone; others)".to_owned()), run);
        self.switch.control("start-db", &[]);
        self.truth.switch_is_stale = false;
    }

    fn hang_ovsdb(&mut self, seconds: u64, run: &mut Run) {
        self.switch.control("signal-db", &["STOP"]);
        let until = Instant::now() + Duration::from_secs(seconds);
        self.assert_all_are_served_until(until);
        if seconds >= NOTICED {
            self.truth.switch_is_stale = true;
            self.meanwhile(Scope::NoSwitch, run);
            self.agree(Some("(ovsdb-server hangs)".to_owned()), run);
        }
        self.switch.control("signal-db", &["CONT"]);
        self.truth.switch_is_stale = false;
    }

    /// Of what is known no instance is missing, and the answers come.
    fn assert_all_are_served_until(&self, until: Instant) {
        while Instant::now() < until {
            self.assert_all_are_served();
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends vifd and starts it again; operations of that scope may happen meanwhile.
    pub fn restart_vifd(&mut self, signal: &str, meanwhile: Scope, run: &mut Run) {
        self.assert_nothing_leaked();
        self.vifd.take().expect("it runs").end(&format!("-{signal}"));
        self.meanwhile(meanwhile, run);
        self.vifd = Some(Vifd::start(self.hypervisor.command(VIFD), self.hypervisor.dir(), CONFIG));
        self.footprint = None;
    }
}
