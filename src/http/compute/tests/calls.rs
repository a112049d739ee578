//! The calls and what they answer.

use super::*;

#[tokio::test]
async fn an_instances_virtual_interfaces() {
    const LIST: &str =
        r#"{"virtual_interfaces":[{"id":"a756caef-c731-4df1-a814-0dba057b039f","mac_address":"fa:16:3e:00:00:01"}]}"#;
    const XML_LIST: &str = concat!(
        r#"<?xml version="1.0" encoding="UTF-8"?>"#,
        "\n",
        r#"<virtual_interfaces xmlns="http://docs.openstack.org/compute/api/v1.1">"#,
        r#"<virtual_interface id="a756caef-c731-4df1-a814-0dba057b039f" mac_address="fa:16:3e:00:00:01"/>"#,
        "</virtual_interfaces>"
    );
    const NAMED: &[(&str, &str)] = &[("content-type", "application/json")];
    hold(&[
        Rule {
            name: "the extension's action is accepted and answers the list",
            ask: "POST /v1.1/p1/servers/42/virtual_interfaces",
            status: 202,
            answer: Answer::Text(LIST),
            ..RULE
        },
        Rule {
            name: "Nova's query answers the same with 200",
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces",
            answer: Answer::Text(LIST),
            ..RULE
        },
        Rule {
            name: "the action in XML",
            ask: "POST /v1.1/p1/servers/42/virtual_interfaces.xml",
            status: 202,
            answer: Answer::Text(XML_LIST),
            ..RULE
        },
        Rule {
            name: "the query in XML",
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces.xml",
            answer: Answer::Text(XML_LIST),
            ..RULE
        },
        Rule {
            name: "the base /v2/{project}",
            ask: "GET /v2/p1/servers/42/os-virtual-interfaces",
            answer: Answer::Text(LIST),
            ..RULE
        },
        Rule {
            name: "the base /v2.1/{project}",
            ask: "POST /v2.1/p1/servers/42/virtual_interfaces",
            status: 202,
            answer: Answer::Text(LIST),
            ..RULE
        },
        Rule {
            name: "the base /v2.1",
            ask: "POST /v2.1/servers/42/virtual_interfaces",
            status: 202,
            answer: Answer::Text(LIST),
            ..RULE
        },
        Rule {
            name: "the action named in the body",
            ask: "POST /v2.1/servers/42/action",
            with: NAMED,
            body: r#"{"virtual_interfaces": null}"#,
            status: 202,
            answer: Answer::Text(LIST),
            ..RULE
        },
        Rule {
            name: "an instance without an interface has an empty list",
            on: no_vif,
            ask: "GET /v2.1/servers/42/os-virtual-interfaces",
            answer: Answer::Text(r#"{"virtual_interfaces":[]}"#),
            ..RULE
        },
        Rule {
            name: "an empty list in XML",
            on: no_vif,
            ask: "GET /v2.1/servers/42/os-virtual-interfaces.xml",
            answer: Answer::Xml("virtual_interfaces"),
            ..RULE
        },
        Rule {
            name: "HEAD is GET without the body",
            ask: "HEAD /v2.1/servers/42/os-virtual-interfaces",
            headers: &[("content-type", "application/json"), ("content-length", "104")],
            answer: Answer::Empty,
            ..RULE
        },
        Rule {
            name: "OPTIONS tells the methods",
            ask: "OPTIONS /v2.1/servers/42/virtual_interfaces",
            status: 204,
            headers: &[("allow", "POST")],
            answer: Answer::Empty,
            ..RULE
        },
    ])
    .await;
}

#[tokio::test]
async fn an_instances_id() {
    const UUID: &str = "GET /v1.1/p1/servers/874092fe-19a7-44bd-a16a-4fb617bfef7a/os-virtual-interfaces";
    hold(&[
        Rule { name: "a UUID", ask: UUID, ..RULE },
        Rule {
            name: "a UUID in upper case",
            ask: "GET /v2/p1/servers/874092FE-19A7-44BD-A16A-4FB617BFEF7A/os-virtual-interfaces",
            ..RULE
        },
        Rule {
            name: "a UUID without hyphens",
            ask: "GET /v1.1/p1/servers/874092fe19a744bda16a4fb617bfef7a/os-virtual-interfaces",
            ..RULE
        },
        Rule {
            name: "the integer id of the name instance-0000002a",
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces",
            ..RULE
        },
    ])
    .await;
    let port = PORT.to_string();
    for id in ["43", "-1", "0x2a", "99999999999999999999", "web", &format!("%7B{WEB}%7D"), &port, "%00", "%ff"] {
        let path = format!("GET /v1.1/p1/servers/{id}/os-virtual-interfaces");
        let response = ask(one_vif(), request(&path, &[], "")).await;
        assert_eq!(response.status(), 404, "{id}");
    }
}

#[tokio::test]
async fn a_vifs_network() {
    hold(&[
        Rule {
            name: "1.1 has two fields and no more",
            on: on_a_network,
            ask: "GET /v1.1/p1/servers/42/os-virtual-interfaces",
            answer: Answer::Json(
                r#"{"virtual_interfaces":[{"id":"a756caef-c731-4df1-a814-0dba057b039f","mac_address":"fa:16:3e:00:00:01"}]}"#,
            ),
            ..RULE
        },
        Rule {
            name: "2 names the network by the extension's field",
            on: on_a_network,
            ask: "GET /v2/p1/servers/42/os-virtual-interfaces",
            answer: Answer::Json(
                r#"{"virtual_interfaces":[{"id":"a756caef-c731-4df1-a814-0dba057b039f","mac_address":"fa:16:3e:00:00:01","OS-EXT-VIF-NET:net_id":"00000000-0000-0000-0000-000000003d1f"}]}"#,
            ),
            ..RULE
        },
        Rule {
            name: "2 in XML names the network by an attribute of the extension's namespace",
            on: on_a_network,
            ask: "GET /v2/p1/servers/42/os-virtual-interfaces.xml",
            answer: Answer::Text(concat!(
                r#"<?xml version="1.0" encoding="UTF-8"?>"#,
                "\n",
                r#"<virtual_interfaces xmlns="http://docs.openstack.org/compute/api/v1.1" "#,
                r#"xmlns:OS-EXT-VIF-NET="http://docs.openstack.org/compute/ext/extended-virtual-interfaces-net/api/v1.1">"#,
                r#"<virtual_interface id="a756caef-c731-4df1-a814-0dba057b039f" mac_address="fa:16:3e:00:00:01" "#,
                r#"OS-EXT-VIF-NET:net_id="00000000-0000-0000-0000-000000003d1f"/></virtual_interfaces>"#
            )),
            ..RULE
        },
        Rule {
            name: "2 leaves out a network that is not known",
            ask: "GET /v2/p1/servers/42/os-virtual-interfaces",
            answer: Answer::Json(
                r#"{"virtual_interfaces":[{"id":"a756caef-c731-4df1-a814-0dba057b039f","mac_address":"fa:16:3e:00:00:01"}]}"#,
            ),
            ..RULE
        },
        Rule {
            name: "2.11 has two fields",
            on: on_a_network,
            ask: "GET /v2.1/servers/42/os-virtual-interfaces",
            with: &[("x-openstack-nova-api-version", "2.11")],
            answer: Answer::Json(
                r#"{"virtual_interfaces":[{"id":"a756caef-c731-4df1-a814-0dba057b039f","mac_address":"fa:16:3e:00:00:01"}]}"#,
            ),
            ..RULE
        },
        Rule {
            name: "2.12 names the network",
            on: on_a_network,
            ask: "GET /v2.1/servers/42/os-virtual-interfaces",
            with: &[("x-openstack-nova-api-version", "2.12")],
            answer: Answer::Json(
                r#"{"virtual_interfaces":[{"id":"a756caef-c731-4df1-a814-0dba057b039f","mac_address":"fa:16:3e:00:00:01","net_id":"00000000-0000-0000-0000-000000003d1f"}]}"#,
            ),
            ..RULE
        },
        Rule {
            name: "2.12 says null of a network that is not known, since clients read the field unasked",
            ask: "GET /v2.1/servers/42/os-virtual-interfaces",
            with: &[("x-openstack-nova-api-version", "2.12")],
            answer: Answer::Json(
                r#"{"virtual_interfaces":[{"id":"a756caef-c731-4df1-a814-0dba057b039f","mac_address":"fa:16:3e:00:00:01","net_id":null}]}"#,
            ),
            ..RULE
        },
        Rule {
            name: "2.12 in XML",
            on: on_a_network,
            ask: "GET /v2.1/servers/42/os-virtual-interfaces.xml",
            with: &[("x-openstack-nova-api-version", "2.12")],
            answer: Answer::Xml("virtual_interfaces"),
            ..RULE
        },
        Rule {
            name: "from 2.44 the query is gone",
            ask: "GET /v2.1/servers/42/os-virtual-interfaces",
            with: &[("x-openstack-nova-api-version", "2.44")],
            status: 404,
            answer: Answer::Fault("itemNotFound"),
            ..RULE
        },
        Rule {
            name: "up to 2.43 it is there",
            ask: "GET /v2.1/servers/42/os-virtual-interfaces",
            with: &[("x-openstack-nova-api-version", "2.43")],
            ..RULE
        },
        Rule {
            name: "from 2.44 the action is still there",
            ask: "POST /v2.1/servers/42/virtual_interfaces",
            with: &[("x-openstack-nova-api-version", "2.44")],
            status: 202,
            ..RULE
        },
    ])
    .await;
}

#[tokio::test]
async fn an_instances_interface_attachments() {
    const ATTACHMENT: &str = r#"{"interfaceAttachment":{"port_state":"ACTIVE","port_id":"a756caef-c731-4df1-a814-0dba057b039f","mac_addr":"fa:16:3e:00:00:01","net_id":"00000000-0000-0000-0000-000000003d1f","fixed_ips":[{"ip_address":"10.0.0.5","subnet_id":null}]}}"#;
    hold(&[
        Rule {
            name: "what a host cannot know is null",
            ask: "GET /v2.1/p1/servers/42/os-interface",
            answer: Answer::Json(
                r#"{"interfaceAttachments":[{"port_state":"ACTIVE","port_id":"a756caef-c731-4df1-a814-0dba057b039f","mac_addr":"fa:16:3e:00:00:01","net_id":null,"fixed_ips":[{"ip_address":"10.0.0.5","subnet_id":null}]}]}"#,
            ),
            ..RULE
        },
        Rule {
            name: "one by its port id",
            on: on_a_network,
            ask: "GET /v2.1/servers/42/os-interface/a756caef-c731-4df1-a814-0dba057b039f",
            answer: Answer::Json(ATTACHMENT),
            ..RULE
        },
        Rule {
            name: "in /v1.1 too",
            on: on_a_network,
            ask: "GET /v1.1/p1/servers/42/os-interface/A756CAEF-C731-4DF1-A814-0DBA057B039F",
            answer: Answer::Json(ATTACHMENT),
            ..RULE
        },
        Rule {
            name: "from 2.70 there is a tag",
            on: no_vif,
            ask: "GET /v2.1/servers/42/os-interface",
            with: &[("openstack-api-version", "compute 2.70")],
            answer: Answer::Json(r#"{"interfaceAttachments":[]}"#),
            ..RULE
        },
        Rule {
            name: "the tag is null: no host has it",
            on: on_a_network,
            ask: "GET /v2.1/servers/42/os-interface/a756caef-c731-4df1-a814-0dba057b039f",
            with: &[("openstack-api-version", "compute latest")],
            answer: Answer::Json(
                r#"{"interfaceAttachment":{"port_state":"ACTIVE","port_id":"a756caef-c731-4df1-a814-0dba057b039f","mac_addr":"fa:16:3e:00:00:01","net_id":"00000000-0000-0000-0000-000000003d1f","fixed_ips":[{"ip_address":"10.0.0.5","subnet_id":null}],"tag":null}}"#,
            ),
            ..RULE
        },
        Rule {
            name: "the list in XML",
            on: on_a_network,
            ask: "GET /v2/p1/servers/42/os-interface.xml",
            answer: Answer::Xml("interfaceAttachments"),
            ..RULE
        },
        Rule {
            name: "one in XML",
            on: on_a_network,
            ask: "GET /v2/p1/servers/42/os-interface/a756caef-c731-4df1-a814-0dba057b039f.xml",
            answer: Answer::Xml("interfaceAttachment"),
            ..RULE
        },
        Rule {
            name: "an unknown port id is not found",
            ask: "GET /v2.1/servers/42/os-interface/00000000-0000-0000-0000-000000003d1f",
            status: 404,
            answer: Answer::Fault("itemNotFound"),
            ..RULE
        },
        Rule {
            name: "what is no port id is not found",
            ask: "GET /v2.1/servers/42/os-interface/x",
            status: 404,
            answer: Answer::Fault("itemNotFound"),
            ..RULE
        },
        Rule {
            name: "to attach is a documented call that no host serves",
            ask: "POST /v2.1/servers/42/os-interface",
            status: 501,
            answer: Answer::Fault("notImplemented"),
            ..RULE
        },
        Rule {
            name: "to detach is one, too",
            ask: "DELETE /v2.1/servers/42/os-interface/a756caef-c731-4df1-a814-0dba057b039f",
            status: 501,
            answer: Answer::Fault("notImplemented"),
            ..RULE
        },
    ])
    .await;
}

#[tokio::test]
async fn an_attachments_state_is_what_the_host_knows_of_its_link() {
    let state = async |inventory: Inventory| {
        let response = ask(inventory, request("GET /v2.1/servers/42/os-interface", &[], "")).await;
        let body: Value = serde_json::from_str(&text(response).await).unwrap();
        body["interfaceAttachments"][0]["port_state"].clone()
    };
    let tap = |up, carrier| {
        let tap = crate::source::netlink::link::Link { up, carrier, ..link(7, "tap0") };
        joined(&view(&[nova(&bridged(MAC, "tap0", ""), &[])], &[tap]))
    };
    assert_eq!(state(tap(true, Some(true))).await, "ACTIVE");
    assert_eq!(state(tap(true, None)).await, "ACTIVE");
    assert_eq!(state(tap(true, Some(false))).await, "DOWN");
    assert_eq!(state(tap(false, Some(true))).await, "DOWN");
    let missing = nova(&bridged(MAC, "tap0", ""), &[]);
    assert_eq!(state(joined(&view(std::slice::from_ref(&missing), &[]))).await, "DOWN");
    assert_eq!(state(joined(&view(&[missing.replace(" id='3'", "")], &[]))).await, "DOWN");
    let socket = format!(
        "<interface type='vhostuser'><mac address='{MAC}'/><source type='unix' path='/run/vhu1' mode='client'/>
         <target dev='vhu1'/></interface>"
    );
    let socket = view(&[nova(&socket, &[])], &[]);
    assert_eq!(state(joined(&socket)).await, Value::Null);
    let port = Port { link_up: Some(true), ..ovs_port("vhu1", 5) };
    assert_eq!(state(joined(&with_ports(socket, &[port]))).await, "ACTIVE");
}

#[tokio::test]
async fn the_extensions() {
    const ONE: &str = r#"{"extension":{"name":"VirtualInterfaces","namespace":"http://docs.openstack.org/ext/virtual_interfaces/api/v1.1","alias":"virtual_interfaces","updated":"2011-08-17T00:00:00+00:00","description":"Virtual interface support","links":[]}}"#;
    hold(&[
        Rule {
            name: "the list, with what else is served",
            ask: "GET /v1.1/p1/extensions",
            answer: Answer::Json(
                r#"{"extensions":[
                {"name":"VirtualInterfaces","namespace":"http://docs.openstack.org/ext/virtual_interfaces/api/v1.1","alias":"virtual_interfaces","updated":"2011-08-17T00:00:00+00:00","description":"Virtual interface support","links":[]},
                {"name":"ExtendedVIFNet","namespace":"http://docs.openstack.org/compute/ext/extended-virtual-interfaces-net/api/v1.1","alias":"OS-EXT-VIF-NET","updated":"2013-03-07T00:00:00+00:00","description":"Adds network id parameter to the virtual interface list.","links":[]},
                {"name":"AttachInterfaces","namespace":"http://docs.openstack.org/compute/ext/interfaces/api/v1.1","alias":"os-attach-interfaces","updated":"2012-07-22T00:00:00+00:00","description":"Attach interface support.","links":[]}]}"#,
            ),
            ..RULE
        },
        Rule {
            name: "the list in XML",
            ask: "GET /v1.1/p1/extensions.xml",
            answer: Answer::Xml("extensions"),
            ..RULE
        },
        Rule {
            name: "one by its alias",
            ask: "GET /v1.1/p1/extensions/virtual_interfaces",
            answer: Answer::Text(ONE),
            ..RULE
        },
        Rule {
            name: "one by the name in its document's header",
            ask: "GET /v1.1/p1/extensions/MID-VRT",
            answer: Answer::Text(ONE),
            ..RULE
        },
        Rule {
            name: "one by its later alias",
            ask: "GET /v2/p1/extensions/os-virtual-interfaces",
            answer: Answer::Text(ONE),
            ..RULE
        },
        Rule {
            name: "one in XML, as the document shows it",
            ask: "GET /v2.1/extensions/virtual_interfaces.xml",
            answer: Answer::Text(concat!(
                r#"<?xml version="1.0" encoding="UTF-8"?>"#,
                "\n",
                r#"<extension xmlns="http://docs.openstack.org/common/api/v1.0" name="VirtualInterfaces" "#,
                r#"namespace="http://docs.openstack.org/ext/virtual_interfaces/api/v1.1" alias="virtual_interfaces" "#,
                r#"updated="2011-08-17T00:00:00+00:00"><description>Virtual interface support</description></extension>"#
            )),
            ..RULE
        },
        Rule { name: "OS-EXT-VIF-NET", ask: "GET /v2/p1/extensions/OS-EXT-VIF-NET.xml", answer: Answer::Xml("extension"), ..RULE },
        Rule {
            name: "os-attach-interfaces",
            ask: "GET /v2/p1/extensions/os-attach-interfaces.xml",
            answer: Answer::Xml("extension"),
            ..RULE
        },
        Rule {
            name: "an unknown alias is not found",
            ask: "GET /v2/p1/extensions/nothing",
            status: 404,
            answer: Answer::Fault("itemNotFound"),
            ..RULE
        },
        Rule {
            name: "what a client sent is escaped",
            ask: "GET /v1.1/p1/extensions/%3Ca%26%00%22%3E",
            status: 404,
            answer: Answer::Fault("itemNotFound"),
            ..RULE
        },
    ])
    .await;
}

#[tokio::test]
async fn the_limits() {
    hold(&[
        Rule {
            name: "the guide's shape",
            ask: "GET /v1.1/p1/limits",
            answer: Answer::Json(r#"{"limits":{"rate":[],"absolute":{}}}"#),
            ..RULE
        },
        Rule { name: "in XML", ask: "GET /v2.1/limits.xml", answer: Answer::Xml("limits"), ..RULE },
    ])
    .await;
}
