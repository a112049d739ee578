//! vifd knows which virtual interfaces each instance has, and which device of this host carries each of them.
//!
//! This page is the map for readers of the code; users begin with `README.md`.
//!
//! # Three ideas
//!
//! 1. **Events are hints; state is truth.** An event says "look again". A lost, doubled or reordered one costs a little
//!    time and no correctness.
//! 2. **Whole snapshots, published.** Every stage hands on one complete, immutable value; readers clone an `Arc`.
//!    No lock is held across an await, and no queue between stages can fill.
//! 3. **Stale is not empty.** A source that is lost keeps its last snapshot, which says since when and why it is
//!    stale. A restart of libvirt never looks as if every instance had been deleted.
//!
//! # How data flows
//!
//! ```text
//! libvirtd --events--> source::libvirt (a session for each URI) --Snapshot<Domains>--+
//!                          ^                                                         |
//!                          +---- doubtful instances: "read these again" -----+       v
//!                                                                            +-- inventory --Arc<Inventory>--> http
//! kernel --rtnetlink--> source::netlink ----------Snapshot<Links>, <Neighbours>------^
//! ovsdb-server --JSON-RPC--> source::ovsdb ------------------Snapshot<Ports>---------^
//! dnsmasq --files--> source::leases ------------------------Snapshot<Leases>---------^
//! ```
//!
//! Imports point against the flow: `http` knows `inventory`, which knows the sources, which know nobody.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`daemon`] | the wiring: every task, every channel, the shutdown |
//! | [`handed`], [`watchdog`] | systemd: sockets that it hands over, and what its watchdog is fed by |
//! | [`source`] | [`Snapshot`](source::Snapshot), [`SyncState`](source::SyncState), and what a source is |
//! | [`source::moment`] | since when: ages that no step of the wall clock makes wrong |
//! | [`source::libvirt`] | a hypervisor's domains: a session for each connection, whose calls are made by threads |
//! | [`source::libvirt::domain`] | the pure decoding of domain XML |
//! | [`source::libvirt::doubts`] | what the kernel holds against libvirt, made into hints |
//! | [`source::libvirt::events`] | libvirt's C callbacks: the only `unsafe` code |
//! | [`source::libvirt::reread`] | instances that somebody asks to be read again |
//! | [`source::netlink`] | tables of the kernel: following and listing them |
//! | [`source::netlink::link`], [`source::netlink::neighbour`] | its links, its neighbours: the pure decoding of messages, and replaying them |
//! | [`source::netlink::function`] | the virtual functions of network cards: pure decoding, and reading sysfs |
//! | [`source::ovsdb`] | the Open vSwitch database: following it, where there is one |
//! | [`source::ovsdb::rpc`], [`source::ovsdb::rows`] | its messages and its rows: pure decoding |
//! | [`source::leases`] | the DHCP leases of libvirt networks |
//! | [`source::processes`] | guests by their processes, for who asks without libvirt: pure decoding, and reading `/proc` |
//! | [`inventory`] | the truth: instances with their VIFs and links, look-ups by everything, and the pure join |
//! | [`inventory::changes`], [`inventory::record`] | what differs between two of them, told by records that stand for themselves |
//! | [`inventory::recent`] | the recent changes, for whoever follows them |
//! | [`findings`] | what is not as it should be: rules, and a task that confirms what they find |
//! | [`health`] | what parts of the daemon say about themselves |
//! | [`inventory::path`] | which way the frames of a VIF take on this host, and where it is broken |
//! | [`cache`] | domains and ports on disk, for the first answers after a restart |
//! | [`journal`] | the flight recorder: every change of record on disk, and reading it |
//! | [`http`] | the Compute API ([`http::compute`]) and the host's own API ([`http::host`]) |
//! | `http::openapi` | the routes with their descriptions, and the document that is made from them |
//! | [`http::auth`] | who asks: by the socket, a proxy's word, Keystone; and what they may see |
//! | [`http::tls`] | TLS, and certificates that change |
//! | [`http::serve`] | connections: how many, how slow, and their end |
//! | [`http::metrics`] | what Prometheus is told |
//! | [`http::requests`], [`http::limits`] | what happens to every request before and after its handler; rate limits |
//! | [`cli`] | `vifctl` |
//! | [`arguments`] | the command line of `vifd` |
//! | [`meters`] | what vifd counts of its own doings, for `/metrics` |
//! | [`config`], [`telemetry`], [`mac`], [`pci`] | leaves |
//!
//! # Words
//!
//! A *domain* is what libvirt calls a guest; an *instance* is a domain joined with its devices. A *VIF* is one virtual
//! interface of an instance. A *target* is the device name in the domain XML; a *link* is a network device of the
//! kernel, identified by its index. A source is *synced*, *stale* or *pending*, or *absent* where a
//! host has no such thing. A *port* is one of Open vSwitch's. A *neighbour* is whoever
//! the kernel's ARP and NDP tables say has an IP address; a *segment* is what of this host's links and switches a frame
//! crosses without a router.
//!
//! # Rules
//!
//! * Nothing on the request path calls libvirt, the kernel or another daemon. Two exceptions: the explicit question for
//!   counters, of a scrape too, which goes through a task of its own, and a token that is not known yet, which Keystone must see.
//! * libvirt is opened read-only, and only calls that wait for no job are made; [`source::libvirt`] lists them.
//! * Input is data until it is parsed, and no input makes vifd panic. One bad domain or link costs a warning.

pub mod arguments;
pub mod cache;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod findings;
pub mod handed;
pub mod health;
pub mod http;
pub mod inventory;
pub mod journal;
pub mod mac;
pub mod meters;
pub mod pci;
pub mod source;
pub mod telemetry;
pub mod watchdog;
