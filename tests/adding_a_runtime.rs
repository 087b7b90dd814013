//! Adding a runtime is one file and one table entry.
//!
//! Proven with an imaginary server: the file is `support/with_tabby/tabby.rs`, the entry is in
//! `support/with_tabby/main.rs`, and everything here follows.

mod support;

use std::path::Path;

use support::ports::Port;
use support::{Invocation, Sandbox};

/// A sandbox in which `tabby-server` can be had as well.
struct WithTabby {
    sandbox: Sandbox,
    port: Port,
}

impl WithTabby {
    fn new() -> Self {
        let (sandbox, port) = (Sandbox::new(), Port::free());
        std::os::unix::fs::symlink(support::fake_runtime(), sandbox.bin().join("tabby-server"))
            .expect("a link");
        let with_tabby = Self { sandbox, port };
        with_tabby.configure();
        with_tabby
    }

    fn configure(&self) {
        let file = self.sandbox.config_dir().join("config.toml");
        let others = std::fs::read_to_string(&file).expect("a configuration");
        let (port, model) = (self.port.number(), self.sandbox.model());
        let model = model.display();
        let tabby = format!(
            "[tabby_server]\nport = {port}\nmodel = \"{model}\"\n\n[tabby_run]\nmodel = \"{model}\"\n"
        );
        self.sandbox.write_config(&format!("{others}\n{tabby}"));
    }

    fn fusion(&self, words: &str) -> Invocation {
        let program = self.sandbox.command(env!("CARGO_BIN_EXE_fusion-with-tabby"));
        let invocation = words.split_whitespace().fold(program, Invocation::arg);
        invocation.mask(format!(":{}", self.port.number()), ":[TABBY]")
    }
}

#[test]
fn without_the_entry_there_is_no_such_command() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.fusion(["tabby", "up"]).run(), @"
    exit 2
    [stderr]
    error: unrecognized subcommand 'tabby'

    Usage: fusion [OPTIONS] [COMMAND]

    For more information, try '--help'.
    ");
}

#[test]
fn its_help_equals_that_of_other_runtimes() {
    let with_tabby = WithTabby::new();
    let page = |words: &str| with_tabby.fusion(words).run().assert_code(0).stdout();
    for command in ["up", "down", "restart", "ps", "log", "health", "run"] {
        let of_mlx = page(&format!("mlx {command} --help"));
        let expected = of_mlx.replace(" mlx ", " tabby ");
        assert_eq!(page(&format!("tabby {command} --help")), expected);
        assert_eq!(page(&format!("tb {command} --help")), expected);
    }
    let page = page("--help");
    let lines = page.lines().filter(|line| line.contains("Tabby"));
    insta::assert_snapshot!(lines.map(str::trim).collect::<Vec<_>>().join("\n"), @"tabby        Start, stop, watch and prompt Tabby [alias: tb]");
}

#[test]
fn it_has_configuration_tables() {
    let with_tabby = WithTabby::new();
    std::fs::remove_file(with_tabby.sandbox.config_dir().join("config.toml")).expect("a configuration");
    let fresh = with_tabby.fusion("config show").run().assert_code(0).stdout();
    assert!(!fresh.contains("[tabby"), "{fresh}");
    with_tabby.fusion("config get tabby_server.port").run().assert_stdout("5005\n");
    with_tabby.fusion("config set tabby_run.temperature 0.1").run().assert_code(0);
    let changed = with_tabby.fusion("config show").run().assert_code(0).stdout();
    assert_eq!(changed, format!("{fresh}\n[tabby_run]\ntemperature = 0.1\n"));
    with_tabby.fusion("config get tabby_run.temperature").run().assert_stdout("0.1\n");
    with_tabby.fusion("config check").run().assert_code(0);
    with_tabby.fusion("config set tabby_run.temperatur 0.1").run().assert_code(2);
}

#[test]
fn two_starting_runtimes_on_one_address_are_refused() {
    let with_tabby = WithTabby::new();
    let port = with_tabby.sandbox.port("mlx");
    with_tabby.fusion("config set mlx_server.auto_start true").run().assert_code(0);
    with_tabby.fusion("config set tabby_server.auto_start true").run().assert_code(0);
    with_tabby.fusion(&format!("config set tabby_server.port {port}")).run().assert_code(2);
}

#[test]
fn it_can_be_started_used_and_stopped() {
    let with_tabby = WithTabby::new();
    let ps = |code: i32| with_tabby.fusion("tabby ps --json").run().assert_code(code).json();
    assert_eq!(ps(3)["state"], "stopped");

    insta::assert_snapshot!(with_tabby.fusion("tabby up").run(), @"
    exit 0
    [stdout]
    tabby is up at http://127.0.0.1:[TABBY] (pid [PID])
    ");

    let ready = ps(0);
    assert_eq!((&ready["state"], &ready["started_by"]), (&"ready".into(), &"fusion".into()));
    assert_eq!(ready["models"], serde_json::json!([with_tabby.sandbox.model()]));
    assert!(ready["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{ready}");
    let all = with_tabby.fusion("ps --json").run().assert_code(0).json();
    let names: Vec<&str> =
        all.as_array().expect("an array").iter().filter_map(|row| row["runtime"].as_str()).collect();
    assert_eq!(names, ["ollama", "mlx", "llama", "tabby"]);

    with_tabby.fusion("tabby run Hi").run().assert_stdout("Hello from the fake runtime.\n");
    with_tabby.fusion("tabby health").run().assert_code(0);
    let log = with_tabby.fusion("tabby log").run().assert_code(0).stdout();
    assert!(log.contains("POST /v1/chat/completions"), "{log}");

    with_tabby.fusion("tabby restart").run().assert_code(0);
    let restarted = ps(0);
    assert_ne!(restarted["pid"], ready["pid"]);

    with_tabby.fusion("tabby down").run().assert_code(0);
    assert_eq!(ps(3)["state"], "stopped");
    with_tabby.sandbox.assert_nothing_runs();
}

#[test]
fn no_server_inherits_its_withheld_variables() {
    let with_tabby = WithTabby::new();
    for service in ["tabby", "ollama"] {
        let dump = with_tabby.sandbox.root().join(service);
        let up = with_tabby.fusion(&format!("{service} up"));
        let up = up.env("FAKE_RUNTIME", format!("dump={}", dump.display()));
        up.env("TABBY_PORT", "1").env("OTHER_PORT", "2").run().assert_code(0);
        let dumped = std::fs::read_to_string(dump).expect("a dump");
        assert!(dumped.contains("OTHER_PORT") && !dumped.contains("TABBY_PORT"), "{dumped}");
        with_tabby.fusion(&format!("{service} down")).run().assert_code(0);
    }
}

#[test]
fn it_has_completions_and_manual_pages() {
    let with_tabby = WithTabby::new();
    let completed = with_tabby.fusion("-- fusion tabb").env("_FUSION_COMPLETE", "fish").run().assert_code(0);
    insta::assert_snapshot!(completed, @r"
    exit 0
    [stdout]
    tabby\tstopped: Start, stop, watch and prompt Tabby
    ");
    with_tabby.fusion("man --out pages").run().assert_code(0);
    let page = with_tabby.sandbox.project().join("pages/fusion-tabby-up.1");
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
        if path.is_dir()
            && !path.ends_with("core/runtimes")
            && !path.ends_with("tests")
            && !path.ends_with("faults")
        {
            look_for_names(&path, offenders);
        }
        let is_test = ["tests.rs", "faults.rs", "like_macos.rs"].iter().any(|name| path.ends_with(name));
        if path.is_file() && !path.ends_with("core/runtimes.rs") && !is_test {
            let text = std::fs::read_to_string(&path).expect("source is text");
            let code = text.rsplit_once("#[cfg(test)]\nmod tests {").map_or(&*text, |(code, _)| code);
            let named = code.lines().filter(|line| !line.trim_start().starts_with("//")).filter(|line| {
                let line = line.to_lowercase();
                ["ollama", "mlx", "llama.cpp", "llama-server", "llamacpp"]
                    .iter()
                    .any(|name| line.contains(name))
            });
            offenders.extend(named.map(|line| format!("{}: {}", path.display(), line.trim())));
        }
    }
}
