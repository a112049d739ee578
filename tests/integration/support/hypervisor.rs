//! A private hypervisor: libvirt, QEMU and LXC in namespaces of their own; see `tests/testbed/hypervisor`.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::vifd::{VIFD, Vifd};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/hypervisor");
const DOMAINS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/domains.sh");

/// A running hypervisor. Everything of it ends when it is dropped, or when this process ends in any way: the script
/// then reads the end of its standard input.
pub struct Hypervisor {
    dir: PathBuf,
    pid: u32,
    process: Child,
    // Dropped last: the script removes what is in it.
    _parent: TempDir,
}

impl Hypervisor {
    /// Starts one; takes a second or two.
    pub fn start() -> Self {
        let parent = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
        let dir = parent.path().join("hv");
        let mut process = Command::new(SCRIPT)
            .args([OsStr::new("run"), dir.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.strip_prefix("ready ").and_then(|pid| pid.trim().parse().ok());
        let pid = pid.expect("the hypervisor did not start; is this root? see above");
        Self { dir, pid, process, _parent: parent }
    }

    /// Its directory, visible inside under the same path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A process in its namespaces, as the host sees it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The URI by which its QEMU driver is reached from elsewhere.
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.dir.join("run/libvirt/libvirt-sock").display())
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(SCRIPT);
        command.arg("exec").arg(&self.dir).arg(program);
        command
    }

    /// Runs a command of the script, such as `restart-libvirtd`, on this hypervisor.
    pub fn control(&self, command: &str, arguments: &[&str]) -> String {
        output(Command::new(SCRIPT).arg(command).arg(&self.dir).args(arguments))
    }

    /// Runs a command line inside and returns what it printed.
    pub fn run(&self, line: &str) -> String {
        output(self.command("sh").args(["-c", line]))
    }

    /// Runs `virsh` inside.
    pub fn virsh(&self, uri: &str, arguments: &str) -> String {
        self.run(&format!("virsh -q -c {uri} {arguments}"))
    }

    /// Writes what a function of `tests/testbed/domains.sh` prints into a file, and returns its path.
    pub fn xml(&self, function: &str) -> String {
        let name = function.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let path = self.dir.join(format!("{name}.xml"));
        let xml = output(Command::new("bash").args(["-c", &format!("source {DOMAINS}; {function}")]));
        std::fs::write(&path, xml).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// What a function of `tests/testbed/domains.sh` prints, without the line's end.
    pub fn id(function: &str) -> String {
        output(Command::new("bash").args(["-c", &format!("source {DOMAINS}; {function}")])).trim().to_owned()
    }

    /// Starts a QEMU guest or container from the XML that a function of `tests/testbed/domains.sh` prints.
    pub fn create(&self, uri: &str, function: &str) {
        self.virsh(uri, &format!("create {}", self.xml(function)));
    }

    /// Starts the QEMU guest number `n` with so many interfaces.
    pub fn create_guest(&self, n: u32, interfaces: u32) {
        let firmware = self.dir.join("halt.bin");
        self.create("qemu:///system", &format!("qemu_domain {n} {} qemu {interfaces}", firmware.display()));
    }

    /// Defines the QEMU guest number `n`, and does not start it.
    pub fn define_guest(&self, n: u32) {
        let xml = self.xml(&format!("qemu_domain {n} {}", self.dir.join("halt.bin").display()));
        self.virsh("qemu:///system", &format!("define {xml}"));
    }

    /// From now on a step of guest 9's life (`start`, `started`, `stopped`: libvirt's hooks) does not end until
    /// [`Hypervisor::end_hook`]. libvirt holds the domain's lock while its hook runs, and every call about the domain
    /// waits for the lock.
    pub fn hang_guest_9(&self, step: &str) {
        self.run(&format!(
            "mkdir -p /etc/libvirt/hooks; cd /etc/libvirt/hooks; echo '#!/bin/sh' > qemu; \
             echo 'case \"$1 $2\" in *9\\ {step}) exec sleep 4242 ;; esac' >> qemu; chmod +x qemu"
        ));
        self.control("restart-libvirtd", &[]);
    }

    /// Whether the hook runs.
    pub fn hook_hangs(&self) -> bool {
        !self.run("pgrep -f 'sleep 424[2]' || true").is_empty()
    }

    /// Ends the hook, which fails.
    pub fn end_hook(&self) {
        self.run("pkill -f 'sleep 424[2]'");
    }

    /// Makes the firmware of the guests so large that a migration at 1 MiB/s takes some seconds.
    pub fn make_guests_heavy(&self) {
        let path = self.dir.join("halt.bin");
        // Still nothing but HLT, before what is there.
        let mut firmware = vec![0xf4; 4 << 20];
        let halt = std::fs::read(&path).unwrap();
        let start = firmware.len() - halt.len();
        firmware[start..].copy_from_slice(&halt);
        std::fs::write(path, firmware).unwrap();
    }

    /// Starts the daemon inside.
    pub fn vifd(&self, config: &str) -> Vifd {
        let vifd = Vifd::start(self.command(VIFD), &self.dir, config);
        vifd.wait_ready();
        vifd
    }
}

impl Drop for Hypervisor {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// What a command prints.
///
/// # Panics
/// It fails.
pub fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed:\n{stdout}{stderr}");
    stdout.into_owned()
}
