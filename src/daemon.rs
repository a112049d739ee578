//! The wiring: every task, every channel, and the shutdown.
//!
//! | task | in | out |
//! | --- | --- | --- |
//! | `links`, `neighbours` | the kernel's messages | `Snapshot<Links>`, `Snapshot<Neighbours>` |
//! | `ovsdb` | Open vSwitch's changes of its database | `Snapshot<Ports>` |
//! | `leases` | the files of libvirt's DHCP servers | `Snapshot<Leases>` |
//! | `rereads` | instances that callers ask for | batches of them |
//! | `libvirt` (per hypervisor) | libvirt's events, doubtful instances, those asked for | `Snapshot<Domains>` |
//! | `processes` (of a `private` daemon) | `/proc`, what the hypervisors could not tell | `Snapshot<Domains>` |
//! | `inventory` | all snapshots | `Arc<Inventory>`, doubtful instances |
//! | `changes` | `Arc<Inventory>` | the recent changes, for streams of events |
//! | `journal` | the recent changes, the inventory | rows in the flight recorder's file |
//! | `cache` | domains, ports | the file for the next start |
//! | `births` | the inventory | since when each link exists |
//! | `counters` | questions from `http` and `findings` | counters from the kernel |
//! | `findings` | the inventory, counters, what tasks say of themselves | `Arc<Findings>` |
//! | `http` (Unix socket, TCP or TLS), `metrics` | requests | answers from the inventory |
//! | `reload` | SIGHUP, changed files | what is logged, TLS certificates |
//! | `systemd` | the inventory | `READY=1`, `STATUS=` |
//! | `watchdog` | answers of all other tasks | `WATCHDOG=1` |
//!
//! No task ends before the shutdown; one that does is a bug, and stops the daemon so that systemd starts a fresh one.
//! The shutdown of a `private` daemon begins when its client leaves.

use std::{
    collections::HashSet,
    fs,
    future::pending,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use futures_util::FutureExt;
use rustix::io::Errno;
use sd_notify::NotifyState;
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

pub use self::reload::Settings;
use self::{private::Patience, reload::Reload};
use crate::{
    cache::{self, Records},
    config::{Config, Group, LibvirtConfig},
    findings,
    handed::Handed,
    health::Health,
    http::{
        self, App,
        auth::Authenticator,
        host::events::Events,
        metrics::{Metrics, Scrapes},
        requests::Front,
        serve::{TlsListener, serve, serve_one},
        tls::{self, Tls},
    },
    inventory::{
        self, HypervisorSource, Inventory, Sources,
        births::{self, Births},
        recent::Recent,
    },
    journal::{self, JournalState, history::Journal},
    meters::Meters,
    source::{
        Snapshot, chain, leases,
        libvirt::{self, doubts::Doubts, reread::Rereads},
        moment::Moment,
        netlink::{self, CounterReader, Table, link::Links, neighbour::Neighbours},
        now, ovsdb, processes,
    },
    watchdog::Rounds,
};

mod private;
mod reload;
mod service;

/// What most hosts offer, tried where the configuration names no hypervisor.
const USUAL_HYPERVISORS: [&str; 2] = ["qemu:///system", "lxc:///system"];
/// How long requests under way may take after the shutdown began. systemd would wait for 90 s.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// A daemon whose addresses are bound and known, and which serves nobody yet.
#[derive(Debug)]
pub struct Daemon {
    config: Config,
    door: Door,
    auth: Arc<Authenticator>,
    handed: Handed,
}

/// Where requests come from.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a process has one")]
enum Door {
    /// Whoever may connect.
    Open {
        unix: UnixListener,
        /// The socket's file, if the daemon made it: it goes with the daemon.
        own_socket: Option<PathBuf>,
        tcp: Option<TcpListener>,
        scrapers: Option<TcpListener>,
        tls: Option<Tls>,
        reload: Reload,
    },
    /// One client, which is there already, until it has left.
    Private { client: UnixStream, left: CancellationToken },
}

impl Daemon {
    /// Binds the listeners that were not handed over, and reads certificates.
    ///
    /// # Errors
    /// An address is taken or not ours to bind, or a file cannot be used.
    pub async fn bind(settings: Settings, mut handed: Handed) -> anyhow::Result<Self> {
        let config = settings.loaded.config.clone();
        let tcp_config = config.tcp.as_ref();
        let tls = tcp_config.and_then(|tcp| Some((tcp.tls.as_ref()?, &*tcp.proxies)));
        let tls = tls.map(|(tls, proxies)| tls::open(tls, proxies, config.http.request_timeout)).transpose()?;
        let (tls, certificates) = tls.unzip();
        let reload = Reload::new(settings, certificates).context("could not watch for SIGHUP")?;
        let tcp = bind_tcp(tcp_config.map(|tcp| tcp.listen), &mut handed).await?;
        let scrapers = bind_tcp(config.metrics.listen, &mut handed).await?;
        if let Some(address) = handed.left_over() {
            bail!("systemd listens on {address}, which vifd's configuration does not name");
        }
        let (unix, admins, own_socket) = match handed.unix.take() {
            Some(unix) => {
                let (unix, admins) = http::adopt_unix(unix).context("could not use the socket of systemd")?;
                (unix, admins, None)
            }
            None => {
                let path = &config.socket;
                let bound =
                    http::bind_unix(path, config.socket_mode.bits(), config.socket_group.as_ref().map(Group::id)).await;
                let (unix, admins) = bound.with_context(|| format!("could not listen on {}", path.display()))?;
                (unix, admins, Some(path.clone()))
            }
        };
        let auth = Arc::new(Authenticator::new(admins, tcp_config)?);
        info!(socket = ?unix.local_addr()?, handed_over = own_socket.is_none(), "serving HTTP");
        if let (Some(tcp), Some(config)) = (&tcp, tcp_config) {
            let anyone = config.anyone_on_loopback_is_admin;
            info!(listen = %tcp.local_addr()?, tls = tls.is_some(), anyone, "serving HTTP over TCP");
        }
        if let Some(scrapers) = &scrapers {
            info!(listen = %scrapers.local_addr()?, "serving metrics to whoever can connect");
        }
        Ok(Self { config, door: Door::Open { unix, own_socket, tcp, scrapers, tls, reload }, auth, handed })
    }

    /// Serves until `shutdown` completes.
    ///
    /// # Errors
    /// A task ended before that.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let (own_socket, left) = match &self.door {
            Door::Open { own_socket, .. } => (own_socket.clone(), CancellationToken::new()),
            Door::Private { left, .. } => (None, left.clone()),
        };
        let stop = CancellationToken::new();
        let mut tasks = self.spawn(&stop);
        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            () = left.cancelled() => Ok(()),
            Some(ended) = tasks.join_next() => match ended {
                Ok(name) => Err(anyhow!("the task {name} ended")),
                Err(error) => Err(error).context("a task failed"),
            },
        };
        info!("stopping");
        service::notify(&[NotifyState::Stopping]);
        stop.cancel();
        let drained = async { while tasks.join_next().await.is_some() {} };
        if timeout(SHUTDOWN_TIMEOUT, drained).await.is_err() {
            warn!("left requests unanswered: they took too long");
        }
        // Only a killed daemon leaves its socket behind.
        if let Some(socket) = own_socket {
            let _ = fs::remove_file(socket);
        }
        outcome
    }

    fn spawn(self, stop: &CancellationToken) -> JoinSet<&'static str> {
        let Self { config, door, auth, mut handed } = self;
        let patience = Patience::with(&door);
        let mut tasks = Tasks::default();
        let hypervisors = hypervisors_of(&config.libvirt);
        let meters = Arc::new(Meters::new(hypervisors.iter().map(|(uri, _)| Arc::clone(uri))));
        let health = Health::default();

        let (links_tx, links) = watch::channel(Snapshot::default());
        let socket = handed.netlink(Links::GROUP);
        let follow = netlink::run(config.netlink.clone(), socket, links_tx.clone(), Arc::clone(&meters.links));
        tasks.spawn(named("links", until(stop, patience.limit(links_tx, follow))));
        let (neighbours_tx, neighbours) = watch::channel(Snapshot::default());
        let socket = handed.netlink(Neighbours::GROUP);
        let follow = netlink::run(config.netlink, socket, neighbours_tx.clone(), Arc::clone(&meters.neighbours));
        tasks.spawn(named("neighbours", until(stop, patience.limit(neighbours_tx, follow))));

        let mut records = load_cache(&config.cache);
        let (ports_tx, ports) = watch::channel(records.ports.take().map(Snapshot::from).unwrap_or_default());
        let ovsdb_socket = config.ovsdb.socket.clone();
        let follow = ovsdb::run(config.ovsdb, ports_tx.clone(), Arc::clone(&meters.ovsdb));
        tasks.spawn(named("ovsdb", until(stop, patience.limit(ports_tx, follow))));

        let (leases_tx, leases) = watch::channel(Snapshot::default());
        let follow = leases::run(config.leases, leases_tx.clone(), Arc::clone(&meters.leases));
        tasks.spawn(named("leases", until(stop, patience.limit(leases_tx, follow))));

        let (doubts_tx, doubts) = watch::channel(Doubts::default());
        let (rereads, asked, gather_rereads) = Rereads::new();
        tasks.spawn(named("rereads", until(stop, gather_rereads)));
        let mut followed = Vec::new();
        for ((uri, optional), (_, meters)) in hypervisors.into_iter().zip(&meters.hypervisors) {
            let begin = records.hypervisors.remove(&uri).map(Snapshot::from).unwrap_or_default();
            let (domains_tx, domains) = watch::channel(begin);
            let source = libvirt::Source {
                uri: Arc::clone(&uri),
                config: config.libvirt.clone(),
                tx: domains_tx.clone(),
                doubts: doubts.clone(),
                rereads: asked.clone(),
                meters: Arc::clone(meters),
            };
            tasks.spawn(named("libvirt", patience.limit(domains_tx, libvirt::run(source, stop.clone()))));
            followed.push(HypervisorSource { uri, optional, domains });
        }

        if matches!(door, Door::Private { .. }) {
            let (tx, domains) = watch::channel(Snapshot::default());
            let told = followed.iter().map(|h| (Arc::clone(&h.uri), h.domains.clone())).collect();
            tasks.spawn(named("processes", until(stop, processes::run(told, tx))));
            followed.push(HypervisorSource { uri: processes::URI.into(), optional: false, domains });
        }

        if !config.cache.as_os_str().is_empty() {
            let domains = followed.iter().map(|h| (Arc::clone(&h.uri), h.domains.clone())).collect();
            tasks.spawn(named("cache", cache::run(config.cache, domains, ports.clone(), health.clone(), stop.clone())));
        }

        // The first request finds what is known from the run before, not an inventory that nobody has joined yet.
        let mut sources = Sources { links, neighbours, ports, leases, hypervisors: followed };
        let begin = inventory::join(&sources.view(), &config.instance_name_template, &Inventory::default());
        let (inventory_tx, inventory) = watch::channel(Arc::new(begin));
        let join =
            inventory::run(sources, config.instance_name_template, inventory_tx, doubts_tx, Arc::clone(&meters.joins));
        tasks.spawn(named("inventory", until(stop, join)));

        let (counters, serve_counters) = CounterReader::new();
        tasks.spawn(named("counters", until(stop, serve_counters)));

        let (births_tx, births) = watch::channel(Births::default());
        tasks.spawn(named("births", until(stop, births::run(inventory.clone(), births_tx))));
        let metrics = Metrics {
            meters: Arc::clone(&meters),
            births,
            boot: Moment::boot(),
            start: Moment::now(),
            most: config.metrics.max_interfaces,
        };

        let (recent, follow_changes) = Recent::new(inventory.clone());
        tasks.spawn(named("changes", until(stop, follow_changes)));
        let (journal_tx, journal) = watch::channel(JournalState::Off);
        let journal = Journal::new(&config.journal.path, journal);
        if matches!(door, Door::Open { .. }) && !config.journal.path.as_os_str().is_empty() {
            let record = journal::run(
                config.journal,
                inventory.clone(),
                recent.clone(),
                journal_tx,
                health.clone(),
                stop.clone(),
            );
            tasks.spawn(named("journal", record));
        }
        let events = Events::new(recent, config.http.event_heartbeat, stop.clone());

        let (findings_tx, findings) = watch::channel(Arc::default());
        let look_at = findings::Sources {
            inventory: inventory.clone(),
            counters: counters.clone(),
            health: health.subscribe(),
            socket: config.socket,
            ovsdb: ovsdb_socket,
        };
        tasks.spawn(named("findings", until(stop, findings::run(look_at, config.findings, findings_tx))));

        let epoch = now().as_millisecond();
        let app =
            App { inventory: inventory.clone(), findings, counters, rereads, epoch, auth, metrics, journal, events };
        let front = Front::new(app.clone(), &config.http);
        match door {
            Door::Open { unix, tcp, scrapers, tls, reload, .. } => {
                if let Some(scrapers) = scrapers {
                    let scrapes = Scrapes::new(app, config.http.request_timeout);
                    let serve = serve(scrapers, config.http, scrapes, meters.listener("metrics"), stop.clone());
                    tasks.spawn(named("http for scrapers", serve));
                }
                match (tcp, tls) {
                    (Some(tcp), Some(tls)) => {
                        let listener = TlsListener { tcp, tls };
                        let serve =
                            serve(listener, config.http, Arc::clone(&front), meters.listener("tcp"), stop.clone());
                        tasks.spawn(named("http over TLS", serve));
                    }
                    (Some(tcp), None) => {
                        let serve = serve(tcp, config.http, Arc::clone(&front), meters.listener("tcp"), stop.clone());
                        tasks.spawn(named("http over TCP", serve));
                    }
                    (None, _) => {}
                }
                let serve = serve(unix, config.http, front, meters.listener("unix"), stop.clone());
                tasks.spawn(named("http over the socket", serve));
                tasks.spawn(named("reload", until(stop, reload.run(inventory.clone()))));
            }
            Door::Private { client, left } => {
                let settled = private::settled(inventory.clone());
                let stop_serving = stop.clone();
                let serve = async move {
                    settled.await;
                    // The app stays, as do the tasks that it asks, until everything stops.
                    serve_one(client, config.http, Arc::clone(&front), stop_serving).await;
                    left.cancel();
                    pending::<()>().await
                };
                tasks.spawn(named("http to the client", until(stop, serve)));
            }
        }
        tasks.spawn(named("systemd", until(stop, service::tell(inventory))));
        let Tasks { mut set, rounds } = tasks;
        set.spawn(until(stop, service::feed_watchdog(rounds)).map(|()| "watchdog"));
        set
    }
}

/// What runs, and is asked whether it still does.
#[derive(Default)]
struct Tasks {
    set: JoinSet<&'static str>,
    rounds: Rounds,
}

impl Tasks {
    /// A task that answers with its name when it ends.
    fn spawn<F: Future<Output: Send> + Send + 'static>(&mut self, Named(name, task): Named<F>) {
        let task = self.rounds.include(name, task);
        self.set.spawn(task.map(move |_| name).instrument(info_span!("task", name)));
    }
}

struct Named<F>(&'static str, F);

fn named<F: Future>(name: &'static str, task: F) -> Named<F> {
    Named(name, task)
}

/// Listens on this address, if there is one, or takes what listens there already.
async fn bind_tcp(address: Option<SocketAddr>, handed: &mut Handed) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    if let Some(listener) = handed.tcp(address) {
        return Ok(Some(TcpListener::from_std(listener)?));
    }
    let bound = TcpListener::bind(address).await.map_err(|error| {
        let unit = Errno::from_io_error(&error) == Some(Errno::AFNOSUPPORT);
        let hint = if unit { " (vifd.service allows no network, its tcp.conf does)" } else { "" };
        anyhow!(error).context(format!("could not listen on {address}{hint}"))
    });
    Ok(Some(bound?))
}

/// What the run before knew, for the first answers of this one.
fn load_cache(path: &Path) -> Records {
    if path.as_os_str().is_empty() {
        return Records::default();
    }
    let records = cache::load(path).unwrap_or_else(|error| {
        warn!(path = %path.display(), error = chain(&error), "beginning without the records of the last run");
        Records::default()
    });
    if records.are_from_the_future() {
        warn!("the clock was set back since the records were written: they are older than they seem");
    }
    records
}

/// The configured hypervisors, else the usual ones, which are optional.
fn hypervisors_of(config: &LibvirtConfig) -> Vec<(Arc<str>, bool)> {
    match &config.uris {
        // One that is named twice is one.
        Some(uris) => {
            let mut named = HashSet::new();
            uris.iter().filter(|uri| named.insert(*uri)).map(|uri| (Arc::from(uri.as_str()), false)).collect()
        }
        None => USUAL_HYPERVISORS.map(|uri| (Arc::from(uri), true)).into(),
    }
}

/// Drops the future when vifd stops.
fn until<F: Future>(stop: &CancellationToken, task: F) -> impl Future<Output = ()> + use<F> {
    let stop = stop.clone();
    async move {
        stop.run_until_cancelled(task).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hypervisors_that_the_configuration_names_are_not_optional() {
        let mut config = LibvirtConfig::default();
        assert_eq!(hypervisors_of(&config), [("qemu:///system".into(), true), ("lxc:///system".into(), true)]);
        config.uris = Some(vec!["test:///default".into(); 2]);
        assert_eq!(hypervisors_of(&config), [("test:///default".into(), false)]);
    }
}
