//! Starting a service at login, with a stand-in for the command of systemd or launchd.

mod support;

use std::path::PathBuf;

use support::{Invocation, Sandbox, same_output, write_program};

/// The command of this platform's service manager.
const MANAGER: &str = if cfg!(target_os = "macos") { "launchctl" } else { "systemctl" };

/// A sandbox with a stand-in for that command, which writes down its arguments and then runs `script`.
struct Login {
    sandbox: Sandbox,
}

impl Login {
    fn new(script: &str) -> Self {
        let sandbox = Sandbox::new();
        let program = sandbox.bin().join(MANAGER);
        let calls = sandbox.root().join("calls");
        let text = format!("#!/bin/sh\necho \"$*\" >> '{}'\n{script}\n", calls.display());
        write_program(&program, &text);
        Self { sandbox }
    }

    fn fusion(&self, words: &str) -> Invocation {
        self.sandbox.fusion(words.split(' '))
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.sandbox.root().join("calls")).unwrap_or_default()
    }

    fn file(&self) -> PathBuf {
        self.sandbox.home().join(if cfg!(target_os = "macos") {
            "Library/LaunchAgents/fusion.mlx.plist"
        } else {
            ".config/systemd/user/fusion-mlx.service"
        })
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).expect("the job's file")
    }
}

#[test]
fn enable_writes_and_loads_disable_unloads_and_removes() {
    let login = Login::new("");
    let enabled = login.fusion("mlx enable").run().assert_code(0);
    insta::assert_snapshot!(enabled.stdout(), @"mlx starts at every login, and is starting now");
    assert!(enabled.stderr().contains(&login.file().display().to_string()), "{enabled}");
    let text = login.text();
    assert!(text.contains(env!("CARGO_BIN_EXE_fusion")), "{text}");
    assert!(text.contains(&login.sandbox.config_dir().display().to_string()), "{text}");
    assert!(text.contains(&login.sandbox.bin().display().to_string()), "{text}");

    insta::assert_snapshot!(login.fusion("mlx disable").run().assert_code(0).stdout(), @"mlx no longer starts at login");
    assert!(!login.file().exists());
    let calls = login.calls();
    insta::assert_snapshot!(login.fusion("mlx disable").run(), @"
    exit 0
    [stdout]
    mlx was not set to start at login
    ");
    assert_eq!(login.calls(), calls, "there was nothing to unload");
}

#[cfg(target_os = "linux")]
#[test]
fn systemd_starts_the_unit_now_and_at_login() {
    let login = Login::new("");
    insta::assert_snapshot!(login.fusion("mlx enable").run(), @"
    exit 0
    [stdout]
    mlx starts at every login, and is starting now
    [stderr]
    wrote [ROOT]/home/.config/systemd/user/fusion-mlx.service
    ran systemctl --user daemon-reload
    ran systemctl --user enable --now --no-block fusion-mlx.service
    hint: see when it is ready: fusion mlx ps; undo this: fusion mlx disable
    ");
    insta::assert_snapshot!(login.fusion("mlx disable").run(), @"
    exit 0
    [stdout]
    mlx no longer starts at login
    [stderr]
    ran systemctl --user disable fusion-mlx.service
    removed [ROOT]/home/.config/systemd/user/fusion-mlx.service
    ran systemctl --user daemon-reload
    ");
    let calls = login.calls();
    insta::assert_snapshot!(login.fusion("-q mlx enable").run(), @"
    exit 0
    [stdout]
    mlx starts at every login, and is starting now
    ");
    assert_eq!(
        calls,
        "--user daemon-reload\n--user enable --now --no-block fusion-mlx.service\n\
         --user disable fusion-mlx.service\n--user daemon-reload\n"
    );
}

#[test]
fn the_job_names_fusion_as_on_path() {
    let login = Login::new("");
    let link = login.sandbox.bin().join("fusion");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fusion"), &link).expect("a link");
    login.fusion("mlx enable").run().assert_code(0);
    assert!(login.text().contains(&link.display().to_string()), "{}", login.text());
}

#[test]
fn relative_directories_become_absolute_in_the_job() {
    let login = Login::new("");
    let enable = login.fusion("mlx enable").env("HF_HOME", "hf").env("HF_HUB_CACHE", "~/hub");
    enable.env("XDG_CACHE_HOME", "/caches").env("XDG_DATA_HOME", "/data").run().assert_code(0);
    let (text, project) = (login.text(), login.sandbox.project());
    let set = |name: &str, value: &str| {
        if cfg!(target_os = "macos") {
            format!("<key>{name}</key>\n\t\t<string>{value}</string>")
        } else {
            format!("Environment=\"{name}={value}\"\n")
        }
    };
    for (name, value) in [
        ("HF_HOME", project.join("hf").display().to_string()),
        ("HF_HUB_CACHE", "~/hub".to_owned()),
        ("XDG_CACHE_HOME", "/caches".to_owned()),
        ("XDG_DATA_HOME", "/data".to_owned()),
    ] {
        assert!(text.contains(&set(name, &value)), "{text}");
    }
}

/// A start at login has the variables that a start from this shell would have.
#[test]
fn the_job_has_the_variables_of_the_runtime() {
    let login = Login::new("");
    let enable = |service| {
        login
            .fusion(service)
            .env("OLLAMA_KEEP_ALIVE", "7m")
            .env("OLLAMA_HOST", "1.2.3.4")
            .run()
            .assert_code(0)
    };
    enable("ollama enable");
    let text = std::fs::read_to_string(login.file().with_file_name(
        login.file().file_name().expect("a name").to_string_lossy().replace("mlx", "ollama"),
    ));
    let text = text.expect("the job's file");
    assert!(text.contains("OLLAMA_KEEP_ALIVE") && text.contains("7m"), "{text}");
    assert!(!text.contains("1.2.3.4"), "{text}");
    enable("mlx enable");
    assert!(!login.text().contains("OLLAMA"), "{}", login.text());
}

#[test]
fn a_manager_that_refuses_leaves_nothing() {
    let login = Login::new("echo 'Failed to connect to bus: No medium found' >&2; exit 1");
    let refused = login.fusion("mlx enable").run().assert_code(1);
    assert_eq!(refused.stdout(), "");
    assert!(refused.stderr().contains("Failed to connect to bus: No medium found\nhint: "), "{refused}");
    assert!(!login.file().exists());
}

#[test]
fn without_a_manager_nothing_is_written() {
    let login = Login::new("");
    let empty = login.sandbox.root().join("empty");
    std::fs::create_dir(&empty).expect("the sandbox is writable");
    let enable = login.fusion("mlx enable").env("PATH", &empty).mask(MANAGER, "[MANAGER]");
    insta::assert_snapshot!(enable.run(), @"
    exit 1
    [stderr]
    error: there is no [MANAGER] on PATH
    hint: without a service manager, run `fusion mlx up` from the program that starts your session
    ");
    assert!(!login.file().exists());
}

#[test]
fn a_file_of_another_program_stays() {
    let login = Login::new("");
    std::fs::create_dir_all(login.file().parent().expect("a directory")).expect("the sandbox is writable");
    std::fs::write(login.file(), "mine\n").expect("the sandbox is writable");
    let file = login.file().strip_prefix(login.sandbox.root()).expect("a file of the sandbox").to_owned();
    let refused = ["mlx enable", "mlx disable"]
        .map(|words| login.fusion(words).mask(format!("[ROOT]/{}", file.display()), "[FILE]").run());
    insta::assert_snapshot!(same_output(refused), @"
    exit 1
    [stderr]
    error: [FILE] was not written by fusion
    hint: move [FILE] away, then run the command again
    ");
    assert_eq!(login.text(), "mine\n");
    assert_eq!(login.calls(), "");
}

/// At login fusion is not called in the directory of the project.
#[test]
fn an_instance_starts_at_login_with_its_project() {
    let login = Login::new("");
    login.sandbox.write_config(
        "[templates.web]\nstart_command = 'x'\ndefault_port = 8188\n\
         [instances.dev]\ntemplate = 'web'\nworking_dir = '${PROJECT_ROOT}/dev'\n",
    );
    let own = login.file().file_name().expect("a name").to_string_lossy().replace("mlx", "dev");
    let file = login.file().with_file_name(own);
    login.fusion("enable dev").run().assert_code(0);
    let text = std::fs::read_to_string(&file).expect("the job's file");
    assert!(text.contains("FUSION_PROJECT_ROOT"), "{text}");
    assert!(text.contains(&login.sandbox.project().display().to_string()), "{text}");
    assert_eq!(login.fusion("disable dev").run().stdout(), "dev no longer starts at login\n");
    assert!(!file.exists());
    login.fusion("dev enable").run().assert_code(0);
    assert_eq!(login.fusion("remove dev --yes").run().stdout(), "dev is removed\n");
    assert!(!file.exists());
}

#[test]
fn the_gateway_starts_at_login_as_any_service() {
    let login = Login::new("");
    let file = login.file();
    let file =
        file.with_file_name(file.file_name().expect("a name").to_string_lossy().replace("mlx", "gateway"));
    login.fusion("gateway enable").run().assert_code(0);
    let text = std::fs::read_to_string(&file).expect("the job's file");
    assert!(text.contains("gateway") && text.contains(env!("CARGO_BIN_EXE_fusion")), "{text}");
    login.fusion("gateway disable").run().assert_code(0);
    assert!(!file.exists());
}
