//! Clients that are slow, many, or do not speak HTTP: each gets a fault that says so, and the others are served.

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    process::Command,
};

use crate::support::{
    LIMIT, eventually,
    vifd::{VIFD, Vifd},
};

struct Daemon {
    vifd: Vifd,
    _dir: tempfile::TempDir,
}

/// A daemon without a hypervisor, with these keys of `[http]`.
fn daemon(http: &str) -> Daemon {
    let dir = tempfile::Builder::new().prefix("vifd-").tempdir_in("/tmp").unwrap();
    let vifd = Vifd::start(Command::new(VIFD), dir.path(), &format!("[libvirt]\nuris = []\n[http]\n{http}\n"));
    Daemon { vifd, _dir: dir }
}

impl Daemon {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.vifd.socket).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// What comes back until the daemon closes the connection.
    fn converse(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        // Whoever is refused is told so before the end of what it sends.
        let _ = stream.write_all(request.as_ref());
        rest(&mut stream)
    }
}

/// Everything until the connection is closed.
fn rest(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        // It was closed while bytes of ours were unread.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection stays open: {error}"),
    }
    String::from_utf8(bytes).unwrap()
}

/// One answer of a connection that stays open.
fn answer(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    head + std::str::from_utf8(&body).unwrap()
}

/// The status and the fault's name, code and message of an answer in JSON.
fn fault(answer: &str) -> (u16, String, u64) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    let (name, fault) = body.as_object().unwrap().iter().next().unwrap();
    assert!(!fault["message"].as_str().unwrap().is_empty());
    (status, name.clone(), fault["code"].as_u64().unwrap())
}

const LIVE: &str = "GET /live HTTP/1.1\r\nhost: x\r\n\r\n";

#[test]
fn what_is_not_http_gets_a_fault() {
    let daemon = daemon("");
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS greeting\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
    ] {
        assert_eq!(fault(&daemon.converse(garbage)), (400, "badRequest".into(), 400), "{garbage:?}");
    }
    // After a good request too.
    let both = daemon.converse(format!("{LIVE}\0\r\n\r\n"));
    let (good, bad) = both.split_once("live\n").unwrap();
    assert!(good.starts_with("HTTP/1.1 200 OK\r\n"), "{both}");
    assert_eq!(fault(bad), (400, "badRequest".into(), 400));
}

#[test]
fn too_large_a_head_gets_a_fault() {
    let daemon = daemon("");
    let header = format!("GET /live HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100 << 10));
    assert_eq!(fault(&daemon.converse(header)), (431, "computeFault".into(), 431));
    let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "y".repeat(9 << 10));
    assert_eq!(fault(&daemon.converse(path)), (414, "computeFault".into(), 414));
}

#[test]
fn a_request_that_does_not_arrive_in_time_gets_408() {
    let daemon = daemon("request_timeout = '300ms'");
    let head = daemon.converse("GET /live HTT");
    assert_eq!(fault(&head), (408, "computeFault".into(), 408));
    let body = daemon.converse(
        "POST /v2.1/servers/1/virtual_interfaces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: 9\r\nconnection: close\r\n\r\n{",
    );
    assert_eq!(fault(&body), (408, "computeFault".into(), 408));
    // Also when its bytes drip.
    let mut stream = daemon.connect();
    let dripping = stream.try_clone().unwrap();
    let drip = std::thread::spawn(move || {
        b"GET /live HTTP/1.1\r\nx: ".iter().chain([b'y'].iter().cycle()).try_for_each(|&byte| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            (&dripping).write_all(&[byte])
        })
    });
    assert_eq!(fault(&rest(&mut stream)), (408, "computeFault".into(), 408));
    drop(stream);
    assert!(drip.join().unwrap().is_err());
}

#[test]
fn an_idle_connection_is_closed_without_a_word_and_a_busy_one_is_not() {
    let daemon = daemon("request_timeout = '200ms'\nidle_timeout = '400ms'");
    // One that never asks anything.
    assert_eq!(daemon.converse(""), "");
    // One that asks and then falls silent.
    let mut stream = daemon.connect();
    for _ in 0..3 {
        stream.write_all(LIVE.as_bytes()).unwrap();
        assert!(answer(&mut stream).ends_with("live\n"));
        std::thread::sleep(std::time::Duration::from_millis(250));
    }
    assert_eq!(rest(&mut stream), "");
}

#[test]
fn a_client_that_does_not_read_its_answers_is_cut() {
    let daemon = daemon("request_timeout = '300ms'");
    let mut stream = daemon.connect();
    let requests = "GET /v2.1/extensions HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    let error = loop {
        if let Err(error) = stream.write_all(requests.as_bytes()) {
            break error;
        }
    };
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
    eventually("the daemon says why", || {
        daemon.vifd.log().contains("the client does not take its answer").then_some(())
    });
}

#[test]
fn a_full_house_answers_503_at_once_and_recovers() {
    let daemon = daemon("connections = 2");
    // The place of whoever asked before may be free a moment later than they know.
    let enter = || {
        let mut guest = daemon.connect();
        guest.write_all(LIVE.as_bytes()).unwrap();
        answer(&mut guest).ends_with("live\n").then_some(guest)
    };
    let mut guests = [eventually("a first place", enter), eventually("a second place", enter)];
    let refused = daemon.converse(LIVE);
    assert_eq!(fault(&refused), (503, "serviceUnavailable".into(), 503));
    assert!(refused.contains("retry-after: ") && refused.contains("connection: close"), "{refused}");
    let host = daemon.converse("GET /host/v1/sync HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(host.contains(r#"{"error":{"code":"service_unavailable","#), "{host}");
    // Those who are inside do not notice.
    guests[0].write_all(LIVE.as_bytes()).unwrap();
    assert!(answer(&mut guests[0]).ends_with("live\n"));
    let [_inside, leaving] = guests;
    drop(leaving);
    eventually("a place is free again", enter);
}

#[test]
fn who_connected_before_the_stop_may_still_ask() {
    let daemon = daemon("");
    let mut early = daemon.connect();
    // Connections are accepted in their order.
    assert!(daemon.converse("GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").starts_with("HTTP/1.1 200 "));
    let stop = Command::new("kill").args(["-TERM", &daemon.vifd.pid().to_string()]).status().unwrap();
    assert!(stop.success());
    eventually("it is stopping", || daemon.vifd.log().contains("stopping").then_some(()));
    early.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(rest(&mut early).starts_with("HTTP/1.1 200 "));
}

#[test]
fn too_many_requests_get_413_and_when_to_come_back() {
    let daemon = daemon("requests_per_peer = 3");
    let mut stream = daemon.connect();
    let ask = |stream: &mut UnixStream, accept: &str| {
        stream
            .write_all(format!("GET /v2.1/extensions HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\n\r\n").as_bytes())
            .unwrap();
        answer(stream)
    };
    let mut limited = ask(&mut stream, "application/json");
    while limited.starts_with("HTTP/1.1 200") {
        limited = ask(&mut stream, "application/json");
    }
    assert_eq!(fault(&limited), (413, "overLimit".into(), 413));
    assert!(limited.contains("retry-after: ") && limited.contains(r#""retryAt":"2"#), "{limited}");
    assert!(limited.contains(r#""retryAfter":""#), "{limited}");
    let limited = ask(&mut stream, "application/xml");
    assert!(limited.contains("<overLimit ") && limited.contains(r#" retryAt="2"#), "{limited}");
}

#[test]
fn each_request_is_one_line_of_the_log_with_both_ids() {
    let daemon = daemon("");
    let global = "req-2f9f5c1e-0000-4000-8000-0123456789ab";
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let path = "/v2.1/servers/00000000-0000-4000-8000-000000000000/os-virtual-interfaces?secret=1";
    let headers = [&*format!("X-Openstack-Request-Id: {global}"), &format!("traceparent: {trace}")];
    let answer = daemon.vifd.request("GET", path, &headers);
    let id = answer.header("x-openstack-request-id");
    assert_eq!(id, answer.header("x-compute-request-id"));
    let id = id.unwrap();
    let log = daemon.vifd.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("answered") && line.contains(id)).collect();
    let [line] = lines[..] else { panic!("{log}") };
    for part in [global, trace, "method=GET", "status=404", "uid 0", "micros="] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!log.contains("secret"), "{log}");
}
