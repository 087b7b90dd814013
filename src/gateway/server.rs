//! The server: its socket, its connections, its signals.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::state::{Gateway, Setup};
use super::task;
use super::{keeper, observer, reload, router, supervise};
use crate::app::{App, ServeError};
use crate::core::address::Address;
use crate::core::buffers;

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum size of the head of a request, and of what is read of a body at once.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4096;

/// How many tasks have their turn before new requests are noticed: each may pass some tens of kilobytes.
const MAX_TURNS: u32 = 16;

/// How often idle connections and services are checked.
const TICK: Duration = Duration::from_secs(1);

/// How long no connection is accepted when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Maximum number of descriptors to request; macOS grants 10,240.
const MAX_DESCRIPTORS: u64 = 1 << 20;
const FEWER_DESCRIPTORS: u64 = 10_240;

/// A gateway that listens.
pub struct GatewayServer {
    runtime: Runtime,
    listener: TcpListener,
    gateway: Arc<Gateway>,
    /// The version of the configuration file before it listened: what is written from then on is another one.
    version: Option<reload::Version>,
}

/// Serves until a signal ends it; returns the signal's number. `announce` is called once it listens.
pub fn serve(app: App, announce: &mut dyn FnMut(&Address)) -> Result<i32, ServeError> {
    buffers::separate();
    let server = GatewayServer::bind(app)?;
    raise_descriptor_limit();
    announce(&server.address());
    Ok(server.run_until(ending_signal()))
}

/// Waits for a signal that ends the gateway, and returns its number.
async fn ending_signal() -> i32 {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()];
    // Without a handler, a signal ends the process by itself.
    let mut handlers: Vec<_> =
        kinds.into_iter().filter_map(|kind| Some((kind.as_raw_value(), signal(kind).ok()?))).collect();
    std::future::poll_fn(|context| {
        for (number, handler) in &mut handlers {
            if handler.poll_recv(context).is_ready() {
                return std::task::Poll::Ready(*number);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

impl GatewayServer {
    /// Listens as the configuration of the app says.
    pub fn bind(app: App) -> Result<Self, ServeError> {
        let address = app.config.gateway.address();
        app.check_gateway(&address)?;
        let version = reload::version(&app.paths.config_file());
        let mut builder = Builder::new_current_thread();
        let runtime = builder.event_interval(MAX_TURNS).enable_all().build().map_err(ServeError::Runtime)?;
        let listener = runtime.block_on(listen(&app, &address))?;
        let port = listener.local_addr().map_or(address.port, |bound| bound.port());
        let gateway = Arc::new(Gateway::new(Setup::new(app, Address { port, ..address })));
        Ok(Self { runtime, listener, gateway, version })
    }

    /// Returns where it listens.
    pub fn address(&self) -> Address {
        self.gateway.setup().guard.bound.clone()
    }

    /// Serves until `end` is ready. Open streams break off then; services live on.
    pub fn run_until<T>(self, end: impl Future<Output = T>) -> T {
        let Self { runtime, listener, gateway, version } = self;
        let ended = runtime.block_on(async {
            task::start(accept(listener, Arc::clone(&gateway)));
            task::start(tick(Arc::clone(&gateway), version));
            keeper::adopt(&gateway).await;
            task::start(observer::observe(Arc::clone(&gateway)));
            task::start(keeper::keep(gateway));
            end.await
        });
        // A start that goes on is found by its record.
        runtime.shutdown_background();
        ended
    }
}

async fn listen(app: &App, address: &Address) -> Result<TcpListener, ServeError> {
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::AddrInUse {
            let listener =
                app.driver.listener(address, None).unwrap_or(crate::core::process::Listener::Unknown);
            let spare = app.spare_gateway_port(address);
            return ServeError::PortInUse { address: address.clone(), spare, listener };
        }
        ServeError::Listen { address: address.clone(), source }
    };
    let host = if address.host.eq_ignore_ascii_case("localhost") { "127.0.0.1" } else { &address.host };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for candidate in tokio::net::lookup_host((host, address.port)).await.map_err(failed)? {
        match listen_at(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Returns how clients are spoken to, which may take so long to send the head of a request.
fn protocol(header_timeout: Duration) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        // A client that closes its sending half is gone.
        .half_close(false)
        .max_buf_size(MAX_HEAD_BYTES)
        // A piece of an answer is small: copied behind its frame, it needs no list of buffers.
        .writev(false);
    protocol
}

async fn accept(listener: TcpListener, gateway: Arc<Gateway>) {
    let protocol = protocol(HEADER_TIMEOUT);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => serve_client(&protocol, stream, Arc::clone(&gateway)),
            // The client has left already, or descriptors are short.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

fn serve_client(protocol: &http1::Builder, stream: TcpStream, gateway: Arc<Gateway>) {
    // A token must not wait for the next one.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(move |request| {
        // Each of the futures that pass it on has room for its own.
        let (gateway, request) = (Arc::clone(&gateway), Box::new(request));
        // Boxed, so its memory is free while a stream runs: hyper keeps the place of the future itself.
        Box::pin(async move { Ok::<_, Infallible>(router::answer(gateway, request).await) })
    });
    let served = protocol.serve_connection(TokioIo::new(stream), service).with_upgrades();
    // The client sees a failure itself. An async block would hold the place of the future twice.
    task::start(served.map(drop));
}

/// Checks the connections and the configuration file at intervals; the file also after SIGHUP.
async fn tick(gateway: Arc<Gateway>, mut version: Option<reload::Version>) {
    let path = gateway.setup().app.paths.config_file();
    let mut hangup = signal(SignalKind::hangup()).ok();
    loop {
        let asked = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        let is_asked = tokio::time::timeout(TICK, asked).await.is_ok();
        gateway.pool.close_old();
        supervise::tend(&gateway).await;
        let now = reload::version(&path);
        // A file that is gone is about to be replaced.
        if is_asked || (now.is_some() && now != version) {
            let own = Arc::clone(&gateway);
            // A thread that could not be started is one failure of many.
            let _ = task::blocking(move || reload::reload(&own)).await;
            version = now;
        }
    }
}

/// Raises the limit of open descriptors as far as permitted: each stream needs two. Services keep the limit with
/// which this process was started.
fn raise_descriptor_limit() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    for wanted in [MAX_DESCRIPTORS.min(hard), FEWER_DESCRIPTORS] {
        if wanted <= soft || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::body::ResponseBody;
    use hyper::Response;
    use std::io::{Read as _, Write as _};

    /// A client that sends the head of a request in two parts, between which nothing is sent for long.
    #[test]
    fn slow_head_of_a_request_ends_its_connection() {
        let limit = Duration::from_millis(20);
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let client = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).expect("it listens");
            let mut read = |bytes: &[u8]| {
                stream.write_all(bytes).expect("it is open");
                let mut response = vec![0; 1024];
                let length = stream.read(&mut response).expect("a socket");
                response.truncate(length);
                String::from_utf8_lossy(&response).into_owned()
            };
            let whole = read(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            (whole, read(b"GET / HTTP/1.1\r\nHo"))
        });
        runtime.block_on(async {
            let (stream, _) = listener.accept().await.expect("a client");
            let answer = service_fn(async |_| {
                // An answer has no limit of time.
                tokio::time::sleep(3 * limit).await;
                Ok::<_, Infallible>(Response::new(ResponseBody::empty()))
            });
            let served = protocol(limit).serve_connection(TokioIo::new(stream), answer).await;
            assert!(served.expect_err("it took too long").is_timeout());
        });
        let (whole, part) = client.join().expect("no panic");
        assert!(whole.starts_with("HTTP/1.1 200 "), "{whole}");
        assert_eq!(part, "");
    }
}
