//! Faults of `up`.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;

use crate::support::{Invocation, Sandbox, command_line, fake_runtime, processes, wait_until};
use crate::{assert_nothing_left, assert_silence_is_told, assert_up_fails, down, state, up, with_faults};

#[test]
fn dies_at_once() {
    let sandbox = with_faults("ollama", &["print=no luck today", "die=3"]);
    assert_up_fails(&sandbox, "ollama", 6).assert(
        6,
        "",
        "the end of [ROOT]/config/ollama/ollama.log:\n  | no luck today\n\
         error: ollama (process [PID]) exited with status 3 [TIME] s after its start\n\
         hint: its whole log: fusion ollama log\n",
    );
    assert_eq!(sandbox.log("ollama"), "no luck today\n", "the log stays");
}

#[test]
fn dies_after_a_while() {
    let sandbox = with_faults("mlx", &["never-bind", "die-after=300"]);
    let up = assert_up_fails(&sandbox, "mlx", 6);
    assert!(up.stderr().contains("exited with status 1"), "{}", up.stderr());
    assert!(up.stderr().contains("  | fatal: the fake runtime was told to die\n"), "{}", up.stderr());
}

#[test]
fn dies_by_a_signal() {
    let sandbox = with_faults("ollama", &["signal=9"]);
    assert_up_fails(&sandbox, "ollama", 6).assert(
        6,
        "",
        "its log is empty: [ROOT]/config/ollama/ollama.log\n\
         error: ollama (process [PID]) was ended by signal 9, SIGKILL [TIME] s after its start\n\
         hint: its whole log: fusion ollama log\n",
    );
}

#[test]
fn dies_of_the_first_question() {
    let sandbox = with_faults("mlx", &["die-on-chat"]);
    let up = assert_up_fails(&sandbox, "mlx", 6);
    assert!(up.stderr().contains("died of a question"), "{}", up.stderr());
}

#[test]
fn the_last_twenty_lines_are_shown_and_made_harmless() {
    let sandbox = with_faults("ollama", &["flood=3000", "print-hex=1b5d35323b633b1b5c6279650a", "die=1"]);
    let stderr = assert_up_fails(&sandbox, "ollama", 6).stderr();
    let shown: Vec<&str> = stderr.lines().filter(|line| line.starts_with("  | ")).collect();
    assert_eq!(shown.len(), 20, "{stderr}");
    assert_eq!(shown[19], format!("  | {:099}", 29), "{stderr}");
    assert!(!stderr.contains('\x1b'), "{stderr:?}");
}

#[test]
fn program_missing() {
    let sandbox = Sandbox::new();
    std::fs::remove_file(sandbox.bin().join("ollama")).expect("the sandbox is writable");
    let up = assert_up_fails(&sandbox, "ollama", 4);
    assert!(up.stderr().contains("ollama is not installed"), "{}", up.stderr());
    assert!(up.stderr().contains("hint: "), "{}", up.stderr());
}

#[test]
fn configured_program_missing() {
    let sandbox = Sandbox::new();
    sandbox.configure("command = [\"/nowhere/at/all\"]", "");
    let up = assert_up_fails(&sandbox, "ollama", 4);
    assert!(up.stderr().contains("/nowhere/at/all"), "{}", up.stderr());
}

#[test]
fn program_not_executable() {
    let sandbox = Sandbox::new();
    let program = sandbox.root().join("program");
    std::fs::write(&program, "no program").expect("the sandbox is writable");
    sandbox.configure(&format!("command = [{program:?}]"), "");
    let up = assert_up_fails(&sandbox, "ollama", 4);
    assert!(up.stderr().contains(&program.display().to_string()), "{}", up.stderr());
}

#[test]
fn interpreter_missing() {
    let sandbox = Sandbox::new();
    let program = executable(&sandbox, "#!/nowhere/python3\n");
    sandbox.configure(&format!("command = [{program:?}]"), "");
    let up = assert_up_fails(&sandbox, "ollama", 4);
    assert!(up.stderr().contains("/nowhere/python3"), "{}", up.stderr());
}

fn executable(sandbox: &Sandbox, content: &str) -> String {
    let program = sandbox.root().join("program");
    std::fs::write(&program, content).expect("the sandbox is writable");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("own file");
    program.display().to_string()
}

#[test]
fn binds_late() {
    let sandbox = with_faults("ollama", &["bind-after=2000"]);
    up(&sandbox, "ollama");
    assert_eq!(state(&sandbox, "ollama"), "ready");
    down(&sandbox, "ollama");
}

#[test]
fn answers_503_while_loading() {
    let sandbox = with_faults("mlx", &["loading=700"]);
    up(&sandbox, "mlx");
    let requests = sandbox.log("mlx");
    assert!(requests.contains("POST /v1/chat/completions"), "{requests}");
    down(&sandbox, "mlx");
}

#[test]
fn never_binds() {
    let sandbox = with_faults("ollama", &["never-bind"]);
    let up = sandbox.fusion(["ollama", "up", "--timeout", "0.5"]).run();
    up.assert(
        6,
        "",
        "its log is empty: [ROOT]/config/ollama/ollama.log\n\
         error: ollama (process [PID]) was not ready within [TIME] s: Connection refused (os error 111)\n\
         hint: its whole log: fusion ollama log\n",
    );
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn binds_and_hangs() {
    let sandbox = with_faults("ollama", &["hang"]);
    let up = sandbox.fusion(["ollama", "up", "--timeout", "1"]).run().assert_code(6);
    assert_silence_is_told(&up, "was not ready within 1 s");
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn always_answers_500() {
    let sandbox = with_faults("ollama", &["status=500"]);
    let up = sandbox.fusion(["ollama", "up", "--timeout", "1"]).run().assert_code(6);
    assert!(up.stderr().contains("HTTP 500"), "{}", up.stderr());
    assert_nothing_left(&sandbox, "ollama");
}

/// `/health` answers, and no chat ever does.
#[test]
fn health_answers_and_the_model_never_does() {
    let sandbox = with_faults("mlx", &["chat-hang"]);
    let up = sandbox.fusion(["mlx", "up", "--timeout", "1"]).run().assert_code(6);
    assert!(up.stderr().contains("was not ready within 1 s"), "{}", up.stderr());
    assert_nothing_left(&sandbox, "mlx");
}

#[test]
fn health_answers_and_every_chat_is_refused() {
    let sandbox = with_faults("mlx", &["chat-status=400"]);
    let up = assert_up_fails(&sandbox, "mlx", 6);
    assert!(up.stderr().contains("cannot generate: the fake runtime was told to fail"), "{}", up.stderr());
}

#[test]
fn the_model_is_not_on_this_machine() {
    let sandbox = Sandbox::new();
    std::fs::remove_dir_all(sandbox.model()).expect("the sandbox is writable");
    let up = assert_up_fails(&sandbox, "mlx", 7);
    assert!(up.stderr().contains(&sandbox.model().display().to_string()), "{}", up.stderr());
    assert_eq!(sandbox.log("mlx"), "", "it was not even started");
}

#[test]
fn the_server_does_not_know_its_model() {
    let sandbox = with_faults("mlx", &["models=another"]);
    let up = assert_up_fails(&sandbox, "mlx", 7);
    assert!(up.stderr().contains("not found"), "{}", up.stderr());
}

#[test]
fn port_taken_by_a_web_server() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let _server = serve_pages(("127.0.0.1", port));
    let (pid, up) = (std::process::id(), assert_up_fails(&sandbox, "ollama", 5));
    let stderr = up.stderr();
    assert!(stderr.starts_with(&format!("error: 127.0.0.1:{port} belongs to ")), "{stderr}");
    assert!(stderr.contains(&format!("(process {pid})")), "{stderr}");
    assert!(stderr.contains("hint: "), "{stderr}");
    assert_eq!(sandbox.log("ollama"), "", "nothing was started");
}

#[test]
fn port_taken_by_somebody_who_never_answers() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let _listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let up = assert_up_fails(&sandbox, "ollama", 5);
    assert!(up.stderr().contains(&format!("(process {})", std::process::id())), "{}", up.stderr());
}

#[test]
fn port_taken_at_every_address() {
    let sandbox = Sandbox::new();
    let _server = serve_pages(("0.0.0.0", sandbox.port("ollama")));
    assert_up_fails(&sandbox, "ollama", 5);
}

/// The same kind of runtime, started by somebody else, is as good as one's own, and is left alone.
#[test]
fn port_taken_by_another_of_the_same_kind() {
    for (runtime, variable) in [("ollama", "OLLAMA_HOST"), ("mlx", "UNUSED")] {
        let sandbox = Sandbox::new();
        let port = sandbox.port(runtime).to_string();
        let stranger = sandbox
            .command(fake_runtime())
            .arg(runtime)
            .env(variable, format!("127.0.0.1:{port}"))
            .arg("--port")
            .arg(&port)
            .start();
        wait_until("it answers", || state(&sandbox, runtime) == "external");
        let pid = stranger.pid();
        let url = sandbox.url(runtime);
        let line = format!("{runtime} is up at {url} (pid {pid}, not started by fusion)\n");
        assert_eq!(sandbox.fusion([runtime, "up"]).run().assert_code(0).stdout(), line);
        assert_eq!(sandbox.fusion([runtime, "up"]).run().assert_code(0).stdout(), line);
        assert_eq!(sandbox.record(runtime), None);

        let refused = sandbox.fusion([runtime, "down"]).run().assert_code(5);
        assert!(refused.stderr().contains(&pid.to_string()), "{}", refused.stderr());
        sandbox.fusion([runtime, "down", "--force"]).run().assert_code(5);
        sandbox.fusion([runtime, "restart"]).run().assert_code(5);
        sandbox.fusion(["down"]).run().assert(0, "", "nothing is running that fusion started\n");
        sandbox.fusion([runtime, "health"]).run().assert_code(0);
        if runtime == "ollama" {
            sandbox.fusion([runtime, "run", "Hello"]).run().assert(0, "Hello from the fake runtime.\n", "");
        }
        assert!(processes::lives(pid), "a stranger was stopped");
        processes::kill(pid);
        stranger.finish();
    }
}

#[test]
fn port_taken_by_another_of_the_same_kind_that_is_not_ready() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("mlx").to_string();
    let stranger =
        sandbox.command(fake_runtime()).arg("mlx").arg("loading=600000").arg("--port").arg(port).start();
    wait_until("it answers", || state(&sandbox, "mlx") == "unhealthy");
    let up = sandbox.fusion(["mlx", "up"]).run().assert_code(5);
    assert!(up.stderr().contains(&format!("(process {})", stranger.pid())), "{}", up.stderr());
    processes::kill(stranger.pid());
    stranger.finish();
}

/// Ollama says so and dies.
#[test]
fn port_taken_between_check_and_bind() {
    let sandbox = Sandbox::new();
    let go = sandbox.root().join("go");
    sandbox.faults("ollama", &[&format!("bind-when={}", go.display())]);
    let up = sandbox.fusion(["ollama", "up"]).start();
    wait_until("it was started", || sandbox.log("ollama").contains("waiting"));
    let _server = serve_pages(("127.0.0.1", sandbox.port("ollama")));
    std::fs::write(&go, "").expect("the sandbox is writable");
    let up = up.finish().assert_code(5);
    assert!(up.stderr().contains(&format!("(process {})", std::process::id())), "{}", up.stderr());
    assert_nothing_left(&sandbox, "ollama");
}

/// `mlx_lm.server` lives on without listening, and somebody else answers.
#[test]
fn port_taken_between_check_and_bind_and_the_server_lives_on() {
    for same_kind in [false, true] {
        let sandbox = Sandbox::new();
        let go = sandbox.root().join("go");
        sandbox.faults("mlx", &[&format!("bind-when={}", go.display())]);
        let up = sandbox.fusion(["mlx", "up"]).start();
        wait_until("it was started", || sandbox.log("mlx").contains("waiting"));
        let port = sandbox.port("mlx");
        let mut stranger = None;
        let _server = if same_kind {
            let started = sandbox.command(fake_runtime()).arg("mlx").arg("--port").arg(port.to_string());
            stranger = Some(started.arg("--model").arg(sandbox.model()).start());
            None
        } else {
            Some(serve_pages(("127.0.0.1", port)))
        };
        let culprit =
            stranger.as_ref().map_or(std::process::id().cast_signed(), crate::support::Running::pid);
        let up = up.finish();
        std::fs::write(&go, "").expect("the sandbox is writable");
        let up = up.assert_code(5);
        assert!(up.stderr().contains(&format!("(process {culprit})")), "{}", up.stderr());
        if let Some(stranger) = stranger {
            assert!(processes::lives(culprit), "a stranger was stopped");
            processes::kill(culprit);
            stranger.finish();
        }
        assert_nothing_left(&sandbox, "mlx");
    }
}

#[test]
fn the_two_loopbacks_are_served_by_two_programs() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    let _other = serve_pages(("::1", port));
    let pid = up(&sandbox, "ollama");
    assert!(processes::lives(pid));
    assert_eq!(state(&sandbox, "ollama"), "ready");
    down(&sandbox, "ollama");
}

#[test]
fn a_host_that_is_not_of_this_machine() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    sandbox.write_config(&format!(
        "[ollama_server]\nhost = \"192.0.2.1\"\nport = {port}\nstartup_timeout = 5\n"
    ));
    let up = assert_up_fails(&sandbox, "ollama", 1);
    assert!(up.stderr().contains("192.0.2.1"), "{}", up.stderr());
    assert!(up.stderr().contains("hint: "), "{}", up.stderr());
}

#[test]
fn a_host_that_others_can_reach_is_warned_about_every_time() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("ollama");
    sandbox.write_config(&format!("[ollama_server]\nhost = \"0.0.0.0\"\nport = {port}\n"));
    for _ in 0..2 {
        sandbox.fusion(["ollama", "up"]).run().assert(
            0,
            "ollama is up at http://127.0.0.1:[OLLAMA] (pid [PID])\n",
            "warning: ollama listens at 0.0.0.0:[OLLAMA]: others on the network can reach it, and it asks nobody for a \
             password\n",
        );
    }
    down(&sandbox, "ollama");
}

#[test]
fn a_server_that_daemonizes_itself() {
    let sandbox = with_faults("ollama", &["daemonize", "bind-after=300"]);
    up(&sandbox, "ollama");
    let ps = sandbox.fusion(["ollama", "ps", "--json"]).run().assert_code(0).json();
    let pid = i32::try_from(ps["pid"].as_i64().expect("a PID")).expect("a PID");
    assert!(processes::lives(pid), "ps names a dead process");
    assert_eq!(sandbox.pid("ollama"), Some(pid));
    assert_eq!(ps["state"], "ready");
    down(&sandbox, "ollama");
}

#[test]
fn a_server_that_daemonizes_itself_and_nobody_waits() {
    let sandbox = with_faults("ollama", &["daemonize", "bind-after=300"]);
    sandbox.fusion(["ollama", "up", "--no-wait"]).run().assert_code(0);
    wait_until("it is ready", || state(&sandbox, "ollama") == "ready");
    up(&sandbox, "ollama");
    down(&sandbox, "ollama");
}

#[test]
fn a_model_name_with_anything_in_it_arrives_as_it_is() {
    let sandbox = Sandbox::new();
    let dump = sandbox.root().join("dump.json");
    let name = "a b'c\"d$(touch pwned)`e`\\f;g|h\ni";
    let directory = sandbox.root().join(name);
    std::fs::create_dir(&directory).expect("the sandbox is writable");
    for file in std::fs::read_dir(sandbox.model()).expect("the model").flatten() {
        std::fs::copy(file.path(), directory.join(file.file_name())).expect("the sandbox is writable");
    }
    let model = directory.to_str().expect("UTF-8");
    let quoted = serde_json::to_string(model).expect("JSON strings are TOML strings");
    let line = command_line("mlx", &[&format!("dump={}", dump.display())]);
    sandbox.write_config(&format!(
        "[ollama_server]\nport = {}\n[mlx_server]\nport = {}\nmodel = {quoted}\n{line}\nargs = [\"--odd\", \"$HOME *\"]\n",
        sandbox.port("ollama"),
        sandbox.port("mlx")
    ));
    up(&sandbox, "mlx");
    let dump: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dump).expect("the dump")).expect("JSON");
    let arguments: Vec<&str> =
        dump["arguments"].as_array().expect("arguments").iter().filter_map(|word| word.as_str()).collect();
    assert!(arguments.ends_with(&["--model", model, "--odd", "$HOME *"]), "{arguments:?}");
    down(&sandbox, "mlx");
}

/// Own session, default signals, no descriptor of the caller, a directory that stays, output in the log.
#[test]
fn the_server_holds_nothing_of_its_caller() {
    let sandbox = Sandbox::new();
    let dump = sandbox.root().join("dump.json");
    sandbox.faults("ollama", &[&format!("dump={}", dump.display())]);
    // The shell ignores a signal, and leaves descriptors open: one that is kept on exec, and a terminal's worth.
    let script = "trap '' HUP TERM INT; exec 7</dev/zero 9>/dev/full; \"$0\" ollama up";
    let program = env!("CARGO_BIN_EXE_fusion");
    sandbox.command("/bin/sh").arg("-c").arg(script).arg(program).run().assert_code(0);
    let dump: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dump).expect("the dump")).expect("JSON");
    assert_eq!(dump["session"], dump["pid"], "a session of its own");
    assert_eq!(dump["group"], dump["pid"], "a group of its own");
    assert_eq!(dump["blocked"], serde_json::json!([]));
    assert_eq!(dump["directory"], sandbox.config_dir().join("ollama").display().to_string());
    assert!(dump["environment"]["FUSION_INSTANCE"].is_string());
    if cfg!(target_os = "linux") {
        // Bits of signal numbers minus one, without those that belong to the C library (32 and 33). Rust's own
        // start-up code has SIGPIPE (13) ignored.
        let ignored = dump["ignored"].as_str().expect("hexadecimal");
        let ignored = u64::from_str_radix(ignored, 16).expect("hexadecimal");
        assert_eq!(ignored & 0x7fff_ffff, 1 << 12, "{ignored:x}");
        let descriptors = dump["descriptors"].as_object().expect("descriptors");
        let log = sandbox.file("ollama", "ollama.log").display().to_string();
        assert_eq!(descriptors["0"], "/dev/null");
        assert_eq!(descriptors["1"], log);
        assert_eq!(descriptors["2"], log);
        let others: Vec<_> =
            descriptors.iter().filter(|(name, _)| name.parse::<i32>().is_ok_and(|n| n > 2)).collect();
        // The directory of descriptors itself, while it was read.
        assert!(
            others.iter().all(|(_, target)| target.as_str().is_some_and(|t| t.contains("/fd"))),
            "{others:?}"
        );
    }
    down(&sandbox, "ollama");
}

#[test]
fn eight_ups_at_once_start_one_process() {
    for runtime in ["ollama", "mlx"] {
        let sandbox = with_faults(runtime, &["bind-after=100", "print=started"]);
        let all: Vec<_> = (0..8).map(|_| sandbox.fusion([runtime, "up"]).start()).collect();
        let lines: Vec<String> = all.into_iter().map(|one| one.finish().assert_code(0).stdout()).collect();
        assert!(lines.iter().all(|line| *line == lines[0]), "{lines:?}");
        assert_eq!(sandbox.log(runtime).matches("started").count(), 1);
        let parts = std::fs::read_dir(sandbox.file(runtime, "")).expect("its directory").flatten();
        let logs = parts.filter(|part| part.file_name().to_string_lossy().contains(".log")).count();
        assert_eq!(logs, 1, "a second start would have rotated the log");
        down(&sandbox, runtime);
    }
}

#[test]
fn up_against_down() {
    let sandbox = with_faults("ollama", &["bind-after=5"]);
    for round in 0..20 {
        let up = sandbox.fusion(["ollama", "up"]).start();
        // Down comes a little later each round.
        std::thread::sleep(std::time::Duration::from_millis(round));
        let down = sandbox.fusion(["ollama", "down"]).start();
        let (up, down) = (up.finish(), down.finish().assert_code(0));
        assert!([0, 6].contains(&up.code()), "round {round}: {up:?}");
        assert_eq!(down.stdout(), "ollama is down\n");
        match sandbox.processes().as_slice() {
            [] => assert_eq!(sandbox.record("ollama"), None),
            _ => assert_eq!(state(&sandbox, "ollama"), "ready", "round {round}"),
        }
    }
    down(&sandbox, "ollama");
}

/// At every moment of `up`: whatever has been started by then, the next `down` finds.
#[test]
fn fusion_is_killed_during_up() {
    let sandbox = with_faults("ollama", &["bind-after=10"]);
    for microseconds in (0..12_000).step_by(300) {
        let up = sandbox.fusion(["ollama", "up"]).start();
        std::thread::sleep(std::time::Duration::from_micros(microseconds));
        up.signal(Signal::SIGKILL);
        let _ = up.finish();
        down(&sandbox, "ollama");
    }
}

/// Killed before it waits, and then the next `up` goes on where it was.
#[test]
fn fusion_is_killed_during_up_and_up_goes_on() {
    let sandbox = with_faults("ollama", &["bind-after=700", "print=started"]);
    let first = sandbox.fusion(["ollama", "up"]).start();
    wait_until("it was started", || sandbox.log("ollama").contains("started"));
    first.signal(Signal::SIGKILL);
    let _ = first.finish();
    assert_eq!(state(&sandbox, "ollama"), "starting");
    up(&sandbox, "ollama");
    assert_eq!(sandbox.log("ollama").matches("started").count(), 1, "a second one was started");
    assert_eq!(state(&sandbox, "ollama"), "ready");
    down(&sandbox, "ollama");
}

#[test]
fn interrupted_by_each_signal() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let sandbox = with_faults("ollama", &["never-bind", "print=started"]);
        let up = sandbox.fusion(["ollama", "up"]).start();
        wait_until("it was started", || sandbox.log("ollama").contains("started"));
        up.signal(signal);
        let up = up.finish().assert_code(code);
        assert_eq!(up.stdout(), "");
        assert_eq!(up.status.code(), None, "the signal has its effect");
        assert_nothing_left(&sandbox, "ollama");
    }
}

#[test]
fn interrupted_while_another_up_waits_too() {
    let sandbox = with_faults("ollama", &["bind-after=60000", "print=started"]);
    let first = sandbox.fusion(["ollama", "up"]).start();
    wait_until("it was started", || sandbox.log("ollama").contains("started"));
    let second = sandbox.fusion(["ollama", "up"]).start();
    std::thread::sleep(std::time::Duration::from_millis(200));
    first.signal(Signal::SIGINT);
    first.finish().assert_code(130);
    second.finish().assert_code(6);
    assert_nothing_left(&sandbox, "ollama");
}

/// Command substitution waits until every copy of its pipe is closed.
#[test]
fn command_substitution_pipes_and_extra_descriptors_do_not_hang() {
    let program = env!("CARGO_BIN_EXE_fusion");
    let scripts = [
        "x=$(\"$0\" ollama up); echo \"$x\"",
        "\"$0\" ollama up | cat",
        "\"$0\" ollama up 2>&1 | cat",
        "{ \"$0\" ollama up 3>&1 4>&2; } | cat",
        "\"$0\" ollama up & wait",
    ];
    for script in scripts {
        let sandbox = Sandbox::new();
        sandbox.command("/bin/sh").arg("-c").arg(script).arg(program).run().assert(
            0,
            "ollama is up at http://127.0.0.1:[OLLAMA] (pid [PID])\n",
            "",
        );
        down(&sandbox, "ollama");
    }
}

#[test]
fn each_standard_stream_closed() {
    let program = env!("CARGO_BIN_EXE_fusion");
    for redirection in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let sandbox = Sandbox::new();
        let script = format!("\"$0\" ollama up {redirection}");
        let up = sandbox.command("/bin/sh").arg("-c").arg(&script).arg(program).run();
        assert_ne!(up.code(), 101, "{up:?}");
        assert_eq!(state(&sandbox, "ollama"), "ready", "{redirection}");
        down(&sandbox, "ollama");
    }
}

/// The result could not be told; it was done all the same, and the exit code says that something went wrong.
#[test]
fn standard_output_is_full() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let sandbox = Sandbox::new();
    let program = env!("CARGO_BIN_EXE_fusion");
    let up = sandbox.command("/bin/sh").arg("-c").arg("\"$0\" ollama up >/dev/full").arg(program).run();
    up.assert_code(1);
    assert_eq!(state(&sandbox, "ollama"), "ready");
    down(&sandbox, "ollama");
}

#[test]
fn a_reader_that_goes_away_is_no_reason_to_stop() {
    let sandbox = Sandbox::new();
    let program = env!("CARGO_BIN_EXE_fusion");
    let script = "\"$0\" ollama up | true; \"$0\" ollama down | true";
    sandbox.command("/bin/sh").arg("-c").arg(script).arg(program).run().assert_code(0);
    assert_nothing_left(&sandbox, "ollama");
}

#[test]
fn a_reader_that_goes_away_keeps_no_other_runtime_down_or_up() {
    let sandbox = Sandbox::new();
    sandbox.configure("auto_start = true", "auto_start = true");
    let program = env!("CARGO_BIN_EXE_fusion");
    let script = |command: &str| {
        let script = format!("\"$0\" {command} | true");
        sandbox.command("/bin/sh").arg("-c").arg(script).arg(program).run().assert_code(0);
    };
    script("up");
    assert_eq!([state(&sandbox, "ollama"), state(&sandbox, "mlx")], ["ready", "ready"]);
    script("down");
    assert_nothing_left(&sandbox, "ollama");
    assert_nothing_left(&sandbox, "mlx");
}

/// The signal has its effect, and is not taken for a failure of one of several.
#[test]
fn an_interrupted_up_of_all_begins_no_other() {
    let sandbox = Sandbox::new();
    let hangs = command_line("ollama", &["never-bind", "print=started"]);
    sandbox.configure(&format!("auto_start = true\n{hangs}"), "auto_start = true");
    let up = sandbox.fusion(["up"]).start();
    wait_until("the first was started", || sandbox.log("ollama").contains("started"));
    up.signal(Signal::SIGTERM);
    let up = up.finish().assert_code(143);
    assert_eq!(up.status.code(), None, "the signal has its effect");
    assert_nothing_left(&sandbox, "ollama");
    assert!(!sandbox.file("mlx", "mlx.log").exists(), "the second was started");
}

/// What is asked after the answer is known would be cut off when fusion ends, and servers log that as an error.
#[test]
fn up_asks_nothing_twice() {
    let sandbox = Sandbox::new();
    up(&sandbox, "mlx");
    let log = sandbox.log("mlx");
    let asked: Vec<&str> = log.lines().skip_while(|line| !line.starts_with("GET")).collect();
    assert_eq!(asked, ["GET /health", "POST /v1/chat/completions"], "{log}");
    down(&sandbox, "mlx");
}

#[test]
fn the_directory_has_a_name_that_is_not_text() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let sandbox = Sandbox::new();
    let directory = sandbox.root().join(std::ffi::OsStr::from_bytes(b"not \xff text"));
    std::fs::rename(sandbox.config_dir(), &directory).expect("the sandbox is writable");
    let fusion = |word| sandbox.fusion(["ollama", word]).env("FUSION_CONFIG_DIR", &directory).run();
    fusion("up").assert_code(0);
    assert!(fusion("log").assert_code(0).stdout().contains("listening on "));
    fusion("down").assert(0, "ollama is down\n", "");
    sandbox.assert_nothing_runs();
}

#[test]
fn nohup_does_not_reach_the_server() {
    let sandbox = Sandbox::new();
    let dump = dump_of(&sandbox, |sandbox| {
        let program = env!("CARGO_BIN_EXE_fusion");
        sandbox.command("/bin/sh").arg("-c").arg("nohup \"$0\" ollama up").arg(program)
    });
    if let Some(ignored) = dump["ignored"].as_str() {
        let ignored = u64::from_str_radix(ignored, 16).expect("hexadecimal");
        assert_eq!(ignored & 1, 0, "SIGHUP is ignored");
    }
    down(&sandbox, "ollama");
}

#[test]
fn blocked_signals_do_not_reach_the_server() {
    let sandbox = Sandbox::new();
    let dump = dump_of(&sandbox, |sandbox| {
        let program = env!("CARGO_BIN_EXE_fusion");
        sandbox.command(fake_runtime()).arg("with-blocked-signals").arg(program).arg("ollama").arg("up")
    });
    assert_eq!(dump["blocked"], serde_json::json!([]));
    down(&sandbox, "ollama");
}

/// And neither do they keep an `up` from being interrupted.
#[test]
fn interrupted_with_blocked_signals() {
    let sandbox = with_faults("ollama", &["never-bind", "print=started"]);
    let program = env!("CARGO_BIN_EXE_fusion");
    let up = sandbox
        .command(fake_runtime())
        .arg("with-blocked-signals")
        .arg(program)
        .arg("ollama")
        .arg("up")
        .start();
    wait_until("it was started", || sandbox.log("ollama").contains("started"));
    up.signal(Signal::SIGTERM);
    up.finish().assert_code(143);
    assert_nothing_left(&sandbox, "ollama");
}

/// What Ollama was started with, when it was started like that.
fn dump_of(sandbox: &Sandbox, up: impl FnOnce(&Sandbox) -> Invocation) -> serde_json::Value {
    let dump = sandbox.root().join("dump.json");
    sandbox.faults("ollama", &[&format!("dump={}", dump.display())]);
    up(sandbox).run().assert_code(0);
    serde_json::from_slice(&std::fs::read(dump).expect("the dump")).expect("JSON")
}

/// Writes fail at the first byte, or after a block, where the record is larger: as on a disk that is full.
#[test]
fn the_disk_is_full() {
    let program = env!("CARGO_BIN_EXE_fusion");
    for blocks in [0, 1] {
        let sandbox = Sandbox::new();
        sandbox.configure(&format!("args = [\"{}\"]", "long".repeat(1000)), "");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; \"$0\" ollama up");
        let up = sandbox.command("/bin/sh").arg("-c").arg(&script).arg(program).run().assert_code(1);
        assert!(up.stderr().contains("config/ollama"), "{blocks}: {}", up.stderr());
        assert_eq!(up.stdout(), "");
        assert_nothing_left(&sandbox, "ollama");
    }
}

#[test]
fn the_working_directory_is_deleted() {
    let sandbox = Sandbox::new();
    let gone = sandbox.root().join("gone");
    std::fs::create_dir(&gone).expect("the sandbox is writable");
    let program = env!("CARGO_BIN_EXE_fusion");
    let script = "rmdir \"$PWD\"; \"$0\" ollama up; \"$0\" ollama ps >/dev/null && \"$0\" ollama restart";
    let command = sandbox.command("/bin/sh").arg("-c").arg(script).arg(program).directory(&gone);
    command.run().assert_code(0);
    down(&sandbox, "ollama");
}

#[test]
fn the_directory_cannot_be_written() {
    if nix::unistd::geteuid().is_root() {
        // Nothing is read-only to root; a file in the directory's place is in the way of everybody.
        let sandbox = Sandbox::new();
        std::fs::write(sandbox.config_dir().join("ollama"), "").expect("the sandbox is writable");
        let up = sandbox.fusion(["ollama", "up"]).run().assert_code(1);
        assert!(up.stderr().contains("config/ollama"), "{}", up.stderr());
        sandbox.assert_nothing_runs();
        return;
    }
    let sandbox = Sandbox::new();
    let directory = sandbox.config_dir().join("ollama");
    std::fs::create_dir(&directory).expect("the sandbox is writable");
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o500)).expect("own directory");
    let up = sandbox.fusion(["ollama", "up"]).run().assert_code(1);
    assert!(up.stderr().contains("config/ollama"), "{}", up.stderr());
    sandbox.assert_nothing_runs();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).expect("own directory");
}

#[test]
fn the_log_is_a_symbolic_link() {
    let sandbox = Sandbox::new();
    let precious = sandbox.root().join("precious");
    std::fs::write(&precious, "precious\n").expect("the sandbox is writable");
    std::fs::create_dir(sandbox.config_dir().join("ollama")).expect("the sandbox is writable");
    std::os::unix::fs::symlink(&precious, sandbox.file("ollama", "ollama.log")).expect("a link");
    let up = sandbox.fusion(["ollama", "up"]).run().assert_code(1);
    assert!(up.stderr().contains("symbolic link"), "{}", up.stderr());
    assert_eq!(std::fs::read_to_string(&precious).expect("still there"), "precious\n");
    assert_nothing_left(&sandbox, "ollama");
}

/// Answers every request with a page, until it is dropped.
struct Pages {
    address: std::net::SocketAddr,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn serve_pages(address: (&str, u16)) -> Pages {
    use std::sync::atomic::{AtomicBool, Ordering};
    let listener = TcpListener::bind(address).expect("the port is free");
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let (address, stopped) = (listener.local_addr().expect("an address"), std::sync::Arc::clone(&stop));
    let thread = std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let page = "<html>It works!</html>";
            let length = page.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
            );
        }
    });
    Pages { address, stop, thread: Some(thread) }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
