//! Logging: to stderr, for a person on a terminal or for the journal.

use std::{fmt, io};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format},
    registry::LookupSpan,
};

/// Starts logging what `filter` lets through.
pub fn start(filter: EnvFilter) {
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // systemd sets it for a service whose stderr is the journal, which has time stamps of its own.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        let format = format().without_time().with_level(false).with_ansi(false);
        subscriber.with_ansi(false).event_format(Journal(format)).init();
    } else {
        subscriber.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init();
    }
}

/// Lines that begin with their priority, as sd-daemon(3) describes; the journal takes it off.
struct Journal<F>(F);

impl<S, N, F> FormatEvent<S, N> for Journal<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: format::Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}
