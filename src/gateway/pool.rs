//! Connections to the model servers: each carries one request after the other, and is kept for a second.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::seats::Upstream;
use crate::core::address::Address;

/// How long a connection may be idle before it is not used again: servers close theirs at any moment.
const MAX_IDLE: Duration = Duration::from_secs(1);

/// How long a connection may take to be made. A local server that does not refuse it at once has it in its queue.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of a response is read at once at most. A larger buffer serves one stream at the cost of the others.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// Maximum size of a request body that is copied behind its head: so a connection holds no list of buffers.
const MAX_COPIED_BYTES: usize = 4 * 1024;

/// The idle connections, in the order in which they became idle.
#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<(Instant, Connection)>>,
}

/// The task that reads and writes on a connection.
type Driver = http1::Connection<TokioIo<TcpStream>, Pieces>;

/// One connection to a server. Dropping it closes the connection, so the server stops generating.
///
/// The reader of the response drives it: no other task has to be woken for each piece of the response.
pub(super) struct Connection {
    sender: SendRequest<Pieces>,
    /// `None` once the connection has ended.
    driver: Option<Pin<Box<Driver>>>,
    server: Arc<Upstream>,
    /// Whether it has carried a request before.
    is_reused: bool,
    /// Whether it ended in the middle of a head.
    has_part: bool,
    /// Whether it copies bodies, so it takes small ones only.
    is_copying: bool,
}

/// The body of a request: known bytes, in pieces that share one buffer.
#[derive(Debug, Clone)]
pub(super) struct Pieces(Vec<Bytes>);

/// Makes the request, once for each time that it is sent.
pub(super) type Outgoing<'a> = &'a (dyn Fn() -> Request<Pieces> + Sync);

/// Why there is no response.
#[derive(Debug)]
pub(super) enum SendError {
    /// No connection could be made.
    Connect(io::Error),
    /// The server closed the connection, or did not speak HTTP.
    NoResponse(hyper::Error),
}

impl Pool {
    /// Sends the request, whose body has `length` bytes, and returns the response, as soon as its head is here. A kept
    /// connection that fails without an answer was closed by the server just then: the request is sent once more, on a
    /// new one.
    pub(super) async fn send(
        &self,
        server: &Arc<Upstream>,
        length: usize,
        outgoing: Outgoing<'_>,
    ) -> Result<(Response<Incoming>, Connection), SendError> {
        let is_small = length <= MAX_COPIED_BYTES;
        let mut kept = self.take(server, is_small);
        loop {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Box::pin(connect(Arc::clone(server), is_small)).await.map_err(SendError::Connect)?,
            };
            match connection.send(outgoing).await {
                Ok(response) => return Ok((response, connection)),
                Err(_) if connection.is_reused && !connection.has_part => {}
                Err(error) => return Err(SendError::NoResponse(error)),
            }
        }
    }

    /// Keeps a connection whose response has been read to its end.
    pub(super) fn keep(&self, mut connection: Connection) {
        connection.is_reused = true;
        self.idle().push((Instant::now(), connection));
    }

    /// Closes the connections that nothing has used for a while.
    pub(super) fn close_old(&self) {
        self.idle().retain(|(since, connection)| connection.can_be_used(*since));
    }

    fn take(&self, server: &Upstream, is_small: bool) -> Option<Connection> {
        let mut idle = self.idle();
        let fits = |connection: &Connection| {
            connection.server.host == server.host && (is_small || !connection.is_copying)
        };
        loop {
            let last = idle.iter().rposition(|(_, connection)| fits(connection))?;
            let (since, connection) = idle.remove(last);
            if connection.can_be_used(since) {
                return Some(connection);
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Instant, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn can_be_used(&self, idle_since: Instant) -> bool {
        idle_since.elapsed() < MAX_IDLE && !self.sender.is_closed()
    }

    /// Reads and writes as far as possible.
    pub(super) fn drive(&mut self, context: &mut Context<'_>) {
        // The request reports the same failure.
        if let Some(mut driver) = self.driver.take() {
            if driver.as_mut().poll(context).is_pending() {
                self.driver = Some(driver);
            } else {
                self.has_part = !Pin::into_inner(driver).into_parts().read_buf.is_empty();
            }
        }
    }

    async fn send(&mut self, outgoing: Outgoing<'_>) -> Result<Response<Incoming>, hyper::Error> {
        if self.is_reused {
            let ready = std::future::poll_fn(|context| {
                self.drive(context);
                self.sender.poll_ready(context)
            });
            if let Err(error) = ready.await {
                // What came before the request is no part of its answer.
                self.has_part = false;
                return Err(error);
            }
        }
        let mut response = std::pin::pin!(self.sender.send_request(outgoing()));
        std::future::poll_fn(|context| {
            self.drive(context);
            response.as_mut().poll(context)
        })
        .await
    }
}

async fn connect(server: Arc<Upstream>, is_copying: bool) -> io::Result<Connection> {
    let dialled = server.endpoint.address.dial();
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, open(&dialled));
    let stream = connected.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // A token must not wait for the next one.
    stream.set_nodelay(true)?;
    let mut builder = http1::Builder::new();
    let handshake =
        builder.max_buf_size(MAX_BUFFER_BYTES).writev(!is_copying).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(io::Error::other)?;
    let driver = Some(Box::pin(connection));
    Ok(Connection { sender, driver, server, is_reused: false, has_part: false, is_copying })
}

/// Connects to a server. `localhost` is tried in the order in which servers bind it.
async fn open(address: &Address) -> io::Result<TcpStream> {
    let is_local = address.host.eq_ignore_ascii_case("localhost");
    let hosts = if is_local { ["127.0.0.1", "::1"].as_slice() } else { &[address.host.as_str()] };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for host in hosts {
        match TcpStream::connect((*host, address.port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Pieces {
    pub(super) fn new(pieces: Vec<Bytes>) -> Self {
        let mut pieces = pieces;
        pieces.retain(|piece| !piece.is_empty());
        // The first one is taken from the end.
        pieces.reverse();
        Self(pieces)
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.pop().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::services::{Endpoint, StartedBy};
    use std::io::{Read as _, Write as _};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Returns a server that answers every read with `{}`, and how many connections it got.
    fn answering() -> (Arc<Upstream>, Arc<AtomicUsize>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = Address {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().expect("it is bound").port(),
        };
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    while stream.read(&mut [0; 1024]).is_ok_and(|length| length > 0) {
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")?;
                    }
                    std::io::Result::Ok(())
                });
            }
        });
        let endpoint = Endpoint { address, pid: None, model: None, started_by: StartedBy::Other };
        (Arc::new(Upstream::new(endpoint, None)), connections)
    }

    /// Sends a request, reads the answer, and returns the connection to the pool.
    async fn exchange(pool: &Pool, server: &Arc<Upstream>) {
        let outgoing = || Request::new(Pieces::new(Vec::new()));
        let (response, mut connection) = pool.send(server, 0, &outgoing).await.expect("a response");
        let mut body = response.into_body();
        let next = |context: &mut Context<'_>| {
            connection.drive(context);
            Pin::new(&mut body).poll_frame(context)
        };
        let frame = std::future::poll_fn(next).await.expect("a frame").expect("it is whole");
        assert_eq!(frame.into_data().expect("data"), "{}");
        pool.keep(connection);
    }

    #[test]
    fn connection_is_used_again_for_a_second_only() {
        let (server, connections) = answering();
        let pool = Pool::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let set_idle = |time: Duration| {
                let since = Instant::now().checked_sub(time).expect("the clock is older than that");
                pool.idle().iter_mut().for_each(|(idle_since, _)| *idle_since = since);
            };
            exchange(&pool, &server).await;
            // An hour ahead: a slow machine must not end the second.
            pool.idle()[0].0 += Duration::from_secs(3600);
            exchange(&pool, &server).await;
            assert_eq!((connections.load(Ordering::SeqCst), pool.idle().len()), (1, 1));
            set_idle(MAX_IDLE);
            exchange(&pool, &server).await;
            assert_eq!((connections.load(Ordering::SeqCst), pool.idle().len()), (2, 1));
            set_idle(MAX_IDLE);
            pool.close_old();
            assert_eq!(pool.idle().len(), 0);
        });
        assert_eq!(MAX_IDLE, Duration::from_secs(1));
    }
}
