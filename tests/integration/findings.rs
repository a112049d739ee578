//! Each finding, provoked on the real thing and mended again; and a busy host on which there is none.
//!
//! Virtual functions (`function-differs`) take a network card that has some: that rule is tested beside its code.

mod agent;
mod busy;
mod devices;
mod guests;
mod switch;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{LIMIT, hypervisor::Hypervisor, vifd::Vifd};

const QEMU: &str = "qemu:///system";
const LXC: &str = "lxc:///system";
/// Looks follow each other quickly, and nothing is waited for.
const CONFIG: &str = "[findings]\nlook_interval = '50ms'\nleaked_after = '0s'\ninterval = '0s'\n";

/// A thing that is wrong: code and the subject's name.
type Wrong<'a> = (&'a str, &'a str);

/// What is raised.
fn raised(answer: &Value) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |finding: &Value| (text(&finding["code"]), text(&finding["subject"]["name"]));
    answer["findings"].as_array().unwrap().iter().map(of).collect()
}

/// Waits until exactly this is raised.
fn wait(vifd: &Vifd, what: &str, wrong: &[Wrong]) -> Value {
    let wanted: BTreeSet<_> = wrong.iter().map(|(code, name)| ((*code).to_owned(), (*name).to_owned())).collect();
    let started = Instant::now();
    loop {
        let answer = vifd.get("/host/v1/findings");
        let found = raised(&answer);
        if found == wanted {
            return answer;
        }
        assert!(
            started.elapsed() < LIMIT,
            "{what}: wanted {wanted:?}, there is {found:?}:\n{answer:#}\n{}",
            vifd.get("/host/v1/instances")
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Does something that is wrong, waits until that is raised and nothing else, mends it, and waits until nothing is.
fn provoke(hypervisor: &Hypervisor, vifd: &Vifd, wrong: &[Wrong], cause: &str, mend: &str) -> Value {
    wait(vifd, "nothing is wrong before", &[]);
    hypervisor.run(cause);
    let answer = wait(vifd, cause, wrong);
    for finding in answer["findings"].as_array().unwrap() {
        assert_eq!(finding["confirmed"], true);
        assert!(!finding["evidence"].as_array().unwrap().is_empty(), "{finding}");
        assert!(!finding["commands"].as_array().unwrap().is_empty(), "{finding}");
    }
    hypervisor.run(mend);
    wait(vifd, mend, &[]);
    answer
}

fn tap(n: u32, j: u32) -> String {
    Hypervisor::id(&format!("tap_name {n} {j}"))
}

fn port(n: u32, j: u32) -> String {
    Hypervisor::id(&format!("port_uuid {n} {j}"))
}

fn mac(n: u32, j: u32) -> String {
    Hypervisor::id(&format!("mac_address {n} {j}"))
}
