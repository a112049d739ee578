//! `[tcp]`: who may ask over TCP, and how they prove who they are.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use axum::http::{Uri, uri::Scheme};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::value::Human;

/// `[tcp]`. Without it, vifd serves its Unix socket alone.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpConfig {
    /// Where to serve HTTP over TCP.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The proxies that vouch for users, in the headers `X-Identity-Status`, `X-Project-Id`, `X-User-Id` and `X-Roles`:
    /// those whose certificate is signed by an authority of `tls.client_ca` and has one of these DNS names (without any,
    /// this common name), or this SHA-256 fingerprint. From anybody else such headers are dropped.
    #[serde(default)]
    pub proxies: Vec<ProxyName>,
    /// The roles of users who may see every project's instances, in any letter case.
    #[serde(default = "admin_roles")]
    pub admin_roles: Vec<String>,
    /// Without any proof, and on a loopback address only: whoever can connect may see everything.
    #[serde(default)]
    pub anyone_on_loopback_is_admin: bool,
    /// Without TLS, on any other address, or of a Keystone that has none: everybody on the way can read the tokens.
    #[serde(default)]
    pub plain_http_over_the_network: bool,
    /// Files in PEM. They are read again when they change, and on SIGHUP (`systemctl reload vifd`). Without this section
    /// HTTP is plain.
    pub tls: Option<TlsConfig>,
    /// Users' tokens (`X-Auth-Token`) are checked here.
    pub keystone: Option<KeystoneConfig>,
}

fn admin_roles() -> Vec<String> {
    vec!["admin".to_owned()]
}

/// `[tcp.tls]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// vifd's certificate, followed by those of the authorities between it and the one that clients know.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The certificates of the authorities that sign clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// The oldest version that is spoken: `"1.2"` or `"1.3"`.
    #[serde(default)]
    pub min_version: TlsVersion,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V1_3,
}

/// `[tcp.keystone]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeystoneConfig {
    /// The Identity API v3, as vifd reaches it.
    pub url: KeystoneUrl,
    /// The same, as users reach it: what a 401 tells them. If left out: `url`.
    pub public_url: Option<KeystoneUrl>,
    /// The certificates of the authorities that sign Keystone's, in PEM. If left out: the system's.
    pub ca: Option<PathBuf>,
    /// The service user who asks about tokens, which needs the role `service`.
    #[serde(default = "user")]
    pub user: String,
    /// The name of its domain.
    #[serde(default = "domain")]
    pub user_domain: String,
    /// The project for which it asks.
    #[serde(default = "project")]
    pub project: String,
    /// The name of the project's domain.
    #[serde(default = "domain")]
    pub project_domain: String,
    /// The file that holds its password, in one line; read at each login.
    pub password_file: PathBuf,
    /// How long a question may take; then the caller gets 503.
    #[serde(with = "Human", default = "timeout")]
    pub timeout: Duration,
    /// For how long a token is not asked about again, at most until it expires: so long one that was revoked may go on
    /// working.
    #[serde(with = "Human", default = "cache")]
    pub cache: Duration,
}

fn user() -> String {
    "vifd".to_owned()
}

fn domain() -> String {
    "Default".to_owned()
}

fn project() -> String {
    "service".to_owned()
}

fn timeout() -> Duration {
    Duration::from_secs(5)
}

fn cache() -> Duration {
    Duration::from_secs(300)
}

/// The section, if its keys fit together.
pub(super) fn checked<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TcpConfig>, D::Error> {
    let tcp = TcpConfig::deserialize(deserializer)?;
    tcp.check().map_err(D::Error::custom)?;
    Ok(Some(tcp))
}

impl TcpConfig {
    fn check(&self) -> Result<(), &'static str> {
        let loopback = self.listen.ip().is_loopback();
        let client_ca = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let plain_keystone = self.keystone.as_ref().is_some_and(|keystone| keystone.url.is_plain_and_remote());
        if self.anyone_on_loopback_is_admin && !loopback {
            return Err("anyone_on_loopback_is_admin, but listen is not a loopback address");
        }
        if self.anyone_on_loopback_is_admin && (!self.proxies.is_empty() || self.keystone.is_some()) {
            return Err("anyone_on_loopback_is_admin excludes proxies and keystone: nobody would need them");
        }
        if !self.anyone_on_loopback_is_admin && self.proxies.is_empty() && self.keystone.is_none() {
            return Err("nobody may ask: say who may, with proxies, with keystone, or, on a loopback address only, \
                        with anyone_on_loopback_is_admin = true");
        }
        if !self.proxies.is_empty() && !client_ca {
            return Err("proxies are known by their certificates: they need tls.client_ca");
        }
        if self.tls.is_none() && !loopback && !self.plain_http_over_the_network {
            return Err("listen is not a loopback address, and without tls everybody on the way can read tokens and \
                        answers: configure tls, or say plain_http_over_the_network = true");
        }
        if plain_keystone && !self.plain_http_over_the_network {
            return Err("keystone.url is not https, and everybody on the way can read tokens and the password: use \
                        https, or say plain_http_over_the_network = true");
        }
        Ok(())
    }
}

/// By what a proxy's certificate is known.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub enum ProxyName {
    /// A DNS name in it, in lower case.
    Dns(String),
    /// Its SHA-256 fingerprint.
    Sha256([u8; 32]),
}

impl TryFrom<String> for ProxyName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parsed = match text.strip_prefix("sha256:") {
            Some(fingerprint) => parse_fingerprint(fingerprint).map(Self::Sha256),
            None => is_dns_name(&text).then(|| Self::Dns(text.to_ascii_lowercase())),
        };
        parsed.ok_or_else(|| {
            format!("{text:?} is neither a DNS name nor a fingerprint, \"sha256:\" and 64 hexadecimal digits")
        })
    }
}

impl From<ProxyName> for String {
    fn from(name: ProxyName) -> Self {
        match name {
            ProxyName::Dns(name) => name,
            ProxyName::Sha256(bytes) => {
                bytes.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
            }
        }
    }
}

/// As `openssl x509 -fingerprint -sha256` prints it, or without the colons.
fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u32> = text.chars().filter(|&c| c != ':').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair.get(1)?).ok()).collect();
    bytes?.try_into().ok()
}

/// A plain name: one with a wildcard would be many.
fn is_dns_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// The URL of a Keystone's Identity API v3.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct KeystoneUrl {
    /// Whether it is `https`.
    pub tls: bool,
    /// The name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path without the `/` at its end, such as `/v3`.
    pub path: String,
    text: String,
}

impl KeystoneUrl {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn is_plain_and_remote(&self) -> bool {
        let address = std::net::IpAddr::from_str(&self.host);
        !self.tls && self.host != "localhost" && !address.is_ok_and(|address| address.is_loopback())
    }
}

impl TryFrom<String> for KeystoneUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parse = || {
            let uri: Uri = text.parse().ok()?;
            let tls = match uri.scheme()? {
                scheme if *scheme == Scheme::HTTPS => true,
                scheme if *scheme == Scheme::HTTP => false,
                _ => return None,
            };
            let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
            let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
            let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
            let path = uri.path().trim_end_matches('/').to_owned();
            let whole = !host.is_empty() && path.ends_with("/v3") && uri.query().is_none();
            let text = text.trim_end_matches('/').to_owned();
            whole.then_some(Self { tls, host, port, path, text })
        };
        parse().ok_or_else(|| format!("{text:?} is not a URL such as \"https://keystone.example.org:5000/v3\""))
    }
}

impl From<KeystoneUrl> for String {
    fn from(url: KeystoneUrl) -> Self {
        url.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TcpConfig, String> {
        let tcp: TcpConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        tcp.check().map_err(str::to_owned)?;
        Ok(tcp)
    }

    const TLS: &str = "tls = { certificate = 'c', key = 'k', client_ca = 'ca' }\n";
    const KEYSTONE: &str = "keystone = { url = 'https://k:5000/v3', password_file = 'p' }\n";

    #[test]
    fn somebody_must_be_able_to_ask_and_not_just_anybody() {
        let network = "listen = '192.0.2.1:1'\n";
        let loopback = "listen = '127.0.0.1:1'\n";
        let proxies = "proxies = ['api.example.org']\n";
        let anyone = "anyone_on_loopback_is_admin = true\n";
        let plain = "plain_http_over_the_network = true\n";
        let http = "keystone = { url = 'http://192.0.2.2:5000/v3', password_file = 'p' }\n";
        let local = "keystone = { url = 'http://127.0.0.1:5000/v3', password_file = 'p' }\n";
        for good in [
            loopback.to_owned() + anyone,
            "listen = '[::1]:1'\n".to_owned() + anyone,
            loopback.to_owned() + KEYSTONE,
            loopback.to_owned() + local,
            network.to_owned() + KEYSTONE + TLS,
            network.to_owned() + proxies + TLS,
            network.to_owned() + proxies + TLS + KEYSTONE,
            network.to_owned() + KEYSTONE + plain,
            loopback.to_owned() + http + plain,
        ] {
            assert!(parse(&good).is_ok(), "{good}: {:?}", parse(&good));
        }
        for (bad, why) in [
            (String::new(), "listen"),
            (loopback.to_owned(), "nobody may ask"),
            (network.to_owned() + TLS, "nobody may ask"),
            (network.to_owned() + anyone, "not a loopback address"),
            (network.to_owned() + anyone + plain, "not a loopback address"),
            (loopback.to_owned() + anyone + KEYSTONE, "excludes"),
            (network.to_owned() + KEYSTONE, "plain_http_over_the_network"),
            (loopback.to_owned() + proxies, "tls.client_ca"),
            (loopback.to_owned() + proxies + "tls = { certificate = 'c', key = 'k' }", "tls.client_ca"),
            (loopback.to_owned() + http, "keystone.url"),
        ] {
            let error = parse(&bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn a_proxy_is_named_by_a_plain_dns_name_or_by_a_fingerprint() {
        let name = |text: &str| ProxyName::try_from(text.to_owned());
        assert_eq!(name("Nova-API.example.org"), Ok(ProxyName::Dns("nova-api.example.org".into())));
        let hex = "0A".repeat(32);
        let colons = ["0a"; 32].join(":");
        for text in [hex, colons] {
            assert_eq!(name(&format!("sha256:{text}")), Ok(ProxyName::Sha256([10; 32])), "{text}");
        }
        let short = "sha256:".to_owned() + &"0".repeat(63);
        for text in ["", "*", "*.example.org", "a b", "a..b", "CN=api", "sha256:", "sha256:zz", "10.0.0.1/8", &short] {
            assert!(name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keystones_url_is_that_of_version_3() {
        let url = |text: &str| KeystoneUrl::try_from(text.to_owned());
        let parts = |text: &str| url(text).map(|url| (url.tls, url.host, url.port, url.path)).unwrap();
        assert_eq!(parts("https://k:5000/v3/"), (true, "k".into(), 5000, "/v3".into()));
        assert_eq!(parts("https://k/identity/v3"), (true, "k".into(), 443, "/identity/v3".into()));
        assert_eq!(parts("http://[::1]:5000/v3"), (false, "::1".into(), 5000, "/v3".into()));
        for text in
            ["", "k:5000", "https://k:5000", "https://k/v2.0", "ftp://k/v3", "https://u:p@k/v3", "https://k/v3?x"]
        {
            assert!(url(text).is_err(), "{text}");
        }
    }
}
