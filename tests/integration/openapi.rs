//! The OpenAPI document, held against the daemon on real guests by a fuzzer: see `tests/testbed/fuzzer`.

use std::fs;

use serde_json::Value;

use crate::support::{
    hypervisor::{Hypervisor, output},
    vifd::Vifd,
};

const FUZZER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/fuzzer");
/// So many examples of each call, besides those that cover each parameter.
const EXAMPLES: u32 = 3;
/// The calls that are not asked: the stream of events.
const NOT_ASKED: u64 = 1;

/// What the document leaves open: which things are there, and where it is right that a check finds something.
fn settings() -> String {
    let id = Hypervisor::id;
    let ports = [id("port_uuid 1 0"), id("port_uuid 1 1"), id("port_uuid 2 0")];
    format!(
        "[dictionaries.instances]
values = ['{}', '{}', 'instance-00000001', '1', '2']
[dictionaries.ports]
values = {ports:?}
[dictionaries.devices]
values = ['lo', 'br0', '1', '2', '3']
[dictionaries.aliases]
values = ['virtual_interfaces', 'MID-VRT', 'os-attach-interfaces']
[dictionaries.things]
values = ['br0', 'instance-00000002', '{}', '{}']
[parameters]
'path.id' = {{ dictionary = 'instances', probability = 0.7 }}
'path.port_id' = {{ dictionary = 'ports', probability = 0.7 }}
'path.device' = {{ dictionary = 'devices', probability = 0.7 }}
'path.alias' = {{ dictionary = 'aliases', probability = 0.7 }}
'query.marker' = {{ dictionary = 'ports', probability = 0.7 }}
'query.thing' = {{ dictionary = 'things', probability = 0.7 }}
# Anyone on loopback is an administrator here.
[checks.ignored_auth]
enabled = false
# What no host can serve is refused with 501, as the document says.
[checks.not_a_server_error]
expected-statuses = ['2xx', '3xx', '4xx', 501]
# A stream of events has no end.
[[operations]]
include-path = '/host/v1/events'
enabled = false
# A path without a version has its choices, whatever is asked.
[[operations]]
include-path = '/{{path}}'
checks.unsupported_method.enabled = false
# A marker of another list is a bad request, for the versions that knew it so.
[[operations]]
include-path-regex = '(virtual.interfaces|action)$'
checks.positive_data_acceptance.expected-statuses = ['2xx', '3xx', 400, 401, 403, 404, 409]
# The older of the two headers for a microversion is passed over where the newer one is there.
[[operations]]
include-path-regex = '^/v2[.]1/'
checks.negative_data_rejection.enabled = false
",
        id("server_uuid 1"),
        id("server_uuid 2"),
        id("mac_address 1 0"),
        ports[0],
    )
}

/// Asks everything that the document describes, and much that it does not allow, with further arguments; returns how
/// many requests there were.
fn fuzz(hypervisor: &Hypervisor, vifd: &Vifd, arguments: &[&str]) -> u64 {
    let mut command = hypervisor.command(FUZZER);
    command.args(["run", &format!("http://{}", vifd.tcp())]).arg(hypervisor.dir());
    command.args(["--seed", "7", "--no-shrink", "--max-examples", &EXAMPLES.to_string()]);
    output(command.args(arguments));
    let report: Value = serde_json::from_slice(&fs::read(hypervisor.dir().join("report.json")).unwrap()).unwrap();
    let operations = &report["operations"];
    let asked = operations["tested"].as_u64().map(|tested| tested + NOT_ASKED);
    assert!(report["complete"] == true && asked == operations["total"].as_u64(), "{report}");
    report["test_cases"]["generated"].as_u64().unwrap()
}

#[test]
#[ignore = "needs root: run by make test"]
fn no_request_gets_an_answer_that_the_openapi_document_does_not_describe() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 2);
    hypervisor.create("lxc:///system", "lxc_domain 2");
    let vifd = hypervisor.vifd("");
    let document = hypervisor.dir().join("openapi.json");
    fs::write(&document, vifd.request("GET", "/openapi.json", &[]).body).unwrap();
    output(std::process::Command::new(FUZZER).arg("check").arg(&document));

    fs::write(hypervisor.dir().join("schemathesis.toml"), settings()).unwrap();
    let phases = ["--phases", "coverage,fuzzing"];
    let asked = fuzz(&hypervisor, &vifd, &phases);
    let in_xml = fuzz(&hypervisor, &vifd, &[&phases[..], &["--header", "Accept: application/xml"]].concat());
    println!("asked {asked} times, and {in_xml} times for XML");
    assert!(asked > 1000 && in_xml > 1000, "{asked} {in_xml}");
}
