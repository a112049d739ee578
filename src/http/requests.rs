//! What happens to every request before and after its handler: ids, bounds, rate limits, the log line.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, Uri},
    response::Response,
};
use futures_util::FutureExt;
use hyper::body::Incoming;
use tokio::time::timeout;
use tower::ServiceExt;
use tracing::{Instrument, Span, debug, error, field, info, info_span};
use uuid::Uuid;

use super::{
    App, Language,
    auth::{Authenticator, Identity, Refusal},
    compute,
    compute::fault::Fault,
    limits::{OverLimit, RateLimits},
    serve::{Answer, Peer},
};
use crate::{
    config::HttpConfig,
    meters::{Api, Counter, Meters},
};

/// The longest path with query that is looked at, in bytes. The longest that means something has some 200.
const MAX_URI: usize = 8 << 10;

/// Answers requests: bounds them, routes them, and writes the log.
#[derive(Debug)]
pub struct Front {
    router: Router,
    auth: Arc<Authenticator>,
    limits: RateLimits,
    meters: Arc<Meters>,
    request_timeout: Duration,
}

impl Front {
    /// The front of these routes.
    #[must_use]
    pub fn new(app: App, config: &HttpConfig) -> Arc<Self> {
        let limits = RateLimits::new(config.requests_per_project, config.requests_per_peer);
        let (auth, meters) = (Arc::clone(&app.auth), Arc::clone(&app.metrics.meters));
        Arc::new(Self { router: super::router(app), auth, limits, meters, request_timeout: config.request_timeout })
    }

    fn fault(&self, refusal: Refusal) -> Fault {
        match refusal {
            Refusal::Unauthenticated => Fault::unauthorized(self.auth.challenge()),
            Refusal::Forbidden => Fault::forbidden("Only root and the members of the socket's group may ask here."),
            Refusal::Malformed(message) => Fault::bad_request(message),
            Refusal::KeystoneDown => Fault::unavailable("The identity service cannot be asked."),
        }
    }

    /// The order in which a request is looked at.
    async fn route(&self, peer: &Peer, mut request: Request) -> Result<Response, Fault> {
        if request.uri().path_and_query().is_some_and(|path| path.as_str().len() > MAX_URI) {
            return Err(Fault::uri_too_long());
        }
        let over = |limited: &Counter, over: OverLimit| {
            limited.count();
            Fault::over_rate_limit(over.wait)
        };
        let meters = &self.meters.requests;
        let mut allowance = self.limits.admit_peer(peer).map_err(|limit| over(&meters.limited_by_peer, limit))?;
        self.auth.identify(peer, &mut request).await.map_err(|refusal| self.fault(refusal))?;
        if let Some(identity) = request.extensions().get::<Identity>() {
            let administrative = Language::of_request(&request) == Language::Host || request.uri().path() == "/metrics";
            if administrative && !identity.admin {
                return Err(Fault::forbidden("This is for the administrators of this host."));
            }
            if let Some(project) = &identity.project {
                Span::current().record("project", &**project);
                let admitted = self.limits.admit_project(project);
                allowance = admitted.map_err(|limit| over(&meters.limited_by_project, limit))?.or(allowance);
            }
        }
        if let Some(allowance) = allowance {
            request.extensions_mut().insert(allowance);
        }
        Ok(self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {}))
    }
}

impl Answer for Front {
    async fn answer(&self, peer: Peer, request: Request<Incoming>) -> Response {
        let began = Instant::now();
        let ids = RequestIds::of(request.headers());
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let span = ids.span(&peer);
        let mut request = compute::normalize(request.map(Body::new));
        let language = Language::of_request(&request);
        let api = Api::of_path(request.uri().path());
        if matches!(peer, Peer::Tcp { tls: true, .. }) {
            // As a proxy that ends TLS says it, so that links in answers lead back here.
            request.headers_mut().entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("https"));
        }

        let answering = AssertUnwindSafe(self.route(&peer, request)).catch_unwind();
        let outcome = timeout(self.request_timeout, answering).instrument(span.clone()).await;
        let mut response = match outcome {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(fault))) => language.refuse(fault),
            Ok(Err(_panic)) => span.in_scope(|| {
                self.meters.requests.panics.count();
                error!(%method, uri = %Shown(&uri), "a request made a handler panic; this is a bug");
                language.refuse(Fault::internal())
            }),
            Err(_) => language.refuse(Fault::too_slow()),
        };
        ids.tell(response.headers_mut());
        let duration = began.elapsed();
        self.meters.requests.answered(api, response.status().as_u16(), duration);
        span.in_scope(|| log(&method, &uri, &response, duration));
        response
    }

    fn refuse(&self, request: Request<Incoming>) -> Response {
        let request = compute::normalize(request.map(Body::new));
        let mut response = Language::of_request(&request).refuse(Fault::unavailable("Every connection is taken."));
        RequestIds::of(request.headers()).tell(response.headers_mut());
        debug!("refused a request: every connection is taken");
        response
    }
}

/// One line for each request. Questions about health come every few seconds and say nothing.
fn log(method: &axum::http::Method, uri: &Uri, response: &Response, duration: Duration) {
    let status = response.status().as_u16();
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let subject = response.extensions().get::<Subject>();
    let instance = subject.map(|subject| field::display(subject.instance));
    let path = Shown(uri);
    if matches!(uri.path(), "/live" | "/ready" | "/metrics") {
        debug!(%method, %path, status, micros, instance, "answered");
    } else {
        info!(%method, %path, status, micros, instance, "answered");
    }
}

/// The instance that an answer is about, among the answer's extensions, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) instance: Uuid,
}

/// A URI as it is logged: without its query, and not longer than anything that means something.
struct Shown<'a>(&'a Uri);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A URI has no byte outside of ASCII, and no control character.
        let path = self.0.path();
        match path.get(..256) {
            Some(begin) if begin.len() < path.len() => write!(f, "{begin}…"),
            _ => f.write_str(path),
        }
    }
}

/// The ids that lead from a caller's log to ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestIds {
    /// Ours: `req-` and a UUID.
    pub local: HeaderValue,
    /// The caller's `X-Openstack-Request-Id`, if it is one.
    pub global: Option<HeaderValue>,
    /// The caller's W3C `traceparent`, if it is one. It goes into the log and no further: what is asked of Keystone is asked
    /// for every request with the same token at once.
    pub traceparent: Option<HeaderValue>,
}

const OPENSTACK_REQUEST_ID: &str = "x-openstack-request-id";
const COMPUTE_REQUEST_ID: &str = "x-compute-request-id";
const TRACEPARENT: &str = "traceparent";
/// `https` where the caller spoke TLS, with us or with a proxy.
pub(super) const FORWARDED_PROTO: &str = "x-forwarded-proto";

impl RequestIds {
    fn of(headers: &HeaderMap) -> Self {
        let only = |name: &str, is: fn(&[u8]) -> bool| {
            let mut values = headers.get_all(name).iter();
            values.next().filter(|value| values.next().is_none() && is(value.as_bytes())).cloned()
        };
        let random = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
        let local = HeaderValue::try_from(format!("req-{random}")).expect("a UUID is ASCII");
        Self {
            local,
            global: only(OPENSTACK_REQUEST_ID, is_request_id),
            traceparent: only(TRACEPARENT, is_traceparent),
        }
    }

    fn span(&self, peer: &Peer) -> Span {
        let text = |value: &HeaderValue| field::display(value.to_str().unwrap_or_default().to_owned());
        let global_id = self.global.as_ref().map(text);
        let trace = self.traceparent.as_ref().map(text);
        info_span!("request", id = text(&self.local), global_id, trace, %peer, project = field::Empty)
    }

    /// Every answer carries our id under both names.
    fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(OPENSTACK_REQUEST_ID, self.local.clone());
        headers.insert(COMPUTE_REQUEST_ID, self.local.clone());
    }
}

/// `req-` and a UUID with hyphens: what OpenStack takes for a request id from outside.
fn is_request_id(value: &[u8]) -> bool {
    value.strip_prefix(b"req-").is_some_and(|id| id.len() == 36 && Uuid::try_parse_ascii(id).is_ok())
}

/// W3C Trace Context, 3.2: `00-<32 hexadecimal digits>-<16>-<2>`, lower case, neither id only zeros.
fn is_traceparent(value: &[u8]) -> bool {
    let mut fields = value.split(|&b| b == b'-');
    let mut hex = |length: usize| {
        let field = fields.next().unwrap_or_default();
        (field.len() == length && field.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))).then_some(field)
    };
    let Some(((version, trace), (parent, _flags))) = hex(2).zip(hex(32)).zip(hex(16).zip(hex(2))) else { return false };
    let some = |id: &[u8]| id.iter().any(|&b| b != b'0');
    // A later version may append fields; ours may not.
    let whole = fields.next().is_none();
    some(trace) && some(parent) && version != b"ff" && (version != b"00" || whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(headers: &[(&'static str, &str)]) -> RequestIds {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        RequestIds::of(&map)
    }

    #[test]
    fn each_request_has_an_id_of_its_own_under_both_names() {
        let (one, other) = (ids(&[]), ids(&[]));
        assert_ne!(one.local, other.local);
        let mut headers = HeaderMap::new();
        one.tell(&mut headers);
        for name in [OPENSTACK_REQUEST_ID, COMPUTE_REQUEST_ID] {
            assert!(is_request_id(headers[name].as_bytes()), "{headers:?}");
            assert_eq!(headers[name], one.local);
        }
    }

    #[test]
    fn a_callers_request_id_is_kept_only_if_it_is_one() {
        let good = "req-2f9f5c1e-0000-4000-8000-0123456789ab";
        assert_eq!(ids(&[(OPENSTACK_REQUEST_ID, good)]).global.unwrap(), good);
        for bad in
            ["", "req-", "2f9f5c1e-0000-4000-8000-0123456789ab", "req-x", "req-2f9f5c1e000040008000-0123456789ab", "ré"]
        {
            assert_eq!(ids(&[(OPENSTACK_REQUEST_ID, bad)]).global, None, "{bad}");
        }
        assert_eq!(ids(&[(OPENSTACK_REQUEST_ID, good), (OPENSTACK_REQUEST_ID, good)]).global, None);
    }

    #[test]
    fn a_callers_traceparent_is_kept_only_if_it_is_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(ids(&[(TRACEPARENT, good)]).traceparent.unwrap(), good);
        let later = good.replacen("00", "cc", 1) + "-more";
        assert_eq!(ids(&[(TRACEPARENT, &later)]).traceparent.unwrap(), later);
        for bad in [
            "",
            "00",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(ids(&[(TRACEPARENT, bad)]).traceparent, None, "{bad}");
        }
    }

    #[test]
    fn a_path_is_logged_without_its_query_and_cut() {
        let long: Uri = format!("/{}?secret", "x".repeat(300)).parse().unwrap();
        assert_eq!(Shown(&long).to_string(), format!("/{}…", "x".repeat(255)));
        assert_eq!(Shown(&"/live?a".parse().unwrap()).to_string(), "/live");
    }
}
