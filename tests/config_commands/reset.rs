//! `fusion config reset`.

use super::*;

#[test]
fn keeps_every_old_file() {
    let sandbox = Sandbox::without_config();
    let reset = || sandbox.fusion(["config", "reset", "--yes"]);
    let kept = [1, 2, 3].map(|number| {
        let old = format!("# {number}\n");
        sandbox.write_config(&old);
        let name = format!("config.toml.{number}.bak");
        let finished = reset().mask(&name, "config.toml.[NUMBER].bak").run_in_process();
        let backup = sandbox.config_dir().join(name);
        assert_eq!(fs::read_to_string(&backup).expect("it is there"), old);
        assert_eq!(mode(&backup), 0o600);
        finished
    });
    insta::assert_snapshot!(same_output(kept), @"
    exit 0
    [stdout]
    [ROOT]/config/config.toml is fresh; the old one is [ROOT]/config/config.toml.[NUMBER].bak
    ");
    let unchanged = reset().run_in_process();
    let fresh = text(&sandbox);
    fs::remove_file(config_file(&sandbox)).expect("it is there");
    insta::assert_snapshot!(same_output([unchanged, reset().run_in_process()]), @"
    exit 0
    [stdout]
    [ROOT]/config/config.toml is fresh
    ");
    assert_eq!(text(&sandbox), fresh);
}

#[test]
fn does_nothing_without_a_terminal_to_ask_on() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("# mine\n");
    insta::assert_snapshot!(config(&sandbox, ["reset"]), @"
    exit 2
    [stderr]
    error: not reset: there is no terminal to ask on
    hint: say yes in advance: fusion config reset --yes
    ");
    assert_eq!(text(&sandbox), "# mine\n");
    assert_eq!(names(&sandbox), ["config.toml"]);
}
