//! Shell completions, requested as the shells request them.

mod support;

use support::ports::Port;
use support::real;
use support::terminal::Terminal;
use support::{Running, Sandbox, wait_until};

/// What fish is offered after these words.
fn offered(sandbox: &Sandbox, words: &[&str]) -> Vec<String> {
    let completion = sandbox.fusion(["--", "fusion"].into_iter().chain(words.iter().copied()));
    let finished = completion.env("_FUSION_COMPLETE", "fish").run().assert_code(0);
    assert_eq!(finished.stderr(), "");
    finished.stdout().lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn services_and_their_commands_are_completed() {
    let sandbox = Sandbox::new();
    assert_eq!(offered(&sandbox, &["ol"]), ["ollama"]);
    assert_eq!(offered(&sandbox, &["mlx", "re"]), ["restart"]);
    // An alias has the same commands, and is not offered itself.
    assert_eq!(offered(&sandbox, &["mx", "lo"]), offered(&sandbox, &["mlx", "lo"]));
    assert_eq!(offered(&sandbox, &["completions", "p"]), ["powershell"]);
}

#[test]
fn models_and_prompts_of_the_configuration_are_completed() {
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
    for command in ["run", "chat", "launch"] {
        let models = offered(&sandbox, &[command, "--model", "from"]);
        assert_eq!(models, ["from-alias", "from-prompt", "from-run"], "{command}");
    }
    assert_eq!(offered(&sandbox, &["run", "--prompt", ""]), ["commit"]);
    assert!(offered(&sandbox, &["ollama", "pull", "llama3.2:"]).contains(&"llama3.2:3b".to_owned()));
}

#[test]
fn agents_and_their_services_are_completed() {
    let sandbox = Sandbox::new();
    assert_eq!(offered(&sandbox, &["launch", "c"]), ["claude", "codex", "crush"]);
    assert_eq!(offered(&sandbox, &["launch", "codex", "--service", "ol"]), ["ollama"]);
}

#[test]
fn models_on_this_machine_are_completed() {
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
fn a_hanging_server_does_not_delay_completion() {
    let sandbox = Sandbox::new();
    let _holder = support::real::hold(sandbox.port("ollama"));
    assert_eq!(offered(&sandbox, &["ollama", "rm", "llama3.2:3"]), ["llama3.2:3b"]);
}

/// With their states beside them.
#[test]
fn names_of_services_are_completed_with_states() {
    let sandbox = Sandbox::new();
    let config =
        std::fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("the configuration");
    let gateway = Port::free();
    sandbox.write_config(&format!(
        "{config}[gateway]\nport = {}\n[templates.pictures]\nstart_command = \"x {{port}}\"\ndefault_port = 1\n\
         [instances.coder]\ntemplate = \"mlx\"\ntags = [\"code\"]\n[instances.comfy]\ntemplate = \"pictures\"\n",
        gateway.number()
    ));
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    let lines = |words: &[&str]| -> Vec<String> {
        let completion = sandbox.fusion(["--", "fusion"].into_iter().chain(words.iter().copied()));
        let finished = completion.env("_FUSION_COMPLETE", "fish").run().assert_code(0);
        finished.stdout().lines().map(str::to_owned).collect()
    };
    assert_eq!(lines(&["down", "o"]), ["ollama\tready"]);
    assert_eq!(lines(&["down", "ollama", "co"]), ["coder\tstopped", "comfy\tstopped"]);
    assert_eq!(offered(&sandbox, &["remove", ""])[..3], ["coder", "comfy", "--quiet"]);
    assert_eq!(lines(&["log", "gat"]), ["gateway\tstopped"]);
    assert_eq!(offered(&sandbox, &["coder", "run", "--model", "llama3.2:3"]), ["llama3.2:3b"]);
    assert_eq!(lines(&["ol"]), ["ollama\tready: Start, stop, watch and prompt Ollama"]);
    assert_eq!(lines(&["code"]), ["coder\tstopped: Start, stop, watch and prompt coder, an instance of mlx"]);
    assert_eq!(offered(&sandbox, &["ps", "--tag", ""]), ["code"]);
    assert_eq!(offered(&sandbox, &["create", "x", "--template", "p"]), ["pictures"]);
    assert_eq!(offered(&sandbox, &["templates", "ml"]), ["mlx"]);
    assert_eq!(offered(&sandbox, &["ps", "--state", "re"]), ["ready"]);
    sandbox.fusion(["ollama", "down"]).run().assert_code(0);
}

#[test]
fn configuration_keys_are_completed() {
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
fn completion_needs_and_makes_no_configuration() {
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

/// zsh then runs the whole script as the function, in place of the first completion.
#[test]
#[expect(clippy::print_stderr, reason = "the user must see what did not run")]
fn zsh_completes_at_the_first_tab() {
    let sandbox = Sandbox::new();
    let script = sandbox.fusion(["completions", "zsh"]).run().assert_code(0).stdout();
    assert!(script.starts_with("#compdef fusion\n") && script.ends_with("\"$@\"; fi\n"), "{script}");
    if real::find("zsh").is_none() {
        assert!(!real::is_required("zsh"), "there is no zsh on PATH");
        eprintln!("NOT RUN: the first completion of zsh, which is not on PATH");
        return;
    }
    let functions = sandbox.root().join("functions");
    std::fs::create_dir(&functions).expect("the sandbox is writable");
    std::fs::write(functions.join("_fusion"), script).expect("the sandbox is writable");
    let program = "PATH=${3%/*}:$PATH; fpath=(\"$1\"); compdef() { :; }; _describe() { print -r -- ${(P)3}; }
        autoload -Uz _fusion; words=(fusion ollama unl); CURRENT=3; _fusion";
    let zsh = sandbox
        .command("zsh")
        .arg("-fc")
        .arg(program)
        .arg("zsh")
        .arg(&functions)
        .arg("-")
        .arg(env!("CARGO_BIN_EXE_fusion"));
    let completed = zsh.run().assert_code(0);
    assert!(completed.stdout().starts_with("unload:"), "{completed}");
}

#[test]
fn fixed_values_of_options_are_completed() {
    let sandbox = Sandbox::new();
    assert_eq!(offered(&sandbox, &["ollama", "run", "--reasoning", ""]), ["show", "hide"]);
    assert_eq!(offered(&sandbox, &["mlx", "run", "--reasoning=h"]), ["--reasoning=hide"]);
    assert_eq!(offered(&sandbox, &["--color", ""]), ["auto", "always", "never"]);
    assert_eq!(offered(&sandbox, &["ps", "--color=al"]), ["--color=always"]);
}

/// An interactive bash that has read the script. In it, `fusion` prints its arguments, which show what Tab has written
/// as bash reads it.
struct Bash {
    terminal: Terminal,
    running: Running,
}

impl Bash {
    const START: &str = r#"
        PATH=${0%/*}:$PATH; export PATH; INPUTRC=/dev/null exec bash --rcfile "$HOME/rc" -i"#;
    // The bash of macOS is too old to `source` what another program prints.
    const RC: &str = r#"
        PS1='ready> '
        eval "$(fusion completions bash)"
        fusion() { printf 'arguments '; printf '<%s>' "$@"; echo; }"#;
    const END: &str = "\r\nready> ";

    fn start(sandbox: &Sandbox) -> Self {
        std::fs::write(sandbox.home().join("rc"), Self::RC).expect("the sandbox is writable");
        let terminal = Terminal::open();
        let running = terminal.script(sandbox, "-c", Self::START);
        terminal.wait_for("ready> ");
        Self { terminal, running }
    }

    /// The arguments that fusion gets after this was typed, and Enter.
    #[track_caller]
    fn arguments(&mut self, typed: &str) -> String {
        let before = self.terminal.text().len();
        self.terminal.send(format!("{typed}\r").as_bytes());
        let arguments = || {
            let text = self.terminal.text();
            let (_, arguments) = text.get(before..)?.split_once("\narguments ")?;
            Some(arguments.split_once(Self::END)?.0.to_owned())
        };
        wait_until(&format!("bash runs {typed:?}"), || arguments().is_some());
        arguments().expect("it was there")
    }

    fn end(mut self) {
        self.terminal.send(b"exit\r");
        self.running.finish().assert_code(0);
        self.terminal.finish();
    }
}

/// Adds to a configuration that names free ports, because completion would ask a server on this machine.
fn append(sandbox: &Sandbox, text: &str) {
    let file = sandbox.config_dir().join("config.toml");
    let before = std::fs::read_to_string(file).expect("there is a configuration");
    sandbox.write_config(&format!("{before}\n{text}"));
}

#[test]
fn bash_keeps_text_before_colon_and_equals_sign() {
    let sandbox = Sandbox::new();
    append(&sandbox, "[prompts.commit]\nmodel = \"a:1\"\n[aliases]\n\"a:b:c\" = \"x\"\n\"a:b:d\" = \"x\"\n");
    let mut bash = Bash::start(&sandbox);
    assert_eq!(bash.arguments("fusion ollama re\t"), "<ollama><restart>");
    assert_eq!(bash.arguments("fusion ollama run -m llama3.2\t\t"), "<ollama><run><-m><llama3.2:>");
    assert_eq!(bash.arguments("fusion ollama run -m llama3.2:3\t"), "<ollama><run><-m><llama3.2:3b>");
    assert_eq!(bash.arguments("fusion ollama pull qwen3:\t\t8\t"), "<ollama><pull><qwen3:8b>");
    assert_eq!(bash.arguments("fusion ollama rm a:b\t"), "<ollama><rm><a:b:>");
    assert_eq!(bash.arguments("fusion ollama rm a:b:d\t"), "<ollama><rm><a:b:d>");
    assert_eq!(bash.arguments("fusion ollama run --prompt=com\t"), "<ollama><run><--prompt=commit>");
    assert_eq!(bash.arguments("fusion ollama run --model=a:1\t"), "<ollama><run><--model=a:1>");
    assert_eq!(
        bash.arguments("fusion ollama run --reasoning=\t\ts\tHi"),
        "<ollama><run><--reasoning=show><Hi>"
    );
    assert_eq!(bash.arguments("fusion ollama run --prompt=co\tHi -m qwen3:8\t"), {
        "<ollama><run><--prompt=commit><Hi><-m><qwen3:8b>"
    });
    bash.end();
}

/// States stand beside names that bash only lists, and never in what it writes into the line.
#[test]
fn bash_lists_states_beside_names() {
    let sandbox = Sandbox::new();
    append(&sandbox, "[instances.mxl]\ntemplate = \"ollama\"\n");
    let offered = |line: &str, kind: &str| {
        let part = line.rsplit(' ').next().unwrap_or_default();
        let completion = sandbox.fusion(["--", line, part, kind]).env("_FUSION_COMPLETE", "bash");
        completion.run().assert_code(0).stdout()
    };
    let (listing, tab) = ("63", "9");
    assert_eq!(offered("fusion down m", listing), "mlx (stopped)\nmxl (stopped)\n");
    assert_eq!(offered("fusion down m", tab), "mlx \nmxl \n");
    // What is alone is written.
    assert_eq!(offered("fusion down ml", listing), "mlx \n");
    let first = offered("fusion m", listing);
    assert!(first.contains("mlx (stopped)\n") && first.contains("models \n"), "{first}");
}

#[test]
fn bash_quotes_names_that_need_it() {
    let sandbox = Sandbox::new();
    let names = ["sp ace", "dollar$x", "quo'te", "double\\\"x", "bang!", "semi;x", "tag:sp ace"];
    let aliases: String = names.map(|name| format!("\"{name}\" = \"x\"\n")).concat();
    append(&sandbox, &format!("[aliases]\n{aliases}"));
    let mut bash = Bash::start(&sandbox);
    for (typed, name) in [
        ("sp\t", "sp ace"),
        ("sp\\ a\t", "sp ace"),
        ("'sp a\t", "sp ace"),
        ("\"sp a\t", "sp ace"),
        ("dol\t", "dollar$x"),
        ("'dol\t", "dollar$x"),
        ("\"dol\t", "dollar$x"),
        ("quo\t", "quo'te"),
        ("'quo\t", "quo'te"),
        ("\"quo\t", "quo'te"),
        ("double\t", "double\"x"),
        ("\"double\t", "double\"x"),
        ("bang\t", "bang!"),
        ("\"bang\t", "bang!"),
        ("semi\t", "semi;x"),
        ("tag:\t", "tag:sp ace"),
        ("'tag:sp\t", "tag:sp ace"),
    ] {
        let arguments = bash.arguments(&format!("fusion ollama rm {typed}"));
        assert_eq!(arguments, format!("<ollama><rm><{name}>"), "{typed:?}");
    }
    bash.end();
}

#[test]
fn bash_completes_files_of_options_and_redirections() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.project().join("two words")).expect("the sandbox is writable");
    std::fs::write(sandbox.project().join("two words/notes:1.md"), "").expect("the sandbox is writable");
    std::fs::write(sandbox.home().join("at home"), "").expect("the sandbox is writable");
    let mut bash = Bash::start(&sandbox);
    let home = sandbox.home();
    assert_eq!(bash.arguments("fusion mlx run -f two\tno\t"), "<mlx><run><-f><two words/notes:1.md>");
    assert_eq!(bash.arguments("fusion mlx run --file=two\tno\t"), "<mlx><run><--file=two words/notes:1.md>");
    assert_eq!(
        bash.arguments("fusion mlx run -f ~/at\t"),
        format!("<mlx><run><-f><{}/at home>", home.display())
    );
    assert_eq!(bash.arguments("fusion mlx run Hi 2>/dev/null <two\tno\t --reasoning s\t"), {
        "<mlx><run><Hi><--reasoning><show>"
    });
    bash.end();
}
