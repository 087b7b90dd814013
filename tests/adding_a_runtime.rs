//! Adding a runtime is one file and one table entry. Proven with llama.cpp's `llama-server`: the file is
//! `support/with_llama/llama.rs`, the entry is in `support/with_llama/main.rs`, and everything here follows.

mod support;

use std::path::Path;

use support::ports::Port;
use support::{Invocation, Sandbox};

/// A sandbox in which `llama-server` can be had as well.
struct WithLlama {
    sandbox: Sandbox,
    port: Port,
}

impl WithLlama {
    fn new() -> Self {
        let (sandbox, port) = (Sandbox::new(), Port::free());
        std::os::unix::fs::symlink(support::fake_runtime(), sandbox.bin().join("llama-server"))
            .expect("a link");
        let with_llama = Self { sandbox, port };
        with_llama.configure();
        with_llama
    }

    fn configure(&self) {
        let file = self.sandbox.config_dir().join("config.toml");
        let others = std::fs::read_to_string(&file).expect("a configuration");
        let (port, model) = (self.port.number(), self.sandbox.model());
        let model = model.display();
        let llama = format!(
            "[llama_server]\nport = {port}\nmodel = \"{model}\"\n\n[llama_run]\nmodel = \"{model}\"\n"
        );
        self.sandbox.write_config(&format!("{others}\n{llama}"));
    }

    fn fusion(&self, words: &str) -> Invocation {
        let program = self.sandbox.command(env!("CARGO_BIN_EXE_fusion-with-llama"));
        let invocation = words.split_whitespace().fold(program, Invocation::arg);
        invocation.mask(format!(":{}", self.port.number()), ":[LLAMA]")
    }
}

#[test]
fn without_the_entry_there_is_no_such_command() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.fusion(["llama", "up"]).run(), @"
    exit 2
    [stderr]
    error: unrecognized subcommand 'llama'

      tip: a similar subcommand exists: 'ollama'

    Usage: fusion [OPTIONS] [COMMAND]

    For more information, try '--help'.
    ");
}

#[test]
fn its_help_equals_that_of_other_runtimes() {
    let with_llama = WithLlama::new();
    let page = |words: &str| with_llama.fusion(words).run().assert_code(0).stdout();
    for command in ["up", "down", "restart", "ps", "log", "health", "run"] {
        let of_mlx = page(&format!("mlx {command} --help"));
        let expected = of_mlx.replace(" mlx ", " llama ");
        assert_eq!(page(&format!("llama {command} --help")), expected);
        assert_eq!(page(&format!("ll {command} --help")), expected);
    }
    let page = page("--help");
    let lines = page.lines().filter(|line| line.contains("llama.cpp"));
    insta::assert_snapshot!(lines.map(str::trim).collect::<Vec<_>>().join("\n"), @"llama        Start, stop, watch and prompt llama.cpp [alias: ll]");
}

#[test]
fn it_has_configuration_tables() {
    let with_llama = WithLlama::new();
    std::fs::remove_file(with_llama.sandbox.config_dir().join("config.toml")).expect("a configuration");
    let fresh = with_llama.fusion("config show").run().assert_code(0).stdout();
    assert!(!fresh.contains("[llama"), "{fresh}");
    with_llama.fusion("config get llama_server.port").run().assert_stdout("8081\n");
    with_llama.fusion("config set llama_run.temperature 0.1").run().assert_code(0);
    let changed = with_llama.fusion("config show").run().assert_code(0).stdout();
    assert_eq!(changed, format!("{fresh}\n[llama_run]\ntemperature = 0.1\n"));
    with_llama.fusion("config get llama_run.temperature").run().assert_stdout("0.1\n");
    with_llama.fusion("config check").run().assert_code(0);
    with_llama.fusion("config set llama_run.temperatur 0.1").run().assert_code(2);
}

#[test]
fn two_runtimes_on_one_address_are_refused() {
    let with_llama = WithLlama::new();
    let port = with_llama.sandbox.port("mlx");
    with_llama.fusion(&format!("config set llama_server.port {port}")).run().assert_code(2);
}

#[test]
fn it_can_be_started_used_and_stopped() {
    let with_llama = WithLlama::new();
    let ps = |code: i32| with_llama.fusion("llama ps --json").run().assert_code(code).json();
    assert_eq!(ps(3)["state"], "stopped");

    insta::assert_snapshot!(with_llama.fusion("llama up").run(), @"
    exit 0
    [stdout]
    llama is up at http://127.0.0.1:[LLAMA] (pid [PID])
    ");

    let ready = ps(0);
    assert_eq!((&ready["state"], &ready["started_by"]), (&"ready".into(), &"fusion".into()));
    assert_eq!(ready["models"], serde_json::json!([with_llama.sandbox.model()]));
    assert!(ready["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{ready}");
    let all = with_llama.fusion("ps --json").run().assert_code(0).json();
    let names: Vec<&str> =
        all.as_array().expect("an array").iter().filter_map(|row| row["runtime"].as_str()).collect();
    assert_eq!(names, ["ollama", "mlx", "llama"]);

    with_llama.fusion("llama run Hi").run().assert_stdout("Hello from the fake runtime.\n");
    with_llama.fusion("llama health").run().assert_code(0);
    let log = with_llama.fusion("llama log").run().assert_code(0).stdout();
    assert!(log.contains("POST /v1/chat/completions"), "{log}");

    with_llama.fusion("llama restart").run().assert_code(0);
    let restarted = ps(0);
    assert_ne!(restarted["pid"], ready["pid"]);

    with_llama.fusion("llama down").run().assert_code(0);
    assert_eq!(ps(3)["state"], "stopped");
    with_llama.sandbox.assert_nothing_runs();
}

#[test]
fn it_has_completions_and_manual_pages() {
    let with_llama = WithLlama::new();
    let completed = with_llama.fusion("-- fusion ll").env("_FUSION_COMPLETE", "fish").run().assert_code(0);
    insta::assert_snapshot!(completed, @r"
    exit 0
    [stdout]
    llama\tStart, stop, watch and prompt llama.cpp
    ");
    with_llama.fusion("man --out pages").run().assert_code(0);
    let page = with_llama.sandbox.project().join("pages/fusion-llama-up.1");
    assert!(Path::new(&page).is_file());
}

/// What is particular to a runtime has one home, or a new one would need more than its file.
#[test]
fn no_runtime_is_named_outside_its_file() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut offenders = Vec::new();
    look_for_names(&source, &mut offenders);
    assert!(offenders.is_empty(), "a runtime is named in\n{}", offenders.join("\n"));
}

fn look_for_names(directory: &Path, offenders: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("the source").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("core/runtimes") && !path.ends_with("tests") {
            look_for_names(&path, offenders);
        }
        let is_test = path.ends_with("tests.rs") || path.ends_with("faults.rs");
        if path.is_file() && !path.ends_with("core/runtimes.rs") && !is_test {
            let text = std::fs::read_to_string(&path).expect("source is text");
            let code = text.rsplit_once("#[cfg(test)]\nmod tests {").map_or(&*text, |(code, _)| code);
            let named = code.lines().filter(|line| !line.trim_start().starts_with("//")).filter(|line| {
                let line = line.to_lowercase();
                line.contains("ollama") || line.contains("mlx")
            });
            offenders.extend(named.map(|line| format!("{}: {}", path.display(), line.trim())));
        }
    }
}
