use std::collections::BTreeSet;

use axum::body::Body;

use super::{peer::Credentials, *};

fn authenticator(tcp: &str) -> Authenticator {
    let tcp: Option<TcpConfig> = (!tcp.is_empty()).then(|| toml::from_str(tcp).unwrap());
    Authenticator::new(Admins { own: 64, group: 100 }, tcp.as_ref()).unwrap()
}

fn process(uid: u32, group: u32) -> Peer {
    Peer::Unix(Arc::new(Credentials { uid, groups: BTreeSet::from([group]) }))
}

fn client(proxy: Option<&str>) -> Peer {
    Peer::Tcp { address: "192.0.2.1:1".parse().unwrap(), tls: true, proxy: proxy.map(Arc::from) }
}

const PROXIES: &str = "listen = '192.0.2.1:1'
                       proxies = ['api.example.org']
                       tls = { certificate = 'c', key = 'k', client_ca = 'ca' }";
const ANYONE: &str = "listen = '127.0.0.1:1'\nanyone_on_loopback_is_admin = true";
const CLAIMS: [(&str, &str); 4] =
    [("x-identity-status", "Confirmed"), ("x-project-id", "p1"), ("x-user-id", "u1"), ("x-roles", "admin")];

fn request(path: &str, headers: &[(&'static str, &str)]) -> Request {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

async fn identify(auth: &Authenticator, peer: &Peer, mut request: Request) -> Result<Option<Identity>, Refusal> {
    auth.identify(peer, &mut request).await?;
    Ok(request.extensions().get().cloned())
}

#[tokio::test]
async fn who_asks_is_known_by_the_connection_and_else_by_nothing() {
    let from_headers = Identity { user: Some("u1".into()), project: Some("p1".into()), admin: true };
    for (tcp, peer, headers, wanted) in [
        ("", process(0, 0), &[][..], Ok(Identity::admin())),
        ("", process(1000, 100), &[], Ok(Identity::admin())),
        ("", process(1000, 1000), &[], Err(Refusal::Forbidden)),
        ("", process(1000, 1000), &CLAIMS, Err(Refusal::Forbidden)),
        (PROXIES, process(1000, 1000), &CLAIMS, Err(Refusal::Forbidden)),
        (PROXIES, process(0, 0), &CLAIMS, Ok(Identity::admin())),
        (PROXIES, client(Some("api.example.org")), &CLAIMS, Ok(from_headers)),
        (PROXIES, client(Some("api.example.org")), &[], Err(Refusal::Unauthenticated)),
        (PROXIES, client(Some("api.example.org")), &CLAIMS[1..], Err(Refusal::Unauthenticated)),
        (PROXIES, client(None), &CLAIMS, Err(Refusal::Unauthenticated)),
        (PROXIES, client(None), &[("x-auth-token", "t")], Err(Refusal::Unauthenticated)),
        (ANYONE, client(None), &[], Ok(Identity::admin())),
        (ANYONE, client(None), &CLAIMS, Ok(Identity::admin())),
        (ANYONE, process(1000, 1000), &[], Err(Refusal::Forbidden)),
    ] {
        let found = identify(&authenticator(tcp), &peer, request("/v2.1/servers", headers)).await;
        assert_eq!(found, wanted.map(Some), "{tcp} {peer:?} {headers:?}");
    }
}

#[tokio::test]
async fn no_handler_sees_a_token_or_a_claim() {
    for peer in [process(0, 0), client(Some("api.example.org"))] {
        let mut request = request("/v2.1/servers", &CLAIMS);
        request.headers_mut().append("x-auth-token", "t".parse().unwrap());
        request.headers_mut().append("accept", "*/*".parse().unwrap());
        authenticator(PROXIES).identify(&peer, &mut request).await.unwrap();
        assert_eq!(request.headers().keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}

#[tokio::test]
async fn claims_of_anybody_but_a_proxy_are_counted() {
    let auth = authenticator(PROXIES);
    for (peer, dropped) in
        [(client(Some("api.example.org")), 0), (client(None), 4), (process(0, 0), 8), (process(1000, 1000), 12)]
    {
        let _ = identify(&auth, &peer, request("/v2.1/servers", &CLAIMS)).await;
        assert_eq!(auth.dropped(), dropped, "{peer:?}");
    }
}

#[tokio::test]
async fn anybody_may_ask_whether_vifd_lives_and_which_versions_it_speaks() {
    let auth = authenticator(PROXIES);
    for path in OPEN {
        assert_eq!(identify(&auth, &client(None), request(path, &CLAIMS)).await, Ok(None), "{path}");
    }
    for path in ["/live/", "//live", "/ready?x/..", "/v2.1/extensions", "/v2.1//", "/host/v1/sync", "/metrics", "/x"] {
        let found = identify(&auth, &client(None), request(path, &[])).await;
        assert_eq!(found == Ok(None), path.starts_with("/ready?"), "{path}");
    }
}

#[tokio::test]
async fn two_tokens_are_none() {
    let request = request("/v2.1/servers", &[("x-auth-token", "t"), ("x-auth-token", "t")]);
    let found = identify(&authenticator(PROXIES), &client(None), request).await;
    assert!(matches!(found, Err(Refusal::Malformed(_))), "{found:?}");
}
