//! Paging.

use super::*;

/// The instance 42 with three VIFs, the ids of which end with 1, 2 and 3.
fn three_vifs() -> Inventory {
    let interface = |n| bridged(MAC, &format!("tap{n}"), &format!("<alias name='ua-{}'/>", Uuid::from_u128(n)));
    let interfaces: String = (1..=3).map(interface).collect();
    joined(&view(&[nova(&interfaces, &[])], &[]))
}

/// The instance 42 with more VIFs than an answer holds.
fn many_vifs() -> Inventory {
    let interface = |n: u128| bridged(MAC, &format!("t{n}"), &format!("<alias name='ua-{}'/>", Uuid::from_u128(n)));
    let interfaces: String = (1..=1001).map(interface).collect();
    joined(&view(&[nova(&interfaces, &[])], &[]))
}

const HOST: &[(&str, &str)] = &[("host", "api.example.org:8774")];

#[tokio::test]
async fn a_list_is_told_in_pages() {
    const PAGED: Rule = Rule { on: three_vifs, with: HOST, ..RULE };
    const BAD: Rule = Rule { on: three_vifs, status: 400, answer: Answer::Fault("badRequest"), ..RULE };
    hold(&[
        Rule {
            name: "without parameters all of it, in the order of the devices",
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces",
            answer: Answer::Page(&[1, 2, 3], None),
            ..PAGED
        },
        Rule {
            name: "1.1 links to the rest",
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces?limit=2",
            answer: Answer::Page(&[1, 2], Some("http://api.example.org:8774/v1.1/p1/servers/42/os-virtual-interfaces?limit=2&marker=00000000-0000-0000-0000-000000000002")),
            ..PAGED
        },
        Rule {
            name: "1.1 in XML links to the rest by an atom:link, in the same format",
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces.xml?limit=1",
            answer: Answer::Text(concat!(
                r#"<?xml version="1.0" encoding="UTF-8"?>"#, "\n",
                r#"<virtual_interfaces xmlns="http://docs.openstack.org/compute/api/v1.1" xmlns:atom="http://www.w3.org/2005/Atom">"#,
                r#"<virtual_interface id="00000000-0000-0000-0000-000000000001" mac_address="fa:16:3e:00:00:01"/>"#,
                r#"<atom:link rel="next" href="http://api.example.org:8774/v1.1/p1/servers/42/os-virtual-interfaces.xml?limit=1&amp;marker=00000000-0000-0000-0000-000000000001"/>"#,
                "</virtual_interfaces>"
            )),
            ..PAGED
        },
        Rule {
            name: "behind a proxy that ends TLS the link is https",
            ask: "POST /v1.1/p1/servers/42/virtual_interfaces?limit=1&offset=1",
            with: &[("host", "api.example.org"), ("x-forwarded-proto", "https")],
            status: 202,
            answer: Answer::Page(&[2], Some("https://api.example.org/v1.1/p1/servers/42/virtual_interfaces?limit=1&marker=00000000-0000-0000-0000-000000000002")),
            ..PAGED
        },
        Rule {
            name: "without a host the link is a path",
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces?limit=2",
            with: &[("host", "evil@example.org")],
            answer: Answer::Page(&[1, 2], Some("/v1.1/p1/servers/42/os-virtual-interfaces?limit=2&marker=00000000-0000-0000-0000-000000000002")),
            ..PAGED
        },
        Rule {
            name: "the last page has no link",
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces?limit=2&marker=00000000-0000-0000-0000-000000000002",
            answer: Answer::Page(&[3], None),
            ..PAGED
        },
        Rule {
            name: "2.x has pages and no links: validators forbid them",
            ask: "GET /v2.1/servers/42/os-virtual-interfaces?limit=1&offset=1",
            answer: Answer::Page(&[2], None),
            ..PAGED
        },
        Rule {
            name: "a limit of 0 means the maximum",
            ask: "GET /v2/p1/servers/42/os-virtual-interfaces?limit=0",
            answer: Answer::Page(&[1, 2, 3], None),
            ..PAGED
        },
        Rule {
            name: "a limit above the maximum means the maximum",
            ask: "GET /v2/p1/servers/42/os-virtual-interfaces?limit=1001",
            answer: Answer::Page(&[1, 2, 3], None),
            ..PAGED
        },
        Rule {
            name: "beyond the end there is nothing",
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces?offset=99999999999999999999",
            answer: Answer::Page(&[], None),
            ..PAGED
        },
        Rule {
            name: "a negative limit",
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces?limit=-1",
            ..BAD
        },
        Rule {
            name: "a limit that is no number",
            ask: "POST /v2.1/servers/42/virtual_interfaces?limit=ten",
            ..BAD
        },
        Rule { name: "an empty limit", ask: "GET /v2/p1/servers/42/os-virtual-interfaces?limit=", ..BAD },
        Rule {
            name: "a negative offset",
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces?offset=-1",
            ..BAD
        },
        Rule {
            name: "an unknown marker is not found in 1.1",
            on: three_vifs,
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces?marker=00000000-0000-0000-0000-000000000009",
            status: 404,
            answer: Answer::Fault("itemNotFound"),
            ..RULE
        },
        Rule {
            name: "what is no marker is not found in 1.1",
            on: three_vifs,
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces?marker=x",
            status: 404,
            answer: Answer::Fault("itemNotFound"),
            ..RULE
        },
        Rule {
            name: "an unknown marker is a bad request in 2.x, as it was Nova's",
            ask: "GET /v2.1/servers/42/os-virtual-interfaces?marker=00000000-0000-0000-0000-000000000009",
            ..BAD
        },
    ])
    .await;
}

#[tokio::test]
async fn the_maximum_is_a_thousand() {
    let path = "GET /v1.1/p1/servers/42/os-virtual-interfaces?limit=5000";
    let body: Value = serde_json::from_str(&text(ask(many_vifs(), request(path, HOST, "")).await).await).unwrap();
    assert_eq!(body["virtual_interfaces"].as_array().unwrap().len(), 1000);
    let next = body["virtual_interfaces_links"][0]["href"].as_str().unwrap();
    let rest = request(&format!("GET {}", next.trim_start_matches("http://api.example.org:8774")), HOST, "");
    let body: Value = serde_json::from_str(&text(ask(many_vifs(), rest).await).await).unwrap();
    assert_eq!(body["virtual_interfaces"].as_array().unwrap().len(), 1);
    assert!(body.get("virtual_interfaces_links").is_none());
}
