//! In which format an answer comes.

use super::*;

#[tokio::test]
async fn the_format_is_the_suffixs_or_else_that_of_accept_or_else_json() {
    const LIST: &str = "GET /v1.1/p1/servers/42/os-virtual-interfaces";
    const JSON: Rule = Rule { ask: LIST, headers: &[("content-type", "application/json"), ("vary", "Accept")], ..RULE };
    const XML: Rule = Rule {
        ask: LIST,
        headers: &[("content-type", "application/xml; charset=UTF-8"), ("vary", "Accept")],
        answer: Answer::Xml("virtual_interfaces"),
        ..RULE
    };
    hold(&[
        Rule { name: "nothing said", ..JSON },
        Rule { name: "anything accepted", with: &[("accept", "*/*")], ..JSON },
        Rule { name: "neither accepted: JSON, not 406", with: &[("accept", "text/html")], ..JSON },
        Rule { name: "XML accepted", with: &[("accept", "application/xml")], ..XML },
        Rule {
            name: "a vendor's XML",
            with: &[("accept", "application/vnd.openstack.compute+xml;version=1.1")],
            ..XML
        },
        Rule { name: "a vendor's JSON", with: &[("accept", "application/vnd.openstack.compute+json")], ..JSON },
        Rule { name: "quality counts", with: &[("accept", "application/json;q=0.4, application/xml;q=0.5")], ..XML },
        Rule {
            name: "as browsers and old libraries ask",
            with: &[("accept", "text/html, application/xml;q=0.9, */*;q=0.8")],
            ..XML
        },
        Rule {
            name: "two headers are one list",
            with: &[("accept", "application/json;q=0.1"), ("accept", "application/xml")],
            ..XML
        },
        Rule {
            name: "the suffix wins over Accept",
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces.json",
            with: &[("accept", "application/xml")],
            ..JSON
        },
        Rule {
            name: "and so does the other",
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces.xml?limit=1",
            with: &[("accept", "application/json")],
            ..XML
        },
        Rule {
            name: "the URI's version wins over the media type's",
            ask: "GET /v2/p1/servers/42/os-virtual-interfaces.xml",
            on: on_a_network,
            with: &[("accept", "application/vnd.openstack.compute+xml;version=1.1")],
            answer: Answer::Xml("virtual_interfaces"),
            ..RULE
        },
        Rule {
            name: "a path without a version has the media type's",
            ask: "GET /p1/servers/42/os-virtual-interfaces",
            with: &[("accept", "application/vnd.openstack.compute+xml;version=1.1")],
            ..XML
        },
    ])
    .await;
}

#[tokio::test]
async fn xml_holds_what_xml_can_hold() {
    let path = "GET /v1.1/p1/extensions/%3Ca%26%00%1b%EF%BF%BE%22%3E.xml";
    let xml = text(ask(one_vif(), request(path, &[], "")).await).await;
    let document = roxmltree::Document::parse(&xml).unwrap();
    let message = document.root_element().first_element_child().unwrap().text().unwrap();
    assert!(message.ends_with("<a&\">."), "{message}");
}
