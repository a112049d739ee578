//! Requests to the daemon over its Unix socket, or to a [`private`] one where it does not answer.

use std::{
    cell::RefCell,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::SendRequest,
};
use hyper_util::rt::TokioIo;
use nix::unistd::Group;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{net::UnixStream, runtime, time::timeout};

use super::private::{self, StartError};
use crate::{config::DEFAULT_SOCKET, http::host::Answer};

/// The daemon answers within a millisecond; this is for a host in deep trouble.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A private daemon waits for its sources first.
const PRIVATE_TIMEOUT: Duration = Duration::from_secs(15);

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Whom {
    /// The daemon's socket
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Ask no daemon: collect everything now, as far as this user may read it
    #[arg(long, global = true, conflicts_with = "no_offline")]
    offline: bool,
    /// Collect nothing where the daemon does not answer, but exit with status 3
    #[arg(long, global = true)]
    no_offline: bool,
    /// The daemon's configuration, which says what to collect where it does not answer
    /// [default: /etc/vifd/vifd.toml, where there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long an answer may take.
    #[arg(skip = TIMEOUT)]
    timeout: Duration,
}

impl Whom {
    /// Only the daemon at this socket, and only so long.
    pub(super) fn daemon_at(socket: PathBuf, timeout: Duration) -> Self {
        Self { socket, offline: false, no_offline: true, config: None, timeout }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("vifd does not answer at {}", path.display())]
    NotThere {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("not allowed to connect to {}", path.display())]
    NotAllowed { path: PathBuf },
    #[error("vifd lets us connect to {} and does not answer within {TIMEOUT:?}", path.display())]
    Hung { path: PathBuf },
    #[error("the connection to vifd failed")]
    Http(#[from] hyper::Error),
    #[error("could not collect anything either")]
    Private(#[from] StartError),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Refused(String),
    #[error("vifd's answer cannot be understood; is it of another version?")]
    Malformed(#[source] serde_json::Error),
    #[error("only `vifctl path` can be drawn")]
    NoSuchFormat,
    #[error("the standard output is no terminal; for scripts there is --once")]
    NoTerminal,
    #[error("could not write the answer")]
    Write(#[source] io::Error),
    #[error("could not write {}", path.display())]
    WriteFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not start the runtime")]
    Runtime(#[source] io::Error),
}

impl ClientError {
    /// What to do next.
    pub(super) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotThere { .. } => "is it running? see `systemctl status vifd`; --socket names another socket",
            Self::NotAllowed { path } => {
                let group = fs::metadata(path).ok().and_then(|socket| Group::from_gid(socket.gid().into()).ok()?);
                let group = group.map(|group| format!(", {}", group.name)).unwrap_or_default();
                return Some(format!(
                    "run as root or join the socket's group{group}; --offline collects what you may read yourself"
                ));
            }
            Self::WriteFile { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => "--force replaces it",
            Self::Hung { .. } => "see `systemctl status vifd`; --offline does without it",
            Self::Malformed(_) => {
                "`vifctl --version` and `vifctl status` tell both; restart the daemon after an upgrade"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// Whether there is no daemon that would answer.
    fn is_absence(&self) -> bool {
        matches!(self, Self::NotThere { .. } | Self::Hung { .. } | Self::Http(_))
    }
}

type Connection = SendRequest<Empty<Bytes>>;

#[derive(Debug)]
pub(super) struct Client {
    whom: Whom,
    runtime: runtime::Runtime,
    /// The connection to a daemon of our own, once we need one.
    private: RefCell<Option<Connection>>,
}

impl Client {
    pub(super) fn new(whom: Whom) -> Result<Self, ClientError> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Runtime)?;
        Ok(Self { whom, runtime, private: RefCell::new(None) })
    }

    /// The daemon's configuration, where the command line names it.
    pub(super) fn config(&self) -> Option<&Path> {
        self.whom.config.as_deref()
    }

    /// Whether it is a daemon of our own that answers.
    pub(super) fn is_private(&self) -> bool {
        self.private.borrow().is_some()
    }

    /// What the daemon answers to `GET path`.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, ClientError> {
        Answer::parse(&self.get_json(path)?).map_err(ClientError::Malformed)
    }

    /// The same as it comes.
    pub(super) fn get_json(&self, path: &str) -> Result<Bytes, ClientError> {
        self.runtime.block_on(async {
            let answer = timeout(self.whom.timeout, body(self.send(path).await?)).await;
            answer.unwrap_or_else(|_| Err(ClientError::Hung { path: self.whom.socket.clone() }))
        })
    }

    /// Runs what asks by [`Client::open`].
    pub(super) fn block_on<T>(&self, asks: impl Future<Output = T>) -> T {
        self.runtime.block_on(asks)
    }

    /// The daemon's answer to `GET path`, as it comes. No private daemon is asked: what is new, it does not know.
    pub(super) async fn open(&self, path: &str, last: Option<&str>) -> Result<Incoming, ClientError> {
        let response = self.ask_daemon(path, last).await?;
        if response.status().is_success() { Ok(response.into_body()) } else { Err(refusal(response).await?) }
    }

    /// Asks the daemon; a private one if it does not answer, and from then on.
    async fn send(&self, path: &str) -> Result<Response<Incoming>, ClientError> {
        let mut connection = match self.private.take() {
            Some(connection) => connection,
            None if self.whom.offline => self.begin_privately(None).await?,
            None => match self.ask_daemon(path, None).await {
                Err(error) if error.is_absence() && !self.whom.no_offline => self.begin_privately(Some(&error)).await?,
                answered => return answered,
            },
        };
        let answer = ask_privately(&mut connection, path).await;
        self.private.replace(Some(connection));
        answer
    }

    async fn ask_daemon(&self, path: &str, last: Option<&str>) -> Result<Response<Incoming>, ClientError> {
        let socket = &self.whom.socket;
        let ask = async {
            let stream = UnixStream::connect(socket).await.map_err(|source| {
                let path = socket.clone();
                match source.kind() {
                    io::ErrorKind::PermissionDenied => ClientError::NotAllowed { path },
                    _ => ClientError::NotThere { path, source },
                }
            })?;
            ask(&mut connect(stream).await?, path, last).await
        };
        timeout(self.whom.timeout, ask).await.unwrap_or_else(|_| Err(ClientError::Hung { path: socket.clone() }))
    }

    /// Starts a daemon of our own, and says so.
    async fn begin_privately(&self, why: Option<&ClientError>) -> Result<Connection, ClientError> {
        let stream = private::start(self.whom.config.as_deref())?;
        let mut connection = connect(stream).await?;
        let sync = body(ask_privately(&mut connection, "/host/v1/sync").await?).await?;
        private::tell(why, &Answer::parse(&sync).map_err(ClientError::Malformed)?);
        Ok(connection)
    }
}

async fn connect(stream: UnixStream) -> Result<Connection, ClientError> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask_privately(connection: &mut Connection, path: &str) -> Result<Response<Incoming>, ClientError> {
    let answer = timeout(PRIVATE_TIMEOUT, ask(connection, path, None)).await;
    answer.unwrap_or(Err(ClientError::Private(StartError::Silent(PRIVATE_TIMEOUT))))
}

/// `last` is the id of the last event of a stream that broke off.
async fn ask(connection: &mut Connection, path: &str, last: Option<&str>) -> Result<Response<Incoming>, ClientError> {
    connection.ready().await?;
    let request = Request::get(path).header("host", "vifd");
    let request = last.iter().fold(request, |request, id| request.header("last-event-id", *id));
    let request = request.body(Empty::<Bytes>::new());
    Ok(connection.send_request(request.expect("path and id were encoded")).await?)
}

/// What a success says.
async fn body(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    if !response.status().is_success() {
        return Err(refusal(response).await?);
    }
    Ok(response.into_body().collect().await?.to_bytes())
}

/// What an answer says that is no success.
async fn refusal(response: Response<Incoming>) -> Result<ClientError, ClientError> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let message = message(&body).unwrap_or_else(|| format!("vifd answered {status}"));
    Ok(if status == StatusCode::NOT_FOUND { ClientError::NotFound(message) } else { ClientError::Refused(message) })
}

/// The message of the host API's error body.
fn message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        error: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        message: String,
    }
    serde_json::from_slice::<Body>(body).ok().map(|body| body.error.message)
}

/// Text as one segment of a path or one value of a query: everything but RFC 3986's unreserved characters is escaped.
pub(super) fn encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_types_survives_the_way_to_the_daemon() {
        assert_eq!(encode("fa:16/ü?&#% x"), "fa%3A16%2F%C3%BC%3F%26%23%25%20x");
    }
}
