//! Starting a runtime at login, with a stand-in for the command of systemd or launchd.

mod support;

use std::path::PathBuf;

use support::{Invocation, Sandbox, write_program};

/// A sandbox with a stand-in for this platform's manager, which writes down what it is told and then runs `script`.
struct Desk {
    sandbox: Sandbox,
}

impl Desk {
    fn new(script: &str) -> Self {
        let sandbox = Sandbox::new();
        let program = sandbox.bin().join(if cfg!(target_os = "macos") { "launchctl" } else { "systemctl" });
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

/// The same on both platforms.
const ENABLED: &str = "mlx starts at login, and is starting now\n";

#[test]
fn enable_writes_and_loads_disable_unloads_and_removes() {
    let desk = Desk::new("");
    let finished = desk.fusion("mlx enable").run().assert_code(0);
    assert_eq!(finished.stdout(), ENABLED);
    assert!(finished.stderr().starts_with(&format!("wrote {}\nran ", desk.file().display())));
    let text = desk.text();
    assert!(text.contains(env!("CARGO_BIN_EXE_fusion")), "{text}");
    assert!(text.contains(&desk.sandbox.config_dir().display().to_string()), "{text}");
    assert!(text.contains(&desk.sandbox.bin().display().to_string()), "{text}");

    let finished = desk.fusion("mlx disable").run().assert_code(0);
    assert_eq!(finished.stdout(), "mlx does not start at login any more\n");
    assert!(!desk.file().exists());
    let calls = desk.calls();
    insta::assert_snapshot!(desk.fusion("mlx disable").run().assert(0, "mlx does not start at login\n", ""), @"");
    assert_eq!(desk.calls(), calls, "there was nothing to unload");
}

#[cfg(target_os = "linux")]
#[test]
fn systemd_is_told_to_start_the_unit_now_and_at_login() {
    let desk = Desk::new("");
    insta::assert_snapshot!(desk.fusion("mlx enable").run().assert(
        0,
        ENABLED,
        "wrote [ROOT]/home/.config/systemd/user/fusion-mlx.service\n\
         ran systemctl --user daemon-reload\n\
         ran systemctl --user enable --now --no-block fusion-mlx.service\n\
         hint: `fusion mlx ps` shows when it is ready, `fusion mlx disable` undoes this\n",
    ), @"");
    insta::assert_snapshot!(desk.fusion("mlx disable").run().assert(
        0,
        "mlx does not start at login any more\n",
        "ran systemctl --user disable fusion-mlx.service\n\
         removed [ROOT]/home/.config/systemd/user/fusion-mlx.service\n\
         ran systemctl --user daemon-reload\n",
    ), @"");
    let calls = desk.calls();
    insta::assert_snapshot!(desk.fusion("-q mlx enable").run().assert(0, ENABLED, ""), @"");
    assert_eq!(
        calls,
        "--user daemon-reload\n--user enable --now --no-block fusion-mlx.service\n\
         --user disable fusion-mlx.service\n--user daemon-reload\n"
    );
}

#[test]
fn the_name_on_path_is_written_when_it_is_this_program() {
    let desk = Desk::new("");
    let link = desk.sandbox.bin().join("fusion");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fusion"), &link).expect("a link");
    desk.fusion("mlx enable").run().assert_code(0);
    assert!(desk.text().contains(&link.display().to_string()), "{}", desk.text());
}

#[test]
fn relative_directories_of_the_environment_are_absolute_at_login() {
    let desk = Desk::new("");
    let enable = desk.fusion("mlx enable").env("HF_HOME", "hf").env("HF_HUB_CACHE", "~/hub");
    enable.env("XDG_CACHE_HOME", "/caches").run().assert_code(0);
    let (text, project) = (desk.text(), desk.sandbox.project());
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
    ] {
        assert!(text.contains(&set(name, &value)), "{text}");
    }
}

#[test]
fn a_manager_that_refuses_leaves_nothing() {
    let desk = Desk::new("echo 'Failed to connect to bus: No medium found' >&2; exit 1");
    let finished = desk.fusion("mlx enable").run().assert_code(1);
    assert_eq!(finished.stdout(), "");
    assert!(finished.stderr().contains("failed: Failed to connect to bus: No medium found\nhint: "));
    assert!(!desk.file().exists());
}

#[test]
fn without_a_manager_nothing_is_written() {
    let desk = Desk::new("");
    let empty = desk.sandbox.root().join("empty");
    std::fs::create_dir(&empty).expect("the sandbox is writable");
    let program = if cfg!(target_os = "macos") { "launchctl" } else { "systemctl" };
    insta::assert_snapshot!(desk.fusion("mlx enable").env("PATH", &empty).run().assert(
        1,
        "",
        &format!(
            "error: there is no {program} on PATH\n\
             hint: without a service manager of your own, have whatever starts your programs run `fusion up`\n"
        ),
    ), @"");
    assert!(!desk.file().exists());
}

#[test]
fn a_file_of_somebody_else_stays() {
    let desk = Desk::new("");
    std::fs::create_dir_all(desk.file().parent().expect("a directory")).expect("the sandbox is writable");
    std::fs::write(desk.file(), "mine\n").expect("the sandbox is writable");
    for words in ["mlx enable", "mlx disable"] {
        let finished = desk.fusion(words).run().assert_code(1);
        let expected = format!("error: {} was not written by fusion\n", desk.file().display());
        assert!(finished.stderr().starts_with(&expected), "{}", finished.stderr());
    }
    assert_eq!(desk.text(), "mine\n");
    assert_eq!(desk.calls(), "");
}
