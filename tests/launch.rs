//! `fusion launch` with programs that play agents, against the fake runtime.

mod support;

use nix::sys::signal::Signal;
use support::{Finished, Sandbox, processes, wait_until, write_program};

/// An Ollama that serves every wire, with a model that calls tools.
const ABLE: [&str; 3] = ["version=0.20.0", "context=65536", "runs=true"];

/// A sandbox whose Ollama runs with these faults, and in which each agent prints its version, its arguments and what
/// it was given.
fn with_faults(faults: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.faults("ollama", faults);
    sandbox.fusion(["ollama", "up"]).run().assert_code(0);
    install(&sandbox, "codex", "0.171.0");
    install(&sandbox, "claude", "2.1.332");
    install(&sandbox, "aider", "0.86.2");
    sandbox
}

fn install(sandbox: &Sandbox, program: &str, version: &str) {
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo ran >> \"$HOME/versions\"; echo {version}; exit; }}\n\
         printf '%s\\n' \"$@\"\nenv | grep -E '^(ANTHROPIC_|NO_PROXY)' | sort\nexit 7\n"
    );
    write_program(&sandbox.bin().join(program), &script);
}

fn launch<'a>(sandbox: &Sandbox, arguments: impl IntoIterator<Item = &'a str>) -> Finished {
    sandbox.fusion(["launch"].into_iter().chain(arguments)).run()
}

fn down(sandbox: &Sandbox) {
    sandbox.fusion(["down"]).run().assert_code(0);
}

fn chats(sandbox: &Sandbox) -> usize {
    sandbox.log("ollama").matches("POST /v1/chat/completions").count()
}

#[test]
fn an_agent_gets_arguments_and_environment() {
    let sandbox = with_faults(&ABLE);
    let shown = launch(&sandbox, ["claude", "-m", "llama3.2:3b", "--", "-p", "Hi there"]);
    insta::assert_snapshot!(shown, @"
    exit 7
    [stdout]
    -p
    Hi there
    --settings
    [ROOT]/config/data/agents/claude/ollama-llama3-2-3b/settings.json
    --tools
    Bash,Edit,Read,Write
    ANTHROPIC_API_KEY=
    ANTHROPIC_AUTH_TOKEN=fusion
    ANTHROPIC_BASE_URL=http://127.0.0.1:[OLLAMA]
    ANTHROPIC_DEFAULT_HAIKU_MODEL=llama3.2:3b
    ANTHROPIC_DEFAULT_OPUS_MODEL=llama3.2:3b
    ANTHROPIC_DEFAULT_SONNET_MODEL=llama3.2:3b
    ANTHROPIC_MODEL=llama3.2:3b
    [stderr]
    asking llama3.2:3b for a tool call
    ");
    down(&sandbox);
}

#[test]
fn the_second_launch_asks_nothing_again() {
    let sandbox = with_faults(&ABLE);
    let first = launch(&sandbox, ["codex", "-m", "llama3.2:3b"]).assert_code(7);
    assert!(first.stderr().contains("asking llama3.2:3b for a tool call"), "{first}");
    let asked = chats(&sandbox);
    let second = launch(&sandbox, ["codex", "-m", "llama3.2:3b"]).assert_code(7);
    assert_eq!((second.stderr().as_str(), chats(&sandbox)), ("", asked));
    let versions = std::fs::read_to_string(sandbox.home().join("versions")).expect("a file");
    assert_eq!(versions.lines().count(), 1);
    down(&sandbox);
}

#[test]
fn launches_at_once_write_files_one_by_one() {
    let sandbox = with_faults(&ABLE);
    launch(&sandbox, ["claude", "-m", "llama3.2:3b"]).assert_code(7);
    for _ in 0..5 {
        std::fs::remove_dir_all(sandbox.config_dir().join("data/agents/claude"))
            .expect("the files of Claude Code");
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| launch(&sandbox, ["claude", "-m", "llama3.2:3b"]).assert_code(7));
            }
        });
    }
    down(&sandbox);
}

#[test]
fn an_interrupt_ends_the_question_for_versions() {
    let sandbox = Sandbox::new();
    let asked = sandbox.home().join("asked");
    write_program(&sandbox.bin().join("codex"), "#!/bin/sh\necho $$ > \"$HOME/asked\"\nexec sleep 600\n");
    for arguments in [&["launch"][..], &["launch", "codex", "-m", "llama3.2:3b"]] {
        let launched = sandbox.fusion(arguments.iter().copied()).start();
        let pid = || std::fs::read_to_string(&asked).ok()?.trim().parse::<i32>().ok();
        wait_until("its version is asked for", || pid().is_some());
        let agent = pid().expect("it runs");
        launched.signal(Signal::SIGINT);
        launched.finish().assert_code(130);
        assert!(!processes::lives(agent), "{arguments:?}");
        std::fs::remove_file(&asked).expect("it is there");
    }
}

#[test]
fn a_new_digest_or_version_is_asked() {
    let sandbox = Sandbox::new();
    install(&sandbox, "codex", "0.171.0");
    for (server, is_asked) in [
        (["version=0.20.0", "digest=aa"], true),
        (["version=0.20.0", "digest=aa"], false),
        (["version=0.20.0", "digest=bb"], true),
        (["version=0.21.0", "digest=bb"], true),
        (["version=0.20.0", "digest=aa"], false),
    ] {
        sandbox.faults("ollama", &[&server[..], &ABLE[1..]].concat());
        sandbox.fusion(["ollama", "restart"]).run().assert_code(0);
        let launched = launch(&sandbox, ["codex", "-m", "llama3.2:3b"]).assert_code(7);
        let asks = launched.stderr().contains("asking llama3.2:3b for a tool call");
        assert_eq!(asks, is_asked, "{server:?}: {launched}");
    }
    down(&sandbox);
}

#[test]
fn a_name_without_a_tag_is_known_again() {
    let sandbox = with_faults(&[&ABLE[..], &["models=tooly:latest"]].concat());
    let first = launch(&sandbox, ["codex", "-m", "tooly"]).assert_code(7);
    assert!(first.stderr().contains("asking tooly for a tool call"), "{first}");
    let second = launch(&sandbox, ["codex", "-m", "tooly"]).assert_code(7);
    assert_eq!(second.stderr(), "");
    down(&sandbox);
}

#[test]
fn a_model_without_tools_is_refused() {
    let sandbox = with_faults(&["version=0.20.0", "context=65536"]);
    insta::assert_snapshot!(launch(&sandbox, ["codex", "-m", "llama3.2:3b"]), @"
    exit 1
    [stderr]
    asking llama3.2:3b for a tool call
    error: llama3.2:3b calls no tools, and Codex can do nothing without them; it said: Hello from the fake runtime.
    hint: choose a model that calls tools, such as qwen3:8b; or try it with --force
    ");
    launch(&sandbox, ["codex", "-m", "llama3.2:3b", "--force"]).assert_code(7);
    // It needs none.
    launch(&sandbox, ["aider", "-m", "llama3.2:3b"]).assert_code(7);
    down(&sandbox);
}

#[test]
fn a_failed_question_is_told_with_its_cause() {
    let sandbox = with_faults(&["version=0.20.0", "context=65536", "chat-status=500"]);
    insta::assert_snapshot!(launch(&sandbox, ["codex", "-m", "llama3.2:3b"]), @"
    exit 8
    [stderr]
    asking llama3.2:3b for a tool call
    error: cannot ask llama3.2:3b for a tool call
      caused by: the fake runtime was told to fail (HTTP 500)
    hint: see the log of the service, or launch it with --force
    ");
    let forced = launch(&sandbox, ["codex", "-m", "llama3.2:3b", "--force"]).assert_code(7);
    insta::assert_snapshot!(forced.stderr(), @"
    asking llama3.2:3b for a tool call
    warning: cannot ask llama3.2:3b for a tool call: the fake runtime was told to fail (HTTP 500)
    ");
    down(&sandbox);
}

#[test]
fn a_small_window_is_refused_with_the_cure() {
    let sandbox = with_faults(&["version=0.20.0", "context=4096", "runs=true"]);
    insta::assert_snapshot!(launch(&sandbox, ["codex", "-m", "llama3.2:3b"]), @"
    exit 1
    [stderr]
    error: ollama has loaded llama3.2:3b with a context of 4096 tokens, and Codex needs at least 16384
    hint: use a longer context: fusion config set ollama_server.env.OLLAMA_CONTEXT_LENGTH 16384, then fusion ollama restart; or try it with --force
    ");
    launch(&sandbox, ["codex", "-m", "llama3.2:3b", "--force"]).assert_code(7);
    insta::assert_snapshot!(launch(&sandbox, ["aider", "-m", "llama3.2:3b", "--context", "5000"]), @"
    exit 2
    [stderr]
    error: ollama has loaded llama3.2:3b with a context of 4096 tokens, which is less than 5000
    hint: tell it at most 4096, or load more
    ");
    down(&sandbox);
}

#[test]
fn a_small_window_is_found_among_several() {
    let sandbox =
        with_faults(&["version=0.20.0", "context=4096", "runs=true", "models=llama3.2:3b,other:latest"]);
    for model in ["llama3.2:3b", "other"] {
        let refused = launch(&sandbox, ["codex", "-m", model]).assert_code(1);
        let told = format!("error: ollama has loaded {model} with a context of 4096 tokens");
        assert!(refused.stderr().contains(&told), "{refused}");
    }
    down(&sandbox);
}

#[test]
fn an_old_agent_is_refused() {
    let sandbox = with_faults(&ABLE);
    install(&sandbox, "codex", "codex-cli 0.168.9");
    insta::assert_snapshot!(launch(&sandbox, ["codex", "-m", "llama3.2:3b"]), @"
    exit 1
    [stderr]
    error: Codex 0.168.9 is too old: fusion needs 0.169.0 or newer
    hint: install a newer one: npm install --global @openai/codex; or try it with --force
    ");
    launch(&sandbox, ["codex", "-m", "llama3.2:3b", "--force"]).assert_code(7);
    down(&sandbox);
}

#[test]
fn what_cannot_be_launched_is_told() {
    let sandbox = Sandbox::new();
    install(&sandbox, "codex", "0.171.0");
    let cases = [
        vec!["claude", "-m", "llama3.2:3b"],
        vec!["gemini-cli"],
        vec!["cursor-agent", "-m", "x"],
        vec!["claud"],
        vec!["xyz"],
        vec!["codex"],
        vec!["codex", "--service", "none"],
        vec!["codex", "-m", "missing:1b"],
        vec!["codex", "--service", "ollama", "-m", "missing:1b"],
    ];
    let shown = cases.map(|case| (case.join(" "), launch(&sandbox, case)));
    insta::assert_snapshot!(support::table(shown), @"
    # claude -m llama3.2:3b
    exit 4
    [stderr]
    error: Claude Code is not installed: no claude on PATH
    hint: install it: npm install --global @anthropic-ai/claude-code
    # gemini-cli
    exit 2
    [stderr]
    error: fusion does not launch gemini-cli: it speaks only Google's own API, which no local server has
    # cursor-agent -m x
    exit 2
    [stderr]
    error: fusion does not launch cursor-agent: it works only through the servers of its makers
    # claud
    exit 2
    [stderr]
    error: there is no agent claud
    hint: did you mean claude?
    # xyz
    exit 2
    [stderr]
    error: there is no agent xyz
    hint: list the agents: fusion launch
    # codex
    exit 2
    [stderr]
    error: no model is named, and no default service is set
    hint: set one: fusion config set default_service ollama; or name a model with --model
    # codex --service none
    exit 2
    [stderr]
    error: there is no service none
    hint: services: ollama, mlx, llama
    # codex -m missing:1b
    exit 7
    [stderr]
    error: no service has the model missing:1b
    hint: download it: fusion ollama pull missing:1b
    # codex --service ollama -m missing:1b
    exit 7
    [stderr]
    starting ollama, which is not running
    error: the model missing:1b is not on this machine
    hint: download it: fusion ollama pull missing:1b
    ");
    down(&sandbox);
}

#[test]
fn agents_are_listed() {
    let sandbox = Sandbox::new();
    install(&sandbox, "codex", "codex-cli 0.171.0");
    insta::assert_snapshot!(launch(&sandbox, []), @"
    exit 0
    [stdout]
    AGENT      VERSION        WIRE       SERVICES
    codex      0.171.0        responses  ollama, mlx, llama
    claude     not installed  messages   ollama, mlx, llama
    opencode   not installed  chat       ollama, mlx, llama
    aider      not installed  chat       ollama, mlx, llama
    qwen-code  not installed  chat       ollama, mlx, llama
    crush      not installed  chat       ollama, mlx, llama
    pi         not installed  chat       ollama, mlx, llama
    [stderr]
    gemini-cli is not offered: it speaks only Google's own API, which no local server has
    cursor-agent is not offered: it works only through the servers of its makers
    ");
    let json = launch(&sandbox, ["--json"]).assert_code(0).json();
    insta::assert_snapshot!(json[0], @r#"{"installed":true,"name":"codex","services":["ollama","mlx","llama"],"version":"0.171.0","wire":"responses"}"#);
}

#[test]
fn the_printed_line_launches_the_agent() {
    let sandbox = with_faults(&ABLE);
    let printed = launch(&sandbox, ["claude", "-m", "llama3.2:3b", "--print", "--", "-p", "it's $HOME"]);
    let printed = printed.assert_code(0).stdout();
    let direct = launch(&sandbox, ["claude", "-m", "llama3.2:3b", "--", "-p", "it's $HOME"]).assert_code(7);
    let ran = sandbox.command("/bin/sh").arg("-c").arg(&printed).run().assert_code(7);
    assert_eq!(ran.stdout(), direct.stdout());
    down(&sandbox);
}

#[test]
fn json_shows_what_would_be_launched() {
    let sandbox = with_faults(&ABLE);
    let json = launch(&sandbox, ["aider", "-m", "llama3.2:3b", "--json"]).assert_code(0).stdout();
    insta::assert_snapshot!(sandbox.normalized(&json), @r#"
    {
      "service": "ollama",
      "runtime": "ollama",
      "agent": "aider",
      "program": "[ROOT]/bin/aider",
      "model": "llama3.2:3b",
      "url": "http://127.0.0.1:[OLLAMA]",
      "gateway": false,
      "context": 65536,
      "arguments_before": [
        "--model",
        "openai/llama3.2:3b",
        "--weak-model",
        "openai/llama3.2:3b",
        "--editor-model",
        "openai/llama3.2:3b",
        "--openai-api-base",
        "http://127.0.0.1:[OLLAMA]/v1",
        "--no-show-model-warnings",
        "--model-metadata-file",
        "[ROOT]/config/data/agents/aider/ollama-llama3-2-3b/model-metadata.json"
      ],
      "arguments_after": [],
      "env": {
        "OPENAI_API_KEY": "fusion"
      }
    }
    "#);
    let file = sandbox.config_dir().join("data/agents/aider/ollama-llama3-2-3b/model-metadata.json");
    insta::assert_snapshot!(std::fs::read_to_string(file).expect("a file"), @r#"{"openai/llama3.2:3b":{"input_cost_per_token":0.0,"litellm_provider":"openai","max_input_tokens":65536,"max_output_tokens":8192,"mode":"chat","output_cost_per_token":0.0}}"#);
    down(&sandbox);
}

#[test]
fn proxies_do_not_see_requests_to_this_machine() {
    let sandbox = with_faults(&ABLE);
    let launched =
        sandbox.fusion(["launch", "claude", "-m", "llama3.2:3b"]).env("HTTP_PROXY", "http://127.0.0.1:9");
    let shown = launched.run().assert_code(7).stdout();
    assert!(shown.contains("NO_PROXY=127.0.0.1,localhost\n"), "{shown}");
    down(&sandbox);
}

#[test]
fn a_missing_wire_goes_through_the_gateway() {
    let sandbox = Sandbox::new();
    let model = sandbox.model().display().to_string();
    let mlx = support::command_line("mlx", &["runs=true"]);
    sandbox.configure("", &mlx);
    let port = support::ports::Port::free();
    let config = std::fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("a file");
    sandbox.write_config(&format!("{config}\n[gateway]\nport = {}\n", port.number()));
    install(&sandbox, "codex", "0.171.0");
    let launched = launch(&sandbox, ["codex", "-m", &model, "--json"]).assert_code(0);
    let json = launched.json();
    assert_eq!((&json["gateway"], &json["service"]), (&true.into(), &"mlx".into()));
    // Another service may have it, too, and the gateway must not choose that one.
    assert_eq!(json["model"], format!("mlx/{model}"));
    assert_eq!(json["url"], format!("http://127.0.0.1:{}", port.number()));
    assert!(
        launched
            .stderr()
            .contains("mlx does not speak the responses API of Codex: fusion has started the gateway"),
        "{launched}"
    );
    let full = launch(&sandbox, ["codex", "-m", &model, "--full"]).assert_code(2);
    assert!(full.stderr().contains("which cannot translate its own kinds of tools"), "{full}");
    sandbox.fusion(["gateway", "down"]).run().assert_code(0);
    down(&sandbox);
}
