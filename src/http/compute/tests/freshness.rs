//! How current an answer is, and whether the caller has it already.

use super::*;
use crate::{
    inventory::testing::stale,
    source::{Snapshot, libvirt::domain::DomainState},
};

/// The instance 42 on a hypervisor that was lost in 1970.
fn lost() -> Inventory {
    let mut lost = view(&[nova(&bridged(MAC, "tap0", ""), &[])], &[]);
    lost.hypervisors[0].2.sync = stale("closed");
    joined(&lost)
}

/// A host whose hypervisor has never been read.
fn pending() -> Inventory {
    let mut early = view(&[], &[]);
    early.hypervisors[0].2 = Snapshot::default();
    joined(&early)
}

/// The instance 42 while it is being started; its tap is not there yet.
fn starting() -> Inventory {
    let mut starting = view(&[nova(&bridged(MAC, "tap0", ""), &[])], &[]);
    let domains = Arc::make_mut(&mut starting.hypervisors[0].2.data);
    Arc::make_mut(domains.known.get_mut(&WEB).unwrap()).state = DomainState::StartingUp;
    joined(&starting)
}

const STALE: (&str, &str) = ("warning", r#"110 vifd "Response is Stale""#);

#[tokio::test]
async fn an_answer_says_how_current_it_is() {
    hold(&[
        Rule {
            name: "a current one has the age 0 and no warning",
            ask: "GET /v2.1/servers/42/os-virtual-interfaces",
            headers: &[("age", "0"), ("warning", ""), ("etag", r#""1-1-j""#)],
            ..RULE
        },
        Rule {
            name: "a query for a record that is not kept current is 203",
            on: lost,
            ask: "GET /v2.1/servers/42/os-virtual-interfaces",
            status: 203,
            headers: &[STALE],
            ..RULE
        },
        Rule {
            name: "so it is for attachments",
            on: lost,
            ask: "GET /v2.1/servers/42/os-interface",
            status: 203,
            headers: &[STALE],
            ..RULE
        },
        Rule {
            name: "the action is accepted all the same",
            on: lost,
            ask: "POST /v2.1/servers/42/virtual_interfaces",
            status: 202,
            headers: &[STALE],
            ..RULE
        },
        Rule {
            name: "absence may be out of date, too",
            on: lost,
            ask: "GET /v2.1/servers/43/os-virtual-interfaces",
            status: 404,
            headers: &[STALE],
            answer: Answer::Fault("itemNotFound"),
            ..RULE
        },
        Rule {
            name: "nothing is said to be absent before every hypervisor was listed",
            on: pending,
            ask: "GET /v2.1/servers/42/os-virtual-interfaces",
            status: 503,
            headers: &[("retry-after", "5")],
            answer: Answer::Fault("serviceUnavailable"),
            ..RULE
        },
        Rule {
            name: "an instance that is being started is a build in progress until its devices are there",
            on: starting,
            ask: "GET /v2.1/servers/42/os-virtual-interfaces",
            status: 409,
            answer: Answer::Fault("buildInProgress"),
            ..RULE
        },
    ])
    .await;
    let response = ask(lost(), request("GET /v2.1/servers/42/os-interface", &[], "")).await;
    assert!(response.headers()["age"].to_str().unwrap().parse::<u64>().unwrap() > 1_000_000_000);
}

#[tokio::test]
async fn a_caller_that_has_it_already_is_told_so() {
    const LIST: &str = "GET /v2.1/servers/42/os-virtual-interfaces";
    const HAS_IT: Rule =
        Rule { ask: LIST, status: 304, headers: &[("etag", r#""1-1-j""#)], answer: Answer::Empty, ..RULE };
    const NEEDS_IT: Rule = Rule { ask: LIST, ..RULE };
    hold(&[
        Rule { name: "the same tag", with: &[("if-none-match", r#""1-1-j""#)], ..HAS_IT },
        Rule { name: "one of several, weak", with: &[("if-none-match", r#""x", W/"1-1-j""#)], ..HAS_IT },
        Rule { name: "any", with: &[("if-none-match", "*")], ..HAS_IT },
        Rule {
            name: "HEAD",
            ask: "HEAD /v2.1/servers/42/os-virtual-interfaces",
            with: &[("if-none-match", r#""1-1-j""#)],
            ..HAS_IT
        },
        Rule { name: "another tag", with: &[("if-none-match", r#""1-2-j""#)], ..NEEDS_IT },
        Rule { name: "the tag of another format", with: &[("if-none-match", r#""1-1-x""#)], ..NEEDS_IT },
        Rule {
            name: "the tag of another microversion",
            ask: LIST,
            with: &[("if-none-match", r#""1-1-j""#), ("x-openstack-nova-api-version", "2.12")],
            headers: &[("etag", r#""1-1-jn""#)],
            ..RULE
        },
        Rule {
            name: "an action is never not modified",
            ask: "POST /v2.1/servers/42/virtual_interfaces",
            with: &[("if-none-match", r#""1-1-j""#)],
            status: 202,
            ..RULE
        },
        Rule {
            name: "a bad request is one, whatever the caller has",
            ask: "GET /v2.1/servers/42/os-virtual-interfaces?limit=x",
            with: &[("if-none-match", "*")],
            status: 400,
            answer: Answer::Fault("badRequest"),
            ..RULE
        },
    ])
    .await;
}
