//! A disk that does not take the records: full, read-only, gone, or not ours to write.

use std::{fs, path::PathBuf, process::Command};

use crate::support::{
    eventually,
    hypervisor::{Hypervisor, output},
    vifd::{VIFD, Vifd},
};

/// In a file system of its own, which is small.
struct Disk {
    /// As the daemon sees it.
    dir: PathBuf,
    /// As we see it.
    root: PathBuf,
    pid: String,
}

impl Disk {
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(self.dir.strip_prefix("/").unwrap()).join(name)
    }

    fn run(&self, line: &str) {
        let script = format!("cd {} && {line}", self.dir.display());
        output(Command::new("nsenter").args(["--target", &self.pid, "--mount", "sh", "-c", &script]));
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_disk_that_takes_no_records_costs_one_warning_and_gets_them_when_it_can() {
    let hypervisor = Hypervisor::start();
    let dir = hypervisor.dir().join("disk");
    fs::create_dir(&dir).unwrap();
    let mount = "mount -t tmpfs -o size=256k,mode=755 tmpfs \"$0\" && mkdir \"$0/vifd\" && exec \"$@\"";
    let mut command = hypervisor.command("unshare");
    command.args(["--mount", "sh", "-c", mount]).arg(&dir);
    // Root that obeys the permissions of files.
    command.args(["setpriv", "--bounding-set=-dac_override,-dac_read_search", VIFD]);
    let config = format!("cache = '{}/vifd/cache'\n", dir.display());
    let vifd = Vifd::start(command, hypervisor.dir(), &config);
    vifd.wait_ready();
    let pid = vifd.daemon_pid();
    let disk = Disk { dir, root: format!("/proc/{pid}/root").into(), pid };

    let records = || fs::read_to_string(disk.path("vifd/cache")).unwrap_or_default();
    let count = |text: &str| vifd.log().matches(text).count();
    let guest = |n: u32| {
        hypervisor.create_guest(n, 1);
        let uuid = Hypervisor::id(&format!("server_uuid {n}"));
        let list = format!("/v2.1/servers/{uuid}/os-virtual-interfaces");
        eventually("answers go on", || (vifd.request("GET", &list, &[]).status == 200).then_some(()));
        uuid
    };
    let first = guest(1);
    eventually("the records are written", || records().contains(&first).then_some(()));

    let refused = || count("a restart will begin without the records");
    let again = || count("the records are written again");
    let faults = [
        ("head -c 1M /dev/zero >filler 2>/dev/null || true", "rm filler", "No space left on device"),
        ("mount -o remount,ro .", "mount -o remount,rw .", "Read-only file system"),
        ("mv vifd elsewhere", "mv elsewhere vifd", "No such file or directory"),
        ("chown 65534 vifd", "chown 0 vifd", "Permission denied"),
    ];
    for (round, (fault, mend, told)) in (1..).zip(faults) {
        let number = 2 * u32::try_from(round).unwrap();
        disk.run(fault);
        let during = guest(number);
        eventually(told, || (refused() == round).then_some(()));
        assert_eq!(count(told), 1, "{}", vifd.log());
        disk.run(mend);
        let after = guest(number + 1);
        eventually("they are written again", || (again() == round).then_some(()));
        assert!(records().contains(&during) && records().contains(&after), "{}", records());
    }

    // However often it fails, it is told once; and when it can be written, it is, although nothing changes any more.
    let (fault, mend, _) = faults[0];
    disk.run(fault);
    guest(20);
    eventually("a warning", || (refused() == 5).then_some(()));
    let touched = || fs::metadata(disk.path("vifd")).unwrap().modified().unwrap();
    let before = touched();
    let last = guest(21);
    eventually("another attempt", || (touched() != before).then_some(()));
    assert!(!records().contains(&last));
    disk.run(mend);
    eventually("they are written again", || (again() == 5).then_some(()));
    assert!(records().contains(&last), "{}", records());
    assert_eq!(refused(), 5, "{}", vifd.log());
    assert!(!disk.path("vifd/cache.new").exists());
}
