//! Many requests, at the worst moments: nothing is lost, and nothing is left behind.

use std::io::Read as _;
use std::net::Shutdown;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fusion::core::config::{GatewaySettings, IdleStop};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::backend::Backend;
use super::http;
use super::ports::Port;
use super::stage::{Stage, settings};
use super::{CHAT, DONE, LAST, Numbers, TINY, TINY_STREAM, TOKEN, rounds, wait_until};

/// `fusion serve` as a process of its own, whose memory and descriptors can be seen.
struct Served {
    port: Port,
    child: Child,
    _directory: TempDir,
}

impl Served {
    fn before(backend: &Backend) -> Self {
        let (directory, port) = (TempDir::new().expect("a temporary directory"), Port::free());
        let text = format!(
            "[ollama_server]\nport = {}\n[mlx_server]\nport = 1\n[llama_server]\nport = 2\n\
             [gateway]\nport = {}\n[aliases]\nfast = \"tiny\"\n",
            backend.port,
            port.number()
        );
        std::fs::write(directory.path().join("config.toml"), text).expect("its own directory");
        let child = Command::new(env!("CARGO_BIN_EXE_fusion"))
            .arg("serve")
            .env("FUSION_CONFIG_DIR", directory.path())
            .env("HOME", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let served = Self { port, child, _directory: directory };
        wait_until("it listens", || std::net::TcpStream::connect(("127.0.0.1", served.port())).is_ok());
        served
    }

    fn port(&self) -> u16 {
        self.port.number()
    }

    /// Returns how many requests it answers.
    fn in_flight(&self) -> String {
        let text = http::get(self.port(), "/metrics").text();
        let line = text.lines().find(|line| line.starts_with("fusion_in_flight{service=\"ollama\"}"));
        line.unwrap_or_default().rsplit(' ').next().unwrap_or_default().to_owned()
    }

    /// Returns how many descriptors it has open, where the system tells.
    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// Returns a figure of its memory in KiB, where the system tells.
    fn memory(&self, figure: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself, which fails the test elsewhere.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// A few tokens, then the end; the client may have left long before.
fn streaming() -> Backend {
    Backend::running(|request, stream| {
        http::begin_stream(stream);
        let tokens = if request.text().contains("endless") { usize::MAX } else { 20 };
        for _ in 0..tokens {
            if std::io::Write::write_all(stream, format!("{:x}\r\n{TOKEN}\r\n", TOKEN.len()).as_bytes())
                .is_err()
            {
                return;
            }
        }
        for data in [LAST, DONE, ""] {
            http::chunk(stream, data);
        }
    })
}

/// Returns any request, and how much of its answer may be read: some answers have no end.
fn any_request(numbers: &mut Numbers) -> (String, u64) {
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n\r\n");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let endless = TINY_STREAM.replace("[]", "[\"endless\"]");
    match numbers.below(12) {
        0..=3 => (http::post(CHAT, TINY_STREAM), 1500),
        4 | 5 => (http::post(CHAT, &endless), 1500),
        6 => (http::post("/v1/messages", &TINY_STREAM.replace("[]", "[],\"max_tokens\":1")), 1500),
        7 => (http::post(CHAT, "{\"model\":\"none\"}"), 100),
        8 => {
            let paths = ["/", "/health", "/metrics", "/v1/models", "/api/instances", "/nothing"];
            let path = paths[usize::try_from(numbers.below(6)).expect("it is small")];
            (get(path, "Connection: close"), 1500)
        }
        9 => (get("/api/events", "Accept: text/event-stream"), 100),
        10 => (get("/ws", upgrade), 100),
        _ => (http::post(CHAT, "{\"model\":"), 100),
    }
}

/// Sends requests of all kinds and leaves each at some point, in one of the ways in which clients leave.
fn cut_requests(port: u16, count: usize, seed: u64) {
    let mut numbers = Numbers(seed);
    for _ in 0..count {
        let mut client = http::connect(port);
        let (request, readable) = any_request(&mut numbers);
        let sent = if numbers.below(8) == 0 {
            usize::try_from(numbers.below(request.len() as u64)).expect("it is short")
        } else {
            request.len()
        };
        http::write(&mut client, &request[..sent]);
        let wanted = usize::try_from(numbers.below(readable)).expect("it is small");
        let (mut read, mut some) = (0, [0; 512]);
        while sent == request.len() && read < wanted {
            match client.read(&mut some) {
                Ok(count) if count > 0 => read += count,
                _ => break,
            }
        }
        match numbers.below(3) {
            0 => http::reset(&client),
            1 => drop(client.shutdown(Shutdown::Write)),
            _ => {}
        }
    }
}

#[test]
fn requests_cut_at_random_leave_nothing() {
    let backend = streaming();
    let served = Served::before(&backend);
    let crowd = |count: usize, seed: u64| {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let port = served.port();
                scope.spawn(move || cut_requests(port, count / 4, seed + thread));
            }
        });
        wait_until("all are over", || served.in_flight() == "0");
    };
    crowd(100, 1);
    // Kept connections go after a second.
    wait_until("only the listener is left", || {
        let before = served.descriptors();
        std::thread::sleep(Duration::from_millis(1100));
        served.descriptors() == before
    });
    let (descriptors, memory) = (served.descriptors(), served.memory("VmRSS"));
    crowd(rounds(200), 1000);
    wait_until("no descriptor is left", || served.descriptors() <= descriptors);
    let more = served.memory("VmRSS").saturating_sub(memory);
    assert!(more < 2048, "{more} KiB more than {memory}");
    assert_eq!(http::exchange(served.port(), &http::post(CHAT, TINY)).status(), 200);
}

#[test]
fn idle_streams_take_little_memory() {
    const STREAMS: usize = 200;
    let backend = Backend::running(|_, stream| {
        http::begin_stream(stream);
        http::chunk(stream, TOKEN);
        while !matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)) {}
    });
    let served = Served::before(&backend);
    let open = || {
        let mut client = http::connect(served.port());
        http::write(&mut client, &http::post(CHAT, TINY_STREAM));
        let mut read = Vec::new();
        while !read.ends_with(TOKEN.as_bytes()) && !read.ends_with(format!("{TOKEN}\r\n").as_bytes()) {
            let mut some = [0; 512];
            let count = client.read(&mut some).expect("it streams");
            assert!(count > 0, "{}", String::from_utf8_lossy(&read));
            read.extend_from_slice(&some[..count]);
        }
        client
    };
    let first = open();
    let before = served.memory("VmRSS");
    let others: Vec<_> = (1..STREAMS).map(|_| open()).collect();
    let each = served.memory("VmRSS").saturating_sub(before) / others.len();
    drop(first);
    // Without the optimizations of a release, a future is larger than it must be.
    assert!(each <= 30, "{each} KiB");
}

#[test]
fn requests_around_the_idle_stop_all_succeed() {
    let idle_timeout = IdleStop::After(Duration::from_millis(2));
    let backend = Backend::stopped(|_, stream| http::respond(stream, 200, "{}"));
    let stage = Stage::new(&backend, GatewaySettings { idle_timeout, ..settings() });
    let mut numbers = Numbers(7);
    let count = rounds(100);
    for round in 0..count {
        let response = http::exchange(stage.port, &http::post(CHAT, TINY));
        assert_eq!(response.status(), 200, "round {round}: {}", response.text());
        std::thread::sleep(Duration::from_micros(1000 + numbers.below(3000)));
    }
    let starts = stage.driver.starts();
    assert!(starts > count / 20, "it was stopped in between: {starts} starts");
    assert_eq!(backend.requests().len(), count, "each request was sent once");
}

/// The order is what is asserted: each answer comes while other streams flow and break off.
#[test]
fn health_is_answered_while_large_streams_are_dropped() {
    const STREAMS: usize = 30;
    let backend = streaming();
    let stage = Stage::new(&backend, settings());
    let (flowing, may_drop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..STREAMS {
            scope.spawn(|| {
                let mut client = http::connect(stage.port);
                http::write(&mut client, &http::post(CHAT, &TINY_STREAM.replace("[]", "[\"endless\"]")));
                let mut some = vec![0; 64 * 1024];
                let mut is_counted = false;
                while !may_drop.load(Ordering::SeqCst) {
                    assert!(client.read(&mut some).expect("it flows") > 0);
                    if !std::mem::replace(&mut is_counted, true) {
                        flowing.fetch_add(1, Ordering::SeqCst);
                    }
                }
                flowing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        wait_until("all flow", || flowing.load(Ordering::SeqCst) == STREAMS);
        let mut client = http::connect(stage.port);
        let mut is_answered = || {
            http::write(&mut client, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
            http::read(&mut client, false).expect("a response").status() == 200
        };
        for _ in 0..3 {
            assert!(is_answered());
        }
        assert_eq!(flowing.load(Ordering::SeqCst), STREAMS);
        may_drop.store(true, Ordering::SeqCst);
        while flowing.load(Ordering::SeqCst) > 0 {
            assert!(is_answered());
        }
        assert!(is_answered());
    });
}

/// An alias changes the body, which is not copied for that.
#[test]
fn large_body_is_held_once() {
    const SIZE: usize = 60 * 1024 * 1024;
    let backend = Backend::running(|_, stream| http::respond(stream, 200, "{}"));
    let served = Served::before(&backend);
    assert_eq!(http::exchange(served.port(), &http::post(CHAT, "{\"model\":\"fast\"}")).status(), 200);
    let before = served.memory("VmHWM");
    let body = format!("{{\"model\":\"fast\",\"prompt\":\"{}\"}}", "x".repeat(SIZE));
    assert_eq!(http::exchange(served.port(), &http::post(CHAT, &body)).status(), 200);
    let more = served.memory("VmHWM").saturating_sub(before);
    assert!(more < SIZE / 1024 * 5 / 4, "{more} KiB more than {before}");
    assert_eq!(backend.requests().pop().expect("a request").json()["model"], "tiny");
}

/// Neither what passes unread nor an answer whose usage is read.
#[test]
fn large_answer_is_never_held() {
    const PIECES: usize = 64;
    let backend = Backend::running(|request, stream| {
        let content_type = if request.text().contains("sound") { "audio/mpeg" } else { "application/json" };
        let length = PIECES << 20;
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n");
        http::write(stream, &head);
        (0..PIECES).for_each(|_| http::write(stream, &"x".repeat(1 << 20)));
    });
    let served = Served::before(&backend);
    assert_eq!(http::get(served.port(), "/v1/models/fast").status(), 200);
    let before = served.memory("VmHWM");
    for body in [TINY, r#"{"model":"tiny","input":"sound"}"#] {
        let mut client = http::connect(served.port());
        http::write(&mut client, &http::post(CHAT, body));
        let (mut count, mut some) = (0, vec![0; 1 << 16]);
        // A client that is slower than the server.
        while count < PIECES << 20 {
            std::thread::sleep(Duration::from_micros(100));
            let read = client.read(&mut some).expect("it flows");
            assert!(read > 0, "{count} bytes came");
            count += read;
        }
    }
    let more = served.memory("VmHWM").saturating_sub(before);
    assert!(more < 4096, "{more} KiB more than {before}");
}
