//! `/metrics`, read as the programs that it is for read it.

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
};

use super::vifd::Vifd;

/// One scrape: each series with its value.
#[derive(Debug)]
pub struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Scrapes over the Unix socket, in OpenMetrics, by the parser that is its reference.
    pub fn of(vifd: &Vifd) -> Self {
        let response = vifd.request("GET", "/metrics", &["accept: application/openmetrics-text"]);
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
        Self::parse(&response.body)
    }

    /// Reads a text in OpenMetrics.
    pub fn parse(text: &str) -> Self {
        // Debian's Python, which has the package.
        let script = "import sys; from prometheus_client.openmetrics import parser
for family in parser.text_fd_to_metric_families(sys.stdin):
    for sample in family.samples:
        labels = ','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))
        print(f'{sample.name}{{{labels}}}', repr(float(sample.value)), sep='\\t')";
        let samples = feed(Command::new("/usr/bin/python3").args(["-c", script]), text);
        let samples = samples.lines().map(|line| {
            let (series, value) = line.rsplit_once('\t').unwrap();
            (series.to_owned(), value.parse().unwrap())
        });
        let mut series = BTreeMap::new();
        for (name, value) in samples {
            assert_eq!(series.insert(name.clone(), value), None, "{name} is there twice");
        }
        Self(series)
    }

    /// The value of a series, written `name{label=value,…}` with its labels in order.
    pub fn get(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("there is no {series} in {:#?}", self.0.keys()))
    }

    /// The names of the series whose names begin like this.
    pub fn named(&self, begin: &str) -> Vec<&str> {
        self.0.keys().map(String::as_str).filter(|series| series.starts_with(begin)).collect()
    }
}

/// Holds a scrape in Prometheus' text format against `promtool check metrics`, which must find nothing to say.
pub fn check_text(vifd: &Vifd) {
    let response = vifd.request("GET", "/metrics", &[]);
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(feed(Command::new("promtool").args(["check", "metrics"]), &response.body), "");
}

/// What a program says of its standard input, on either output.
///
/// # Panics
/// It fails.
fn feed(command: &mut Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{command:?} failed: {said}\n{input}");
        said
    })
}
