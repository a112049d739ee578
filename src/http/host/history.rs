//! `GET /host/v1/history`: what the flight recorder knows of a thing, at a moment or over a time.

use std::sync::Arc;

use axum::extract::{Query, State, rejection::QueryRejection};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::{App, Error, Reply, reply};
use crate::{
    journal::{
        JournalState,
        history::{self, History, Question},
    },
    source::chain,
};

/// How many changes are told where nobody says, and at most.
const USUAL: usize = 1000;
const MOST: usize = 10_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    /// A device name, MAC address, ifindex, VIF id, IP or PCI address, socket, Open vSwitch port, or an instance's UUID or
    /// name.
    thing: String,
    /// What it was at this moment, instead of what happened to it.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    at: Option<Timestamp>,
    /// From here on.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    since: Option<Timestamp>,
    /// Until then.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    until: Option<Timestamp>,
    /// So many changes at most, the newest ones.
    #[serde(default)]
    #[schemars(range(max = 10_000))]
    limit: Option<usize>,
}

pub(super) async fn history(
    State(app): State<App>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Reply<History> {
    let Query(query) = query.map_err(|error| Error::BadRequest(error.body_text()))?;
    let limit = query.limit.unwrap_or(USUAL);
    if limit > MOST {
        return Err(Error::BadRequest(format!("limit: {limit} is more than {MOST}")));
    }
    let HistoryQuery { thing, at, since, until, .. } = query;
    let question = Question { thing, at, since, until, limit };
    if app.journal.path.as_os_str().is_empty() {
        return Err(Error::NoJournal("the configuration names no journal".to_owned()));
    }
    let Ok(place) = Arc::clone(&app.journal.places).acquire_owned().await else {
        return Err(Error::NoJournal("the daemon stops".to_owned()));
    };
    let recording = *app.journal.state.borrow() == JournalState::Recording;
    let path = Arc::clone(&app.journal.path);
    let answer = spawn_blocking(move || {
        let _place = place;
        history::read(&path, recording, &question)
    });
    let inventory = app.inventory();
    match answer.await {
        Ok(Ok(history)) => reply(&inventory, history),
        Ok(Err(error)) => Err(Error::NoJournal(chain(&error))),
        Err(error) => Err(Error::NoJournal(chain(&error))),
    }
}
