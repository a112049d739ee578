//! What vifd counts of its own doings, for [`/metrics`](crate::http::metrics).
//!
//! Whoever does something gets the meters of it from the wiring, and nothing else reads them before a scrape does. A
//! count is one relaxed atomic addition: figures of one scrape may be a moment apart from each other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Everything that is counted, by who counts it.
#[derive(Debug)]
pub struct Meters {
    /// The kernel's links.
    pub links: Arc<SourceMeters>,
    /// The kernel's neighbours.
    pub neighbours: Arc<SourceMeters>,
    /// The Open vSwitch database.
    pub ovsdb: Arc<SourceMeters>,
    /// The DHCP leases of libvirt networks.
    pub leases: Arc<SourceMeters>,
    /// Each hypervisor, by its URI.
    pub hypervisors: Vec<(Arc<str>, Arc<SourceMeters>)>,
    /// How long joins take.
    pub joins: Arc<Histogram<7>>,
    /// Requests.
    pub requests: RequestMeters,
    /// The connections of each listener, by its name.
    pub listeners: [(&'static str, Arc<ConnectionMeters>); 3],
}

impl Meters {
    /// All at nought, for these hypervisors.
    #[must_use]
    pub fn new(hypervisors: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self {
            links: Arc::default(),
            neighbours: Arc::default(),
            ovsdb: Arc::default(),
            leases: Arc::default(),
            hypervisors: hypervisors.into_iter().map(|uri| (uri, Arc::default())).collect(),
            // A join takes some 300 µs with 1,000 links.
            joins: Arc::new(Histogram::new([100, 300, 1_000, 3_000, 10_000, 30_000, 100_000])),
            requests: RequestMeters::default(),
            listeners: ["unix", "tcp", "metrics"].map(|name| (name, Arc::default())),
        }
    }

    /// Those of a listener.
    #[must_use]
    pub fn listener(&self, name: &str) -> Arc<ConnectionMeters> {
        let found = self.listeners.iter().find(|(other, _)| *other == name);
        found.map(|(_, meters)| Arc::clone(meters)).unwrap_or_default()
    }
}

/// What happens to a source.
#[derive(Debug, Default)]
pub struct SourceMeters {
    /// Events taken in.
    pub events: Counter,
    /// Complete readings.
    pub listings: Counter,
    /// Times that it became current, at first or again.
    pub syncs: Counter,
    /// Sessions that ended, or could not begin.
    pub failures: Counter,
    /// Of these, those that ended because events were lost.
    pub overruns: Counter,
    /// Calls that were given up while they hung.
    pub abandoned_calls: Counter,
}

/// What happens to requests.
#[derive(Debug)]
pub struct RequestMeters {
    /// How long answers took, by [`Api`] and class of status (1xx first).
    durations: [[Histogram<8>; 5]; 3],
    /// Those turned away because their peer had made too many.
    pub limited_by_peer: Counter,
    /// Those turned away because there were too many for their project.
    pub limited_by_project: Counter,
    /// Those that made a handler panic.
    pub panics: Counter,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// The Compute API.
    Compute,
    /// The host's own API.
    Host,
    /// vifd itself: its health, its metrics, its description.
    Agent,
}

impl Api {
    /// All of them, as they are numbered.
    pub const ALL: [Self; 3] = [Self::Compute, Self::Host, Self::Agent];

    /// What a path belongs to.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        match path {
            "/live" | "/ready" | "/metrics" | "/openapi.json" => Self::Agent,
            _ if path.starts_with("/host/") => Self::Host,
            _ => Self::Compute,
        }
    }

    /// Its name among the labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Host => "host",
            Self::Agent => "agent",
        }
    }
}

impl RequestMeters {
    /// Counts an answer.
    pub fn answered(&self, api: Api, status: u16, duration: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.durations[api as usize][class].record(duration);
    }

    /// How long answers took, by API and class of status: 2xx to 5xx, since no answer is anything else.
    pub fn durations(&self) -> impl Iterator<Item = (Api, &'static str, &Histogram<8>)> {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        Api::ALL.into_iter().flat_map(move |api| {
            let histograms = classes.into_iter().zip(&self.durations[api as usize]).skip(1);
            histograms.map(move |(class, histogram)| (api, class, histogram))
        })
    }
}

impl Default for RequestMeters {
    fn default() -> Self {
        // Answers take some 10 µs; a deadline is 10 s.
        let bounds = [50, 200, 1_000, 5_000, 20_000, 100_000, 1_000_000, 10_000_000];
        let histogram = || Histogram::new(bounds);
        let classes = || std::array::from_fn(|_| histogram());
        Self {
            durations: std::array::from_fn(|_| classes()),
            limited_by_peer: Counter::default(),
            limited_by_project: Counter::default(),
            panics: Counter::default(),
        }
    }
}

/// What happens to connections.
#[derive(Debug, Default)]
pub struct ConnectionMeters {
    /// Accepted.
    pub accepted: Counter,
    /// Ended.
    pub closed: Counter,
    /// Of those accepted: told that every place is taken.
    pub refused: Counter,
    /// Closed without a word, because even those places were taken.
    pub dropped: Counter,
}

/// Something that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn count(&self) {
        self.add(1);
    }

    /// Counts so many.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// How many there were.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How long something took, each time: how often up to each of `N` bounds, how often longer, and how long in all.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    /// In microseconds, ascending.
    bounds: [u64; N],
    within: [Counter; N],
    beyond: Counter,
    nanoseconds: Counter,
}

impl<const N: usize> Histogram<N> {
    /// With these bounds, in microseconds.
    #[must_use]
    pub fn new(bounds: [u64; N]) -> Self {
        let within = std::array::from_fn(|_| Counter::default());
        Self { bounds, within, beyond: Counter::default(), nanoseconds: Counter::default() }
    }

    /// Takes one in.
    pub fn record(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds.iter().position(|bound| nanoseconds <= bound * 1000);
        bucket.map_or(&self.beyond, |n| &self.within[n]).count();
        self.nanoseconds.add(nanoseconds);
    }

    /// How many took at most so many microseconds, for each bound.
    pub fn cumulative(&self) -> [(u64, u64); N] {
        let mut sum = 0;
        std::array::from_fn(|n| {
            sum += self.within[n].get();
            (self.bounds[n], sum)
        })
    }

    /// How many took longer than the last bound.
    #[must_use]
    pub fn beyond(&self) -> u64 {
        self.beyond.get()
    }

    /// How long all took together.
    #[must_use]
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_up_to_its_bound_and_beyond_the_last() {
        let histogram = Histogram::new([100, 300]);
        for micros in [0, 100, 101, 300, 301, 1_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        assert_eq!(histogram.cumulative(), [(100, 2), (300, 4)]);
        assert_eq!(histogram.beyond(), 2);
        assert_eq!(histogram.total(), Duration::from_micros(1_000_802));
        histogram.record(Duration::MAX);
        assert_eq!(histogram.beyond(), 3);
    }

    #[test]
    fn an_answer_counts_for_its_api_and_the_class_of_its_status() {
        let meters = RequestMeters::default();
        for (path, status) in
            [("/v2.1/servers", 200), ("/host/v1/sync", 404), ("/live", 503), ("/metrics", 200), ("/x", 999), ("/y", 0)]
        {
            meters.answered(Api::of_path(path), status, Duration::ZERO);
        }
        let counted = |(api, class, histogram): (Api, _, &Histogram<8>)| {
            let count = histogram.cumulative()[7].1;
            (count > 0).then_some((api, class, count))
        };
        let counted: Vec<_> = meters.durations().filter_map(counted).collect();
        let expected = [
            (Api::Compute, "2xx", 1),
            (Api::Compute, "5xx", 1),
            (Api::Host, "4xx", 1),
            (Api::Agent, "2xx", 1),
            (Api::Agent, "5xx", 1),
        ];
        assert_eq!(counted, expected);
    }
}
