//! `vifctl history`: who had what, at a moment or over a time.

use jiff::Timestamp;

use super::{
    change::{identifier, line, moment, statement},
    client::{Client, ClientError, encode},
    complete,
    output::{DOUBT, Output, Page, Readable, styled},
    time::Time,
    words::plain,
};
use crate::{
    http::host::Answer,
    journal::history::{History, Moment, Span},
};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Past {
    /// A device name, MAC address, ifindex, VIF id, IP or PCI address, vhost-user socket, Open vSwitch port, or an
    /// instance's UUID or name
    #[arg(add = complete::things())]
    thing: String,
    /// What it was at this moment: 03:12 (the last one), "yesterday 03:12", "2h ago", 2026-11-23T03:12:00Z
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with_all = ["since", "until", "limit"])]
    at: Option<Time>,
    /// What happened to it from here on
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<Time>,
    /// And until then
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<Time>,
    /// So many changes at most, the newest ones
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=10_000))]
    limit: u32,
}

impl Past {
    /// Says whether anything is known.
    pub(super) fn run(&self, client: &Client, output: Output) -> Result<bool, ClientError> {
        let mut path = format!("/host/v1/history?thing={}&limit={}", encode(&self.thing), self.limit);
        for (name, time) in [("at", self.at), ("since", self.since), ("until", self.until)] {
            if let Some(Time(time)) = time {
                path += &format!("&{name}={}", encode(&time.to_string()));
            }
        }
        let answer = client.get::<History>(&path)?;
        output.write(&answer)?;
        let known = |moment: &Moment| moment.known.iter().any(|state| !state.records.is_empty());
        Ok(!answer.body.changes.is_empty() || answer.body.at.as_ref().is_some_and(known))
    }
}

impl Readable for Answer<History> {
    fn text(&self, page: &mut Page) {
        match &self.body.at {
            Some(at) => at_moment(page, &self.body, at),
            None => over_time(page, &self.body),
        }
    }

    fn names(&self) -> Vec<String> {
        let then = self.body.at.iter().flat_map(|at| &at.known).flat_map(|state| &state.records);
        let changed =
            self.body.changes.iter().flat_map(|past| past.change.after.as_ref().or(past.change.before.as_ref()));
        let records = then.map(|past| &past.record).chain(changed.map(Box::as_ref));
        let mut names = Vec::new();
        for name in records.map(identifier) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

fn at_moment(page: &mut Page, history: &History, at: &Moment) {
    let time = moment(at.time);
    if at.known.is_empty() {
        page.line(format!("{time}  {}", styled(DOUBT, format!("not known: {}", gap(&history.recorded, at.time)))));
    }
    for state in &at.known {
        if state.records.is_empty() {
            page.line(format!("{time}  nothing on this host was called {}", plain(&history.thing)));
        }
        for past in &state.records {
            page.line(format!("{time}  {}", statement(&past.record)));
            let found = |found: bool| if found { " (found then; perhaps earlier)" } else { "" };
            let until = past.until.map(|until| format!(", until {}{}", moment(until), found(past.until_found)));
            let until = until.unwrap_or_default();
            page.line(format!("  since {}{}{until}", moment(past.since), found(past.since_found)));
        }
        for doubt in &state.doubts {
            let why = doubt.reason.as_deref().map(|why| format!(": {}", plain(why))).unwrap_or_default();
            page.line(styled(DOUBT, format!("! {} was {} then{why}", plain(&doubt.source), doubt.state)));
        }
    }
}

/// Why nothing is known of a moment.
fn gap(recorded: &[Span], time: Timestamp) -> String {
    let before = recorded.iter().rev().find(|span| span.until.is_some_and(|until| until < time));
    let after = recorded.iter().find(|span| span.since > time);
    let why = before.and_then(|span| span.ended.as_deref()).map(|why| format!(", when it was {}", plain(why)));
    match (before.and_then(|span| span.until), after.map(|span| span.since)) {
        (Some(from), Some(to)) => {
            format!("vifd recorded nothing from {}{} to {}", moment(from), why.unwrap_or_default(), moment(to))
        }
        (Some(from), None) => format!("vifd has recorded nothing since {}{}", moment(from), why.unwrap_or_default()),
        (None, Some(to)) => format!("what is kept begins at {}", moment(to)),
        (None, None) => "vifd has recorded nothing".to_owned(),
    }
}

fn over_time(page: &mut Page, history: &History) {
    let (Some(first), Some(last)) = (history.changes.first(), history.changes.last()) else {
        page.line(format!("Nothing is known of {}.", plain(&history.thing)));
        return edges(page, history);
    };
    if history.more {
        page.line("There are more, older changes: --limit, --until.".to_owned());
    }
    let changes = history.changes.iter().map(|past| {
        let text = format!("{:<18} {}", past.change.kind.to_string(), line(&past.change));
        (past.time, text)
    });
    let within = |time: &Timestamp| first.time <= *time && *time <= last.time.max(first.time);
    let mut lines: Vec<_> = changes.collect();
    for span in &history.recorded {
        if let (Some(until), Some(why)) = (span.until.filter(within), &span.ended) {
            let text = format!("{:<18} nothing was recorded from here on: {}", "recording_ended", plain(why));
            lines.push((until, styled(DOUBT, text)));
        }
        if within(&span.since) {
            lines.push((span.since, format!("{:<18} vifd records from here on", "recording_began")));
        }
    }
    // A clock that was set back puts some out of order; times are what people look for.
    lines.sort_by_key(|(time, _)| *time);
    for (time, text) in lines {
        page.line(format!("{} {text}", moment(time)));
    }
}

/// When something was recorded at all.
fn edges(page: &mut Page, history: &History) {
    for span in &history.recorded {
        let until = span.until.map_or("now".to_owned(), moment);
        let why = span.ended.as_deref().map(|why| format!(" ({})", plain(why))).unwrap_or_default();
        page.line(format!("  recorded from {} to {until}{why}", moment(span.since)));
    }
}
