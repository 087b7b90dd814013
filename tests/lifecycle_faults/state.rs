//! Faults of records and PID files: what they say is not what runs.

use std::process::Stdio;

use fusion::core::process::unix::UnixDriver;
use fusion::core::process::{Pid, ProcessDriver};
use serde_json::{Value, json};

use crate::support::matrix::{assert_shows, for_each_service};
use crate::support::{Sandbox, processes, same_output, wait_until};
use crate::{assert_nothing_left, down, notes, state, up};

/// A process that fusion did not start. Its environment has the sandbox's marker.
struct OtherProcess(std::process::Child);

impl OtherProcess {
    fn new(sandbox: &Sandbox, script: &str, arguments: &[&str]) -> Self {
        let mut command = sandbox.command("/bin/sh").into_command();
        command.arg("-c").arg(script).args(arguments).stdin(Stdio::piped());
        Self(command.spawn().expect("a shell"))
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a PID")
    }

    #[track_caller]
    fn assert_alive(&self) {
        assert!(processes::lives(self.pid()), "a process that fusion did not start was ended");
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Rewrites the record.
fn edit(sandbox: &Sandbox, runtime: &str, change: impl FnOnce(&mut Value)) {
    let mut record = sandbox.record(runtime).expect("a record");
    change(&mut record);
    std::fs::write(sandbox.file(runtime, "state.json"), record.to_string()).expect("the sandbox is writable");
}

/// Has the record name the PID of this process, for one that had the PID earlier.
fn reuse(sandbox: &Sandbox, service: &str, other: &OtherProcess) {
    let now = identity(other.pid());
    edit(sandbox, service, |record| {
        record["process"]["pid"] = now["pid"].clone();
        record["process"]["start_time"] = json!(now["start_time"].as_u64().expect("a number") - 1);
    });
}

/// Starts a server and kills it, which leaves a record. Returns its PID.
fn left_behind(sandbox: &Sandbox, service: &str) -> i32 {
    let pid = up(sandbox, service);
    processes::kill(pid);
    wait_until("it is dead", || !processes::lives(pid));
    pid
}

#[test]
fn up_replaces_the_record_of_a_dead_server() {
    for_each_service(&[], |sandbox, service| {
        let dead = left_behind(sandbox, service);
        assert_eq!(state(sandbox, service), "exited");
        let pid = up(sandbox, service);
        assert_ne!(pid, dead);
        down(sandbox, service);
    });
}

#[test]
fn the_new_process_of_a_pid_is_spared() {
    for_each_service(&[], |sandbox, service| {
        left_behind(sandbox, service);
        let other = OtherProcess::new(sandbox, "exec sleep 1000", &[]);
        reuse(sandbox, service, &other);
        assert_eq!(state(sandbox, service), "exited");
        sandbox.fusion([service, "down", "--force"]).run().assert_code(0);
        other.assert_alive();
        left_behind(sandbox, service);
        reuse(sandbox, service, &other);
        up(sandbox, service);
        sandbox.fusion([service, "down"]).run().assert_code(0);
        other.assert_alive();
    });
}

/// The same program with the same arguments, which does not listen any longer.
#[test]
fn a_reused_pid_with_equal_arguments_is_spared() {
    for_each_service(&["bind-when=[ROOT]/go"], |sandbox, service| {
        let go = sandbox.root().join("go");
        std::fs::write(&go, "").expect("the sandbox is writable");
        let pid = up(sandbox, service);
        let arguments = processes::arguments(pid);
        std::fs::remove_file(&go).expect("the sandbox is writable");
        let mut command = sandbox.command(&arguments[0]).into_command();
        let child = command.args(&arguments[1..]).stdin(Stdio::null()).stderr(Stdio::null());
        let other = OtherProcess(child.spawn().expect("the fake starts"));
        wait_until("it has its arguments", || processes::arguments(other.pid()) == arguments);
        processes::kill(pid);
        wait_until("it is dead", || !processes::lives(pid));
        reuse(sandbox, service, &other);
        assert_eq!(state(sandbox, service), "exited");
        sandbox.fusion([service, "down", "--force"]).run().assert_code(0);
        other.assert_alive();
    });
}

/// The same PID and start time mean nothing in another boot.
#[test]
fn a_record_of_another_boot_names_no_process() {
    for_each_service(&[], |sandbox, service| {
        let pid = up(sandbox, service);
        let other = OtherProcess::new(sandbox, "exec sleep 1000", &[]);
        edit(sandbox, service, |record| {
            record["process"]["host"]["boot_id"] = json!("another");
            record["process"]["pid"] = json!(other.pid());
            // The instance of the other boot died with that boot.
            record["instance"] = json!("0".repeat(32));
        });
        // The listener is known by its environment, whatever the record says.
        assert_eq!(state(sandbox, service), "ready");
        let stopped = sandbox.fusion([service, "down", "--json"]).run();
        assert_eq!(stopped.json()["pid"], pid);
        other.assert_alive();
        assert!(!processes::lives(pid), "the server outlived `down`");
    });
}

/// Two configurations with the same service at the same address.
#[test]
fn a_server_of_another_configuration_is_external() {
    for_each_service(&[], |sandbox, service| {
        let pid = up(sandbox, service);
        let other = Sandbox::new();
        let file = sandbox.config_dir().join("config.toml");
        other.write_config(&std::fs::read_to_string(file).expect("the configuration"));
        assert_eq!(state(&other, service), "external");
        other.fusion([service, "down"]).run().assert_code(5);
        assert!(processes::lives(pid));
        down(sandbox, service);
    });
}

/// No command panics or sends a signal, and `up` works afterwards.
#[test]
fn a_damaged_record_is_ignored_with_one_warning() {
    let huge = "9".repeat(10_000_000);
    let contents: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"garbage".to_vec(),
        b"-1".to_vec(),
        b"\0\x01".to_vec(),
        b"{\"format\": 1, \"instance\": ".to_vec(),
        b"\xff\xfe\x00\x01".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        huge.into_bytes(),
        b"{\"format\": 1}".to_vec(),
    ];
    for_each_service(&[], |sandbox, service| {
        std::fs::create_dir_all(sandbox.file(service, "")).expect("the sandbox is writable");
        for content in &contents {
            let shown = String::from_utf8_lossy(&content[..content.len().min(40)]);
            let damage = || std::fs::write(sandbox.file(service, "state.json"), content);
            damage().expect("the sandbox is writable");
            let ps = sandbox.fusion([service, "ps", "--json"]).run_in_process().assert_code(3);
            assert_eq!(ps.json()["state"], "stopped", "{shown}");
            assert!(ps.stderr().contains("state.json"), "{shown}: {}", ps.stderr());
            let down_once = sandbox.fusion([service, "down"]).run_in_process().assert_code(0);
            assert_eq!(down_once.stderr().lines().count(), 1, "{shown}: {}", down_once.stderr());
            damage().expect("the sandbox is writable");
            up(sandbox, service);
            down(sandbox, service);
        }
    });
}

#[test]
fn a_damaged_record_is_described() {
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(sandbox.config_dir().join("ollama")).expect("the sandbox is writable");
    std::fs::write(sandbox.file("ollama", "state.json"), "garbage").expect("the sandbox is writable");
    insta::assert_snapshot!(sandbox.fusion(["ollama", "down"]).run(), @"
    exit 0
    [stdout]
    ollama is down
    [stderr]
    warning: [ROOT]/config/ollama/state.json is not a record of a started service: expected value at line 1 column 1; the record is ignored
    ");
}

#[test]
fn a_record_with_an_impossible_pid_is_ignored() {
    let other_sandbox = Sandbox::new();
    let other = OtherProcess::new(&other_sandbox, "exec sleep 1000", &[]);
    for_each_service(&[], |sandbox, service| {
        left_behind(sandbox, service);
        let mut record = sandbox.record(service).expect("a record");
        for pid in [json!(0), json!(1), json!(-1), json!(4_294_967_295_u32), json!("12"), json!(1.5)] {
            record["process"]["pid"] = pid.clone();
            std::fs::write(sandbox.file(service, "state.json"), record.to_string())
                .expect("the sandbox is writable");
            let ps = sandbox.fusion([service, "ps"]).run_in_process().assert_code(3);
            assert!(ps.stderr().contains("state.json"), "{pid}: {}", ps.stderr());
            sandbox.fusion([service, "down", "--force"]).run().assert_code(0);
            other.assert_alive();
        }
    });
}

/// The PID file is a copy for scripts.
#[test]
fn the_content_of_the_pid_file_is_ignored() {
    for_each_service(&[], |sandbox, service| {
        let other = OtherProcess::new(sandbox, "exec sleep 1000", &[]);
        let contents =
            ["", "garbage", "0", "1", "-1", "4294967295", &other.pid().to_string(), &"9".repeat(10_000_000)]
                .map(str::to_owned);
        let downs = contents.map(|content| {
            let pid = up(sandbox, service);
            std::fs::write(sandbox.file(service, &format!("{service}.pid")), &content)
                .expect("the sandbox is writable");
            let ps = sandbox.fusion([service, "ps", "--json"]).run_in_process().assert_code(0).json();
            assert_eq!(ps["pid"], json!(pid));
            let down = sandbox.fusion([service, "down"]).run();
            other.assert_alive();
            assert!(!processes::lives(pid));
            assert!(!sandbox.file(service, &format!("{service}.pid")).exists());
            down
        });
        assert_shows(&same_output(downs), service, "exit 0\n[stdout]\n[SERVICE] is down");
    });
}

/// The record names the parent of `down`.
#[test]
fn a_record_of_the_caller_stops_nothing() {
    for_each_service(&[], |sandbox, service| {
        left_behind(sandbox, service);
        let script = "\"$0\" \"$1\" down --force; echo \"survived $?\"";
        let program = env!("CARGO_BIN_EXE_fusion");
        let mut command = sandbox
            .command("/bin/sh")
            .arg("-c")
            .arg(format!("read x; {script}"))
            .arg(program)
            .arg(service)
            .into_command();
        let mut shell = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell");
        let pid = i32::try_from(shell.id()).expect("a PID");
        let identity = identity(pid);
        edit(sandbox, service, |record| record["process"] = identity);
        drop(shell.stdin.take());
        let output = shell.wait_with_output().expect("the shell ends");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(stdout, "survived 1\n", "{}", String::from_utf8_lossy(&output.stderr));
    });
}

/// As fusion would record it.
fn identity(pid: i32) -> Value {
    let pid = Pid::try_from(i64::from(pid)).expect("a PID");
    json!(UnixDriver::new().identify(pid).expect("the system tells").expect("it lives"))
}

/// In a container without an init, no process reaps what has ended.
#[test]
fn an_unreaped_zombie_is_dead() {
    for_each_service(&[], |sandbox, service| {
        let pid = up(sandbox, service);
        let mut zombie = OtherProcess::new(sandbox, "read x", &[]);
        let identity = identity(zombie.pid());
        // The end of its input ends it.
        drop(zombie.0.stdin.take());
        wait_until("it is a zombie", || !processes::lives(zombie.pid()));
        processes::kill(pid);
        wait_until("it is dead", || !processes::lives(pid));
        edit(sandbox, service, |record| record["process"] = identity);
        assert_eq!(state(sandbox, service), "exited");
        down(sandbox, service);
    });
}

#[test]
fn similar_command_lines_are_not_stopped() {
    for_each_service(&[], |sandbox, service| {
        let other = OtherProcess::new(sandbox, "read x", &["ollama serve", "mlx_lm.server"]);
        let editor = OtherProcess::new(sandbox, "read x # ollama serve", &[]);
        for options in [&["down"][..], &["down", "--force"], &["restart"], &["down"]] {
            let words = [service].into_iter().chain(options.iter().copied());
            sandbox.fusion(words).run().assert_code(0);
            other.assert_alive();
            editor.assert_alive();
        }
    });
}

/// Fusion died between the spawn and the record: the server is found by its instance id.
#[test]
fn a_server_without_recorded_process_is_found() {
    for_each_service(&[], |sandbox, service| {
        let pid = up(sandbox, service);
        edit(sandbox, service, |record| {
            record["process"] = Value::Null;
            record["ready"] = json!(false);
        });
        let ps = sandbox.fusion([service, "ps", "--json"]).run().assert_code(0).json();
        assert_eq!((&ps["state"], &ps["pid"]), (&json!("ready"), &json!(pid)));
        assert_eq!(up(sandbox, service), pid, "up repairs the PID file");
        edit(sandbox, service, |record| record["process"] = Value::Null);
        down(sandbox, service);
        assert!(!processes::lives(pid));
    });
}

/// Fusion died between the intent and the spawn.
#[test]
fn a_record_without_a_process_counts_as_stopped() {
    for_each_service(&[], |sandbox, service| {
        left_behind(sandbox, service);
        edit(sandbox, service, |record| {
            record["process"] = Value::Null;
            record["ready"] = json!(false);
        });
        assert_eq!(state(sandbox, service), "stopped");
        down(sandbox, service);
        assert_nothing_left(sandbox, service);
    });
}

#[test]
fn linked_records_and_locks_are_refused() {
    for_each_service(&[], |sandbox, service| {
        let precious = sandbox.root().join("precious");
        std::fs::write(&precious, "precious\n").expect("the sandbox is writable");
        std::fs::create_dir_all(sandbox.config_dir().join(service)).expect("the sandbox is writable");
        for name in ["lock", "state.json"] {
            let link = sandbox.file(service, name);
            std::os::unix::fs::symlink(&precious, &link).expect("a link");
            for command in ["up", "down"] {
                let refused = sandbox.fusion([service, command]).run().assert_code(1);
                assert_eq!(
                    refused.stderr(),
                    format!(
                        "error: {} is a symbolic link\nhint: remove the link: fusion follows no links there, because \
                         they can point anywhere\n",
                        link.display()
                    )
                );
            }
            assert_eq!(std::fs::read_to_string(&precious).expect("still there"), "precious\n");
            std::fs::remove_file(link).expect("a link");
        }
        sandbox.assert_nothing_runs();
    });
}

#[test]
fn written_files_are_private_with_any_umask() {
    for_each_service(&[], |sandbox, service| {
        use std::os::unix::fs::PermissionsExt as _;
        let program = env!("CARGO_BIN_EXE_fusion");
        let script = "umask 000; \"$0\" \"$1\" up";
        sandbox.command("/bin/sh").arg("-c").arg(script).arg(program).arg(service).run().assert_code(0);
        let mode = |name: &str| {
            std::fs::metadata(sandbox.file(service, name)).expect("a file").permissions().mode() & 0o777
        };
        assert_eq!(mode(""), 0o700);
        for name in ["state.json", &format!("{service}.pid"), &format!("{service}.log"), "lock"] {
            assert_eq!(mode(name), 0o600, "{name}");
        }
        down(sandbox, service);
    });
}

/// Two machines can share a home directory, and a container the directory of its host.
#[test]
fn the_record_of_another_host_is_only_reported() {
    for_each_service(&[], |sandbox, service| {
        left_behind(sandbox, service);
        edit(sandbox, service, |record| {
            let host = &mut record["process"]["host"];
            host["boot_id"] = json!("another");
            host["machine_id"] = json!("another");
            host["name"] = json!("workshop");
        });
        let files = [sandbox.file(service, "state.json"), sandbox.config_dir().join("config.toml")];
        let text = || files.each_ref().map(|file| std::fs::read_to_string(file).expect("it is there"));
        let before = text();
        let fusion = |words: &str| sandbox.fusion(words.split(' ')).run_in_process();
        let ps = fusion(&format!("{service} ps"));
        assert_eq!(ps.code(), 3, "{ps}");
        assert_shows(
            &notes(&ps),
            service,
            "[SERVICE] was started on workshop (pid [PID]), which is another machine or container: its state there is unknown",
        );
        let commands = ["up", "down", "restart", "health"].map(|word| format!("{service} {word}"));
        // A built-in service cannot be removed anyway.
        let remove = (service != "ollama").then(|| format!("remove {service} --yes"));
        assert_shows(
            &same_output(commands.into_iter().chain(remove).map(|words| fusion(&words))),
            service,
            "exit 1\n\
             [stderr]\n\
             error: [SERVICE] was started on workshop (pid [PID]), which is another machine or container\n\
             hint: stop it there: fusion [SERVICE] down; if that machine or container is gone: rm [ROOT]/config/[SERVICE]/state.json",
        );
        assert_eq!(text(), before);
        sandbox.assert_nothing_runs();
    });
}
