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
    let script = "PATH=$1:$PATH; source <(fusion completions bash)
        COMP_WORDS=(fusion ollama re) COMP_CWORD=2 COMP_TYPE=9
        _clap_complete_fusion fusion re ollama; echo ${COMPREPLY[*]}";
    let bash = sandbox.command("bash").arg("-c").arg(script).arg("bash").arg(fusion).run().assert_code(0);
    assert_eq!(bash.stdout().trim(), "restart");
}
