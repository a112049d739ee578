//! `vifctl watch`, over a restart of the daemon and to its end.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use crate::support::{
    eventually,
    hypervisor::{Hypervisor, output},
    vifd::{VIFCTL, VIFD, Vifd},
};

/// A link that is nobody's, in the hypervisor's namespace.
fn tap(hypervisor: &Hypervisor, name: &str) {
    hypervisor.run(&format!("ip tuntap add {name} mode tap"));
}

/// `vifctl watch`, as it runs.
struct Watch {
    process: Child,
    /// Until it is closed.
    lines: Option<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(vifd: &Vifd, arguments: &[&str]) -> Self {
        let mut command = Command::new(VIFCTL);
        command.arg("--socket").arg(&vifd.socket).arg("watch").args(arguments);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = process.stdout.take().map(BufReader::new);
        Self { process, lines }
    }

    fn line_with(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.lines.as_mut().unwrap().read_line(&mut line).unwrap() > 0, "it ended before {part}");
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Its exit status, and what it said besides.
    fn end(mut self, how: &str) -> (Option<i32>, String) {
        if !how.is_empty() {
            output(Command::new("kill").args([how, &self.process.id().to_string()]));
        }
        let status = eventually("vifctl ends", || self.process.try_wait().unwrap());
        let mut said = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn vifctl_watches_over_a_restart_of_the_daemon_and_ends_when_nobody_reads() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd("[http]\nevent_heartbeat = '50ms'\n");
    let mut people = Watch::start(&vifd, &[]);
    let mut programs = Watch::start(&vifd, &["tap2", "-o", "json"]);
    let json = |line: String| serde_json::from_str::<Value>(&line).unwrap();
    assert_eq!(json(programs.line_with(""))["kind"], "begin");
    eventually("both listen", || {
        let n = vifd.log().matches("/host/v1/events").count();
        (n == 2).then_some(())
    });
    tap(&hypervisor, "tap1");
    let line = people.line_with("device_appeared");
    assert!(line.contains(" tap1 (ifindex ") && line.contains(", tap) appeared, set down, MTU 1500"), "{line}");

    assert!(vifd.end("-TERM").success(), "open streams do not keep it");
    let vifd = Vifd::start(hypervisor.command(VIFD), hypervisor.dir(), "[http]\nevent_heartbeat = '50ms'\n");
    vifd.wait_ready();
    people.line_with("missed");
    assert_eq!(json(programs.line_with("missed"))["reason"], "another_run");
    tap(&hypervisor, "tap2");
    people.line_with("tap2");
    let appeared = json(programs.line_with("tap2"));
    assert_eq!((&appeared["kind"], &appeared["after"]["device"]), (&"device_appeared".into(), &"tap2".into()));

    let (status, said) = programs.end("-INT");
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(said.lines().count(), 2, "that vifd went and came: {said}");
    // As `| head` does it; and nothing changes any more.
    people.lines = None;
    assert_eq!(people.end("").0, Some(0));
}
