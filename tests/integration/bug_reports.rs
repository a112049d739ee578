//! `vifctl bug-report`: what is in the archive, and what must not be.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    hypervisor::{Hypervisor, output},
    vifd::{VIFCTL, VIFD, Vifd},
};

/// libvirt's test driver, with an instance of a project and one without an owner.
const HOST: &str = concat!("test://", env!("CARGO_MANIFEST_DIR"), "/tests/data/host.xml");
/// Secrets, each in another place.
const SECRETS: [&str; 6] =
    ["Tr0ub4dor", "correct-horse", "s3cret-in-url", "in-a-comment", "gAAAAABhFernetFernetFernet", "0p3nst4ck"];

fn dir() -> TempDir {
    tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap()
}

/// The members of an archive, by name.
fn members(archive: &Path) -> BTreeMap<String, String> {
    let dir = dir();
    output(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(dir.path()));
    let files = fs::read_dir(dir.path().join("vifd-bug-report")).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn json(members: &BTreeMap<String, String>, name: &str) -> Value {
    serde_json::from_str(&members[name]).unwrap_or_else(|error| panic!("{name}: {error}: {}", members[name]))
}

/// Whether the text has this as a word of its own, in any letter case.
fn has_word(text: &str, word: &str) -> bool {
    let (text, word) = (text.to_lowercase(), word.to_lowercase());
    let within = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(&word).any(|(start, _)| {
        !within(text[..start].chars().next_back()) && !within(text[start + word.len()..].chars().next())
    })
}

/// A daemon, and a configuration for the report that is full of secrets.
fn host() -> (TempDir, Vifd, PathBuf) {
    let dir = dir();
    let vifd = Vifd::start(Command::new(VIFD), dir.path(), &format!("[libvirt]\nuris = ['{HOST}']\n"));
    vifd.wait_ready();
    let [password, leak, in_url, in_comment, token, _] = SECRETS;
    let (file, config) = (dir.path().join("password"), dir.path().join("planted.toml"));
    fs::write(&file, format!("{password}\n")).unwrap();
    let text = format!(
        "# the token is {in_comment}\nlog = 'vifd={password}'\n[tcp.keystone]\npassword = '{leak}'\nuser = 'svc-vifd'\n\
         url = 'https://vifd:{in_url}@keystone.example.org/v3'\npassword_file = '{}'\nnote = 'got {token} for {leak}'\n",
        file.display()
    );
    fs::write(&config, text).unwrap();
    (dir, vifd, config)
}

fn bug_report(vifd: &Vifd, config: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(VIFCTL);
    command.arg("--socket").arg(&vifd.socket).arg("--config").arg(config).args(arguments);
    command.env("OS_PASSWORD", SECRETS[5]).output().unwrap()
}

#[test]
fn a_report_has_what_is_known_and_no_secret_and_is_its_owners_alone() {
    let (dir, vifd, config) = host();
    let file = dir.path().join("report.tar.gz");
    let report = |more: &[&str]| bug_report(&vifd, &config, &[&["bug-report", file.to_str().unwrap()], more].concat());
    let told = report(&[]);
    assert!(told.status.success(), "{told:?}");
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("instances.json") && told.contains("Look through it before"), "{told}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let members = members(&file);
    assert_eq!(json(&members, "instances.json")["instances"][1]["display_name"], "web");
    assert!(json(&members, "devices.json")["devices"].is_array());
    assert_eq!(json(&members, "sync.json")["sources"]["netlink"]["state"], "synced");
    let readme = &members["README.txt"];
    assert!(members.keys().all(|name| name == "README.txt" || readme.contains(name.as_str())), "{readme}");
    assert!(readme.contains("The answers are the daemon's.") && readme.contains("Names and addresses are as they are"));
    assert!(members["versions.txt"].contains("OpenAPI \"3.1") && members["versions.txt"].contains("Linux version"));
    let kept = &members["vifd.toml"];
    assert!(kept.contains("password = \"<removed>\"") && kept.contains("password_file = \"/tmp/"), "{kept}");
    assert!(kept.contains("https://<removed>@keystone.example.org/v3"), "{kept}");
    for (name, text) in &members {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} in {name}:\n{text}");
        }
    }

    let again = report(&[]);
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(again.status.code() == Some(4) && said.contains("--force replaces it"), "{said}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(report(&["--force"]).status.success());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_anonymous_report_has_the_same_pseudonym_for_the_same_name() {
    let (dir, vifd, config) = host();
    let file = dir.path().join("report.tar.gz");
    let told = bug_report(&vifd, &config, &["bug-report", "--redact-names", "--redact-macs", file.to_str().unwrap()]);
    assert!(told.status.success(), "{told:?}");
    let members = members(&file);
    let instances = json(&members, "instances.json")["instances"].take();
    let web = &instances[1];
    for (name, pseudonym) in [("name", "instance-2"), ("display_name", "display-name-1")] {
        assert_eq!(web[name], pseudonym, "{instances:#}");
    }
    // Links may have been met before it, with addresses of their own.
    let mac = web["vifs"][0]["mac"].as_str().unwrap();
    assert!(web["number"].is_null() && mac.starts_with("mac-"), "{instances:#}");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let names =
        ["instance-0000002a", "web", "shop", "bf75459b5c334ca1ada07d66736389fc", "fa:16:3e:00:00:2a", "svc-vifd"];
    for (name, text) in &members {
        for hidden in names.iter().chain(&[host.trim(), "keystone.example.org"]).chain(&SECRETS) {
            assert!(!has_word(text, hidden), "{hidden} in {name}:\n{text}");
        }
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_report_is_made_without_the_daemon_and_without_libvirt() {
    let hv = Hypervisor::start();
    hv.create_guest(1, 1);
    hv.control("stop-libvirtd", &["KILL"]);
    let file = hv.dir().join("report.tar.gz");
    let (path, missing) = (file.to_str().unwrap(), hv.dir().join("none.toml"));
    let config = missing.to_str().unwrap();
    output(hv.command(VIFCTL).args(["--offline", "--config", config, "bug-report", "--anonymous", path]));
    let members = members(&file);
    assert!(members["README.txt"].contains("collected by vifctl itself"), "{}", members["README.txt"]);
    assert!(members["README.txt"].contains("none.toml: No such file"), "{}", members["README.txt"]);
    let instance = json(&members, "instances.json")["instances"][0].take();
    assert_eq!((&instance["name"], &instance["hypervisor"]), (&Value::from("instance-1"), &Value::from("/proc")));
    assert_eq!(instance["vifs"][0]["device"]["name"], Hypervisor::id("tap_name 1 0"), "{instance:#}");
    assert_eq!(instance["vifs"][0]["addresses"][0]["address"], "address-1", "{instance:#}");
    let ids = ["keystone_id user alice", "keystone_id project shop"].map(Hypervisor::id);
    for (name, text) in &members {
        for hidden in ["instance-00000001", "web-1", "alice", "shop", "10.0.0.4", &ids[0], &ids[1]] {
            assert!(!has_word(text, hidden), "{hidden} in {name}:\n{text}");
        }
    }
}
