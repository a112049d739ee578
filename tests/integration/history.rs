//! The flight recorder: `/host/v1/history` and `vifctl history`.

use std::{
    fs,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{
    eventually,
    hypervisor::{Hypervisor, output},
    vifd::{VIFCTL, VIFD, Vifd},
};

const QEMU: &str = "qemu:///system";

/// The moment at which this process is now, as the API takes it.
fn now() -> String {
    output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%3NZ"])).trim().to_owned()
}

/// What a thing was at a moment: the instance and kind of each record; nothing where that is not known.
fn at(vifd: &Vifd, thing: &str, time: &str) -> Option<Vec<String>> {
    let answer = vifd.get(&format!("/host/v1/history?thing={thing}&at={time}"));
    let known = answer["at"]["known"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
    let name = |record: &Value| {
        let of = record["instance_name"].as_str().or(record["device"].as_str()).unwrap_or("?");
        format!("{} {of}", record["record"].as_str().unwrap())
    };
    let mut names: Vec<_> = known.first()?["records"].as_array().unwrap().iter().map(name).collect();
    names.sort();
    Some(names)
}

/// Waits until the newest change of a thing that is recorded is of this kind.
fn recorded(vifd: &Vifd, thing: &str, kind: &str) {
    vifd.wait("it is recorded", &format!("/host/v1/history?thing={thing}"), |answer| {
        answer["changes"].as_array().and_then(|changes| changes.last()).is_some_and(|last| last["kind"] == kind)
    });
}

#[test]
#[ignore = "needs root: run by make test"]
fn who_had_a_tap_is_told_for_each_moment_whoever_used_its_name_since() {
    let hypervisor = Hypervisor::start();
    let vifd = hypervisor.vifd("");
    let started = now();
    hypervisor.create_guest(1, 1);
    let uuid = Hypervisor::id("server_uuid 1");
    let path = format!("/host/v1/instances/{uuid}");
    let record = vifd.wait("its device", &path, |answer| answer["instance"]["vifs"][0]["device"].is_object());
    let tap = record["instance"]["vifs"][0]["device"]["name"].as_str().unwrap().to_owned();
    let mac = Hypervisor::id("mac_address 1 0");
    vifd.wait("it is recorded", &format!("/host/v1/history?thing={mac}&at={}", now()), |answer| {
        answer["at"]["known"][0]["records"][0]["device"]["name"] == *tap
    });
    eventually("a moment with the guest", || at(&vifd, &tap, &now()).filter(|is| is.len() == 2));
    let with_guest = now();
    hypervisor.virsh(QEMU, "destroy instance-00000001");
    recorded(&vifd, &mac, "vif_unplugged");
    eventually("the device is gone", || at(&vifd, &tap, &now()).filter(Vec::is_empty));
    let with_nobody = now();
    // Another guest gets a tap of the same name.
    let xml = hypervisor.xml(&format!("qemu_domain 2 {} qemu 1", hypervisor.dir().join("halt.bin").display()));
    let other = Hypervisor::id("tap_name 2 0");
    let changed = fs::read_to_string(&xml).unwrap().replace(&other, &tap);
    assert!(changed.contains(&tap), "{changed}");
    fs::write(&xml, changed).unwrap();
    hypervisor.virsh(QEMU, &format!("create {xml}"));
    let second = ["device ".to_owned() + &tap, "vif instance-00000002".to_owned()];
    eventually("the second guest", || at(&vifd, &tap, &now()).filter(|is| **is == second));
    let with_second = now();

    let first = ["device ".to_owned() + &tap, "vif instance-00000001".to_owned()];
    let check = |vifd: &Vifd| {
        assert_eq!(at(vifd, &tap, &with_guest).unwrap(), first);
        assert_eq!(at(vifd, &tap, &with_nobody).unwrap(), Vec::<String>::new());
        assert_eq!(at(vifd, &tap, &with_second).unwrap(), second);
        assert_eq!(at(vifd, &uuid, &with_guest).unwrap(), ["instance instance-00000001", "vif instance-00000001"]);
        assert_eq!(at(vifd, &mac, &with_second).unwrap(), Vec::<String>::new());
        assert_eq!(at(vifd, &tap, "2020-01-01T00:00:00Z"), None);
    };
    check(&vifd);
    let (text, status) = vifd.vifctl(&["history", &tap, "--at", &with_guest]);
    assert!(status == Some(0) && text.contains(&format!("({mac}) of instance instance-00000001")), "{text}");
    let (text, status) = vifd.vifctl(&["history", &tap, "--since", &started]);
    let plugs = text.matches("vif_plugged").count();
    assert!(status == Some(0) && plugs == 2 && text.contains("vif_unplugged"), "{text}");
    let (text, status) = vifd.vifctl(&["history", "nobody"]);
    assert!(status == Some(1) && text.contains("Nothing is known of nobody."), "{text}");

    // Of a time when vifd did not run nothing is known; before and after it, everything.
    assert!(vifd.end("-TERM").success());
    let between = now();
    let (text, _) = offline(&hypervisor, &["history", &tap, "--at", &with_second]);
    assert!(text.contains("of instance instance-00000002"), "without the daemon: {text}");
    let vifd = hypervisor.vifd("");
    eventually("recording goes on", || at(&vifd, &tap, &now()).filter(|is| **is == second));
    check(&vifd);
    assert_eq!(at(&vifd, &tap, &between), None);
    let (text, status) = vifd.vifctl(&["history", &tap, "--at", &between]);
    assert!(status == Some(1) && text.contains("not known: vifd recorded nothing from"), "{text}");
}

/// `vifctl` inside the hypervisor, where no daemon runs.
fn offline(hypervisor: &Hypervisor, arguments: &[&str]) -> (String, Option<i32>) {
    let dir = hypervisor.dir();
    let mut command = hypervisor.command(VIFCTL);
    command.arg("--socket").arg(dir.join("vifd.sock")).arg("--config").arg(dir.join("vifd.toml")).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    (String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(), output.status.code())
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_daemon_that_is_killed_at_any_moment_leaves_a_journal_that_is_whole() {
    let hypervisor = Hypervisor::start();
    let journal = hypervisor.dir().join("journal.db");
    // Links come and go all the time.
    let mut churn = hypervisor
        .command("sh")
        .args(["-c", "while :; do for n in 1 2 3 4 5; do ip tuntap add k$n mode tap; done; for n in 1 2 3 4 5; do ip link del k$n; done; done"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    for round in 0..12 {
        let vifd = Vifd::start(hypervisor.command(VIFD), hypervisor.dir(), "");
        vifd.wait("it records", "/host/v1/sync", |answer| answer["journal"]["state"] == "recording");
        for _ in 0..=round {
            vifd.get("/host/v1/history?thing=k3");
        }
        output(Command::new("kill").args(["-9", &vifd.daemon_pid()]));
        let check = "pragma integrity_check; select count(*) from record where to_seq < from_seq;
                     select count(*) from (select 1 from record where to_seq is null group by subject having count(*) > 1)";
        let whole = output(Command::new("sqlite3").arg(&journal).arg(check));
        assert_eq!(whole.trim(), "ok\n0\n0", "round {round}");
    }
    churn.kill().unwrap();
    churn.wait().unwrap();
    hypervisor
        .run("pkill -f '[t]untap add k' || true; for n in 1 2 3 4 5; do ip link del k$n 2>/dev/null || true; done");
    let vifd = hypervisor.vifd("");
    eventually("the present is as it is", || at(&vifd, "k3", &now()).filter(Vec::is_empty));
    let history = vifd.get("/host/v1/history?thing=k3");
    let killed = history["recorded"].as_array().unwrap().iter().filter(|span| span["ended"] == "killed").count();
    assert_eq!(killed, 12, "{}", history["recorded"]);
    assert!(!hypervisor.dir().join("journal.db.damaged").exists());
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_full_disk_stops_recording_and_nothing_else_and_recording_resumes() {
    let hypervisor = Hypervisor::start();
    let dir = hypervisor.dir().join("disk");
    fs::create_dir(&dir).unwrap();
    let mut command = hypervisor.command("unshare");
    let mount = "mount -t tmpfs -o size=1m,mode=755 tmpfs \"$0\" && exec \"$@\"";
    command.args(["--mount", "sh", "-c", mount]).arg(&dir).arg(VIFD);
    let config = format!("[journal]\npath = '{}/journal.db'\n", dir.display());
    let vifd = Vifd::start(command, hypervisor.dir(), &config);
    vifd.wait("it records", "/host/v1/sync", |answer| answer["journal"]["state"] == "recording");
    let inside = |line: &str| {
        let script = format!("cd {} && {line}", dir.display());
        output(Command::new("nsenter").args(["--target", &vifd.daemon_pid(), "--mount", "sh", "-c", &script]));
    };
    hypervisor.run("ip tuntap add before mode tap");
    recorded(&vifd, "before", "device_appeared");

    inside("head -c 2M /dev/zero >filler 2>/dev/null || true");
    hypervisor.run("for n in $(seq 400); do echo link add d$n type veth peer name e$n; done | ip -batch -");
    let sync = vifd.wait("it stops", "/host/v1/sync", |answer| answer["journal"]["state"] == "stopped");
    vifd.wait("a finding", "/host/v1/findings?code=journal-not-written", |answer| {
        answer["findings"].as_array().is_some_and(|findings| findings.len() == 1)
    });
    assert!(sync["journal"]["reason"].as_str().unwrap().contains("full"), "{sync}");
    let (text, _) = vifd.vifctl(&["status"]);
    assert!(text.contains("changes are not recorded for"), "{text}");
    assert_eq!(vifd.get("/host/v1/who?thing=d400")["matches"][0]["link"]["name"], "d400", "answering goes on");
    assert_eq!(at(&vifd, "before", &now()), None, "nothing is claimed of a time that is not recorded");

    inside("rm filler");
    vifd.wait("it goes on by itself", "/host/v1/sync", |answer| answer["journal"]["state"] == "recording");
    eventually("what came meanwhile is found", || at(&vifd, "d400", &now()).filter(|is| *is == ["device d400"]));
    let history = vifd.get("/host/v1/history?thing=d400");
    assert_eq!(history["changes"][0]["found"], true, "{history}");
    let failed = |span: &Value| span["ended"].as_str().is_some_and(|why| why.starts_with("failed: "));
    assert!(history["recorded"].as_array().unwrap().iter().any(failed), "{history}");
    assert_eq!(vifd.log().matches("changes are not recorded until this is mended").count(), 1);
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_journal_that_is_damaged_is_put_aside_and_a_new_one_begun() {
    let hypervisor = Hypervisor::start();
    fs::write(hypervisor.dir().join("journal.db"), "no database at all").unwrap();
    let vifd = hypervisor.vifd("");
    vifd.wait("it records", "/host/v1/sync", |answer| answer["journal"]["state"] == "recording");
    assert!(hypervisor.dir().join("journal.db.damaged").exists());
    assert!(vifd.log().contains("beginning a new one"), "{}", vifd.log());
    assert_eq!(vifd.request("GET", "/host/v1/history?thing=lo", &[]).status, 200);
}
