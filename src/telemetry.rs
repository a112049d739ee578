//! Logging: for the journal, for a person on a terminal, or for a program that reads JSON.

use std::io::{self, IsTerminal};

use rustix::fs::fstat;
use tracing::warn;
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use self::journal::Journal;
use crate::config::{LogFilter, LogFormat};

mod journal;

/// Changes what is logged while vifd runs.
#[derive(Debug)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

impl LogControl {
    /// Logs what `filter` lets through, from now on.
    pub fn set(&self, filter: &LogFilter) {
        if let Err(error) = self.0.reload(filter.filter()) {
            warn!(%error, "the log's filter stays as it was");
        }
    }
}

/// Starts logging what `filter` lets through.
#[must_use]
pub fn start(filter: &LogFilter, format: LogFormat) -> LogControl {
    let (filter, handle) = reload::Layer::new(filter.filter());
    let registry = tracing_subscriber::registry().with(filter);
    let journal = match format {
        LogFormat::Journal => Some(Journal::connect(journal::SOCKET)),
        LogFormat::Auto if stderr_is_the_journal() => Some(Journal::connect(journal::SOCKET)),
        LogFormat::Auto | LogFormat::Text | LogFormat::Json => None,
    };
    match (journal, format) {
        (Some(Ok(journal)), _) => registry.with(journal).init(),
        (_, LogFormat::Json) => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).init();
        }
        (failed, _) => {
            registry.with(fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal())).init();
            if let Some(Err(error)) = failed {
                warn!(%error, path = journal::SOCKET, "could not reach the journal");
            }
        }
    }
    LogControl(handle)
}

/// Whether systemd has connected stderr with the journal: it says which file that is, `DEVICE:INODE` (systemd.exec(5)).
/// Somebody may have redirected stderr since.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}
