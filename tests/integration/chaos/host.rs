//! A hypervisor with its vifd: waits until vifd says what libvirt, the kernel and Open vSwitch say.

use std::{
    path::Path,
    sync::mpsc::{self, Receiver, Sender, TryRecvError},
    time::{Duration, Instant},
};

use super::{
    Run,
    operation::World,
    oracle::{self, Facts, Truth},
    shell::Shell,
};
use crate::support::{eventually, http, hypervisor::Hypervisor, openvswitch::Switch, vifd::Vifd};

/// How long vifd may take until it is right; that is normally a matter of milliseconds.
const LIMIT: Duration = Duration::from_secs(60);
/// How many more threads and files vifd may have in the end than in the beginning: libvirt's calls use a few threads.
const GROWTH: usize = 10;
/// The resync stays where it is, at minutes, so that it cannot help.
pub const CONFIG: &str = "[libvirt]\nkeepalive_interval = '1s'\n[ovsdb]\nkeepalive_interval = '1s'\n";

/// A hypervisor and all that is needed to compare its vifd with the truth.
pub struct Host<'a> {
    pub hypervisor: &'a Hypervisor,
    pub switch: Switch<'a>,
    pub shell: Shell,
    pub world: World<'a>,
    pub vifd: Option<Vifd>,
    /// Threads and files of the present vifd when it was right for the first time.
    pub footprint: Option<(usize, usize)>,
    /// What was true after the last operation.
    pub truth: Truth,
}

impl<'a> Host<'a> {
    pub fn start(hypervisor: &'a Hypervisor, run: &mut Run) -> Self {
        let mut host = Self {
            hypervisor,
            switch: Switch::start(hypervisor),
            shell: Shell::start(hypervisor),
            world: World::new(hypervisor),
            vifd: Some(hypervisor.vifd(CONFIG)),
            footprint: None,
            truth: Truth::default(),
        };
        host.agree(None, run);
        host
    }

    pub fn vifd(&self) -> &Vifd {
        self.vifd.as_ref().expect("it runs but for moments")
    }

    /// Runs commands inside.
    pub fn script(&mut self, script: &str) {
        self.shell.run(script).unwrap_or_else(|said| panic!("{said}\nby:\n{script}"));
    }

    /// Of what is known no instance is missing, although nobody can be asked.
    pub fn assert_all_are_served(&self) {
        let answer = self.vifd().get("/host/v1/instances");
        let mut served: Vec<_> = answer["instances"].as_array().unwrap().iter().map(|i| i["uuid"].as_str()).collect();
        let mut known: Vec<_> = self.truth.domains.iter().map(|domain| Some(&*domain.uuid)).collect();
        served.sort_unstable();
        known.sort_unstable();
        assert_eq!(served, known, "instances came or went while a daemon hung");
    }

    pub fn assert_nothing_leaked(&self) {
        let ((threads, files), Some((threads_before, files_before))) = (footprint(self.vifd()), self.footprint) else {
            return;
        };
        println!(
            "     vifd has {threads} threads and {files} files; it began with {threads_before} and {files_before}"
        );
        assert!(threads <= threads_before + GROWTH, "{threads} threads, in the beginning {threads_before}");
        assert!(files <= files_before + GROWTH, "{files} files, in the beginning {files_before}");
    }

    /// Waits until vifd is right, and asks it everything. Who cannot be asked is believed to say what it said last,
    /// which is stale.
    pub fn agree(&mut self, after: Option<String>, run: &mut Run) {
        let time = self.wait(run);
        if let Some(kind) = after {
            run.report.right_after(kind, time);
        }
        let mut wrong = self.compare_all(run);
        while !wrong.is_empty() {
            // The switch goes on by itself for a while. Only where nothing has changed, nothing excuses a wrong answer.
            let before = self.truth.facts();
            self.wait(run);
            let again = self.compare_all(run);
            let same = before == self.truth.facts();
            assert!(again.is_empty() || !same, "wrong answers:\n{}", again.join("\n"));
            wrong = again;
        }
        if self.footprint.is_none() {
            self.footprint = Some(footprint(self.vifd()));
        }
    }

    fn compare_all(&mut self, run: &mut Run) -> Vec<String> {
        let instances = self.vifd().get("/host/v1/instances");
        // While libvirt is away, nothing is known for certain about what was not there.
        let mut absent = if self.truth.libvirt_is_stale { vec![] } else { self.world.absent() };
        // One may be on its way here.
        absent.retain(|uuid| self.truth.domains.iter().all(|domain| domain.uuid != *uuid));
        let (compared, wrong) = self.truth.compare_all(self.vifd(), &instances, &absent);
        run.report.comparisons += compared - wrong.len();
        wrong
    }

    /// Returns how long vifd's answers were not yet right. They are looked at all the time, since to ask libvirt takes
    /// much longer than vifd should.
    fn wait(&mut self, run: &mut Run) -> Duration {
        let started = Instant::now();
        let socket = self.vifd().socket.clone();
        let (samples_tx, samples) = mpsc::channel();
        let (stop, stopped) = mpsc::channel();
        let (shell, truth) = (&mut self.shell, &mut self.truth);
        let (time, facts) = std::thread::scope(|scope| {
            scope.spawn(move || look(&socket, started, &samples_tx, &stopped));
            let result = judge(shell, truth, started, &samples);
            drop(stop);
            result
        });
        run.report.comparisons += facts;
        time
    }
}

/// What vifd answered at one moment.
struct Sample {
    at: Instant,
    answers: [String; 3],
}

/// Looks at vifd's answers until told to stop, less and less often, and hands on what has changed.
fn look(socket: &Path, started: Instant, samples: &Sender<Sample>, stopped: &Receiver<()>) {
    let mut last = [(); 3].map(|()| String::new());
    while stopped.try_recv() == Err(TryRecvError::Empty) {
        let at = Instant::now();
        let answers = oracle::QUESTIONS
            .map(|path| http::over_unix(socket, "GET", path, &[]).map_or_else(String::new, |response| response.body));
        if answers != last {
            last.clone_from(&answers);
            if samples.send(Sample { at, answers }).is_err() {
                return;
            }
        }
        std::thread::sleep((started.elapsed() / 20).clamp(Duration::from_millis(1), Duration::from_millis(50)));
    }
}

/// Compares until they agree. Returns how long after `started` they did, and in how many facts.
fn judge(shell: &mut Shell, truth: &mut Truth, started: Instant, samples: &Receiver<Sample>) -> (Duration, usize) {
    let mut all: Vec<(Instant, Facts)> = Vec::new();
    loop {
        truth.ask(|script| shell.run(script));
        let facts = truth.facts();
        all.extend(samples.try_iter().map(|sample| {
            let answers = sample.answers.map(|text| serde_json::from_str(&text).unwrap_or_default());
            (sample.at, oracle::answers(&answers))
        }));
        if all.last().is_some_and(|(_, said)| *said == facts) {
            let right = all.iter().rev().take_while(|(_, said)| *said == facts).last();
            let time = right.map_or(Duration::ZERO, |(at, _)| at.duration_since(started));
            return (time, facts.len());
        }
        if started.elapsed() > LIMIT {
            let said = all.pop().map(|(_, said)| said).unwrap_or_default();
            let lines = |these: &Facts, others: &Facts, mark: &str| -> String {
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
