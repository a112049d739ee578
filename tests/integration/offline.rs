//! `vifctl` without the daemon, and without libvirt, on real guests.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    eventually,
    hypervisor::Hypervisor,
    vifd::{VIFCTL, VIFD, Vifd},
};

/// What `vifctl` printed for programs or people, what it remarked, and its exit status.
struct Said {
    text: String,
    remarks: String,
    status: Option<i32>,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}{}", self.text, self.remarks))
    }
}

fn said(mut command: Command, arguments: &str) -> Said {
    let output = command.args(arguments.split_whitespace()).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { text: text(output.stdout), remarks: text(output.stderr), status: output.status.code() }
}

/// Inside a hypervisor, where no daemon is at the usual place.
fn vifctl(hypervisor: &Hypervisor, arguments: &str) -> Said {
    said(hypervisor.command(VIFCTL), arguments)
}

/// Instances as they are told, but for what counts the changes that one run of a daemon has seen.
fn instances(answer: &Value) -> Value {
    let mut instances = answer["instances"].clone();
    for instance in instances.as_array_mut().unwrap() {
        for past in ["revision", "changed"] {
            instance.as_object_mut().unwrap().remove(past).unwrap();
        }
    }
    instances
}

/// Whether a private daemon of this directory's runs.
fn private_runs(dir: &Path) -> bool {
    let config = dir.join("vifd.toml");
    let command_line = ["--private", "--config", config.to_str().unwrap()].join("\0") + "\0";
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|words| String::from_utf8_lossy(&words).ends_with(&command_line))
}

#[test]
#[ignore = "needs root: run by make test"]
fn without_the_daemon_every_answer_is_the_one_that_it_would_give() {
    let hv = Hypervisor::start();
    hv.create_guest(1, 2);
    hv.create("lxc:///system", "lxc_domain 2");
    hv.virsh("qemu:///system", &format!("define {}", hv.xml("qemu_domain 3 /nonexistent")));
    let vifd = hv.vifd("");
    // A container brings its interface up when libvirt has long said that it runs.
    let list = eventually("both tell the same", || {
        let list = vifctl(&hv, "-o json list");
        (instances(&list.json()) == instances(&vifd.get("/host/v1/instances"))).then_some(list)
    });
    assert_eq!((list.json()["instances"].as_array().unwrap().len(), list.status), (3, Some(0)), "{}", list.text);
    let persistent: Vec<_> =
        list.json()["instances"].as_array().unwrap().iter().map(|i| i["persistent"].clone()).collect();
    assert_eq!(persistent, [json!(false), json!(null), json!(false)], "{}", list.text);
    let remarks: Vec<_> = list.remarks.lines().collect();
    assert_eq!(remarks.len(), 2, "{}", list.remarks);
    assert!(remarks[0].starts_with("vifctl: vifd does not answer at /run/vifd/vifd.sock: No such file"), "{remarks:?}");
    assert_eq!(remarks[1], "vifctl: this was collected just now, without the daemon, as root");

    let socket = vifd.socket.display();
    for command in ["show instance-00000001", "who fa:16:3e:01:00:01", "list"] {
        let [online, offline] =
            ["--no-offline", "--offline"].map(|how| vifctl(&hv, &format!("--socket {socket} {how} {command}")));
        assert_eq!((&online.text, online.status), (&offline.text, offline.status), "{command}");
        assert!(online.remarks.is_empty() && offline.remarks.contains("as root"), "{command}");
    }
    // Two questions, one collection.
    let pid = hv.run("echo $(pidof qemu-system-x86_64)");
    let who = vifctl(&hv, &format!("who {}", pid.trim()));
    assert!(who.text.contains("instance-00000001") && who.remarks.matches("collected").count() == 1, "{}", who.remarks);
    let status = vifctl(&hv, "status");
    assert!(status.text.contains("3 instances, 4 VIFs") && status.status == Some(0), "{}", status.text);
    assert_eq!(vifctl(&hv, "show nothing").status, Some(1));
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_daemon_that_hangs_is_told_and_done_without() {
    let hv = Hypervisor::start();
    hv.create_guest(1, 1);
    let vifd = hv.vifd("");
    let daemon = vifd.daemon_pid();
    let signal = |signal: &str| assert!(Command::new("kill").args([signal, &daemon]).status().unwrap().success());
    signal("-STOP");
    let socket = vifd.socket.display();
    let list = vifctl(&hv, &format!("--socket {socket} list"));
    assert!(list.text.contains("instance-00000001") && list.status == Some(0), "{}{}", list.text, list.remarks);
    assert!(
        list.remarks.contains("lets us connect") && list.remarks.contains("collected just now"),
        "{}",
        list.remarks
    );
    let refused = vifctl(&hv, &format!("--socket {socket} --no-offline list"));
    assert!(refused.status == Some(3) && refused.text.is_empty(), "{}", refused.text);
    signal("-CONT");
    let list = vifctl(&hv, &format!("--socket {socket} list"));
    assert!(list.remarks.is_empty() && list.status == Some(0), "{}", list.remarks);
}

#[test]
fn who_may_not_connect_is_told_how_and_gets_nothing_else() {
    let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let vifd = Vifd::start(Command::new(VIFD), dir.path(), "socket_mode = '0000'\n[libvirt]\nuris = []\n");
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        // Copied, as others may not look into our target directory.
        fs::copy(VIFCTL, dir.path().join("vifctl")).unwrap();
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(dir.path().join("vifctl"));
    } else {
        command.arg(VIFCTL);
    }
    let list = said(command, &format!("--socket {} list", vifd.socket.display()));
    assert_eq!((list.status, &*list.text), (Some(3), ""));
    assert!(
        list.remarks.contains("not allowed") && list.remarks.contains("join the socket's group"),
        "{}",
        list.remarks
    );
}

#[test]
fn a_configuration_that_cannot_be_used_is_done_without_and_told() {
    let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
    let config = dir.path().join("vifd.toml");
    fs::write(&config, "[libvirt]\nuri = 'qemu:///system'\n").unwrap();
    let status = said(Command::new(VIFCTL), &format!("--offline --config {} status", config.display()));
    assert_eq!(status.status, Some(0), "{}", status.remarks);
    assert!(status.remarks.contains("vifd.toml:2: ") && status.remarks.contains("going on with"), "{}", status.remarks);
    assert!(status.text.contains("qemu:///system"), "{}", status.text);
}

#[test]
fn a_private_daemon_keeps_nothing_and_ends_with_its_client_even_if_that_is_killed() {
    let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
    let path = |name: &str| dir.path().join(name);
    // A database that lets connect and says nothing.
    let silent = std::os::unix::net::UnixListener::bind(path("db.sock")).unwrap();
    let config = format!(
        "socket = '{}'\ncache = '{}'\n[libvirt]\nuris = []\n[ovsdb]\nsocket = '{}'\n",
        path("vifd.sock").display(),
        path("cache").display(),
        path("db.sock").display()
    );
    fs::write(path("vifd.toml"), config).unwrap();
    let arguments = ["--offline", "--config", path("vifd.toml").to_str().unwrap(), "status"].map(str::to_owned);
    let status = said(Command::new(VIFCTL), &arguments.join(" "));
    assert!(status.remarks.contains("could not read Open vSwitch: no answer within 3s"), "{}", status.remarks);
    eventually("it ends", || (!private_runs(dir.path())).then_some(()));

    let mut client = Command::new(VIFCTL).args(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("it runs", || private_runs(dir.path()).then_some(()));
    client.kill().unwrap();
    client.wait().unwrap();
    eventually("it ends", || (!private_runs(dir.path())).then_some(()));
    drop(silent);
    let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["db.sock", "vifd.toml"]);
}

#[test]
fn vifctl_does_not_link_libvirt() {
    let linked = |program| {
        let output = Command::new("ldd").arg(program).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(linked(VIFD).contains("libvirt.so"));
    assert!(linked(VIFCTL).contains("libc.so") && !linked(VIFCTL).contains("libvirt"), "{}", linked(VIFCTL));
}

/// What is told of each VIF by name of its instance, without what only libvirt or vifd itself knows.
fn vifs(answer: &Value) -> Vec<Value> {
    let instances = answer["instances"].as_array().unwrap().iter();
    let mut vifs: Vec<_> = instances
        .flat_map(|instance| {
            let name = &instance["name"];
            let vifs = instance["vifs"].as_array().unwrap().iter();
            vifs.map(move |vif| json!([name, instance["uuid"], vif["mac"], vif["device"]["name"]]))
        })
        .collect();
    vifs.sort_by_key(Value::to_string);
    vifs
}

fn qemu_and_container() -> Hypervisor {
    let hv = Hypervisor::start();
    hv.create_guest(1, 2);
    hv.create("lxc:///system", "lxc_domain 2");
    let nic = hv.xml("hot_plug_interface 1 2");
    hv.virsh("qemu:///system", &format!("attach-device instance-00000001 {nic} --live"));
    hv
}

fn qemu_pid(hv: &Hypervisor) -> u64 {
    hv.run("pidof qemu-system-x86_64").trim().parse().unwrap()
}

#[test]
#[ignore = "needs root: run by make test"]
fn without_libvirt_every_guest_is_known_by_its_process_and_what_libvirt_left_on_disk() {
    let hv = qemu_and_container();
    let daemon = hv.vifd("");
    let online = format!("--socket {} -o json list", daemon.socket.display());
    let told = vifctl(&hv, "-o json list").json();
    assert_eq!(vifs(&told).len(), 4, "{told:#}");
    let tap = Hypervisor::id("tap_name 1 1");
    let signal = |signal: &str| hv.control("stop-libvirtd", &[signal]);
    let libvirtd = hv.control("libvirtd-pid", &[]);
    let stop = |signal: &str| assert!(Command::new("kill").args([signal, libvirtd.trim()]).status().unwrap().success());
    for (fault, advice) in
        [("-STOP", "it is there and hangs"), ("KILL", "does libvirt run?"), ("", "does libvirt run?")]
    {
        match fault {
            "-STOP" => stop("-STOP"),
            "KILL" => {
                signal("KILL");
            }
            _ => {
                hv.run("rm /run/libvirt/libvirt-sock*");
            }
        }
        let list = vifctl(&hv, "-o json list");
        assert_eq!((vifs(&list.json()), list.status), (vifs(&told), Some(0)), "{fault} {}", list.remarks);
        assert!(
            list.remarks.contains("could not read qemu:///system: ") && list.remarks.contains(advice),
            "{}",
            list.remarks
        );
        let qemu =
            list.json()["instances"].as_array().unwrap().iter().find(|i| i["hypervisor_type"] == "qemu").cloned();
        let qemu = qemu.unwrap();
        assert_eq!((&qemu["hypervisor"], &qemu["display_name"]), (&json!("/proc"), &json!("web-1")), "{qemu:#}");
        assert_eq!(qemu["process"], json!({ "pid": qemu_pid(&hv), "described_by": "state_file" }));
        assert_eq!(qemu["warnings"], json!(null), "{qemu:#}");

        let show = vifctl(&hv, "show instance-00000001");
        assert!(show.text.contains("known by") && show.text.contains(&tap) && show.status == Some(0), "{}", show.text);
        let who = vifctl(&hv, &format!("who {tap}"));
        let holder = format!("process {} (qemu-system-x86), which runs instance-00000001", qemu_pid(&hv));
        assert!(who.text.contains("instance-00000001") && who.text.contains(&holder), "{}", who.text);
        let who = vifctl(&hv, &format!("who {}", qemu_pid(&hv)));
        assert!(who.text.contains("instance-00000001") && who.status == Some(0), "{}", who.text);

        // The daemon keeps what it knows and asks no process.
        let list = vifctl(&hv, &online);
        assert_eq!((vifs(&list.json()), &*list.remarks), (vifs(&told), ""), "{fault}");
        assert!(list.json()["instances"].as_array().unwrap().iter().all(|instance| instance["process"].is_null()));
    }
    hv.control("start-libvirtd", &[]);
    let list = vifctl(&hv, "-o json list").json();
    assert_eq!(vifs(&list), vifs(&told));
    assert!(list["instances"].as_array().unwrap().iter().all(|instance| instance["hypervisor"] != "/proc"), "{list:#}");
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_guest_of_which_libvirt_left_nothing_is_known_by_its_command_line_and_descriptors() {
    let hv = qemu_and_container();
    let told = vifctl(&hv, "-o json list").json();
    hv.control("stop-libvirtd", &["KILL"]);
    hv.run("rm /run/libvirt/qemu/*.xml /run/libvirt/lxc/*.xml");
    let (tap, plugged) = (Hypervisor::id("tap_name 1 1"), Hypervisor::id("tap_name 1 2"));
    hv.run(&format!("ip link set {tap} down && ip link set {tap} name renamed && ip link set renamed up"));

    let list = vifctl(&hv, "-o json list").json();
    let name_of =
        |vif: &Value| if vif[3] == json!(tap) { json!([vif[0], vif[1], vif[2], "renamed"]) } else { vif.clone() };
    let started_with: Vec<_> = vifs(&told).iter().filter(|vif| vif[3] != json!(plugged)).map(name_of).collect();
    assert_eq!(vifs(&list), started_with, "{list:#}");
    let of = |kind: &str| {
        let instances = list["instances"].as_array().unwrap();
        instances.iter().find(|instance| instance["hypervisor_type"] == kind).unwrap().clone()
    };
    let (qemu, container) = (of("qemu"), of("lxc"));
    assert_eq!(qemu["process"], json!({ "pid": qemu_pid(&hv), "described_by": "command_line" }));
    assert_eq!((&qemu["display_name"], &qemu["project"]), (&json!(null), &json!(null)));
    let warning = qemu["warnings"][0].as_str().unwrap();
    assert!(warning.contains(&plugged) && warning.contains("plugged in later"), "{warning}");
    assert_eq!((&container["vifs"][0]["guest_device"], &container["warnings"]), (&json!("eth0"), &json!(null)));
    let who = vifctl(&hv, &format!("who {plugged}"));
    assert!(who.text.contains("carries no VIF") && who.text.contains("which runs instance-00000001"), "{}", who.text);

    // Somebody who may not look into the process.
    for program in [VIFCTL, VIFD] {
        fs::copy(program, hv.dir().join("run").join(Path::new(program).file_name().unwrap())).unwrap();
    }
    let mut command = hv.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "/run/vifctl", "--offline"]);
    let list = said(command, "-o json list");
    assert_eq!(list.status, Some(0), "{}", list.remarks);
    assert!(list.remarks.contains("as nobody: what this user may not read is missing"), "{}", list.remarks);
    let instances = list.json()["instances"].take();
    assert_eq!(instances.as_array().unwrap().len(), 1, "{instances:#}");
    assert_eq!(instances[0]["vifs"][0]["no_device"], "no_target");
    let warning = instances[0]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("descriptors cannot be read"), "{warning}");
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_start_that_hangs_hides_no_guest_and_doubles_none() {
    let hv = Hypervisor::start();
    hv.hang_guest_9("started");
    hv.create_guest(1, 1);
    let xml = hv.xml(&format!("qemu_domain 9 {} qemu 1", hv.dir().join("halt.bin").display()));
    let mut start = hv.command("virsh").args(["-q", "create", &xml]).spawn().unwrap();
    eventually("its hook hangs", || hv.hook_hangs().then_some(()));
    let list = vifctl(&hv, "-o json list");
    let names: Vec<_> = vifs(&list.json()).iter().map(|vif| json!([vif[0], vif[3]])).collect();
    let expected = [1, 9]
        .map(|n| json!([Hypervisor::id(&format!("domain_name {n}")), Hypervisor::id(&format!("tap_name {n} 0"))]));
    assert_eq!(names, expected, "{}{}", list.text, list.remarks);
    hv.end_hook();
    start.wait().unwrap();
}
