//! Versions: which there are, and which is spoken.

use super::*;

#[tokio::test]
async fn the_versions_are_listed() {
    const HOST: &[(&str, &str)] = &[("host", "h:1")];
    hold(&[
        Rule {
            name: "the list",
            ask: "GET /",
            with: HOST,
            answer: Answer::Json(
                r#"{"versions":[
                {"id":"v1.1","status":"SUPPORTED","version":"","min_version":"","updated":"2011-01-21T11:33:21Z","links":[{"rel":"self","href":"http://h:1/v1.1/"}]},
                {"id":"v2.0","status":"SUPPORTED","version":"","min_version":"","updated":"2011-01-21T11:33:21Z","links":[{"rel":"self","href":"http://h:1/v2/"}]},
                {"id":"v2.1","status":"CURRENT","version":"2.100","min_version":"2.1","updated":"2013-07-23T11:33:21Z","links":[{"rel":"self","href":"http://h:1/v2.1/"}]}]}"#,
            ),
            ..RULE
        },
        Rule { name: "the list in XML", ask: "GET /", with: &[("accept", "application/xml")], answer: Answer::Xml("versions"), ..RULE },
        Rule {
            name: "a version's detail",
            ask: "GET /v2.1/",
            with: HOST,
            answer: Answer::Json(
                r#"{"version":{"id":"v2.1","status":"CURRENT","version":"2.100","min_version":"2.1","updated":"2013-07-23T11:33:21Z",
                "links":[{"rel":"self","href":"http://h:1/v2.1/"},{"rel":"describedby","type":"text/html","href":"http://docs.openstack.org/"}],
                "media-types":[{"base":"application/json","type":"application/vnd.openstack.compute+json;version=2.1"},
                {"base":"application/xml","type":"application/vnd.openstack.compute+xml;version=2.1"}]}}"#,
            ),
            ..RULE
        },
        Rule { name: "1.1's detail in XML", ask: "GET /v1.1/", with: &[("accept", "application/xml")], answer: Answer::Xml("version"), ..RULE },
        Rule { name: "without the slash", ask: "GET /v1.1.xml", answer: Answer::Xml("version"), ..RULE },
        Rule { name: "2's detail", ask: "GET /v2.xml", answer: Answer::Xml("version"), ..RULE },
        Rule {
            name: "a detail is given whatever microversion is asked for: it tells which there are",
            ask: "GET /v2.1",
            with: &[("x-openstack-nova-api-version", "2.999")],
            ..RULE
        },
        Rule {
            name: "a path without a version has choices",
            ask: "GET /servers/42/os-virtual-interfaces?limit=1",
            with: HOST,
            status: 300,
            answer: Answer::Json(
                r#"{"choices":[
                {"id":"v1.1","status":"SUPPORTED","version":"","min_version":"","updated":"2011-01-21T11:33:21Z","links":[{"rel":"self","href":"http://h:1/v1.1/servers/42/os-virtual-interfaces"}],
                 "media-types":[{"base":"application/json","type":"application/vnd.openstack.compute+json;version=1.1"},{"base":"application/xml","type":"application/vnd.openstack.compute+xml;version=1.1"}]},
                {"id":"v2.0","status":"SUPPORTED","version":"","min_version":"","updated":"2011-01-21T11:33:21Z","links":[{"rel":"self","href":"http://h:1/v2/servers/42/os-virtual-interfaces"}],
                 "media-types":[{"base":"application/json","type":"application/vnd.openstack.compute+json;version=2"},{"base":"application/xml","type":"application/vnd.openstack.compute+xml;version=2"}]},
                {"id":"v2.1","status":"CURRENT","version":"2.100","min_version":"2.1","updated":"2013-07-23T11:33:21Z","links":[{"rel":"self","href":"http://h:1/v2.1/servers/42/os-virtual-interfaces"}],
                 "media-types":[{"base":"application/json","type":"application/vnd.openstack.compute+json;version=2.1"},{"base":"application/xml","type":"application/vnd.openstack.compute+xml;version=2.1"}]}]}"#,
            ),
            ..RULE
        },
        Rule {
            name: "choices in XML, of paths that a client made up",
            ask: "GET /p1/a%3Cb&\"c.xml",
            status: 300,
            answer: Answer::Xml("choices"),
            ..RULE
        },
        Rule { name: "choices for any method", ask: "POST /p1/servers/42/action", status: 300, ..RULE },
    ])
    .await;
}

#[tokio::test]
async fn microversions_are_negotiated() {
    const PATH: &str = "GET /v2.1/servers/42/os-interface";
    const BOTH: &str = "Accept, OpenStack-API-Version, X-OpenStack-Nova-API-Version";
    const BAD: Rule =
        Rule { ask: PATH, status: 400, headers: &[("vary", BOTH)], answer: Answer::Fault("badRequest"), ..RULE };
    const OUT_OF_RANGE: Rule =
        Rule { ask: PATH, status: 406, headers: &[("vary", BOTH)], answer: Answer::Fault("computeFault"), ..RULE };
    const TWELVE: Rule = Rule {
        ask: PATH,
        headers: &[("openstack-api-version", "compute 2.12"), ("x-openstack-nova-api-version", "2.12"), ("vary", BOTH)],
        ..RULE
    };
    const LEAST: Rule = Rule {
        ask: PATH,
        headers: &[("openstack-api-version", "compute 2.1"), ("x-openstack-nova-api-version", "2.1"), ("vary", BOTH)],
        ..RULE
    };
    hold(&[
        Rule { name: "none is 2.1", ..LEAST },
        Rule { name: "by the standard header", with: &[("openstack-api-version", "compute 2.12")], ..TWELVE },
        Rule { name: "by Nova's header", with: &[("x-openstack-nova-api-version", "2.12")], ..TWELVE },
        Rule {
            name: "the standard header goes before Nova's",
            with: &[("x-openstack-nova-api-version", "2.3"), ("openstack-api-version", "compute 2.12")],
            ..TWELVE
        },
        Rule {
            name: "among other services' versions",
            with: &[("openstack-api-version", "volume 3.1,Compute  2.12 , identity 3")],
            ..TWELVE
        },
        Rule { name: "only other services' versions", with: &[("openstack-api-version", "volume 3.1")], ..LEAST },
        Rule {
            name: "latest",
            ask: PATH,
            with: &[("x-openstack-nova-api-version", "latest")],
            headers: &[("openstack-api-version", "compute 2.100"), ("x-openstack-nova-api-version", "2.100")],
            ..RULE
        },
        Rule {
            name: "faults say it too",
            ask: "GET /v2.1/servers/43/os-interface",
            with: &[("x-openstack-nova-api-version", "2.12")],
            status: 404,
            headers: &[("x-openstack-nova-api-version", "2.12"), ("vary", BOTH)],
            answer: Answer::Fault("itemNotFound"),
            ..RULE
        },
        Rule { name: "no number", with: &[("x-openstack-nova-api-version", "two")], ..BAD },
        Rule { name: "one number", with: &[("openstack-api-version", "compute 2")], ..BAD },
        Rule { name: "three numbers", with: &[("openstack-api-version", "compute 2.1.1")], ..BAD },
        Rule { name: "nothing", with: &[("openstack-api-version", "compute")], ..BAD },
        Rule { name: "a leading nought", with: &[("x-openstack-nova-api-version", "2.01")], ..BAD },
        Rule { name: "a sign", with: &[("x-openstack-nova-api-version", "2.-1")], ..BAD },
        Rule { name: "no text", with: &[("x-openstack-nova-api-version", "2.1é")], ..BAD },
        Rule { name: "too high", with: &[("x-openstack-nova-api-version", "2.101")], ..OUT_OF_RANGE },
        Rule { name: "far too high", with: &[("openstack-api-version", "compute 2.99999999999")], ..OUT_OF_RANGE },
        Rule { name: "too low", with: &[("x-openstack-nova-api-version", "2.0")], ..OUT_OF_RANGE },
        Rule { name: "another major version", with: &[("openstack-api-version", "compute 3.1")], ..OUT_OF_RANGE },
        Rule {
            name: "they are 2.1's alone",
            ask: "GET /v2/p1/servers/42/os-interface",
            with: &[("openstack-api-version", "compute 2.999")],
            headers: &[("openstack-api-version", ""), ("x-openstack-nova-api-version", ""), ("vary", "Accept")],
            ..RULE
        },
    ])
    .await;
}
