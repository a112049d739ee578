use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;

use super::*;
use crate::source::SyncState;

const LIMIT: Duration = Duration::from_secs(30);

/// A database server that says what the test tells it to say.
struct Server {
    directory: TempDir,
    listener: Option<UnixListener>,
    connection: Option<(FramedRead<OwnedReadHalf, Frames>, OwnedWriteHalf)>,
}

impl Server {
    fn nowhere() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), listener: None, connection: None }
    }

    fn listening() -> Self {
        let mut server = Self::nowhere();
        server.listen();
        server
    }

    fn config(&self) -> OvsdbConfig {
        OvsdbConfig { socket: self.directory.path().join("db.sock"), ..OvsdbConfig::default() }
    }

    fn listen(&mut self) {
        self.listener = Some(UnixListener::bind(self.config().socket).unwrap());
    }

    async fn accept(&mut self) {
        let (stream, _) = timeout(LIMIT, self.listener.as_ref().unwrap().accept()).await.unwrap().unwrap();
        let (reader, writer) = stream.into_split();
        self.connection = Some((FramedRead::new(reader, Frames::default()), writer));
    }

    async fn receive(&mut self) -> Value {
        let (frames, _) = self.connection.as_mut().unwrap();
        serde_json::from_slice(&timeout(LIMIT, frames.next()).await.unwrap().unwrap().unwrap()).unwrap()
    }

    async fn send(&mut self, text: &str) {
        self.connection.as_mut().unwrap().1.write_all(text.as_bytes()).await.unwrap();
    }

    /// Accepts a connection and answers the request to be followed with these ports.
    async fn serve(&mut self, ports: &[&str]) {
        self.accept().await;
        let request = self.receive().await;
        assert_eq!((&request["method"], &request["params"][0]), (&json!("monitor"), &json!("Open_vSwitch")));
        self.answer(&request, ports).await;
    }

    async fn answer(&mut self, request: &Value, ports: &[&str]) {
        self.send(&json!({ "id": request["id"], "result": interfaces(ports), "error": null }).to_string()).await;
    }
}

fn interfaces(names: &[&str]) -> Value {
    let row = |(n, name): (u128, &&str)| (uuid::Uuid::from_u128(n).to_string(), json!({ "new": { "name": name } }));
    json!({ "Interface": (0..).zip(names).map(row).collect::<serde_json::Map<_, _>>() })
}

fn update(monitor: u64, ports: &[&str]) -> String {
    json!({ "id": null, "method": "update", "params": [monitor, interfaces(ports)] }).to_string()
}

fn start(config: OvsdbConfig) -> watch::Receiver<Snapshot<Ports>> {
    let (tx, rx) = watch::channel(Snapshot::default());
    tokio::spawn(run(config, tx, Arc::default()));
    rx
}

async fn wait(rx: &mut watch::Receiver<Snapshot<Ports>>, condition: impl Fn(&Snapshot<Ports>) -> bool) -> SyncState {
    let snapshot = timeout(LIMIT, rx.wait_for(|snapshot| condition(snapshot))).await;
    snapshot.expect("the snapshot never came to be so").unwrap().sync.clone()
}

fn names(snapshot: &Snapshot<Ports>) -> Vec<&str> {
    snapshot.data.iter().map(|port| &*port.name).collect()
}

fn has<'a>(ports: &'a [&str]) -> impl Fn(&Snapshot<Ports>) -> bool + 'a {
    move |snapshot| snapshot.sync.is_synced() && names(snapshot) == ports
}

#[tokio::test(start_paused = true)]
async fn a_host_without_open_vswitch_is_absent_until_it_gets_one() {
    let mut server = Server::nowhere();
    let mut rx = start(server.config());
    wait(&mut rx, |snapshot| snapshot.sync == SyncState::Absent).await;
    rx.mark_unchanged();
    sleep(ABSENT_RETRY * 10).await;
    assert!(!rx.has_changed().unwrap(), "nobody is woken while nothing changes");
    server.listen();
    server.serve(&["tap0"]).await;
    wait(&mut rx, has(&["tap0"])).await;
}

#[tokio::test]
async fn changes_are_followed_however_they_are_cut_into_pieces() {
    let mut server = Server::listening();
    let mut rx = start(server.config());
    server.serve(&["tap0"]).await;
    wait(&mut rx, has(&["tap0"])).await;
    let text = update(1, &["tap0", "tap1"]);
    for byte in text.chars() {
        server.send(&byte.to_string()).await;
        tokio::task::yield_now().await;
    }
    wait(&mut rx, has(&["tap0", "tap1"])).await;
    let storm: Vec<_> = (0..BATCH * 3).map(|n| update(1, &["tap0", "tap1", &format!("vnet{n}")])).collect();
    server.send(&storm.concat()).await;
    wait(&mut rx, has(&["tap0", "tap1", &format!("vnet{}", BATCH * 3 - 1)])).await;
}

#[tokio::test]
async fn the_servers_question_whether_we_live_is_answered() {
    let mut server = Server::listening();
    let _rx = start(server.config());
    server.serve(&[]).await;
    server.send(r#"{"id":"echo","method":"echo","params":[]}"#).await;
    assert_eq!(server.receive().await, json!({ "id": "echo", "result": [], "error": null }));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_asked_and_then_given_up() {
    let mut server = Server::listening();
    let mut rx = start(server.config());
    server.serve(&["tap0"]).await;
    let interval = server.config().keepalive_interval;
    for _ in 0..3 {
        let question = server.receive().await;
        assert_eq!(question["method"], "echo");
        server.send(&json!({ "id": question["id"], "result": [], "error": null }).to_string()).await;
    }
    let sync = wait(&mut rx, |snapshot| matches!(snapshot.sync, SyncState::Stale { .. })).await;
    assert!(sync.reason().unwrap().contains(&format!("did not answer within {:?}", interval * 3)), "{sync:?}");
    assert_eq!(names(&rx.borrow()), ["tap0"], "what was known is kept");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_leaves_the_source_pending() {
    let mut server = Server::listening();
    let mut rx = start(server.config());
    server.accept().await;
    let sync = wait(&mut rx, |snapshot| snapshot.sync.reason().is_some()).await;
    assert!(sync.is_pending() && sync.reason().unwrap().contains("did not answer within 10s"), "{sync:?}");
}

#[tokio::test]
async fn a_lost_connection_is_told_and_then_made_again() {
    let mut server = Server::listening();
    let mut rx = start(server.config());
    server.serve(&["tap0", "tap1"]).await;
    wait(&mut rx, has(&["tap0", "tap1"])).await;
    server.connection = None;
    let sync = wait(&mut rx, |snapshot| !snapshot.sync.is_synced()).await;
    assert_eq!(sync.reason(), Some("the Open vSwitch database closed the connection"));
    server.serve(&["tap1"]).await;
    wait(&mut rx, has(&["tap1"])).await;
}

#[tokio::test]
async fn a_socket_that_vanishes_after_it_was_read_is_a_loss_and_no_absence() {
    let mut server = Server::listening();
    let mut rx = start(server.config());
    server.serve(&["tap0"]).await;
    wait(&mut rx, has(&["tap0"])).await;
    std::fs::remove_file(server.config().socket).unwrap();
    server.connection = None;
    let vanished = |s: &Snapshot<Ports>| s.sync.reason().is_some_and(|reason| reason.contains("No such file"));
    let sync = wait(&mut rx, vanished).await;
    assert!(matches!(sync, SyncState::Stale { .. }) && names(&rx.borrow()) == ["tap0"], "{sync:?}");
}

#[tokio::test]
async fn refusals_and_nonsense_are_reasons() {
    for (message, reason) in [
        (
            r#"{"id":1,"error":{"error":"unknown database","details":"no Open_vSwitch"}}"#,
            "refused to be followed: unknown database: no Open_vSwitch",
        ),
        ("HTTP/1.1 400 Bad Request", "begins no JSON object"),
        (r#"{"id":1,"result":[],"error":null]"#, "makes no sense"),
        (r#"{"id":1,"result":7,"error":null}"#, "makes no sense"),
    ] {
        let mut server = Server::listening();
        let mut rx = start(server.config());
        server.accept().await;
        server.receive().await;
        server.send(message).await;
        let sync = wait(&mut rx, |snapshot| snapshot.sync.reason().is_some()).await;
        assert!(sync.reason().unwrap().contains(reason), "{sync:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resync_reads_everything_and_ends_the_monitor_before_it() {
    let mut server = Server::listening();
    let config = OvsdbConfig { resync_interval: LIMIT / 2, keepalive_interval: LIMIT * 2, ..server.config() };
    let mut rx = start(config);
    server.serve(&["tap0", "ghost"]).await;
    wait(&mut rx, has(&["ghost", "tap0"])).await;
    let request = server.receive().await;
    assert_eq!((&request["method"], &request["params"][1]), (&json!("monitor"), &json!(2)));
    // Until the answer comes, the old monitor counts; afterwards what it still says is old.
    server.send(&update(1, &["tap0", "ghost", "tap1"])).await;
    wait(&mut rx, has(&["ghost", "tap0", "tap1"])).await;
    server.answer(&request, &["tap0"]).await;
    server.send(&update(1, &["tap0", "ghost"])).await;
    let cancel = server.receive().await;
    assert_eq!((&cancel["method"], &cancel["params"]), (&json!("monitor_cancel"), &json!([1])));
    wait(&mut rx, has(&["tap0"])).await;
    server.send(&update(2, &["tap0", "tap2"])).await;
    wait(&mut rx, has(&["tap0", "tap2"])).await;
}
