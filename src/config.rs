//! The configuration: one file in TOML, every key optional, unknown keys refused; the environment and the command line
//! override it.
//!
//! What a section or key means is said once, here: the comments below are the text of `packaging/vifd.toml` and of
//! `vifd --default-config` ([`default_file`]). Values are parsed into what they mean while the configuration is read
//! ([`Layers`]), so that every error names key and place.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::value::Human;
pub use self::{
    document::default_file,
    layers::{Assignment, ConfigError, Layers, Loaded},
    metrics::MetricsConfig,
    tcp::{KeystoneConfig, KeystoneUrl, ProxyName, TcpConfig, TlsConfig, TlsVersion},
    template::NameTemplate,
    value::{Connections, FileMode, Group, LogFilter, LogFormat, WorkerThreads},
};

mod document;
mod layers;
mod metrics;
mod tcp;
mod template;
mod value;

/// Where the file is looked for when `--config` does not name one. It may be absent there.
pub const DEFAULT_PATH: &str = "/etc/vifd/vifd.toml";
/// Where the daemon serves, and `vifctl` looks for it, when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/vifd/vifd.sock";

/// Everything that can be configured. Sections come after plain keys, as TOML wants them.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to serve HTTP over a Unix socket.
    pub socket: PathBuf,
    /// The permissions of that socket, in octal. Root and the members of its group may see everything, others who can
    /// connect nothing.
    pub socket_mode: FileMode,
    /// The group of that socket, by name or number. If left out: the one as which vifd runs. vifd must be a member of
    /// another one (`SupplementaryGroups=` in its unit).
    pub socket_group: Option<Group>,
    /// Where the records are kept, so that the next start has something to say at once. An empty string keeps none.
    pub cache: PathBuf,
    /// How the cloud names its domains: Nova's `instance_name_template`, with one `%x` or `%d`.
    pub instance_name_template: NameTemplate,
    /// Threads that serve requests and follow the kernel, 1 to 64. More cost memory and bring little.
    pub worker_threads: WorkerThreads,
    /// What to log: `error`, `warn`, `info`, `debug` or `trace`, for all of vifd or by module
    /// (`"info,vifd::source=debug"`). A changed one is in force after `systemctl reload vifd`.
    pub log: LogFilter,
    /// In which form: `"journal"` for systemd's journal, with fields such as `INSTANCE_UUID=`, `"text"`, `"json"`.
    /// `"auto"` is `"journal"` where stderr leads to the journal, else `"text"`.
    pub log_format: LogFormat,
    /// Who may ask over TCP, and how they prove who they are. Without this section, vifd serves its Unix socket alone.
    #[serde(deserialize_with = "tcp::checked")]
    pub tcp: Option<TcpConfig>,
    /// The flight recorder.
    pub journal: JournalConfig,
    /// Connections and requests.
    pub http: HttpConfig,
    /// `/metrics` is served wherever administrators may ask: over the Unix socket, and over TCP to those who prove who
    /// they are. For scrapers that cannot, it can have an address of its own, where nothing else is served.
    #[serde(deserialize_with = "metrics::checked")]
    pub metrics: MetricsConfig,
    /// The hypervisors.
    pub libvirt: LibvirtConfig,
    /// The kernel's links, and its neighbours.
    pub netlink: NetlinkConfig,
    /// The Open vSwitch database. Where there is no socket, there is no Open vSwitch, and vifd does without. Where there
    /// is one, vifd must be allowed to connect, which takes write permission on it: usually only root has that, and
    /// ovsdb-server's unit can give it (`ExecStartPost=setfacl -m u:vifd:rw /run/openvswitch/db.sock`). vifd itself
    /// never writes. To do without although there is one, name a path where there is nothing.
    pub ovsdb: OvsdbConfig,
    /// The DHCP leases of libvirt networks.
    pub leases: LeasesConfig,
    /// What is not as it should be.
    pub findings: FindingsConfig,
}

/// `[journal]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Where every change is recorded, for `vifctl history`. An empty string records none.
    pub path: PathBuf,
    /// How large that may become, in bytes: then the oldest is deleted.
    pub max_size: u64,
    /// How long what has ended is kept.
    #[serde(with = "Human")]
    pub max_age: Duration,
}

/// `[http]`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// How many connections are served at a time, on each listener. Further ones get 503 at once.
    pub connections: Connections,
    /// How long a request may take: its head from the first byte, its body and the answer together, and an answer that
    /// the client does not read.
    #[serde(with = "Human")]
    pub request_timeout: Duration,
    /// How long a connection may be idle between requests: longer than proxies keep theirs, since an idle connection
    /// should be closed by the side that would use it.
    #[serde(with = "Human")]
    pub idle_timeout: Duration,
    /// How often a stream of events says at least something, so that both ends notice when the other is gone.
    #[serde(with = "Human")]
    pub event_heartbeat: Duration,
    /// How many requests a minute are answered for one project; 0 is no limit.
    pub requests_per_project: u32,
    /// How many requests a minute are answered to one address, for all its projects together; 0 is no limit. An API tier
    /// is one address.
    pub requests_per_peer: u32,
}

/// `[libvirt]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LibvirtConfig {
    /// The hypervisors of this host, for their domains are joined with its devices. If left out: every one of
    /// `qemu:///system` and `lxc:///system` that it offers.
    pub uris: Option<Vec<String>>,
    /// How often to read every domain again although no event asked for it: events should suffice, this bounds how long
    /// a lost one can mislead.
    #[serde(with = "Human")]
    pub resync_interval: Duration,
    /// How long one libvirt call may take. Then the domain in question is marked as not answering, alone; where it was no
    /// call about one domain, the connection is given up. libvirt answers within milliseconds.
    #[serde(with = "Human")]
    pub call_timeout: Duration,
    /// How often to ask whether the connection still lives; it is given up after three intervals without an answer.
    #[serde(with = "Human")]
    pub keepalive_interval: Duration,
    /// The longest pause between attempts to get a lost connection back. The first come sooner.
    // It costs nothing while libvirt is away for days, and does not keep an operator waiting who has just started it.
    #[serde(with = "Human")]
    pub retry_interval: Duration,
}

/// `[netlink]`: for the links, and for the neighbours
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetlinkConfig {
    /// The receive buffer for events, in bytes: 8 MiB hold thousands of changes made at once. Without `CAP_NET_ADMIN` the
    /// kernel grants no more than `net.core.rmem_max`. Sockets of `vifd-netlink.socket` have what is said there.
    pub receive_buffer: usize,
    /// How often to list everything again although no event asked for it.
    #[serde(with = "Human")]
    pub resync_interval: Duration,
}

/// `[ovsdb]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OvsdbConfig {
    /// The database's socket.
    pub socket: PathBuf,
    /// How often to read every row again although no event asked for it.
    #[serde(with = "Human")]
    pub resync_interval: Duration,
    /// How long the database may take for its first answer.
    #[serde(with = "Human")]
    pub call_timeout: Duration,
    /// How often to ask, while the database is silent, whether the connection still lives; it is given up after three
    /// intervals without a word.
    // As Open vSwitch's own tools do.
    #[serde(with = "Human")]
    pub keepalive_interval: Duration,
}

/// `[leases]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LeasesConfig {
    /// Where libvirt keeps the leases of its networks, in files `BRIDGE.status`. Where there is no such directory, there
    /// are no such networks, and vifd does without.
    pub directory: PathBuf,
    /// How often to read every file again although no event asked for it.
    #[serde(with = "Human")]
    pub resync_interval: Duration,
}

/// `[findings]`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FindingsConfig {
    /// The shortest time between two looks: one follows a change, and others follow until everything is confirmed, for
    /// which it must be seen three times.
    #[serde(with = "Human")]
    pub look_interval: Duration,
    /// How long a device or port must have been nobody's before it counts as leaked. A cloud makes it before the guest,
    /// and Nova waits for five minutes (`vif_plugging_timeout`) until it is wired.
    #[serde(with = "Human")]
    pub leaked_after: Duration,
    /// How often to read the counters of all links, to see whether packets are lost; `"0s"` never does.
    #[serde(with = "Human")]
    pub interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(DEFAULT_SOCKET),
            socket_mode: FileMode::owner_and_group(),
            socket_group: None,
            cache: PathBuf::from("/var/lib/vifd/cache"),
            instance_name_template: NameTemplate::default(),
            worker_threads: WorkerThreads::default(),
            log: LogFilter::info(),
            log_format: LogFormat::Auto,
            tcp: None,
            journal: JournalConfig::default(),
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
            connections: Connections::default(),
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
