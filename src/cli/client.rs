//! One request to the daemon over its Unix socket.

use std::{io, path::PathBuf, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{net::UnixStream, runtime, time::timeout};

/// The daemon answers within a millisecond; this is for a host in deep trouble.
const TIMEOUT: Duration = Duration::from_secs(10);

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
    #[error("vifd did not answer within {TIMEOUT:?}")]
    TimedOut,
    #[error("the connection to vifd failed")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Refused(String),
    #[error("vifd's answer cannot be understood; is it of another version?")]
    Malformed(#[source] serde_json::Error),
    #[error("could not write the answer")]
    Write(#[source] io::Error),
    #[error("could not start the runtime")]
    Runtime(#[source] io::Error),
}

impl ClientError {
    /// What to do next.
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotThere { .. } => Some("is it running? see `systemctl status vifd`; --socket names another socket"),
            Self::NotAllowed { .. } => Some("run as root, or join the socket's group"),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
    runtime: runtime::Runtime,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Result<Self, ClientError> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Runtime)?;
        Ok(Self { socket, runtime })
    }

    /// `GET path`, decoded.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let (status, body) = self
            .runtime
            .block_on(async { timeout(TIMEOUT, self.fetch(path)).await.unwrap_or(Err(ClientError::TimedOut)) })?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(ClientError::Malformed);
        }
        let message = message(&body).unwrap_or_else(|| format!("vifd answered {status}"));
        Err(if status == StatusCode::NOT_FOUND {
            ClientError::NotFound(message)
        } else {
            ClientError::Refused(message)
        })
    }

    async fn fetch(&self, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let path = self.socket.clone();
            match source.kind() {
                io::ErrorKind::PermissionDenied => ClientError::NotAllowed { path },
                _ => ClientError::NotThere { path, source },
            }
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "vifd").body(Empty::<Bytes>::new());
        let response = sender.send_request(request.expect("the path was encoded")).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
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
