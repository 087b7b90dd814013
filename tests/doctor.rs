//! `fusion doctor`: it finds each problem, names a remedy, and decides the exit code.

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

/// The only finding about `check`, as text: level, summary, remedy.
#[track_caller]
fn finding(finished: &Finished, check: &str, runtime: Option<&str>) -> String {
    let found = findings(finished, check, runtime);
    let [one] = found.as_slice() else { panic!("{check} of {runtime:?}: {finished:?}") };
    let text = |name: &str| one[name].as_str().unwrap_or_default();
    let shown = format!("{}: {}\n{}", text("level"), text("summary"), text("remedy"));
    finished.normalized(shown.as_bytes())
}

fn doctor(sandbox: &Sandbox) -> Finished {
    sandbox.fusion(["doctor", "--json"]).run()
}

#[test]
fn json_has_stable_fields_and_checks() {
    let finished = doctor(&Sandbox::new());
    let Value::Array(reports) = finished.json() else { panic!("{finished:?}") };
    for report in &reports {
        let fields: Vec<&String> = report.as_object().expect("an object").keys().collect();
        assert_eq!(fields, ["check", "level", "remedy", "runtime", "service", "summary"]);
        assert_eq!(report["remedy"].is_null(), report["level"] == "ok", "{report}");
    }
    let checks: Vec<(&str, Option<&str>)> = reports
        .iter()
        .map(|report| (report["check"].as_str().expect("a check"), report["service"].as_str()))
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
            ("program", Some("llama")),
            ("service", Some("llama")),
        ]
    );
}

#[test]
fn a_working_machine_has_no_problem() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    let finished = doctor(&sandbox).assert_code(0);
    insta::assert_snapshot!(finding(&finished, "service", Some("mlx")), @"ok: ready at 127.0.0.1:[MLX] (pid [PID])");
    insta::assert_snapshot!(finding(&finished, "service", Some("ollama")), @"ok: stopped; port [OLLAMA] is free");
    insta::assert_snapshot!(finding(&finished, "program", Some("ollama")), @"ok: ollama, on PATH: [ROOT]/bin/ollama");
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
}

#[test]
fn text_has_a_line_for_each_remedy() {
    let sandbox = Sandbox::new();
    std::fs::remove_file(sandbox.bin().join("ollama")).expect("the fake was there");
    let finished = sandbox.fusion(["doctor"]).run().assert_code(0);
    let stdout = finished.normalized(&finished.stdout);
    let ollama = stdout.lines().skip_while(|line| !line.contains("ollama: ")).take(2);
    insta::assert_snapshot!(ollama.collect::<Vec<_>>().join("\n"), @"
    warning  ollama: ollama is not installed: no ollama on PATH
             install it: fusion ollama install
    ");
    assert!(stdout.starts_with("ok       "), "{stdout}");
    assert_eq!(finished.stderr(), "");
}

#[test]
fn only_a_needed_missing_runtime_is_a_problem() {
    let sandbox = Sandbox::new();
    std::fs::remove_file(sandbox.bin().join("ollama")).expect("the fake was there");
    let finished = doctor(&sandbox).assert_code(0);
    insta::assert_snapshot!(finding(&finished, "program", Some("ollama")), @"
    warning: ollama is not installed: no ollama on PATH
    install it: fusion ollama install
    ");

    sandbox.configure("auto_start = true", "");
    let needed = doctor(&sandbox).assert_code(1);
    insta::assert_snapshot!(finding(&needed, "program", Some("ollama")), @"
    problem: ollama is not installed: no ollama on PATH
    install it: fusion ollama install
    ");

    sandbox.configure("", "");
    for program in ["mlx_lm.server", "llama-server"] {
        std::fs::remove_file(sandbox.bin().join(program)).expect("the fake was there");
    }
    let none_installed = doctor(&sandbox).assert_code(1);
    let problem = finding(&none_installed, "program", Some("ollama"));
    assert_eq!(problem, finding(&needed, "program", Some("ollama")));
}

#[test]
fn a_missing_configured_command_is_a_problem() {
    let sandbox = Sandbox::new();
    sandbox.configure("command = [\"no-such-server\"]", "");
    let finished = doctor(&sandbox).assert_code(1);
    insta::assert_snapshot!(finding(&finished, "program", Some("ollama")), @"
    problem: there is no program no-such-server, which ollama_server.command names
    correct the path: fusion config edit; or remove it: fusion config unset ollama_server.command
    ");
}

#[test]
fn a_broken_configuration_hides_no_other_check() {
    let sandbox = Sandbox::new();
    sandbox.configure("prot = 1", "");
    let finished = doctor(&sandbox).assert_code(1);
    insta::assert_snapshot!(finding(&finished, "configuration", None), @"
    problem: [ROOT]/config/config.toml:5:1: unknown key `ollama_server.prot`; did you mean `ollama_server.port`?
    edit the file: fusion config edit
    ");
    assert_eq!(findings(&finished, "service", Some("mlx"))[0]["level"], "ok");
}

#[test]
fn a_port_in_use_is_a_problem() {
    let sandbox = Sandbox::new();
    let _listener = TcpListener::bind(("127.0.0.1", sandbox.port("mlx"))).expect("the port is free");
    let finished = doctor(&sandbox).assert_code(1);
    let [one] = &findings(&finished, "address", Some("mlx"))[..] else { panic!("{finished}") };
    let own = std::process::id().to_string();
    assert!(one["summary"].as_str().is_some_and(|summary| summary.contains(&own)), "{one}");
    insta::assert_snapshot!(finding(&finished, "address", Some("mlx")), @"
    problem: stopped, and port [MLX] is in use by [TEST] (pid [PID])
    stop that program, or choose another port: fusion config set mlx_server.port [SPARE]
    ");
}

#[test]
fn a_server_reachable_from_elsewhere_is_a_warning() {
    let sandbox = Sandbox::new();
    let text = std::fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("the configuration");
    sandbox.write_config(&text.replacen("127.0.0.1", "0.0.0.0", 1));
    let finished = doctor(&sandbox).assert_code(0);
    insta::assert_snapshot!(finding(&finished, "address", Some("ollama")), @"
    warning: 0.0.0.0:[OLLAMA] can be reached from other machines, and the server has no authentication
    listen on this machine only: fusion config set ollama_server.host 127.0.0.1
    ");
}

#[test]
fn a_dead_server_is_a_warning() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    let pid = sandbox.pid("mlx").expect("it runs");
    support::processes::kill(pid);
    support::wait_until("it is dead", || !sandbox.processes().contains(&pid));
    let finished = doctor(&sandbox).assert_code(0);
    insta::assert_snapshot!(finding(&finished, "service", Some("mlx")), @"
    warning: the server ended without `down`; last log line: POST /v1/chat/completions
    see the log: fusion mlx log
    ");
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
}

#[test]
fn a_damaged_record_has_its_own_remedy() {
    let sandbox = Sandbox::new();
    let state = sandbox.file("mlx", "state.json");
    std::fs::create_dir_all(state.parent().expect("a directory")).expect("the sandbox is writable");
    std::os::unix::fs::symlink("elsewhere", &state).expect("a link");
    let finished = doctor(&sandbox).assert_code(1);
    insta::assert_snapshot!(finding(&finished, "service", Some("mlx")), @"
    problem: [ROOT]/config/mlx/state.json is a symbolic link
    remove the link: fusion follows no links there, because they can point anywhere
    ");
    std::fs::remove_file(&state).expect("a link");
    std::fs::create_dir(&state).expect("the sandbox is writable");
    insta::assert_snapshot!(finding(&doctor(&sandbox).assert_code(1), "service", Some("mlx")), @"
    problem: [ROOT]/config/mlx/state.json is not a regular file
    move it away
    ");
    let directory = state.parent().expect("a directory");
    std::fs::remove_dir_all(directory).expect("the sandbox is writable");
    std::fs::write(directory, "").expect("the sandbox is writable");
    insta::assert_snapshot!(finding(&doctor(&sandbox).assert_code(1), "service", Some("mlx")), @"
    problem: cannot open [ROOT]/config/mlx/state.json
    Not a directory (os error [ERRNO])
    see the log: fusion mlx log
    ");
}

/// The server's own environment decides where models are downloaded to.
#[test]
fn the_disk_of_the_model_cache_is_checked() {
    use std::os::unix::fs::MetadataExt as _;
    let other = std::path::Path::new(if cfg!(target_os = "macos") { "/dev" } else { "/dev/shm" });
    let sandbox = Sandbox::new();
    let device = |path: &std::path::Path| path.metadata().expect("a directory").dev();
    assert_ne!(device(other), device(sandbox.root()), "another disk");
    sandbox.configure("", &format!("env = {{ HF_HUB_CACHE = \"{}/models\" }}", other.display()));
    let found = findings(&doctor(&sandbox), "disk", None);
    let summaries: Vec<&str> = found.iter().map(|disk| disk["summary"].as_str().expect("a text")).collect();
    let [own, models] = summaries[..] else { panic!("{summaries:?}") };
    assert!(own.ends_with(&sandbox.config_dir().display().to_string()), "{own}");
    assert!(models.ends_with(&format!("{}/models", other.display())), "{models}");
}

#[test]
fn an_untested_version_is_a_warning() {
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
    insta::assert_snapshot!(finding(&finished, "program", Some("mlx")), @"
    warning: mlx_lm.server 0.28.0, on PATH: [ROOT]/environment/bin/mlx_lm.server
    install a version that is known to work: fusion mlx install
    ");
}

#[test]
fn variables_without_effect_are_warnings() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["config", "set", "ollama_server.env.OLLAMA_CONTXT_LENGTH", "5"]).run().assert_code(0);
    let doctor = sandbox.fusion(["doctor", "--json"]).env("OLLAMA_HOST", "10.1.2.3").run();
    let found = findings(&doctor, "environment", Some("ollama"));
    let texts: Vec<String> = found
        .iter()
        .map(|finding| format!("{}: {}; {}", finding["level"], finding["summary"], finding["remedy"]))
        .collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
    "warning": "ollama does not know OLLAMA_CONTXT_LENGTH, which the configuration sets"; "did you mean OLLAMA_CONTEXT_LENGTH? change it: fusion config edit"
    "warning": "OLLAMA_HOST=10.1.2.3 of this shell counts for the commands of ollama itself, not for fusion"; "unset it, or set it to the address of ollama: fusion ollama ps"
    "#);
}

#[test]
fn an_unfinished_installation_is_a_warning() {
    let sandbox = Sandbox::new();
    let left = sandbox.installation("mlx").join("3");
    std::fs::create_dir_all(&left).expect("the sandbox is writable");
    let finished = doctor(&sandbox).assert_code(0);
    let found = findings(&finished, "program", Some("mlx"));
    assert_eq!(found[1]["level"], "warning");
    insta::assert_snapshot!(sandbox.normalized(found[1]["summary"].as_str().expect("a text")), @"an installation was interrupted: [ROOT]/config/data/runtimes/mlx/3");
}

/// A sandbox in which `loginctl` prints this about the manager and about the user.
fn with_logind(manager: &str, user: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let script = format!("#!/bin/sh\nif [ $# = 1 ]; then printf '{manager}'; else printf '{user}'; fi\n");
    write_program(&sandbox.bin().join("loginctl"), &script);
    sandbox
}

#[test]
fn a_logout_that_kills_servers_is_a_problem() {
    let sandbox = with_logind("KillUserProcesses=yes\\nKillExcludeUsers=\\n", "Linger=no\\n");
    let finished = doctor(&sandbox).assert_code(1);
    insta::assert_snapshot!(finding(&finished, "logout", None), @"
    problem: systemd kills servers when you log out (KillUserProcesses=yes)
    start them outside the session: fusion SERVICE enable, then loginctl enable-linger
    ");

    let sandbox = with_logind("KillUserProcesses=no\\n", "");
    assert_eq!(findings(&doctor(&sandbox).assert_code(0), "logout", None)[0]["level"], "ok");
}

#[cfg(target_os = "linux")]
#[test]
fn a_login_job_without_lingering_is_a_warning() {
    for (lingers, expected) in [("no", "warning"), ("yes", "ok")] {
        let sandbox = with_logind("KillUserProcesses=no\\n", &format!("Linger={lingers}\\n"));
        let systemctl = sandbox.bin().join("systemctl");
        std::os::unix::fs::symlink("/bin/true", systemctl).expect("a link");
        sandbox.fusion(["mlx", "enable"]).run().assert_code(0);
        let finished = doctor(&sandbox).assert_code(0);
        let [one] = &findings(&finished, "login", Some("mlx"))[..] else { panic!("{finished}") };
        assert_eq!(one["level"], expected, "{one}");
        assert!(
            one["summary"].as_str().is_some_and(|summary| summary.contains("fusion-mlx.service")),
            "{one}"
        );
    }
}
