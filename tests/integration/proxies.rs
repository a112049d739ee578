//! nginx and HAProxy, as `packaging/proxy` configures them, before the agents of two hypervisors, with a Keystone.
//!
//! The tier has a network namespace of its own, and a cable to each hypervisor's.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    eventually,
    hypervisor::{Hypervisor, output},
    tls::Authority,
    vifd::Vifd,
};

const KEYSTONE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/keystone");
const NGINX: &str = include_str!("../../packaging/proxy/nginx.conf");
const HAPROXY: &str = include_str!("../../packaging/proxy/haproxy.cfg");

/// The ports at which the two serve. Both configurations say 8774.
const PROXIES: [(&str, u16); 2] = [("nginx", 8774), ("HAProxy", 8775)];

/// A process that ends with its standard input, or when it is killed.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        if self.0.stdin.take().is_none() {
            let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        }
        let _ = self.0.wait();
    }
}

/// The API tier: a Keystone and two proxies.
struct Tier {
    // Dropped in this order: what runs in the namespace, then the namespace.
    programs: Vec<Program>,
    namespace: Program,
    dir: TempDir,
    authority: Authority,
}

impl Tier {
    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
        let mut namespace = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo ready && read _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        ready(&mut namespace);
        let authority = Authority::new();
        let mut tier = Self { programs: Vec::new(), namespace: Program(namespace), dir, authority };
        tier.authority.write(&tier.path("ca.pem"));
        let mut keystone = tier
            .command(KEYSTONE)
            .arg("run")
            .arg(tier.path("keystone"))
            .arg("5000")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        ready(&mut keystone);
        tier.programs.push(Program(keystone));
        tier
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command that will run in the tier's namespace.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.namespace.0.id().to_string(), "--", program]);
        command
    }

    /// A cable to the hypervisor, and the daemon there with a certificate for `node{number}.example.org`.
    fn agent(&self, number: u32, hypervisor: &Hypervisor) -> Vifd {
        let (tier, node) = (self.namespace.0.id(), hypervisor.pid());
        output(Command::new("sh").args([
            "-ec",
            &format!(
                "ip link add name node{number} netns {tier} type veth peer name mgmt0 netns {node}
             nsenter --net --target {tier} ip address add 10.97.{number}.1/24 dev node{number}
             nsenter --net --target {tier} ip link set node{number} up
             nsenter --net --target {node} ip address add 10.97.{number}.2/24 dev mgmt0
             nsenter --net --target {node} ip link set mgmt0 up"
            ),
        ]));
        self.daemon(number, hypervisor)
    }

    /// The daemon there, again.
    fn daemon(&self, number: u32, hypervisor: &Hypervisor) -> Vifd {
        let file = |name: &str| hypervisor.dir().join(name);
        self.authority.server_named(&[&format!("node{number}.example.org")]).write(&file("tls.crt"), &file("tls.key"));
        fs::write(file("password"), "s3cret\n").unwrap();
        hypervisor.vifd(&format!(
            "[tcp]\nlisten = '10.97.{number}.2:9774'\n\
             [tcp.tls]\ncertificate = '{}'\nkey = '{}'\nclient_ca = '{ca}'\n\
             [tcp.keystone]\nurl = 'https://10.97.{number}.1:5001/v3'\nca = '{ca}'\npassword_file = '{}'\n",
            file("tls.crt").display(),
            file("tls.key").display(),
            file("password").display(),
            ca = self.path("ca.pem").display()
        ))
    }

    /// Both proxies, with the packaged configurations: only names, paths and ports are other ones.
    fn proxies(&mut self, instances: &[(String, u32)]) {
        let map =
            |end: &str| instances.iter().map(|(id, node)| format!("{id} node{node}.example.org{end}\n")).collect();
        let write = |name: &str, text: String| fs::write(self.path(name), text).unwrap();
        write("nginx.map", map(";"));
        write("haproxy.map", map(""));
        let names = ["compute.example.org", "10.97.1.1", "10.97.2.1"];
        let pair = |name: &str, of| {
            let (certificate, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
            let pair: crate::support::tls::Pair = of;
            pair.write(&certificate, &key);
            write(&format!("{name}.both"), [certificate, key].map(|path| fs::read_to_string(path).unwrap()).concat());
        };
        pair("server", self.authority.server_named(&names));
        pair("client", self.authority.client("", &["proxy.example.org"]));

        let dir = self.dir.path().display();
        let adapted = |packaged: &str, files: &[(&str, &str)]| {
            let mut text = packaged.to_owned();
            for (packaged, ours) in files {
                assert!(text.contains(packaged), "{packaged}");
                text = text.replace(packaged, &format!("{dir}/{ours}"));
            }
            for number in [1, 2] {
                text = text.replace(&format!("node{number}.example.org:9774"), &format!("10.97.{number}.2:9774"));
            }
            assert!(!text.contains("/etc/"), "{text}");
            text
        };
        let comments = |text: &str| text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        let nginx = adapted(
            &comments(NGINX),
            &[
                ("/etc/nginx/vifd-instances.map", "nginx.map"),
                ("/etc/nginx/compute.example.org.pem", "server.pem"),
                ("/etc/nginx/compute.example.org.key", "server.key"),
                ("/etc/nginx/vifd-client.pem", "client.pem"),
                ("/etc/nginx/vifd-client.key", "client.key"),
                ("/etc/nginx/vifd-ca.pem", "ca.pem"),
            ],
        );
        let mut haproxy = adapted(
            &comments(HAPROXY).replace("bind :8774", "bind :8775"),
            &[
                ("/etc/haproxy/vifd-instances.map", "haproxy.map"),
                ("/etc/haproxy/compute.example.org.pem", "server.both"),
                ("/etc/haproxy/vifd-client.pem", "client.both"),
                ("/etc/haproxy/vifd-ca.pem", "ca.pem"),
            ],
        );
        // How the agents reach Keystone, as they would in a cloud: over TLS, through HAProxy.
        haproxy += &format!(
            "\nfrontend identity\n    bind :5001 ssl crt {dir}/server.both\n    default_backend keystone\n\
             backend keystone\n    server keystone 127.0.0.1:5000\n"
        );
        write("haproxy.cfg", haproxy);
        write("vifd.conf", nginx);
        write(
            "nginx.conf",
            format!(
                "user root; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.log;\nevents {{}}\n\
                 http {{ access_log off; include {dir}/vifd.conf; }}\n"
            ),
        );
        let (nginx, haproxy) = (self.path("nginx.conf"), self.path("haproxy.cfg"));
        let nginx = self.command("nginx").arg("-c").arg(nginx).arg("-e").arg(self.path("nginx.log")).spawn().unwrap();
        let haproxy = self.command("haproxy").arg("-db").arg("-q").arg("-f").arg(haproxy).spawn().unwrap();
        self.programs.extend([Program(nginx), Program(haproxy)]);
    }

    /// A user's token.
    fn token(&self, user: &str, project: &str) -> String {
        let login = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user":
                {"name": user, "domain": {"name": "Default"}, "password": "s3cret"}}},
            "scope": {"project": {"name": project, "domain": {"name": "Default"}}},
        }});
        let answer = output(
            self.command("curl")
                .args(["-sS", "-i", "-H", "content-type: application/json", "-d", &login.to_string()])
                .arg("http://127.0.0.1:5000/v3/auth/tokens"),
        );
        let token = answer.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("x-subject-token").then(|| value.trim().to_owned())
        });
        token.unwrap_or_else(|| panic!("{answer}"))
    }

    /// What one of the proxies answers to a user.
    fn ask(&self, port: u16, method: &str, path: &str, headers: &[&str]) -> Answer {
        let mut curl = self.command("curl");
        curl.args(["-sS", "-i", "-X", method, "--cacert"]).arg(self.path("ca.pem"));
        curl.args(["--connect-to", &format!("compute.example.org:{port}:127.0.0.1:{port}")]);
        for header in headers {
            curl.args(["-H", header]);
        }
        let text = output(curl.arg(format!("https://compute.example.org:{port}{path}")));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// The fault's name and its code.
    fn fault(&self) -> (String, u64) {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let (name, fault) = body.as_object().unwrap().iter().next().unwrap();
        (name.clone(), fault["code"].as_u64().unwrap())
    }
}

/// Waits until a program prints its first line, which begins with "ready".
fn ready(child: &mut Child) {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready"), "it did not start: {line:?}; see above");
}

fn signal(vifd: &Vifd, signal: &str) {
    assert!(Command::new("kill").args([signal, &vifd.daemon_pid()]).status().unwrap().success());
}

#[test]
#[ignore = "needs root: run by make test"]
fn users_reach_every_call_of_the_right_agent_through_nginx_and_haproxy() {
    let mut tier = Tier::start();
    let hypervisors = [Hypervisor::start(), Hypervisor::start()];
    for (number, hypervisor) in (1..).zip(&hypervisors) {
        hypervisor.create_guest(number, number);
    }
    let id = |number: u32| Hypervisor::id(&format!("server_uuid {number}"));
    tier.proxies(&[(id(1), 1), (id(2), 2)]);
    let one = tier.agent(1, &hypervisors[0]);
    let two = tier.agent(2, &hypervisors[1]);
    let admin = format!("X-Auth-Token: {}", tier.token("admin", "admin"));
    let alice = format!("X-Auth-Token: {}", tier.token("alice", "apple"));

    let calls = |id: &str| {
        [
            ("POST", format!("/v2.1/servers/{id}/virtual_interfaces")),
            ("POST", format!("/v1.1/any/servers/{id}/virtual_interfaces.xml")),
            ("GET", format!("/v2/any/servers/{id}/os-virtual-interfaces")),
            ("GET", format!("/v2.1/servers/{}/os-virtual-interfaces", id.to_uppercase())),
            ("GET", format!("/v2.1/servers/{id}/os-interface")),
            ("GET", format!("/v2.1/servers/{id}/no-such-thing")),
            ("DELETE", format!("/v2.1/servers/{id}/os-virtual-interfaces")),
            ("GET", "/v1.1/any/extensions".to_owned()),
            ("GET", "/v1.1/any/extensions/virtual_interfaces.xml".to_owned()),
            ("GET", "/v1.1/any/extensions/no-such-alias".to_owned()),
            ("GET", "/v2.1/limits".to_owned()),
            ("GET", "/v2.1/servers".to_owned()),
        ]
    };
    for (proxy, port) in PROXIES {
        eventually(proxy, || (tier.ask(port, "GET", "/v2.1/extensions", &[&admin]).status == 200).then_some(()));
        for (number, agent) in [(1, &one), (2, &two)] {
            for (method, path) in calls(&id(number)) {
                let direct = agent.request(method, &path, &[]);
                let through = tier.ask(port, method, &path, &[&admin]);
                assert_eq!(through.status, direct.status, "{proxy} {method} {path}: {through:?}");
                if !path.contains("limits") {
                    assert_eq!(through.body, direct.body, "{proxy} {method} {path}");
                }
                assert!(through.head.contains("x-openstack-request-id: req-"), "{proxy} {method} {path}: {through:?}");
            }
        }
        let versions = tier.ask(port, "GET", "/", &[]);
        assert!(
            versions.body.contains(&format!("\"https://compute.example.org:{port}/v2.1/\"")),
            "{proxy}: {versions:?}"
        );
        // Nobody is believed who says himself who he is.
        let path = format!("/v2.1/servers/{}/os-virtual-interfaces", id(1));
        let claims = ["X-Identity-Status: Confirmed", "X-Roles: admin", "X-Project-Id: admin", "X-User-Id: admin"];
        let unproven = tier.ask(port, "GET", &path, &claims);
        assert_eq!((unproven.status, unproven.fault()), (401, ("unauthorized".into(), 401)), "{proxy}");
        assert!(unproven.head.contains("www-authenticate: keystone uri="), "{proxy}: {unproven:?}");
        let own_claims = [&alice, "X-Identity-Status: Confirmed", "X-Roles: admin"];
        let foreign = tier.ask(port, "GET", &path, &own_claims);
        assert_eq!((foreign.status, foreign.fault()), (404, ("itemNotFound".into(), 404)), "{proxy}");
        // An instance that is on no host.
        let nowhere = tier.ask(port, "GET", &path.replace(&id(1), &id(3)), &[&admin]);
        assert_eq!((nowhere.status, nowhere.fault()), (404, ("itemNotFound".into(), 404)), "{proxy}");
    }
    for agent in [&one, &two] {
        assert_eq!(agent.get("/host/v1/sync")["dropped_identity_headers"], 0, "the proxies strip what users claim");
    }

    // An owner sees what is theirs.
    let apple = output(tier.command("curl").args(["-sS", "-H", &alice, "http://127.0.0.1:5000/v3/auth/projects"]));
    let apple: Value = serde_json::from_str(&apple).unwrap();
    let owner = apple["projects"][0]["id"].as_str().unwrap();
    let metadata =
        format!("<instance><name>web</name><owner><project uuid=\"{owner}\">apple</project></owner></instance>");
    hypervisors[0].virsh(
        "qemu:///system",
        &format!(
            "metadata instance-00000001 --uri http://openstack.org/xmlns/libvirt/nova/1.1 --key nova --set '{metadata}'"
        ),
    );
    for (proxy, port) in PROXIES {
        let path = format!("/v2/{owner}/servers/{}/os-virtual-interfaces", id(1));
        eventually(proxy, || (tier.ask(port, "GET", &path, &[&alice]).status == 200).then_some(()));
    }

    // One agent hangs, and then is slow.
    let path = |number| format!("/v2.1/servers/{}/os-virtual-interfaces", id(number));
    signal(&two, "-STOP");
    for (proxy, port) in PROXIES {
        let hung = tier.ask(port, "GET", &path(2), &[&admin]);
        assert!(matches!(hung.status, 503 | 504), "{proxy}: {hung:?}");
        assert_eq!(hung.fault().1, u64::from(hung.status), "{proxy}");
        assert_eq!(tier.ask(port, "GET", &path(1), &[&admin]).status, 200, "{proxy}: the other one answers");
    }
    for (proxy, port) in PROXIES {
        signal(&two, "-STOP");
        std::thread::scope(|scope| {
            let slow = scope
                .spawn(|| tier.ask(port, "POST", &format!("/v2.1/servers/{}/virtual_interfaces", id(2)), &[&admin]));
            std::thread::sleep(std::time::Duration::from_secs(1));
            signal(&two, "-CONT");
            assert_eq!(slow.join().unwrap().status, 202, "{proxy}");
        });
    }

    // One agent is down, and comes back.
    let socket = two.socket.clone();
    two.end("-TERM");
    assert!(!socket.exists());
    for (proxy, port) in PROXIES {
        let down = tier.ask(port, "GET", &path(2), &[&admin]);
        assert_eq!((down.status, down.fault()), (503, ("serviceUnavailable".into(), 503)), "{proxy}");
        assert!(down.head.contains("retry-after: "), "{proxy}: {down:?}");
        assert_eq!(tier.ask(port, "GET", &path(1), &[&admin]).status, 200, "{proxy}: the other one answers");
    }
    let two = tier.daemon(2, &hypervisors[1]);
    for (proxy, port) in PROXIES {
        assert_eq!(tier.ask(port, "GET", &path(2), &[&admin]).status, 200, "{proxy}: it is back");
    }
    drop((one, two));
}
