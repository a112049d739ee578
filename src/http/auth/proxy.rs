//! Proxies that vouch for users: the API tier has authenticated a user and says who it is, in headers.
//!
//! Such headers are worth what the connection is worth. They are taken off every request, whatever its peer and however
//! they are spelt, and read only if the peer's certificate is one that the configuration names. `X-Tenant` and
//! `X-User` hold names, which are not unique, and are never read.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};
use ring::digest;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Identity, Refusal, policy::AdminRoles};
use crate::config::ProxyName;

const STATUS: &str = "x-identity-status";
const PROJECT: &str = "x-project-id";
/// Its name in the days of the API 1.1.
const TENANT: &str = "x-tenant-id";
const USER: &str = "x-user-id";
const ROLES: &str = "x-roles";
const DOMAIN: &str = "x-domain-id";

/// Every header by which OpenStack's middleware tells a service who asks.
const IDENTITY_HEADERS: &[&str] = &[
    STATUS,
    PROJECT,
    TENANT,
    USER,
    ROLES,
    DOMAIN,
    "openstack-system-scope",
    "x-domain-name",
    "x-is-admin-project",
    "x-project-domain-id",
    "x-project-domain-name",
    "x-project-name",
    "x-role",
    "x-service-catalog",
    "x-service-identity-status",
    "x-service-project-domain-id",
    "x-service-project-domain-name",
    "x-service-project-id",
    "x-service-project-name",
    "x-service-roles",
    "x-service-user-domain-id",
    "x-service-user-domain-name",
    "x-service-user-id",
    "x-service-user-name",
    "x-tenant",
    "x-tenant-name",
    "x-user",
    "x-user-domain-id",
    "x-user-domain-name",
    "x-user-name",
];

/// What a request's headers claim about who asks.
#[derive(Debug, Default)]
pub(super) struct Claims {
    headers: HeaderMap,
}

impl Claims {
    /// Takes every identity header off a request.
    pub(super) fn take(headers: &mut HeaderMap) -> Self {
        let names: Vec<HeaderName> = headers.keys().filter(|name| is_identity_header(name)).cloned().collect();
        let mut claims = HeaderMap::new();
        for name in names {
            if let axum::http::header::Entry::Occupied(entry) = headers.entry(&name) {
                for value in entry.remove_entry_mult().1 {
                    claims.append(&name, value);
                }
            }
        }
        Self { headers: claims }
    }

    /// How many headers there were.
    pub(super) fn count(&self) -> usize {
        self.headers.len()
    }

    /// Whether anything of it would be read from a proxy.
    pub(super) fn any(&self) -> bool {
        [STATUS, PROJECT, TENANT, USER, ROLES].iter().any(|name| self.headers.contains_key(*name))
    }

    /// The identity that a proxy vouches for.
    ///
    /// # Errors
    /// It did not confirm it, or what it says has more than one meaning.
    pub(super) fn identity(&self, admin_roles: &AdminRoles) -> Result<Identity, Refusal> {
        let status = self.only(STATUS)?;
        let (project, tenant) = (self.id(PROJECT)?, self.id(TENANT)?);
        let (user, domain, roles) = (self.id(USER)?, self.id(DOMAIN)?, self.only(ROLES)?);
        if status != Some("Confirmed") {
            return Err(Refusal::Unauthenticated);
        }
        if project.is_some() && tenant.is_some() && project != tenant {
            return Err(Refusal::Malformed("X-Project-Id and X-Tenant-Id differ."));
        }
        let roles = roles.unwrap_or_default().split(',').map(str::trim);
        Ok(Identity {
            user: user.map(Arc::from),
            project: project.or(tenant).map(Arc::from),
            // Who administers a domain does not administer the cloud.
            admin: domain.is_none() && admin_roles.include(roles),
        })
    }

    /// The value of a header that may be there once; an empty one is none.
    fn only(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().map(str::trim)).transpose();
        match value {
            Ok(value) if values.next().is_none() => Ok(value.filter(|value| !value.is_empty())),
            _ => Err(Refusal::Malformed("An identity header is there twice, or is not text.")),
        }
    }

    fn id(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.only(name)? {
            // What something on the way has made of two headers.
            Some(id) if id.contains([',', ' ', '\t']) => Err(Refusal::Malformed("An identity header holds no id.")),
            id => Ok(id),
        }
    }
}

/// With underscores too: to much software they are the same.
fn is_identity_header(name: &HeaderName) -> bool {
    let is = |known: &&str| {
        let spelt = name.as_str().bytes().map(|b| if b == b'_' { b'-' } else { b });
        known.len() == name.as_str().len() && spelt.eq(known.bytes())
    };
    // Nearly every header of nearly every request ends here.
    matches!(name.as_str().as_bytes(), [b'x' | b'o', ..]) && IDENTITY_HEADERS.iter().any(is)
}

/// The configured name of a client's certificate, if it has one.
///
/// A certificate is known by the DNS names among its alternative names; by its common name only if it has none of these.
/// Its chain is another's job: only what a trusted authority signed gets here.
#[must_use]
pub fn named(names: &[ProxyName], certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let own = dns_names(&parsed);
    let fingerprint = digest::digest(&digest::SHA256, certificate);
    names.iter().find_map(|name| match name {
        ProxyName::Dns(name) => own.iter().any(|own| own.eq_ignore_ascii_case(name)).then(|| name.as_str().into()),
        ProxyName::Sha256(known) => (known[..] == *fingerprint.as_ref()).then(|| hex(known).into()),
    })
}

fn dns_names<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    // Twice there is an error, and then nobody knows which of them was meant.
    let Ok(alternative) = certificate.subject_alternative_name() else { return Vec::new() };
    let alternative = alternative.iter().flat_map(|extension| &extension.value.general_names);
    let mut names: Vec<_> =
        alternative.filter_map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None }).collect();
    if names.is_empty() {
        let mut common = certificate.subject().iter_common_name();
        if let (Some(name), None) = (common.next(), common.next()) {
            names.extend(name.as_str().ok());
        }
    }
    names
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", digits.collect::<String>())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn headers(all: &[(&str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn identity(all: &[(&str, &[u8])]) -> Result<Identity, Refusal> {
        Claims::take(&mut headers(all)).identity(&AdminRoles::new(&["admin".into(), "cloud_admin".into()]))
    }

    const CONFIRMED: (&str, &[u8]) = (STATUS, b"Confirmed");

    #[test]
    fn every_identity_header_is_taken_off_in_any_spelling_and_nothing_else() {
        let mut all = headers(&[
            CONFIRMED,
            ("x-project-id", b"a"),
            ("x_project_id", b"b"),
            ("x-project_id", b"c"),
            ("X-ROLES", b"admin"),
            ("x-roles", b"admin"),
            ("x-user", b"alice"),
            ("OpenStack-System-Scope", b"all"),
            ("x-auth-token", b"t"),
            ("x-openstack-request-id", b"r"),
            ("x-user-agent", b"curl"),
            ("accept", b"*/*"),
        ]);
        let claims = Claims::take(&mut all);
        assert_eq!(claims.count(), 8);
        let mut left: Vec<_> = all.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "x-auth-token", "x-openstack-request-id", "x-user-agent"]);
        assert_eq!(Claims::take(&mut all).count(), 0);
    }

    #[test]
    fn a_proxy_vouches_for_a_user_a_project_and_roles() {
        let member = Identity { user: Some("u".into()), project: Some("p".into()), admin: false };
        let admin = Identity { admin: true, ..member.clone() };
        let (user, project): ((_, &[u8]), (_, &[u8])) = ((USER, b"u"), (PROJECT, b"p"));
        for (all, wanted) in [
            (vec![CONFIRMED, user, project], &member),
            (vec![CONFIRMED, user, (TENANT, b"p")], &member),
            (vec![CONFIRMED, user, project, (TENANT, b"p"), (ROLES, b"member,reader")], &member),
            (vec![CONFIRMED, user, project, (ROLES, b"admins,administrator,adm in")], &member),
            (vec![CONFIRMED, user, project, ("x-role", b"admin"), ("x_roles", b"admin")], &member),
            (vec![CONFIRMED, user, project, (ROLES, b"admin"), (DOMAIN, b"d")], &member),
            (vec![CONFIRMED, user, project, (ROLES, b"member, Admin")], &admin),
            (vec![CONFIRMED, user, project, (ROLES, b"cloud_admin")], &admin),
        ] {
            assert_eq!(identity(&all).as_ref(), Ok(wanted), "{all:?}");
        }
        let nobody = Identity { user: None, project: None, admin: false };
        let names: [(&str, &[u8]); 3] = [CONFIRMED, ("x-tenant", b"p"), ("x-user", b"u")];
        assert_eq!(identity(&names), Ok(nobody.clone()));
        assert_eq!(identity(&[CONFIRMED, (PROJECT, b""), (TENANT, b" "), ("x_project_id", b"p")]), Ok(nobody));
    }

    #[test]
    fn what_is_not_confirmed_is_not_believed() {
        for status in [None, Some("Invalid"), Some("confirmed"), Some("Confirmed,Invalid"), Some("")] {
            let status = status.map(|status| (STATUS, status.as_bytes()));
            let all: Vec<_> = status.into_iter().chain([(PROJECT, &b"p"[..]), (ROLES, b"admin")]).collect();
            assert_eq!(identity(&all), Err(Refusal::Unauthenticated), "{all:?}");
        }
    }

    #[test]
    fn what_has_two_meanings_has_none() {
        for all in [
            [CONFIRMED, (PROJECT, b"p"), (PROJECT, b"p")],
            [CONFIRMED, (PROJECT, b"p"), (PROJECT, b"q")],
            [CONFIRMED, (PROJECT, b"p"), (TENANT, b"q")],
            [CONFIRMED, (PROJECT, b"p, q"), (USER, b"u")],
            [CONFIRMED, (PROJECT, b"p"), (USER, b"u v")],
            [CONFIRMED, (PROJECT, b"\xff"), (USER, b"u")],
            [CONFIRMED, (ROLES, b"member"), (ROLES, b"admin")],
            [CONFIRMED, (STATUS, b"Confirmed"), (USER, b"u")],
        ] {
            assert!(matches!(identity(&all), Err(Refusal::Malformed(_))), "{all:?}");
        }
    }

    fn certificate(alternative: &[&str], common: &[&str]) -> CertificateDer<'static> {
        let alternative: Vec<String> = alternative.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(alternative).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_proxy_is_known_by_its_dns_name_or_else_its_common_name() {
        let names = [ProxyName::Dns("api.example.org".into())];
        let known = |certificate| named(&names, &certificate).as_deref() == Some("api.example.org");
        assert!(known(certificate(&["other.example.org", "API.example.org"], &["x"])));
        assert!(known(certificate(&[], &["api.example.org"])));
        for (alternative, common) in [
            (vec!["other.example.org"], "api.example.org"),
            (vec!["*.example.org"], ""),
            (vec!["api.example.org.evil.org"], ""),
            (vec!["xapi.example.org"], ""),
            (vec![], "api.example.org\0.evil.org"),
            (vec![], "api.example.org, O=x"),
            (vec![], ""),
        ] {
            assert!(!known(certificate(&alternative, &[common])), "{alternative:?} {common}");
        }
        assert_eq!(named(&names, &CertificateDer::from(vec![0x30, 0x80])), None);
    }

    #[test]
    fn a_proxy_is_known_by_its_fingerprint() {
        let (one, other) = (certificate(&[], &["x"]), certificate(&[], &["x"]));
        let fingerprint = digest::digest(&digest::SHA256, &one).as_ref().try_into().unwrap();
        let names = [ProxyName::Sha256(fingerprint)];
        assert_eq!(named(&names, &one).as_deref(), Some(&*hex(&fingerprint)));
        assert_eq!(named(&names, &other), None);
    }
}
