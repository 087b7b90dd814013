//! The gateway with real programs around it: the official clients of both APIs, a browser, Prometheus, and three
//! runtimes behind one address.

mod support;

#[expect(dead_code, unreachable_pub, reason = "shared with the tests of the gateway")]
#[path = "gateway/backend.rs"]
mod backend;
#[expect(dead_code, unreachable_pub, reason = "shared with the tests of the gateway")]
#[path = "gateway/http.rs"]
mod http;

use support::ports;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use backend::Backend;
use http::Message;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Running, Sandbox, real, wait_until};

fn main() -> ExitCode {
    real::main_of(&[
        ("clients", "$CLIENTS_PYTHON", real::tests![openai_client_is_served, anthropic_client_is_served]),
        ("promtool", "promtool", real::tests![metrics_satisfy_promtool]),
        (
            "browser",
            "node $PLAYWRIGHT_CORE chromium",
            real::tests![page_is_used_in_a_browser, page_asks_for_the_token_and_shows_requests],
        ),
        (
            "runtimes",
            "mlx_lm.server llama-server ollama $CLIENTS_PYTHON",
            real::tests![one_address_reaches_three_runtimes],
        ),
    ])
}

/// A gateway in front of the services of a sandbox.
struct Served {
    port: ports::Port,
    serve: Option<Running>,
}

impl Served {
    fn new(sandbox: &Sandbox, config: &str, gateway: &str) -> Self {
        let port = ports::Port::free();
        sandbox.write_config(&format!("{config}\n[gateway]\nport = {}\n{gateway}\n", port.number()));
        let mut served = Self { port, serve: None };
        served.start(sandbox);
        served
    }

    fn start(&mut self, sandbox: &Sandbox) {
        self.serve = Some(sandbox.fusion(["serve"]).start());
        wait_until("it listens", || TcpStream::connect(("127.0.0.1", self.port.number())).is_ok());
    }

    fn end(&mut self) {
        let serve = self.serve.take().expect("it runs");
        serve.signal(Signal::SIGTERM);
        assert_eq!(serve.finish().code(), 143);
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }
}

fn run_clients(python: &Path, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official_clients.py");
    let output = Command::new(python)
        .arg(script)
        .args(arguments)
        .env_remove("OPENAI_API_KEY")
        .env_remove("ANTHROPIC_API_KEY")
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .expect("Python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stdout));
}

/// A server with chat completions only, which answers by what it is asked.
fn scripted_server() -> Backend {
    let backend = Backend::running(answer);
    backend.set_version("0.13.9");
    backend
}

fn answer(request: &Message, stream: &mut TcpStream) {
    if request.line.contains("/v1/audio/transcriptions") {
        let form = request.text();
        let size = if form.contains("RIFF") { 4 } else { 0 };
        let model = if form.contains("\r\n\r\ntiny\r\n") { "tiny" } else { "another" };
        return http::respond(
            stream,
            200,
            &json!({ "text": format!("heard {size} bytes for {model}") }).to_string(),
        );
    }
    let body = request.json();
    assert_eq!(body["model"], "tiny");
    if request.line.contains("/v1/embeddings") {
        let data = json!([{ "object": "embedding", "index": 0, "embedding": [0.5, -1.0] }]);
        let usage = json!({ "prompt_tokens": 1, "total_tokens": 1 });
        let list = json!({ "object": "list", "model": "tiny", "data": data, "usage": usage });
        return http::respond(stream, 200, &list.to_string());
    }
    let (message, reason) = message(&body);
    let usage = json!({ "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7 });
    let common = json!({ "id": "chatcmpl-1", "created": 1, "model": "tiny" });
    let with = |more: Value| {
        let mut all = common.clone();
        let more = more.as_object().cloned().unwrap_or_default();
        all.as_object_mut().expect("an object").extend(more);
        all
    };
    if body["stream"] != true {
        let choice = json!({ "index": 0, "message": message, "finish_reason": reason });
        let whole = with(json!({ "object": "chat.completion", "choices": [choice], "usage": usage }));
        return http::respond(stream, 200, &whole.to_string());
    }
    http::begin_stream(stream);
    let mut event = |delta: Value, reason: Option<&str>| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": reason });
        let chunk = with(json!({ "object": "chat.completion.chunk", "choices": [choice] }));
        http::chunk(stream, &format!("data: {chunk}\n\n"));
    };
    event(json!({ "role": "assistant" }), None);
    for piece in pieces(message["content"].as_str().unwrap_or_default()) {
        event(json!({ "content": piece }), None);
    }
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let name = &call["function"]["name"];
        let first = json!({ "index": 0, "id": call["id"], "type": "function", "function": { "name": name, "arguments": "" } });
        event(json!({ "tool_calls": [first] }), None);
        for piece in pieces(call["function"]["arguments"].as_str().unwrap_or_default()) {
            event(json!({ "tool_calls": [{ "index": 0, "function": { "arguments": piece } }] }), None);
        }
    }
    if !body.to_string().contains("\"cut\"") {
        event(json!({}), Some(reason));
        if body["stream_options"]["include_usage"] == true {
            let last = with(json!({ "object": "chat.completion.chunk", "choices": [], "usage": usage }));
            http::chunk(stream, &format!("data: {last}\n\n"));
        }
        http::chunk(stream, "data: [DONE]\n\n");
    }
    http::chunk(stream, "");
}

/// Cuts a text in two.
fn pieces(text: &str) -> [&str; 2] {
    let (one, other) = text.split_at(text.len() / 2);
    [one, other]
}

fn message(body: &Value) -> (Value, &'static str) {
    let last = body["messages"].as_array().and_then(|messages| messages.last()).expect("a message");
    let text = |text: String| (json!({ "role": "assistant", "content": text }), "stop");
    if last["role"] == "tool" {
        let result = last["content"].as_str().map(str::to_owned);
        return text(format!(
            "It is {}",
            result.unwrap_or_else(|| last["content"][0]["text"].as_str().unwrap_or_default().to_owned())
        ));
    }
    let function = &body["tools"][0]["function"];
    if function["name"] == "get_weather" {
        assert_eq!(function["parameters"]["required"], json!(["city"]));
        let function = json!({ "name": "get_weather", "arguments": "{\"city\": \"Paris\"}" });
        let call = json!({ "id": "call_1", "type": "function", "function": function });
        return (json!({ "role": "assistant", "content": null, "tool_calls": [call] }), "tool_calls");
    }
    let images =
        last["content"].as_array().into_iter().flatten().find_map(|part| part["image_url"]["url"].as_str());
    if let Some(url) = images {
        return text(format!("I see {}", url.strip_prefix("data:image/png;base64,").expect("an image")));
    }
    if body["response_format"]["type"] == "json_schema" {
        let schema = &body["response_format"]["json_schema"]["schema"];
        assert_eq!(schema["properties"]["age"]["type"], "integer");
        return text("{\"name\": \"Ada\", \"age\": 36}".to_owned());
    }
    text("Hello there".to_owned())
}

fn in_front_of(backend: &Backend, sandbox: &Sandbox) -> Served {
    let models = sandbox.root().join("gguf");
    std::fs::create_dir(&models).expect("the sandbox is writable");
    let config = format!(
        "[ollama_server]\nport = {}\n[mlx_server]\nmodel = \"/none\"\nport = {}\n[llama_server]\nport = {}\n\
         models_dir = \"{}\"\n[aliases]\nfast = \"tiny\"\n",
        backend.port,
        sandbox.port("mlx"),
        sandbox.port("llama"),
        models.display(),
    );
    Served::new(sandbox, &config, "token = \"secret\"")
}

fn openai_client_is_served(python: &Path) {
    let (backend, sandbox) = (scripted_server(), Sandbox::without_config());
    let mut served = in_front_of(&backend, &sandbox);
    run_clients(python, &["openai", &served.url()]);
    served.end();
}

fn anthropic_client_is_served(python: &Path) {
    let (backend, sandbox) = (scripted_server(), Sandbox::without_config());
    let mut served = in_front_of(&backend, &sandbox);
    run_clients(python, &["anthropic", &served.url()]);
    served.end();
}

fn metrics_satisfy_promtool(promtool: &Path) {
    let (backend, sandbox) = (scripted_server(), Sandbox::without_config());
    let mut served = in_front_of(&backend, &sandbox);
    let port = served.port.number();
    let key = "Host: localhost\r\nx-api-key: secret\r\nConnection: close\r\n";
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"Hello"}]}"#;
    let request =
        format!("POST /v1/chat/completions HTTP/1.1\r\n{key}Content-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(http::exchange(port, &request).status(), 200);
    let metrics = http::exchange(port, &format!("GET /metrics HTTP/1.1\r\n{key}\r\n"));
    assert!(
        metrics.text().contains("fusion_requests_total{service=\"ollama\",outcome=\"ok\"} 1\n"),
        "{}",
        metrics.text()
    );
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    check.stdin.take().expect("a pipe").write_all(&metrics.body).expect("it reads");
    let output = check.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    served.end();
}

/// The program of Debian, and the one of a desktop.
fn page_is_used_in_a_browser(node: &Path) {
    let sandbox = Sandbox::new();
    let config = std::fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("a configuration");
    std::fs::remove_dir_all(sandbox.model()).expect("its own model");
    let mut served = Served::new(&sandbox, &config, "");
    use_page(node, "services", &sandbox, &mut served, |step, served| match step {
        "started" => assert!(sandbox.pid("ollama").is_some()),
        "log" => {
            let log = sandbox.file("ollama", "ollama.log");
            let mut log = std::fs::OpenOptions::new().append(true).open(log).expect("the log");
            log.write_all(b"a line of the test\n").expect("the log");
        }
        "end" => served.end(),
        "ended" => served.start(&sandbox),
        other => panic!("{other}"),
    });
    served.end();
    sandbox.assert_nothing_runs();
}

/// Runs a scenario of `page.js`, and does the test's part of each of its steps.
fn use_page(
    node: &Path,
    scenario: &str,
    sandbox: &Sandbox,
    served: &mut Served,
    mut act: impl FnMut(&str, &mut Served),
) {
    let screenshots = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&screenshots).expect("a directory for the tests");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page.js");
    let mut browser = Command::new(node)
        .arg(script)
        .args([
            real::find("$PLAYWRIGHT_CORE").expect("it was found"),
            real::find("chromium").expect("it was found"),
        ])
        .arg(served.url())
        .arg(&screenshots)
        .arg(scenario)
        .env("HOME", sandbox.home())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node starts");
    let mut stdin = browser.stdin.take().expect("a pipe");
    let mut is_done = false;
    for line in BufReader::new(browser.stdout.take().expect("a pipe")).lines() {
        match line.expect("text").as_str() {
            "done" => is_done = true,
            step => act(step, served),
        }
        // It may have ended.
        let _ = stdin.write_all(b"\n");
    }
    let output = browser.wait_with_output().expect("it ends");
    assert!(is_done && output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn page_asks_for_the_token_and_shows_requests(node: &Path) {
    let (backend, sandbox) = (scripted_server(), Sandbox::without_config());
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let (gate, own) = (std::sync::Mutex::new(gate), backend.handle());
    backend.set_script(move |request, stream| {
        if request.line.contains("/api/generate") {
            own.set_loaded(request.json()["keep_alive"] != 0);
            return http::respond(stream, 200, "{\"done\":true}");
        }
        if !request.line.contains("/v1/chat/completions") {
            return http::respond(stream, 404, "{}");
        }
        if request.text().contains("fail") {
            return drop(stream.shutdown(std::net::Shutdown::Both));
        }
        http::begin_stream(stream);
        gate.lock().expect("no panic").recv().expect("the test goes on");
        for _ in 0..20 {
            http::chunk(stream, "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        for data in [
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":20}}\n\n",
            "data: [DONE]\n\n",
            "",
        ] {
            http::chunk(stream, data);
        }
    });
    let mut served = in_front_of(&backend, &sandbox);
    let port = served.port.number();
    let ask = move |words: &str| {
        let body = json!({ "model": "tiny", "stream": true, "messages": words }).to_string();
        let head =
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nx-api-key: secret\r\nContent-Length:";
        http::exchange(port, &format!("{head} {}\r\n\r\n{body}", body.len()))
    };
    let mut asking = None;
    use_page(node, "models", &sandbox, &mut served, |step, _| match step {
        "ask" => asking = Some(std::thread::spawn(move || ask("hi").status())),
        "answer" => {
            go.send(()).expect("it waits");
            assert_eq!(asking.take().map(|asking| asking.join().expect("no panic")), Some(200));
        }
        "fail" => assert_eq!(ask("fail").status(), 502),
        other => panic!("{other}"),
    });
    served.end();
}

fn one_address_reaches_three_runtimes(mlx: &Path) {
    let sandbox = Sandbox::without_config();
    let [llama, ollama, python] = ["llama-server", "ollama", "$CLIENTS_PYTHON"]
        .map(|program| real::find(program).expect("it was found"));
    for program in [mlx, &llama, &ollama] {
        real::install(&sandbox, program);
    }
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let models = sandbox.root().join("gguf");
    std::fs::create_dir_all(&models).expect("the sandbox is writable");
    let run_script = |arguments: &[&str]| {
        let script = tests.join(arguments[0]);
        let made = Command::new("python3").arg(script).args(&arguments[1..]).status().expect("Python runs");
        assert!(made.success(), "{arguments:?}");
    };
    let tiny = tests.join("models/tiny").display().to_string();
    run_script(&["make_tiny_gguf.py", &tiny, &models.join("small.gguf").display().to_string()]);
    let (ollama, mlx, llama) = (sandbox.port("ollama"), sandbox.port("mlx"), sandbox.port("llama"));
    let config = format!(
        "[ollama_server]\nport = {ollama}\n[mlx_server]\nport = {mlx}\nmodel = \"{tiny}\"\n\
         [llama_server]\nport = {llama}\nmodels_dir = \"{}\"\n",
        models.display()
    );
    let mut served = Served::new(&sandbox, &config, "max_memory = \"100%\"");
    // Its store is filled while it runs.
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    run_script(&["put_ollama_model.py", &format!("127.0.0.1:{ollama}"), "tiny", "plain"]);
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
    run_clients(&python, &["three", &served.url(), "tiny:latest", &tiny, "small"]);
    let states = http::get(served.port.number(), "/api/instances?status=ready").json();
    assert_eq!(states.as_array().map(Vec::len), Some(3), "{states}");
    served.end();
    sandbox.fusion(["down"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}
