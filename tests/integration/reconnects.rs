//! Connections to libvirt that are cut, and a socket that is gone: what is lost comes back, and nothing is left over.

use std::{
    fs, io,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::Value;

use crate::{
    guests::{agree, uuid},
    support::{eventually, hypervisor::Hypervisor, vifd::Vifd},
};

/// Between vifd and libvirtd, so that connections can be cut at once and by the hundred.
struct Relay {
    socket: PathBuf,
    open: Arc<Mutex<Vec<UnixStream>>>,
}

impl Relay {
    fn start(socket: PathBuf, to: PathBuf) -> Self {
        let listener = UnixListener::bind(&socket).unwrap();
        let open = Arc::new(Mutex::new(Vec::new()));
        let relay = Self { socket, open: Arc::clone(&open) };
        // It ends with the process; a thread for each direction ends with its connection.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), UnixStream::connect(&to).unwrap());
                open.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        relay
    }

    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn uri(&self, driver: &str) -> String {
        format!("{driver}+unix:///system?socket={}", self.socket.display())
    }
}

/// What a leak would add to.
#[derive(Debug)]
struct Holdings {
    threads: usize,
    descriptors: usize,
    clients: usize,
}

fn holdings(hypervisor: &Hypervisor, pid: &str) -> Holdings {
    let entries = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    let clients = hypervisor.run("virt-admin -c libvirtd:///system client-list libvirtd");
    Holdings { threads: entries("task"), descriptors: entries("fd"), clients: clients.lines().count() }
}

impl Holdings {
    fn is_within(&self, other: &Self) -> bool {
        self.threads <= other.threads && self.descriptors <= other.descriptors && self.clients <= other.clients
    }
}

fn resident_kib(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn qemu(sync: &Value) -> &Value {
    &sync["sources"]["hypervisors"][0]
}

/// Since when each hypervisor is followed, once it is so not only since `before`.
fn followed_since(vifd: &Vifd, before: &[Value]) -> Vec<Value> {
    let hypervisors = |sync: &Value| sync["sources"]["hypervisors"].as_array().unwrap().clone();
    let again =
        |sync: &Value| hypervisors(sync).iter().all(|one| one["state"] == "synced" && !before.contains(&one["since"]));
    let sync = vifd.wait("synced again", "/host/v1/sync", again);
    hypervisors(&sync).iter().map(|one| one["since"].clone()).collect()
}

#[test]
#[ignore = "needs root: run by make test"]
fn two_thousand_lost_connections_leave_nothing_behind() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 2);
    let socket = |name: &str| hypervisor.dir().join(name);
    let relay = Relay::start(socket("relay"), socket("run/libvirt/libvirt-sock-ro"));
    let (qemu, lxc) = (relay.uri("qemu"), relay.uri("lxc"));
    let vifd = hypervisor.vifd(&format!("[libvirt]\nuris = ['{qemu}', '{lxc}']\nretry_interval = '5ms'\n"));
    let pid = vifd.daemon_pid();

    let mut last = followed_since(&vifd, &[]);
    let mut cut = |times: u32| {
        for _ in 0..times {
            // Both hypervisors are lost.
            relay.cut();
            last = followed_since(&vifd, &last);
        }
    };
    // What is kept for good is so by then: allocations of libvirt's first times, the opened journal, and as many recent
    // changes as are kept.
    cut(600);
    let (begin, resident) = (holdings(&hypervisor, &pid), resident_kib(&pid));
    cut(400);
    let mut end = holdings(&hypervisor, &pid);
    eventually("the last threads and connections end", || {
        end = holdings(&hypervisor, &pid);
        end.is_within(&begin).then_some(())
    });
    let grown = resident_kib(&pid).saturating_sub(resident);
    eprintln!("{begin:?} after 1,200 losses, {end:?} after 2,000; {resident} KiB, then {grown} KiB more");
    assert!(grown < 1024, "{grown} KiB in 800 losses");

    hypervisor.create_guest(2, 1);
    agree(&hypervisor, &vifd, "two thousand lost connections and a new guest");
}

#[test]
#[ignore = "needs root: run by make test"]
fn a_socket_that_is_gone_is_told_and_waited_for() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 1);
    let vifd = hypervisor.vifd("");
    let list = format!("/v2.1/servers/{}/os-virtual-interfaces", uuid(1));
    let socket = hypervisor.dir().join("run/libvirt/libvirt-sock-ro");
    let away = socket.with_extension("away");
    fs::rename(&socket, &away).unwrap();
    // The connections that are open do not need it.
    hypervisor.create_guest(2, 1);
    agree(&hypervisor, &vifd, "a guest started while the socket is gone");
    assert_eq!(vifd.request("GET", &list, &[]).status, 200);

    disconnect_everybody(&hypervisor);
    let stale = |sync: &Value| {
        let reason = qemu(sync)["reason"].as_str().unwrap_or_default();
        qemu(sync)["state"] == "stale" && reason.contains("No such file or directory")
    };
    vifd.wait("the socket is missed", "/host/v1/sync", stale);
    assert_eq!(vifd.request("GET", &list, &[]).status, 203);
    fs::rename(&away, &socket).unwrap();
    eventually("current again", || (vifd.request("GET", &list, &[]).status == 200).then_some(()));
    agree(&hypervisor, &vifd, "the socket came back");
}

fn disconnect_everybody(hypervisor: &Hypervisor) {
    hypervisor.run(
        "virt-admin -c libvirtd:///system client-list libvirtd | awk '$1 ~ /^[0-9]+$/ { print $1 }' | \
         while read -r id; do virt-admin -c libvirtd:///system client-disconnect libvirtd $id || true; done",
    );
}
