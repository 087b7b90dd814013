//! Faults of the file itself: its permissions, its target as a link, its size, its kind.

use super::*;

#[test]
fn files_that_others_may_write_are_refused() {
    let sandbox = Sandbox::without_config();
    let others_may = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    };
    let commands = [
        &["ollama", "up"][..],
        &["config", "check"],
        &["config", "show"],
        &["config", "set", "mlx_server.port", "5"],
        &["config", "reset", "--yes"],
    ];
    let refused = || {
        let refused = commands.map(|arguments| sandbox.fusion(arguments.iter().copied()).run());
        same_output(refused)
    };
    // Also where there is no file yet.
    others_may(&sandbox.config_dir(), 0o770);
    insta::assert_snapshot!(refused(), @"
    exit 2
    [stderr]
    error: [ROOT]/config is writable by other users
    hint: chmod go-w [ROOT]/config
    ");
    sandbox.write_config("");
    assert_eq!(refused(), refused());
    others_may(&sandbox.config_dir(), 0o755);
    others_may(&config_file(&sandbox), 0o606);
    insta::assert_snapshot!(refused(), @"
    exit 2
    [stderr]
    error: [ROOT]/config/config.toml is writable by other users
    hint: chmod go-w [ROOT]/config/config.toml
    ");
    others_may(&config_file(&sandbox), 0o644);
    config(&sandbox, ["check"]).assert_code(0);
}

#[test]
fn a_link_is_judged_by_its_target() {
    let sandbox = Sandbox::without_config();
    let dotfiles = sandbox.root().join("dot files");
    fs::create_dir(&dotfiles).expect("writable");
    let real = dotfiles.join("fusion.toml");
    fs::write(&real, "").expect("writable");
    symlink(&real, config_file(&sandbox)).expect("a link");
    let with_modes = |directory: u32, file: u32| {
        fs::set_permissions(&dotfiles, fs::Permissions::from_mode(directory)).expect("ours");
        fs::set_permissions(&real, fs::Permissions::from_mode(file)).expect("ours");
        config(&sandbox, ["check"])
    };
    with_modes(0o755, 0o644).assert_code(0);
    insta::assert_snapshot!(with_modes(0o755, 0o664), @"
    exit 2
    [stderr]
    error: [ROOT]/dot files/fusion.toml is writable by other users
    hint: chmod go-w '[ROOT]/dot files/fusion.toml'
    ");
    insta::assert_snapshot!(with_modes(0o775, 0o644), @"
    exit 2
    [stderr]
    error: [ROOT]/dot files is writable by other users
    hint: chmod go-w '[ROOT]/dot files'
    ");
}

#[test]
fn a_file_of_ten_megabytes() {
    let sandbox = Sandbox::without_config();
    let large = "# 123456789012345678901234567890\n".repeat(10_000_000 / 33);
    sandbox.write_config(&large);
    insta::assert_snapshot!(config(&sandbox, ["check"]), @"
    exit 2
    [stderr]
    error: [ROOT]/config/config.toml has 9999990 bytes; a configuration has at most 1048576
    hint: move it away; the next fusion command creates a new one
    ");
    assert_eq!(config(&sandbox, ["show"]).assert_code(0).stdout(), large);
    config(&sandbox, ["reset", "--yes"]).assert_code(0);
    assert_eq!(fs::read_to_string(sandbox.config_dir().join("config.toml.bak")).ok(), Some(large));
}

#[test]
fn a_directory_or_a_pipe_in_its_place() {
    let sandbox = Sandbox::without_config();
    fs::create_dir(config_file(&sandbox)).expect("writable");
    let commands = [&["check"][..], &["show"], &["set", "mlx_server.port", "1"], &["reset", "--yes"]];
    let refused = commands.map(|arguments| config(&sandbox, arguments.iter().copied()));
    fs::remove_dir(config_file(&sandbox)).expect("it is empty");
    nix::unistd::mkfifo(&config_file(&sandbox), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let pipe = config(&sandbox, ["check"]);
    insta::assert_snapshot!(same_output(refused.into_iter().chain([pipe])), @"
    exit 2
    [stderr]
    error: [ROOT]/config/config.toml is not a file
    hint: move it away; the next fusion command creates a new one
    ");
}

#[test]
fn a_link_to_nothing() {
    let sandbox = Sandbox::without_config();
    symlink(sandbox.root().join("dotfiles/fusion"), config_file(&sandbox)).expect("a link");
    let commands = [&["check"][..], &["set", "mlx_server.port", "1"]];
    let refused = commands.map(|arguments| config(&sandbox, arguments.iter().copied()));
    insta::assert_snapshot!(same_output(refused), @"
    exit 1
    [stderr]
    error: [ROOT]/config/config.toml is a link to [ROOT]/dotfiles/fusion, which does not exist
    hint: create the file that the link points to, or remove the link
    ");
    assert_eq!(names(&sandbox), ["config.toml"]);
}
