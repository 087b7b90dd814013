//! `fusion config reset`.

use super::*;

#[test]
fn keeps_every_old_file_and_says_where() {
    let sandbox = Sandbox::without_config();
    for number in 1..=3 {
        let old = format!("# {number}\n");
        sandbox.write_config(&old);
        config(&sandbox, ["reset", "--yes"]).assert(
            0,
            &format!(
                "[ROOT]/config/config.toml is fresh; the old one is [ROOT]/config/config.toml.{number}.bak\n"
            ),
            "",
        );
        let backup = sandbox.config_dir().join(format!("config.toml.{number}.bak"));
        assert_eq!(fs::read_to_string(&backup).expect("it is there"), old);
        assert_eq!(mode(&backup), 0o600);
    }
    config(&sandbox, ["reset", "--yes"]).assert(0, "[ROOT]/config/config.toml is fresh\n", "");
    let fresh = text(&sandbox);
    fs::remove_file(config_file(&sandbox)).expect("it is there");
    config(&sandbox, ["reset", "--yes"]).assert(0, "[ROOT]/config/config.toml is fresh\n", "");
    assert_eq!(text(&sandbox), fresh);
}

#[test]
fn asks_and_without_a_terminal_does_nothing() {
    let sandbox = Sandbox::without_config();
    sandbox.write_config("# mine\n");
    let stderr = "error: not reset: there is no terminal to ask on\n\
                      hint: say yes in advance: fusion config reset --yes\n";
    config(&sandbox, ["reset"]).assert(2, "", stderr);
    assert_eq!(text(&sandbox), "# mine\n");
    assert_eq!(names(&sandbox), ["config.toml"]);
}
