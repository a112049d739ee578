//! Every error has its fault as the body, in both formats.

use super::*;

#[tokio::test]
async fn an_error_has_a_fault() {
    const NOT_FOUND: Rule = Rule { status: 404, answer: Answer::Fault("itemNotFound"), ..RULE };
    const NOT_SERVED: Rule = Rule { status: 501, answer: Answer::Fault("notImplemented"), ..RULE };
    const BAD_METHOD: Rule = Rule { status: 405, answer: Answer::Fault("badMethod"), ..RULE };
    hold(&[
        Rule { name: "no such instance", ask: "GET /v1.1/p1/servers/43/os-virtual-interfaces", ..NOT_FOUND },
        Rule { name: "an unknown version", ask: "GET /v3/p1/extensions", ..NOT_FOUND },
        Rule { name: "an unknown path", ask: "GET /v2.1/p1/nothing", ..NOT_FOUND },
        Rule { name: "a deep unknown path", ask: "PUT /v1.1/p1/nothing/of/this", ..NOT_FOUND },
        Rule { name: "a project alone", ask: "GET /v2/p1", ..NOT_FOUND },
        Rule { name: "no id", ask: "GET /v2.1/servers//os-virtual-interfaces", ..NOT_FOUND },
        Rule { name: "below an alias", ask: "GET /v2.1/p1/extensions/virtual_interfaces/x", ..NOT_FOUND },
        Rule { name: "not UTF-8", ask: "GET /v2.1/servers/%ff/os-virtual-interfaces", ..NOT_FOUND },
        Rule { name: "a project that is not UTF-8", ask: "GET /v2.1/%ff/extensions", ..NOT_FOUND },
        Rule { name: "our own paths have no version to choose", ask: "GET /live/x", ..NOT_FOUND },
        Rule { name: "servers", ask: "GET /v2.1/p1/servers", ..NOT_SERVED },
        Rule { name: "servers without a project", ask: "POST /v2.1/servers", ..NOT_SERVED },
        Rule { name: "a server", ask: "DELETE /v1.1/p1/servers/42", ..NOT_SERVED },
        Rule { name: "a server's addresses", ask: "GET /v1.1/p1/servers/42/ips/public", ..NOT_SERVED },
        Rule { name: "images", ask: "GET /v1.1/p1/images/detail", ..NOT_SERVED },
        Rule { name: "flavors", ask: "GET /v2/p1/flavors/1", ..NOT_SERVED },
        Rule { name: "Nova's extensions", ask: "GET /v2.1/os-hypervisors/detail", ..NOT_SERVED },
        Rule {
            name: "a wrong method is told the right one",
            ask: "GET /v2.1/p1/servers/42/virtual_interfaces",
            headers: &[("allow", "POST")],
            ..BAD_METHOD
        },
        Rule {
            name: "a wrong method is told the right ones",
            ask: "DELETE /v1.1/p1/extensions",
            headers: &[("allow", "GET,HEAD")],
            ..BAD_METHOD
        },
        Rule {
            name: "a wrong method for the daemon's own paths",
            ask: "TRACE /live",
            headers: &[("allow", "GET,HEAD")],
            ..BAD_METHOD
        },
        Rule {
            name: "an unknown method",
            ask: "BREW /v1.1/p1/limits",
            headers: &[("allow", "GET,HEAD")],
            ..BAD_METHOD
        },
        Rule {
            name: "an action is posted",
            ask: "PUT /v2/p1/servers/42/action",
            headers: &[("allow", "POST")],
            ..BAD_METHOD
        },
    ])
    .await;
}
