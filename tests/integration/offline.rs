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
        instance.as_object_mut().unwrap().remove("revision").unwrap();
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
