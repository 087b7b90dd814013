//! The admin API, the metrics and the page.

use serde_json::json;

use super::backend::Backend;
use super::http::{self, Message};
use super::stage::{Stage, settings};
use super::{CHAT, TINY};

const ANSWER: &str =
    r#"{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":11,"completion_tokens":2}}"#;

fn stage(backend: &Backend) -> Stage {
    Stage::new(backend, settings())
}

fn act(stage: &Stage, path: &str, body: &str) -> Message {
    http::exchange(stage.port, &http::post(path, body))
}

#[test]
fn instances_are_listed_as_ps_shows_them() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    let list = http::get(stage.port, "/api/instances").json();
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ollama", "mlx", "llama"]);
    assert_eq!((&list[0]["state"], &list[0]["started_by"]), (&json!("external"), &json!("other")));
    let one = http::get(stage.port, "/api/instances/ollama").json();
    assert_eq!(one["address"], format!("http://127.0.0.1:{}", backend.port));
    for (query, count) in [
        ("?status=external", 1),
        ("?state=stopped", 2),
        ("?template=mlx", 1),
        ("?template=none", 0),
        ("?tag=x", 0),
        ("?template=ollama&status=stopped", 0),
    ] {
        let list = http::get(stage.port, &format!("/api/instances{query}")).json();
        assert_eq!(list.as_array().unwrap().len(), count, "{query}");
    }
    assert_eq!(http::get(stage.port, "/api/instances?status=busy").status(), 400);
    let unknown = http::get(stage.port, "/api/instances/none");
    assert_eq!(unknown.status(), 404);
    assert!(unknown.json()["error"]["message"].as_str().unwrap().contains("none"));
}

#[test]
fn instance_is_started_and_stopped_when_answered() {
    let backend = Backend::stopped(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    for _ in 0..2 {
        let started = act(&stage, "/api/instances/ollama/start", "");
        assert_eq!(
            (started.status(), &started.json()["state"]),
            (200, &json!("ready")),
            "{}",
            started.text()
        );
    }
    assert_eq!(stage.driver.starts(), 1);
    assert_eq!(act(&stage, CHAT, TINY).status(), 200);
    let restarted = act(&stage, "/api/instances/ollama/restart", "");
    assert_eq!((restarted.status(), stage.driver.starts()), (200, 2), "{}", restarted.text());
    assert_eq!(act(&stage, CHAT, TINY).status(), 200);
    for _ in 0..2 {
        let stopped = act(&stage, "/api/instances/ollama/stop", "");
        assert_eq!(
            (stopped.status(), &stopped.json()["state"]),
            (200, &json!("stopped")),
            "{}",
            stopped.text()
        );
    }
    assert!(!backend.is_listening());
}

#[test]
fn failed_start_says_why() {
    let backend = Backend::stopped(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    stage.driver.fail_next_start();
    let failed = act(&stage, "/api/instances/ollama/start", "");
    assert_eq!(failed.status(), 502, "{}", failed.text());
}

#[test]
fn external_instance_is_not_stopped() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    assert_eq!(act(&stage, "/api/instances/ollama/stop", "").status(), 409);
    assert!(backend.is_listening());
}

#[test]
fn wrong_paths_methods_and_bodies_are_told_apart() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    for (method, path, status) in [
        ("POST", "/api/instances/none/start", 404),
        ("POST", "/api/instances/ollama/explode", 404),
        ("GET", "/api/instances/ollama/start", 405),
        ("POST", "/api/metrics", 405),
        ("DELETE", "/metrics", 405),
        ("GET", "/api/nothing", 404),
        ("GET", "/ws", 426),
        ("POST", "/api/instances/ollama/load", 400),
        ("OPTIONS", "/api/instances", 204),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        let response = http::exchange(stage.port, &request);
        assert_eq!(response.status(), status, "{method} {path}");
        assert_eq!(response.header("allow").is_some(), matches!(status, 405 | 204), "{method} {path}");
    }
}

#[test]
fn log_is_sent_as_text_and_followed() {
    let backend = Backend::stopped(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    assert_eq!(http::get(stage.port, "/api/instances/ollama/log").status(), 404);
    assert_eq!(act(&stage, "/api/instances/ollama/start", "").status(), 200);
    let log = stage.directory.path().join("ollama/ollama.log");
    std::fs::write(&log, "one\ntwo\nthree\n").unwrap();
    let all = http::get(stage.port, "/api/instances/ollama/log");
    assert_eq!(
        (all.text().as_str(), all.header("content-type")),
        ("one\ntwo\nthree\n", Some("text/plain; charset=utf-8"))
    );
    assert_eq!(http::get(stage.port, "/api/instances/ollama/log?lines=1").text(), "three\n");
    assert_eq!(http::get(stage.port, "/api/instances/ollama/log?lines=x").status(), 400);
    let port = stage.port;
    let follower = std::thread::spawn(move || http::get(port, "/api/instances/ollama/log?lines=1&follow=1"));
    std::thread::sleep(std::time::Duration::from_millis(200));
    let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    std::io::Write::write_all(&mut file, b"four\n").unwrap();
    // The end of the server ends it.
    assert_eq!(act(&stage, "/api/instances/ollama/stop", "").status(), 200);
    assert_eq!(follower.join().unwrap().text(), "three\nfour\n");
}

#[test]
fn metrics_count_what_was_asked() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    assert_eq!(act(&stage, CHAT, TINY).status(), 200);
    assert_eq!(act(&stage, CHAT, r#"{"model":"none"}"#).status(), 404);
    let text = http::get(stage.port, "/metrics");
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = text.text();
    for line in [
        r#"fusion_requests_total{service="ollama",outcome="ok"} 1"#,
        r#"fusion_requests_total{service="",outcome="refused"} 1"#,
        r#"fusion_first_byte_seconds_count{service="ollama"} 1"#,
        r#"fusion_in_flight{service="ollama"} 0"#,
        r#"fusion_loaded{service="ollama"} 1"#,
        r#"fusion_starts_total{service="mlx"} 0"#,
        r#"fusion_tokens_total{service="ollama",kind="prompt"} 11"#,
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
    let view = http::get(stage.port, "/api/metrics").json();
    assert_eq!(
        (&view["services"][0]["name"], &view["services"][0]["in_flight"]),
        (&json!("ollama"), &json!(0))
    );
    assert_eq!(view["services"][0]["context_used"], 13);
    assert!(view["machine"]["memory_bytes"].as_u64().is_some());
}

#[test]
fn page_has_a_strict_policy() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    let page = http::get(stage.port, "/");
    assert!(page.text().starts_with("<!doctype html>"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let tag = page.header("etag").unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {tag}\r\n\r\n");
    let again = http::exchange(stage.port, &request);
    assert_eq!((again.status(), again.body.len()), (304, 0));
}

/// A gateway whose configuration is a file with a template of a program.
fn stage_with_a_file(backend: &Backend) -> Stage {
    let stage = stage(backend);
    let text = format!(
        "[ollama_server]\nport = {}\n\n[mlx_server]\nport = 1\n\n[llama_server]\nport = 2\n\n\
         [templates.fake]\nstart_command = \"/bin/sh\"\n",
        backend.port
    );
    std::fs::write(stage.directory.path().join("config.toml"), text).unwrap();
    super::wait_until("the template is known", || {
        http::get(stage.port, "/api/templates/fake").status() == 200
    });
    stage
}

#[test]
fn instance_is_created_once_and_removed() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage_with_a_file(&backend);
    let body = r#"{"name":"notes","template":"fake","port":3,"tags":["dev"]}"#;
    let created = act(&stage, "/api/instances", body);
    assert_eq!(created.status(), 201, "{}", created.text());
    assert_eq!(created.header("location"), Some("/api/instances/notes"));
    assert_eq!((&created.json()["name"], &created.json()["state"]), (&json!("notes"), &json!("stopped")));
    assert_eq!(act(&stage, "/api/instances", body).status(), 409);
    assert_eq!(http::get(stage.port, "/api/instances?template=fake").json().as_array().unwrap().len(), 1);
    let template = http::get(stage.port, "/api/templates/fake").json();
    assert_eq!(template["instances"], json!(["notes"]));
    let delete = |name: &str| {
        http::exchange(
            stage.port,
            &format!("DELETE /api/instances/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        )
    };
    let file = stage.directory.path().join("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("default_service = \"notes\"\n{text}")).unwrap();
    assert_eq!(delete("notes").status(), 409);
    std::fs::write(&file, text).unwrap();
    assert_eq!(delete("notes").status(), 204);
    assert_eq!(delete("notes").status(), 404);
    assert_eq!(delete("ollama").status(), 409);
}

#[test]
fn bad_instances_are_refused_and_change_nothing() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage_with_a_file(&backend);
    let file = stage.directory.path().join("config.toml");
    let before = std::fs::read(&file).unwrap();
    let cases: serde_json::Value = serde_json::from_str(include_str!("../cases/gateway/cases.json")).unwrap();
    let own_port = json!({ "name": "ok", "template": "mlx", "port": stage.port });
    for body in cases["refused_instances"].as_array().unwrap().iter().chain([&own_port]) {
        let response = act(&stage, "/api/instances", &body.to_string());
        let names = ["command", "args", "env", "start_command"];
        let is_command_line = names.iter().any(|key| body.get(key).is_some());
        let name_is_taken = matches!(body["name"].as_str(), Some("ollama"));
        let expected: &[u16] = if is_command_line {
            &[403]
        } else if name_is_taken {
            &[400, 409]
        } else {
            &[400]
        };
        assert!(expected.contains(&response.status()), "{body}: {} {}", response.status(), response.text());
        assert!(response.json()["error"]["message"].is_string());
    }
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn running_instance_is_not_removed() {
    let backend = Backend::stopped(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    let own = Backend::stopped(|_, stream| http::respond(stream, 200, ANSWER));
    let text = format!(
        "[ollama_server]\nport = 3\n[mlx_server]\nport = 1\n[llama_server]\nport = 2\n\
         [instances.own]\ntemplate = \"ollama\"\nport = {}\ntags = [\"dev\"]\ncommand = [\"/bin/sh\"]\n",
        backend.port
    );
    drop(own);
    std::fs::write(stage.directory.path().join("config.toml"), text).unwrap();
    super::wait_until("it is known", || http::get(stage.port, "/api/instances/own").status() == 200);
    let tagged = http::get(stage.port, "/api/instances?tag=dev").json();
    assert_eq!((tagged.as_array().map(Vec::len), &tagged[0]["name"]), (Some(1), &json!("own")));
    let delete = || {
        let request = "DELETE /api/instances/own HTTP/1.1\r\nHost: localhost\r\n\r\n";
        http::exchange(stage.port, request)
    };
    assert_eq!(act(&stage, "/api/instances/own/start", "").status(), 200);
    let refused = delete();
    assert_eq!(refused.status(), 409, "{}", refused.text());
    assert!(backend.is_listening());
    assert_eq!(act(&stage, "/api/instances/own/stop", "").status(), 200);
    assert_eq!((delete().status(), delete().status()), (204, 404));
}

#[test]
fn templates_and_health_are_told() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    let list = http::get(stage.port, "/api/templates").json();
    let names: Vec<&str> = list.as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["ollama", "mlx", "llama"]);
    assert_eq!(http::get(stage.port, "/api/templates/mlx").json(), list[1]);
    assert_eq!(http::get(stage.port, "/api/templates/none").status(), 404);
    for path in ["/health", "/api/health"] {
        assert_eq!(http::get(stage.port, path).json()["status"], "ok", "{path}");
    }
    // Its own API is another one.
    for path in ["/api/tags", "/api/ps", "/api/version"] {
        assert_eq!(http::get(stage.port, path).status(), 404, "{path}");
    }
    for path in ["/api/generate", "/api/chat", "/api/pull"] {
        assert_eq!(act(&stage, path, TINY).status(), 404, "{path}");
    }
    assert_eq!(backend.requests(), []);
}

/// Each has a thread, which listings and starts need, too.
#[test]
fn readers_of_logs_leave_threads_for_others() {
    let backend = Backend::stopped(|_, stream| http::respond(stream, 200, ANSWER));
    let stage = stage(&backend);
    assert_eq!(act(&stage, "/api/instances/ollama/start", "").status(), 200);
    std::fs::write(stage.directory.path().join("ollama/ollama.log"), "one\n").unwrap();
    let follow = || {
        let mut client = http::connect(stage.port);
        http::write(
            &mut client,
            "GET /api/instances/ollama/log?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        );
        let mut head = [0; 12];
        std::io::Read::read_exact(&mut client, &mut head).unwrap();
        (client, String::from_utf8_lossy(&head).into_owned())
    };
    let mut clients: Vec<_> = std::iter::repeat_with(follow).take(66).collect();
    assert_eq!(clients[0].1, "HTTP/1.1 200");
    assert_eq!(clients[65].1, "HTTP/1.1 503");
    assert_eq!(http::get(stage.port, "/v1/models").status(), 200);
    clients.clear();
    super::wait_until("there is room again", || follow().1 == "HTTP/1.1 200");
}
