//! `GET /host/v1/events`: every change as it is seen, as server-sent events.
//!
//! | event | data |
//! | --- | --- |
//! | `begin` | from where on changes follow: the first of a stream that does not resume another |
//! | a kind of change, such as `vif_plugged` | the change, with its records before and after |
//! | `missed` | why changes after the given id are not told, and from where on they are: everything must be listed again |
//!
//! Ids are `EPOCH-GENERATION-NUMBER`: the run of the daemon, the generation of the inventory, the change within it.
//! `EPOCH-GENERATION` is after all changes of a generation; a heartbeat carries it, so that a reader whose filter lets
//! nothing through does not fall behind. `Last-Event-ID` goes before `since`.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName},
    response::{IntoResponse, Response, Sse, sse},
};
use futures_util::stream::unfold;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{App, Error};
use crate::inventory::{
    changes::Change,
    recent::{Event, Position, Read, Recent},
    record::normal,
};

/// How many streams there are at a time, at most. Each also takes one of the connections.
const STREAMS: usize = 64;

/// What streams are made from.
#[derive(Clone, Debug)]
pub struct Events {
    recent: Recent,
    heartbeat: Duration,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Events {
    /// Streams of these changes, which end with `stop` and say something at least every `heartbeat`.
    #[must_use]
    pub fn new(recent: Recent, heartbeat: Duration, stop: CancellationToken) -> Self {
        // Even a mistaken zero must not occupy a processor.
        let heartbeat = heartbeat.max(Duration::from_millis(10));
        Self { recent, heartbeat, places: Arc::new(Semaphore::new(STREAMS)), stop }
    }
}

/// What follows in a stream.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Begin {
    /// The changes after this generation follow.
    pub generation: u64,
}

/// What does not follow.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Missed {
    /// Why.
    pub reason: WhyMissed,
    /// The id after which changes were asked for, or were told last.
    pub since: String,
    /// The changes after this generation follow. What happened before must be listed again.
    pub generation: u64,
}

/// Why changes are not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhyMissed {
    /// They were too long ago.
    TooOld,
    /// The daemon was restarted since.
    AnotherRun,
    /// The reader was too slow.
    TooSlow,
}

/// The data of any event.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described, and never made")]
pub(super) enum Data {
    Change(Event),
    Begin(Begin),
    Missed(Missed),
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EventFilter {
    /// After this event: an id, or a generation of this run of the daemon.
    since: Option<String>,
    /// About the instance with this UUID, libvirt name or display name.
    instance: Option<String>,
    /// About the device with this name or ifindex, what it carries, and its Open vSwitch port.
    device: Option<String>,
    /// About whatever has this name, address or id.
    thing: Option<String>,
}

impl EventFilter {
    fn admits(&self, change: &Change) -> bool {
        self.instance.as_ref().is_none_or(|wanted| change.is_of_instance(wanted))
            && self.device.as_ref().is_none_or(|wanted| change.is_of_device(wanted))
            && self.thing.as_ref().is_none_or(|wanted| change.is_about(wanted))
    }
}

pub(super) async fn events(
    State(app): State<App>,
    headers: HeaderMap,
    filter: Result<Query<EventFilter>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(mut filter) = filter.map_err(|error| Error::BadRequest(error.body_text()))?;
    filter.thing = filter.thing.as_deref().map(normal);
    let place = Arc::clone(&app.events.places).try_acquire_owned().map_err(|_| Error::TooManyStreams)?;

    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    let (epoch, newest) = (app.epoch, app.events.recent.newest());
    let mut reader = Reader {
        epoch,
        position: Position::after(newest),
        unread: VecDeque::new(),
        first: None,
        filter,
        events: app.events,
        _place: place,
    };
    match last.or(reader.filter.since.as_deref()).map(|since| (since.to_owned(), Since::of(since, epoch))) {
        None => reader.first = Some(reader.begin()),
        Some((_, Since::Position(position))) if position.generation <= newest => reader.position = position,
        Some((since, Since::Position(_) | Since::AnotherRun)) => {
            reader.first = Some(reader.missed(WhyMissed::AnotherRun, since));
        }
        Some((since, Since::Malformed)) if last.is_none() => {
            return Err(Error::BadRequest(format!("since: {since:?} is neither the id of an event nor a generation")));
        }
        Some((since, Since::Malformed)) => reader.first = Some(reader.missed(WhyMissed::AnotherRun, since)),
    }
    if let (None, Read::TooOld) = (&reader.first, reader.events.recent.read(reader.position)) {
        let since = reader.id(reader.position);
        reader.first = Some(reader.missed(WhyMissed::TooOld, since));
    }
    let stream = unfold(reader, async |mut reader| Some((Ok::<_, Infallible>(reader.next().await?), reader)));
    // nginx would gather events until it has a page of them.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), "no");
    Ok(([unbuffered], Sse::new(stream)).into_response())
}

/// From where on somebody wants to read.
enum Since {
    Position(Position),
    AnotherRun,
    Malformed,
}

impl Since {
    fn of(text: &str, epoch: i64) -> Self {
        let mut numbers = text.split('-').map(|part| part.parse::<u64>().ok());
        let parts = (numbers.next().flatten(), numbers.next(), numbers.next(), numbers.next());
        let (run, position) = match parts {
            (Some(generation), None, None, None) => return Self::Position(Position::after(generation)),
            (Some(run), Some(Some(generation)), None, None) => (run, Position::after(generation)),
            (Some(run), Some(Some(generation)), Some(Some(number)), None) => match number.try_into() {
                Ok(number) => (run, Position { generation, number }),
                Err(_) => return Self::Malformed,
            },
            _ => return Self::Malformed,
        };
        if u64::try_from(epoch) == Ok(run) { Self::Position(position) } else { Self::AnotherRun }
    }
}

/// One stream: where it is, and what it has read and not told yet, which is little.
struct Reader {
    epoch: i64,
    /// Everything up to here was told or is in `unread`.
    position: Position,
    unread: VecDeque<Arc<Event>>,
    first: Option<sse::Event>,
    filter: EventFilter,
    events: Events,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// Nothing when the daemon stops.
    async fn next(&mut self) -> Option<sse::Event> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            if self.events.stop.is_cancelled() {
                return None;
            }
            while let Some(event) = self.unread.pop_front() {
                if self.filter.admits(&event.change) {
                    let text = sse::Event::default().id(self.id(event.position()));
                    return Some(data(text.event(event.change.kind.to_string()), &*event));
                }
            }
            match self.events.recent.read(self.position) {
                Read::Events(events, position) => {
                    self.unread = events.into();
                    self.position = position;
                }
                Read::TooOld => {
                    let since = self.id(self.position);
                    return Some(self.missed(WhyMissed::TooSlow, since));
                }
            }
            if self.unread.is_empty() {
                let heartbeat = sleep(self.events.heartbeat);
                let beat = tokio::select! {
                    () = self.events.recent.beyond(self.position.generation) => false,
                    () = heartbeat => true,
                    () = self.events.stop.cancelled() => false,
                };
                if beat {
                    return Some(sse::Event::default().comment("heartbeat").id(self.id(self.position)));
                }
            }
        }
    }

    fn id(&self, Position { generation, number }: Position) -> String {
        let Self { epoch, .. } = self;
        if number == u32::MAX { format!("{epoch}-{generation}") } else { format!("{epoch}-{generation}-{number}") }
    }

    fn begin(&self) -> sse::Event {
        let generation = self.position.generation;
        data(sse::Event::default().event("begin").id(self.id(self.position)), &Begin { generation })
    }

    /// Goes on with what is new.
    fn missed(&mut self, reason: WhyMissed, since: String) -> sse::Event {
        let generation = self.events.recent.newest();
        self.position = Position::after(generation);
        let missed = Missed { reason, since, generation };
        data(sse::Event::default().event("missed").id(self.id(self.position)), &missed)
    }
}

fn data(event: sse::Event, data: &impl Serialize) -> sse::Event {
    event.json_data(data).expect("it has string keys and no I/O")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_the_run_and_how_far_somebody_has_read() {
        let position = |text: &str| match Since::of(text, 1000) {
            Since::Position(position) => Some((position.generation, position.number)),
            Since::AnotherRun | Since::Malformed => None,
        };
        assert_eq!(position("7"), Some((7, u32::MAX)));
        assert_eq!(position("1000-7"), Some((7, u32::MAX)));
        assert_eq!(position("1000-7-3"), Some((7, 3)));
        assert!(matches!(Since::of("999-7-3", 1000), Since::AnotherRun));
        for text in ["", "-", "x", "1000-", "1000-7-", "1000-7-3-1", "1000--7", "1000-7-99999999999", "-1000-7"] {
            assert!(matches!(Since::of(text, 1000), Since::Malformed), "{text}");
        }
    }
}
