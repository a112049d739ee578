//! What a request's body may be.

use super::*;

const ACT: &str = "POST /v2.1/servers/42/virtual_interfaces";
const BY_NAME: &str = "POST /v2.1/servers/42/action";
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const XML: &[(&str, &str)] = &[("content-type", "application/xml")];

#[tokio::test]
async fn of_the_action_itself() {
    const ACCEPTED: Rule = Rule { ask: ACT, status: 202, ..RULE };
    const BAD: Rule = Rule { ask: ACT, status: 400, answer: Answer::Fault("badRequest"), ..RULE };
    const BAD_TYPE: Rule = Rule { ask: ACT, status: 415, answer: Answer::Fault("badMediaType"), ..RULE };
    hold(&[
        Rule { name: "none", ..ACCEPTED },
        Rule { name: "none, of any type", with: &[("content-type", "text/plain")], ..ACCEPTED },
        Rule { name: "JSON", with: JSON, body: r#"{"virtual_interfaces": null}"#, ..ACCEPTED },
        Rule { name: "XML", with: XML, body: "<virtual_interfaces/>", ..ACCEPTED },
        Rule {
            name: "a vendor's type with a version",
            with: &[("content-type", "application/vnd.openstack.compute+xml;version=1.1")],
            body: "<virtual_interfaces/>",
            ..ACCEPTED
        },
        Rule {
            name: "a type with a character set",
            with: &[("content-type", "application/json; charset=UTF-8")],
            body: "{}",
            ..ACCEPTED
        },
        Rule { name: "what does not parse as JSON", with: JSON, body: "{", ..BAD },
        Rule { name: "what does not parse as XML", with: XML, body: "<a>", ..BAD },
        Rule { name: "XML with a DTD", with: XML, body: "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>", ..BAD },
        Rule { name: "another type", with: &[("content-type", "text/plain")], body: "x", ..BAD_TYPE },
        Rule { name: "no type", body: "{}", ..BAD_TYPE },
    ])
    .await;
    for (content_type, open) in [("application/json", "["), ("application/xml", "<a>")] {
        let response = ask(one_vif(), request(ACT, &[("content-type", content_type)], &open.repeat(10_000))).await;
        assert_eq!(response.status(), 400, "{content_type}: a deep one");
    }
    let response = ask(one_vif(), request(ACT, JSON, &" ".repeat(3 << 20))).await;
    assert_eq!(response.status(), 413);
    assert!(text(response).await.starts_with(r#"{"overLimit":{"code":413,"#));
}

#[tokio::test]
async fn of_an_action_that_it_names() {
    const ACCEPTED: Rule = Rule { ask: BY_NAME, status: 202, ..RULE };
    const BAD: Rule = Rule { ask: BY_NAME, status: 400, answer: Answer::Fault("badRequest"), ..RULE };
    hold(&[
        Rule { name: "without parameters: null", with: JSON, body: r#"{"virtual_interfaces":null}"#, ..ACCEPTED },
        Rule { name: "without parameters: {}", with: JSON, body: r#"{"virtual_interfaces": {}}"#, ..ACCEPTED },
        Rule {
            name: "an element of that name",
            with: XML,
            body: r#"<virtual_interfaces xmlns="http://docs.openstack.org/compute/api/v1.1"/>"#,
            ..ACCEPTED
        },
        Rule {
            name: "the element in the extension's namespace",
            with: XML,
            body: r#"<?xml version="1.0"?><v:virtual_interfaces xmlns:v="http://docs.openstack.org/ext/virtual_interfaces/api/v1.1"/>"#,
            ..ACCEPTED
        },
        Rule { name: "the element in no namespace", with: XML, body: "<virtual_interfaces> </virtual_interfaces>", ..ACCEPTED },
        Rule { name: "no body", ..BAD },
        Rule { name: "another action", with: JSON, body: r#"{"reboot": {"type": "HARD"}}"#, ..BAD },
        Rule { name: "another action in XML", with: XML, body: r#"<reboot type="HARD"/>"#, ..BAD },
        Rule { name: "two actions", with: JSON, body: r#"{"virtual_interfaces": null, "reboot": {}}"#, ..BAD },
        Rule { name: "no action", with: JSON, body: "{}", ..BAD },
        Rule { name: "no object", with: JSON, body: r#""virtual_interfaces""#, ..BAD },
        Rule { name: "parameters", with: JSON, body: r#"{"virtual_interfaces": {"a": 1}}"#, ..BAD },
        Rule { name: "other values", with: JSON, body: r#"{"virtual_interfaces": []}"#, ..BAD },
        Rule { name: "parameters in XML", with: XML, body: "<virtual_interfaces><a/></virtual_interfaces>", ..BAD },
        Rule { name: "another namespace", with: XML, body: r#"<virtual_interfaces xmlns="urn:x"/>"#, ..BAD },
        Rule {
            name: "no instance",
            ask: "POST /v2.1/servers/43/action",
            with: JSON,
            body: r#"{"virtual_interfaces":null}"#,
            status: 404,
            answer: Answer::Fault("itemNotFound"),
            ..RULE
        },
        Rule {
            name: "another type",
            ask: BY_NAME,
            with: &[("content-type", "application/x-www-form-urlencoded")],
            body: "virtual_interfaces",
            status: 415,
            answer: Answer::Fault("badMediaType"),
            ..RULE
        },
    ])
    .await;
}
