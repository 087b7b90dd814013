//! The server that gets the prompt, and how it is started.

use serde_json::json;

use crate::support::stub_server::{Response, StubServer};
use crate::support::stubbed_ollama::stream;
use crate::support::{Sandbox, same_output};

#[test]
fn run_starts_the_server_with_the_model() {
    let sandbox = Sandbox::new();
    let model = sandbox.root().join("other");
    std::fs::create_dir(&model).unwrap();
    for file in std::fs::read_dir(sandbox.model()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    let name = model.to_str().unwrap();
    let models = format!("models={name},{}", sandbox.model().display());
    sandbox.faults("mlx", &[&models]);
    let run = |model: &str| sandbox.fusion(["mlx", "run", "Hello", "-m", model]).run();
    insta::assert_snapshot!(run(name), @"
    exit 0
    [stdout]
    Hello from the fake runtime.
    [stderr]
    starting mlx, which is not running
    ");
    assert_eq!(sandbox.record("mlx").unwrap()["model"], name);
    run(name).assert_stdout("Hello from the fake runtime.\n");
    insta::assert_snapshot!(run(sandbox.model().to_str().unwrap()), @"
    exit 0
    [stdout]
    Hello from the fake runtime.
    [stderr]
    mlx loads [ROOT]/model in place of [ROOT]/other
    ");
    // The record says where it is, not the configuration.
    sandbox.write_config("[mlx_server]\nport = 9\n");
    run(name).assert_code(0);
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}

#[test]
fn no_server_is_started_against_the_users_will() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.fusion(["ollama", "run", "Hello", "--no-up"]).run(), @"
    exit 3
    [stderr]
    error: ollama is not running
    hint: start the server: fusion ollama up
    ");
    sandbox.write_config(&format!(
        "[ollama_server]\nport = {}\n[ollama_run]\nstart_on_demand = false\n",
        sandbox.port("ollama")
    ));
    sandbox.fusion(["ollama", "run", "Hello"]).run().assert_code(3);
    sandbox.assert_nothing_runs();
}

#[test]
fn a_missing_model_is_not_asked_for() {
    let sandbox = Sandbox::new();
    let run = |model: &str| sandbox.fusion(["mlx", "run", "Hello", "-m", model, "--stream"]).run();
    // Nothing is started for it, ...
    insta::assert_snapshot!(run("org/name"), @"
    exit 7
    [stderr]
    starting mlx, which is not running
    error: the model org/name is not on this machine
    hint: download it: fusion mlx pull org/name
    ");
    sandbox.assert_nothing_runs();
    // ... what fusion started is not asked, ...
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    let ours = run("org/name");
    insta::assert_snapshot!(run("./nowhere"), @"
    exit 7
    [stderr]
    error: the model [ROOT]/project/nowhere is not on this machine
    hint: check the path
    ");
    // (nor is a damaged one loaded in place of the one that is there)
    std::fs::create_dir(sandbox.project().join("damaged")).unwrap();
    std::fs::write(sandbox.project().join("damaged/config.json"), "{}").unwrap();
    insta::assert_snapshot!(run("./damaged"), @"
    exit 7
    [stderr]
    error: the model [ROOT]/project/damaged is incomplete: there is no tokenizer (tokenizer.json, tokenizer.model ...); there are no weights (model*.safetensors)
    hint: copy or convert the model again; fusion does not repair your own directories
    ");
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
    // ... and a server that fusion did not start only if it lists the model.
    let list =
        |id: &str| Response::json(200, json!({ "object": "list", "data": [{ "id": id }] }).to_string());
    let server = StubServer::at(sandbox.port("mlx"), [list("other"), list("org/name"), stream(&["Hi"])]);
    let external = run("org/name");
    assert_eq!(server.request().line, "GET /v1/models HTTP/1.1");
    insta::assert_snapshot!(same_output([ours, external]), @"
    exit 7
    [stderr]
    error: the model org/name is not on this machine
    hint: download it: fusion mlx pull org/name
    ");
    run("org/name").assert_stdout("Hi\n");
}
