//! Who is asking, and what they may see.
//!
//! A connection says what it proves of its other end: a [`Peer`]. Each request on it is then identified, or refused,
//! before any handler sees it; handlers find an [`Identity`] among its extensions.
//!
//! | way | of whom | is |
//! | --- | --- | --- |
//! | [`peer`] | a process that connects to the Unix socket | administrator, or nobody |
//! | [`proxy`] | somebody for whom a proxy vouches that the configuration names | who it says |
//! | [`keystone`] | somebody with a token | who Keystone says |
//! | `anyone_on_loopback_is_admin` | whoever connects over TCP, if the configuration says so in as many words | administrator |
//!
//! [`policy`] says what an identity may see.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue},
};
use tracing::{debug, warn};

use self::{keystone::Keystone, peer::Admins, policy::AdminRoles, proxy::Claims};
use super::serve::Peer;
use crate::config::TcpConfig;

pub mod keystone;
pub mod peer;
pub mod policy;
pub mod proxy;

const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
/// What is answered to anybody: whether vifd lives, and which versions it speaks.
const OPEN: [&str; 10] = ["/", "/live", "/openapi.json", "/ready", "/v1.1", "/v1.1/", "/v2", "/v2/", "/v2.1", "/v2.1/"];

/// Who asks, as far as it was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's id, where there is one.
    pub user: Option<Arc<str>>,
    /// The id of the project for which the user acts; never empty.
    pub project: Option<Arc<str>>,
    /// Whether everything may be seen.
    pub admin: bool,
}

impl Identity {
    /// An administrator of this host.
    #[must_use]
    pub fn admin() -> Self {
        Self { user: None, project: None, admin: true }
    }
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing proves who asks: 401.
    Unauthenticated,
    /// Who asks is known, and may not: 403.
    Forbidden,
    /// What should prove it cannot be understood: 400.
    Malformed(&'static str),
    /// Keystone cannot be asked: 503.
    KeystoneDown,
}

/// Identifies requests.
#[derive(Debug)]
pub struct Authenticator {
    admins: Admins,
    anyone_over_tcp: bool,
    admin_roles: AdminRoles,
    keystone: Option<Keystone>,
    dropped: AtomicU64,
}

impl Authenticator {
    /// With the ways that are configured.
    ///
    /// # Errors
    /// A file that the configuration names cannot be used.
    pub fn new(admins: Admins, tcp: Option<&TcpConfig>) -> Result<Self, keystone::KeystoneError> {
        let admin_roles = AdminRoles::new(tcp.map(|tcp| &*tcp.admin_roles).unwrap_or_default());
        let keystone = tcp.and_then(|tcp| tcp.keystone.clone());
        Ok(Self {
            admins,
            anyone_over_tcp: tcp.is_some_and(|tcp| tcp.anyone_on_loopback_is_admin),
            keystone: keystone.map(|config| Keystone::new(config, admin_roles.clone())).transpose()?,
            admin_roles,
            dropped: AtomicU64::new(0),
        })
    }

    /// Puts the identity of who asks among the request's extensions, and takes off everything that claims one.
    ///
    /// # Errors
    /// It is not known, or not allowed here at all.
    pub async fn identify(&self, peer: &Peer, request: &mut Request) -> Result<(), Refusal> {
        let claims = Claims::take(request.headers_mut());
        let token = take_token(request.headers_mut());
        if OPEN.contains(&request.uri().path()) {
            return Ok(());
        }
        let identity = match peer {
            Peer::Tcp { proxy: Some(_), .. } if claims.any() => claims.identity(&self.admin_roles)?,
            _ => {
                self.drop(&claims, peer);
                self.identity(peer, token?.as_ref()).await?
            }
        };
        request.extensions_mut().insert(identity);
        Ok(())
    }

    async fn identity(&self, peer: &Peer, token: Option<&HeaderValue>) -> Result<Identity, Refusal> {
        match (peer, &self.keystone, token) {
            (Peer::Unix(process), ..) if self.admins.include(process) => Ok(Identity::admin()),
            (Peer::Unix(_), ..) => Err(Refusal::Forbidden),
            (Peer::Tcp { .. }, ..) if self.anyone_over_tcp => Ok(Identity::admin()),
            // Boxed, since every request, with a token or without, would be as large as this question.
            (Peer::Tcp { .. }, Some(keystone), Some(token)) => Box::pin(keystone.identity(token)).await,
            (Peer::Tcp { .. }, ..) => Err(Refusal::Unauthenticated),
        }
    }

    /// What `WWW-Authenticate` says.
    #[must_use]
    pub fn challenge(&self) -> HeaderValue {
        let certificate = || HeaderValue::from_static("ClientCertificate realm=\"vifd\"");
        self.keystone.as_ref().map_or_else(certificate, Keystone::challenge)
    }

    /// How many identity headers were dropped, because somebody sent them who is no named proxy.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn drop(&self, claims: &Claims, peer: &Peer) {
        let count = claims.count();
        if count > 0 {
            debug!(%peer, count, "dropped identity headers");
            if self.dropped.fetch_add(count as u64, Ordering::Relaxed) == 0 {
                warn!(%peer, "dropped identity headers of a client that is no named proxy; from now on they are counted");
            }
        }
    }
}

/// Takes the token off a request. Nobody else needs it, and nobody shall log it.
fn take_token(headers: &mut HeaderMap) -> Result<Option<HeaderValue>, Refusal> {
    let several = headers.get_all(AUTH_TOKEN).iter().nth(1).is_some();
    let mut token = headers.remove(AUTH_TOKEN);
    token.iter_mut().for_each(|token| token.set_sensitive(true));
    if several { Err(Refusal::Malformed("X-Auth-Token is there twice.")) } else { Ok(token) }
}

#[cfg(test)]
mod tests;
