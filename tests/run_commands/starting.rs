//! Where a prompt goes, and what is started for it.

use serde_json::json;

use crate::support::Sandbox;
use crate::support::stub_server::{Response, StubServer};
use crate::support::stubbed_ollama::{StubbedOllama, stream};

#[test]
fn without_a_server_it_is_started_first_with_the_model_that_was_asked_for() {
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
    let finished = sandbox.fusion(["mlx", "run", "Hello", "-m", name]).run().assert_code(0);
    assert_eq!(finished.stderr(), "mlx is not running, and is started first\n");
    assert_eq!(sandbox.record("mlx").unwrap()["model"], name);
    // Now it runs, and nothing is said; another model is announced.
    let finished = sandbox.fusion(["mlx", "run", "Hello", "-m", name]).run().assert_code(0);
    assert_eq!(finished.stderr(), "");
    let other = sandbox.model();
    let finished =
        sandbox.fusion(["mlx", "run", "Hello", "-m", other.to_str().unwrap()]).run().assert_code(0);
    assert_eq!(
        finished.stderr(),
        format!("mlx has {name} loaded, and loads {} instead now\n", other.display())
    );
    // The record says where it is, whatever the configuration says.
    sandbox.write_config("[mlx_server]\nport = 9\n");
    sandbox.fusion(["mlx", "run", "Hello", "-m", name]).run().assert_code(0);
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}

#[test]
fn a_server_that_is_not_to_be_started_is_not() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["ollama", "run", "Hello", "--no-up"]).run().assert(
        3,
        "",
        "error: ollama is not running\nhint: start it: fusion ollama up\n",
    );
    sandbox.write_config(&format!(
        "[ollama_server]\nport = {}\n[ollama_run]\nstart_on_demand = false\n",
        sandbox.port("ollama")
    ));
    sandbox.fusion(["ollama", "run", "Hello"]).run().assert_code(3);
    sandbox.assert_nothing_runs();
}

#[test]
fn a_command_that_is_named_can_be_given_to_a_shell() {
    let asked =
        StubbedOllama::with([Response::json(404, r#"{"error": {"message": "model 'x' not found"}}"#)]);
    let finished = asked.run(["Hello", "-m", "a b'c;$(x)"]).assert_code(7);
    assert!(
        finished.stderr().ends_with("hint: fetch it: fusion ollama pull 'a b'\\''c;$(x)'\n"),
        "{}",
        finished.stderr()
    );
}

#[test]
fn a_model_that_is_not_there_is_neither_asked_for_nor_fetched() {
    let sandbox = Sandbox::new();
    let missing = "error: the model org/name is not there\nhint: fetch it: fusion mlx pull org/name\n";
    // Nothing is started for it, ...
    sandbox.fusion(["mlx", "run", "Hello", "-m", "org/name"]).run().assert_code(7);
    sandbox.assert_nothing_runs();
    // ... what fusion started is not asked, ...
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    sandbox.fusion(["mlx", "run", "Hello", "-m", "org/name"]).run().assert(7, "", missing);
    sandbox.fusion(["mlx", "run", "Hello", "-m", "./nowhere"]).run().assert(
        7,
        "",
        "error: the model [ROOT]/project/nowhere is not there\nhint: a path must lead to the directory of a model\n",
    );
    // (nor is a damaged one tried in place of the one that is loaded)
    std::fs::create_dir(sandbox.project().join("damaged")).unwrap();
    std::fs::write(sandbox.project().join("damaged/config.json"), "{}").unwrap();
    let finished = sandbox.fusion(["mlx", "run", "Hello", "-m", "./damaged"]).run().assert_code(7);
    assert_eq!(finished.stdout(), "");
    let told = finished.stderr();
    assert!(told.contains("/damaged is incomplete: there is no tokenizer"), "{told}");
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
    // ... and what somebody else started only if it lists it.
    let list =
        |id: &str| Response::json(200, json!({ "object": "list", "data": [{ "id": id }] }).to_string());
    let server = StubServer::at(sandbox.port("mlx"), [list("other"), list("org/name"), stream(&["Hi"])]);
    sandbox.fusion(["mlx", "run", "Hello", "-m", "org/name"]).run().assert(7, "", missing);
    assert_eq!(server.request().line, "GET /v1/models HTTP/1.1");
    sandbox.fusion(["mlx", "run", "Hello", "-m", "org/name", "--stream"]).run().assert_stdout("Hi\n");
}
