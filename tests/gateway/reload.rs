//! The configuration file changes while the gateway runs.

use super::backend::Backend;
use super::http;
use super::stage::{Stage, settings};
use super::{CHAT, DONE, LAST, TINY_STREAM, TOKEN, wait_until};

/// Writes the configuration with these aliases.
fn write(stage: &Stage, backend: &Backend, more: &str) {
    let port = backend.port;
    stage.write_config(&format!(
        "[ollama_server]\nport = {port}\ncommand = [\"/bin/sh\"]\n\n[aliases]\nfast = \"tiny\"\n{more}\n"
    ));
}

#[test]
fn streams_live_through_reloads() {
    let backend = Backend::running(|_, _| {});
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    backend.set_script(move |request, stream| {
        if !request.text().contains("stream") {
            return http::respond(stream, 200, "{}");
        }
        http::begin_stream(stream);
        http::chunk(stream, TOKEN);
        gate.lock().expect("no panic").recv().expect("the test goes on");
        for data in [LAST, DONE, ""] {
            http::chunk(stream, data);
        }
    });
    let stage = Stage::new(&backend, settings());
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| http::exchange(stage.port, &http::post(CHAT, TINY_STREAM)));
        wait_until("it streams", || backend.requests().len() == 1);
        let is_known = |model: &str| http::get(stage.port, &format!("/v1/models/{model}")).status() == 200;
        for alias in ["one", "two"] {
            assert!(!is_known(alias));
            write(&stage, &backend, &format!("{alias} = \"tiny\""));
            wait_until("the alias is known", || is_known(alias));
        }
        write(&stage, &backend, "three = 3");
        wait_until("the broken file was read", || {
            stage.events().iter().any(|event| event.contains("ConfigChanged { ok: false"))
        });
        assert!(is_known("two"));
        go.send(()).expect("it waits");
        let response = stream.join().expect("no panic");
        assert!(response.is_whole);
        assert_eq!(response.text(), format!("{TOKEN}{LAST}{DONE}"));
    });
}

#[test]
fn own_port_of_a_service_changes_nothing() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, "{}"));
    let stage = Stage::new(&backend, settings());
    let port = stage.port;
    write(&stage, &backend, &format!("\n[mlx_server]\nport = {port}"));
    wait_until("it was read", || {
        stage.events().iter().any(|event| event.contains("has the address of the gateway"))
    });
    assert_eq!(http::get(stage.port, "/v1/models/fast").status(), 200);
}

/// Other machines would need no token any more.
#[test]
fn removed_token_changes_nothing_beyond_loopback() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, "{}"));
    let (host, token) = ("0.0.0.0".to_owned(), "secret".to_owned());
    let stage = Stage::new(&backend, fusion::core::config::GatewaySettings { host, token, ..settings() });
    write(&stage, &backend, "");
    wait_until("it was read", || {
        stage.events().iter().any(|event| event.contains("`gateway.token` is not set"))
    });
    assert_eq!(http::get(stage.port, "/v1/models").status(), 401);
    write(&stage, &backend, "[gateway]\ntoken = \"another\"\n");
    let status = |token: &str| {
        let request = format!("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nx-api-key: {token}\r\n\r\n");
        http::exchange(stage.port, &request).status()
    };
    wait_until("the other token is known", || status("another") == 200);
    assert_eq!(status("secret"), 401);
}
