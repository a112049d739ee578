//! Tokens of users, checked by Keystone.
//!
//! vifd shows a token that it does not know to Keystone, as a service user with a token of its own, and remembers the
//! verdict: a good one for minutes and no longer than the token lives, a bad one for seconds, and for a moment that there
//! was none, so that a Keystone in trouble is not asked the same by everybody who waits. Equal tokens at the same time
//! are one question. Tokens are remembered by their hash, and never logged.
//!
//! When Keystone does not answer, requests with an unknown token get 503; all others go on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use quick_cache::sync::{Cache, EntryAction, EntryResult};
use ring::digest;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{Mutex, Semaphore},
    time::timeout,
};
use tracing::{debug, info, warn};

use self::client::{Client, ClientError};
use super::{Identity, Refusal, policy::AdminRoles};
use crate::{
    config::KeystoneConfig,
    source::{chain, now},
};

mod client;

/// How many verdicts are remembered: some 200 bytes each.
const CACHE_SIZE: usize = 10_000;
/// How many questions are asked at a time. Whoever sends made-up tokens makes others wait, and spares Keystone.
const QUESTIONS: usize = 16;
/// How long a bad token stays bad: Keystone, which may have been behind, is then asked again.
const BAD_FOR: Duration = Duration::from_secs(5);
/// How long a token is not asked about again after there was no answer.
const DOWN_FOR: Duration = Duration::from_secs(1);
/// Ours is renewed so long before it expires, or after half of its life if that is later.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// No token is longer: Keystone's own are below 255 bytes.
const MAX_TOKEN: usize = 8192;

/// A Keystone, and what it said.
#[derive(Debug)]
pub struct Keystone {
    config: KeystoneConfig,
    admin_roles: AdminRoles,
    client: Client,
    /// What a 401 says.
    challenge: HeaderValue,
    /// Ours. It is locked during a login: whoever comes meanwhile waits for that very token.
    own: Mutex<Option<OwnToken>>,
    questions: Semaphore,
    verdicts: Cache<TokenHash, Verdict>,
    down: AtomicBool,
}

type TokenHash = [u8; digest::SHA256_OUTPUT_LEN];

/// What is said of a token, and how long that holds.
#[derive(Clone, Debug)]
struct Verdict {
    answer: Result<Identity, Refusal>,
    until: Instant,
}

#[derive(Clone, Debug)]
struct OwnToken {
    value: HeaderValue,
    renew_at: Instant,
}

/// Why there is no Keystone to ask.
#[derive(Debug, thiserror::Error)]
pub enum KeystoneError {
    /// It cannot be reached, or the connection fails.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The password cannot be read.
    #[error("could not read {}", path.display())]
    Password {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The URL cannot be told to users.
    #[error("the URL {0} cannot be told in a header")]
    Url(String),
    /// It does not answer.
    #[error("Keystone did not answer within {0:?}")]
    TimedOut(Duration),
    /// It does not let us in.
    #[error("Keystone answered the login of the user {user} with {status}")]
    Login {
        /// Ours.
        user: String,
        /// Its answer.
        status: StatusCode,
    },
    /// It lets us in, and does not answer.
    #[error("Keystone answered a question about a token with {0}; does the service user have the role service?")]
    Question(StatusCode),
    /// Its answer makes no sense.
    #[error("Keystone's answer cannot be understood: {0}")]
    Malformed(String),
}

/// The part of a token that matters here.
#[derive(Debug, Deserialize)]
struct Token {
    issued_at: Timestamp,
    expires_at: Timestamp,
    user: WithId,
    project: Option<WithId>,
    system: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    roles: Vec<Role>,
}

#[derive(Debug, Deserialize)]
struct WithId {
    id: Arc<str>,
}

#[derive(Debug, Deserialize)]
struct Role {
    name: String,
}

impl Keystone {
    /// Reads the files that the configuration names. Keystone itself may be down.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn new(config: KeystoneConfig, admin_roles: AdminRoles) -> Result<Self, KeystoneError> {
        let url = config.public_url.as_ref().unwrap_or(&config.url).as_str();
        let challenge = format!("Keystone uri=\"{url}\"").try_into();
        let keystone = Self {
            challenge: challenge.map_err(|_| KeystoneError::Url(url.to_owned()))?,
            client: Client::new(&config.url, config.ca.as_deref())?,
            admin_roles,
            own: Mutex::new(None),
            questions: Semaphore::new(QUESTIONS),
            verdicts: Cache::new(CACHE_SIZE),
            down: AtomicBool::new(false),
            config,
        };
        keystone.password()?;
        Ok(keystone)
    }

    /// What `WWW-Authenticate` says to who has no good token.
    #[must_use]
    pub fn challenge(&self) -> HeaderValue {
        self.challenge.clone()
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// It is not good, or nobody can tell.
    pub async fn identity(&self, token: &HeaderValue) -> Result<Identity, Refusal> {
        // Keystone sends no others, and must not be bothered with them.
        if token.is_empty() || token.len() > MAX_TOKEN || token.to_str().is_err() {
            return Err(Refusal::Unauthenticated);
        }
        let mut hash = TokenHash::default();
        hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        let remembered = |_: &TokenHash, verdict: &mut Verdict| {
            if Instant::now() < verdict.until {
                EntryAction::Retain(verdict.answer.clone())
            } else {
                EntryAction::ReplaceWithGuard
            }
        };
        match self.verdicts.entry_async(&hash, remembered).await {
            EntryResult::Retained(answer) => answer,
            EntryResult::Vacant(question) | EntryResult::Replaced(question, _) => {
                let verdict = self.ask(token).await;
                let answer = verdict.answer.clone();
                // It fails if the entry was removed meanwhile, which nobody does.
                let _ = question.insert(verdict);
                answer
            }
            EntryResult::Removed(..) | EntryResult::Timeout => Err(Refusal::KeystoneDown),
        }
    }

    async fn ask(&self, token: &HeaderValue) -> Verdict {
        let validate = async {
            let _turn = self.questions.acquire().await;
            debug!("asking Keystone about a token");
            self.validate(token).await
        };
        let answer = timeout(self.config.timeout, validate).await;
        let answer = answer.unwrap_or_else(|_| Err(KeystoneError::TimedOut(self.config.timeout)));
        self.note_condition(answer.as_ref().err());
        let now = Instant::now();
        match answer {
            Ok(Some(token)) => {
                let lives = remaining(token.expires_at).min(self.config.cache);
                Verdict { answer: Ok(self.identity_of(token)), until: now + lives }
            }
            Ok(None) => Verdict { answer: Err(Refusal::Unauthenticated), until: now + BAD_FOR },
            Err(_) => Verdict { answer: Err(Refusal::KeystoneDown), until: now + DOWN_FOR },
        }
    }

    /// Asks Keystone. Nothing is an answer too: the token is not good.
    async fn validate(&self, token: &HeaderValue) -> Result<Option<Token>, KeystoneError> {
        let mut own = self.own_token(None).await?;
        let mut response = self.client.get_token(&own.value, token).await?;
        if response.status == StatusCode::UNAUTHORIZED {
            // It is ours that is not good: revoked, or Keystone's keys are others now.
            own = self.own_token(Some(&own)).await?;
            response = self.client.get_token(&own.value, token).await?;
        }
        match response.status {
            StatusCode::OK => Token::parse(&response.body).map(Some),
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => Ok(None),
            status => Err(KeystoneError::Question(status)),
        }
    }

    /// Our own token, renewed where it is old or is the one that Keystone refused.
    async fn own_token(&self, refused: Option<&OwnToken>) -> Result<OwnToken, KeystoneError> {
        let mut own = self.own.lock().await;
        let good =
            |own: &&OwnToken| Instant::now() < own.renew_at && refused.is_none_or(|refused| refused.value != own.value);
        if let Some(own) = own.as_ref().filter(good) {
            return Ok(own.clone());
        }
        let new = self.log_in().await?;
        Ok(own.insert(new).clone())
    }

    async fn log_in(&self) -> Result<OwnToken, KeystoneError> {
        let KeystoneConfig { user, user_domain, project, project_domain, .. } = &self.config;
        let body = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": {
                "name": user, "domain": { "name": user_domain }, "password": self.password()?,
            } } },
            "scope": { "project": { "name": project, "domain": { "name": project_domain } } },
        } });
        let response = self.client.log_in(body.to_string()).await?;
        let (StatusCode::CREATED, Some(value)) = (response.status, response.subject_token) else {
            return Err(KeystoneError::Login { user: user.clone(), status: response.status });
        };
        let token = Token::parse(&response.body)?;
        let life = Duration::try_from(token.expires_at.duration_since(token.issued_at)).unwrap_or_default();
        debug!(%user, ?life, "logged in to Keystone");
        Ok(OwnToken { value, renew_at: Instant::now() + life.saturating_sub(RENEW_BEFORE).max(life / 2) })
    }

    fn password(&self) -> Result<String, KeystoneError> {
        let path = &self.config.password_file;
        match std::fs::read_to_string(path) {
            Ok(password) => Ok(password.trim_end_matches(['\n', '\r']).to_owned()),
            Err(source) => Err(KeystoneError::Password { path: path.clone(), source }),
        }
    }

    fn identity_of(&self, token: Token) -> Identity {
        // Who administers a domain does not administer the cloud.
        let scoped = token.project.is_some() || token.system.is_some();
        let admin = scoped && self.admin_roles.include(token.roles.iter().map(|role| &*role.name));
        let project = token.project.map(|project| project.id).filter(|id| !id.is_empty());
        Identity { user: Some(token.user.id), project, admin }
    }

    /// Logs that Keystone is down when it goes down, and that it is back when it is.
    fn note_condition(&self, error: Option<&KeystoneError>) {
        let was_down = self.down.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_down => warn!(error = chain(error), "tokens cannot be checked"),
            Some(error) => debug!(error = chain(error), "a token could not be checked"),
            None if was_down => info!("tokens can be checked again"),
            None => {}
        }
    }
}

impl Token {
    fn parse(body: &[u8]) -> Result<Self, KeystoneError> {
        #[derive(Deserialize)]
        struct Envelope {
            token: Token,
        }
        let envelope = serde_json::from_slice(body).map(|Envelope { token }| token);
        envelope.map_err(|error| KeystoneError::Malformed(error.to_string()))
    }
}

/// How long until then; nothing if that is past.
fn remaining(then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now())).unwrap_or_default()
}
