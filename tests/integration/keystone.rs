//! Tokens of a real Keystone; see `tests/testbed/keystone`.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    eventually,
    http::{self, Response},
    hypervisor::output,
    tls::Authority,
    vifd::{VIFD, Vifd},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/keystone");
/// libvirt's test driver: an instance of a project that is replaced by alice's, and one without an owner.
const HOST: &str = include_str!("../data/host.xml");
const PROJECT: &str = "bf75459b5c334ca1ada07d66736389fc";
const INSTANCE: &str = "874092fe-19a7-44bd-a16a-4fb617bfef7a";
const OWNERLESS: &str = "11111111-2222-4333-8444-555555555555";

/// A Keystone. It ends when this is dropped, or when this process ends in any way.
struct Keystone {
    scheme: &'static str,
    port: u16,
    dir: PathBuf,
    /// The script, and Keystone itself.
    running: Option<(Child, String)>,
    parent: TempDir,
}

/// A token, and the project that it is for.
struct Token {
    header: String,
    project: String,
}

impl Keystone {
    fn start(seconds: &str) -> Self {
        let mut keystone = Self::prepare("http");
        keystone.run(&["run"], &[seconds]);
        keystone
    }

    fn prepare(scheme: &'static str) -> Self {
        let parent = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
        // Free now, and nobody else looks for one here.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = parent.path().join("keystone");
        fs::create_dir(&dir).unwrap();
        Self { scheme, port, dir, running: None, parent }
    }

    fn run(&mut self, command: &[&str], arguments: &[&str]) {
        let mut process = Command::new(SCRIPT)
            .args(command)
            .arg(&self.dir)
            .arg(self.port.to_string())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().strip_prefix("ready ").expect("Keystone did not start; see above").to_owned();
        self.running = Some((process, pid));
    }

    fn signal(&self, signal: &str) {
        output(Command::new("kill").args([signal, &self.running.as_ref().unwrap().1]));
    }

    fn end(&mut self) {
        if let Some((mut process, _)) = self.running.take() {
            drop(process.stdin.take());
            process.wait().unwrap();
        }
    }

    fn url(&self) -> String {
        format!("{}://127.0.0.1:{}/v3", self.scheme, self.port)
    }

    fn curl(&self, arguments: &[&str]) -> String {
        output(Command::new("curl").args(["-s", "-S", "--fail", "--insecure"]).args(arguments))
    }

    /// Logs a user in, for a project or for none.
    fn token(&self, user: &str, project: Option<&str>) -> Token {
        let domain = r#""domain": {"id": "default"}"#;
        let scope = match project {
            Some(project) => format!(r#", "scope": {{"project": {{"name": "{project}", {domain}}}}}"#),
            None => String::new(),
        };
        let body = format!(
            r#"{{"auth": {{"identity": {{"methods": ["password"], "password": {{"user":
               {{"name": "{user}", {domain}, "password": "s3cret"}}}}}}{scope}}}}}"#
        );
        let url = self.url() + "/auth/tokens";
        let answer = self.curl(&["-i", "-H", "content-type: application/json", "-d", &body, &url]);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let token = head.lines().find_map(|line| line.strip_prefix("X-Subject-Token: ")).unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        let project = body["token"]["project"]["id"].as_str().unwrap_or_default().to_owned();
        Token { header: format!("X-Auth-Token: {token}"), project }
    }

    /// Has a user's token revoked by themselves.
    fn revoke(&self, token: &Token) {
        let subject = token.header.replace("Auth", "Subject");
        let url = self.url() + "/auth/tokens";
        self.curl(&["-X", "DELETE", "-H", &token.header, "-H", &subject, &url]);
    }

    /// How often it was asked whose a token is.
    fn questions(&self) -> usize {
        fs::read_to_string(self.dir.join("keystone.log")).unwrap().matches("GET /v3/auth/tokens").count()
    }

    /// A daemon that asks it, and has an instance of this project.
    fn vifd(&self, project: &str, more: &str) -> Vifd {
        let dir = self.parent.path().join("vifd");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("host.xml"), HOST.replace(PROJECT, project)).unwrap();
        fs::write(dir.join("password"), "s3cret\n").unwrap();
        let config = format!(
            "[http]\nrequest_timeout = '1m'\n[libvirt]\nuris = ['test://{0}/host.xml']\n\
             [tcp]\nlisten = '127.0.0.1:0'\n[tcp.keystone]\nurl = '{1}'\npassword_file = '{0}/password'\n{more}\n",
            dir.display(),
            self.url()
        );
        let vifd = Vifd::start(Command::new(VIFD), &dir, &config);
        vifd.wait_ready();
        vifd
    }

    fn password_file(&self) -> PathBuf {
        self.parent.path().join("vifd/password")
    }
}

impl Drop for Keystone {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.dir.join("keystone.log")).unwrap_or_default();
            let end: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("Keystone's log, backwards:\n{}", end.join("\n"));
        }
        self.end();
    }
}

/// For a machine that does much else: whatever takes so long has not failed.
const PATIENT: &str = "timeout = '50s'";

fn vifs(id: &str) -> String {
    format!("/v2.1/servers/{id}/os-virtual-interfaces")
}

fn ask(vifd: &Vifd, path: &str, headers: &[&str]) -> Response {
    http::over_tcp(vifd.tcp(), "GET", path, headers).expect("an answer")
}

fn status(vifd: &Vifd, token: &Token) -> u16 {
    ask(vifd, &vifs(INSTANCE), &[&token.header]).status
}

fn eventually_answers(vifd: &Vifd, token: &Token, wanted: u16) {
    eventually(&format!("{wanted}"), || (status(vifd, token) == wanted).then_some(()));
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_token_is_a_user_with_a_project_and_roles() {
    let keystone = Keystone::start("3600");
    let (alice, bob) = (keystone.token("alice", Some("apple")), keystone.token("bob", Some("banana")));
    let (admin, unscoped) = (keystone.token("admin", Some("admin")), keystone.token("alice", None));
    let vifd = keystone.vifd(&alice.project, PATIENT);
    let in_project = |project: &str| format!("/v2.1/{project}/servers/{INSTANCE}/os-virtual-interfaces");
    let claim = format!("X-Project-Id: {}", alice.project);
    for (path, headers, wanted) in [
        (vifs(INSTANCE), &[&*alice.header][..], 200),
        (in_project(&alice.project), &[&alice.header], 200),
        (in_project(&bob.project), &[&alice.header], 403),
        (vifs(OWNERLESS), &[&alice.header], 404),
        ("/host/v1/sync".to_owned(), &[&alice.header], 403),
        (vifs(INSTANCE), &[&bob.header], 404),
        (in_project(&alice.project), &[&bob.header], 403),
        (vifs(INSTANCE), &[&bob.header, &claim, "X-Identity-Status: Confirmed", "X-Roles: admin"], 404),
        (vifs(INSTANCE), &[&unscoped.header], 404),
        (in_project(&alice.project), &[&unscoped.header], 403),
        (vifs(INSTANCE), &[&admin.header], 200),
        (in_project(&bob.project), &[&admin.header], 200),
        (vifs(OWNERLESS), &[&admin.header], 200),
        ("/host/v1/sync".to_owned(), &[&admin.header], 200),
        (vifs(INSTANCE), &[], 401),
        (vifs(INSTANCE), &["X-Auth-Token: "], 401),
        (vifs(INSTANCE), &["X-Auth-Token: gAAAAABmade-up"], 401),
        (vifs(INSTANCE), &["X-Auth-Token: ../../v3/users?x=%00{}\"'"], 401),
        (vifs(INSTANCE), &[&format!("X-Auth-Token: {}", "a".repeat(9000))], 401),
        (vifs(INSTANCE), &[&format!("{}x", alice.header)], 401),
        (vifs(INSTANCE), &[&alice.header, &alice.header], 400),
        (vifs(INSTANCE), &[&alice.header.replace("Auth-Token", "Subject-Token")], 401),
        ("/ready".to_owned(), &[], 200),
    ] {
        assert_eq!(ask(&vifd, &path, headers).status, wanted, "{path} {headers:?}");
    }
    let refused = ask(&vifd, &vifs(INSTANCE), &[]);
    let challenge = format!("Keystone uri=\"{}\"", keystone.url());
    assert_eq!(refused.header("www-authenticate"), Some(&*challenge));
    assert_eq!(refused.json()["unauthorized"]["code"], 401);

    let log = vifd.log();
    for secret in [&alice, &bob, &admin, &unscoped] {
        let token = secret.header.strip_prefix("X-Auth-Token: ").unwrap();
        assert!(!log.contains(token), "{log}");
    }
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_token_is_asked_about_once_however_many_come_with_it_and_whatever_the_answer() {
    let keystone = Keystone::start("3600");
    let alice = keystone.token("alice", Some("apple"));
    let vifd = keystone.vifd(&alice.project, PATIENT);
    keystone.signal("-STOP");
    thread::scope(|scope| {
        let asking: Vec<_> = (0..50).map(|_| scope.spawn(|| status(&vifd, &alice))).collect();
        // It is slow.
        eventually("Keystone is being asked", || vifd.log().contains("asking Keystone").then_some(()));
        keystone.signal("-CONT");
        for answer in asking {
            assert_eq!(answer.join().unwrap(), 200);
        }
    });
    assert_eq!(status(&vifd, &alice), 200);
    assert_eq!(keystone.questions(), 1);
    let bad = Token { header: "X-Auth-Token: bad".into(), project: String::new() };
    thread::scope(|scope| {
        let asking: Vec<_> = (0..50).map(|_| scope.spawn(|| status(&vifd, &bad))).collect();
        for answer in asking {
            assert_eq!(answer.join().unwrap(), 401);
        }
    });
    // A bad one is not believed to be bad for long: on a slow machine it may have been asked about again.
    assert!(keystone.questions() < 10, "{}", keystone.questions());
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_revoked_token_is_refused_once_it_is_asked_about_again() {
    let keystone = Keystone::start("3600");
    let alice = keystone.token("alice", Some("apple"));
    let vifd = keystone.vifd(&alice.project, &format!("{PATIENT}\ncache = '1s'"));
    assert_eq!(status(&vifd, &alice), 200);
    keystone.revoke(&alice);
    eventually_answers(&vifd, &alice, 401);
    // Others' tokens are as good as before.
    let bob = keystone.token("bob", Some("banana"));
    assert_eq!(status(&vifd, &bob), 404);
}

#[test]
#[ignore = "needs root: run by make test"]
fn an_expired_token_is_refused_however_long_the_cache_would_have_kept_it_and_ours_is_renewed() {
    let keystone = Keystone::start("15");
    let alice = keystone.token("alice", Some("apple"));
    let vifd = keystone.vifd(&alice.project, &format!("{PATIENT}\ncache = '1h'"));
    assert_eq!(status(&vifd, &alice), 200);
    eventually_answers(&vifd, &alice, 401);
    // By now vifd's own has expired too.
    let again = keystone.token("alice", Some("apple"));
    assert_eq!(status(&vifd, &again), 200);
    assert!(vifd.log().matches("logged in to Keystone").count() >= 2);
}

#[test]
#[ignore = "needs root: run by make test"]
fn while_keystone_is_down_or_hangs_what_is_known_goes_on_and_the_rest_gets_503() {
    let mut keystone = Keystone::start("3600");
    let (alice, bob) = (keystone.token("alice", Some("apple")), keystone.token("bob", Some("banana")));
    let (admin, later) = (keystone.token("admin", Some("admin")), keystone.token("alice", Some("apple")));
    let vifd = keystone.vifd(&alice.project, "timeout = '1s'");
    eventually_answers(&vifd, &alice, 200);

    let unavailable = |token: &Token| {
        let answer = ask(&vifd, &vifs(INSTANCE), &[&token.header]);
        assert_eq!(answer.json()["serviceUnavailable"]["code"], 503, "{answer:?}");
        assert!(answer.header("retry-after").is_some_and(|wait| wait.parse::<u32>().is_ok()), "{answer:?}");
    };
    keystone.signal("-STOP");
    unavailable(&bob);
    assert_eq!(status(&vifd, &alice), 200);
    assert_eq!(vifd.request("GET", &vifs(INSTANCE), &[]).status, 200, "the socket asks nobody");
    keystone.signal("-CONT");
    eventually_answers(&vifd, &bob, 404);

    keystone.end();
    unavailable(&admin);
    assert_eq!(status(&vifd, &alice), 200);
    keystone.run(&["run"], &[]);
    eventually_answers(&vifd, &admin, 200);

    // Other keys, as after a disaster: nobody's token is good any more, vifd's own neither, and it gets itself another.
    keystone.end();
    let keys = ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="];
    for (name, key) in ["0", "1"].iter().zip(keys) {
        fs::write(keystone.dir.join("fernet-keys").join(name), key).unwrap();
    }
    keystone.run(&["run"], &[]);
    eventually_answers(&vifd, &later, 401);
    let new = keystone.token("alice", Some("apple"));
    eventually_answers(&vifd, &new, 200);
    let log = vifd.log();
    assert!(log.contains("tokens cannot be checked") && log.contains("tokens can be checked again"), "{log}");
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_password_that_keystone_refuses_is_read_again_until_it_is_right() {
    let keystone = Keystone::start("3600");
    let alice = keystone.token("alice", Some("apple"));
    let vifd = keystone.vifd(&alice.project, PATIENT);
    fs::write(keystone.password_file(), "wrong").unwrap();
    assert_eq!(status(&vifd, &alice), 503);
    eventually("the log says why", || {
        vifd.log().contains("answered the login of the user vifd with 401").then_some(())
    });
    fs::write(keystone.password_file(), "s3cret").unwrap();
    eventually_answers(&vifd, &alice, 200);
}

#[test]
#[ignore = "needs root: run by make test"]
fn keystone_is_believed_over_tls_only_with_a_certificate_of_the_right_authority() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let mut keystone = Keystone::prepare("https");
    let file = |name: &str| keystone.dir.join(name);
    authority.server().write(&file("server.crt"), &file("server.key"));
    let (ca, other) = (file("ca.crt"), file("strangers.crt"));
    authority.write(&ca);
    strangers.write(&other);
    keystone.run(&["run-tls"], &[]);
    let alice = keystone.token("alice", Some("apple"));
    let with = |ca: &Path| format!("{PATIENT}\nca = '{}'", ca.display());
    for (more, wanted) in [(with(&other), 503), (PATIENT.to_owned(), 503), (with(&ca), 200)] {
        let vifd = keystone.vifd(&alice.project, &more);
        assert_eq!(status(&vifd, &alice), wanted, "{more}");
        drop(vifd);
        fs::remove_dir_all(keystone.parent.path().join("vifd")).unwrap();
    }
}
