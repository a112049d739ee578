//! The daemon's process: flags, files, signals, exit status; and `vifctl` where there is no daemon.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    process::Command,
};

use crate::support::{
    LIMIT, eventually,
    hypervisor::output,
    vifd::{VIFCTL, VIFD, Vifd},
};

/// No hypervisor at all: what is tested here needs none.
const NO_HYPERVISOR: &str = "[libvirt]\nuris = []\n";

fn dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap()
}

fn check_config(text: &str) -> (Option<i32>, String) {
    let dir = dir();
    let path = dir.path().join("vifd.toml");
    fs::write(&path, text).unwrap();
    let output = Command::new(VIFD).arg("--check-config").arg("--config").arg(&path).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn a_bad_configuration_exits_78_and_names_file_line_and_key() {
    for (text, line, key) in [
        ("cache = ''\nsocket_mod = '0660'\n", 2, "socket_mod"),
        ("[netlink]\n\nreceive_buffer = -1\n", 3, "receive_buffer"),
        ("log = 'vifd=chatty'\n", 1, "log"),
        ("[tcp]\nlisten = '192.0.2.1:9774'\n", 1, "nobody may ask"),
        ("[libvirt\n", 1, "[libvirt"),
    ] {
        let (status, said) = check_config(text);
        assert_eq!(status, Some(78), "{said}");
        assert!(said.contains(&format!("vifd.toml:{line}: ")) && said.contains(key), "{text} -> {said}");
    }
    let output = Command::new(VIFD).args(["--config", "/nonexistent/vifd.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn a_good_configuration_is_called_good() {
    let (status, said) = check_config("instance_name_template = 'vm-%d'\n[libvirt]\nresync_interval = '1m'\n");
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn options_override_the_environment_and_that_the_file_and_vifd_tells_what_is_in_force() {
    let dir = dir();
    let path = dir.path().join("vifd.toml");
    fs::write(&path, "worker_threads = 3\nlog = 'warn'\n[http]\nconnections = 5\n").unwrap();
    let mut vifd = Command::new(VIFD);
    vifd.env("VIFD_LOG", "debug").env("VIFD_HTTP__CONNECTIONS", "6").arg("--config").arg(&path);
    let shown = output(vifd.args(["--set", "http.connections=7", "--print-config"]));
    let path = path.display();
    for line in [
        format!("worker_threads = 3  # {path}:1"),
        "log = \"debug\"  # VIFD_LOG".to_owned(),
        "connections = 7  # --set".to_owned(),
        "socket_mode = \"0660\"  # default".to_owned(),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
    let mistaken = vifd.env("VIFD_HTTP__CONECTIONS", "6").output().unwrap();
    assert_eq!(mistaken.status.code(), Some(78));
    assert!(String::from_utf8(mistaken.stderr).unwrap().contains("VIFD_HTTP__CONECTIONS: there is no key"));
}

#[test]
fn sighup_changes_what_is_logged_and_names_what_has_to_wait() {
    let dir = dir();
    let vifd = Vifd::start(Command::new(VIFD), dir.path(), &format!("log = 'warn'\n{NO_HYPERVISOR}"));
    let path = dir.path().join("vifd.toml");
    let original = fs::read_to_string(&path).unwrap();
    let reload = |text: &str| {
        fs::write(&path, text).unwrap();
        output(Command::new("kill").args(["-HUP", &vifd.pid().to_string()]));
    };
    let says = |what: &str| eventually(what, || vifd.log().contains(what).then_some(()));
    assert!(!vifd.log().contains("serving HTTP"), "{}", vifd.log());

    reload(&(original.replace("log = 'warn'", "log = 'info'") + "\n[http]\nconnections = 7\n"));
    says("read the configuration again changed=\"log\"");
    says("take effect at the next start keys=\"http.connections\"");
    assert!(!vifd.log().contains("answered"), "{}", vifd.log());
    let ask = || assert_eq!(vifd.request("GET", "/host/v1/sync", &[]).status, 200);
    ask();
    says("answered");

    reload("log = 'warn'\nsokcet = '/x'\n");
    says("the old configuration stays in force");
    reload(&original);
    eventually("requests are logged no more", || {
        let before = vifd.log();
        ask();
        (before == vifd.log()).then_some(())
    });
}

#[test]
fn the_log_can_be_json() {
    let dir = dir();
    let vifd = Vifd::start(Command::new(VIFD), dir.path(), &format!("log_format = 'json'\n{NO_HYPERVISOR}"));
    let log = vifd.log();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let serving = lines.iter().find(|line| line["message"] == "serving HTTP").unwrap_or_else(|| panic!("{log}"));
    assert_eq!((&serving["level"], &serving["target"]), (&"INFO".into(), &"vifd::daemon".into()));
}

#[test]
fn an_orderly_stop_exits_0_and_removes_the_socket() {
    let dir = dir();
    let vifd = Vifd::start(Command::new(VIFD), dir.path(), NO_HYPERVISOR);
    let socket = vifd.socket.clone();
    assert!(vifd.end("-TERM").success());
    assert!(!socket.exists());
}

#[test]
fn no_librarys_exit_handler_runs_beside_the_threads_that_use_it() {
    let dir = dir();
    let mut command = Command::new(VIFD);
    command.env("LD_DEBUG", "files").env("LD_DEBUG_OUTPUT", dir.path().join("loader"));
    let vifd = Vifd::start(command, dir.path(), NO_HYPERVISOR);
    let loader = dir.path().join(format!("loader.{}", vifd.pid()));
    assert!(vifd.end("-TERM").success());
    let told = fs::read_to_string(loader).unwrap();
    assert!(told.contains("calling init: ") && told.contains("libcrypto"), "{told}");
    assert!(!told.contains("calling fini: "), "{told}");
}

#[test]
fn the_socket_of_a_killed_daemon_is_replaced_and_that_of_a_living_one_is_not() {
    let dir = dir();
    let first = Vifd::start(Command::new(VIFD), dir.path(), NO_HYPERVISOR);
    let socket = first.socket.clone();
    assert!(!first.end("-KILL").success());
    assert!(socket.exists());
    let second = Vifd::start(Command::new(VIFD), dir.path(), NO_HYPERVISOR);
    let third = Command::new(VIFD).arg("--config").arg(dir.path().join("vifd.toml")).output().unwrap();
    assert_eq!(third.status.code(), Some(1));
    assert!(String::from_utf8(third.stderr).unwrap().contains("another process serves this socket"));
    assert_eq!(second.request("GET", "/live", &[]).status, 200);
}

#[test]
fn the_sockets_mode_is_the_configured_one() {
    let dir = dir();
    let vifd = Vifd::start(Command::new(VIFD), dir.path(), "socket_mode = '0606'\n[libvirt]\nuris = []\n");
    assert_eq!(fs::metadata(&vifd.socket).unwrap().permissions().mode() & 0o777, 0o606);
}

#[test]
fn systemd_is_told_when_the_first_sync_is_decided_and_when_it_stops() {
    let dir = dir();
    let path = dir.path().join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(LIMIT)).unwrap();
    let hear = |wanted: &str| {
        let mut heard = String::new();
        let mut buffer = [0; 4096];
        while !heard.contains(wanted) {
            let length = notify.recv(&mut buffer).unwrap_or_else(|error| panic!("{error}; {wanted} not in {heard}"));
            heard += std::str::from_utf8(&buffer[..length]).unwrap();
        }
        heard
    };
    let mut command = Command::new(VIFD);
    command.env("NOTIFY_SOCKET", &path);
    // This hypervisor fails at once; the service is ready all the same.
    let vifd = Vifd::start(command, dir.path(), "[libvirt]\nuris = ['test:///nonexistent.xml']\n");
    hear("READY=1");
    let status = hear("STATUS=");
    assert!(status.contains("test:///nonexistent.xml pending: could not connect"), "{status}");
    assert_eq!(vifd.request("GET", "/ready", &[]).status, 503);
    assert!(vifd.end("-TERM").success());
    hear("STOPPING=1");
}

#[test]
#[ignore = "needs root: it hides this machine's journal in a mount namespace"]
fn without_a_journal_the_log_is_text_and_says_so() {
    let dir = dir();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs none /run && exec \"$0\" \"$@\"", VIFD]);
    let vifd = Vifd::start(command, dir.path(), &format!("log_format = 'journal'\n{NO_HYPERVISOR}"));
    let log = vifd.log();
    assert!(log.contains("WARN vifd::telemetry: could not reach the journal"), "{log}");
    assert!(log.contains("INFO vifd::daemon: serving HTTP"), "{log}");
}

#[test]
fn vifctl_that_may_ask_none_but_the_daemon_says_so_and_exits_3() {
    let dir = dir();
    let socket = dir.path().join("none.sock");
    let output = Command::new(VIFCTL).arg("--socket").arg(&socket).args(["--no-offline", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("none.sock") && said.contains("is it running?"), "{said}");
}

#[test]
fn requests_that_make_no_sense_do_no_harm() {
    let dir = dir();
    let vifd = Vifd::start(Command::new(VIFD), dir.path(), NO_HYPERVISOR);
    let long = format!("/v2.1/servers/{}/os-virtual-interfaces", "9".repeat(60_000));
    for (method, path) in [("GET", "/v2.1/%ff%fe"), ("BREW", "/v2.1/extensions"), ("GET", &*long), ("OPTIONS", "*")] {
        let status = vifd.request(method, path, &["accept: ,;q=,*/*;q=x"]).status;
        assert!((400..500).contains(&status), "{method} {status}");
    }
    let bytes = output(Command::new("sh").arg("-c").arg(format!(
        "head -c 50000 /dev/urandom | curl -s -o /dev/null -w '%{{http_code}}' --unix-socket {} -X POST \
         -H 'content-type: application/xml' --data-binary @- http://x/v2.1/servers/1/virtual_interfaces",
        vifd.socket.display()
    )));
    assert_eq!(bytes, "400");
    assert_eq!(vifd.request("GET", "/live", &[]).status, 200);
}
