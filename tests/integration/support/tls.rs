//! Certificates made for one test, and a client that speaks TLS.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};

use super::{
    LIMIT,
    http::{Response, exchange},
};

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate and its key.
pub struct Pair {
    pub der: CertificateDer<'static>,
    pem: String,
    key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), certificate: der, pem }
    }

    /// Signs what is asked for.
    pub fn issue(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { der: certificate.der().clone(), pem: certificate.pem(), key: key.serialize_pem() }
    }

    /// For a server on this machine.
    pub fn server(&self) -> Pair {
        self.server_named(&["127.0.0.1"])
    }

    /// For a server with these names.
    pub fn server_named(&self, names: &[&str]) -> Pair {
        self.issue(params("", names, ExtendedKeyUsagePurpose::ServerAuth))
    }

    /// For a client with these names.
    pub fn client(&self, common: &str, alternative: &[&str]) -> Pair {
        self.issue(params(common, alternative, ExtendedKeyUsagePurpose::ClientAuth))
    }

    /// Writes its certificate into a file, whole from one moment to the next.
    pub fn write(&self, path: &Path) {
        replace(path, &self.pem);
    }
}

impl Pair {
    /// Writes both into files, one after the other.
    pub fn write(&self, certificate: &Path, key: &Path) {
        replace(certificate, &self.pem);
        replace(key, &self.key);
    }
}

pub fn params(common: &str, alternative: &[&str], usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let alternative: Vec<String> = alternative.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(alternative).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    if !common.is_empty() {
        params.distinguished_name.push(DnType::CommonName, common);
    }
    params.extended_key_usages = vec![usage];
    params
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// A client that trusts an authority and may have a certificate of its own.
pub fn client(trusted: &Authority, own: Option<&Pair>) -> Arc<ClientConfig> {
    client_of(&[&TLS12, &TLS13], trusted, own)
}

/// A client that speaks certain versions only.
pub fn client_of(
    versions: &[&'static SupportedProtocolVersion],
    trusted: &Authority,
    own: Option<&Pair>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.certificate.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(Pair { der, key, .. }) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![der.clone()], key).unwrap()
        }
    };
    Arc::new(config)
}

/// Asks over TLS; nothing if the two do not agree.
pub fn over_tls(
    address: SocketAddr,
    client: &Arc<ClientConfig>,
    method: &str,
    path: &str,
    headers: &[&str],
) -> Option<Response> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let session = ClientConnection::new(Arc::clone(client), address.ip().into()).unwrap();
    exchange(StreamOwned::new(session, stream), method, path, headers)
}
