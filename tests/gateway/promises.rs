//! What the documentation promises beyond the faults: names, outcomes, times of loading, events.

use std::sync::Arc;
use std::time::Duration;

use fusion::core::process::Ending;
use serde_json::json;
use tempfile::TempDir;

use super::backend::Backend;
use super::http::{self, Message};
use super::stage::{Stage, settings};
use super::{CHAT, TINY, TINY_STREAM, TOKEN, wait_until};

fn in_its_own_directory(backends: &[&Backend], text: &str) -> Stage {
    let directory = Arc::new(TempDir::new().expect("a temporary directory"));
    Stage::in_directory(directory, Stage::scripted_all(backends), text, settings())
}

fn ask(stage: &Stage, path: &str, body: &str) -> Message {
    http::exchange(stage.port, &http::post(path, body))
}

/// If neither runs, the first in the file does.
#[test]
fn running_service_answers_for_a_model_of_two() {
    let answering = |name: &'static str| {
        Backend::stopped(move |_, stream| http::respond(stream, 200, &json!({ "from": name }).to_string()))
    };
    let (one, two) = (answering("one"), answering("two"));
    let text = [("one", &one), ("two", &two)].map(|(name, backend)| {
        let port = backend.port;
        format!("[instances.{name}]\ntemplate = \"ollama\"\nport = {port}\ncommand = [\"/bin/sh\"]\n")
    });
    let stage = in_its_own_directory(&[&one, &two], &text.concat());
    let act = |path: &str| assert_eq!(ask(&stage, &format!("/api/instances/{path}"), "").status(), 200);
    let from = || ask(&stage, CHAT, TINY).json()["from"].clone();
    act("two/start");
    assert_eq!((from(), one.is_listening()), (json!("two"), false));
    act("one/start");
    assert_eq!(from(), "one");
    act("one/stop");
    assert_eq!((from(), one.is_listening()), (json!("two"), false));
}

/// Two services could have the model. Their names are looked up anew for as long as neither is chosen.
#[test]
fn requests_during_a_start_list_nothing_anew() {
    let answering = || Backend::stopped(|_, stream| http::respond(stream, 200, "{}"));
    let (one, two, listed) = (answering(), answering(), answering());
    listed.set_models(&["other"]);
    listed.start();
    let instance = |name: &str, backend: &Backend| {
        let port = backend.port;
        format!("[instances.{name}]\ntemplate = \"ollama\"\nport = {port}\ncommand = [\"/bin/sh\"]\n")
    };
    let text = instance("one", &one) + &instance("two", &two) + &instance("listed", &listed);
    let directory = Arc::new(TempDir::new().expect("a temporary directory"));
    let driver = Stage::scripted_all(&[&one, &two, &listed]);
    let stage = Stage::in_directory(directory, driver, &text, settings());
    *stage.driver.listens.lock().expect("no panic") = false;
    let ask = || {
        let mut client = http::connect(stage.port);
        http::write(&mut client, &http::post(CHAT, r#"{"model":"tiny"}"#));
        client
    };
    let mut clients = vec![ask()];
    wait_until("it starts", || stage.driver.starts() == 1);
    let before = listed.lists();
    clients.extend((0..5).map(|_| ask()));
    // This one is answered behind them.
    assert_eq!(http::exchange(stage.port, &http::post(CHAT, "{}")).status(), 400);
    assert_eq!((listed.lists(), before), (1, 1));
    stage.driver.begin_to_listen(one.port);
    for client in &mut clients {
        assert_eq!(http::read(client, false).expect("a response").status(), 200);
    }
    assert_eq!((one.requests().len(), stage.driver.starts()), (6, 1));
}

#[test]
fn instance_with_a_model_is_a_model_server() {
    let backend = Backend::stopped(|_, stream| http::respond(stream, 200, "{}"));
    let port = backend.port;
    let text = format!(
        "[templates.fake]\nstart_command = \"/bin/sh\"\nhealth_endpoint = \"/api/version\"\n\
         [instances.own]\ntemplate = \"fake\"\nport = {port}\nmodel = \"own-model\"\n\
         env = {{ OLLAMA_HOST = \"127.0.0.1:{port}\" }}\n"
    );
    let stage = in_its_own_directory(&[&backend], &text);
    let listed = http::get(stage.port, "/v1/models/own-model").json();
    assert_eq!((&listed["owned_by"], &listed["status"]), (&json!("own"), &json!("stopped")));
    let response = ask(&stage, CHAT, r#"{"model":"own-model"}"#);
    assert_eq!((response.status(), stage.driver.starts()), (200, 1), "{}", response.text());
}

#[test]
fn model_of_a_form_may_be_an_alias() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, "{}"));
    let stage = Stage::new(&backend, settings());
    let form = |model: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n\0model\r\n--b\r\n\
             Content-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--b--\r\n"
        )
    };
    let body = form("fast");
    let request = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(http::exchange(stage.port, &request).status(), 200);
    assert_eq!(backend.requests().remove(0).text(), form("tiny"));
}

#[test]
fn start_that_is_not_in_time_is_504() {
    let backend = Backend::stopped(|_, _| {});
    let port = backend.port;
    let text = format!("[ollama_server]\nport = {port}\ncommand = [\"/bin/sh\"]\nstartup_timeout = 1\n");
    let stage = in_its_own_directory(&[&backend], &text);
    *stage.driver.listens.lock().expect("no panic") = false;
    let late = ask(&stage, CHAT, TINY);
    assert_eq!(late.status(), 504, "{}", late.text());
    assert_eq!(late.header("retry-after"), Some("1"));
}

#[test]
fn failure_after_comments_is_an_error_event() {
    let backend = Backend::stopped(|_, _| {});
    let stage = Stage::new(&backend, settings());
    *stage.driver.listens.lock().expect("no panic") = false;
    std::thread::scope(|scope| {
        let read = scope.spawn(|| ask(&stage, CHAT, TINY_STREAM));
        // The second comment comes after ten seconds.
        std::thread::sleep(Duration::from_millis(10_500));
        for process in stage.driver.mock().living() {
            stage.driver.mock().end(&process, Ending::Code(3));
        }
        let response = read.join().expect("no panic");
        assert_eq!((response.status(), response.is_whole), (200, false));
        let text = response.text();
        assert!(text.starts_with(": loading\n\n: loading\n\ndata: {\"error\":"), "{text}");
    });
}

#[test]
fn each_outcome_is_counted() {
    let backend = Backend::running(|request, stream| {
        let text = request.text();
        if text.contains("cut") {
            http::begin_stream(stream);
            http::chunk(stream, TOKEN);
            http::chunk(stream, "");
        } else if text.contains("closed") {
            drop(stream.shutdown(std::net::Shutdown::Both));
        } else if text.contains("silent") {
            while !matches!(std::io::Read::read(stream, &mut [0; 64]), Ok(0) | Err(_)) {}
        } else {
            http::respond(stream, 404, "{}");
        }
    });
    let stage = Stage::new(&backend, settings());
    // A whole answer of the server is `ok`, also an error.
    assert_eq!(ask(&stage, CHAT, TINY).status(), 404);
    assert!(!ask(&stage, CHAT, &TINY_STREAM.replace("[]", "\"cut\"")).is_whole);
    assert_eq!(ask(&stage, CHAT, &TINY.replace("[]", "\"closed\"")).status(), 502);
    assert_eq!(ask(&stage, CHAT, "{\"model\":7}").status(), 400);
    let mut client = http::connect(stage.port);
    http::write(&mut client, &http::post(CHAT, &TINY.replace("[]", "\"silent\"")));
    wait_until("the request is there", || backend.requests().len() == 4);
    drop(client);
    let is_counted = |service: &str, outcome: &str| {
        let line = format!("fusion_requests_total{{service=\"{service}\",outcome=\"{outcome}\"}} 1");
        http::get(stage.port, "/metrics").text().lines().any(|known| known == line)
    };
    wait_until("the client is gone", || is_counted("ollama", "client_gone"));
    for (service, outcome) in [("ollama", "ok"), ("ollama", "cut"), ("ollama", "failed"), ("", "refused")] {
        assert!(is_counted(service, outcome), "{outcome}");
    }
}

#[test]
fn model_is_loaded_and_unloaded_on_request() {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, "{\"done\":true}"));
    let stage = Stage::new(&backend, settings());
    for (deed, is_loaded) in [("load", true), ("unload", false)] {
        let own = backend.handle();
        backend.set_script(move |_, stream| {
            own.set_loaded(is_loaded);
            http::respond(stream, 200, "{\"done\":true}");
        });
        backend.set_loaded(!is_loaded);
        let done = ask(&stage, &format!("/api/instances/ollama/{deed}"), "{\"model\":\"fast\"}");
        assert_eq!(done.status(), 200, "{deed}: {}", done.text());
        assert_eq!(done.json()["name"], "ollama");
        let sent = backend.requests().pop().expect("a request").json();
        assert_eq!((&sent["model"], sent["keep_alive"] == 0), (&json!("tiny"), !is_loaded), "{sent}");
    }
}

/// It passes as it is, and what was promised did not come.
#[test]
fn error_of_the_server_counts_as_cut() {
    let backend = Backend::running(|_, stream| {
        http::begin_stream(stream);
        for data in [TOKEN, "data: {\"error\":{\"message\":\"out of memory\"}}\n\n", ""] {
            http::chunk(stream, data);
        }
    });
    let stage = Stage::new(&backend, settings());
    ask(&stage, CHAT, TINY_STREAM);
    let line = "fusion_requests_total{service=\"ollama\",outcome=\"cut\"} 1";
    wait_until(line, || http::get(stage.port, "/metrics").text().lines().any(|known| known == line));
}
