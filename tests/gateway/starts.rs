//! Services that a request starts, and that are stopped when nobody uses them.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use fusion::core::config::{GatewaySettings, IdleStop};
use fusion::core::process::mock::MockPlan;
use tempfile::TempDir;

use super::backend::Backend;
use super::http;
use super::programs::write_program;
use super::stage::{Stage, settings};
use super::{CHAT, TINY, TINY_STREAM, wait_until};

fn answering() -> Backend {
    Backend::stopped(|_, stream| http::respond(stream, 200, "{\"ok\":true}"))
}

#[test]
fn request_starts_its_service() {
    let backend = answering();
    let stage = Stage::new(&backend, settings());
    let response = http::exchange(stage.port, &http::post(CHAT, TINY));
    assert_eq!((response.status(), response.text().as_str()), (200, "{\"ok\":true}"));
    assert_eq!(stage.driver.starts(), 1);
}

#[test]
fn twenty_cold_requests_make_one_start() {
    let backend = answering();
    let stage = Stage::new(&backend, settings());
    let mut clients = twenty_clients(&stage);
    for client in &mut clients {
        assert_eq!(http::read(client, false).expect("a response").status(), 200);
    }
    assert_eq!(stage.driver.starts(), 1);
}

/// Returns twenty clients that have asked for the same model.
fn twenty_clients(stage: &Stage) -> Vec<TcpStream> {
    let mut clients: Vec<_> = (0..20).map(|_| http::connect(stage.port)).collect();
    for client in &mut clients {
        http::write(client, &http::post(CHAT, TINY));
    }
    clients
}

#[test]
fn waiter_that_leaves_a_cold_start_ends_nothing() {
    let backend = answering();
    let stage = Stage::new(&backend, settings());
    *stage.driver.listens.lock().expect("no panic") = false;
    let mut clients = twenty_clients(&stage);
    wait_until("it starts", || stage.driver.starts() == 1);
    // Perhaps the one whose request has started it.
    drop(clients.remove(0));
    stage.driver.begin_to_listen(backend.port);
    for client in &mut clients {
        assert_eq!(http::read(client, false).expect("a response").status(), 200);
    }
    assert_eq!((stage.driver.starts(), backend.requests().len()), (1, 19));
}

/// The paths that programs ask for to see whether something answers.
const PROBED: [&str; 6] = ["/health", "/api/health", "/v1/models", "/v1/models/tiny", CHAT, "/nothing"];

#[test]
fn probes_neither_start_anything_nor_count_as_use() {
    let backend = answering();
    let stage = Stage::new(&backend, settings());
    for path in PROBED {
        http::get(stage.port, path);
    }
    assert_eq!(stage.driver.starts(), 0);
}

#[test]
fn head_never_starts_a_model() {
    let backend = answering();
    let stage = Stage::new(&backend, settings());
    for path in PROBED {
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut client = http::connect(stage.port);
        http::write(&mut client, &head);
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut client, &mut bytes).expect("a response");
        assert!(bytes.ends_with(b"\r\n\r\n"), "{path}: {}", String::from_utf8_lossy(&bytes));
    }
    assert_eq!(stage.driver.starts(), 0);
}

#[test]
fn watched_service_is_stopped_when_idle() {
    let idle_timeout = IdleStop::After(Duration::from_millis(300));
    let backend = answering();
    let stage = Stage::new(&backend, GatewaySettings { idle_timeout, ..settings() });
    assert_eq!(http::exchange(stage.port, &http::post(CHAT, TINY)).status(), 200);
    wait_until("it is stopped", || {
        for path in ["/v1/models", "/metrics", "/api/instances/ollama", "/api/metrics"] {
            assert_eq!(http::get(stage.port, path).status(), 200, "{path}");
        }
        !backend.is_listening()
    });
    assert_eq!(stage.driver.starts(), 1);
}

#[test]
fn idle_service_is_stopped_after_its_last_request() {
    let idle_timeout = IdleStop::After(Duration::from_millis(300));
    let backend = answering();
    let own = backend.handle();
    backend.set_script(move |_, stream| {
        // Longer than the idle time, which counts from the end.
        std::thread::sleep(Duration::from_millis(600));
        assert!(own.is_listening(), "it is stopped while it answers");
        http::respond(stream, 200, "{}");
    });
    let stage = Stage::new(&backend, GatewaySettings { idle_timeout, ..settings() });
    assert_eq!(http::exchange(stage.port, &http::post(CHAT, TINY)).status(), 200);
    wait_until("it is stopped", || !backend.is_listening());
    backend.set_script(|_, stream| http::respond(stream, 200, "{}"));
    assert_eq!(http::exchange(stage.port, &http::post(CHAT, TINY)).status(), 200);
    assert_eq!(stage.driver.starts(), 2);
}

#[test]
fn external_service_is_used_and_never_stopped() {
    let idle_timeout = IdleStop::After(Duration::ZERO);
    let backend = answering();
    backend.start();
    let stage = Stage::new(&backend, GatewaySettings { idle_timeout, ..settings() });
    for _ in 0..3 {
        assert_eq!(http::exchange(stage.port, &http::post(CHAT, TINY)).status(), 200);
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(backend.is_listening());
    assert_eq!(stage.driver.starts(), 0);
}

#[test]
fn failed_once_is_not_failed_always() {
    let backend = answering();
    let stage = Stage::new(&backend, settings());
    stage.driver.fail_next_start();
    let first = http::exchange(stage.port, &http::post(CHAT, TINY));
    assert_eq!(first.status(), 502, "{}", first.text());
    assert_eq!(first.header("retry-after"), Some("1"));
    let second = http::exchange(stage.port, &http::post(CHAT, TINY));
    assert_eq!(second.status(), 503, "{}", second.text());
    assert_eq!(second.json()["error"]["message"], first.json()["error"]["message"]);
    assert_eq!(stage.driver.starts(), 1, "no start is tried meanwhile");
    wait_until("it is tried again", || http::exchange(stage.port, &http::post(CHAT, TINY)).status() == 200);
    assert_eq!(stage.driver.starts(), 2);
}

#[test]
fn server_that_died_is_started_anew() {
    let backend = answering();
    let stage = Stage::new(&backend, settings());
    assert_eq!(http::exchange(stage.port, &http::post(CHAT, TINY)).status(), 200);
    for process in stage.driver.mock().living() {
        stage.driver.mock().end(&process, fusion::core::process::Ending::Signal(9));
    }
    backend.stop();
    assert_eq!(http::exchange(stage.port, &http::post(CHAT, TINY)).status(), 200);
    assert_eq!(stage.driver.starts(), 2);
}

/// A server that is told to end closes its port at once, and finishes what it does.
#[test]
fn request_during_a_stop_starts_the_service_again() {
    let backend = answering();
    let driver = Stage::scripted(&backend);
    driver.mock().plan_spawn(MockPlan::runs().ignores_terminate());
    let port = backend.port;
    let text = format!("[ollama_server]\nport = {port}\ncommand = [\"/bin/sh\"]\nstop_timeout = 0.5\n");
    let directory = Arc::new(TempDir::new().expect("a temporary directory"));
    let stage = Stage::in_directory(directory, driver, &text, settings());
    let ask = || http::exchange(stage.port, &http::post(CHAT, TINY)).status();
    assert_eq!(ask(), 200);
    let stop = http::post("/api/instances/ollama/stop", "");
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| http::exchange(stage.port, &stop).status());
        wait_until("its port is closed", || !backend.is_listening());
        assert_eq!(ask(), 200);
        assert_eq!(stopped.join().expect("no panic"), 200);
    });
    assert_eq!(stage.driver.starts(), 2);
}

#[test]
fn comments_keep_clients_of_a_loading_model() {
    let backend = answering();
    backend.set_script(|_, stream| {
        http::begin_stream(stream);
        http::chunk(stream, super::LAST);
        http::chunk(stream, "");
    });
    let stage = Stage::new(&backend, settings());
    *stage.driver.listens.lock().expect("no panic") = false;
    let mut client = http::connect(stage.port);
    http::write(&mut client, &http::post(CHAT, TINY_STREAM));
    let since = std::time::Instant::now();
    std::thread::scope(|scope| {
        let read = scope.spawn(|| http::read(&mut client, false).expect("a response"));
        std::thread::sleep(Duration::from_millis(5500));
        stage.driver.begin_to_listen(backend.port);
        let response = read.join().expect("no panic");
        assert!(response.is_whole);
        assert_eq!(response.text(), format!(": loading\n\n{}", super::LAST));
    });
    assert!(since.elapsed() >= Duration::from_secs(5));
}

/// The tools note in files when they begin and end.
#[test]
fn machine_stays_awake_while_requests_are_answered() {
    let directory = Arc::new(TempDir::new().expect("a temporary directory"));
    let place = |name: &str| directory.path().join(name);
    for tool in ["caffeinate", "systemd-inhibit"] {
        write_program(&place(tool), "#!/bin/sh\ncd \"${0%/*}\"\n: > started\n/bin/cat\n: > ended\n");
    }
    let (started, ended) = (place("started"), place("ended"));
    let ends = ended.clone();
    let backend = Backend::running(move |_, stream| {
        wait_until("the tool runs", || started.exists());
        http::respond(stream, 200, if ends.exists() { "{\"asleep\":true}" } else { "{\"awake\":true}" });
    });
    let text = format!("[ollama_server]\nport = {}\nkeep_awake = \"requests\"\n", backend.port);
    let stage = Stage::in_directory(Arc::clone(&directory), Stage::scripted(&backend), &text, settings());
    let response = http::exchange(stage.port, &http::post(CHAT, TINY));
    assert_eq!(response.text(), "{\"awake\":true}");
    drop(stage);
    wait_until("the tool has ended", || ended.exists());
}

/// The lease is in the body of the response, not in its head.
#[test]
fn stream_keeps_its_service_to_its_end() {
    let idle_timeout = IdleStop::After(Duration::from_millis(200));
    let backend = answering();
    let own = backend.handle();
    backend.set_script(move |_, stream| {
        http::begin_stream(stream);
        http::chunk(stream, super::TOKEN);
        // Longer than the idle time.
        std::thread::sleep(Duration::from_millis(600));
        assert!(own.is_listening(), "it is stopped while it streams");
        for data in [super::LAST, super::DONE, ""] {
            http::chunk(stream, data);
        }
    });
    let stage = Stage::new(&backend, GatewaySettings { idle_timeout, ..settings() });
    let response = http::exchange(stage.port, &http::post(CHAT, TINY_STREAM));
    assert!(response.is_whole);
    assert_eq!(response.text(), format!("{}{}{}", super::TOKEN, super::LAST, super::DONE));
    wait_until("it is stopped", || !backend.is_listening());
    for line in ["fusion_starts_total{service=\"ollama\"} 1", "fusion_idle_stops_total{service=\"ollama\"} 1"]
    {
        wait_until(line, || http::get(stage.port, "/metrics").text().lines().any(|known| known == line));
    }
}

#[test]
fn service_has_its_own_idle_time() {
    let (kept, idle) = (answering(), answering());
    let instance = |name: &str, backend: &Backend, more: &str| {
        let port = backend.port;
        format!("[instances.{name}]\ntemplate = \"ollama\"\nport = {port}\ncommand = [\"/bin/sh\"]\n{more}\n")
    };
    let text = instance("kept", &kept, "idle_timeout = 0") + &instance("idle", &idle, "");
    let idle_timeout = IdleStop::After(Duration::from_millis(100));
    let directory = Arc::new(TempDir::new().expect("a temporary directory"));
    let driver = Stage::scripted_all(&[&kept, &idle]);
    let stage = Stage::in_directory(directory, driver, &text, GatewaySettings { idle_timeout, ..settings() });
    for name in ["kept", "idle"] {
        let body = serde_json::json!({ "model": format!("{name}/tiny") }).to_string();
        assert_eq!(http::exchange(stage.port, &http::post(CHAT, &body)).status(), 200, "{name}");
    }
    wait_until("it is stopped", || !idle.is_listening());
    assert!(kept.is_listening());
}
