//! `vifctl top`: which interfaces are busy, live.

use std::{
    io::{self, IsTerminal},
    thread,
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};

use self::{
    model::{Model, Rates, Row, Sort, View, short},
    screen::Screen,
};
use super::{
    client::{Client, ClientError},
    output::{Output, Page, Readable},
    table::{text, whole},
    words::plain,
};
use crate::{
    http::host::{AllCounters, Answer, Sources},
    source::{SyncState, chain},
};

mod model;
mod screen;

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Top {
    /// So many seconds between two readings of the counters
    #[arg(short = 'd', long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    delay: Duration,
    /// By what to sort
    #[arg(short = 's', long, value_name = "KEY", default_value = "total")]
    sort: Sort,
    /// Receiving and transmitting as the host sees it, and not as the guests do
    #[arg(long)]
    host_view: bool,
    /// Only devices with this text in their own name, their bridge's or their instance's
    filter: Option<String>,
    /// For scripts: write the rates of one interval, and end
    #[arg(long)]
    once: bool,
    /// For scripts: write the rates of so many intervals, and end
    #[arg(short = 'b', long, value_name = "N", conflicts_with = "once")]
    batch: Option<u32>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let allowed = 0.1..=3600.0;
    if allowed.contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err("from 0.1 to 3600".to_owned()) }
}

impl Top {
    /// Says whether there was anything to show.
    pub(super) fn run(&self, client: &Client, output: Output) -> Result<bool, ClientError> {
        let view = if self.host_view { View::Host } else { View::Guest };
        let filter = self.filter.clone().unwrap_or_default();
        let mut model = Model { view, sort: self.sort, filter, ..Model::default() };
        let tables = if self.once { Some(1) } else { self.batch };
        client.block_on(async {
            match tables {
                Some(tables) => self.write(client, output, model, tables).await.map(|()| true),
                None if !io::stdout().is_terminal() => Err(ClientError::NoTerminal),
                None => {
                    // Whether anybody answers is better said before the screen is taken.
                    model.take(read(client).await?.body);
                    let terminal = ratatui::try_init().map_err(ClientError::Write)?;
                    let result = self.show(client, model, terminal).await;
                    ratatui::restore();
                    result.map(|()| true)
                }
            }
        })
    }

    /// Tables, one for each interval.
    async fn write(&self, client: &Client, output: Output, mut model: Model, tables: u32) -> Result<(), ClientError> {
        model.take(read(client).await?.body);
        for _ in 0..tables {
            sleep(self.delay).await;
            let answer = read(client).await?;
            let read_at = answer.body.read_at.to_string();
            model.take(answer.body);
            output.write(&Rated { read_at, view: model.view, stale: stale(&answer.sources), devices: &model.rows })?;
        }
        Ok(())
    }

    async fn show(&self, client: &Client, mut model: Model, mut terminal: DefaultTerminal) -> Result<(), ClientError> {
        let mut ends = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()].map(signal);
        let [Ok(terminate), Ok(hangup), Ok(interrupt)] = &mut ends else {
            return Err(ClientError::Runtime(io::Error::other("signals cannot be watched")));
        };
        let mut events = events();
        let mut ticks = interval(self.delay);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut screen = Screen::default();
        let mut answered = Instant::now();
        let mut reading = Box::pin(read(client));
        let mut is_reading = true;
        loop {
            // Only what differs is written to the terminal, so nothing flickers.
            terminal.draw(|frame| screen::draw(frame, &model, &mut screen)).map_err(ClientError::Write)?;
            tokio::select! {
                answer = &mut reading, if is_reading => {
                    is_reading = false;
                    match answer {
                        Ok(answer) => {
                            answered = Instant::now();
                            screen.read = format!("read {:.0}, every {:?}", answer.body.read_at, self.delay);
                            screen.banner = stale(&answer.sources);
                            model.take(answer.body);
                        }
                        Err(error) => {
                            let age = answered.elapsed().as_secs();
                            screen.banner = Some(format!("{age} s old: {}", plain(&chain(&error).to_string())));
                        }
                    }
                }
                _ = ticks.tick() => if !is_reading {
                    reading = Box::pin(read(client));
                    is_reading = true;
                },
                event = events.recv() => match event {
                    Some(event) => if handle(&event, &mut model, &mut screen) {
                        return Ok(());
                    },
                    None => return Ok(()),
                },
                _ = terminate.recv() => return Ok(()),
                _ = hangup.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
        }
    }
}

async fn read(client: &Client) -> Result<Answer<AllCounters>, ClientError> {
    let body = client.open("/host/v1/counters", None).await?;
    Answer::parse(&body.collect().await?.to_bytes()).map_err(ClientError::Malformed)
}

/// What a person types, and changes of the terminal's size: a thread waits for them, until the process ends.
fn events() -> mpsc::Receiver<Event> {
    let (tx, rx) = mpsc::channel(16);
    thread::spawn(move || while event::read().is_ok_and(|event| tx.blocking_send(event).is_ok()) {});
    rx
}

/// Says whether that was the end.
fn handle(event: &Event, model: &mut Model, screen: &mut Screen) -> bool {
    let Event::Key(key) = event else { return false };
    if key.kind == KeyEventKind::Release {
        return false;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return matches!(key.code, KeyCode::Char('c' | 'd'));
    }
    if screen.is_typing {
        match key.code {
            KeyCode::Enter => screen.is_typing = false,
            KeyCode::Esc => {
                screen.is_typing = false;
                model.filter.clear();
            }
            KeyCode::Backspace => drop(model.filter.pop()),
            KeyCode::Char(c) => model.filter.push(c),
            _ => {}
        }
        model.arrange();
        return false;
    }
    let sort = match key.code {
        KeyCode::Char('q') => return true,
        KeyCode::Char('t') => Sort::Total,
        KeyCode::Char('r') => Sort::Rx,
        KeyCode::Char('x') => Sort::Tx,
        KeyCode::Char('p') => Sort::Packets,
        KeyCode::Char('d') => Sort::Drops,
        KeyCode::Char('e') => Sort::Errors,
        KeyCode::Char('n') => Sort::Name,
        _ => model.sort,
    };
    match key.code {
        KeyCode::Char('g') => model.view = if model.view == View::Guest { View::Host } else { View::Guest },
        KeyCode::Char('/') => screen.is_typing = true,
        KeyCode::Esc => model.filter.clear(),
        KeyCode::Down => screen.offset += 1,
        KeyCode::Up => screen.offset = screen.offset.saturating_sub(1),
        KeyCode::PageDown => screen.offset += PAGE,
        KeyCode::PageUp => screen.offset = screen.offset.saturating_sub(PAGE),
        KeyCode::Home => screen.offset = 0,
        KeyCode::End => screen.offset = usize::MAX,
        _ => {}
    }
    model.sort = sort;
    model.arrange();
    false
}

/// Which sources are not kept current, so that names may be old.
fn stale(sources: &Sources) -> Option<String> {
    let hypervisors = sources.hypervisors.iter().map(|hypervisor| (&*hypervisor.uri, &hypervisor.sync));
    let all = [("netlink", &sources.netlink), ("ovsdb", &sources.ovsdb)].into_iter().chain(hypervisors);
    let stale: Vec<_> =
        all.filter(|(_, sync)| matches!(sync, SyncState::Stale { .. })).map(|(name, _)| plain(name)).collect();
    (!stale.is_empty()).then(|| format!("stale: {}; names may be old, see `vifctl status`", stale.join(", ")))
}

/// The rates of one interval.
#[derive(Serialize)]
struct Rated<'a> {
    read_at: String,
    view: View,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale: Option<String>,
    devices: &'a [Row],
}

impl Readable for Rated<'_> {
    fn text(&self, page: &mut Page) {
        page.line(format!("{}, {}", self.read_at, self.view.word()));
        if let Some(stale) = &self.stale {
            page.line(stale);
        }
        let mut table = page.new_table(&[
            text("INSTANCE"),
            text("NAME"),
            whole("DEVICE"),
            text("BRIDGE"),
            whole("RX BIT/S"),
            whole("TX BIT/S"),
            whole("RX PKT/S"),
            whole("TX PKT/S"),
            whole("DROP/S"),
            whole("ERR/S"),
        ]);
        for row in self.devices {
            let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned()).into();
            let rate =
                |of: fn(&Rates) -> f64| row.rates.as_ref().map_or("-".to_owned(), |rates| short(of(rates))).into();
            table.row([
                or_dash(&row.instance),
                or_dash(&row.display_name),
                row.device.clone().into(),
                or_dash(&row.bridge),
                rate(|rates| rates.rx_bits),
                rate(|rates| rates.tx_bits),
                rate(|rates| rates.rx_packets),
                rate(|rates| rates.tx_packets),
                rate(|rates| rates.drops),
                rate(|rates| rates.errors),
            ]);
        }
        page.table(0, &table);
        page.line("");
    }

    fn names(&self) -> Vec<String> {
        self.devices.iter().map(|row| row.device.clone()).collect()
    }
}

/// So many rows further; screens are of all sizes.
const PAGE: usize = 20;

#[cfg(test)]
mod tests;
