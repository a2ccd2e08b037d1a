//! A client's connection as hyper sees it: slow heads and idle connections are cut, and closing lingers.
//!
//! hyper's `header_read_timeout` counts the idle time before a request too, so one value would
//! either close idle connections under a load balancer's feet or leave slow clients connected for
//! as long as idle ones. This wrapper counts heads from their first byte instead, and idle time
//! apart. hyper also makes a timer for every request; here a request that arrives in one piece sets
//! none, which saves 4 % of its instructions.
//!
//! Closing a socket that has unread bytes resets it, and the reset may overtake the last answer (a
//! 413, say). So closing ends our half, then reads and discards what the client still sends.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// How long a client may keep us waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the head of a request, from its first byte.
    pub(super) head: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
    /// Until it takes some more of an answer.
    pub(super) write: Duration,
}

/// A client may end its half of the connection and still wait for the answer; one that is gone looks
/// the same. So the end is held back for as long as an answer usually takes, and no longer: the work
/// for a client that is gone must stop.
const HALF_CLOSED: Duration = Duration::from_secs(1);

/// How long a closing connection is read on. Below the time that a drain leaves for last answers.
const LINGER: Duration = Duration::from_secs(1);

/// Counts a connection's requests: those begun, those answered, and the last whose body was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Exchanges(Arc<[AtomicU64; 3]>);

impl Exchanges {
    /// A request that lasts until the guard is dropped: answered, or given up by its client.
    pub(super) fn begin(&self) -> Exchange {
        self.0[0].fetch_add(1, Ordering::Relaxed);
        Exchange(self.clone())
    }

    /// The number that stays the same for as long as no further request's head is complete.
    fn begun(&self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    /// Notes that the newest request's body has been read to its end.
    fn body_is_read(&self) {
        self.0[2].store(self.begun(), Ordering::Relaxed);
    }

    /// Whether it has.
    pub(super) fn has_read_body(&self) -> bool {
        self.0[2].load(Ordering::Relaxed) == self.begun()
    }

    fn is_busy(&self) -> bool {
        self.begun() != self.0[1].load(Ordering::Relaxed)
    }

    /// Waits until a connection brought no request for as long as it may: the first has to come as fast
    /// as a head, the next ones within the idle time (and up to twice that).
    pub(super) async fn unused(&self, patience: Patience) {
        let mut before = Some(self.begun());
        tokio::time::sleep(if before == Some(0) { patience.head } else { patience.idle }).await;
        while self.is_busy() || before != Some(self.begun()) {
            // The quiet after a request that is still under way has yet to begin.
            before = (!self.is_busy()).then(|| self.begun());
            tokio::time::sleep(patience.idle).await;
        }
    }
}

/// An HTTP/1 request's body, which tells when it has been read to its end.
///
/// hyper closes a connection whose request it could not read to the end, and says so only where it knew
/// before it wrote the answer's head: a client would lose the request that it sends next.
pub(super) struct WatchedBody {
    body: Incoming,
    exchanges: Exchanges,
}

impl WatchedBody {
    /// Of the newest request.
    pub(super) fn new(body: Incoming, exchanges: Exchanges) -> Self {
        let watched = Self { body, exchanges };
        watched.note();
        watched
    }

    fn note(&self) {
        if self.body.is_end_stream() {
            self.exchanges.body_is_read();
        }
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match frame {
            None => self.exchanges.body_is_read(),
            Some(_) => self.note(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// One request on its way.
#[must_use = "the request counts as being served only while this lives"]
pub(super) struct Exchange(Exchanges);

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.0[1].fetch_add(1, Ordering::Relaxed);
    }
}

/// Looks from time to time whether a connection is used: that costs the requests on it nothing.
#[derive(Default)]
struct Idle {
    alarm: Option<Pin<Box<Sleep>>>,
    /// How many requests had begun when the alarm last rang.
    begun: u64,
    /// How many times it rang in quiet since the connection was used.
    quiet: u32,
}

impl Idle {
    /// How often the alarm rings within the limit: so much later, at most, an idle connection is closed.
    const LOOKS: u32 = 4;

    /// Whether the connection has been idle for `limit`. To be asked whenever a read has to wait: hyper
    /// reads while it answers, too, and not again when it has answered.
    fn is_over(&mut self, begun: u64, is_used: bool, limit: Duration, cx: &mut Context<'_>) -> bool {
        let pause = (limit / Self::LOOKS).max(Duration::from_millis(1));
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        while alarm.as_mut().poll(cx).is_ready() {
            self.quiet = match self.begun == begun {
                _ if is_used => 0,
                true => self.quiet + 1,
                false => 1,
            };
            self.begun = begun;
            // The first look in quiet says only that the quiet has begun.
            if self.quiet > Self::LOOKS {
                return true;
            }
            alarm.as_mut().reset(Instant::now() + pause);
        }
        false
    }
}

/// A connection that fails with `TimedOut` when its client keeps us waiting too long.
pub(super) struct ClientStream<T> {
    io: T,
    exchanges: Exchanges,
    patience: Patience,
    /// How many requests had begun when the last bytes came in between two of them.
    head_since: Option<u64>,
    head_deadline: Option<(u64, Pin<Box<Sleep>>)>,
    idle: Idle,
    write_deadline: Option<Pin<Box<Sleep>>>,
    half_closed: Option<Pin<Box<Sleep>>>,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<T> ClientStream<T> {
    /// `accepted` is when the connection began: its first head is counted from there.
    pub(super) fn http1(io: T, exchanges: Exchanges, patience: Patience, accepted: Instant) -> Self {
        let first = Box::pin(tokio::time::sleep_until(accepted + patience.head));
        let head_deadline = Some((0, first));
        Self { head_since: Some(0), head_deadline, ..Self::new(io, exchanges, patience) }
    }

    /// HTTP/2 has heads of several requests on their way at once: [`Exchanges::unused`] looks after those.
    pub(super) fn http2(io: T, patience: Patience) -> Self {
        Self::new(io, Exchanges::default(), patience)
    }

    fn new(io: T, exchanges: Exchanges, patience: Patience) -> Self {
        Self {
            io,
            exchanges,
            patience,
            head_since: None,
            head_deadline: None,
            idle: Idle::default(),
            write_deadline: None,
            half_closed: None,
            linger: None,
        }
    }

    /// Whether the client has kept a read waiting for too long.
    fn is_too_slow(&mut self, cx: &mut Context<'_>) -> bool {
        let begun = self.exchanges.begun();
        if self.head_since == Some(begun) {
            return self.is_head_too_slow(begun, cx);
        }
        self.head_deadline = None;
        // Only HTTP/1 has a last head; and a client that still takes its answer is not idle.
        let is_used = self.exchanges.is_busy() || self.write_deadline.is_some();
        self.head_since.is_some() && self.idle.is_over(begun, is_used, self.patience.idle, cx)
    }

    fn is_head_too_slow(&mut self, now: u64, cx: &mut Context<'_>) -> bool {
        let limit = self.patience.head;
        let fresh = || (now, Box::pin(tokio::time::sleep(limit)));
        let (since, sleep) = self.head_deadline.get_or_insert_with(fresh);
        if *since != now {
            (*since, *sleep) = fresh();
        }
        sleep.as_mut().poll(cx).is_ready()
    }

    /// Whether to keep the end of the client's half to ourselves for now.
    fn holds_back_end(&mut self, cx: &mut Context<'_>) -> bool {
        let sleep = self.half_closed.get_or_insert_with(|| Box::pin(tokio::time::sleep(HALF_CLOSED)));
        self.exchanges.is_busy() && sleep.as_mut().poll(cx).is_pending()
    }

    /// A write that waits, until it has waited too long.
    fn or_too_slow<R>(&mut self, written: Poll<io::Result<R>>, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.write_deadline = None;
            return written;
        }
        let limit = self.patience.write;
        let sleep = self.write_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ClientStream<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.half_closed.is_some() && this.holds_back_end(cx) {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            // Only a read that has to wait for more can be a slow one: a request that arrives in
            // one piece never touches a timer.
            Poll::Pending if this.is_too_slow(cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if buf.filled().len() == before => {
                if this.holds_back_end(cx) {
                    Poll::Pending
                } else {
                    Poll::Ready(Ok(()))
                }
            }
            Poll::Ready(result) => {
                if this.head_since.is_some() && !this.exchanges.is_busy() {
                    this.head_since = Some(this.exchanges.begun());
                }
                Poll::Ready(result)
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.or_too_slow(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        }
        let mut discarded = [0; 4096];
        // The client's half has ended already: there is nothing to wait for.
        while self.half_closed.is_none() {
            let linger = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
            if linger.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut discarded);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.or_too_slow(written, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const PATIENCE: Patience = Patience { head: LIMIT, idle: LIMIT, write: LIMIT };

    #[tokio::test(start_paused = true)]
    async fn a_dribbled_head_fails_at_the_limit_however_many_bytes_come() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = ClientStream::http1(server, Exchanges::default(), PATIENCE, Instant::now());
        let started = Instant::now();
        let dribble = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let mut read = [0; 8];
        let error = loop {
            if let Err(error) = server.read(&mut read).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), LIMIT.as_secs());
        drop(server);
        dribble.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn closing_reads_what_still_comes_and_ends_with_the_client_or_the_limit() {
        for client_ends in [true, false] {
            let (mut client, server) = tokio::io::duplex(64);
            let mut server = ClientStream::http1(server, Exchanges::default(), PATIENCE, Instant::now());
            let started = Instant::now();
            let closing = tokio::spawn(async move { server.shutdown().await });
            client.write_all(&[b'x'; 1000]).await.unwrap();
            if client_ends {
                client.shutdown().await.unwrap();
            }
            closing.await.unwrap().unwrap();
            let limit = if client_ends { Duration::ZERO } else { LINGER };
            assert_eq!(started.elapsed().as_secs(), limit.as_secs());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_of_an_answer_is_cut() {
        let (client, server) = tokio::io::duplex(64);
        let mut server = ClientStream::http2(server, PATIENCE);
        let started = Instant::now();
        let error = server.write_all(&[b'x'; 1000]).await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed().as_secs()), (io::ErrorKind::TimedOut, LIMIT.as_secs()));
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_clients_half_is_held_back_while_it_waits_for_an_answer() {
        for answered in [true, false] {
            let (mut client, server) = tokio::io::duplex(64);
            let exchanges = Exchanges::default();
            let mut server = ClientStream::http1(server, exchanges.clone(), PATIENCE, Instant::now());
            let exchange = exchanges.begin();
            client.shutdown().await.unwrap();
            let started = Instant::now();
            let mut read = [0; 4];
            if answered {
                let early = tokio::time::timeout(HALF_CLOSED / 2, server.read(&mut read)).await;
                assert!(early.is_err(), "not told while the answer is being made");
                drop(exchange);
            } else {
                // Given up by nobody: it is still being answered when the second has passed.
                std::mem::forget(exchange);
            }
            assert_eq!(server.read(&mut read).await.unwrap(), 0);
            assert_eq!(started.elapsed(), if answered { HALF_CLOSED / 2 } else { HALF_CLOSED });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_nobody_uses_is_cut_at_the_limit_or_a_quarter_later() {
        let (mut client, server) = tokio::io::duplex(64);
        let exchanges = Exchanges::default();
        let mut server = ClientStream::http1(server, exchanges.clone(), PATIENCE, Instant::now());
        let mut read = [0; 4];
        for _ in 0..3 {
            client.write_all(b"head").await.unwrap();
            server.read_exact(&mut read).await.unwrap();
            let exchange = exchanges.begin();
            // An answer that takes longer than a connection may be idle.
            assert!(tokio::time::timeout(3 * LIMIT, server.read(&mut read)).await.is_err());
            drop(exchange);
            assert!(tokio::time::timeout(LIMIT * 9 / 10, server.read(&mut read)).await.is_err());
        }
        client.write_all(b"head").await.unwrap();
        server.read_exact(&mut read).await.unwrap();
        drop(exchanges.begin());
        let used = Instant::now();
        let error = server.read(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let idle = used.elapsed();
        assert!(idle >= LIMIT && idle <= LIMIT * 5 / 4 + Duration::from_millis(5), "{idle:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn neither_idle_time_nor_a_slow_body_counts() {
        let (mut client, server) = tokio::io::duplex(64);
        let exchanges = Exchanges::default();
        let patience = Patience { idle: 10 * LIMIT, ..PATIENCE };
        let mut server = ClientStream::http1(server, exchanges.clone(), patience, Instant::now());
        let mut read = [0; 4];
        client.write_all(b"head").await.unwrap();
        server.read_exact(&mut read).await.unwrap();
        let exchange = exchanges.begin();
        let body = tokio::time::timeout(3 * LIMIT, server.read(&mut read)).await;
        assert!(body.is_err(), "a slow body is the request timeout's business");
        client.write_all(b"body").await.unwrap();
        server.read_exact(&mut read).await.unwrap();
        drop(exchange);
        let idle = tokio::time::timeout(3 * LIMIT, server.read(&mut read)).await;
        assert!(idle.is_err(), "idle time has a limit of its own");
        client.write_all(b"next").await.unwrap();
        server.read_exact(&mut read).await.unwrap();
        let next_head = tokio::time::timeout(3 * LIMIT, server.read(&mut read)).await;
        assert!(next_head.unwrap().is_err(), "the next head is timed again");
    }
}
