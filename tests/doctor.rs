//! `fusion doctor`: each thing that may be wrong is found, with its remedy, and decides the exit code.

mod support;

use std::net::TcpListener;

use serde_json::Value;
use support::{Finished, Sandbox, write_program};

/// The findings of `fusion doctor --json` about `check`, of `runtime` or of all.
fn findings(finished: &Finished, check: &str, runtime: Option<&str>) -> Vec<Value> {
    let Value::Array(reports) = finished.json() else { panic!("not an array: {finished:?}") };
    let wanted = |report: &Value| report["check"] == check && report["runtime"].as_str() == runtime;
    reports.into_iter().filter(wanted).collect()
}

/// The only finding about `check`: level, summary, remedy.
fn finding(finished: &Finished, check: &str, runtime: Option<&str>) -> (String, String, Option<String>) {
    let found = findings(finished, check, runtime);
    let [one] = found.as_slice() else { panic!("{check} of {runtime:?}: {finished:?}") };
    let text = |name: &str| one[name].as_str().map(str::to_owned);
    (text("level").expect("a level"), text("summary").expect("a summary"), text("remedy"))
}

fn doctor(sandbox: &Sandbox) -> Finished {
    sandbox.fusion(["doctor", "--json"]).run()
}

#[test]
fn the_fields_of_json_do_not_change() {
    let finished = doctor(&Sandbox::new());
    let Value::Array(reports) = finished.json() else { panic!("{finished:?}") };
    for report in &reports {
        let fields: Vec<&String> = report.as_object().expect("an object").keys().collect();
        assert_eq!(fields, ["check", "level", "remedy", "runtime", "summary"]);
        assert_eq!(report["remedy"].is_null(), report["level"] == "ok", "{report}");
    }
    let checks: Vec<(&str, Option<&str>)> = reports
        .iter()
        .map(|report| (report["check"].as_str().expect("a check"), report["runtime"].as_str()))
        .collect();
    assert_eq!(
        checks,
        [
            ("configuration", None),
            ("disk", None),
            ("memory", None),
            ("logout", None),
            ("program", Some("ollama")),
            ("service", Some("ollama")),
            ("program", Some("mlx")),
            ("service", Some("mlx")),
        ]
    );
}

#[test]
fn a_machine_in_order_has_no_problem() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    let finished = doctor(&sandbox).assert_code(0);
    let (level, summary, _) = finding(&finished, "service", Some("mlx"));
    let pid = sandbox.pid("mlx").expect("it runs");
    assert_eq!(
        (level.as_str(), summary),
        ("ok", format!("ready at 127.0.0.1:{} (process {pid})", sandbox.port("mlx")))
    );
    let (level, summary, _) = finding(&finished, "service", Some("ollama"));
    assert_eq!(
        (level.as_str(), summary),
        ("ok", format!("stopped; 127.0.0.1:{} is free", sandbox.port("ollama")))
    );
    let (level, summary, _) = finding(&finished, "program", Some("ollama"));
    assert_eq!(
        (level.as_str(), summary),
        ("ok", format!("ollama, on PATH: {}", sandbox.bin().join("ollama").display()))
    );
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
}

#[test]
fn for_people_every_finding_is_a_line_and_its_remedy_another() {
    let sandbox = Sandbox::new();
    std::fs::remove_file(sandbox.bin().join("ollama")).expect("the fake was there");
    let finished = sandbox.fusion(["doctor"]).run().assert_code(0);
    let expected = "warning  ollama: ollama is not installed: no ollama on PATH\n         \
                    install it: fusion ollama install\n";
    assert!(finished.stdout().contains(expected), "{}", finished.stdout());
    assert!(finished.stdout().starts_with("ok       "), "{}", finished.stdout());
    assert_eq!(finished.stderr(), "");
}

#[test]
fn a_runtime_that_is_not_installed_is_a_problem_only_if_it_is_needed() {
    let sandbox = Sandbox::new();
    std::fs::remove_file(sandbox.bin().join("ollama")).expect("the fake was there");
    let expected = |level: &str| {
        let summary = "ollama is not installed: no ollama on PATH".to_owned();
        (level.to_owned(), summary, Some("install it: fusion ollama install".to_owned()))
    };
    let finished = doctor(&sandbox).assert_code(0);
    assert_eq!(finding(&finished, "program", Some("ollama")), expected("warning"));

    sandbox.configure("auto_start = true", "");
    let finished = doctor(&sandbox).assert_code(1);
    assert_eq!(finding(&finished, "program", Some("ollama")), expected("problem"));

    sandbox.configure("", "");
    std::fs::remove_file(sandbox.bin().join("mlx_lm.server")).expect("the fake was there");
    let finished = doctor(&sandbox).assert_code(1);
    assert_eq!(finding(&finished, "program", Some("ollama")), expected("problem"));
}

#[test]
fn a_command_of_the_configuration_that_is_not_there() {
    let sandbox = Sandbox::new();
    sandbox.configure("command = [\"no-such-server\"]", "");
    let finished = doctor(&sandbox).assert_code(1);
    assert_eq!(
        finding(&finished, "program", Some("ollama")),
        (
            "problem".to_owned(),
            "there is no program no-such-server, which ollama_server.command names".to_owned(),
            Some(
                "correct it: fusion config edit; or remove it: fusion config unset ollama_server.command"
                    .to_owned()
            )
        )
    );
}

#[test]
fn a_broken_configuration_does_not_keep_it_from_looking_at_the_rest() {
    let sandbox = Sandbox::new();
    sandbox.configure("prot = 1", "");
    let finished = doctor(&sandbox).assert_code(1);
    let (level, summary, remedy) = finding(&finished, "configuration", None);
    assert_eq!(level, "problem");
    assert!(summary.contains("config.toml:5:1: ") && summary.contains("prot"), "{summary}");
    assert!(remedy.expect("a remedy").contains("fusion config edit"));
    assert_eq!(finding(&finished, "service", Some("mlx")).0, "ok");
}

#[test]
fn an_address_that_belongs_to_somebody_else() {
    let sandbox = Sandbox::new();
    let _stranger = TcpListener::bind(("127.0.0.1", sandbox.port("mlx"))).expect("the port is free");
    let finished = doctor(&sandbox).assert_code(1);
    let (level, summary, remedy) = finding(&finished, "address", Some("mlx"));
    assert_eq!(level, "problem");
    let (address, own) = (sandbox.port("mlx"), std::process::id());
    assert!(summary.starts_with(&format!("stopped, and 127.0.0.1:{address} belongs to ")), "{summary}");
    assert!(summary.contains(&format!("process {own}")), "{summary}");
    assert_eq!(
        remedy.as_deref(),
        Some("end that, or take another port: fusion config set mlx_server.port PORT")
    );
}

#[test]
fn a_server_that_other_machines_can_reach() {
    let sandbox = Sandbox::new();
    let text = std::fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("the configuration");
    sandbox.write_config(&text.replacen("127.0.0.1", "0.0.0.0", 1));
    let finished = doctor(&sandbox).assert_code(0);
    let (level, summary, remedy) = finding(&finished, "address", Some("ollama"));
    assert_eq!(level, "warning");
    assert!(summary.ends_with("can be reached from other machines, and asks nobody for a password"));
    assert_eq!(remedy.as_deref(), Some("fusion config set ollama_server.host 127.0.0.1"));
}

#[test]
fn a_runtime_that_has_died() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    let pid = sandbox.pid("mlx").expect("it runs");
    support::processes::kill(pid);
    support::wait_until("it is dead", || !sandbox.processes().contains(&pid));
    let finished = doctor(&sandbox).assert_code(0);
    let (level, summary, remedy) = finding(&finished, "service", Some("mlx"));
    assert_eq!((level.as_str(), remedy.as_deref()), ("warning", Some("fusion mlx log")));
    assert!(summary.starts_with("it has ended by itself; its last words: "), "{summary}");
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
}

#[test]
fn a_record_that_is_a_symbolic_link_is_told_with_its_cause_and_its_own_remedy() {
    let sandbox = Sandbox::new();
    let state = sandbox.file("mlx", "state.json");
    std::fs::create_dir_all(state.parent().expect("a directory")).expect("the sandbox is writable");
    std::os::unix::fs::symlink("elsewhere", &state).expect("a link");
    let finished = doctor(&sandbox).assert_code(1);
    assert_eq!(
        finding(&finished, "service", Some("mlx")),
        (
            "problem".to_owned(),
            format!("{} is a symbolic link", state.display()),
            Some("remove the link: fusion follows none here, for it could lead anywhere".to_owned())
        )
    );
    std::fs::remove_file(&state).expect("a link");
    std::fs::create_dir(&state).expect("the sandbox is writable");
    let (_, summary, remedy) = finding(&doctor(&sandbox).assert_code(1), "service", Some("mlx"));
    assert_eq!(summary, format!("{} is not a regular file", state.display()));
    assert_eq!(remedy.as_deref(), Some("move it away"));
    let directory = state.parent().expect("a directory");
    std::fs::remove_dir_all(directory).expect("the sandbox is writable");
    std::fs::write(directory, "").expect("the sandbox is writable");
    let (_, summary, remedy) = finding(&doctor(&sandbox).assert_code(1), "service", Some("mlx"));
    assert_eq!(summary, format!("cannot open {}\nNot a directory (os error 20)", state.display()));
    assert_eq!(remedy.as_deref(), Some("fusion mlx log"));
}

/// The disk that matters is the one to which the server's own environment has models downloaded.
#[test]
fn the_disk_of_the_servers_own_cache_is_looked_at() {
    use std::os::unix::fs::MetadataExt as _;
    let other = std::path::Path::new(if cfg!(target_os = "macos") { "/dev" } else { "/dev/shm" });
    let sandbox = Sandbox::new();
    let device = |path: &std::path::Path| path.metadata().expect("a directory").dev();
    assert_ne!(device(other), device(sandbox.root()), "another disk");
    sandbox.configure("", &format!("env = {{ HF_HUB_CACHE = \"{}/models\" }}", other.display()));
    let found = findings(&doctor(&sandbox), "disk", None);
    let summaries: Vec<&str> = found.iter().map(|disk| disk["summary"].as_str().expect("a text")).collect();
    let [own, models] = summaries[..] else { panic!("{summaries:?}") };
    assert!(own.ends_with(&format!(" free in {}", sandbox.config_dir().display())), "{own}");
    assert!(models.ends_with(&format!(" free in {}/models", other.display())), "{models}");
}

#[test]
fn a_version_that_is_not_known_to_work() {
    let sandbox = Sandbox::new();
    let environment = sandbox.root().join("environment");
    let program = environment.join("bin/mlx_lm.server");
    let packages = environment.join("lib/python3.12/site-packages/mlx_lm-0.28.0.dist-info");
    for directory in [program.parent().expect("bin"), &packages] {
        std::fs::create_dir_all(directory).expect("the sandbox is writable");
    }
    write_program(&program, "#!/bin/sh\n");
    let finished =
        sandbox.fusion(["doctor", "--json"]).env("PATH", program.parent().expect("bin")).run().assert_code(0);
    assert_eq!(
        finding(&finished, "program", Some("mlx")),
        (
            "warning".to_owned(),
            format!("mlx_lm.server 0.28.0, on PATH: {}", program.display()),
            Some("fusion mlx install, for a version that is known to work".to_owned())
        )
    );
}

#[test]
fn an_installation_that_was_not_finished() {
    let sandbox = Sandbox::new();
    let left = sandbox.file("mlx", "runtime/3");
    std::fs::create_dir_all(&left).expect("the sandbox is writable");
    let finished = doctor(&sandbox).assert_code(0);
    let found = findings(&finished, "program", Some("mlx"));
    assert_eq!(found[1]["level"], "warning");
    assert_eq!(found[1]["summary"], format!("an installation was not finished: {}", left.display()));
}

/// A sandbox in which `loginctl` says this of the manager and of the user.
fn with_logind(manager: &str, user: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let script = format!("#!/bin/sh\nif [ $# = 1 ]; then printf '{manager}'; else printf '{user}'; fi\n");
    write_program(&sandbox.bin().join("loginctl"), &script);
    sandbox
}

#[test]
fn logging_out_kills_what_was_started() {
    let sandbox = with_logind("KillUserProcesses=yes\\nKillExcludeUsers=\\n", "Linger=no\\n");
    let finished = doctor(&sandbox).assert_code(1);
    let (level, summary, remedy) = finding(&finished, "logout", None);
    assert_eq!(level, "problem");
    assert_eq!(summary, "systemd kills what was started when you log out (KillUserProcesses=yes)");
    assert!(remedy.expect("a remedy").contains("loginctl enable-linger"));

    let sandbox = with_logind("KillUserProcesses=no\\n", "");
    assert_eq!(finding(&doctor(&sandbox).assert_code(0), "logout", None).0, "ok");
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_started_at_login_ends_with_the_last_logout_unless_the_user_lingers() {
    for (lingers, expected) in [("no", "warning"), ("yes", "ok")] {
        let sandbox = with_logind("KillUserProcesses=no\\n", &format!("Linger={lingers}\\n"));
        let systemctl = sandbox.bin().join("systemctl");
        std::os::unix::fs::symlink("/bin/true", systemctl).expect("a link");
        sandbox.fusion(["mlx", "enable"]).run().assert_code(0);
        let finished = doctor(&sandbox).assert_code(0);
        let (level, summary, _) = finding(&finished, "login", Some("mlx"));
        assert_eq!(level, expected, "{summary}");
        assert!(summary.contains("fusion-mlx.service"), "{summary}");
    }
}
