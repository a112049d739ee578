//! TLS: the handshake, and certificates that are replaced while vifd runs.
//!
//! Files are read again on SIGHUP and when something in their directories changes. A new set of them is used from the
//! next handshake on, if it is good as a whole; else the old one stays in use, and the log says why. Connections that
//! are open keep what they began with.

use std::{
    fmt, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{VerifierBuilderError, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use tokio::{io::unix::AsyncFd, net::TcpStream, sync::watch, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{info, warn};

use super::auth::proxy;
use crate::{
    config::{ProxyName, TlsConfig, TlsVersion},
    source::chain,
};

/// How long files must be left alone before they are read: a certificate and its key are two files.
const SETTLED: Duration = Duration::from_millis(200);

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{} holds no {wanted} that can be used", path.display())]
    Holds {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("the certificate and the key cannot be used")]
    Pair(#[source] rustls::Error),
    /// The authorities of clients cannot be used.
    #[error("the authorities of clients cannot be used")]
    ClientCa(#[source] VerifierBuilderError),
}

/// The contents of the files.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Files {
    fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        let read = |path: &Path| std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source });
        Ok(Self {
            certificate: read(&config.certificate)?,
            key: read(&config.key)?,
            client_ca: config.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn server_config(&self, config: &TlsConfig) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let versions: &[_] = match config.min_version {
            TlsVersion::V1_2 => &[&TLS13, &TLS12],
            TlsVersion::V1_3 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(versions).map_err(TlsError::Pair)?;
        let builder = match (&self.client_ca, &config.client_ca) {
            (Some(pem), Some(path)) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(pem, path)? {
                    let added = roots.add(authority);
                    added.map_err(|_| TlsError::Holds { path: path.clone(), wanted: "authority's certificate" })?;
                }
                // Who has none may still have a token, or ask whether vifd lives.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(TlsError::ClientCa)?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::from_pem_slice(&self.key);
        let key = key.map_err(|_| TlsError::Holds { path: config.key.clone(), wanted: "key" })?;
        let chain = certificates(&self.certificate, &config.certificate)?;
        let mut tls = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(tls)
    }
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::Holds { path: path.to_owned(), wanted: "certificate" }),
    }
}

/// Makes TLS of TCP.
#[derive(Clone)]
pub struct Tls {
    current: watch::Receiver<Arc<ServerConfig>>,
    proxies: Arc<[ProxyName]>,
    handshake_timeout: Duration,
}

impl Tls {
    /// Shakes hands, and says which of the named proxies the client is, if any.
    ///
    /// # Errors
    /// The client speaks no TLS, a version that is too old, is too slow, or has a certificate that is not good.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<Arc<str>>)> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.borrow()));
        let too_slow = || io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long");
        let stream = timeout(self.handshake_timeout, acceptor.accept(stream)).await.map_err(|_| too_slow())??;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let proxy = certificate.and_then(|certificate| proxy::named(&self.proxies, certificate));
        Ok((stream, proxy))
    }
}

/// Keeps the certificates current.
pub struct Certificates {
    config: TlsConfig,
    seen: Option<Files>,
    current: watch::Sender<Arc<ServerConfig>>,
    changes: Option<AsyncFd<OwnedFd>>,
}

/// Reads the files.
///
/// # Errors
/// They cannot be used.
pub fn open(
    config: &TlsConfig,
    proxies: &[ProxyName],
    handshake_timeout: Duration,
) -> Result<(Tls, Certificates), TlsError> {
    // Watched first and read second, so that no change is lost.
    let changes = watch_directories(config).inspect_err(|error| {
        warn!(error = chain(error), "changed certificates will be seen on SIGHUP only");
    });
    let files = Files::read(config)?;
    let (sender, current) = watch::channel(Arc::new(files.server_config(config)?));
    let tls = Tls { current, proxies: proxies.into(), handshake_timeout };
    Ok((tls, Certificates { config: config.clone(), seen: Some(files), current: sender, changes: changes.ok() }))
}

impl Certificates {
    /// Completes when files may have changed, and are left alone since.
    pub async fn changed(&mut self) {
        changed(&mut self.changes).await;
        while timeout(SETTLED, changed(&mut self.changes)).await.is_ok() {}
    }

    /// Uses what the files say now, if it is good.
    pub fn read_again(&mut self) {
        let files = match Files::read(&self.config) {
            Ok(files) if self.seen.as_ref() == Some(&files) => return,
            Ok(files) => files,
            Err(error) => {
                self.seen = None;
                return warn!(error = chain(&error), "the old certificates stay in use");
            }
        };
        match files.server_config(&self.config) {
            Ok(config) => {
                self.current.send_replace(Arc::new(config));
                info!("new certificates are in use");
            }
            Err(error) => warn!(error = chain(&error), "the old certificates stay in use"),
        }
        self.seen = Some(files);
    }
}

/// The directories, not the files: these are replaced by new ones, or are links that are.
fn watch_directories(config: &TlsConfig) -> io::Result<AsyncFd<OwnedFd>> {
    let changes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let what = WatchFlags::CLOSE_WRITE | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
    for file in [Some(&config.certificate), Some(&config.key), config.client_ca.as_ref()].into_iter().flatten() {
        for file in [file.clone(), file.canonicalize().unwrap_or_else(|_| file.clone())] {
            let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
            inotify::add_watch(&changes, directory.unwrap_or(Path::new(".")), what)?;
        }
    }
    #[expect(deprecated, reason = "the new way is unsafe, for types that do not own their descriptor; this one does")]
    AsyncFd::new(changes)
}

/// Something happened in a directory. What it was the files will tell.
async fn changed(changes: &mut Option<AsyncFd<OwnedFd>>) {
    let mut buffer = [0; 4096];
    if let Some(changes) = changes
        && let Ok(mut ready) = changes.readable_mut().await
    {
        let drain = |changes: &mut AsyncFd<OwnedFd>| {
            while rustix::io::read(changes.get_ref(), &mut buffer)? > 0 {}
            Ok::<_, io::Error>(())
        };
        let _ = ready.try_io(drain);
        return;
    }
    std::future::pending().await
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("proxies", &self.proxies).finish_non_exhaustive()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}
