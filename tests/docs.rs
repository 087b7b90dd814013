//! The pages are correct: their sessions are run, their configurations are read, their tables are complete.
//!
//! The sessions run with programs that play the runtimes. In their output every number may differ, and so may the
//! number of spaces between words; a line of `...` stands for any lines.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use support::{Finished, Sandbox};

const README: &str = include_str!("../README.md");
const CONFIGURATION: &str = include_str!("../docs/configuration.md");
const JSON: &str = include_str!("../docs/json.md");

/// Every page, with its path.
const PAGES: [(&str, &str); 10] = [
    ("README.md", README),
    ("docs/configuration.md", CONFIGURATION),
    ("docs/agents.md", include_str!("../docs/agents.md")),
    ("docs/chat.md", include_str!("../docs/chat.md")),
    ("docs/json.md", JSON),
    ("docs/architecture.md", include_str!("../docs/architecture.md")),
    ("docs/adding-a-runtime.md", include_str!("../docs/adding-a-runtime.md")),
    ("docs/performance.md", include_str!("../docs/performance.md")),
    ("docs/troubleshooting.md", include_str!("../docs/troubleshooting.md")),
    (".github/CONTRIBUTING.md", include_str!("../.github/CONTRIBUTING.md")),
];

/// Texts of the pages that differ in the sandbox.
const MODEL: &str = "/home/me/fusion/tests/models/tiny";
const SENTENCE: &str = "Hello! This is a tiny model on your own machine.";
const FAKE_SENTENCE: &str = "Hello from the fake runtime.";

/// The speed of an answer that arrives at once is not shown. Agents need tool calls and room for them.
const FAKE_RUNTIME: &str = "token-after=20 runs=true version=0.20.0 context=65536";

/// The blocks of code in this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    let blocks = page.split(opening.as_str()).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

/// The part of the README under this heading.
fn section(heading: &str) -> &'static str {
    let rest = README.split_once(&format!("\n## {heading}\n")).expect("the section is there").1;
    rest.split("\n## ").next().unwrap_or_default()
}

/// Everything in backticks.
fn code_in(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Commands, each with what it prints.
fn session(block: &str) -> Vec<(&str, String)> {
    let mut steps: Vec<(&str, String)> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push((command, String::new()));
        } else {
            let (_, output) = steps.last_mut().expect("a session starts with a command");
            output.push_str(line);
            output.push('\n');
        }
    }
    steps
}

/// The lines, with every number as `N`, and words joined by one space.
fn normalized(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let mut result = String::new();
        for word in line.split_whitespace() {
            let mut in_number = false;
            for character in word.chars() {
                if character.is_ascii_digit() {
                    if !in_number {
                        result.push('N');
                    }
                    in_number = true;
                } else if !(in_number && character == '.') {
                    in_number = false;
                    result.push(character);
                }
            }
            result.push(' ');
        }
        result.trim_end().to_owned()
    };
    text.lines().map(line).collect()
}

/// Whether the lines are those of the page, where a line of `...` stands for any lines.
fn agrees(page: &[String], actual: &[String]) -> bool {
    match page.split_first() {
        None => actual.is_empty(),
        Some((first, rest)) if first == "..." => {
            (0..=actual.len()).any(|skipped| agrees(rest, &actual[skipped..]))
        }
        Some((first, rest)) => actual.first() == Some(first) && agrees(rest, &actual[1..]),
    }
}

fn shell(sandbox: &Sandbox, command: &str) -> Finished {
    let programs = Path::new(env!("CARGO_BIN_EXE_fusion")).parent().expect("a directory").display();
    let script = format!("PATH={programs}:$PATH; exec 2>&1; {command}");
    sandbox.command("bash").arg("-c").arg(script).env("FAKE_RUNTIME", FAKE_RUNTIME).run()
}

/// A sandbox with agents of known versions, and a store in which Ollama has a model.
fn stage() -> Sandbox {
    let sandbox = Sandbox::new();
    let agents =
        [("codex", "codex-cli 0.171.0"), ("claude", "2.1.332 (Claude Code)"), ("opencode", "1.18.33")];
    for (program, version) in agents {
        support::write_program(&sandbox.bin().join(program), &format!("#!/bin/sh\necho \"{version}\"\n"));
    }
    let manifest = sandbox.home().join(".ollama/models/manifests/registry.ollama.ai/library/llama3.2/3b");
    std::fs::create_dir_all(manifest.parent().expect("a directory")).expect("the sandbox is writable");
    std::fs::write(manifest, "{}").expect("the sandbox is writable");
    sandbox
}

/// Runs the sessions of a page, and returns how many commands they have.
#[track_caller]
fn run_sessions(sandbox: &Sandbox, page: &str) -> usize {
    let model = sandbox.model().display().to_string();
    let steps: Vec<_> = blocks(page, "console").into_iter().flat_map(session).collect();
    for (command, expected) in &steps {
        let actual = shell(sandbox, command).assert_code(0).stdout();
        let actual = actual.replace(&model, MODEL).replace(FAKE_SENTENCE, SENTENCE);
        let actual = actual.replace(&sandbox.config_dir().display().to_string(), "~/.config/fusion");
        assert!(
            agrees(&normalized(expected), &normalized(&actual)),
            "$ {command}\n--- on the page:\n{expected}\n--- in fact:\n{actual}"
        );
    }
    steps.len()
}

#[test]
fn every_session_prints_what_is_shown() {
    const OF_AGENTS: &str = "docs/agents.md";
    // Those of the configuration need a home without one: tests/config_commands/page.rs. Those of agents launch one for
    // the first time.
    let is_other = |path: &str| path != "docs/configuration.md" && path != OF_AGENTS;
    let (first, second) = (stage(), stage());
    let (of_agents, others) = (PAGES.iter().filter(|(path, _)| *path == OF_AGENTS), PAGES.iter());
    let others = others.filter(|(path, _)| is_other(path)).map(|(_, page)| run_sessions(&first, page));
    let compared =
        others.sum::<usize>() + of_agents.map(|(_, page)| run_sessions(&second, page)).sum::<usize>();
    assert!(compared > 10, "only {compared} commands were found");
    for sandbox in [first, second] {
        shell(&sandbox, "fusion down").assert_code(0);
        sandbox.assert_nothing_runs();
    }
}

/// They install things, so `.ci/run` runs the first, and the second runs this.
#[test]
fn the_checks_run_the_first_commands() {
    let commands: Vec<&str> = blocks(README, "sh").into_iter().flat_map(str::lines).collect();
    let [first, second] = commands[..] else { panic!("not two commands: {commands:?}") };
    assert!(first.starts_with("cargo run --release -- mlx run --install "), "{first}");
    assert_eq!(second, "cargo test");
}

#[test]
fn every_configuration_is_valid() {
    for block in PAGES.iter().flat_map(|(_, page)| blocks(page, "toml")) {
        let sandbox = Sandbox::new();
        sandbox.write_config(block);
        sandbox.fusion(["config", "check"]).run_in_process().assert_code(0);
    }
}

#[test]
fn the_fresh_configuration_is_shown() {
    let sandbox = Sandbox::without_config();
    let fresh = sandbox.fusion(["config", "show"]).run_in_process().assert_code(0).stdout();
    let set = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(set(blocks(README, "toml")[0]), set(&fresh));
}

#[test]
fn every_command_is_listed() {
    let mut command = fusion::cli::tree::command(fusion::core::runtimes::TABLE, &[]);
    command.build();
    let section = section("Commands");
    let words: BTreeSet<&str> =
        code_in(section).into_iter().flat_map(|code| code.split([' ', ','])).collect();
    let runtime = fusion::core::runtimes::TABLE[0].name();
    let of_runtime = command.find_subcommand(runtime).expect("a runtime").get_subcommands();
    let visible = command.get_subcommands().chain(of_runtime).filter(|command| !command.is_hide_set());
    let missing: Vec<&str> = visible
        .map(clap::Command::get_name)
        .filter(|name| *name != "help" && !words.contains(name))
        .collect();
    assert!(missing.is_empty(), "the page does not list {missing:?}");
}

#[test]
fn the_exit_codes_are_those_of_the_help() {
    let sandbox = Sandbox::new();
    let help = sandbox.fusion(["--help"]).run_in_process().assert_code(0).stdout();
    let of_help = help.split_once("Exit codes:").expect("they are in the help").1;
    let of_help: BTreeSet<u8> = of_help.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let rows = section("Exit codes").lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    let of_page: BTreeSet<u8> = rows.filter_map(|code| code.parse().ok()).collect();
    assert_eq!(of_page, of_help);
}

#[test]
fn every_json_field_is_described() {
    let sandbox = Sandbox::new();
    let described = code_in(JSON);
    let mut missing = BTreeSet::new();
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny");
    let commands: [&[&str]; 8] = [
        &["mlx", "up", "--json"],
        &["mlx", "ps", "--json"],
        &["mlx", "health", "--json"],
        &["mlx", "run", "--json", "Hello"],
        &["mlx", "down", "--json"],
        &["mlx", "show", "--json", tiny],
        &["mlx", "models", "--json"],
        &["doctor", "--json"],
    ];
    for command in commands {
        let json = sandbox.fusion(command.iter().copied()).run().json();
        collect_missing(&json, &described, &mut missing);
    }
    assert!(missing.is_empty(), "the page does not describe {missing:?}");
}

fn collect_missing(json: &serde_json::Value, described: &BTreeSet<&str>, missing: &mut BTreeSet<String>) {
    for element in json.as_array().into_iter().flatten() {
        collect_missing(element, described, missing);
    }
    for (name, value) in json.as_object().into_iter().flatten() {
        if !described.contains(name.as_str()) {
            missing.insert(name.clone());
        }
        collect_missing(value, described, missing);
    }
}

#[test]
fn every_named_file_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_path = |code: &&str| {
        let starts = ["src/", "tests/", "benches/", "packaging/", ".ci/", ".config/"];
        starts.iter().any(|start| code.starts_with(start))
            && !code.contains([' ', '*'])
            && !code.contains("NAME")
    };
    let named = |page: &'static str| code_in(page).into_iter().filter(is_path);
    let named = PAGES.iter().flat_map(|(path, page)| named(page).map(move |name| (path, name)));
    let missing: Vec<_> = named.filter(|(_, name)| !root.join(name).exists()).collect();
    assert!(missing.is_empty(), "named, and not there: {missing:?}");
}

#[test]
fn every_link_leads_to_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for (path, page) in PAGES {
        let directory = root.join(path).parent().expect("a directory").to_owned();
        for target in page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if !target.contains("://") && !target.is_empty() {
                assert!(directory.join(target).exists(), "{path} links to {target}");
                links += 1;
            }
        }
    }
    assert!(links > 5, "only {links} links were found");
}

#[test]
fn the_readme_has_at_most_180_lines() {
    assert!(README.lines().count() <= 180);
}
