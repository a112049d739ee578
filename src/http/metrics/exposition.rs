//! The two text formats that Prometheus reads: OpenMetrics 1.0, and its own 0.0.4.
//!
//! Written here because `prometheus-client`, the crate for it, has no created timestamps and no format but OpenMetrics. A family
//! is written with all of its samples before the next begins, so that none can be torn apart.

use std::fmt::{self, Write};

use axum::http::{HeaderMap, header};
use jiff::Timestamp;

use crate::meters::Histogram;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4: no created timestamps, no units.
    Text,
}

impl Format {
    /// The one that the caller likes better; the plain one for who says nothing.
    pub(super) fn of_request(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::ACCEPT);
        let ranges = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let (mut open_metrics, mut text) = (0.0, 0.0);
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let best = match parts.next() {
                Some("application/openmetrics-text") => &mut open_metrics,
                Some("text/plain" | "text/*" | "*/*") => &mut text,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse::<f32>().ok());
            *best = quality.unwrap_or(1.0).max(*best);
        }
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What a family's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// A text that grows.
#[derive(Debug)]
pub(super) struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    pub(super) fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// Begins a counter. Its name has no suffix: `_total` is added.
    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> Counters<'_> {
        self.family(name, Kind::Counter, help);
        Counters { exposition: self, name }
    }

    /// Begins a gauge.
    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> Gauges<'_> {
        self.family(name, Kind::Gauge, help);
        Gauges { exposition: self, name }
    }

    /// Begins an info metric. Its name has no suffix: `_info` is added.
    pub(super) fn info(&mut self, name: &'static str, help: &str) -> Infos<'_> {
        self.family(name, Kind::Info, help);
        Infos { exposition: self, name }
    }

    /// Begins a histogram of durations, in seconds.
    pub(super) fn histogram(&mut self, name: &'static str, help: &str) -> Histograms<'_> {
        self.family(name, Kind::Histogram, help);
        Histograms { exposition: self, name }
    }

    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let (suffix, kind) = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Counter) => ("", "counter"),
            (Format::OpenMetrics, Kind::Info) => ("", "info"),
            (Format::Text, Kind::Counter) => ("_total", "counter"),
            (Format::Text, Kind::Info) => ("_info", "gauge"),
            (_, Kind::Gauge) => ("", "gauge"),
            (_, Kind::Histogram) => ("", "histogram"),
        };
        self.line(format_args!("# TYPE {name}{suffix} {kind}"));
        let unit = ["bytes", "seconds"].into_iter().find(|unit| name.ends_with(unit));
        if let (Format::OpenMetrics, Some(unit)) = (self.format, unit) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        self.line(format_args!("# HELP {name}{suffix} {}", Escaped(help)));
    }

    fn line(&mut self, line: fmt::Arguments) {
        // A String takes everything.
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &Labels, value: impl fmt::Display) {
        if labels.0.is_empty() {
            self.line(format_args!("{name}{suffix} {value}"));
        } else {
            self.line(format_args!("{name}{suffix}{{{}}} {value}", labels.0));
        }
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// A counter's samples.
pub(super) struct Counters<'a> {
    exposition: &'a mut Exposition,
    name: &'static str,
}

impl Counters<'_> {
    pub(super) fn sample(&mut self, labels: &Labels, value: impl fmt::Display) -> &mut Self {
        self.exposition.sample(self.name, "_total", labels, value);
        self
    }

    /// With the moment at which it was nought.
    pub(super) fn created(&mut self, labels: &Labels, value: impl fmt::Display, created: Timestamp) {
        self.sample(labels, value);
        if self.exposition.format == Format::OpenMetrics {
            self.exposition.sample(self.name, "_created", labels, seconds_since_1970(created));
        }
    }
}

/// A gauge's samples.
pub(super) struct Gauges<'a> {
    exposition: &'a mut Exposition,
    name: &'static str,
}

impl Gauges<'_> {
    pub(super) fn sample(&mut self, labels: &Labels, value: impl fmt::Display) -> &mut Self {
        self.exposition.sample(self.name, "", labels, value);
        self
    }
}

/// An info metric's samples.
pub(super) struct Infos<'a> {
    exposition: &'a mut Exposition,
    name: &'static str,
}

impl Infos<'_> {
    pub(super) fn sample(&mut self, labels: &Labels) -> &mut Self {
        self.exposition.sample(self.name, "_info", labels, 1);
        self
    }
}

/// A histogram's samples.
pub(super) struct Histograms<'a> {
    exposition: &'a mut Exposition,
    name: &'static str,
}

impl Histograms<'_> {
    pub(super) fn sample<const N: usize>(&mut self, labels: &Labels, histogram: &Histogram<N>) -> &mut Self {
        let buckets = histogram.cumulative();
        // Read after the buckets, and the count from them, so that no bucket exceeds it.
        let count = buckets.last().map_or(0, |(_, count)| *count) + histogram.beyond();
        for (microseconds, count) in buckets {
            let bound = Seconds(u128::from(microseconds) * 1000);
            self.exposition.sample(self.name, "_bucket", &labels.clone().with("le", bound), count);
        }
        self.exposition.sample(self.name, "_bucket", &labels.clone().with("le", "+Inf"), count);
        self.exposition.sample(self.name, "_sum", labels, Seconds(histogram.total().as_nanos()));
        self.exposition.sample(self.name, "_count", labels, count);
        self
    }
}

/// Labels as they are written. Their values may be anything.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(String);

impl Labels {
    /// With one more, whose name is ours.
    pub(super) fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        let value = value.to_string();
        let _ = write!(self.0, "{name}=\"{}\"", Escaped(&value));
        self
    }
}

/// Text that ends where it should, in both formats. Names are tenants' input: what could move a cursor or forge a line
/// is replaced, and what is too long to be a name is cut.
struct Escaped<'a>(&'a str);

/// Longer than any name that a cloud allows (255).
const LONGEST: usize = 256;

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, c) in self.0.chars().enumerate() {
            match c {
                _ if n == LONGEST => return f.write_char('…'),
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                c if c.is_control() || is_invisible(c) => f.write_char(char::REPLACEMENT_CHARACTER)?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Line and paragraph separators, and what changes the direction of the text that follows.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Nanoseconds, written as seconds.
pub(super) struct Seconds(pub(super) u128);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.0 % 1_000_000_000);
        let fraction = fraction.trim_end_matches('0');
        write!(f, "{}.{}", self.0 / 1_000_000_000, if fraction.is_empty() { "0" } else { fraction })
    }
}

/// A moment as both formats write it.
pub(super) fn seconds_since_1970(moment: Timestamp) -> Seconds {
    Seconds(moment.as_nanosecond().try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn accept(value: &str) -> Format {
        let value = HeaderValue::from_str(value).unwrap();
        Format::of_request(&HeaderMap::from_iter([(header::ACCEPT, value)]))
    }

    #[test]
    fn openmetrics_is_for_those_who_like_it_best() {
        // What Prometheus 2.42 and 3 send.
        for open in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3",
            "application/openmetrics-text",
        ] {
            assert_eq!(accept(open), Format::OpenMetrics, "{open}");
        }
        for text in [
            "",
            "*/*",
            "text/html",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.1,text/plain",
        ] {
            assert_eq!(accept(text), Format::Text, "{text}");
        }
        assert_eq!(Format::of_request(&HeaderMap::new()), Format::Text);
    }

    fn written(format: Format) -> String {
        let mut exposition = Exposition::new(format);
        let labels = Labels::default().with("device", "tap0");
        let created = Timestamp::from_millisecond(1_500).unwrap();
        exposition.counter("vif_bytes", "What \\ was\nsent.").created(&labels, 7, created);
        exposition.gauge("links", "Links.").sample(&Labels::default(), 3);
        exposition.info("vif", "A VIF.").sample(&labels);
        let histogram = Histogram::new([100, 2_000_000]);
        for micros in [50, 150, 3_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        exposition.histogram("join_seconds", "Joins.").sample(&Labels::default(), &histogram);
        exposition.finish()
    }

    #[test]
    fn both_formats_are_written_as_their_specifications_say() {
        let open = "\
# TYPE vif_bytes counter
# UNIT vif_bytes bytes
# HELP vif_bytes What \\\\ was\u{fffd}sent.
vif_bytes_total{device=\"tap0\"} 7
vif_bytes_created{device=\"tap0\"} 1.5
# TYPE links gauge
# HELP links Links.
links 3
# TYPE vif info
# HELP vif A VIF.
vif_info{device=\"tap0\"} 1
# TYPE join_seconds histogram
# UNIT join_seconds seconds
# HELP join_seconds Joins.
join_seconds_bucket{le=\"0.0001\"} 1
join_seconds_bucket{le=\"2.0\"} 2
join_seconds_bucket{le=\"+Inf\"} 3
join_seconds_sum 3.0002
join_seconds_count 3
# EOF
";
        assert_eq!(written(Format::OpenMetrics), open);
        let text: String = open
            .lines()
            .filter(|line| !line.contains("_created") && !line.starts_with("# UNIT") && *line != "# EOF")
            .map(|line| match line {
                "# TYPE vif info" => "# TYPE vif_info gauge\n".to_owned(),
                "# HELP vif A VIF." => "# HELP vif_info A VIF.\n".to_owned(),
                line if line.starts_with("# ") => line.replace("vif_bytes", "vif_bytes_total") + "\n",
                line => line.to_owned() + "\n",
            })
            .collect();
        assert_eq!(written(Format::Text), text);
    }

    #[test]
    fn names_cannot_leave_their_quotes_or_forge_a_line() {
        let labels = |value: &str| Labels::default().with("name", value).0;
        assert_eq!(labels(r#"a"} 1"#), r#"name="a\"} 1""#);
        assert_eq!(labels("a\\"), r#"name="a\\""#);
        let replaced = "name=\"a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}[31m\u{fffd}\"";
        assert_eq!(labels("a\nb\r\0\u{1b}[31m\u{202e}"), replaced);
        assert_eq!(labels("数据库 ☂"), "name=\"数据库 ☂\"");
        assert_eq!(labels(&"x".repeat(5000)).len(), LONGEST + "name=\"…\"".len());
    }

    proptest! {
        #[test]
        fn any_value_is_one_quoted_string_on_one_line(value in any::<String>()) {
            let label = Labels::default().with("name", &value).0;
            let inside = label.strip_prefix("name=\"").unwrap().strip_suffix('"').unwrap();
            let unescaped = inside.replace("\\\\", "").replace("\\\"", "");
            prop_assert!(!unescaped.contains(['"', '\\', '\n', '\r', '\0']), "{label}");
        }
    }
}
