//! systemd's journal by its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>): every field of an event is a
//! field of the entry, so that `journalctl INSTANCE_UUID=…` finds what happened to one instance.
//!
//! `MESSAGE=` is the message and the fields in text, since that is all that most readers see. An event's field
//! `instance.uuid` becomes `INSTANCE_UUID=`, the field `id` of a span `request` becomes `REQUEST_ID=`.

use std::{
    fmt::{Debug, Write as _},
    io,
    os::unix::net::UnixDatagram,
    path::Path,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// Writes events to the journal.
pub(super) struct Journal {
    socket: UnixDatagram,
    path: &'static Path,
}

impl Journal {
    /// Finds out whether the journal listens.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn connect(path: &'static str) -> io::Result<Self> {
        let path = Path::new(path);
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        // By the path each time, so that a socket that was made anew is found. And never wait for it.
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path })
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::of_span(span.name());
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            record.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(more) = span.extensions().get::<Fields>() {
                fields.text += &more.text;
                fields.native.extend_from_slice(&more.native);
            }
        }
        let Fields { message, text, mut native, .. } = fields;
        let message = message + &text;
        let priority = match *event.metadata().level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        add(&mut native, "MESSAGE", &message);
        add(&mut native, "PRIORITY", priority);
        add(&mut native, "SYSLOG_IDENTIFIER", "vifd");
        add(&mut native, "TARGET", event.metadata().target());
        if self.socket.send_to(&native, self.path).is_err() {
            // Too long, or the journal is gone or behind. stderr may lead there, or elsewhere.
            eprintln!("<{priority}>{message}");
        }
    }
}

/// The fields of an event or a span.
#[derive(Default)]
struct Fields {
    /// Before each name.
    prefix: String,
    message: String,
    /// ` name=value`, and so on.
    text: String,
    /// As the journal wants them.
    native: Vec<u8>,
}

impl Fields {
    fn of_span(name: &str) -> Self {
        Self { prefix: format!("{name}."), ..Self::default() }
    }

    fn add(&mut self, field: &Field, value: &str, shown: &dyn Debug) {
        if field.name() == "message" {
            self.message += value;
            return;
        }
        let name = self.prefix.clone() + field.name();
        let _ = write!(self.text, " {name}={shown:?}");
        let name: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        // The journal keeps names that begin with an underscore for what it says itself.
        add(&mut self.native, name.trim_start_matches('_'), value);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, &format!("{value:?}"), value);
    }
}

/// A field of the entry. A value with a line's end in it is preceded by its length.
fn add(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use tracing::{Span, field::Empty, info, info_span, subscriber::with_default, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// What the journal receives.
    fn entries(log: impl FnOnce()) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        journal.set_nonblocking(true).unwrap();
        let layer = Journal::connect(path.to_str().unwrap().to_owned().leak()).unwrap();
        with_default(tracing_subscriber::registry().with(layer), log);
        let mut buffer = [0; 4096];
        let mut entries = Vec::new();
        while let Ok(length) = journal.recv(&mut buffer) {
            entries.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        entries
    }

    #[test]
    fn every_field_is_one_of_the_entry_and_in_the_message() {
        let entries = entries(|| {
            let span = info_span!("request", id = "r1", project = Empty);
            let _entered = span.enter();
            Span::current().record("project", "p1");
            warn!(instance.uuid = %"0c1d", count = 3, name = "a \"b\"", why = ?Some(1), "libvirt does not answer");
        });
        assert_eq!(
            entries,
            ["INSTANCE_UUID=0c1d\nCOUNT=3\nNAME=a \"b\"\nWHY=Some(1)\nREQUEST_ID=r1\nREQUEST_PROJECT=p1\n\
              MESSAGE=libvirt does not answer instance.uuid=0c1d count=3 name=\"a \\\"b\\\"\" why=Some(1) \
              request.id=\"r1\" request.project=\"p1\"\n\
              PRIORITY=4\nSYSLOG_IDENTIFIER=vifd\nTARGET=vifd::telemetry::journal::tests\n"]
        );
    }

    #[test]
    fn a_value_cannot_add_fields() {
        let entries = entries(|| info!(name = "x\nPRIORITY=0", "two\nlines"));
        let length = |value: &str| String::from_utf8((value.len() as u64).to_le_bytes().to_vec()).unwrap();
        let [entry] = &*entries else { panic!("{entries:?}") };
        assert!(entry.starts_with(&format!("NAME\n{}x\nPRIORITY=0\n", length("x\nPRIORITY=0"))), "{entry:?}");
        let message = "two\nlines name=\"x\\nPRIORITY=0\"";
        assert!(entry.contains(&format!("MESSAGE\n{}{message}\nPRIORITY=6\n", length(message))), "{entry:?}");
    }

    #[test]
    fn a_journal_that_does_not_listen_is_an_error() {
        assert!(Journal::connect("/nonexistent/socket").is_err());
    }
}
