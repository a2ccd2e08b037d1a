//! A client's connection as hyper sees it: slow heads are cut, and closing lingers.
//!
//! hyper's `header_read_timeout` counts the idle time before a request too, so one value would
//! either close idle connections under a load balancer's feet or leave slow clients connected for
//! as long as idle ones. This wrapper counts from the first byte of a head instead; hyper's own
//! timer then serves as the limit on idle time.
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

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// Counts a connection's requests: even between two requests, odd while one is being served.
#[derive(Debug, Clone, Default)]
pub(super) struct Exchanges(Arc<AtomicU64>);

impl Exchanges {
    pub(super) fn begin(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number that stays the same for as long as no further request's head is complete.
    fn current(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection whose reads fail with `TimedOut` when a head takes longer than `limit`.
pub(super) struct ClientStream<T> {
    io: T,
    exchanges: Exchanges,
    limit: Duration,
    /// The number of exchanges when the last bytes came in between two of them.
    head_since: Option<u64>,
    deadline: Option<(u64, Pin<Box<Sleep>>)>,
    linger: Option<Pin<Box<Sleep>>>,
}

/// How long a closing connection is read on.
const LINGER: Duration = Duration::from_secs(2);

impl<T> ClientStream<T> {
    /// `accepted` is when the connection began: its first head is counted from there.
    pub(super) fn new(io: T, exchanges: Exchanges, limit: Duration, accepted: Instant) -> Self {
        let first = Box::pin(tokio::time::sleep_until(accepted + limit));
        Self { io, exchanges, limit, head_since: Some(0), deadline: Some((0, first)), linger: None }
    }

    fn is_too_slow(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.exchanges.current();
        if self.head_since != Some(now) {
            self.deadline = None;
            return false;
        }
        let limit = self.limit;
        let fresh = || (now, Box::pin(tokio::time::sleep(limit)));
        let (since, sleep) = self.deadline.get_or_insert_with(fresh);
        if *since != now {
            (*since, *sleep) = fresh();
        }
        sleep.as_mut().poll(cx).is_ready()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ClientStream<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            // Only a read that has to wait for more can be a slow one: a request that arrives in
            // one piece never touches a timer.
            Poll::Pending if this.is_too_slow(cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => {
                let between_requests = this.exchanges.current().is_multiple_of(2);
                if between_requests && buf.filled().len() > before {
                    this.head_since = Some(this.exchanges.current());
                }
                Poll::Ready(result)
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        }
        let mut discarded = [0; 4096];
        loop {
            let linger = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
            if linger.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut discarded);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_dribbled_head_fails_at_the_limit_however_many_bytes_come() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = ClientStream::new(server, Exchanges::default(), LIMIT, Instant::now());
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
            let mut server = ClientStream::new(server, Exchanges::default(), LIMIT, Instant::now());
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
    async fn neither_idle_time_nor_a_slow_body_counts() {
        let (mut client, server) = tokio::io::duplex(64);
        let exchanges = Exchanges::default();
        let mut server = ClientStream::new(server, exchanges.clone(), LIMIT, Instant::now());
        let mut read = [0; 4];
        client.write_all(b"head").await.unwrap();
        server.read_exact(&mut read).await.unwrap();
        exchanges.begin();
        let body = tokio::time::timeout(3 * LIMIT, server.read(&mut read)).await;
        assert!(body.is_err(), "a slow body is the request timeout's business");
        client.write_all(b"body").await.unwrap();
        server.read_exact(&mut read).await.unwrap();
        exchanges.end();
        let idle = tokio::time::timeout(3 * LIMIT, server.read(&mut read)).await;
        assert!(idle.is_err(), "idle time is the keep-alive timeout's business");
        client.write_all(b"next").await.unwrap();
        server.read_exact(&mut read).await.unwrap();
        let next_head = tokio::time::timeout(3 * LIMIT, server.read(&mut read)).await;
        assert!(next_head.unwrap().is_err(), "the next head is timed again");
    }
}
