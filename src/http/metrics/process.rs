//! The process as the kernel accounts for it, by the names that all exporters use.

use jiff::Timestamp;
use procfs::process::{LimitValue, Process};

use super::exposition::{Exposition, Labels, Seconds, seconds_since_1970};
use crate::source::moment::Moment;

/// Writes what `/proc/self` says; nothing where it cannot be read. `boot` is when the host was started, the same each time:
/// who looks for restarts compares.
pub(super) fn write(exposition: &mut Exposition, boot: Moment) {
    let Ok(process) = Process::myself() else { return };
    let none = Labels::default();
    if let Ok(stat) = process.stat() {
        let seconds = |ticks: u64| Seconds(u128::from(ticks) * 1_000_000_000 / u128::from(procfs::ticks_per_second()));
        exposition
            .counter("process_cpu_seconds", "CPU time of user and system.")
            .sample(&none, seconds(stat.utime + stat.stime));
        exposition
            .gauge("process_resident_memory_bytes", "Resident memory.")
            .sample(&none, stat.rss * procfs::page_size());
        exposition.gauge("process_virtual_memory_bytes", "Virtual memory.").sample(&none, stat.vsize);
        exposition.gauge("process_threads", "Threads.").sample(&none, stat.num_threads);
        let start = Seconds(seconds_since_1970(Timestamp::from(boot)).0 + seconds(stat.starttime).0);
        exposition.gauge("process_start_time_seconds", "When the process was started.").sample(&none, start);
    }
    if let Ok(open) = process.fd_count() {
        exposition.gauge("process_open_fds", "Open file descriptors.").sample(&none, open);
    }
    if let Ok(limits) = process.limits()
        && let LimitValue::Value(most) = limits.max_open_files.soft_limit
    {
        exposition.gauge("process_max_fds", "As many file descriptors may be open.").sample(&none, most);
    }
}
