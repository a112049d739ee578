//! Random operations on real hypervisors, with faults; after each, every answer is compared with the truth.
//!
//! `make chaos SECONDS=600 SEED=7` runs it alone and prints what it does. A seed gives the same operations again.

mod fault;
mod host;
mod migration;
mod operation;
mod oracle;
mod report;
mod shell;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

use fastrand::Rng;

use self::{
    host::Host,
    operation::{Operation, Scope},
    report::Report,
};
use crate::support::hypervisor::Hypervisor;

#[test]
#[ignore = "needs root: run by make test"]
fn whatever_happens_every_answer_ends_in_the_truth() {
    let hypervisor = Hypervisor::start();
    run(&[&hypervisor]);
}

#[test]
#[ignore = "needs root: run by make test"]
fn whatever_happens_while_guests_migrate_every_answer_of_both_hosts_ends_in_the_truth() {
    let (here, there) = (Hypervisor::start(), Hypervisor::start());
    here.make_guests_heavy();
    there.make_guests_heavy();
    run(&[&here, &there]);
}

fn run(hypervisors: &[&Hypervisor]) {
    let number =
        |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().unwrap());
    let seed = number("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let seconds = Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(45));
    println!("CHAOS_SEED={seed}");
    let mut run =
        Run { rng: Rng::with_seed(seed), report: Report::default(), history: Vec::new(), host: String::new() };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut hosts: Vec<_> = hypervisors.iter().map(|hypervisor| Host::start(hypervisor, &mut run)).collect();
        let end = Instant::now() + seconds;
        while Instant::now() < end {
            step(&mut hosts, &mut run);
        }
        hosts.iter().for_each(Host::assert_nothing_leaked);
    }));
    if let Err(cause) = outcome {
        let history = run.history.join("\n");
        eprintln!("\nthe operations:\n{history}\n\nseed {seed}, step {}; the cause is above", run.report.operations);
        resume_unwind(cause);
    }
    println!("{}\nseed {seed}: every answer was right", run.report);
}

/// One operation, after which vifd has to be right.
fn step(hosts: &mut [Host], run: &mut Run) {
    let n = run.rng.usize(..hosts.len());
    run.host = if hosts.len() > 1 { format!("host {n}: ") } else { String::new() };
    if let [first, second] = hosts {
        let (from, to) = if n == 0 { (first, second) } else { (second, first) };
        from.world.elsewhere = to.world.guests().collect();
        to.world.elsewhere = from.world.guests().collect();
        if let Some(migration) = from.choose_migration(run) {
            return from.migrate(to, migration, run);
        }
    }
    hosts[n].step(run);
}

/// What is common to all hosts of a run.
struct Run {
    rng: Rng,
    report: Report,
    history: Vec<String>,
    /// What the host that something happens to is called.
    host: String,
}

impl Run {
    fn note(&mut self, operation: &dyn std::fmt::Debug, is_fault: bool, when: &str) {
        self.report.operations += 1;
        self.report.faults += usize::from(is_fault);
        let line = format!("{:4} {}{when}{operation:?}", self.report.operations, self.host);
        println!("{line}");
        self.history.push(line);
    }
}

impl Host<'_> {
    fn step(&mut self, run: &mut Run) {
        let operation = self.world.choose(&mut run.rng, Scope::All);
        let fault = if let Operation::Fault(fault) = &operation { Some(*fault) } else { None };
        run.note(&operation, fault.is_some(), "");
        match fault {
            Some(fault) => self.suffer(fault, run),
            None => self.apply(&operation),
        }
        self.agree(Some(operation.kind()), run);
    }

    fn apply(&mut self, operation: &Operation) {
        let script = self.world.apply(operation);
        match self.shell.run(&script) {
            Err(said) if said.contains(operation::guest::INIT_UNKNOWN) => {
                println!("     libvirt does not know this container's first process, and refuses");
                self.world.refused(operation);
            }
            result => drop(result.unwrap_or_else(|said| panic!("{operation:?} failed: {said}\nby:\n{script}"))),
        }
    }

    /// While something is down, something else happens.
    fn meanwhile(&mut self, scope: Scope, run: &mut Run) {
        for _ in 0..run.rng.u32(0..=2) {
            let operation = self.world.choose(&mut run.rng, scope);
            run.note(&operation, false, "  meanwhile: ");
            self.apply(&operation);
        }
    }
}
