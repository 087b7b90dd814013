//! `fusion config reset`.

use super::*;

#[test]
fn keeps_every_old_file() {
    let sandbox = Sandbox::without_config();
    let reset = || sandbox.fusion(["config", "reset", "--yes"]);
    let kept = ["config.toml.bak", "config.toml.bak.1", "config.toml.bak.2"].map(|name| {
        let old = format!("# {name}\n");
        sandbox.write_config(&old);
        let finished = reset().mask(format!("{name}\n"), "[BACKUP]\n").run_in_process();
        let backup = sandbox.config_dir().join(name);
        assert_eq!(fs::read_to_string(&backup).expect("it is there"), old);
        assert_eq!(mode(&backup), 0o600);
        finished
    });
    insta::assert_snapshot!(same_output(kept), @"
    exit 0
    [stdout]
    [ROOT]/config/config.toml is reset; the old file is [ROOT]/config/[BACKUP]
    ");
    let unchanged = reset().run_in_process();
    let fresh = text(&sandbox);
    fs::remove_file(config_file(&sandbox)).expect("it is there");
    insta::assert_snapshot!(same_output([unchanged, reset().run_in_process()]), @"
    exit 0
    [stdout]
    [ROOT]/config/config.toml is reset
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
    error: not reset: there is no terminal to ask for confirmation on
    hint: confirm it: fusion config reset --yes
    ");
    assert_eq!(text(&sandbox), "# mine\n");
    assert_eq!(names(&sandbox), ["config.toml"]);
}

#[test]
fn the_answer_is_read_from_the_given_input() {
    let sandbox = Sandbox::without_config();
    let reset = |answer: &str| {
        sandbox.write_config("# mine\n");
        sandbox.fusion(["--color", "never", "config", "reset"]).stdin(answer).at_terminal().run_in_process()
    };
    for refused in ["n\n", "\n", ""] {
        let finished = reset(refused);
        assert_eq!((text(&sandbox), finished.code()), ("# mine\n".to_owned(), 1), "{refused:?}: {finished}");
    }
    let finished = reset("yes\n");
    insta::assert_snapshot!(finished.normalized(finished.stderr().trim_end().as_bytes()), @"Replace [ROOT]/config/config.toml with a fresh file, and keep a copy? [y/N]");
    finished.assert_code(0);
    assert_ne!(text(&sandbox), "# mine\n");
}
