//! What the tests share: the daemon as a process, a client, a private hypervisor.

pub mod events;
pub mod http;
pub mod hypervisor;
pub mod metrics;
pub mod openvswitch;
pub mod terminal;
pub mod tls;
pub mod vifd;

use std::time::{Duration, Instant};

/// How long anything may take that normally takes milliseconds, on a machine that does much else.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Asks until there is an answer.
///
/// # Panics
/// There is none within [`LIMIT`].
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < LIMIT, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
