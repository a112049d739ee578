//! Real clients of OpenStack, old and new, on a real guest: see `tests/testbed/clients`.

use serde_json::{Value, json};

use crate::support::hypervisor::Hypervisor;

#[test]
#[ignore = "needs root: run by make test"]
fn clients_of_openstack_work_unchanged() {
    let hypervisor = Hypervisor::start();
    hypervisor.create_guest(1, 2);
    let vifd = hypervisor.vifd("");
    let clients = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/clients");
    let server = Hypervisor::id("server_uuid 1");
    let said = hypervisor.run(&format!("{clients} ask http://{} {server}", vifd.tcp()));
    let said: Value = serde_json::from_str(&said).unwrap();

    let [ports, macs] = ["port_uuid", "mac_address"].map(|of| [0, 1].map(|j| Hypervisor::id(&format!("{of} 1 {j}"))));
    let each = |row: &dyn Fn(&str, &str) -> Value| json!([row(&ports[0], &macs[0]), row(&ports[1], &macs[1])]);
    let expected = json!({
        "nova 2": each(&|id, mac| json!({ "id": id, "mac_address": mac })),
        "nova 2.1": each(&|id, mac| json!({ "id": id, "mac_address": mac, "net_id": "absent" })),
        "nova 2.12": each(&|id, mac| json!({ "id": id, "mac_address": mac, "net_id": null })),
        "nova virtual-interface-list": [
            ["Id", "Mac address", "Network ID"],
            [ports[0], macs[0], "None"],
            [ports[1], macs[1], "None"],
        ],
        "nova interface_list": each(&|id, mac| json!({ "port_id": id, "mac_addr": mac })),
        "nova versions": [
            { "id": "v1.1", "version": "" }, { "id": "v2.0", "version": "" }, { "id": "v2.1", "version": "2.100" },
        ],
        "nova extensions": ["virtual_interfaces", "OS-EXT-VIF-NET", "os-attach-interfaces"],
        "nova limits": [["ALL", 600_000, "MINUTE"]],
        "sdk": {
            "server_interfaces": [
                { "port_id": ports[0], "mac_addr": macs[0], "port_state": "ACTIVE", "net_id": null,
                  "fixed_ips": [{ "ip_address": "10.0.0.4", "subnet_id": null }] },
                { "port_id": ports[1], "mac_addr": macs[1], "port_state": "ACTIVE", "net_id": null,
                  "fixed_ips": [{ "ip_address": "10.0.1.4", "subnet_id": null }] },
            ],
            "server_interface": macs[0],
            "extensions": ["virtual_interfaces", "OS-EXT-VIF-NET", "os-attach-interfaces"],
            "refused": [501, "This call is not served by the agent of a host."],
        },
    });
    assert_eq!(said, expected, "{said:#}");
}
