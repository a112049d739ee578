//! The daemon as a process.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use serde_json::Value;

use super::{
    eventually,
    http::{self, Response},
};

/// The daemon's binary.
pub const VIFD: &str = env!("CARGO_BIN_EXE_vifd");
/// The command line's binary.
pub const VIFCTL: &str = env!("CARGO_BIN_EXE_vifctl");

/// A running daemon. It is killed when it is dropped.
pub struct Vifd {
    pub socket: PathBuf,
    log: PathBuf,
    process: Child,
}

impl Vifd {
    /// Starts the daemon by `command`, which runs [`VIFD`] one way or another, with its files in `dir` and `config` in
    /// its configuration. TCP goes to any free port and is open to anyone, unless `config` has a `[tcp]` of its own.
    pub fn start(mut command: Command, dir: &Path, config: &str) -> Self {
        let (socket, log, file) = (dir.join("vifd.sock"), dir.join("vifd.log"), dir.join("vifd.toml"));
        let mut own = format!("socket = '{}'\n", socket.display());
        if !config.contains("log = ") {
            own += "log = 'debug'\n";
        }
        if !config.contains("cache = ") {
            own += &format!("cache = '{}'\n", dir.join("vifd.cache").display());
        }
        if !config.contains("[journal]") {
            own += &format!("journal.path = '{}'\n", dir.join("journal.db").display());
        }
        // That of a private hypervisor; elsewhere there is none, and certainly not this machine's.
        let section = format!("[ovsdb]\nsocket = '{}'\n", dir.join("run/openvswitch/db.sock").display());
        let config = match config.split_once("[ovsdb]\n") {
            Some((before, after)) => format!("{before}{section}{after}"),
            None => format!("{config}\n{section}"),
        };
        let anyone = "\n[tcp]\nlisten = '127.0.0.1:0'\nanyone_on_loopback_is_admin = true\n";
        let tcp = if config.contains("[tcp]") { "" } else { anyone };
        let leases = format!("\n[leases]\ndirectory = '{}'\n", dir.join("lib/dnsmasq").display());
        fs::write(&file, own + &config + tcp + &leases).unwrap();
        command.arg("--config").arg(&file);
        let process =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        let mut vifd = Self { socket, log, process };
        eventually("the daemon listens", || {
            if let Some(status) = vifd.process.try_wait().unwrap() {
                panic!("the daemon ended with {status}:\n{}", vifd.log());
            }
            http::over_unix(&vifd.socket, "GET", "/live", &[])
        });
        vifd
    }

    /// Where it serves TCP.
    pub fn tcp(&self) -> SocketAddr {
        self.listens("serving HTTP over TCP")
    }

    /// Where it serves metrics alone.
    pub fn scraped(&self) -> SocketAddr {
        self.listens("serving metrics")
    }

    /// The address in the line of its log that says this.
    fn listens(&self, what: &str) -> SocketAddr {
        let log = self.log();
        let line = log.lines().find(|line| line.contains(what));
        let address = line.and_then(|line| line.split("listen=").nth(1)?.split_whitespace().next());
        address.unwrap_or_else(|| panic!("it does not say where it is {what}:\n{log}")).parse().unwrap()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it, over its Unix socket.
    pub fn request(&self, method: &str, path: &str, headers: &[&str]) -> Response {
        http::over_unix(&self.socket, method, path, headers)
            .unwrap_or_else(|| panic!("no answer to {method} {path}; the log:\n{}", self.log()))
    }

    /// The JSON that it answers to `GET path`.
    pub fn get(&self, path: &str) -> Value {
        self.request("GET", path, &[]).json()
    }

    /// Waits until the answer to `GET path` is as wanted.
    pub fn wait(&self, what: &str, path: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        eventually(what, || Some(self.get(path)).filter(&mut wanted))
    }

    /// Waits until every source has been read.
    pub fn wait_ready(&self) {
        eventually("ready", || (self.request("GET", "/ready", &[]).status == 200).then_some(()));
    }

    /// What `vifctl` prints, and its exit status.
    pub fn vifctl(&self, arguments: &[&str]) -> (String, Option<i32>) {
        let output = Command::new(VIFCTL).arg("--socket").arg(&self.socket).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (text, output.status.code())
    }

    /// Its process, or that which runs it.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The daemon's own process, where [`Vifd::pid`] only stands for it.
    pub fn daemon_pid(&self) -> String {
        let pattern = format!("vifd --config {}", self.socket.with_extension("toml").display());
        let output = Command::new("pgrep").args(["-f", &pattern]).output().unwrap();
        let pids = String::from_utf8(output.stdout).unwrap();
        let is_vifd = |pid: &&str| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("vifd"));
        pids.split_whitespace().find(is_vifd).unwrap().to_owned()
    }

    /// Sends it a signal and waits for its end.
    pub fn end(mut self, signal: &str) -> ExitStatus {
        let kill = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(kill.success());
        eventually("the daemon ends", || self.process.try_wait().unwrap())
    }
}

impl Drop for Vifd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            // The questions of a test that waits are many.
            let log = self.log();
            let said = log.lines().filter(|line| !line.contains("vifd::http::requests: answered"));
            eprintln!("the daemon's log:\n{}", said.collect::<Vec<_>>().join("\n"));
        }
    }
}
