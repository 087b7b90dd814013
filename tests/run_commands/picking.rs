//! `fusion run` without a service: which one answers.

use crate::support::{Sandbox, table};

#[test]
fn without_a_model_the_default_service_answers() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.fusion(["run", "Hello"]).run(), @"
    exit 2
    [stderr]
    error: no model is named, and no default service is set
    hint: set one: fusion config set default_service ollama; or name a model with --model
    ");
    sandbox.fusion(["config", "set", "default_service", "mlx"]).run().assert_code(0);
    insta::assert_snapshot!(sandbox.fusion(["run", "Hello"]).run(), @"
    exit 0
    [stdout]
    Hello from the fake runtime.
    [stderr]
    starting mlx, which is not running
    ");
    insta::assert_snapshot!(sandbox.fusion(["run", "-v", "--dry-run", "-t", "0", "Hello"]).run().stderr(), @"mlx answers");
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
}

#[test]
fn the_service_that_has_the_model_answers() {
    let sandbox = Sandbox::new();
    let model = sandbox.model();
    let directory = model.to_str().unwrap();
    // Only the server of Ollama knows its models, and a directory is the name of none.
    insta::assert_snapshot!(sandbox.fusion(["run", "-m", directory, "Hello"]).run(), @"
    exit 0
    [stdout]
    Hello from the fake runtime.
    [stderr]
    starting mlx, which is not running
    ");
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    let run = |model: &str| sandbox.fusion(["run", "-v", "--no-up", "--json", "-m", model, "Hello"]).run();
    let service = |model: &str| run(model).assert_code(0).json()["service"].clone();
    assert_eq!(service("llama3.2:3b"), "ollama");
    assert_eq!(service(directory), "mlx");
    let missing = sandbox.fusion(["run", "-m", "org/name", "Hello"]).run();
    // It would be loaded in place of the one that is there.
    let other = sandbox.project().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("config.json"), "{}").unwrap();
    let other = sandbox.fusion(["run", "-m", "./other", "Hello"]).run();
    insta::assert_snapshot!(table([("missing", missing), ("other", other)]), @"
    # missing
    exit 7
    [stderr]
    error: no service has the model org/name
    hint: download it: fusion ollama pull org/name
    # other
    exit 7
    [stderr]
    error: mlx runs with another model than ./other
    hint: load it in place of that one: fusion mlx run -m ./other
    ");
    for service in ["mlx", "ollama"] {
        sandbox.fusion([service, "down"]).run().assert_code(0);
    }
}

#[test]
fn an_impossible_name_is_no_missing_model() {
    let sandbox = Sandbox::new();
    for name in ["", "a/b c"] {
        let refused = sandbox.fusion(["run", "-m", name, "Hello"]).run_in_process().assert_code(2);
        let error = format!("error: {name:?} is not the name of a model\n");
        assert_eq!(refused.stderr(), error + "hint: `fusion models` lists names that ollama accepts\n");
    }
}

#[test]
fn a_saved_prompt_picks_by_its_model() {
    let sandbox = Sandbox::new();
    let prompt = format!("\n[prompts.short]\nmodel = {:?}\n", sandbox.model());
    sandbox.configure("", &prompt);
    let sent = sandbox.fusion(["run", "--prompt", "short", "--dry-run", "-v", "Hello"]).run_in_process();
    assert_eq!(sent.json()["model"], sandbox.model().to_str().unwrap());
    assert_eq!(sent.stderr(), "mlx answers\n");
}
