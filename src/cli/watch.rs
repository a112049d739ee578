//! `vifctl watch`: every change as it is seen, one a line, for as long as somebody reads.

use std::{io, mem};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{
    change::{identifier, line, moment},
    client::{Client, ClientError, encode},
    complete,
    output::Output,
    words::plain,
};
use crate::{
    http::host::events::WhyMissed,
    inventory::recent::Event,
    source::{Backoff, chain, now},
};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Watch {
    /// Only what is about this: a device name, MAC address, ifindex, VIF id, IP or PCI address, vhost-user socket, Open
    /// vSwitch port, or an instance's UUID or name
    #[arg(add = complete::things())]
    thing: Option<String>,
}

impl Watch {
    /// Ends when nobody reads any more.
    pub(super) fn run(&self, client: &Client, output: Output) -> Result<bool, ClientError> {
        client.block_on(async {
            let interrupted = signal(SignalKind::interrupt()).map_err(ClientError::Runtime);
            let mut interrupted = interrupted?;
            tokio::select! {
                result = self.follow(client, output) => result,
                _ = interrupted.recv() => Ok(()),
            }
        })?;
        Ok(true)
    }

    async fn follow(&self, client: &Client, output: Output) -> Result<(), ClientError> {
        let query = self.thing.as_deref().map(|thing| format!("?thing={}", encode(thing))).unwrap_or_default();
        let path = format!("/host/v1/events{query}");
        // Whoever asks for the first time is told at once why there is no answer; later everything passes.
        let mut stream = client.open(&path, None).await?;
        let mut last = String::new();
        loop {
            match follow(&mut stream, output, &mut last).await {
                Followed::ToTheEnd(result) => return result,
                Followed::Lost => eprintln!("vifctl: vifd is gone; waiting for it"),
            }
            let mut backoff = Backoff::default();
            stream = loop {
                sleep(backoff.delay()).await;
                match client.open(&path, Some(&last)).await {
                    Ok(stream) => break stream,
                    Err(ClientError::Refused(why)) => eprintln!("vifctl: {}", plain(&why)),
                    Err(_) if !is_read() => return Ok(()),
                    Err(_) => {}
                }
            };
            eprintln!("vifctl: vifd is there again");
        }
    }
}

enum Followed {
    /// Nobody reads any more, or something is wrong at this end.
    ToTheEnd(Result<(), ClientError>),
    /// The daemon has ended the stream, or itself.
    Lost,
}

/// Writes what comes, and keeps the id of the last event in `last`.
async fn follow(stream: &mut Incoming, output: Output, last: &mut String) -> Followed {
    let mut parser = Parser::default();
    while let Some(Ok(frame)) = stream.frame().await {
        let Ok(bytes) = frame.into_data() else { continue };
        for message in parser.take(&bytes) {
            let written = write(&message, output);
            if let Some(id) = message.id {
                *last = id;
            }
            // Each heartbeat, too, is an occasion to notice that nobody reads.
            if written.is_err() || !is_read() {
                return Followed::ToTheEnd(written);
            }
        }
    }
    Followed::Lost
}

/// Whether anybody still reads what is written: nothing at all may be written for hours.
fn is_read() -> bool {
    let stdout = io::stdout();
    let mut ends = [PollFd::new(&stdout, PollFlags::empty())];
    let polled = poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_err() || !ends[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Writes the line of one event.
fn write(message: &Message, output: Output) -> Result<(), ClientError> {
    let Some(kind) = message.event.as_deref() else { return Ok(()) };
    let mut data: Value = serde_json::from_str(&message.data).map_err(ClientError::Malformed)?;
    let event = serde_json::from_value::<Event>(data.clone());
    data["kind"] = kind.into();
    let text = || match (kind, &event) {
        ("begin", _) => String::new(),
        ("missed", _) => format!("{} {kind:<18} {}", moment(now()), missed(&data)),
        (_, Ok(event)) => format!("{} {kind:<18} {}", moment(event.time), line(&event.change)),
        (_, Err(error)) => format!("{} {:<18} cannot be understood: {}", moment(now()), plain(kind), chain(error)),
    };
    let names = || {
        let records = event.iter().flat_map(|event| event.change.after.as_ref().or(event.change.before.as_ref()));
        records.map(|record| identifier(record)).collect()
    };
    output.write_line(&data, text, names)
}

fn missed(data: &Value) -> String {
    let why = match serde_json::from_value(data["reason"].clone()) {
        Ok(WhyMissed::TooOld) => "they are too long ago",
        Ok(WhyMissed::AnotherRun) => "vifd was restarted",
        Ok(WhyMissed::TooSlow) => "there were too many at once",
        Err(_) => "why, this vifctl does not know",
    };
    format!("changes may be missing here: {why}")
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq)]
struct Message {
    event: Option<String>,
    id: Option<String>,
    data: String,
}

/// Puts events together from a stream that is cut anywhere.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    message: Message,
}

impl Parser {
    fn take(&mut self, bytes: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            if line.is_empty() {
                messages.push(mem::take(&mut self.message));
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "event" => self.message.event = Some(value),
                "id" => self.message.id = Some(value),
                "data" => self.message.data += &value,
                // A comment, or a field of another time.
                _ => {}
            }
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_put_together_however_the_stream_is_cut() {
        let stream = b": heartbeat\nid: 1-2\n\nid: 1-3-1\nevent: begin\ndata: {}\n\n";
        let message = |event: Option<&str>, id: &str, data: &str| Message {
            event: event.map(str::to_owned),
            id: Some(id.to_owned()),
            data: data.to_owned(),
        };
        let whole = [message(None, "1-2", ""), message(Some("begin"), "1-3-1", "{}")];
        for size in 1..stream.len() {
            let mut parser = Parser::default();
            let messages: Vec<_> = stream.chunks(size).flat_map(|chunk| parser.take(chunk)).collect();
            assert_eq!(messages, whole, "{size}");
        }
    }
}
