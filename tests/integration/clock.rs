//! The host's wall clock set forward and back by hours, while the daemon runs and between two runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::support::{
    eventually,
    hypervisor::{Hypervisor, output},
    vifd::{VIFCTL, VIFD, Vifd},
};

/// A wall clock for some processes, which can be set while they run; their other clocks are the machine's.
struct WallClock {
    file: PathBuf,
}

impl WallClock {
    fn new(dir: &Path) -> Self {
        let clock = Self { file: dir.join("clock") };
        clock.set(0);
        clock
    }

    /// Sets it to so many hours after the true time.
    fn set(&self, hours: i64) {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{hours:+}h\n")).unwrap();
        fs::rename(&new, &self.file).unwrap();
    }

    /// Makes `unshare` run a program by this clock.
    fn with(&self, mut unshare: Command, program: &str) -> Command {
        // What the library shares among processes stays in /dev/shm when one of them is killed.
        unshare.args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /dev/shm && exec env \"$@\"", "sh"]);
        unshare.arg(format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()));
        unshare.args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]);
        unshare.args(["LD_PRELOAD=/usr/$LIB/faketime/libfaketimeMT.so.1", program]);
        unshare
    }

    fn vifctl(&self, vifd: &Vifd, command: &str) -> String {
        output(self.with(Command::new("unshare"), VIFCTL).arg("--socket").arg(&vifd.socket).arg(command))
    }
}

/// How long ago `since` was, by a wall clock that is so many hours ahead.
fn ago(since: &Value, hours: i64) -> i64 {
    let since: Timestamp = since.as_str().unwrap().parse().unwrap();
    (Timestamp::now() + SignedDuration::from_hours(hours)).duration_since(since).as_secs()
}

/// Whether an age as `vifctl` tells it is of hours or days.
fn tells_hours(said: &str) -> bool {
    said.split_whitespace().any(|word| {
        let number = word.strip_suffix('h').or_else(|| word.strip_suffix('d'));
        number.is_some_and(|number| number.parse::<u64>().is_ok())
    })
}

#[test]
#[ignore = "needs root: run by make test"]
fn ages_are_right_when_the_wall_clock_is_set() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let clock = WallClock::new(hypervisor.dir());
    let started = Instant::now();
    let vifd = Vifd::start(clock.with(hypervisor.command("unshare"), VIFD), hypervisor.dir(), "");
    vifd.wait_ready();
    let list = format!("/v2.1/servers/{}/os-virtual-interfaces", Hypervisor::id("server_uuid 1"));
    let possible = || 0..=i64::try_from(started.elapsed().as_secs()).unwrap() + 1;
    let steps = [5, -7, 0, 100_000];

    for hours in steps {
        clock.set(hours);
        let fresh = vifd.request("GET", &list, &[]);
        assert_eq!((fresh.status, fresh.header("age"), fresh.header("warning")), (200, Some("0"), None));
        let sync = vifd.get("/host/v1/sync");
        let age = ago(&sync["sources"]["netlink"]["since"], hours);
        assert!(possible().contains(&age), "{hours} h: {age} s: {sync}");
        let status = clock.vifctl(&vifd, "status");
        assert!(status.contains("netlink") && !tells_hours(&status), "{hours} h: {status}");
    }

    clock.set(0);
    hypervisor.control("stop-libvirtd", &["KILL"]);
    eventually("stale", || (vifd.request("GET", &list, &[]).status == 203).then_some(()));
    let mut last = 0;
    for hours in steps {
        clock.set(hours);
        let stale = vifd.request("GET", &list, &[]);
        assert_eq!(stale.status, 203);
        assert!(stale.header("warning").unwrap().starts_with("110 "));
        let age = stale.header("age").unwrap().parse().unwrap();
        assert!(possible().contains(&age) && age >= last, "{hours} h: {age} s after {last} s");
        last = age;
        let sync = vifd.get("/host/v1/sync");
        let since = ago(&sync["sources"]["hypervisors"][0]["since"], hours);
        assert!((age - 1..=age + 1).contains(&since), "{hours} h: {age} s: {sync}");
        let said = clock.vifctl(&vifd, "list");
        assert!(said.contains("! qemu:///system is stale for ") && !tells_hours(&said), "{hours} h: {said}");
    }

    hypervisor.control("start-libvirtd", &[]);
    eventually("current again", || (vifd.request("GET", &list, &[]).status == 200).then_some(()));
    assert_eq!(vifd.request("GET", &list, &[]).header("age"), Some("0"));
}

#[test]
#[ignore = "needs root: run by make test"]
fn records_from_before_a_step_of_the_clock_are_never_from_the_future() {
    let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
    let host = dir.path().join("host.xml");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/host.xml"), &host).unwrap();
    let config = format!("[libvirt]\nuris = ['test://{}']\n", host.display());
    let clock = WallClock::new(dir.path());
    let start = || Vifd::start(clock.with(Command::new("unshare"), VIFD), dir.path(), &config);
    let vifd = start();
    vifd.wait_ready();
    assert!(vifd.end("-TERM").success());

    fs::remove_file(&host).unwrap();
    let list = "/v2.1/servers/42/os-virtual-interfaces";
    for (hours, told) in [(3, 3 * 3600..3 * 3600 + 600), (-24, 0..600), (0, 0..600)] {
        clock.set(hours);
        let vifd = start();
        let stale = vifd.request("GET", list, &[]);
        assert_eq!(stale.status, 203, "{stale:?}");
        let age = stale.header("age").unwrap().parse().unwrap();
        assert!(told.contains(&age), "{hours} h: {age} s");
        assert_eq!(vifd.log().contains("they are older than they seem"), hours < 0, "{}", vifd.log());
        // It does not write what it has not confirmed; and as killed, nothing more.
        vifd.end("-KILL");
    }
}
