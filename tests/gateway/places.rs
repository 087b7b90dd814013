//! Services that need each other's place: memory, groups, turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fusion::core::config::{GatewaySettings, MemoryLimit};
use tempfile::TempDir;

use super::backend::Backend;
use super::http;
use super::stage::{Stage, settings};
use super::{CHAT, wait_until};

const ONE: &str = r#"{"model":"one/tiny"}"#;
const TWO: &str = r#"{"model":"two/tiny"}"#;

/// Two instances of Ollama, and a gateway in front of them.
fn stage(more: &str, max_memory: MemoryLimit) -> (Backend, Backend, Stage) {
    let answering = || Backend::stopped(|_, stream| http::respond(stream, 200, "{}"));
    let (one, two) = (answering(), answering());
    let instance = |name: &str, backend: &Backend| {
        let port = backend.port;
        format!("[instances.{name}]\ntemplate = \"ollama\"\nport = {port}\ncommand = [\"/bin/sh\"]\n{more}\n")
    };
    let text = instance("one", &one) + &instance("two", &two);
    let driver = Stage::scripted_all(&[&one, &two]);
    let directory = Arc::new(TempDir::new().expect("a temporary directory"));
    let stage = Stage::in_directory(directory, driver, &text, GatewaySettings { max_memory, ..settings() });
    (one, two, stage)
}

fn ask(stage: &Stage, body: &str) -> http::Message {
    http::exchange(stage.port, &http::post(CHAT, body))
}

fn act(stage: &Stage, path: &str) {
    assert_eq!(http::exchange(stage.port, &http::post(&format!("/api/instances/{path}"), "")).status(), 200);
}

#[test]
fn least_recently_used_model_makes_room() {
    let (one, two, stage) = stage("", MemoryLimit::Bytes(1000));
    stage.driver.set_memory(&one, 700);
    stage.driver.set_memory(&two, 700);
    assert_eq!(ask(&stage, ONE).status(), 200);
    // What it needs is not known before it runs: it is checked again when it is ready.
    assert_eq!(ask(&stage, TWO).status(), 200);
    wait_until("the first one is stopped", || !one.is_listening());
    assert!(two.is_listening());
    // Now both were measured: the other one goes first.
    assert_eq!(ask(&stage, ONE).status(), 200);
    assert!(!two.is_listening() && one.is_listening());
    assert_eq!(stage.driver.starts(), 3);
}

#[test]
fn memory_that_others_hold_is_named() {
    let (one, two, stage) = stage("", MemoryLimit::Bytes(1000));
    stage.driver.set_memory(&one, 900);
    stage.driver.set_memory(&two, 700);
    assert_eq!(ask(&stage, TWO).status(), 200);
    act(&stage, "two/stop");
    // The gateway stops only what a request has started.
    act(&stage, "one/start");
    let refused = ask(&stage, TWO);
    assert_eq!(refused.status(), 503, "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    let message = refused.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.starts_with("two needs 700 bytes of memory; one would exceed"), "{message}");
    assert!(one.is_listening());
}

#[test]
fn memory_of_other_programs_counts() {
    let (one, two, stage) = stage("", MemoryLimit::Bytes(1000));
    stage.driver.set_memory(&two, 700);
    assert_eq!(ask(&stage, TWO).status(), 200);
    act(&stage, "two/stop");
    stage.driver.runs_elsewhere(&one, 400);
    let refused = ask(&stage, TWO);
    assert_eq!(refused.status(), 503, "{}", refused.text());
    let message = refused.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.starts_with("two needs 700 bytes of memory; one would exceed"), "{message}");
    // It is used, and never stopped.
    assert_eq!(ask(&stage, ONE).status(), 200);
    assert!(one.is_listening() && !two.is_listening());
}

#[test]
fn estimate_counts_before_the_first_start() {
    let directory = Arc::new(TempDir::new().expect("a temporary directory"));
    let model = format!("{}/tests/models/tiny", env!("CARGO_MANIFEST_DIR"));
    let text = format!("[mlx_server]\nport = 1\nmodel = \"{model}\"\ncommand = [\"/bin/sh\"]\n");
    let max_memory = MemoryLimit::Bytes(1);
    let driver = Stage::scripted_all(&[]);
    let stage = Stage::in_directory(directory, driver, &text, GatewaySettings { max_memory, ..settings() });
    let refused = ask(&stage, &serde_json::json!({ "model": model }).to_string());
    assert_eq!(refused.status(), 503, "{}", refused.text());
    assert!(refused.text().contains("`gateway.max_memory` allows 1"), "{}", refused.text());
    assert_eq!(stage.driver.starts(), 0);
}

#[test]
fn one_of_an_exclusive_group_runs() {
    let (one, two, stage) = stage("exclusive = \"gpu\"", MemoryLimit::Share(100));
    for _ in 0..2 {
        assert_eq!(ask(&stage, ONE).status(), 200);
        assert_eq!((one.is_listening(), two.is_listening()), (true, false));
        assert_eq!(ask(&stage, TWO).status(), 200);
        assert_eq!((one.is_listening(), two.is_listening()), (false, true));
    }
    // Also what another command of fusion has started.
    act(&stage, "two/stop");
    act(&stage, "one/start");
    assert_eq!(ask(&stage, TWO).status(), 200);
    assert!(!one.is_listening());
}

#[test]
fn external_group_member_is_in_the_way() {
    let (one, _two, stage) = stage("exclusive = \"gpu\"", MemoryLimit::Share(100));
    one.start();
    let refused = ask(&stage, TWO);
    assert_eq!(refused.status(), 503);
    let message = refused.json()["error"]["message"].take();
    assert_eq!(
        message,
        "two cannot start: one runs, of the exclusive group gpu, and fusion did not start it"
    );
    assert!(one.is_listening());
}

#[test]
fn running_answer_is_never_cut_for_another_model() {
    let (one, two, stage) = stage("exclusive = \"gpu\"", MemoryLimit::Share(100));
    let is_done = Arc::new(AtomicBool::new(false));
    let (answered, other) = (Arc::clone(&is_done), two.handle());
    one.set_script(move |_, stream| {
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert!(!other.is_listening(), "it runs beside");
        answered.store(true, Ordering::SeqCst);
        http::respond(stream, 200, "{}");
    });
    two.set_script(move |_, stream| {
        assert!(is_done.load(Ordering::SeqCst), "it overtakes");
        http::respond(stream, 200, "{}");
    });
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask(&stage, ONE));
        wait_until("it is asked", || !one.requests().is_empty());
        assert_eq!(ask(&stage, TWO).status(), 200);
        let first = first.join().expect("no panic");
        assert!(first.status() == 200 && first.is_whole);
    });
}

#[test]
fn waiting_request_of_a_removed_service_is_refused() {
    let (one, two, stage) = stage("exclusive = \"gpu\"", MemoryLimit::Share(100));
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    one.set_script(move |_, stream| {
        gate.lock().expect("no panic").recv().expect("the test goes on");
        http::respond(stream, 200, "{}");
    });
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask(&stage, ONE).status());
        wait_until("it is asked", || !one.requests().is_empty());
        let second = scope.spawn(|| ask(&stage, TWO));
        // Its wait cannot be seen from here.
        std::thread::sleep(std::time::Duration::from_millis(200));
        stage.write_config(&format!("[instances.one]\ntemplate = \"ollama\"\nport = {}\n", one.port));
        let refused = second.join().expect("no panic");
        assert_eq!(refused.status(), 503, "{}", refused.text());
        assert_eq!(refused.json()["error"]["message"], "two is not in the configuration any longer");
        go.send(()).expect("it waits");
        assert_eq!(first.join().expect("no panic"), 200);
    });
    assert!(!two.is_listening());
}

/// While a model answers, requests for it need not wait for the other one's start; after the time of a turn they do.
#[test]
fn two_models_in_turn_are_collated_fairly() {
    let (one, two, stage) = stage("exclusive = \"gpu\"", MemoryLimit::Share(100));
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    one.set_script(move |request, stream| {
        if request.text().contains("held") {
            gate.lock().expect("no panic").recv().expect("the test goes on");
        }
        http::respond(stream, 200, "{}");
    });
    std::thread::scope(|scope| {
        let held = scope.spawn(|| ask(&stage, r#"{"model":"one/tiny","held":true}"#).status());
        wait_until("one is asked", || one.requests().len() == 1);
        let other = scope.spawn(|| ask(&stage, TWO).status());
        for _ in 0..20 {
            assert_eq!(ask(&stage, ONE).status(), 200);
        }
        assert_eq!((stage.driver.starts(), two.requests().len()), (1, 0));
        std::thread::sleep(std::time::Duration::from_millis(5500));
        let late = scope.spawn(|| ask(&stage, ONE).status());
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(one.requests().len(), 21, "it is the turn of the other one");
        go.send(()).expect("it waits");
        let statuses = [held, other, late].map(|asked| asked.join().expect("no panic"));
        assert_eq!(statuses, [200; 3]);
    });
    assert_eq!((stage.driver.starts(), two.requests().len(), one.requests().len()), (3, 1, 22));
}

#[test]
fn service_that_no_request_starts_says_how() {
    let (_one, _two, stage) = stage("on_demand = false", MemoryLimit::Share(100));
    let refused = ask(&stage, ONE);
    assert_eq!(refused.status(), 503);
    assert!(refused.text().contains("fusion one up"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert_eq!(stage.driver.starts(), 0);
    act(&stage, "one/start");
    assert_eq!(ask(&stage, ONE).status(), 200);
}

/// The next one would take what the first one is about to need.
#[test]
fn heavy_servers_start_one_by_one() {
    let (one, two, stage) = stage("", MemoryLimit::Share(100));
    *stage.driver.listens.lock().expect("no panic") = false;
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask(&stage, ONE).status());
        wait_until("one starts", || stage.driver.starts() == 1);
        let second = scope.spawn(|| ask(&stage, TWO).status());
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(stage.driver.starts(), 1, "both start at once");
        stage.driver.begin_to_listen(one.port);
        wait_until("two starts", || stage.driver.starts() == 2);
        stage.driver.begin_to_listen(two.port);
        assert_eq!([first, second].map(|asked| asked.join().expect("no panic")), [200; 2]);
    });
    assert!(one.is_listening());
}

/// As long as a client waits for it, it is not cancelled.
#[test]
fn abandoned_start_yields_its_room() {
    let (one, two, stage) = stage("exclusive = \"gpu\"", MemoryLimit::Share(100));
    *stage.driver.listens.lock().expect("no panic") = false;
    let mut client = http::connect(stage.port);
    http::write(&mut client, &http::post(CHAT, ONE));
    wait_until("one starts", || stage.driver.starts() == 1);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| ask(&stage, TWO).status());
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!((stage.driver.starts(), stage.driver.mock().living().len()), (1, 1), "it is wanted");
        drop(client);
        wait_until("two starts", || stage.driver.starts() == 2);
        assert_eq!(stage.driver.mock().living().len(), 1, "the first one was cancelled");
        stage.driver.begin_to_listen(two.port);
        assert_eq!(other.join().expect("no panic"), 200);
    });
    assert_eq!((one.requests().len(), two.requests().len()), (0, 1));
}

#[test]
fn program_with_a_model_needs_memory_too() {
    let answering = || Backend::stopped(|_, stream| http::respond(stream, 200, "{}"));
    let (own, two) = (answering(), answering());
    let port = own.port;
    let text = format!(
        "[templates.fake]\nstart_command = \"/bin/sh\"\nhealth_endpoint = \"/api/version\"\n\
         [instances.own]\ntemplate = \"fake\"\nport = {port}\nmodel = \"own-model\"\n\
         env = {{ OLLAMA_HOST = \"127.0.0.1:{port}\" }}\n\
         [instances.two]\ntemplate = \"ollama\"\nport = {}\ncommand = [\"/bin/sh\"]\n",
        two.port
    );
    let directory = Arc::new(TempDir::new().expect("a temporary directory"));
    let max_memory = MemoryLimit::Bytes(1000);
    let driver = Stage::scripted_all(&[&own, &two]);
    let stage = Stage::in_directory(directory, driver, &text, GatewaySettings { max_memory, ..settings() });
    stage.driver.set_memory(&own, 700);
    stage.driver.set_memory(&two, 700);
    assert_eq!(ask(&stage, TWO).status(), 200);
    let response = ask(&stage, "{\"model\":\"own-model\"}");
    assert_eq!(response.status(), 200, "{}", response.text());
    wait_until("the other one is stopped", || !two.is_listening());
    assert!(own.is_listening());
}
