//! What is printed in the end.

use std::{collections::BTreeMap, fmt, time::Duration};

/// How long vifd took to be right again, and how much was done.
#[derive(Default)]
pub struct Report {
    times: BTreeMap<String, Vec<Duration>>,
    pub operations: usize,
    pub faults: usize,
    /// Answers that were compared with the truth and equal to it.
    pub comparisons: usize,
}

impl Report {
    /// vifd was right so long after an operation of this kind.
    pub fn right_after(&mut self, kind: String, time: Duration) {
        self.times.entry(kind).or_default().push(time);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:24} {:>6} {:>10} {:>10} {:>10}", "ms until right after", "count", "median", "p99", "max")?;
        for (kind, times) in &self.times {
            let mut times = times.clone();
            times.sort();
            let at = |per_cent: usize| times[(times.len() * per_cent).div_ceil(100) - 1].as_secs_f64() * 1000.0;
            writeln!(f, "{kind:24} {:>6} {:>10.1} {:>10.1} {:>10.1}", times.len(), at(50), at(99), at(100))?;
        }
        write!(
            f,
            "{} operations, {} of them faults; {} answers compared, 0 differences",
            self.operations, self.faults, self.comparisons
        )
    }
}
