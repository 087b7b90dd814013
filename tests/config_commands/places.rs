//! Where the file is, and what happens when it cannot be there.

use super::*;

/// Makes a command without `FUSION_CONFIG_DIR`, and with these variables.
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
    let expected = home.join(DIRECTORY).join("config.toml");
    let shown = stdout(fusion_with(&sandbox, &["config", "path"], &[("HOME", &home)]));
    assert_eq!(shown, format!("{}\n", expected.display()));
    stdout(fusion_with(&sandbox, &["config", "check"], &[("HOME", &home)]));
    for directory in expected.ancestors().skip(1).take_while(|directory| *directory != home) {
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
    }
}

#[test]
fn a_relative_directory_is_below_the_current_one() {
    let sandbox = Sandbox::without_config();
    let path = sandbox.fusion(["config", "path"]).env("FUSION_CONFIG_DIR", "here").run();
    let expected = sandbox.project().join("here/config.toml");
    path.assert_stdout(&format!("{}\n", expected.display()));
}

/// The home directory then comes from the list of users of the system.
#[test]
fn without_home_the_user_list_names_it() {
    let sandbox = Sandbox::without_config();
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("readable").expect("a user");
    let shown = stdout(fusion_with(&sandbox, &["config", "path"], &[]));
    assert!(Path::new(shown.trim_end()).starts_with(&user.dir), "{shown}");
    assert!(shown.ends_with("/fusion/config.toml\n"), "{shown}");
}

/// Sets the mode of the directory and of those in it.
fn set_modes(directory: &Path, mode: u32) {
    fs::set_permissions(directory, fs::Permissions::from_mode(mode)).expect("ours");
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            set_modes(&path, mode);
        }
    }
}

/// Runs `fusion` without permission to write to `HOME`: as another user if this one is root, whom no mode stops.
#[track_caller]
fn run_read_only(sandbox: &Sandbox, arguments: &[&str]) -> Finished {
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
    let home = sandbox.home();
    let mut invocation = sandbox.command(&program).directory(Path::new("/"));
    for argument in arguments {
        invocation = invocation.arg(argument);
    }
    set_modes(&home, 0o555);
    let finished = invocation
        .mask(format!("[ROOT]/home/{DIRECTORY}"), "[CONFIG]")
        .mask(format!("[ROOT]/home/{}", DIRECTORY.split('/').next().expect("a name")), "[PARENT]")
        .change(|command| {
            command.env_remove("FUSION_CONFIG_DIR");
            if nix::unistd::geteuid().is_root() {
                command.uid(65534).gid(65534);
            }
        })
        .run();
    // The sandbox can be removed again.
    set_modes(&home, 0o755);
    finished
}

const DIRECTORY: &str =
    if cfg!(target_os = "macos") { "Library/Application Support/fusion" } else { ".config/fusion" };

#[test]
fn a_read_only_home_leaves_the_defaults() {
    let sandbox = Sandbox::without_config();
    insta::assert_snapshot!(run_read_only(&sandbox, &["config", "get", "ollama_server.port"]), @"
    exit 0
    [stdout]
    11434
    [stderr]
    warning: cannot make [CONFIG]/config.toml: cannot make the directory [PARENT]: Permission denied (os error [ERRNO]); the defaults apply
    ");
    let shown = run_read_only(&sandbox, &["config", "show"]).assert_code(0);
    assert!(shown.stdout().contains("\nport = 11434\n"), "{shown}");
    let warning = shown.normalized(&shown.stderr);
    insta::assert_snapshot!(warning, @"warning: cannot make [CONFIG]/config.toml: cannot make the directory [PARENT]: Permission denied (os error [ERRNO]); this is what it would be");
    // Commands that write fail.
    let writing = [&["config", "set", "ollama_server.port", "5"][..], &["config", "reset", "--yes"]];
    let refused = writing.map(|arguments| run_read_only(&sandbox, arguments));
    insta::assert_snapshot!(same_output(refused), @"
    exit 1
    [stderr]
    error: cannot make [CONFIG]/config.toml
      caused by: cannot make the directory [PARENT]
      caused by: Permission denied (os error [ERRNO])
    hint: set FUSION_CONFIG_DIR to a directory that you can read and write
    ");
}

#[test]
fn a_read_only_directory_can_be_read() {
    let sandbox = Sandbox::without_config();
    let directory = sandbox.home().join(DIRECTORY);
    fs::create_dir_all(&directory).expect("writable");
    insta::assert_snapshot!(run_read_only(&sandbox, &["config", "get", "ollama_server.port"]), @"
    exit 0
    [stdout]
    11434
    [stderr]
    warning: cannot make [CONFIG]/config.toml: cannot open [CONFIG]/config.lock: Permission denied (os error [ERRNO]); the defaults apply
    ");
    fs::write(directory.join("config.toml"), "").expect("writable");
    run_read_only(&sandbox, &["config", "get", "ollama_server.port"]).assert_stdout("11434\n");
    let set = run_read_only(&sandbox, &["config", "set", "ollama_server.port", "5"]);
    insta::assert_snapshot!(set, @"
    exit 1
    [stderr]
    error: cannot lock [CONFIG]/config.toml
      caused by: cannot open [CONFIG]/config.lock
      caused by: Permission denied (os error [ERRNO])
    hint: set FUSION_CONFIG_DIR to a directory that you can read and write
    ");
}
