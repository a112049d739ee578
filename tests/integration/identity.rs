//! Who may ask, by certificates, headers and the socket's peer: every way that needs no Keystone.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
};

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use ring::digest;
use rustls::{
    ClientConfig,
    version::{TLS12, TLS13},
};
use tempfile::TempDir;

use crate::support::{
    LIMIT, eventually,
    http::Response,
    hypervisor::output,
    tls::{Authority, client, client_of, over_tls, params},
    vifd::{VIFD, Vifd},
};

/// libvirt's test driver, with an instance of this project and one without an owner.
const HOST: &str = concat!("test://", env!("CARGO_MANIFEST_DIR"), "/tests/data/host.xml");
const INSTANCE: &str = "874092fe-19a7-44bd-a16a-4fb617bfef7a";
const PROJECT: &str = "bf75459b5c334ca1ada07d66736389fc";
const OWNERLESS: &str = "11111111-2222-4333-8444-555555555555";

const CONFIRMED: &str = "X-Identity-Status: Confirmed";
const OWN: &str = "X-Project-Id: bf75459b5c334ca1ada07d66736389fc";
const OTHER: &str = "X-Project-Id: 00000000000000000000000000000001";
const MEMBER: &str = "X-Roles: member,reader";
const ADMIN: &str = "X-Roles: member,admin";

/// A daemon that speaks TLS, with an authority for itself and one for its clients.
struct Agent {
    vifd: Vifd,
    servers: Authority,
    clients: Authority,
    dir: TempDir,
}

impl Agent {
    fn start(proxies: &str, tls: &str) -> Self {
        let agent = Self::prepare();
        agent.begin(proxies, tls)
    }

    fn prepare() -> (Authority, Authority, TempDir) {
        let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
        let (servers, clients) = (Authority::new(), Authority::new());
        servers.server().write(&dir.path().join("server.crt"), &dir.path().join("server.key"));
        clients.write(&dir.path().join("clients.crt"));
        (servers, clients, dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A client, with a certificate for this name.
    fn named(&self, name: &str) -> Arc<ClientConfig> {
        client(&self.servers, Some(&self.clients.client("", &[name])))
    }

    fn ask(&self, client: &Arc<ClientConfig>, path: &str, headers: &[&str]) -> Option<Response> {
        over_tls(self.vifd.tcp(), client, "GET", path, headers)
    }

    fn status(&self, client: &Arc<ClientConfig>, path: &str, headers: &[&str]) -> Option<u16> {
        self.ask(client, path, headers).map(|response| response.status)
    }

    fn dropped(&self) -> u64 {
        self.vifd.get("/host/v1/sync")["dropped_identity_headers"].as_u64().unwrap()
    }
}

trait Begin {
    fn begin(self, proxies: &str, tls: &str) -> Agent;
}

impl Begin for (Authority, Authority, TempDir) {
    fn begin(self, proxies: &str, tls: &str) -> Agent {
        let (servers, clients, dir) = self;
        let file = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "[tcp]\nlisten = '127.0.0.1:0'\nproxies = [{proxies}]\n[tcp.tls]\ncertificate = '{}'\nkey = '{}'\n\
             client_ca = '{}'\n{tls}\n[libvirt]\nuris = ['{HOST}']\n",
            file("server.crt"),
            file("server.key"),
            file("clients.crt")
        );
        let vifd = Vifd::start(Command::new(VIFD), dir.path(), &config);
        vifd.wait_ready();
        Agent { vifd, servers, clients, dir }
    }
}

fn vifs(id: &str) -> String {
    format!("/v2.1/servers/{id}/os-virtual-interfaces")
}

#[test]
fn a_user_for_whom_a_named_proxy_vouches_sees_their_projects_instances() {
    let agent = Agent::start("'api.example.org'", "");
    let api = agent.named("api.example.org");
    let in_project = |project: &str| format!("/v2/{project}/servers/{INSTANCE}/os-virtual-interfaces");
    for (path, headers, status) in [
        (vifs(INSTANCE), &[CONFIRMED, OWN, MEMBER][..], 200),
        (vifs(INSTANCE), &[CONFIRMED, &OWN.replace("Project", "Tenant")], 200),
        (vifs("42"), &[CONFIRMED, OWN], 200),
        (vifs(INSTANCE), &[CONFIRMED, OTHER, MEMBER], 404),
        (vifs("42"), &[CONFIRMED, OTHER], 404),
        (vifs(INSTANCE), &[CONFIRMED, MEMBER], 404),
        (vifs(INSTANCE), &[CONFIRMED, "X-Tenant: shop", "X-User: alice"], 404),
        (vifs(OWNERLESS), &[CONFIRMED, OWN, MEMBER], 404),
        (vifs(OWNERLESS), &[CONFIRMED, OTHER, ADMIN], 200),
        (vifs(INSTANCE), &[CONFIRMED, OTHER, ADMIN], 200),
        (in_project(PROJECT), &[CONFIRMED, OWN], 200),
        (in_project("00000000000000000000000000000001"), &[CONFIRMED, OWN], 403),
        (in_project(PROJECT), &[CONFIRMED, OTHER], 403),
        (in_project(PROJECT), &[CONFIRMED], 403),
        (in_project("any"), &[CONFIRMED, OTHER, ADMIN], 200),
        (vifs(INSTANCE), &[OWN, ADMIN], 401),
        (vifs(INSTANCE), &["X-Identity-Status: Invalid", OWN, ADMIN], 401),
        (vifs(INSTANCE), &[], 401),
        (vifs(INSTANCE), &[CONFIRMED, OTHER, OWN], 400),
        (vifs(INSTANCE), &[CONFIRMED, OWN, MEMBER, ADMIN], 400),
        (vifs(INSTANCE), &[CONFIRMED, OTHER, "X_Project_Id: bf75459b5c334ca1ada07d66736389fc"], 404),
        (vifs(INSTANCE), &[CONFIRMED, OTHER, "X_Roles: admin", "X-Role: admin"], 404),
        ("/host/v1/sync".to_owned(), &[CONFIRMED, OWN, MEMBER], 403),
        ("/host/v1/sync".to_owned(), &[], 401),
        ("/host/v1/sync".to_owned(), &[CONFIRMED, ADMIN], 200),
        ("/metrics".to_owned(), &[CONFIRMED, OWN, MEMBER], 403),
        ("/metrics".to_owned(), &[], 401),
        ("/metrics".to_owned(), &[CONFIRMED, ADMIN], 200),
        ("/metrics.json".to_owned(), &[CONFIRMED, OWN, MEMBER], 403),
        ("/%6detrics".to_owned(), &[CONFIRMED, OWN, MEMBER], 300),
        ("//metrics".to_owned(), &[CONFIRMED, OWN, MEMBER], 300),
        ("/nowhere".to_owned(), &[], 401),
    ] {
        assert_eq!(agent.status(&api, &path, headers), Some(status), "{path} {headers:?}");
    }
    assert_eq!(agent.dropped(), 0);
}

#[test]
fn another_projects_instance_is_answered_exactly_as_none_is() {
    let agent = Agent::start("'api.example.org'", "");
    let api = agent.named("api.example.org");
    let answer = |id: &str, suffix: &str| {
        let path = format!("/v2.1/servers/{id}/os-virtual-interfaces{suffix}");
        let response = agent.ask(&api, &path, &[CONFIRMED, OTHER]).unwrap();
        let own = |line: &&str| !line.contains("request-id: ") && !line.starts_with("date: ");
        (response.head.lines().filter(own).map(str::to_owned).collect::<Vec<_>>(), response.body)
    };
    for suffix in ["", ".xml"] {
        let none = answer("99999999-2222-4333-8444-555555555555", suffix);
        for id in [INSTANCE, "42", OWNERLESS] {
            assert_eq!(answer(id, suffix), none, "{id}");
        }
    }
}

#[test]
fn only_the_certificates_that_are_named_vouch_for_anybody() {
    let (servers, clients, dir) = Agent::prepare();
    let pinned = clients.client("whoever", &[]);
    let hex: Vec<_> =
        digest::digest(&digest::SHA256, &pinned.der).as_ref().iter().map(|b| format!("{b:02X}")).collect();
    let proxies = format!("'api.example.org', 'sha256:{}'", hex.join(":"));
    let agent = (servers, clients, dir).begin(&proxies, "");
    let strangers = Authority::new();
    let mut expired = params("", &["api.example.org"], ExtendedKeyUsagePurpose::ClientAuth);
    (expired.not_before, expired.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let mut early = params("", &["api.example.org"], ExtendedKeyUsagePurpose::ClientAuth);
    (early.not_before, early.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1));
    let server = params("", &["api.example.org"], ExtendedKeyUsagePurpose::ServerAuth);

    let claims = [CONFIRMED, OWN, ADMIN];
    let signed = |common, names: &[&str]| Some(agent.clients.client(common, names));
    for (what, certificate, status) in [
        ("the name", signed("", &["api.example.org"]), Some(200)),
        ("the name in capitals, among others", signed("", &["x.org", "API.Example.ORG"]), Some(200)),
        ("the common name, and no other", signed("api.example.org", &[]), Some(200)),
        ("the fingerprint", Some(pinned), Some(200)),
        ("the common name, but another one too", signed("api.example.org", &["x.org"]), Some(401)),
        ("the same name as the one with the fingerprint", signed("whoever", &[]), Some(401)),
        ("another name", signed("", &["web.example.org"]), Some(401)),
        ("a name that ends alike", signed("", &["evil-api.example.org"]), Some(401)),
        ("a wildcard", signed("", &["*.example.org"]), Some(401)),
        ("no certificate", None, Some(401)),
        ("another authority", Some(strangers.client("", &["api.example.org"])), None),
        ("an expired one", Some(agent.clients.issue(expired)), None),
        ("one that is not yet good", Some(agent.clients.issue(early)), None),
        ("one for servers", Some(agent.clients.issue(server)), None),
    ] {
        let client = client(&agent.servers, certificate.as_ref());
        assert_eq!(agent.status(&client, &vifs(INSTANCE), &claims), status, "{what}");
    }
    assert_eq!(agent.dropped(), 6 * 3);
    let (status, _) = agent.vifd.vifctl(&["status"]);
    assert!(status.contains("18 identity headers were dropped"), "{status}");
}

#[test]
fn whoever_is_not_known_is_told_how_to_be_and_may_ask_whether_vifd_lives() {
    let agent = Agent::start("'api.example.org'", "");
    let nobody = client(&agent.servers, None);
    for (path, status) in [("/live", 200), ("/ready", 200)] {
        assert_eq!(agent.status(&nobody, path, &[]), Some(status), "{path}");
    }
    assert_eq!(agent.ask(&nobody, "/ready", &[]).unwrap().body, r#"{"ready":true}"#, "it says no more to everybody");
    let versions = agent.ask(&nobody, "/", &[]).unwrap();
    assert!(versions.body.contains("\"https://x/v2.1/\""), "links lead back by TLS: {versions:?}");
    let refused = agent.ask(&nobody, &vifs(INSTANCE), &[]).unwrap();
    assert!(refused.header("www-authenticate").is_some(), "{refused:?}");
    assert_eq!(refused.json()["unauthorized"]["code"], 401);
    let refused = agent.ask(&nobody, &(vifs(INSTANCE) + ".xml"), &[]).unwrap();
    assert!(refused.body.contains("<unauthorized xmlns=") && refused.body.contains("code=\"401\""), "{refused:?}");
    let refused = agent.ask(&nobody, "/host/v1/instances", &[]).unwrap();
    assert_eq!(refused.json()["error"]["code"], "unauthorized");
}

#[test]
fn a_version_of_tls_that_is_too_old_is_refused() {
    let agent = Agent::start("'api.example.org'", "min_version = '1.3'");
    for (version, status) in [(&TLS13, Some(200)), (&TLS12, None)] {
        assert_eq!(agent.status(&client_of(&[version], &agent.servers, None), "/live", &[]), status, "{version:?}");
    }
    let agent = Agent::start("'api.example.org'", "");
    assert_eq!(agent.status(&client_of(&[&TLS12], &agent.servers, None), "/live", &[]), Some(200));
    let openssl = Command::new("openssl")
        .args(["s_client", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0", "-connect", &agent.vifd.tcp().to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&openssl.stderr);
    assert!(!openssl.status.success() && said.contains(" alert "), "{said}");
}

#[test]
fn who_speaks_no_tls_or_stops_in_the_middle_of_it_keeps_nobody_from_asking() {
    let agent = Agent::start("'api.example.org'", "");
    let begin = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(agent.vifd.tcp()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    // A record that announces a hello of 512 bytes, and some of it.
    let half_open: Vec<_> = (0..100).map(|_| begin(b"\x16\x03\x01\x02\x00\x01\x00")).collect();
    let silent: Vec<_> = (0..100).map(|_| begin(b"")).collect();
    let mut answer = Vec::new();
    let _ = begin(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&answer));
    let _ = begin(&[0; 1000]).read_to_end(&mut answer);
    assert_eq!(agent.status(&client(&agent.servers, None), "/live", &[]), Some(200));
    drop((half_open, silent));
}

#[test]
fn new_certificates_are_used_and_bad_ones_are_not() {
    let agent = Agent::start("'api.example.org'", "");
    let live = |client: &Arc<ClientConfig>| agent.status(client, "/live", &[]) == Some(200);
    let serves = |authority: &Authority| live(&client(authority, None));
    assert!(serves(&agent.servers));

    let second = Authority::new();
    second.server().write(&agent.path("server.crt"), &agent.path("server.key"));
    eventually("the new certificate is used", || serves(&second).then_some(()));
    assert!(!serves(&agent.servers));

    let complains = |count: usize| agent.vifd.log().matches("the old certificates stay in use").count() >= count;
    for (count, bad) in [(1, "-----BEGIN CERTIFICATE-----\nrubbish\n"), (2, "")] {
        fs::write(agent.path("server.crt"), bad).unwrap();
        eventually("it complains", || complains(count).then_some(()));
        assert!(serves(&second));
    }
    fs::remove_file(agent.path("server.key")).unwrap();
    eventually("it complains", || complains(3).then_some(()));
    assert!(serves(&second));

    let third = Authority::new();
    third.server().write(&agent.path("server.crt"), &agent.path("server.key"));
    eventually("the third certificate is used", || serves(&third).then_some(()));

    // Of clients too.
    let strangers = Authority::new();
    let api = client(&third, Some(&strangers.client("", &["api.example.org"])));
    assert!(!live(&api));
    strangers.write(&agent.path("clients.crt"));
    eventually("the new authority is trusted", || live(&api).then_some(()));
}

#[test]
fn sighup_has_certificates_read_again() {
    let (servers, clients, dir) = Agent::prepare();
    // A link to a link: of the second one's directory vifd knows nothing.
    let path = |name: &str| dir.path().join(name);
    for name in ["live", "archive"] {
        fs::create_dir(path(name)).unwrap();
    }
    let link = |from: &str, to: &str| std::os::unix::fs::symlink(path(to), path(from)).unwrap();
    fs::rename(path("server.crt"), path("archive/1.crt")).unwrap();
    fs::rename(path("server.key"), path("archive/1.key")).unwrap();
    let second = Authority::new();
    second.server().write(&path("archive/2.crt"), &path("archive/2.key"));
    for kind in ["crt", "key"] {
        link(&format!("live/{kind}"), &format!("archive/1.{kind}"));
        link(&format!("server.{kind}"), &format!("live/{kind}"));
    }
    let agent = (servers, clients, dir).begin("'api.example.org'", "");
    for kind in ["crt", "key"] {
        fs::remove_file(agent.path(&format!("live/{kind}"))).unwrap();
        std::os::unix::fs::symlink(agent.path(&format!("archive/2.{kind}")), agent.path(&format!("live/{kind}")))
            .unwrap();
    }
    output(Command::new("kill").args(["-HUP", &agent.vifd.pid().to_string()]));
    eventually("the new certificate is used", || {
        agent.status(&client(&second, None), "/live", &[]).filter(|status| *status == 200)
    });
}

#[test]
fn a_file_that_cannot_be_used_at_the_start_is_named() {
    let (_, _, dir) = Agent::prepare();
    for (name, contents) in [("server.crt", ""), ("server.key", "rubbish"), ("clients.crt", "rubbish")] {
        fs::write(dir.path().join(name), contents).unwrap();
        let config = format!(
            "socket = '{0}/s'\ncache = ''\n[tcp]\nlisten = '127.0.0.1:0'\nproxies = ['x']\n[tcp.tls]\n\
             certificate = '{0}/server.crt'\nkey = '{0}/server.key'\nclient_ca = '{0}/clients.crt'\n",
            dir.path().display()
        );
        fs::write(dir.path().join("vifd.toml"), config).unwrap();
        let output = Command::new(VIFD).arg("--config").arg(dir.path().join("vifd.toml")).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(name), "{said}");
    }
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_process_that_is_not_of_the_sockets_group_gets_nothing() {
    let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let config = format!("socket_mode = '0666'\nsocket_group = '4242'\n[libvirt]\nuris = ['{HOST}']\n");
    let vifd = Vifd::start(Command::new(VIFD), dir.path(), &config);
    vifd.wait_ready();
    let ask = |user: &[&str], path: &str| {
        let curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", CONFIRMED, "-H", OWN, "-H", ADMIN];
        let socket = vifd.socket.to_str().unwrap();
        let url = format!("http://x{path}");
        output(Command::new("setpriv").args(user).args(curl).args(["--unix-socket", socket, &url]))
    };
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let member = ["--reuid=65534", "--regid=4242", "--clear-groups"];
    let also_member = ["--reuid=65534", "--regid=65534", "--groups=65534,4242"];
    let root_group = ["--reuid=65534", "--regid=0", "--clear-groups"];
    for (user, status) in [(nobody, "403"), (root_group, "403"), (member, "200"), (also_member, "200")] {
        for path in ["/host/v1/sync", &vifs(INSTANCE), &vifs(OWNERLESS)] {
            assert_eq!(ask(&user, path), status, "{user:?} {path}");
        }
        assert_eq!(ask(&user, "/live"), "200", "{user:?}");
    }
    let (said, status) = vifd.vifctl(&["list"]);
    assert_eq!(status, Some(0), "{said}");
}
