//! Where the file is, and what happens when it cannot be there.

use super::*;

/// Without `FUSION_CONFIG_DIR`, and with the other variables as given.
fn fusion_with(sandbox: &Sandbox, arguments: &[&str], variables: &[(&str, &Path)]) -> std::process::Command {
    let mut command = sandbox.fusion(arguments.iter().copied()).into_command();
    command.env_remove("FUSION_CONFIG_DIR").env_remove("HOME").envs(variables.iter().copied());
    command
}

#[track_caller]
fn stdout(mut command: std::process::Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_file_is_below_the_home_directory() {
    let sandbox = Sandbox::without_config();
    let home = sandbox.home();
    let expected = if cfg!(target_os = "macos") {
        home.join("Library/Application Support/fusion/config.toml")
    } else {
        home.join(".config/fusion/config.toml")
    };
    let shown = stdout(fusion_with(&sandbox, &["config", "path"], &[("HOME", &home)]));
    assert_eq!(shown, format!("{}\n", expected.display()));
    stdout(fusion_with(&sandbox, &["config", "check"], &[("HOME", &home)]));
    for directory in expected.ancestors().skip(1).take_while(|directory| *directory != home) {
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
    }
}

#[test]
fn a_relative_configuration_directory_is_below_the_current_one() {
    let sandbox = Sandbox::without_config();
    sandbox.fusion(["config", "path"]).env("FUSION_CONFIG_DIR", "here").run().assert(
        0,
        "[ROOT]/project/here/config.toml\n",
        "",
    );
}

/// Where `HOME` is not set, the system's list of users says where the home directory is.
#[test]
fn home_unset() {
    let sandbox = Sandbox::without_config();
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("readable").expect("a user");
    let shown = stdout(fusion_with(&sandbox, &["config", "path"], &[]));
    assert!(Path::new(shown.trim_end()).starts_with(&user.dir), "{shown}");
    assert!(shown.ends_with("/fusion/config.toml\n"), "{shown}");
}

/// Gives the directory and those in it this mode.
fn set_modes(directory: &Path, mode: u32) {
    fs::set_permissions(directory, fs::Permissions::from_mode(mode)).expect("ours");
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            set_modes(&path, mode);
        }
    }
}

/// Runs `fusion` as somebody who may not write to `home`: as another user where this one is root, whom no mode
/// keeps out.
fn as_a_stranger(sandbox: &Sandbox, home: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let program = sandbox.root().join("fusion");
    if !program.exists() {
        // By another process: a program that this one has open for writing, or a child that another test starts at
        // that moment, could not be run.
        let copied =
            std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_fusion")).arg(&program).status();
        assert!(copied.expect("cp runs").success());
        for path in [sandbox.root(), &program] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
        }
    }
    let mut command = std::process::Command::new(&program);
    command.env_clear().env("HOME", home).args(arguments).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    set_modes(home, 0o555);
    let output = command.output().expect("it runs");
    // What is left can be removed again.
    set_modes(home, 0o755);
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).expect("text").replace(&sandbox.root().display().to_string(), "[ROOT]")
    };
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn home_read_only() {
    let sandbox = Sandbox::without_config();
    let home = sandbox.home();
    let directory =
        if cfg!(target_os = "macos") { "Library/Application Support/fusion" } else { ".config/fusion" };
    let made = directory.split('/').next().expect("a name");
    let reason = format!(
        "cannot make [ROOT]/home/{directory}/config.toml: cannot make the directory [ROOT]/home/{made}: \
             Permission denied (os error 13)"
    );
    // What only reads goes on with the defaults, and says so.
    assert_eq!(
        as_a_stranger(&sandbox, &home, &["config", "get", "ollama_server.port"]),
        (Some(0), "11434\n".to_owned(), format!("warning: {reason}; the defaults hold\n"))
    );
    let (code, shown, stderr) = as_a_stranger(&sandbox, &home, &["config", "show"]);
    assert_eq!((code, stderr), (Some(0), format!("warning: {reason}; this is what it would be\n")));
    assert!(shown.contains("\nport = 11434\n"), "{shown}");
    // What writes fails, and says why.
    for arguments in [&["config", "set", "ollama_server.port", "5"][..], &["config", "reset", "--yes"]] {
        assert_eq!(
            as_a_stranger(&sandbox, &home, arguments),
            (
                Some(1),
                String::new(),
                format!(
                    "error: cannot make [ROOT]/home/{directory}/config.toml\n  \
                         caused by: cannot make the directory [ROOT]/home/{made}\n  \
                         caused by: Permission denied (os error 13)\n\
                         hint: set FUSION_CONFIG_DIR to a directory that you can read and write\n"
                )
            )
        );
    }
}

#[test]
fn a_read_only_directory() {
    let sandbox = Sandbox::without_config();
    let home = sandbox.home();
    let directory =
        if cfg!(target_os = "macos") { "Library/Application Support/fusion" } else { ".config/fusion" };
    fs::create_dir_all(home.join(directory)).expect("writable");
    let reason = format!("cannot open [ROOT]/home/{directory}/config.lock");
    assert_eq!(
        as_a_stranger(&sandbox, &home, &["config", "get", "ollama_server.port"]),
        (
            Some(0),
            "11434\n".to_owned(),
            format!(
                "warning: cannot make [ROOT]/home/{directory}/config.toml: {reason}: Permission denied (os error 13); \
                 the defaults hold\n"
            )
        )
    );
    fs::write(home.join(directory).join("config.toml"), "").expect("writable");
    assert_eq!(
        as_a_stranger(&sandbox, &home, &["config", "get", "ollama_server.port"]),
        (Some(0), "11434\n".to_owned(), String::new())
    );
    assert_eq!(
        as_a_stranger(&sandbox, &home, &["config", "set", "ollama_server.port", "5"]),
        (
            Some(1),
            String::new(),
            format!(
                "error: cannot lock [ROOT]/home/{directory}/config.toml\n  caused by: {reason}\n  \
                 caused by: Permission denied (os error 13)\n\
                 hint: set FUSION_CONFIG_DIR to a directory that you can read and write\n"
            )
        )
    );
}
