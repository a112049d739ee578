//! What vifd does with the real things: a kernel, libvirt, QEMU guests and containers.
//!
//! * `daemon` starts the real binary and looks at its flags, signals, files and exit status;
//! * `connections` is the client that nobody wishes for: slow, many, or not speaking HTTP;
//! * `libvirt` follows libvirt's own test driver, without root;
//! * `commands` reads what `vifctl` writes: formats, widths, colours;
//! * `netlink` follows the kernel in a network namespace of its own;
//! * `guests` runs guests on a private hypervisor and compares every answer with what libvirt and `ip` say;
//! * `kinds` does so for each kind of interface, and each record is compared whole;
//! * `definitions` has persistent definitions that differ from what runs;
//! * `starts` has starts hang;
//! * `addresses` gives guests IP addresses, by real ARP and NDP exchanges and real DHCP leases;
//! * `ovsdb` does so with a real Open vSwitch;
//! * `path` follows frames through every wiring, and breaks it;
//! * `completions` presses TAB in real shells;
//! * `top` shows rates in a real terminal;
//! * `proxies` has two agents behind nginx and HAProxy, and users of a real Keystone;
//! * `reread` asks for an instance to be read again;
//! * `reconnects` cuts the connections to libvirt;
//! * `clock` sets the wall clock;
//! * `clients` asks as real clients of OpenStack do;
//! * `openapi` asks everything that the OpenAPI document describes, by a fuzzer;
//! * `identity` asks as everybody who may and who may not: by certificates, headers, the socket's peer;
//! * `keystone` does so with the tokens of a real Keystone;
//! * `metrics` scrapes as Prometheus does, while real guests send and receive;
//! * `monitoring` has a real Prometheus scrape, with the packaged rules and the queries of the dashboard;
//! * `events` follows the stream of changes;
//! * `history` asks the flight recorder;
//! * `watch` has `vifctl` follow it;
//! * `disk` takes no records;
//! * `findings` provokes each finding and mends it, and looks for findings where all is well;
//! * `bug_reports` looks for secrets and names in what it writes;
//! * `offline` asks where there is no daemon, and no libvirt either;
//! * `split_daemons` changes from libvirtd to virtqemud and back; by `make test-split-daemons` alone;
//! * `chaos` does what comes, at random, with faults, on one host and on two that guests migrate between, and compares
//!   every answer after each step.
//!
//! All but the first four and most of `identity` need root and are ignored without it; `make test` runs everything.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod addresses;
mod bug_reports;
mod chaos;
mod clients;
mod clock;
mod commands;
mod completions;
mod connections;
mod daemon;
mod definitions;
mod disk;
mod events;
mod findings;
mod guests;
mod history;
mod identity;
mod incidents;
mod keystone;
mod kinds;
mod libvirt;
mod metrics;
mod monitoring;
mod netlink;
mod offline;
mod openapi;
mod ovsdb;
mod path;
mod proxies;
mod reconnects;
mod reread;
mod split_daemons;
mod starts;
mod support;
mod top;
mod watch;
