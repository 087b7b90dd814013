//! The sessions of `docs/configuration.md` print what is shown.

use super::*;

const PAGE: &str = include_str!("../../docs/configuration.md");

#[test]
fn every_session_prints_what_is_shown() {
    let sandbox = Sandbox::without_config();
    let home = sandbox.home();
    let programs = Path::new(env!("CARGO_BIN_EXE_fusion")).parent().expect("a directory").display();
    let shell = |script: &str| {
        let script = format!("PATH={programs}:$PATH; exec 2>&1; {script}");
        sandbox.command("/bin/sh").arg("-c").arg(script).run().stdout()
    };
    // Where macOS would use it, too.
    shell("FUSION_CONFIG_DIR=~/.config/fusion fusion config show");
    let sessions = PAGE.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let expected: Vec<&str> = sessions.flat_map(str::lines).collect();
    let mut actual = Vec::new();
    for command in expected.iter().filter_map(|line| line.strip_prefix("$ ")) {
        let output = shell(&format!("unset FUSION_CONFIG_DIR; {command}"));
        actual.push(format!("$ {command}"));
        actual.extend(output.replace(&home.display().to_string(), "~").lines().map(str::to_owned));
    }
    assert!(!expected.is_empty());
    assert_eq!(actual.join("\n"), expected.join("\n"));
}
