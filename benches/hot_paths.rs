//! What happens at every event and every look-up, without kernel and libvirt: decoding, publishing, the join, the
//! indexes. `cargo bench --bench hot_paths`; for the whole daemon beside others see `compare`.

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokio::sync::watch;
use vifd::{
    config::NameTemplate,
    inventory::{Inventory, View, join},
    mac::MacAddr,
    source::{
        Snapshot, SyncState,
        libvirt::{
            Domains,
            domain::{Domain, DomainState},
        },
        moment::Moment,
        netlink::link::{Link, LinkEvent, Links, RTM_NEWLINK},
        publish,
    },
};

mod host;

/// Payloads of `RTM_NEWLINK` as the kernel sent them.
macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/links/", $name, ".bin")).as_slice()
    };
}

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");

    // A host with Open vSwitch and hybrid plugging has four links for each VIF.
    let kinds = [
        ("tap", recorded!("tap367b74c6-f0")),
        ("qbr", recorded!("br0")),
        ("qvb", recorded!("qvb0")),
        ("qvo", recorded!("qvo0")),
    ];
    let dump: Vec<_> = (0..10_000)
        .zip(kinds.iter().cycle())
        .map(|(n, (kind, recorded))| link_message(recorded, n + 1, &host::device(kind, n / 4)))
        .collect();
    group.throughput(Throughput::Elements(dump.len() as u64));
    group.bench_function("10,000 link messages", |b| {
        b.iter(|| {
            let mut links = Links::default();
            for message in &dump {
                links.apply(LinkEvent::decode(RTM_NEWLINK, message).expect("it was recorded"));
            }
            links
        });
    });

    let documents: Vec<_> = (0..1_000).map(|n| host::domain_xml("kvm", n)).collect();
    group.throughput(Throughput::Elements(documents.len() as u64));
    group.bench_function("1,000 domains of 5 KiB XML", |b| {
        b.iter(|| documents.iter().map(|xml| domain(xml)).collect::<Vec<_>>())
    });
    group.finish();
}

fn publishing(c: &mut Criterion) {
    for n in SIZES {
        let before = links(n);
        let (tx, rx) = watch::channel(synced(before.clone()));
        let (mut current, mut renamed) = (before, false);
        c.bench_function(&format!("publish/one change among {n} links"), |b| {
            b.iter(|| {
                renamed = !renamed;
                current.apply(LinkEvent::Exists(Arc::new(link(7, if renamed { "renamed" } else { "tap" }))));
                publish(&tx, current.clone());
            });
        });
        drop(rx);
    }
}

fn joining(c: &mut Criterion) {
    let template = NameTemplate::default();
    for n in SIZES {
        let mut group = c.benchmark_group(format!("join/{n} VIFs"));
        let first = view(n);
        group.bench_function("first", |b| b.iter(|| join(&first, &template, &Inventory::default())));

        let previous = join(&first, &template, &Inventory::default());
        group.bench_function("again, nothing changed", |b| b.iter(|| join(&first, &template, &previous)));

        let mut renamed = links(n);
        renamed.apply(LinkEvent::Exists(Arc::new(link(7, "renamed"))));
        let renamed = View { links: synced(renamed), ..first.clone() };
        group.bench_function("again, a link was renamed", |b| b.iter(|| join(&renamed, &template, &previous)));

        let mut domains = Domains::clone(&first.hypervisors[0].2.data);
        let mut paused = Domain::clone(domains.known.values().next().expect("there are many"));
        paused.state = DomainState::Paused;
        domains.known.insert(paused.uuid, Arc::new(paused));
        let paused = View { hypervisors: vec![(URI.into(), false, synced(domains))], ..first.clone() };
        group.bench_function("again, a domain changed", |b| b.iter(|| join(&paused, &template, &previous)));

        group.bench_function("drop the one before", |b| {
            b.iter_batched(|| join(&first, &template, &previous), drop, BatchSize::PerIteration);
        });
        group.finish();
    }
}

fn looking_up(c: &mut Criterion) {
    let n = 10_000;
    let inventory = join(&view(n), &NameTemplate::default(), &Inventory::default());
    let number = n / 3;
    let (instance, port, target) = (host::instance_uuid(number), host::port_uuid(number), host::device("tap", number));
    let mac = host::mac(number);
    let parsed: MacAddr = mac.parse().expect("it is one");
    assert!(inventory.instance(instance).is_some() && inventory.link_by_name(&target).is_some());

    let mut group = c.benchmark_group("look up among 10,000");
    group.bench_function("instance by UUID", |b| b.iter(|| inventory.instance(black_box(instance))));
    group.bench_function("instance by number", |b| b.iter(|| inventory.instance_by_number(black_box(number.into()))));
    group.bench_function("VIF by id", |b| b.iter(|| inventory.vifs_by_id(black_box(port)).count()));
    group.bench_function("VIF by MAC address", |b| b.iter(|| inventory.vifs_by_mac(black_box(parsed)).count()));
    group.bench_function("link by name", |b| b.iter(|| inventory.link_by_name(black_box(&target))));
    for (what, thing) in [
        ("a device name", target.clone()),
        ("a MAC address", mac.clone()),
        ("a VIF id", port.to_string()),
        ("an instance", instance.to_string()),
        ("a display name", format!("web-{number}")),
    ] {
        assert_eq!(inventory.find(&thing).len(), 1, "{thing}");
        group.bench_function(format!("find {what}"), |b| b.iter(|| inventory.find(black_box(&thing))));
    }
    group.finish();
}

// --- What the sources say about a host with `n` instances ---

const SIZES: [u32; 2] = [1_000, 10_000];
const URI: &str = "qemu:///system";

fn view(n: u32) -> View {
    let known =
        (0..n).map(|n| domain(&host::domain_xml("kvm", n))).map(|domain| (domain.uuid, Arc::new(domain))).collect();
    let domains = Domains { known, ..Domains::default() };
    View {
        links: synced(links(n)),
        neighbours: Snapshot::default(),
        ports: Snapshot::absent(),
        leases: Snapshot::absent(),
        hypervisors: vec![(URI.into(), false, synced(domains))],
    }
}

fn synced<T>(data: T) -> Snapshot<T> {
    Snapshot { data: Arc::new(data), sync: SyncState::Synced { since: Moment::now() } }
}

fn links(n: u32) -> Links {
    (0..n).map(|n| link(n + 1, &host::device("tap", n))).collect()
}

fn link(index: u32, name: &str) -> Link {
    match LinkEvent::decode(RTM_NEWLINK, &link_message(recorded!("tap367b74c6-f0"), index, name)) {
        Ok(LinkEvent::Exists(link)) => Arc::unwrap_or_clone(link),
        other => panic!("{other:?}"),
    }
}

/// The recorded message with another index and name.
fn link_message(recorded: &[u8], index: u32, name: &str) -> Vec<u8> {
    let (header, mut rest) = recorded.split_at(16);
    let mut message = header.to_vec();
    message[4..8].copy_from_slice(&index.to_ne_bytes());
    while let [l0, l1, k0, k1, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let (attribute, others) = rest.split_at(length.next_multiple_of(4).min(rest.len()));
        rest = others;
        if u16::from_ne_bytes([k0, k1]) == IFLA_IFNAME {
            let length = u16::try_from(4 + name.len() + 1).expect("names are short");
            message.extend(length.to_ne_bytes());
            message.extend(IFLA_IFNAME.to_ne_bytes());
            message.extend(name.as_bytes());
            message.push(0);
            message.resize(message.len().next_multiple_of(4), 0);
        } else {
            message.extend(attribute);
        }
    }
    message
}

const IFLA_IFNAME: u16 = 3;

fn domain(xml: &str) -> Domain {
    Domain::decode(xml, DomainState::Running).expect("it is a domain")
}

criterion_group!(benches, decoding, publishing, joining, looking_up);
criterion_main!(benches);
