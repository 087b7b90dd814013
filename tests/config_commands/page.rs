//! `docs/configuration.md` tells the truth: its configurations are valid, and its sessions are run.

use super::*;

const PAGE: &str = include_str!("../../docs/configuration.md");

/// The blocks of code in this language.
fn blocks(language: &str) -> impl Iterator<Item = &'static str> {
    let opening = format!("```{language}\n");
    let blocks: Vec<_> = PAGE.split(opening.as_str()).skip(1).collect();
    blocks.into_iter().map(|rest| rest.split("```").next().unwrap_or_default())
}

#[test]
fn every_configuration_is_valid() {
    let sandbox = Sandbox::without_config();
    for block in blocks("toml") {
        sandbox.write_config(block);
        config(&sandbox, ["check"]).assert_code(0);
    }
}

#[test]
fn every_session_goes_as_it_is_shown() {
    let sandbox = Sandbox::without_config();
    let home = sandbox.home();
    let programs = Path::new(env!("CARGO_BIN_EXE_fusion")).parent().expect("a directory").display();
    let shell = |script: &str| {
        let script = format!("PATH={programs}:$PATH; exec 2>&1; {script}");
        sandbox.command("/bin/sh").arg("-c").arg(script).run().stdout()
    };
    // Where macOS would use it, too.
    shell("FUSION_CONFIG_DIR=~/.config/fusion fusion config show");
    let expected: Vec<&str> = blocks("console").flat_map(str::lines).collect();
    let mut actual = Vec::new();
    for command in expected.iter().filter_map(|line| line.strip_prefix("$ ")) {
        let output = shell(&format!("unset FUSION_CONFIG_DIR; {command}"));
        actual.push(format!("$ {command}"));
        actual.extend(output.replace(&home.display().to_string(), "~").lines().map(str::to_owned));
    }
    assert!(!expected.is_empty());
    assert_eq!(actual.join("\n"), expected.join("\n"));
}
