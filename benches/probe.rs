//! The measuring half of `compare`: fills a host, and watches vifd and the host from outside. It prints figures for
//! `compare` to read; times are in milliseconds.
//!
//!     probe taps FROM TO                    lines for `ip -batch` that make the taps of these instances
//!     probe domains URI FROM TO             makes their domains, with libvirt's test driver
//!     probe uuid N                          the UUID of an instance
//!     probe start SOCKET PATH COMMAND...    from the start of COMMAND, a vifd, to its first good answer for PATH
//!     probe renames SOCKET COUNT INSTANCES  from the event of a tap's rename to the first answer with the new name
//!     probe hot-plugs SOCKET COUNT URI      from the event of a VIF's arrival to the first answer that has it; the
//!                                           COUNT is for each domain at URI. The second line is the time in which
//!                                           libvirt gives us its description of the domain, with the VIF in it
//!
//! The last two print the median, the 99th percentile and the longest. An event is timed when a listener of our own
//! has received it, who subscribed as vifd did. The answers come over one connection that is never idle, so each time
//! has in it up to one round trip.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    process::{Child, Command},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use netlink_packet_core::NetlinkBuffer;
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink};
use tokio::sync::mpsc::unbounded_channel;
use vifd::source::{
    libvirt::events::{self, Subscription, Wake},
    netlink::link::LinkEvent,
};
use virt::{connect::Connect, domain::Domain};

mod host;

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["taps", from, to] => {
            for n in from.parse::<u32>()?..to.parse()? {
                let tap = host::device("tap", n);
                println!("tuntap add dev {tap} mode tap multi_queue\nlink set dev {tap} mtu 1442 up");
            }
        }
        ["domains", uri, from, to] => {
            let connection = Connect::open(Some(uri))?;
            for n in from.parse::<u32>()?..to.parse()? {
                Domain::create_xml(&connection, &host::domain_xml("test", n), 0)?;
            }
        }
        ["uuid", n] => println!("{}", host::instance_uuid(n.parse()?)),
        ["start", socket, path, command @ ..] => println!("{}", milliseconds(start(socket, path, command)?)),
        ["renames", socket, count, instances] => print(renames(socket, count.parse()?, instances.parse()?)?),
        ["hot-plugs", socket, count, uri] => hot_plugs(socket, count.parse()?, uri)?,
        _ => bail!("see the head of benches/probe.rs"),
    }
    Ok(())
}

fn print(mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| milliseconds(times[(times.len() * percent).div_ceil(100) - 1]);
    println!("{} {} {}", at(50), at(99), at(100));
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

fn start(socket: &str, path: &str, command: &[&str]) -> Result<Duration> {
    let (program, arguments) = command.split_first().context("no command")?;
    let started = Instant::now();
    let _vifd = Daemon(Command::new(program).args(arguments).spawn()?);
    loop {
        if let Ok(mut client) = Client::connect(socket)
            && client.ask("GET", path)?.starts_with("HTTP/1.1 2")
        {
            return Ok(started.elapsed());
        }
        ensure!(started.elapsed() < PATIENCE, "there is no good answer for {path}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn renames(socket: &str, count: u32, instances: u32) -> Result<Vec<Duration>> {
    let mut client = Client::connect(socket)?;
    let mut events = link_events()?;
    let mut times = Vec::new();
    for n in 0..count {
        // Far from each other, and each one there and back.
        let instance = n / 2 * 7 % instances;
        let (name, other) = (host::device("tap", instance), host::device("ren", instance));
        let (from, to) = if n % 2 == 0 { (name, other) } else { (other, name) };
        let index: u32 = fs::read_to_string(format!("/sys/class/net/{from}/ifindex"))?.trim().parse()?;
        let mut rename = Command::new("ip").args(["link", "set", &from, "name", &to]).spawn()?;
        let path = format!("/host/v1/devices/{index}");
        let visible = client.ask_until("GET", &path, &format!("\"name\":\"{to}\""))?;
        ensure!(rename.wait()?.success(), "could not rename {from}");
        let arrived = arrival(&mut events, |datagram| names(datagram, index, &to))?;
        times.push(visible.saturating_duration_since(arrived));
        pause();
    }
    Ok(times)
}

fn hot_plugs(socket: &str, count: u32, uri: &str) -> Result<()> {
    let mut client = Client::connect(socket)?;
    events::start_loop().map_err(anyhow::Error::msg)?;
    let (wakes, mut wakes_rx) = unbounded_channel();
    let _subscription = Subscription::new(Connect::open_read_only(Some(uri))?, 0, &wakes)?;
    let mut events = timed(move || wakes_rx.blocking_recv().context("no more events"));
    let (actor, reader) = (Connect::open(Some(uri))?, Connect::open_read_only(Some(uri))?);

    let (mut times, mut others) = (Vec::new(), Vec::new());
    for (d, domain) in (0..).zip(actor.list_all_domains(0)?) {
        let uuid = domain.get_uuid()?;
        let seen = Domain::lookup_by_uuid(&reader, uuid)?;
        for n in 0..count {
            let mac = host::mac(d * count + n);
            let xml = format!("<interface type='bridge'><mac address='{mac}'/><source bridge='br0'/></interface>");
            let path = format!("/v2.1/servers/{uuid}/virtual_interfaces");
            let (arrived, read, visible) = thread::scope(|scope| {
                let attaching = scope.spawn(|| domain.attach_device(&xml));
                let other = scope.spawn(|| {
                    let arrived = arrival(&mut events, |wake| *wake == Wake::Description(uuid))?;
                    ensure!(seen.get_xml_desc(0)?.contains(&mac), "the domain has no {mac} yet");
                    Ok((arrived, Instant::now()))
                });
                let visible = client.ask_until("POST", &path, &mac)?;
                attaching.join().expect("it does not panic")?;
                let (arrived, read) = other.join().expect("it does not panic")?;
                Ok::<_, anyhow::Error>((arrived, read, visible))
            })?;
            times.push(visible.saturating_duration_since(arrived));
            others.push(read - arrived);
            pause();
        }
    }
    print(times);
    print(others);
    Ok(())
}

// --- Events ---

/// What `next` gives, each with the time at which it came.
fn timed<T: Send + 'static>(mut next: impl FnMut() -> Result<T> + Send + 'static) -> Receiver<(Instant, T)> {
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || while next().is_ok_and(|event| tx.send((Instant::now(), event)).is_ok()) {});
    rx
}

/// When the event came. It has happened already, and those before it are of no interest.
fn arrival<T>(events: &mut Receiver<(Instant, T)>, is_it: impl Fn(&T) -> bool) -> Result<Instant> {
    loop {
        let (arrived, event) = events.recv_timeout(PATIENCE).context("the event did not come")?;
        if is_it(&event) {
            return Ok(arrived);
        }
    }
}

/// The kernel's link messages.
fn link_events() -> Result<Receiver<(Instant, Vec<u8>)>> {
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    net::bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_LINK))?;
    let mut buffer = [0; 32 * 1024];
    Ok(timed(move || {
        let (length, _) = net::recv(&socket, &mut buffer, RecvFlags::empty())?;
        Ok(buffer[..length].to_vec())
    }))
}

/// Whether this message says that the link with this index has this name.
fn names(datagram: &[u8], index: u32, name: &str) -> bool {
    let Ok(message) = NetlinkBuffer::new_checked(datagram) else { return false };
    let event = LinkEvent::decode(message.message_type(), message.payload());
    matches!(event, Ok(LinkEvent::Exists(link)) if link.index == index && *link.name == *name)
}

/// Lets vifd come to rest, for times that are never the same.
fn pause() {
    thread::sleep(Duration::from_millis(fastrand::u64(20..30)));
}

// --- vifd ---

/// A connection that is kept open.
struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(socket: &str) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The whole answer, as text.
    fn ask(&mut self, method: &str, path: &str) -> Result<String> {
        write!(self.0.get_mut(), "{method} {path} HTTP/1.1\r\nHost: vifd\r\nContent-Length: 0\r\n\r\n")?;
        let (mut answer, mut length) = (String::new(), 0);
        loop {
            let line = answer.len();
            ensure!(self.0.read_line(&mut answer)? > 0, "vifd closed the connection");
            match &answer[line..] {
                "\r\n" => break,
                header => {
                    if let Some(value) = header.strip_prefix("content-length: ") {
                        length = value.trim().parse()?;
                    }
                }
            }
        }
        self.0.by_ref().take(length).read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// When the first answer came that has this text in it.
    fn ask_until(&mut self, method: &str, path: &str, text: &str) -> Result<Instant> {
        let started = Instant::now();
        while !self.ask(method, path)?.contains(text) {
            ensure!(started.elapsed() < PATIENCE, "{path} never says {text}");
        }
        Ok(Instant::now())
    }
}

/// A daemon that is ended with this value.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // `Child::kill` would not let it write its cache.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// After so long something is broken.
const PATIENCE: Duration = Duration::from_secs(30);
/// `linux/rtnetlink.h`.
const RTMGRP_LINK: u32 = 1;
