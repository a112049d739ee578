//! Random operations on a real hypervisor, with faults; after each, every answer is compared with the truth.
//!
//! `make chaos SECONDS=600 SEED=7` runs it alone and prints what it does. A seed gives the same operations again.

mod operation;
mod oracle;
mod report;

use std::{
    io::{BufRead, BufReader, Write},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver, Sender, TryRecvError},
    time::{Duration, Instant},
};

use fastrand::Rng;
use serde_json::Value;

use self::{
    operation::{Operation, Scope, World},
    oracle::Truth,
    report::Report,
};
use crate::support::{
    eventually, http,
    hypervisor::Hypervisor,
    vifd::{VIFD, Vifd},
};

/// How long vifd may take until it is right; that is normally a matter of milliseconds.
const LIMIT: Duration = Duration::from_secs(30);
/// How long any answer may take, on a machine that does much else.
const PROMPT: Duration = Duration::from_secs(2);
/// A libvirt that hangs for so long must have been noticed: by keepalive after three intervals, or in a call.
const NOTICED: u64 = 6;
/// How many more threads and files vifd may have in the end than in the beginning: libvirt's calls use a few threads.
const GROWTH: usize = 10;
/// The resync stays where it is, at minutes, so that it cannot help.
const CONFIG: &str = "[libvirt]\nkeepalive_interval = '1s'\n";

#[test]
#[ignore = "needs root: run by make test"]
fn whatever_happens_every_answer_ends_in_the_truth() {
    let number =
        |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().unwrap());
    let seed = number("VIFD_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let end = Instant::now() + Duration::from_secs(number("VIFD_CHAOS_SECONDS").unwrap_or(45));
    println!("VIFD_CHAOS_SEED={seed}");
    let hypervisor = Hypervisor::start();
    let mut chaos = Chaos::new(&hypervisor, seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        while Instant::now() < end {
            chaos.step();
        }
        chaos.assert_nothing_leaked();
    }));
    if let Err(cause) = outcome {
        let history = chaos.history.join("\n");
        eprintln!("\nthe operations:\n{history}\n\nseed {seed}, step {}; the cause is above", chaos.report.operations);
        resume_unwind(cause);
    }
    println!("{}\nseed {seed}: every answer was right", chaos.report);
}

struct Chaos<'a> {
    hypervisor: &'a Hypervisor,
    shell: Shell,
    world: World<'a>,
    rng: Rng,
    vifd: Option<Vifd>,
    /// Threads and files of the present vifd when it was new.
    footprint: (usize, usize),
    /// What was true after the last operation.
    truth: Truth,
    history: Vec<String>,
    report: Report,
}

impl<'a> Chaos<'a> {
    fn new(hypervisor: &'a Hypervisor, seed: u64) -> Self {
        let mut chaos = Self {
            hypervisor,
            shell: Shell::start(hypervisor),
            world: World::new(hypervisor),
            rng: Rng::with_seed(seed),
            vifd: Some(hypervisor.vifd(CONFIG)),
            footprint: (0, 0),
            truth: Truth::default(),
            history: Vec::new(),
            report: Report::default(),
        };
        chaos.agree(None);
        chaos.footprint = footprint(chaos.vifd());
        chaos
    }

    fn vifd(&self) -> &Vifd {
        self.vifd.as_ref().expect("it runs but for moments")
    }

    /// One operation, after which vifd has to be right.
    fn step(&mut self) {
        let operation = self.world.choose(&mut self.rng, Scope::All);
        self.note(&operation, "");
        match operation {
            Operation::RestartLibvirtd { signal } => self.restart_libvirtd(signal),
            Operation::HangLibvirtd { seconds } => self.hang_libvirtd(seconds),
            Operation::RestartVifd { signal } => self.restart_vifd(signal),
            ref other => self.apply(other),
        }
        self.agree(Some(operation.kind()));
        if matches!(operation, Operation::RestartVifd { .. }) {
            self.footprint = footprint(self.vifd());
        }
    }

    fn note(&mut self, operation: &Operation, when: &str) {
        self.report.operations += 1;
        self.report.faults += usize::from(operation.is_fault());
        let line = format!("{:4} {when}{operation:?}", self.report.operations);
        println!("{line}");
        self.history.push(line);
    }

    fn apply(&mut self, operation: &Operation) {
        let script = self.world.apply(operation);
        match self.shell.run(&script) {
            Err(said) if said.contains(operation::INIT_UNKNOWN) => {
                println!("     libvirt does not know this container's first process, and refuses");
                self.world.refused(operation);
            }
            result => drop(result.unwrap_or_else(|said| panic!("{operation:?} failed: {said}\nby:\n{script}"))),
        }
    }

    /// While a daemon is down, something happens.
    fn meanwhile(&mut self, scope: Scope) {
        for _ in 0..self.rng.u32(0..=2) {
            let operation = self.world.choose(&mut self.rng, scope);
            self.note(&operation, "  meanwhile: ");
            self.apply(&operation);
        }
    }

    fn restart_libvirtd(&mut self, signal: &str) {
        self.hypervisor.control("stop-libvirtd", &[signal]);
        self.truth.stale = true;
        self.agree_without_libvirt("libvirtd is gone");
        self.meanwhile(Scope::Kernel);
        self.agree_without_libvirt("libvirtd is gone and the kernel's links changed");
        self.hypervisor.control("start-libvirtd", &[]);
    }

    fn hang_libvirtd(&mut self, seconds: u64) {
        let pid = self.hypervisor.control("libvirtd-pid", &[]).trim().to_owned();
        let kill = |signal: &str| assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        kill("-STOP");
        let until = Instant::now() + Duration::from_secs(seconds);
        self.meanwhile(Scope::Kernel);
        while Instant::now() < until {
            self.assert_all_are_served();
            std::thread::sleep(Duration::from_millis(100));
        }
        if seconds >= NOTICED {
            self.truth.stale = true;
            self.agree_without_libvirt("libvirtd hangs");
        }
        kill("-CONT");
    }

    /// Of what is known no instance is missing, and the answer comes at once.
    fn assert_all_are_served(&self) {
        let asked = Instant::now();
        let answer = self.vifd().get("/host/v1/instances");
        assert!(asked.elapsed() < PROMPT, "an answer took {:?}", asked.elapsed());
        let mut served: Vec<_> = answer["instances"].as_array().unwrap().iter().map(|i| i["uuid"].as_str()).collect();
        let mut known: Vec<_> = self.truth.domains.iter().map(|domain| Some(&*domain.uuid)).collect();
        served.sort_unstable();
        known.sort_unstable();
        assert_eq!(served, known, "instances came or went while libvirt hung");
    }

    fn restart_vifd(&mut self, signal: &str) {
        self.assert_nothing_leaked();
        self.vifd.take().expect("it runs").end(&format!("-{signal}"));
        self.meanwhile(Scope::NoFaults);
        self.vifd = Some(Vifd::start(self.hypervisor.command(VIFD), self.hypervisor.dir(), CONFIG));
    }

    fn assert_nothing_leaked(&self) {
        let ((threads, files), (threads_before, files_before)) = (footprint(self.vifd()), self.footprint);
        println!(
            "     vifd has {threads} threads and {files} files; it began with {threads_before} and {files_before}"
        );
        assert!(threads <= threads_before + GROWTH, "{threads} threads, in the beginning {threads_before}");
        assert!(files <= files_before + GROWTH, "{files} files, in the beginning {files_before}");
    }

    /// Waits until vifd says what libvirt and the kernel say; then asks it everything.
    fn agree(&mut self, after: Option<String>) {
        let time = self.wait(true);
        if let Some(kind) = after {
            self.report.right_after(kind, time);
        }
        self.compare_all();
    }

    /// The same while libvirt cannot be asked: what it said last is served, as stale, and the kernel's links are not.
    fn agree_without_libvirt(&mut self, when: &str) {
        let time = self.wait(false);
        self.report.right_after(format!("({when})").replace(" and the kernel's links changed", "; links"), time);
        self.assert_all_are_served();
        if self.truth.stale {
            self.compare_all();
        }
    }

    fn compare_all(&mut self) {
        let instances = self.vifd().get("/host/v1/instances");
        // While libvirt is away, nothing is known for certain about what was not there.
        let absent = if self.truth.stale { vec![] } else { self.world.absent() };
        let (compared, wrong) = self.truth.compare_all(self.vifd(), &instances, &absent);
        assert!(wrong.is_empty(), "wrong answers:\n{}", wrong.join("\n"));
        self.report.comparisons += compared;
    }

    /// Returns how long vifd's answers were not yet right. They are looked at all the time, since to ask libvirt takes
    /// much longer than vifd should.
    fn wait(&mut self, ask_libvirt: bool) -> Duration {
        let started = Instant::now();
        let socket = self.vifd.as_ref().expect("it runs").socket.clone();
        let (samples_tx, samples) = mpsc::channel();
        let (stop, stopped) = mpsc::channel();
        let (shell, truth) = (&mut self.shell, &mut self.truth);
        let (time, facts) = std::thread::scope(|scope| {
            scope.spawn(move || look(&socket, started, &samples_tx, &stopped));
            let result = judge(shell, truth, ask_libvirt, started, &samples);
            drop(stop);
            result
        });
        self.report.comparisons += facts;
        time
    }
}

/// What vifd answered at one moment.
struct Sample {
    at: Instant,
    instances: String,
    devices: String,
}

/// Looks at vifd's answers until told to stop, less and less often, and hands on what has changed.
fn look(socket: &Path, started: Instant, samples: &Sender<Sample>, stopped: &Receiver<()>) {
    let mut last = (String::new(), String::new());
    while stopped.try_recv() == Err(TryRecvError::Empty) {
        let get = |path| http::over_unix(socket, "GET", path, &[]).map(|response| response.body);
        let at = Instant::now();
        if let (Some(instances), Some(devices)) = (get("/host/v1/instances"), get("/host/v1/devices"))
            && last != (instances.clone(), devices.clone())
        {
            last = (instances.clone(), devices.clone());
            if samples.send(Sample { at, instances, devices }).is_err() {
                return;
            }
        }
        std::thread::sleep((started.elapsed() / 20).clamp(Duration::from_millis(1), Duration::from_millis(50)));
    }
}

/// Compares until they agree. Returns how long after `started` they did, and in how many facts.
fn judge(
    shell: &mut Shell,
    truth: &mut Truth,
    ask_libvirt: bool,
    started: Instant,
    samples: &Receiver<Sample>,
) -> (Duration, usize) {
    let mut all: Vec<(Instant, oracle::Facts)> = Vec::new();
    loop {
        if ask_libvirt && let Some(domains) = shell.run(oracle::DOMAINS).ok().and_then(|text| oracle::domains(&text)) {
            (truth.domains, truth.stale) = (domains, false);
        }
        let links: Value = serde_json::from_str(&shell.run(oracle::LINKS).unwrap()).unwrap();
        truth.links = links.as_array().unwrap().clone();
        let facts = truth.facts();
        all.extend(samples.try_iter().map(|sample| {
            let json = |text: &str| serde_json::from_str(text).unwrap_or_default();
            (sample.at, oracle::answers(&json(&sample.instances), &json(&sample.devices)))
        }));
        if all.last().is_some_and(|(_, said)| *said == facts) {
            let right = all.iter().rev().take_while(|(_, said)| *said == facts).last();
            let time = right.map_or(Duration::ZERO, |(at, _)| at.duration_since(started));
            return (time, facts.len());
        }
        if started.elapsed() > LIMIT {
            let said = all.pop().map(|(_, said)| said).unwrap_or_default();
            let lines = |these: &oracle::Facts, others: &oracle::Facts, mark: &str| -> String {
                these.difference(others).map(|line| format!("{mark} {line}\n")).collect()
            };
            let (vifd, truth) = (lines(&said, &facts, "vifd: "), lines(&facts, &said, "truth:"));
            panic!("after {LIMIT:?} vifd is not right:\n{vifd}{truth}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many threads and open files vifd has.
fn footprint(vifd: &Vifd) -> (usize, usize) {
    let pid = vifd.daemon_pid();
    let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    // A connection of the last question may still be closing.
    eventually("a moment of rest", || Some((count("task"), count("fd"))))
}

/// A shell inside the hypervisor: entering it anew for each question would take longer than the question.
struct Shell {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Shell {
    fn start(hypervisor: &Hypervisor) -> Self {
        let mut process = hypervisor.command("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, stdin, stdout }
    }

    /// Returns what the commands print; as an error if one fails or they take too long.
    fn run(&mut self, script: &str) -> Result<String, String> {
        let script = format!("timeout 60 sh -e 2>&1 <<'CHAOS'\n{script}\nCHAOS\nprintf '\\0%s\\n' $?\n");
        self.stdin.write_all(script.as_bytes()).unwrap();
        let (mut text, mut status) = (Vec::new(), String::new());
        self.stdout.read_until(0, &mut text).unwrap();
        self.stdout.read_line(&mut status).unwrap();
        text.pop();
        let text = String::from_utf8_lossy(&text).into_owned();
        if status.trim() == "0" { Ok(text) } else { Err(text) }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
