//! Faults of `ps` and `health`.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Sandbox, command_line, fake_runtime, processes, wait_until};
use crate::{assert_silence_is_told, down, give_for_starting, state, up, with_faults};

/// Each answers only when both have been asked.
#[test]
fn one_that_hangs_does_not_delay_the_rest() {
    let sandbox = Sandbox::new();
    let hold = sandbox.root().join("hold");
    let fault = format!("hang-while={}", hold.display());
    let [ollama, mlx] = ["ollama", "mlx"].map(|runtime| command_line(runtime, &[&fault]));
    sandbox.configure(&ollama, &mlx);
    let runtimes = [("ollama", "GET /api/version"), ("mlx", "GET /health")];
    for (runtime, _) in runtimes {
        up(&sandbox, runtime);
    }
    let asked = || runtimes.map(|(runtime, question)| sandbox.log(runtime).matches(question).count());
    std::fs::write(&hold, "").expect("the sandbox is writable");
    let before = asked();
    let ps = sandbox.fusion(["ps", "--json"]).start();
    wait_until("both are asked", || asked().iter().zip(before).all(|(now, before)| *now > before));
    std::fs::remove_file(&hold).expect("the sandbox is writable");
    let all = ps.finish().assert_code(0).json();
    assert_eq!([&all[0]["state"], &all[1]["state"]], ["ready", "ready"]);

    processes::send(sandbox.pid("ollama").expect("a PID"), Signal::SIGSTOP);
    let all = sandbox.fusion(["ps", "--json"]).run().assert_code(0).json();
    assert_eq!([&all[0]["state"], &all[1]["state"]], ["unhealthy", "ready"]);
    sandbox.fusion(["down"]).run().assert(0, "ollama is down\nmlx is down\n", "");
}

#[test]
fn ps_writes_nothing() {
    let sandbox = Sandbox::new();
    let pid = up(&sandbox, "ollama");
    processes::kill(pid);
    wait_until("it is dead", || !processes::lives(pid));
    let before = snapshot(&sandbox);
    sandbox.fusion(["ps"]).run().assert_code(0);
    sandbox.fusion(["mlx", "ps"]).run().assert_code(3);
    sandbox.fusion(["ollama", "ps", "--json"]).run().assert_code(3);
    assert_eq!(snapshot(&sandbox), before);
    down(&sandbox, "ollama");
}

fn snapshot(sandbox: &Sandbox) -> Vec<(String, u64, std::time::SystemTime)> {
    let mut all = Vec::new();
    let mut directories = vec![sandbox.config_dir()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
            let metadata = entry.metadata().expect("metadata");
            if metadata.is_dir() {
                directories.push(entry.path());
            }
            all.push((
                entry.path().display().to_string(),
                metadata.len(),
                metadata.modified().expect("a time"),
            ));
        }
    }
    all.sort();
    all
}

#[test]
fn starting_unhealthy_and_exited_are_told_apart() {
    let sandbox = with_faults("ollama", &["hang"]);
    sandbox.fusion(["ollama", "up", "--no-wait"]).run().assert_code(0);
    sandbox.fusion(["ollama", "ps"]).run().assert_code(1);
    assert_eq!(state(&sandbox, "ollama"), "starting");
    // The same, with its time over.
    give_for_starting(&sandbox, 1);
    wait_until("its time is over", || state(&sandbox, "ollama") == "unhealthy");
    let pid = sandbox.pid("ollama").expect("a PID");
    processes::kill(pid);
    wait_until("it is dead", || !processes::lives(pid));
    let ps = sandbox.fusion(["ollama", "ps"]).run().assert_code(3).stdout();
    assert!(ps.contains("  it ended without `down`, about "), "{ps}");
    assert!(ps.contains("; its last words: GET /api/version\n"), "{ps}");
    down(&sandbox, "ollama");
}

#[test]
fn an_answer_at_the_port_of_a_dead_one_is_not_its_own() {
    let sandbox = Sandbox::new();
    let pid = up(&sandbox, "ollama");
    processes::kill(pid);
    wait_until("it is dead", || !processes::lives(pid));
    let port = sandbox.port("ollama").to_string();
    let stranger = sandbox.command(fake_runtime()).arg("ollama").arg("--port").arg(port).start();
    wait_until("it answers", || state(&sandbox, "ollama") != "exited");
    let ps = sandbox.fusion(["ollama", "ps", "--json"]).run().assert_code(0).json();
    assert_eq!((&ps["state"], &ps["started_by"]), (&json!("external"), &json!("other")));
    assert_eq!(ps["pid"], json!(stranger.pid()));
    let down = sandbox.fusion(["ollama", "down"]).run().assert_code(5);
    assert!(down.stderr().contains(&format!("process {}", stranger.pid())), "{}", down.stderr());
    assert!(processes::lives(stranger.pid()), "a stranger was stopped");
    processes::kill(stranger.pid());
    stranger.finish();
}

#[test]
fn an_unhealthy_one_is_not_called_up() {
    let sandbox = Sandbox::new();
    let pid = up(&sandbox, "ollama");
    processes::send(pid, Signal::SIGSTOP);
    let again = sandbox.fusion(["ollama", "up"]).run().assert_code(6);
    assert_silence_is_told(&again, "does not answer");
    assert!(again.stderr().contains("fusion ollama restart"), "{}", again.stderr());
    sandbox.fusion(["ollama", "up", "--no-wait"]).run().assert_code(6);
    assert!(processes::lives(pid), "it is left as it is");
    sandbox.fusion(["ollama", "restart"]).run().assert_code(0);
    assert!(!processes::lives(pid));
    down(&sandbox, "ollama");
}

#[test]
fn the_log_is_deleted_while_it_runs() {
    let sandbox = Sandbox::new();
    up(&sandbox, "ollama");
    std::fs::remove_file(sandbox.file("ollama", "ollama.log")).expect("a log");
    sandbox.fusion(["ps"]).run().assert_code(0);
    down(&sandbox, "ollama");
}

#[test]
fn last_words_that_a_terminal_would_obey() {
    let sandbox = with_faults("ollama", &["print-hex=1b5b324a1b5d303b68690741ff0a", "bind-after=100"]);
    let pid = up(&sandbox, "ollama");
    let words = sandbox.file("ollama", "ollama.log");
    processes::kill(pid);
    wait_until("it is dead", || !processes::lives(pid));
    std::fs::write(words, b"\x1b[2J\x1b]0;hi\x07A\xff").expect("the log");
    let ps = sandbox.fusion(["ollama", "ps"]).run().assert_code(3);
    assert!(!ps.stdout.contains(&0x1b) && !ps.stdout.contains(&0x07), "{:?}", ps.stdout());
    down(&sandbox, "ollama");
}

/// The configured model, and a copy of it.
fn two_models(sandbox: &Sandbox) -> [String; 2] {
    let other = sandbox.root().join("other");
    std::fs::create_dir(&other).expect("the sandbox is writable");
    for file in std::fs::read_dir(sandbox.model()).expect("the model").flatten() {
        std::fs::copy(file.path(), other.join(file.file_name())).expect("the sandbox is writable");
    }
    [sandbox.model(), other].map(|path| path.display().to_string())
}

fn loaded(sandbox: &Sandbox) -> Value {
    sandbox.fusion(["mlx", "ps", "--json"]).run().assert_code(0).json()["models"].clone()
}

#[test]
fn a_prompt_for_another_model_while_the_server_starts() {
    let sandbox = Sandbox::new();
    let [own, other] = two_models(&sandbox);
    let go = sandbox.root().join("go");
    sandbox.faults("mlx", &[&format!("models={own},{other}"), &format!("bind-when={}", go.display())]);
    sandbox.fusion(["mlx", "up", "--no-wait"]).run().assert_code(0);
    let said = sandbox.root().join("said");
    let mut run = sandbox.fusion(["mlx", "run", "-m", &other, "Hello"]).into_command();
    run.stdin(Stdio::null()).stdout(Stdio::null());
    run.stderr(std::fs::File::create(&said).expect("the sandbox is writable"));
    let mut run = run.spawn().expect("it starts");
    let said = || std::fs::read_to_string(&said).expect("what it said");
    let waits = "mlx is starting, and is waited for\n";
    wait_until("it waits", || said() == waits);
    std::fs::write(go, "").expect("the sandbox is writable");
    assert!(run.wait().expect("a child").success(), "{}", said());
    assert_eq!(said(), format!("{waits}mlx has {own} loaded, and loads {other} instead now\n"));
    assert_eq!(loaded(&sandbox), json!([other]));
    down(&sandbox, "mlx");
}

#[test]
fn another_model_that_cannot_be_loaded() {
    let sandbox = Sandbox::new();
    let [own, other] = two_models(&sandbox);
    sandbox.faults("mlx", &[&format!("models={own}")]);
    up(&sandbox, "mlx");
    sandbox.fusion(["mlx", "run", "-m", &other, "Hello"]).run().assert_code(7);
    assert_eq!(loaded(&sandbox), json!([own]));
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    down(&sandbox, "mlx");
}

/// The server has one model, and swaps it for whichever a request names. No command but the one that was told to undoes
/// that.
#[test]
fn a_prompt_for_another_model() {
    let sandbox = Sandbox::new();
    let [own, other] = two_models(&sandbox);
    sandbox.faults("mlx", &[&format!("models={own},{other}")]);
    let loaded = || loaded(&sandbox);
    let asked = |arguments: &[&str]| {
        let arguments = ["mlx", "health", "--json"].iter().chain(arguments);
        sandbox.fusion(arguments.copied()).run().assert_code(0).json()["model"].clone()
    };
    up(&sandbox, "mlx");
    assert_eq!(loaded(), json!([own]));
    sandbox.fusion(["mlx", "run", "-m", &other, "Hello"]).run().assert(
        0,
        "Hello from the fake runtime.\n",
        "mlx has [ROOT]/model loaded, and loads [ROOT]/other instead now\n",
    );
    assert_eq!((loaded(), asked(&[])), (json!([other]), json!(other)));
    let again = sandbox.fusion(["mlx", "up", "--json"]).run().assert_code(0).json();
    assert_eq!((&again["model"], &again["started"]), (&json!(other), &json!(false)));
    assert_eq!((asked(&["-m", &own]), loaded()), (json!(own), json!([own])));
    sandbox.fusion(["mlx", "run", "-m", &own, "Hello"]).run().assert(0, "Hello from the fake runtime.\n", "");
    down(&sandbox, "mlx");
}

#[test]
fn watch_needs_a_terminal() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["ps", "--watch"]).run().assert(
        2,
        "",
        "error: --watch needs a terminal\n\
         hint: without --watch, it prints what is going on now; --json is for programs\n",
    );
}

#[test]
fn health_of_what_does_not_run_or_does_not_generate() {
    let sandbox = with_faults("ollama", &["chat-status=500"]);
    sandbox.fusion(["ollama", "health"]).run().assert(
        3,
        "",
        "error: ollama is not running\nhint: start it: fusion ollama up\n",
    );
    up(&sandbox, "ollama");
    let health = sandbox.fusion(["ollama", "health"]).run().assert_code(8);
    assert!(health.stderr().contains("was told to fail"), "{}", health.stderr());
    down(&sandbox, "ollama");
}

/// Fusion does not have what it prints.
#[test]
fn health_of_somebody_elses_that_does_not_generate() {
    let sandbox = Sandbox::new();
    let stranger = sandbox
        .command(fake_runtime())
        .arg("ollama")
        .arg("chat-status=500")
        .arg("--port")
        .arg(sandbox.port("ollama").to_string())
        .start();
    wait_until("it answers", || state(&sandbox, "ollama") == "external");
    let said = "error: ollama did not generate with llama3.2:3b: the fake runtime was told to fail\n";
    sandbox.fusion(["ollama", "health"]).run().assert(8, "", said);
    processes::kill(stranger.pid());
    stranger.finish();
}

/// As long as a model may take to load is too long to wait for a server that does not even say that it is there.
#[test]
fn health_of_one_that_hangs() {
    let sandbox = Sandbox::new();
    let pid = up(&sandbox, "ollama");
    processes::send(pid, Signal::SIGSTOP);
    sandbox.fusion(["ollama", "health"]).run().assert(
        124,
        "",
        "error: ollama did not generate with llama3.2:3b: it accepts connections and does not answer\n\
         hint: its log: fusion ollama log\n",
    );
    down(&sandbox, "ollama");
}

/// As `run`, which has the same exit code for it.
#[test]
fn health_of_one_that_never_generates() {
    let sandbox = with_faults("ollama", &["chat-hang"]);
    give_for_starting(&sandbox, 1);
    up(&sandbox, "ollama");
    sandbox.fusion(["ollama", "health"]).run().assert(
        124,
        "",
        "error: ollama did not generate with llama3.2:3b: it has not generated anything yet\n\
         hint: its log: fusion ollama log\n",
    );
    sandbox.fusion(["ollama", "run", "--timeout", "1", "Hello"]).run().assert_code(124);
    down(&sandbox, "ollama");
}

#[test]
fn health_with_a_model_that_is_not_there() {
    let sandbox = Sandbox::new();
    up(&sandbox, "ollama");
    let health = sandbox.fusion(["ollama", "health", "--model", "nobody"]).run().assert_code(7);
    assert!(health.stderr().contains("model 'nobody' not found"), "{}", health.stderr());
    let health = sandbox.fusion(["ollama", "health", "--json"]).run().assert_code(0).json();
    assert_eq!((&health["runtime"], &health["model"]), (&json!("ollama"), &json!("llama3.2:3b")));
    assert!(health["latency_ms"].is_number());
    down(&sandbox, "ollama");
}
