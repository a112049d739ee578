//! Connections: accepting them, bounding how many there are and how slow they may be, and ending them in an orderly way.
//!
//! hyper reads and writes HTTP/1.1; what it leaves open is closed here. A client may take so long for a request and no
//! longer (`wire`). Whoever comes while every place is taken is told so at once, with 503, instead of being queued. At
//! shutdown a connection ends with the answer under way.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use axum::{
    http::{HeaderValue, Request, header},
    response::Response,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, warn};

use self::wire::{Phase, Wire};
use super::{auth::peer::Credentials, tls::Tls};
use crate::{config::HttpConfig, meters::ConnectionMeters, source::chain};

mod wire;

/// So many connections beyond the configured number are answered, with 503 and nothing else. Further ones are closed
/// without a word.
const REFUSALS: usize = 64;
/// The largest head of a request, in bytes: as proxies allow. A larger one gets 431, or 414 if it is the path.
const MAX_HEAD: usize = 32 << 10;
/// How long to wait when the process has no descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long, at the shutdown, a client that has connected before may take for its request.
const FAREWELL: Duration = Duration::from_secs(1);

/// Who is at the other end of a connection, as far as the connection itself tells.
#[derive(Clone, Debug)]
pub enum Peer {
    /// Somebody who connected over TCP.
    Tcp {
        /// From where.
        address: SocketAddr,
        /// Whether by TLS.
        tls: bool,
        /// Which of the proxies that the configuration names, by its certificate.
        proxy: Option<Arc<str>>,
    },
    /// A process of this host.
    Unix(Arc<Credentials>),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, proxy: None, .. } => address.fmt(f),
            Self::Tcp { address, proxy: Some(proxy), .. } => write!(f, "{proxy} at {address}"),
            Self::Unix(credentials) => write!(f, "uid {}", credentials.uid),
        }
    }
}

/// Where connections come from.
pub trait Listener: Send + 'static {
    /// One of its connections, as it arrives.
    type Accepted: Send + 'static;
    /// One of its connections, ready for HTTP.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Accepted>> + Send;

    /// Makes a connection ready. It may take its time: nobody else waits for it.
    fn open(accepted: Self::Accepted) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Listener for TcpListener {
    type Accepted = (TcpStream, SocketAddr);
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<Self::Accepted> {
        let (stream, address) = TcpListener::accept(self).await?;
        // Without it a small answer may wait for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        Ok((stream, address))
    }

    async fn open((stream, address): Self::Accepted) -> io::Result<(TcpStream, Peer)> {
        Ok((stream, Peer::Tcp { address, tls: false, proxy: None }))
    }
}

/// TLS over TCP.
#[derive(Debug)]
pub struct TlsListener {
    /// Where connections come from.
    pub tcp: TcpListener,
    /// What they speak.
    pub tls: Tls,
}

impl Listener for TlsListener {
    type Accepted = (Tls, TcpStream, SocketAddr);
    type Stream = TlsStream<TcpStream>;

    async fn accept(&mut self) -> io::Result<Self::Accepted> {
        let (stream, address) = Listener::accept(&mut self.tcp).await?;
        Ok((self.tls.clone(), stream, address))
    }

    async fn open((tls, stream, address): Self::Accepted) -> io::Result<(Self::Stream, Peer)> {
        let (stream, proxy) = tls.accept(stream).await?;
        Ok((stream, Peer::Tcp { address, tls: true, proxy }))
    }
}

impl Listener for UnixListener {
    type Accepted = UnixStream;
    type Stream = UnixStream;

    async fn accept(&mut self) -> io::Result<UnixStream> {
        Ok(UnixListener::accept(self).await?.0)
    }

    async fn open(stream: UnixStream) -> io::Result<(UnixStream, Peer)> {
        let credentials = Credentials::of(stream.peer_cred()?);
        Ok((stream, Peer::Unix(Arc::new(credentials))))
    }
}

/// What answers requests, and refuses them while there are too many connections.
pub trait Answer: Send + Sync + 'static {
    /// The answer to a request.
    fn answer(&self, peer: Peer, request: Request<Incoming>) -> impl Future<Output = Response> + Send;

    /// The answer while every connection is taken.
    fn refuse(&self, request: Request<Incoming>) -> Response;
}

/// Serves a listener until `stop`, then until the requests under way are answered.
pub async fn serve<L: Listener, A: Answer>(
    mut listener: L,
    config: HttpConfig,
    app: Arc<A>,
    meters: Arc<ConnectionMeters>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(config.connections.get()));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let connections = TaskTracker::new();
    loop {
        let accepted = match stop.run_until_cancelled(listener.accept()).await {
            None => break,
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) => {
                let gone = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
                if !gone.contains(&error.kind()) {
                    warn!(error = chain(&error), "could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let place = Arc::clone(&places).try_acquire_owned();
        let full = place.is_err();
        let Ok(place) = place.or_else(|_| Arc::clone(&refusals).try_acquire_owned()) else {
            meters.dropped.count();
            continue;
        };
        meters.accepted.count();
        if full {
            meters.refused.count();
        }
        let open = Open(Arc::clone(&meters));
        let (app, stop) = (Arc::clone(&app), stop.clone());
        let connection = async move {
            let (_place, _open) = (place, open);
            // Also while stopping: what was accepted has perhaps been asked already.
            match L::open(accepted).await {
                Ok((stream, peer)) => converse(stream, peer, full, config, app, stop).await,
                Err(error) => debug!(error = chain(&error), "a connection failed before its first request"),
            }
        };
        connections.spawn(connection.in_current_span());
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Serves the one connection that there is, until its end or until `stop`.
pub async fn serve_one<A: Answer>(stream: UnixStream, config: HttpConfig, app: Arc<A>, stop: CancellationToken) {
    match UnixListener::open(stream).await {
        Ok((stream, peer)) => converse(stream, peer, false, config, app, stop).await,
        Err(error) => warn!(error = chain(&error), "could not tell who the client is"),
    }
}

/// A connection that is open, until this is dropped.
struct Open(Arc<ConnectionMeters>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closed.count();
    }
}

/// One connection, from its first byte to its last.
async fn converse<S, A>(stream: S, peer: Peer, full: bool, config: HttpConfig, app: Arc<A>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Answer,
{
    let phase = Phase::new();
    let wire = Wire::new(stream, Arc::clone(&phase), config.request_timeout, config.idle_timeout);
    let (asking, expecting) = (peer.clone(), Arc::clone(&phase));
    let service = service_fn(move |request| {
        let (app, peer, under_way) = (Arc::clone(&app), asking.clone(), phase.begin());
        async move {
            let mut response = if full { app.refuse(request) } else { app.answer(peer, request).await };
            if full {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(under_way.until_the_end_of(response))
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .max_header_size(MAX_HEAD)
            .max_buf_size(2 * MAX_HEAD)
            .serve_connection(TokioIo::new(wire), service)
    );
    let ended = match stop.run_until_cancelled(connection.as_mut()).await {
        Some(ended) => ended,
        None => {
            // hyper would close at once what nobody has asked on yet.
            let asked = poll_fn(|cx| match connection.as_mut().poll(cx) {
                Poll::Pending if expecting.expects_a_request() => Poll::Pending,
                polled => Poll::Ready(polled),
            });
            match timeout(FAREWELL, asked).await {
                Ok(Poll::Ready(ended)) => ended,
                Ok(Poll::Pending) | Err(_) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = ended {
        debug!(%peer, error = chain(&error), "a connection failed");
    }
}
