//! README.md is correct: its sessions are run, its configurations are read, its tables are complete.
//!
//! The sessions run with programs that play the runtimes. In their output every number may differ, and so may the number
//! of spaces between words; a line of `...` stands for any lines.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use support::{Finished, Sandbox};

const README: &str = include_str!("../README.md");

/// Texts of the page that differ in the sandbox.
const MODEL: &str = "/home/me/fusion/tests/models/tiny";
const SENTENCE: &str = "Hello! This is a tiny model on your own machine.";
const FAKE_SENTENCE: &str = "Hello from the fake runtime.";

/// The blocks of code in this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let opening = format!("```{language}\n");
    let blocks = README.split(opening.as_str()).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

/// The part of the page under this heading.
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
    sandbox.command("bash").arg("-c").arg(script).run()
}

#[test]
fn every_session_prints_what_is_shown() {
    let sandbox = Sandbox::new();
    let model = sandbox.model().display().to_string();
    let mut compared = 0;
    for (command, expected) in blocks("console").into_iter().flat_map(session) {
        let actual = shell(&sandbox, command).assert_code(0).stdout();
        let actual = actual.replace(&model, MODEL).replace(FAKE_SENTENCE, SENTENCE);
        assert!(
            agrees(&normalized(&expected), &normalized(&actual)),
            "$ {command}\n--- on the page:\n{expected}\n--- in fact:\n{actual}"
        );
        compared += 1;
    }
    assert!(compared > 10, "only {compared} commands were found");
    shell(&sandbox, "fusion down").assert_code(0);
    sandbox.assert_nothing_runs();
}

/// They install things, so `.ci/run` runs the first, and the second runs this.
#[test]
fn the_checks_run_the_first_commands() {
    let commands: Vec<&str> = blocks("sh").into_iter().flat_map(str::lines).collect();
    let [first, second] = commands[..] else { panic!("not two commands: {commands:?}") };
    assert!(first.starts_with("cargo run --release -- mlx run --install "), "{first}");
    assert_eq!(second, "cargo test");
}

#[test]
fn every_configuration_is_valid() {
    for block in blocks("toml") {
        let sandbox = Sandbox::new();
        sandbox.write_config(block);
        sandbox.fusion(["config", "check"]).run().assert_code(0);
    }
}

#[test]
fn the_fresh_configuration_is_shown() {
    let sandbox = Sandbox::without_config();
    let fresh = sandbox.fusion(["config", "show"]).run().assert_code(0).stdout();
    let set = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(set(blocks("toml")[0]), set(&fresh));
}

#[test]
fn every_command_is_listed() {
    let mut command = fusion::cli::dispatch::command(fusion::core::runtimes::TABLE);
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
    let help = sandbox.fusion(["--help"]).run().assert_code(0).stdout();
    let of_help = help.split_once("Exit codes:").expect("they are in the help").1;
    let of_help: BTreeSet<u8> = of_help.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let rows = section("Exit codes").lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    let of_page: BTreeSet<u8> = rows.filter_map(|code| code.parse().ok()).collect();
    assert_eq!(of_page, of_help);
}

#[test]
fn every_json_field_is_described() {
    let sandbox = Sandbox::new();
    let described = code_in(section("JSON"));
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
    let named = code_in(README).into_iter().filter(|code| {
        ["src/", "tests/", ".ci/"].iter().any(|directory| code.starts_with(directory)) && !code.contains(' ')
    });
    let missing: Vec<&str> = named.filter(|path| !root.join(path).exists()).collect();
    assert!(missing.is_empty(), "the page names {missing:?}");
}
