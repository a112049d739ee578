use axum::{body::Body, response::Response};
use http_body_util::BodyExt;
use tokio::sync::watch;
use tower::{Layer, ServiceExt, util::MapRequestLayer};

use super::*;
use crate::{
    http::auth::{Authenticator, peer::Admins},
    inventory::testing::{PORT, WEB, bridged, joined, link, nova, stale, view},
    source::{Snapshot, libvirt::reread::Rereads, netlink::CounterReader},
};

const MAC: &str = "fa:16:3e:00:00:01";

fn inventory() -> Inventory {
    joined(&view(&[nova(&bridged(MAC, "tapa756caef-c7", ""), &[PORT])], &[link(7, "tapa756caef-c7")]))
}

async fn ask(inventory: Inventory, mut request: Request) -> Response {
    let (counters, _) = CounterReader::new();
    let (rereads, ..) = Rereads::new();
    let auth = Authenticator::new(Admins { own: 0, group: 0 }, None).unwrap().into();
    let app = App { inventory: watch::channel(Arc::new(inventory)).1, counters, rereads, epoch: 1, auth };
    request.extensions_mut().get_or_insert_with(Identity::admin);
    MapRequestLayer::new(take_suffix).layer(super::super::router(app)).oneshot(request).await.unwrap()
}

fn request(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path)
}

async fn text(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

async fn get(path: &str) -> (u16, String) {
    text(ask(inventory(), request("GET", path).body(Body::empty()).unwrap()).await).await
}

async fn post(path: &str, content_type: Option<&str>, body: &str) -> (u16, String) {
    let mut request = request("POST", path);
    if let Some(content_type) = content_type {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    text(ask(inventory(), request.body(Body::from(body.to_owned())).unwrap()).await).await
}

const XML: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

#[tokio::test]
async fn the_action_and_the_get_give_the_same_list_under_every_base() {
    let json = format!(r#"{{"virtual_interfaces":[{{"id":"{PORT}","mac_address":"{MAC}"}}]}}"#);
    for base in ["/v1.1/p1", "/v2/p1", "/v2.1/p1", "/v2.1"] {
        assert_eq!(post(&format!("{base}/servers/{WEB}/virtual_interfaces"), None, "").await, (202, json.clone()));
        assert_eq!(get(&format!("{base}/servers/{WEB}/os-virtual-interfaces")).await, (200, json.clone()));
    }
}

#[tokio::test]
async fn the_xml_list_is_the_contracts() {
    let (status, body) = get(&format!("/v1.1/p1/servers/{WEB}/os-virtual-interfaces.xml")).await;
    let list = format!(
        r#"<virtual_interfaces xmlns="http://docs.openstack.org/compute/api/v1.1"><virtual_interface id="{PORT}" mac_address="{MAC}"/></virtual_interfaces>"#
    );
    assert_eq!((status, body), (200, format!("{XML}{list}")));
}

#[tokio::test]
async fn an_instance_without_interfaces_has_an_empty_list() {
    let path = format!("/v2.1/servers/{WEB}/os-virtual-interfaces");
    let ask = |path: &str| ask(joined(&view(&[nova("", &[])], &[])), request("GET", path).body(Body::empty()).unwrap());
    assert_eq!(text(ask(&path).await).await, (200, r#"{"virtual_interfaces":[]}"#.into()));
    let (_, xml) = text(ask(&(path + ".xml")).await).await;
    assert_eq!(xml, format!("{XML}<virtual_interfaces xmlns=\"{COMPUTE_1_1}\"/>"));
}

#[tokio::test]
async fn an_id_is_a_uuid_in_any_case_with_or_without_hyphens_or_the_integer_id() {
    for id in [WEB.to_string().to_uppercase(), WEB.simple().to_string(), "42".into()] {
        assert_eq!(get(&format!("/v1.1/p1/servers/{id}/os-virtual-interfaces")).await.0, 200, "{id}");
    }
    for id in
        ["43", "-1", "0x2a", "99999999999999999999", "web", &format!("%7B{WEB}%7D"), &PORT.to_string(), "%00", "%ff"]
    {
        let (status, body) = get(&format!("/v1.1/p1/servers/{id}/os-virtual-interfaces")).await;
        assert_eq!(status, 404, "{id}");
        assert!(body.starts_with(r#"{"itemNotFound":{"code":404,"message":""#), "{id}: {body}");
    }
}

#[tokio::test]
async fn nothing_is_said_to_be_absent_before_every_hypervisor_was_listed() {
    let mut early = view(&[], &[]);
    early.hypervisors[0].2 = Snapshot::default();
    let path = format!("/v2.1/servers/{WEB}/os-virtual-interfaces");
    let response = ask(joined(&early), request("GET", &path).body(Body::empty()).unwrap()).await;
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    let (status, body) = text(response).await;
    assert!(status == 503 && body.starts_with(r#"{"serviceUnavailable":{"code":503,"#), "{status} {body}");
}

#[tokio::test]
async fn a_record_that_is_not_kept_current_says_so_in_the_headers() {
    let mut lost = view(&[nova(&bridged(MAC, "tap0", ""), &[])], &[]);
    lost.hypervisors[0].2.sync = stale("closed");
    for (method, id, path, status) in [
        ("GET", WEB, "os-virtual-interfaces", 203),
        ("POST", WEB, "virtual_interfaces", 202),
        ("GET", PORT, "os-virtual-interfaces", 404),
    ] {
        let request = request(method, &format!("/v2.1/servers/{id}/{path}")).body(Body::empty()).unwrap();
        let response = ask(joined(&lost), request).await;
        assert_eq!(response.status(), status);
        assert!(response.headers()[header::WARNING].to_str().unwrap().starts_with("110 "));
        assert!(response.headers()[header::AGE].to_str().unwrap().parse::<u64>().unwrap() > 1_000_000_000);
    }
}

#[tokio::test]
async fn an_instance_that_is_being_started_is_a_build_in_progress_until_its_devices_are_there() {
    let answer = |links: &[_]| {
        let mut starting = view(&[nova(&bridged(MAC, "tap0", ""), &[])], links);
        let domains = Arc::make_mut(&mut starting.hypervisors[0].2.data);
        Arc::make_mut(domains.known.get_mut(&WEB).unwrap()).state = DomainState::StartingUp;
        let path = format!("/v2.1/servers/{WEB}/os-virtual-interfaces");
        let inventory = joined(&starting);
        async move { text(ask(inventory, request("GET", &path).body(Body::empty()).unwrap()).await).await }
    };
    let (status, body) = answer(&[]).await;
    assert!(status == 409 && body.starts_with(r#"{"buildInProgress":{"code":409,"#), "{status} {body}");
    assert_eq!(answer(&[link(7, "tap0")]).await.0, 200);
}

#[tokio::test]
async fn a_matching_etag_is_not_modified_on_get_alone() {
    let path = format!("/v2.1/servers/{WEB}/os-virtual-interfaces");
    let with = |method, path: &str, etag: &str| {
        ask(inventory(), request(method, path).header(header::IF_NONE_MATCH, etag).body(Body::empty()).unwrap())
    };
    let response = with("GET", &path, "\"other\"").await;
    assert_eq!(response.status(), 200);
    let etag = response.headers()[header::ETAG].to_str().unwrap().to_owned();
    let response = with("GET", &path, &format!("\"x\", W/{etag}")).await;
    assert_eq!((response.status().as_u16(), response.headers()[header::ETAG].to_str().unwrap()), (304, &*etag));
    assert_eq!(with("POST", &path.replace("os-virtual-interfaces", "virtual_interfaces"), &etag).await.status(), 202);
}

#[tokio::test]
async fn the_actions_body_may_be_empty_and_must_be_what_it_says() {
    let path = format!("/v2.1/servers/{WEB}/virtual_interfaces");
    for (content_type, body, status) in [
        (None, "", 202),
        (Some("text/plain"), "", 202),
        (Some("application/json"), r#"{"virtual_interfaces": null}"#, 202),
        (Some("application/xml"), "<virtual_interfaces/>", 202),
        (Some("application/vnd.openstack.compute+xml;version=1.1"), "<virtual_interfaces/>", 202),
        (Some("application/json"), "{", 400),
        (Some("application/xml"), "<a>", 400),
        (Some("application/xml"), "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>", 400),
        (Some("text/plain"), "x", 415),
        (None, "{}", 415),
    ] {
        assert_eq!(post(&path, content_type, body).await.0, status, "{content_type:?} {body}");
    }
    let (status, body) = post(&path, Some("application/json"), &" ".repeat(3 << 20)).await;
    assert!(status == 413 && body.starts_with(r#"{"overLimit":{"code":413,"#), "{status} {body}");
}

#[tokio::test]
async fn whatever_goes_wrong_has_its_fault_body_in_the_format_that_was_asked_for() {
    for (method, path, status, fault) in [
        ("GET", "/nowhere", 404, "itemNotFound"),
        ("GET", "/v3/p1/extensions", 404, "itemNotFound"),
        ("GET", "/v2.1/servers//os-virtual-interfaces", 404, "itemNotFound"),
        ("GET", "/v2.1/extensions/nothing", 404, "itemNotFound"),
        ("DELETE", "/v2.1/extensions", 405, "badMethod"),
        ("GET", "/v2.1/p1/servers/42/virtual_interfaces", 405, "badMethod"),
        ("GET", "/v2.1/p1/servers", 501, "notImplemented"),
        ("POST", "/v2/p1/servers/42/action", 501, "notImplemented"),
        ("GET", "/v1.1/p1/images/detail", 501, "notImplemented"),
    ] {
        let request = |suffix: &str| request(method, &format!("{path}{suffix}")).body(Body::empty()).unwrap();
        let (got, json) = text(ask(inventory(), request("")).await).await;
        assert_eq!(got, status, "{method} {path}");
        assert!(json.starts_with(&format!(r#"{{"{fault}":{{"code":{status},"message":""#)), "{path}: {json}");
        let (got, xml) = text(ask(inventory(), request(".xml")).await).await;
        assert_eq!(got, status, "{method} {path}.xml");
        let start = format!("{XML}<{fault} xmlns=\"{COMPUTE_1_1}\" code=\"{status}\"><message>");
        assert!(xml.starts_with(&start), "{path}: {xml}");
        roxmltree::Document::parse(&xml).unwrap();
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let request = request("DELETE", "/v2.1/servers/42/virtual_interfaces").body(Body::empty()).unwrap();
    let response = ask(inventory(), request).await;
    assert_eq!(response.headers()[header::ALLOW], "POST");
}

#[tokio::test]
async fn what_a_client_sent_is_escaped_in_xml() {
    let (status, xml) = get("/v1.1/p1/extensions/%3Ca%26%00%22%3E.xml").await;
    assert_eq!(status, 404);
    let document = roxmltree::Document::parse(&xml).unwrap();
    assert!(document.root_element().first_child().unwrap().text().unwrap().contains("<a&\">"), "{xml}");
}

#[tokio::test]
async fn the_extension_queries_are_the_documents() {
    let extension = r#"{"name":"VirtualInterfaces","namespace":"http://docs.openstack.org/ext/virtual_interfaces/api/v1.1","alias":"virtual_interfaces","updated":"2011-08-17T00:00:00+00:00","description":"Virtual interface support","links":[]}"#;
    let attributes = r#"name="VirtualInterfaces" namespace="http://docs.openstack.org/ext/virtual_interfaces/api/v1.1" alias="virtual_interfaces" updated="2011-08-17T00:00:00+00:00"><description>Virtual interface support</description></extension>"#;
    let common = r#"xmlns="http://docs.openstack.org/common/api/v1.0""#;
    assert_eq!(get("/v1.1/p1/extensions").await, (200, format!(r#"{{"extensions":[{extension}]}}"#)));
    let list = format!("{XML}<extensions {common}><extension {attributes}</extensions>");
    assert_eq!(get("/v1.1/p1/extensions.xml").await, (200, list));
    for alias in ["virtual_interfaces", "MID-VRT", "os-virtual-interfaces"] {
        assert_eq!(get(&format!("/v2/p1/extensions/{alias}")).await, (200, format!(r#"{{"extension":{extension}}}"#)));
        let one = format!("{XML}<extension {common} {attributes}");
        assert_eq!(get(&format!("/v2.1/extensions/{alias}.xml")).await, (200, one));
    }
}

#[tokio::test]
async fn answers_name_their_type_and_vary_by_accept() {
    let path = format!("/v2.1/servers/{WEB}/os-virtual-interfaces");
    for (accept, content_type) in [
        ("application/xml", "application/xml; charset=UTF-8"),
        ("application/vnd.openstack.compute+xml", "application/xml; charset=UTF-8"),
        ("text/html", "application/json"),
    ] {
        let request = request("GET", &path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        let response = ask(inventory(), request).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], content_type);
        assert_eq!(response.headers()[header::VARY], "Accept");
    }
    let (_, json) = text(
        ask(
            inventory(),
            request("GET", &(path + ".json")).header(header::ACCEPT, "application/xml").body(Body::empty()).unwrap(),
        )
        .await,
    )
    .await;
    assert!(json.starts_with('{'), "the suffix wins: {json}");
}
