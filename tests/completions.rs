//! Shell completions, asked as the shells ask.

mod support;

use support::Sandbox;

/// What fish is offered after these words.
fn offered(sandbox: &Sandbox, words: &[&str]) -> Vec<String> {
    let asked = sandbox.fusion(["--", "fusion"].into_iter().chain(words.iter().copied()));
    let finished = asked.env("_FUSION_COMPLETE", "fish").run().assert_code(0);
    assert_eq!(finished.stderr(), "");
    finished.stdout().lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn runtimes_and_their_commands() {
    let sandbox = Sandbox::new();
    assert_eq!(offered(&sandbox, &["ol"]), ["ollama"]);
    assert_eq!(offered(&sandbox, &["mlx", "re"]), ["restart"]);
    // An alias leads to the same commands, and is not offered beside them.
    assert_eq!(offered(&sandbox, &["mx", "lo"]), offered(&sandbox, &["mlx", "lo"]));
    assert_eq!(offered(&sandbox, &["completions", "p"]), ["powershell"]);
}

#[test]
fn what_the_configuration_calls_models_and_prompts() {
    let sandbox = Sandbox::new();
    sandbox.write_config(
        "[ollama_run]\nmodel = \"from-run\"\n[aliases]\nfrom-alias = \"x\"\n\
         [prompts.commit]\nmodel = \"from-prompt\"\n",
    );
    assert_eq!(
        offered(&sandbox, &["ollama", "run", "--model", "from"]),
        ["from-alias", "from-prompt", "from-run"]
    );
    assert_eq!(offered(&sandbox, &["ollama", "run", "--prompt", ""]), ["commit"]);
    assert!(offered(&sandbox, &["ollama", "pull", "llama3.2:"]).contains(&"llama3.2:3b".to_owned()));
}

#[test]
fn models_on_this_machine() {
    let sandbox = Sandbox::new();
    let model = sandbox.home().join(".cache/huggingface/hub/models--some--model");
    let snapshot = model.join("snapshots/1");
    std::fs::create_dir_all(&snapshot).expect("the sandbox is writable");
    std::fs::create_dir_all(model.join("refs")).expect("the sandbox is writable");
    std::fs::write(model.join("refs/main"), "1").expect("the sandbox is writable");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        std::fs::write(snapshot.join(file), "{}").expect("the sandbox is writable");
    }
    assert_eq!(offered(&sandbox, &["mlx", "show", "some/"]), ["some/model"]);

    sandbox.faults("ollama", &["models=from-the-server"]);
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    assert_eq!(offered(&sandbox, &["ollama", "rm", "from-the"]), ["from-the-server"]);
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
}

#[test]
fn a_server_that_hangs_is_not_waited_for() {
    let sandbox = Sandbox::new();
    let _holder = support::real::hold(sandbox.port("ollama"));
    assert_eq!(offered(&sandbox, &["ollama", "rm", "llama3.2:3"]), ["llama3.2:3b"]);
}

#[test]
fn configuration_keys() {
    let sandbox = Sandbox::new();
    sandbox.write_config("[aliases]\nsmall = \"x\"\n[prompts.commit]\nmodel = \"y\"\n");
    for command in ["get", "set", "unset"] {
        assert_eq!(offered(&sandbox, &["config", command, "mlx_server.po"]), ["mlx_server.port"]);
        assert_eq!(
            offered(&sandbox, &["config", command, "prompts.commit.te"]),
            ["prompts.commit.temperature", "prompts.commit.template"]
        );
        assert_eq!(offered(&sandbox, &["config", command, "aliases."]), ["aliases.small"]);
    }
}

#[test]
fn a_broken_or_missing_configuration_is_no_obstacle_and_is_not_made() {
    let sandbox = Sandbox::without_config();
    assert_eq!(offered(&sandbox, &["ollama", "heal"]), ["health"]);
    assert!(!sandbox.config_dir().join("config.toml").exists());
    sandbox.write_config("this is not a configuration");
    assert_eq!(offered(&sandbox, &["ollama", "heal"]), ["health"]);
}

#[test]
fn every_shell_has_a_script() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = sandbox.fusion(["completions", shell]).run().assert_code(0).stdout();
        assert!(script.contains("_FUSION_COMPLETE"), "{shell}: {script}");
    }
}

#[test]
fn bash_completes_with_the_script() {
    let sandbox = Sandbox::new();
    let fusion = std::path::Path::new(env!("CARGO_BIN_EXE_fusion")).parent().expect("a directory");
    // The bash of macOS is too old to `source` what another program prints.
    let script = "PATH=$1:$PATH; eval \"$(fusion completions bash)\"
        COMP_WORDS=(fusion ollama re) COMP_CWORD=2 COMP_TYPE=9
        _clap_complete_fusion fusion re ollama; echo ${COMPREPLY[*]}";
    let bash = sandbox.command("bash").arg("-c").arg(script).arg("bash").arg(fusion).run().assert_code(0);
    assert_eq!(bash.stdout().trim(), "restart");
}
