//! Two questions to Keystone, each over a connection of its own: they are rare, and nothing idle can go bad.

use std::{
    io,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
};

use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer, InvalidDnsNameError, ServerName,
        pem::{self, PemObject},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::config::KeystoneUrl;

/// Without its catalogue a token has some thousand bytes; with thousands of roles more.
const MAX_ANSWER: usize = 1 << 20;
const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The certificates of authorities cannot be used.
    #[error("could not read the certificates of {}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// Nobody is trusted.
    #[error("there is no certificate of an authority, so Keystone's cannot be checked: set keystone.ca")]
    NoAuthorities,
    /// The TLS library refuses its own settings, or a certificate.
    #[error("could not prepare TLS for Keystone")]
    Tls(#[from] rustls::Error),
    /// The URL's host is no name that a certificate could have.
    #[error("no certificate can be for Keystone's host")]
    Name(#[from] InvalidDnsNameError),
    /// No connection.
    #[error("could not connect to Keystone at {host}:{port}")]
    Connect {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection failed.
    #[error("the connection to Keystone failed")]
    Http(#[from] hyper::Error),
    /// The answer did not come whole.
    #[error("could not read Keystone's answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where Keystone is, and how it proves that it is.
pub(super) struct Client {
    url: KeystoneUrl,
    authority: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// An answer, read to its end.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) subject_token: Option<HeaderValue>,
    pub(super) body: Bytes,
}

impl Client {
    pub(super) fn new(url: &KeystoneUrl, ca: Option<&Path>) -> Result<Self, ClientError> {
        let tls = if url.tls {
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(authorities(ca)?)
                .with_no_client_auth();
            Some((TlsConnector::from(Arc::new(config)), ServerName::try_from(url.host.clone())?))
        } else {
            None
        };
        let authority = url.as_str().split('/').nth(2).and_then(|authority| HeaderValue::from_str(authority).ok());
        Ok(Self { url: url.clone(), authority: authority.expect("it was parsed as a URL's"), tls })
    }

    /// `POST /v3/auth/tokens`: a token for us.
    pub(super) async fn log_in(&self, body: String) -> Result<Response, ClientError> {
        let request = Request::post(format!("{}/auth/tokens?nocatalog", self.url.path))
            .header(header::CONTENT_TYPE, "application/json");
        self.send(request, body.into()).await
    }

    /// `GET /v3/auth/tokens`: whose token this is.
    pub(super) async fn get_token(&self, own: &HeaderValue, subject: &HeaderValue) -> Result<Response, ClientError> {
        let request = Request::get(format!("{}/auth/tokens?nocatalog", self.url.path))
            .header(AUTH_TOKEN, own)
            .header(SUBJECT_TOKEN, subject);
        self.send(request, Bytes::new()).await
    }

    async fn send(&self, request: axum::http::request::Builder, body: Bytes) -> Result<Response, ClientError> {
        let request = request
            .header(header::HOST, &self.authority)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("vifd/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .expect("the URL was parsed, and the headers are values already");
        let connect = async {
            let tcp = TcpStream::connect((&*self.url.host, self.url.port)).await?;
            tcp.set_nodelay(true).map(|()| tcp)
        };
        let refused = |source| ClientError::Connect { host: self.url.host.clone(), port: self.url.port, source };
        let tcp = connect.await.map_err(refused)?;
        match &self.tls {
            None => exchange(tcp, request).await,
            Some((tls, name)) => exchange(tls.connect(name.clone(), tcp).await.map_err(refused)?, request).await,
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> Result<Response, ClientError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let mut subject_token = head.headers.get(SUBJECT_TOKEN).cloned();
        subject_token.iter_mut().for_each(|token| token.set_sensitive(true));
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(ClientError::Body)?.to_bytes();
        Ok(Response { status: head.status, subject_token, body })
    };
    // The connection moves the bytes. Its end, good or bad, is told to the exchange, which says what it means.
    let mut connection = pin!(async {
        let _ = connection.await;
        std::future::pending::<std::convert::Infallible>().await
    });
    tokio::select! {
        response = exchange => response,
        never = &mut connection => match never {},
    }
}

/// Those in the file, else the system's.
fn authorities(file: Option<&Path>) -> Result<RootCertStore, ClientError> {
    let certificates: Vec<CertificateDer<'static>> = match file {
        Some(path) => {
            let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            read.map_err(|source| ClientError::Authorities { path: path.to_owned(), source })?
        }
        // A broken one among the system's concerns nobody here.
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 { Err(ClientError::NoAuthorities) } else { Ok(roots) }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}
