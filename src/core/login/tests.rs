//! Jobs that are written, loaded, unloaded and removed.

use super::*;
use crate::test_programs::write_program;

pub(super) fn job() -> Job {
    Job {
        service: "mlx".to_owned(),
        display_name: "MLX".to_owned(),
        fusion: PathBuf::from("/usr/bin/fusion"),
        environment: vec![
            ("PATH".to_owned(), "/usr/bin:/opt/100%".to_owned()),
            ("FUSION_CONFIG_DIR".to_owned(), "/home/a \"b\" & <c>".to_owned()),
        ],
        log: PathBuf::from("/config/mlx/login.log"),
    }
}

/// A job that is unloaded at once.
const UNLOADS: &str = "case $1 in print) exit 113 ;; esac";

/// A home directory, and a manager's command that writes its arguments to `calls` and then runs `script`.
struct Desk {
    root: tempfile::TempDir,
    places: Places,
}

impl Desk {
    fn new(manager: LoginManager, script: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("home");
        let program = root.path().join(manager.program());
        let calls = root.path().join("calls");
        let text = format!("#!/bin/sh\necho \"$*\" >> '{}'\n{script}\n", calls.display());
        write_program(&program, &text);
        let places = Places { config: home.join(".config"), home, user: 501 };
        Self { root, places }
    }

    fn enable(&self, manager: LoginManager) -> Result<Vec<LoginStep>, LoginError> {
        let job = Job { log: manager.log("mlx", &self.root.path().join("mlx"), &self.places), ..job() };
        enable(manager, &job, &self.places, Some(self.root.path().as_os_str()))
    }

    fn disable(&self, manager: LoginManager) -> Result<Vec<LoginStep>, LoginError> {
        disable(manager, "mlx", &self.places, Some(self.root.path().as_os_str()))
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.root.path().join("calls")).unwrap_or_default()
    }
}

#[test]
fn enable_loads_and_disable_removes() {
    for manager in [LoginManager::Systemd, LoginManager::Launchd] {
        let desk = Desk::new(manager, UNLOADS);
        let file = manager.file("mlx", &desk.places);
        assert!(!is_enabled(manager, "mlx", &desk.places));

        let steps = desk.enable(manager).unwrap();
        assert_eq!(steps[0], LoginStep::Wrote(file.clone()));
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("/usr/bin/fusion"), "{text}");
        assert!(is_enabled(manager, "mlx", &desk.places));

        // A second `enable` replaces the file.
        desk.enable(manager).unwrap();

        let steps = desk.disable(manager).unwrap();
        assert!(steps.contains(&LoginStep::Removed(file.clone())));
        assert!(!file.exists());
        assert_eq!(desk.disable(manager).unwrap(), []);
    }
}

#[test]
fn systemd_commands_run_in_order() {
    let desk = Desk::new(LoginManager::Systemd, "");
    desk.enable(LoginManager::Systemd).unwrap();
    desk.disable(LoginManager::Systemd).unwrap();
    assert_eq!(
        desk.calls(),
        "--user daemon-reload\n\
         --user enable --now --no-block fusion-mlx.service\n\
         --user disable fusion-mlx.service\n\
         --user daemon-reload\n"
    );
}

#[test]
fn failing_manager_leaves_no_file() {
    let desk =
        Desk::new(LoginManager::Systemd, "echo 'Failed to connect to bus: No medium found' >&2; exit 1");
    let error = desk.enable(LoginManager::Systemd).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`systemctl --user daemon-reload` failed: Failed to connect to bus: No medium found"
    );
    assert!(!LoginManager::Systemd.file("mlx", &desk.places).exists());
}

#[test]
fn enable_ignores_agent_that_is_not_loaded() {
    let desk = Desk::new(LoginManager::Launchd, "case $1 in bootout) exit 3 ;; print) exit 113 ;; esac");
    desk.enable(LoginManager::Launchd).unwrap();
    desk.disable(LoginManager::Launchd).unwrap();
}

/// launchd refuses a job while the one of the same name goes away.
#[test]
fn enable_tries_again_while_agent_unloads() {
    let script = "case $1 in
        print) [ -e \"$0.gone\" ] && exit 113; touch \"$0.gone\" ;;
        bootstrap) [ -e \"$0.tried\" ] || { touch \"$0.tried\"
            echo 'Bootstrap failed: 5: Input/output error'; exit 5; } ;;
        esac";
    let desk = Desk::new(LoginManager::Launchd, script);
    desk.enable(LoginManager::Launchd).unwrap();
    let file = LoginManager::Launchd.file("mlx", &desk.places);
    let bootstrap = format!("bootstrap gui/501 {}", file.display());
    assert_eq!(
        desk.calls().lines().collect::<Vec<_>>(),
        [
            "bootout gui/501/fusion.mlx",
            "bootout user/501/fusion.mlx",
            "print gui/501/fusion.mlx",
            "print gui/501/fusion.mlx",
            "enable gui/501/fusion.mlx",
            &bootstrap,
            &bootstrap,
            "print gui/501/fusion.mlx",
        ]
    );
}

#[test]
fn failed_enable_puts_the_older_agent_back() {
    let script = "case $1 in
        print) exit 113 ;;
        bootstrap) [ -e \"$0.refuses\" ] || exit 0; echo 'Bootstrap failed: 119: Service is disabled' >&2
            echo 'Try re-running the command as root for richer errors.' >&2; exit 119 ;;
        esac";
    let desk = Desk::new(LoginManager::Launchd, script);
    desk.enable(LoginManager::Launchd).unwrap();
    let file = LoginManager::Launchd.file("mlx", &desk.places);
    let older = std::fs::read_to_string(&file).unwrap() + "<!-- older -->\n";
    std::fs::write(&file, &older).unwrap();
    std::fs::write(desk.root.path().join("launchctl.refuses"), "").unwrap();
    let error = desk.enable(LoginManager::Launchd).unwrap_err().to_string();
    assert!(error.ends_with("failed: Bootstrap failed: 119: Service is disabled"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), older);
}

/// A machine that is used over the network has no graphical session.
#[test]
fn enable_works_without_a_screen() {
    for failure in ["125: Domain does not support specified action", "5: Input/output error"] {
        let code = failure.split(':').next().unwrap();
        let script = format!(
            "case $1$2 in
            print*) exit 113 ;;
            bootstrapgui*) echo 'Bootstrap failed: {failure}'; exit {code} ;;
            esac"
        );
        let desk = Desk::new(LoginManager::Launchd, &script);
        let steps = desk.enable(LoginManager::Launchd).unwrap();
        assert_eq!(steps.last(), Some(&LoginStep::InBackground));
        let file = LoginManager::Launchd.file("mlx", &desk.places);
        let last = format!("bootstrap user/501 {}\nprint user/501/fusion.mlx\n", file.display());
        assert!(desk.calls().ends_with(&last), "{}", desk.calls());
        desk.disable(LoginManager::Launchd).unwrap();
        assert!(desk.calls().ends_with("bootout gui/501/fusion.mlx\nbootout user/501/fusion.mlx\n"));
    }
}

/// launchd starts nothing, and says nothing, if it cannot open the log.
#[test]
fn enable_makes_the_directory_of_the_log() {
    let desk = Desk::new(LoginManager::Launchd, UNLOADS);
    desk.enable(LoginManager::Launchd).unwrap();
    let log = LoginManager::Launchd.log("mlx", Path::new("/config/mlx"), &desk.places);
    assert_eq!(log, desk.places.home.join("Library/Logs/fusion/mlx.log"));
    assert!(log.parent().unwrap().is_dir());
}

/// launchd says nothing itself if it cannot open a file of the job.
#[test]
fn enable_tells_of_an_agent_that_cannot_run() {
    let script = "case $1 in
        print) [ -e \"$0.loaded\" ] || exit 113; printf '\\tstate = not running\\n\\tlast exit code = 78: EX_CONFIG\\n' ;;
        bootstrap) touch \"$0.loaded\" ;;
        esac";
    let desk = Desk::new(LoginManager::Launchd, script);
    assert_eq!(desk.enable(LoginManager::Launchd).unwrap().last(), Some(&LoginStep::CannotOpen));
}

#[test]
fn an_agent_switched_off_in_settings_is_seen() {
    let script = "case $1 in
        print-disabled) [ $2 = gui/501 ] && printf 'disabled services = {\\n\\t\"fusion.mlx\" => disabled\\n}\\n' ;;
        print) exit 113 ;;
        esac";
    let desk = Desk::new(LoginManager::Launchd, script);
    desk.enable(LoginManager::Launchd).unwrap();
    let search = Some(desk.root.path().as_os_str());
    assert!(is_switched_off(LoginManager::Launchd, "mlx", &desk.places, search));
    assert!(!is_switched_off(LoginManager::Launchd, "ollama", &desk.places, search));
    assert!(!is_switched_off(LoginManager::Systemd, "mlx", &desk.places, search));
}

#[test]
fn file_without_mark_stays() {
    let desk = Desk::new(LoginManager::Systemd, "");
    let file = LoginManager::Systemd.file("mlx", &desk.places);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "[Unit]\n").unwrap();
    for result in [desk.enable(LoginManager::Systemd), desk.disable(LoginManager::Systemd)] {
        assert!(matches!(result, Err(LoginError::Foreign { path }) if path == file));
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "[Unit]\n");
    assert_eq!(desk.calls(), "");
}

#[test]
fn nothing_is_written_without_manager() {
    let desk = Desk::new(LoginManager::Launchd, "");
    let error = desk.enable(LoginManager::Systemd).unwrap_err();
    assert_eq!(error.to_string(), "there is no systemctl on PATH");
    assert!(!LoginManager::Systemd.file("mlx", &desk.places).exists());
}
