//! The configuration file: TOML, every key optional, unknown keys refused.
//!
//! Values are parsed into what they mean while the file is read, so that every error names line and key.

use std::{
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

pub use self::{
    metrics::MetricsConfig,
    tcp::{KeystoneConfig, KeystoneUrl, ProxyName, TcpConfig, TlsConfig, TlsVersion},
    template::NameTemplate,
};

mod metrics;
mod tcp;
mod template;

/// Where the file is looked for when `--config` does not name one. It may be absent there.
pub const DEFAULT_PATH: &str = "/etc/vifd/vifd.toml";

/// Everything that can be configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to serve HTTP over a Unix socket. Default `/run/vifd/vifd.sock`.
    pub socket: PathBuf,
    /// The permissions of that socket, as an octal string. Default `"0660"`: root and the socket's group.
    pub socket_mode: FileMode,
    /// The group of that socket, by name or number: its members are administrators of what is served. Default: the
    /// group as which vifd runs.
    pub socket_group: Option<Group>,
    /// Where the records are kept for the next start; an empty string keeps none. Default `/var/lib/vifd/cache`.
    pub cache: PathBuf,
    /// The flight recorder.
    pub journal: JournalConfig,
    /// How the cloud names its domains, for callers that know an instance by its integer id.
    /// Default `instance-%08x`; Nova's `instance_name_template`.
    pub instance_name_template: NameTemplate,
    /// Threads that serve requests and follow the kernel. Default 2: more would only cost memory.
    pub worker_threads: WorkerThreads,
    /// What to log, as `tracing` directives such as `info` or `vifd::source=debug`. Default `info`.
    pub log: LogFilter,
    /// HTTP over TCP, and who may ask there. Default: none.
    pub tcp: Option<TcpConfig>,
    /// Connections and requests.
    pub http: HttpConfig,
    /// Metrics.
    pub metrics: MetricsConfig,
    /// The hypervisors.
    pub libvirt: LibvirtConfig,
    /// The kernel's links.
    pub netlink: NetlinkConfig,
    /// The Open vSwitch database.
    pub ovsdb: OvsdbConfig,
    /// The DHCP leases of libvirt networks.
    pub leases: LeasesConfig,
    /// What is not as it should be.
    pub findings: FindingsConfig,
}

/// `[journal]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Where every change is recorded, for `vifctl history`; an empty string records none. Default
    /// `/var/lib/vifd/journal.db`.
    pub path: PathBuf,
    /// How large that may become, in bytes: then the oldest is deleted. Default 64 MiB.
    pub max_size: u64,
    /// How long what has ended is kept. Default `"90d"`.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
}

/// `[http]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// How many connections are served at a time, on each listener. Further ones get 503 at once. Default 512.
    pub connections: Connections,
    /// How long a request's head may take from its first byte, its body and the answer together, and an answer that the
    /// client does not read. Default `"10s"`.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How long a connection may be idle between requests. Default `"75s"`, which is longer than proxies keep theirs: an
    /// idle connection should be closed by the side that would use it.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How often a stream of events says at least something, so that both ends notice when the other is gone. Default
    /// `"15s"`.
    #[serde(with = "humantime_serde")]
    pub event_heartbeat: Duration,
    /// How many requests a minute are answered for one project; 0 is no limit. Default 60,000.
    pub requests_per_project: u32,
    /// How many requests a minute are answered to one address, of all its projects together; 0 is no limit. Default
    /// 600,000: an API tier is one address.
    pub requests_per_peer: u32,
}

/// `[libvirt]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LibvirtConfig {
    /// The hypervisors of this host. Default: every one of `qemu:///system` and `lxc:///system` that it offers.
    /// They must be of this host: their domains are joined with this host's devices.
    pub uris: Option<Vec<String>>,
    /// How often to read every domain again although no event asked for it. Default `"5m"`: events should suffice,
    /// this bounds how long a lost one can mislead.
    #[serde(with = "humantime_serde")]
    pub resync_interval: Duration,
    /// How long one libvirt call may take. Then the domain in question is marked as not answering, alone; where it was no
    /// call about one domain, the session is given up. Default `"2s"`: libvirt answers within milliseconds.
    #[serde(with = "humantime_serde")]
    pub call_timeout: Duration,
    /// How often to ask whether the connection still lives; it is given up after two unanswered questions, that is
    /// after three intervals. Default `"2s"`.
    #[serde(with = "humantime_serde")]
    pub keepalive_interval: Duration,
    /// The longest pause between attempts to get a lost connection back; the first come sooner. Default `"5s"`: it
    /// costs nothing while libvirt is away for days, and does not keep an operator waiting who has just started it.
    #[serde(with = "humantime_serde")]
    pub retry_interval: Duration,
}

/// `[netlink]`: for the links, and for the neighbours
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetlinkConfig {
    /// The receive buffer for events, in bytes. Default 8 MiB, which holds thousands of changes made at once.
    /// Without `CAP_NET_ADMIN` the kernel grants no more than `net.core.rmem_max`.
    pub receive_buffer: usize,
    /// How often to list everything again although no event asked for it. Default `"5m"`.
    #[serde(with = "humantime_serde")]
    pub resync_interval: Duration,
}

/// `[ovsdb]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OvsdbConfig {
    /// The database's socket. Default `/run/openvswitch/db.sock`. Where there is none, there is no Open vSwitch, and
    /// vifd does without. Where there is one, vifd must be allowed to connect to it; it never writes.
    pub socket: PathBuf,
    /// How often to read every row again although no event asked for it. Default `"5m"`.
    #[serde(with = "humantime_serde")]
    pub resync_interval: Duration,
    /// How long the database may take for its first answer. Default `"10s"`.
    #[serde(with = "humantime_serde")]
    pub call_timeout: Duration,
    /// How often to ask, while the database is silent, whether the connection still lives; it is given up after three
    /// intervals without a word. Default `"5s"`, as Open vSwitch's own tools do.
    #[serde(with = "humantime_serde")]
    pub keepalive_interval: Duration,
}

/// `[leases]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeasesConfig {
    /// Where libvirt keeps the leases of its networks, in files `BRIDGE.status`. Default `/var/lib/libvirt/dnsmasq`.
    /// Where there is none, there are no such networks, and vifd does without.
    pub directory: PathBuf,
    /// How often to read every file again although no event asked for it. Default `"5m"`.
    #[serde(with = "humantime_serde")]
    pub resync_interval: Duration,
}

/// `[findings]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FindingsConfig {
    /// The shortest time between two looks: one follows a change, and others follow until everything is confirmed, for
    /// which it must be seen three times. Default `"5s"`.
    #[serde(with = "humantime_serde")]
    pub look_interval: Duration,
    /// How long a device or port must have been nobody's before it counts as leaked. Default `"6m"`: a cloud makes it before
    /// the guest, and Nova waits for five minutes (`vif_plugging_timeout`) until it is wired.
    #[serde(with = "humantime_serde")]
    pub leaked_after: Duration,
    /// How often to read the counters of all links, to see whether packets are lost; 0 never does. Default `"60s"`.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(DEFAULT_SOCKET),
            socket_mode: FileMode(0o660),
            socket_group: None,
            cache: PathBuf::from("/var/lib/vifd/cache"),
            journal: JournalConfig::default(),
            instance_name_template: NameTemplate::default(),
            worker_threads: WorkerThreads(2),
            log: LogFilter("info".to_owned()),
            tcp: None,
            http: HttpConfig::default(),
            metrics: MetricsConfig::default(),
            libvirt: LibvirtConfig::default(),
            netlink: NetlinkConfig::default(),
            ovsdb: OvsdbConfig::default(),
            leases: LeasesConfig::default(),
            findings: FindingsConfig::default(),
        }
    }
}

/// Where the daemon serves, and `vifctl` looks for it, when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/vifd/vifd.sock";

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/vifd/journal.db"),
            max_size: 64 << 20,
            max_age: Duration::from_secs(90 * 86_400),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connections: Connections(512),
            request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            event_heartbeat: Duration::from_secs(15),
            requests_per_project: 60_000,
            requests_per_peer: 600_000,
        }
    }
}

impl Default for LibvirtConfig {
    fn default() -> Self {
        Self {
            uris: None,
            resync_interval: Duration::from_secs(300),
            call_timeout: Duration::from_secs(2),
            keepalive_interval: Duration::from_secs(2),
            retry_interval: Duration::from_secs(5),
        }
    }
}

impl Default for NetlinkConfig {
    fn default() -> Self {
        Self { receive_buffer: 8 << 20, resync_interval: Duration::from_secs(300) }
    }
}

impl Default for OvsdbConfig {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/openvswitch/db.sock"),
            resync_interval: Duration::from_secs(300),
            call_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(5),
        }
    }
}

impl Default for LeasesConfig {
    fn default() -> Self {
        Self { directory: PathBuf::from("/var/lib/libvirt/dnsmasq"), resync_interval: Duration::from_secs(300) }
    }
}

impl Default for FindingsConfig {
    fn default() -> Self {
        Self {
            look_interval: Duration::from_secs(5),
            leaked_after: Duration::from_secs(360),
            interval: Duration::from_secs(60),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key or value is wrong. The text shows the line and points at it.
    #[error("{}:{line}: {text}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, with the offending line.
        text: String,
    },
}

impl Config {
    /// Reads the file at `path`; without one, the file at [`DEFAULT_PATH`] if there is one, else the defaults.
    ///
    /// # Errors
    /// The file cannot be read, or a key or value in it is wrong.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let text = match (path, fs::read_to_string(path.unwrap_or(Path::new(DEFAULT_PATH)))) {
            (_, Ok(text)) => text,
            (None, Err(error)) if error.kind() == io::ErrorKind::NotFound => String::new(),
            (path, Err(source)) => {
                return Err(ConfigError::Read { path: path.unwrap_or(Path::new(DEFAULT_PATH)).to_owned(), source });
            }
        };
        Self::parse(path.unwrap_or(Path::new(DEFAULT_PATH)), &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            ConfigError::Parse { path: path.to_owned(), line, text: error.to_string().trim_end().to_owned() }
        })
    }
}

/// The permission bits of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FileMode(u32);

impl FileMode {
    /// The bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<String> for FileMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(format!("{text:?} is not a file mode such as \"0660\"")),
        }
    }
}

/// A group of this host, which exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Group(u32);

impl Group {
    /// Its number.
    #[must_use]
    pub fn id(self) -> u32 {
        self.0
    }
}

impl TryFrom<String> for Group {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if let Ok(id) = text.parse() {
            return Ok(Self(id));
        }
        match nix::unistd::Group::from_name(&text) {
            Ok(Some(group)) => Ok(Self(group.gid.as_raw())),
            Ok(None) => Err(format!("there is no group {text:?}")),
            Err(error) => Err(format!("could not look for the group {text:?}: {error}")),
        }
    }
}

/// How many threads the runtime has: 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "usize")]
pub struct WorkerThreads(usize);

impl WorkerThreads {
    /// The number.
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

impl TryFrom<usize> for WorkerThreads {
    type Error = String;

    fn try_from(threads: usize) -> Result<Self, Self::Error> {
        if (1..=64).contains(&threads) { Ok(Self(threads)) } else { Err("must be 1 to 64".to_owned()) }
    }
}

/// How many connections are served at a time: 1 to 100,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "usize")]
pub struct Connections(usize);

impl Connections {
    /// The number.
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

impl TryFrom<usize> for Connections {
    type Error = String;

    fn try_from(connections: usize) -> Result<Self, Self::Error> {
        if (1..=100_000).contains(&connections) { Ok(Self(connections)) } else { Err("must be 1 to 100000".to_owned()) }
    }
}

/// What to log: `tracing` directives.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct LogFilter(String);

impl LogFilter {
    /// What stops vifd, and nothing else.
    #[must_use]
    pub fn errors() -> Self {
        Self("error".to_owned())
    }

    /// The filter.
    #[must_use]
    pub fn filter(&self) -> EnvFilter {
        EnvFilter::builder().parse_lossy(&self.0)
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("{text:?} is not a log filter such as \"info\": {error}")),
        }
    }
}

impl TryFrom<String> for LogFilter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(Path::new("vifd.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = Config::parse(Path::new("x"), "").unwrap();
        assert!(config.tcp.is_none());
        assert_eq!(config.socket_mode.bits(), 0o660);
    }

    #[test]
    fn the_packaged_file_shows_the_defaults() {
        let packaged = include_str!("../packaging/vifd.toml");
        let uncommented: String = packaged
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        let config = Config::parse(Path::new("packaging/vifd.toml"), &uncommented).unwrap();
        let with_uris = |mut config: Config| {
            assert!(config.libvirt.uris.take().is_none_or(|uris| uris.len() == 2));
            // No default, but an example that means something.
            assert!(config.tcp.take().is_none_or(|tcp| tcp.tls.is_some() && tcp.keystone.is_some()));
            config.metrics.listen = None;
            config.socket_group = None;
            format!("{config:?}")
        };
        assert_eq!(with_uris(config), with_uris(Config::default()));
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let text = error("socket = '/x'\n[libvirt]\nresync_intervall = '5m'\n");
        assert!(text.starts_with("vifd.toml:3: ") && text.contains("resync_intervall"), "{text}");
        let text = error("\n[tcp]\nlisten = '0.0.0.0:9774'\nanyone_on_loopback_is_admin = true\n");
        assert!(text.starts_with("vifd.toml:2: ") && text.contains("not a loopback address"), "{text}");
        let text = error("[tcp]\nlisten = '0.0.0.0:9774'\nproxies = [\n'*.example.org']\n");
        assert!(text.starts_with("vifd.toml:3: ") || text.starts_with("vifd.toml:4: "), "{text}");
        assert!(text.contains("*.example.org"), "{text}");
        let text = error("[netlink]\nreceive_buffer = 'big'\n");
        assert!(text.starts_with("vifd.toml:2: ") && text.contains("receive_buffer"), "{text}");
        let text = error("[libvirt]\ncall_timeout = '5 parsecs'\n");
        assert!(text.starts_with("vifd.toml:2: ") && text.contains("call_timeout"), "{text}");
        let text = error("a = [");
        assert!(text.starts_with("vifd.toml:1: "), "{text}");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for text in [
            "worker_threads = 0",
            "[http]\nconnections = 0",
            "[http]\nrequests_per_peer = -1",
            "log = 'vifd=loud'",
            "socket_mode = '9'",
            "socket_mode = '1777'",
            "socket_group = 'no such group'",
            "instance_name_template = 'x'",
        ] {
            assert!(Config::parse(Path::new("x"), text).is_err(), "{text}");
        }
    }
}
