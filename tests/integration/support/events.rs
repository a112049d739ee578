//! A reader of server-sent events.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Instant,
};

use serde_json::Value;

use super::LIMIT;

/// One event.
#[derive(Clone, Debug, Default)]
pub struct Event {
    pub kind: String,
    pub id: String,
    pub data: Value,
}

/// A stream of events over a Unix socket.
pub struct Events {
    lines: BufReader<UnixStream>,
}

impl Events {
    /// Begins a stream; its status, if that is not 200.
    pub fn open(socket: &Path, query: &str, headers: &[&str]) -> Result<Self, u16> {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        // Version 1.0: the body comes as it is, not in chunks.
        write!(stream, "GET /host/v1/events{query} HTTP/1.0\r\nhost: x\r\n{headers}\r\n").unwrap();
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        while line.trim() != "" {
            line.clear();
            lines.read_line(&mut line).unwrap();
        }
        if status == 200 { Ok(Self { lines }) } else { Err(status) }
    }

    /// The next event; nothing at the end of the stream.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            let event = self.next_or_heartbeat()?;
            if event.kind != "heartbeat" {
                return Some(event);
            }
        }
    }

    fn next_or_heartbeat(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let mut line = String::new();
            self.lines.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some(("event", kind)) => event.kind = kind.to_owned(),
                Some(("id", id)) => event.id = id.to_owned(),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                Some(("", "heartbeat")) => event.kind = "heartbeat".to_owned(),
                None if line.is_empty() => return None,
                None if !event.kind.is_empty() => return Some(event),
                _ => {}
            }
        }
    }

    /// The next event of this kind, or heartbeat; those before it are passed over.
    pub fn next_of(&mut self, kind: &str) -> Event {
        let started = Instant::now();
        loop {
            // Heartbeats keep the stream going.
            assert!(started.elapsed() < LIMIT, "waited in vain for {kind}");
            let event = self.next_or_heartbeat().unwrap_or_else(|| panic!("the stream ended before {kind}"));
            if event.kind == kind {
                return event;
            }
        }
    }
}
