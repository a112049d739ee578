//! Live migrations from one hypervisor to the other. Half-way both are compared with the truth; then it is given up,
//! or ends well.

use std::process::{Command, Stdio};

use super::{
    Run,
    host::Host,
    operation::{Scope, guest},
};
use crate::support::eventually;

/// A migration.
#[derive(Debug)]
pub struct Migration {
    guest: u32,
    half_way: HalfWay,
}

/// What is done half-way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HalfWay {
    Nothing,
    Abort,
    RestartVifds,
}

/// MiB/s, so that there is time to look: see `make_guests_heavy`.
const BANDWIDTH: u32 = 1;

impl Host<'_> {
    /// Chooses one, or that there is none this time.
    pub fn choose_migration(&self, run: &mut Run) -> Option<Migration> {
        let half_way = *run.rng.choice(&[HalfWay::Nothing, HalfWay::Abort, HalfWay::RestartVifds]).unwrap();
        let guest = self.world.movable(&mut run.rng)?;
        (run.rng.u8(0..4) == 0).then_some(Migration { guest, half_way })
    }

    /// Moves a guest, as OpenStack does it: first the other side's devices are made.
    pub fn migrate(&mut self, to: &mut Self, Migration { guest, half_way }: Migration, run: &mut Run) {
        run.note(&Migration { guest, half_way }, false, "");
        let name = guest::name(guest);
        to.script(&self.world.plug_all(guest));
        let definition = if self.world.is_persistent(guest) { "--persistent --undefinesource" } else { "" };
        let migrateuri = self.hypervisor.dir().join(format!("migration-{}", run.report.operations));
        let script = format!(
            "virsh -q -c '{}' migrate --live --bandwidth {BANDWIDTH} {definition} {name} '{}' --migrateuri unix://{}",
            self.hypervisor.uri(),
            to.hypervisor.uri(),
            migrateuri.display()
        );
        let mut migration = Command::new("sh").args(["-c", &script]).stderr(Stdio::piped()).spawn().unwrap();
        eventually("it is on its way", || {
            let there = to.shell.run(&format!("virsh -q domstate {name} --reason 2>/dev/null || true")).unwrap();
            let ended = migration.try_wait().unwrap().is_some();
            (ended || there.contains("migrating")).then_some(())
        });
        let look_at_both = |host: &mut Self, other: &mut Self, after: &str, run: &mut Run| {
            host.agree(Some(format!("{after} (source)")), run);
            other.agree(Some(format!("{after} (target)")), run);
        };
        look_at_both(self, to, "Migrate, half-way", run);
        match half_way {
            HalfWay::Nothing => {}
            HalfWay::Abort => drop(self.shell.run(&format!("virsh -q domjobabort {name}"))),
            HalfWay::RestartVifds => {
                // That a guest is leaving libvirt tells only those who listen, so the source's learns it from its cache,
                // which is written in the end.
                self.restart_vifd("TERM", Scope::NoLibvirt, run);
                to.restart_vifd("KILL", Scope::NoFaults, run);
                look_at_both(self, to, "RestartVifd, half-way", run);
            }
        }
        let output = migration.wait_with_output().unwrap();
        let (arrives, said) = (output.status.success(), String::from_utf8_lossy(&output.stderr));
        assert!(arrives || half_way == HalfWay::Abort, "{script} failed: {said}");
        println!("     the guest {}", if arrives { "arrives" } else { "stays" });
        let away = self.world.unplug_all(guest);
        if arrives {
            self.script(&away);
            to.world.welcome(&mut self.world, guest);
        } else {
            to.script(&away);
        }
        look_at_both(self, to, if arrives { "Migrate" } else { "Migrate, given up" }, run);
    }
}
