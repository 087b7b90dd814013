//! Names of models, paths and methods.

use std::io::Read as _;

use super::backend::Backend;
use super::http;
use super::stage::{Stage, settings};
use super::{CHAT, TINY};

fn stage() -> (Backend, Stage) {
    let backend = Backend::running(|_, stream| http::respond(stream, 200, "{}"));
    let stage = Stage::new(&backend, settings());
    (backend, stage)
}

#[test]
fn alias_and_service_slash_model_reach_the_backend() {
    let (backend, stage) = stage();
    backend.set_models(&["tiny", "org/ollama", "ollama/tiny2"]);
    let sent = |name: &str| {
        let body = serde_json::json!({ "model": name }).to_string();
        let response = http::exchange(stage.port, &http::post(CHAT, &body));
        assert_eq!(response.status(), 200, "{name}: {}", response.text());
        backend.requests().pop().expect("a request").json()["model"].clone()
    };
    for (name, model) in [
        ("tiny", "tiny"),
        ("fast", "tiny"),
        ("ollama/tiny", "tiny"),
        ("ollama/fast", "tiny"),
        ("org/ollama", "org/ollama"),
        ("ollama/org/ollama", "org/ollama"),
        // An exact name beats SERVICE/MODEL.
        ("ollama/tiny2", "ollama/tiny2"),
    ] {
        assert_eq!(sent(name), model, "{name}");
    }
}

#[test]
fn unknown_model_names_the_nearest() {
    let (backend, stage) = stage();
    let response = http::exchange(stage.port, &http::post(CHAT, "{\"model\":\"tinny\"}"));
    assert_eq!(response.status(), 404);
    let error = &response.json()["error"];
    assert_eq!(error["code"], "model_not_found");
    assert_eq!(error["message"], "no service has the model tinny; similar names: tiny");
    let response = http::exchange(stage.port, &http::post("/v1/messages", "{\"model\":\"tinny\"}"));
    assert_eq!(response.json()["error"]["type"], "not_found_error");
    assert_eq!(backend.requests(), []);
}

/// Each hangs for as long as the gateway waits for it.
#[test]
fn servers_that_hang_are_asked_at_once() {
    let [one, other] = [(), ()].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let [port, next] = [&one, &other].map(|listener| listener.local_addr().expect("it is bound").port());
    let text = format!(
        "[instances.one]\ntemplate = \"ollama\"\nport = {port}\n\
         [instances.other]\ntemplate = \"ollama\"\nport = {next}\n"
    );
    let directory = std::sync::Arc::new(tempfile::TempDir::new().expect("a temporary directory"));
    let stage = Stage::in_directory(directory, Stage::scripted_all(&[]), &text, settings());
    let mut client = http::connect(stage.port);
    http::write(&mut client, &http::post(CHAT, TINY));
    let mut request = [0; 1024];
    // The first connection may only show that something listens.
    let mut asked = one.incoming().flatten();
    let first = asked.find(|mut stream| stream.read(&mut request).is_ok_and(|count| count > 0));
    let first = first.expect("it is asked");
    let (second, _) = other.accept().expect("it is asked");
    // The first server still owes its answer.
    first.set_nonblocking(true).expect("a socket");
    let more = (&first).read(&mut request);
    assert_eq!(more.expect_err("it is open").kind(), std::io::ErrorKind::WouldBlock);
    drop((asked, first, second));
    drop((one, other));
    assert_ne!(http::read(&mut client, false).expect("a response").status(), 200);
}

#[test]
fn models_and_aliases_are_listed() {
    let (_backend, stage) = stage();
    let list = http::get(stage.port, "/v1/models").json();
    let rows: Vec<(&str, &str, &str)> = list["data"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| {
            (row["id"].as_str().unwrap(), row["owned_by"].as_str().unwrap(), row["status"].as_str().unwrap())
        })
        .collect();
    assert_eq!(rows, [("tiny", "ollama", "external"), ("fast", "ollama", "external")]);
    assert_eq!(http::get(stage.port, "/v1/models/fast").json()["id"], "fast");
    assert_eq!(http::get(stage.port, "/v1/models/ollama%2Ftiny").json()["owned_by"], "ollama");
    assert_eq!(http::get(stage.port, "/v1/models/none").status(), 404);
}

#[test]
fn unknown_path_and_wrong_method_say_so() {
    let (_backend, stage) = stage();
    assert_eq!(http::get(stage.port, "/v1/nothing").status(), 404);
    let wrong = http::get(stage.port, CHAT);
    assert_eq!((wrong.status(), wrong.header("allow")), (405, Some("POST, OPTIONS")));
    let wrong = http::exchange(stage.port, &http::post("/health", ""));
    assert_eq!((wrong.status(), wrong.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
}

#[test]
fn foreign_host_and_origin_are_refused_everywhere() {
    let (backend, stage) = stage();
    let request = |path: &str, headers: &str| {
        let length = TINY.len();
        format!("POST {path} HTTP/1.1\r\n{headers}\r\nContent-Length: {length}\r\n\r\n{TINY}")
    };
    for path in [CHAT, "/v1/messages", "/health", "/v1/models", "/nothing"] {
        for headers in [
            "Host: evil.example",
            "Host: ",
            "Host: localhost\r\nOrigin: http://evil.example",
            "Host: localhost\r\nOrigin: null",
            "Host: localhost\r\nSec-Fetch-Site: cross-site",
        ] {
            let response = http::exchange(stage.port, &request(path, headers));
            assert!(matches!(response.status(), 400 | 403), "{path} {headers}: {}", response.line);
        }
    }
    assert_eq!(backend.requests(), []);
}

/// Where a server was started in another way, nothing is known of its models.
#[test]
fn unknown_model_starts_no_server_of_another_start() {
    let backend = Backend::stopped(|_, stream| http::respond(stream, 200, "{}"));
    let text = format!(
        "[templates.ollama]\nstart_command = \"/bin/sh\"\n[instances.own]\ntemplate = \"ollama\"\nport = {}\n",
        backend.port
    );
    let directory = std::sync::Arc::new(tempfile::TempDir::new().expect("a temporary directory"));
    let stage = Stage::in_directory(directory, Stage::scripted(&backend), &text, settings());
    let ask = |model: &str| {
        let body = serde_json::json!({ "model": model }).to_string();
        http::exchange(stage.port, &http::post(CHAT, &body)).status()
    };
    assert_eq!((ask("any"), stage.driver.starts()), (404, 0));
    assert_eq!((ask("own/tiny"), stage.driver.starts()), (200, 1));
    assert_eq!((ask("tiny"), ask("any")), (200, 404));
}

/// Its server would have no models, or those of its store.
#[test]
fn unknown_model_starts_no_server() {
    let backend = Backend::stopped(|_, stream| http::respond(stream, 200, "{}"));
    let directory = std::sync::Arc::new(tempfile::TempDir::new().expect("a temporary directory"));
    let store = directory.path().join("store");
    let text = format!(
        "[ollama_server]\nport = {}\ncommand = [\"/bin/sh\"]\nenv = {{ OLLAMA_MODELS = \"{}\" }}\n",
        backend.port,
        store.display()
    );
    let driver = Stage::scripted(&backend);
    let stage = Stage::in_directory(std::sync::Arc::clone(&directory), driver, &text, settings());
    let ask = |model: &str| {
        let body = serde_json::json!({ "model": model }).to_string();
        let head =
            format!("HEAD /v1/models/{model} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut client = http::connect(stage.port);
        http::write(&mut client, &head);
        std::io::Read::read_to_end(&mut client, &mut Vec::new()).expect("a response");
        let answer = http::exchange(stage.port, &http::post(CHAT, &body));
        (answer.status(), answer.json()["error"]["message"].as_str().map(str::to_owned))
    };
    let hint = "no service has the model tinny; GET /v1/models lists those that can be used".to_owned();
    assert_eq!(ask("tinny"), (404, Some(hint)), "there is no store");
    let manifest = store.join("manifests/registry.ollama.ai/library/tiny/latest");
    std::fs::create_dir_all(manifest.parent().expect("a directory")).expect("its own directory");
    std::fs::write(manifest, "{}").expect("its own directory");
    let near = "no service has the model tinny; similar names: tiny:latest".to_owned();
    assert_eq!(ask("tinny"), (404, Some(near)));
    assert_eq!(stage.driver.starts(), 0);
    assert_eq!((ask("tiny").0, stage.driver.starts()), (200, 1));
}

#[test]
fn other_model_on_disk_needs_its_own_service() {
    let directory = std::sync::Arc::new(tempfile::TempDir::new().expect("a temporary directory"));
    let model = format!("{}/tests/models/tiny", env!("CARGO_MANIFEST_DIR"));
    let other = directory.path().join("other");
    std::fs::create_dir(&other).expect("its own directory");
    for file in std::fs::read_dir(&model).expect("the model").flatten() {
        std::fs::copy(file.path(), other.join(file.file_name())).expect("its own directory");
    }
    let text = format!("[mlx_server]\nport = 1\nmodel = \"{model}\"\n");
    let stage =
        Stage::in_directory(std::sync::Arc::clone(&directory), Stage::scripted_all(&[]), &text, settings());
    let body = serde_json::json!({ "model": other }).to_string();
    let refused = http::exchange(stage.port, &http::post(CHAT, &body));
    assert_eq!((refused.status(), &refused.json()["error"]["code"]), (404, &"model_not_found".into()));
    let message = refused.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("fusion create NAME --template mlx --model"), "{message}");
}

/// The models that it had are known all the while.
#[test]
fn server_that_hangs_delays_others_once() {
    let answering = || Backend::stopped(|_, stream| http::respond(stream, 200, "{}"));
    let (hung, well) = (answering(), answering());
    hung.set_models(&["large"]);
    let instance = |name: &str, backend: &Backend| {
        let port = backend.port;
        format!("[instances.{name}]\ntemplate = \"ollama\"\nport = {port}\ncommand = [\"/bin/sh\"]\n")
    };
    let text = instance("hung", &hung) + &instance("well", &well);
    let directory = std::sync::Arc::new(tempfile::TempDir::new().expect("a temporary directory"));
    let stage = Stage::in_directory(directory, Stage::scripted_all(&[&hung, &well]), &text, settings());
    let act = |path: &str| {
        let acted = http::exchange(stage.port, &http::post(&format!("/api/instances/{path}"), ""));
        assert_eq!(acted.status(), 200, "{}", acted.text());
    };
    let ask = |model: &str| {
        let body = serde_json::json!({ "model": model }).to_string();
        let answer = http::exchange(stage.port, &http::post(CHAT, &body));
        (answer.status(), answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    act("hung/start");
    act("well/start");
    let unknown = (404, "no service has the model large2; similar names: large".to_owned());
    assert_eq!(ask("large2"), unknown);
    hung.set_hung(true);
    assert_eq!(ask("large2"), unknown);
    let before = hung.connections();
    assert_eq!(ask("large2"), unknown);
    assert_eq!(hung.connections(), before, "it is not asked again");
    assert_eq!(ask("tiny").0, 200);
    assert_eq!(http::get(stage.port, "/v1/models/large").status(), 200);
    // A start of it is news.
    hung.set_hung(false);
    hung.set_models(&["new"]);
    act("hung/restart");
    assert_eq!(ask("new").0, 200);
}

#[test]
fn model_without_its_files_is_not_listed() {
    let directory = std::sync::Arc::new(tempfile::TempDir::new().expect("a temporary directory"));
    let tiny = format!("{}/tests/models/tiny", env!("CARGO_MANIFEST_DIR"));
    let text = format!(
        "[mlx_server]\nport = 1\nmodel = \"/none\"\n[instances.here]\ntemplate = \"mlx\"\nport = 2\nmodel = \"{tiny}\"\n\
         [templates.own]\nstart_command = \"/bin/sh\"\n[instances.other]\ntemplate = \"own\"\nport = 3\nmodel = \"own-model\"\n"
    );
    let stage = Stage::in_directory(directory, Stage::scripted_all(&[]), &text, settings());
    let list = http::get(stage.port, "/v1/models").json();
    let ids: Vec<_> = list["data"].as_array().expect("rows").iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, [tiny.as_str(), "own-model"]);
}

#[test]
fn an_alias_names_the_model_of_any_program() {
    let directory = std::sync::Arc::new(tempfile::TempDir::new().expect("a temporary directory"));
    let text = "[mlx_server]\nport = 1\nmodel = \"/none\"\n[templates.own]\nstart_command = \"/bin/sh\"\n\
                [instances.other]\ntemplate = \"own\"\nport = 3\nmodel = \"own-model\"\n\
                [aliases]\nmine = \"own-model\"\n";
    let stage = Stage::in_directory(directory, Stage::scripted_all(&[]), text, settings());
    let list = http::get(stage.port, "/v1/models").json();
    let ids: Vec<_> = list["data"].as_array().expect("rows").iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, ["own-model", "mine"]);
    for name in ["mine", "other%2Fmine"] {
        assert_eq!(
            http::get(stage.port, &format!("/v1/models/{name}")).json()["owned_by"],
            "other",
            "{name}"
        );
    }
}
