//! The byte stream below hyper: how long a client may take, and what it is told when it never gets as far as a request.
//!
//! * A request's head must be complete soon after its first byte, else 408. Between requests a connection may be idle
//!   for longer, then it is closed. While an answer is being made, its maker has the deadline, and reading has none.
//! * A client that does not take its answer is cut.
//! * A client that is refused while it still sends may go on sending for a moment. To close at once would reset the
//!   connection, and the client would never read why.
//! * hyper answers what is no HTTP, or has too large a head, by itself and with nothing but a status. Its head is
//!   recognized on the way out and gets the body that every error has.

use std::{
    future::Future,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, http::StatusCode, response::Response};
use bytes::{Buf, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use crate::http::compute::fault::Fault;

/// A connection waits for a request.
const IDLE: u8 = 0;
/// Some of a request's head is there, or the connection is new.
const HEAD: u8 = 1;
/// An answer is under way.
const BUSY: u8 = 2;

/// How long, and for how many reads, a client that was refused may go on sending.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_READS: u32 = 256;

/// What a connection is doing. Shared by its stream and the service that answers.
#[derive(Debug)]
pub(super) struct Phase {
    now: AtomicU8,
    /// The last answer was a refusal, which may have come before the end of the request.
    refused: AtomicBool,
}

impl Phase {
    /// Of a new connection: a request is expected.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { now: AtomicU8::new(HEAD), refused: AtomicBool::new(false) })
    }

    /// A request has arrived.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.now.store(BUSY, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// Whether the connection is new, or some of a request's head is there.
    pub(super) fn expects_a_request(&self) -> bool {
        self.get() == HEAD
    }

    fn get(&self) -> u8 {
        self.now.load(Ordering::Relaxed)
    }
}

/// An answer is being made or sent, until this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Phase>);

impl UnderWay {
    /// An answer with whose end the connection is idle.
    pub(super) fn until_the_end_of(self, answer: Response) -> Response<Answering> {
        self.0.refused.store(answer.status().is_client_error(), Ordering::Relaxed);
        answer.map(|body| Answering { body, _under_way: self })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.now.store(IDLE, Ordering::Relaxed);
    }
}

/// The body of an answer under way.
#[derive(Debug)]
pub(super) struct Answering {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream with the limits of this module.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    phase: Arc<Phase>,
    head_timeout: Duration,
    idle_timeout: Duration,
    /// The phase that reading waits in, and since when.
    waiting: (u8, Instant),
    /// Wakes a reader at its deadline or before.
    read_timer: Pin<Box<Sleep>>,
    /// While a write is stuck: when it is given up.
    write_timer: Option<Pin<Box<Sleep>>>,
    /// Any of the next request was read.
    begun: bool,
    /// What is written in place of an answer of hyper's own.
    refusal: Bytes,
    /// At the end: how often what the client sends has been thrown away.
    lingered: Option<u32>,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, phase: Arc<Phase>, head_timeout: Duration, idle_timeout: Duration) -> Self {
        Self {
            stream,
            phase,
            head_timeout,
            idle_timeout,
            waiting: (HEAD, Instant::now()),
            read_timer: Box::pin(sleep(head_timeout)),
            write_timer: None,
            begun: false,
            refusal: Bytes::new(),
            lingered: None,
        }
    }

    /// Ready when reading has waited for too long.
    fn poll_read_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let phase = self.phase.get();
        if self.waiting.0 != phase {
            self.waiting = (phase, Instant::now());
        }
        let deadline = match phase {
            IDLE => self.waiting.1 + self.idle_timeout,
            HEAD => self.waiting.1 + self.head_timeout,
            _ => return Poll::Pending,
        };
        // With every request the deadline moves on. The timer follows only when it has to: moving it costs more.
        if self.read_timer.deadline() > deadline {
            self.read_timer.as_mut().reset(deadline);
        }
        while self.read_timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.read_timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// What a write's outcome is with the limit on being stuck.
    fn limited<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let deadline = Instant::now() + self.head_timeout;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answer")))
    }
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.refusal.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.refusal);
            let written = ready!(self.limited(cx, written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.refusal.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            if buf.filled().len() > before && self.phase.get() != BUSY {
                if self.phase.now.swap(HEAD, Ordering::Relaxed) == IDLE {
                    self.waiting = (HEAD, Instant::now());
                }
                self.begun = true;
            }
            return read;
        }
        ready!(self.poll_read_deadline(cx));
        if self.phase.get() == HEAD && self.begun {
            // The buffer of a client that waits for its first byte is empty: this takes no second attempt.
            let refusal = refusal(StatusCode::REQUEST_TIMEOUT);
            let _ = Pin::new(&mut self.stream).poll_write(cx, &refusal);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the request did not arrive in time")));
        }
        // As if the client had closed it.
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(status) = answer_without_body(buf) {
            self.refusal = refusal(status);
            self.phase.refused.store(true, Ordering::Relaxed);
            return Poll::Ready(Ok(buf.len()));
        }
        self.begun = false;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.limited(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [first] = bufs {
            return self.poll_write(cx, first);
        }
        self.begun = false;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.limited(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if self.phase.get() == IDLE {
            // The reader was last asked while the answer was under way, and has set no alarm.
            let _ = self.poll_read_deadline(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        if self.lingered.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.lingered = Some(0);
            self.read_timer.as_mut().reset(Instant::now() + LINGER);
        }
        if self.phase.refused.load(Ordering::Relaxed) { self.poll_linger(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Ready when the client has closed its side, or had its time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scrap = [MaybeUninit::uninit(); 8 << 10];
        while self.lingered.is_some_and(|reads| reads < LINGER_READS) && self.read_timer.as_mut().poll(cx).is_pending()
        {
            let mut scrap = ReadBuf::uninit(&mut scrap);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scrap))?;
            if scrap.filled().is_empty() {
                break;
            }
            self.lingered = self.lingered.map(|reads| reads + 1);
        }
        Poll::Ready(Ok(()))
    }
}

/// The status, if these bytes are an error that hyper sends by itself. Ours always have a body.
fn answer_without_body(bytes: &[u8]) -> Option<StatusCode> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ").filter(|rest| rest.starts_with(b"4"))?.get(..3)?;
    let text = std::str::from_utf8(bytes).ok()?;
    (text.contains("\r\ncontent-length: 0\r\n") && text.ends_with("\r\n\r\n"))
        .then(|| StatusCode::from_bytes(status).ok())
        .flatten()
}

/// An error for a client whose request was never understood: as JSON, since nobody knows what it would accept.
fn refusal(status: StatusCode) -> Bytes {
    let body = serde_json::to_string(&Fault::unreadable(status)).unwrap_or_default();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    (head + &body).into()
}
