//! What `up` hands to the server: its arguments unchanged, and nothing of the caller but the environment.

use crate::support::matrix::for_each_service;
use crate::support::{Invocation, Sandbox, command_line, fake_runtime};
use crate::{down, up};

/// The built-in service and an instance of a runtime, a template in place of its start, and any program.
#[test]
fn the_model_name_reaches_the_server_unchanged() {
    for service in ["mlx", "coder", "replaced", "web"] {
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
        let port = sandbox.port("mlx");
        let dumps = format!("dump={}", dump.display());
        let server = format!("port = {port}\nmodel = {quoted}\nargs = [\"--odd\", \"$HOME *\"]\n");
        let line = command_line("mlx", &[&dumps]);
        let template = |name: &str, role: &str| {
            format!(
                "[templates.{name}]\nstart_command = \"'{}' {role} '{dumps}' --port {{port}} --model {{model}}\"\n",
                fake_runtime()
            )
        };
        sandbox.write_config(&match service {
            "mlx" => format!("[mlx_server]\n{server}{line}\n"),
            "coder" => format!("[instances.coder]\ntemplate = \"mlx\"\n{server}{line}\n"),
            "replaced" => {
                template("mlx", "mlx") + &format!("[instances.replaced]\ntemplate = \"mlx\"\n{server}")
            }
            _ => template("any", "ollama") + &format!("[instances.web]\ntemplate = \"any\"\n{server}"),
        });
        up(&sandbox, service);
        let dump: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dump).expect("the dump")).expect("JSON");
        let arguments = dump["arguments"].as_array().expect("arguments").iter();
        let arguments: Vec<&str> = arguments.filter_map(|word| word.as_str()).collect();
        assert!(arguments.ends_with(&["--model", model, "--odd", "$HOME *"]), "{service}: {arguments:?}");
        down(&sandbox, service);
    }
}

/// The server has its own session, default signals, no descriptor of the caller, and its output in the log.
#[test]
fn the_server_holds_nothing_of_its_caller() {
    for_each_service(&["dump=[ROOT]/dump.json"], |sandbox, service| {
        let dump = sandbox.root().join("dump.json");
        // The shell ignores a signal, and leaves descriptors open: one that is kept on exec, and a terminal's worth.
        let script = "trap '' HUP TERM INT; exec 7</dev/zero 9>/dev/null; \"$0\" \"$1\" up";
        let program = env!("CARGO_BIN_EXE_fusion");
        sandbox.command("/bin/sh").arg("-c").arg(script).arg(program).arg(service).run().assert_code(0);
        let dump: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dump).expect("the dump")).expect("JSON");
        assert_eq!(dump["session"], dump["pid"], "a session of its own");
        assert_eq!(dump["group"], dump["pid"], "a group of its own");
        assert_eq!(dump["blocked"], serde_json::json!([]));
        // An instance has a working directory, by default the home.
        let directory = if service == "ollama" { sandbox.config_dir().join(service) } else { sandbox.home() };
        assert_eq!(dump["directory"], directory.display().to_string());
        assert!(dump["environment"]["FUSION_INSTANCE"].is_string());
        if cfg!(target_os = "linux") {
            // Bits of signal numbers minus one, without those that belong to the C library (32 and 33). Rust's own
            // start-up code has SIGPIPE (13) ignored.
            let ignored = dump["ignored"].as_str().expect("hexadecimal");
            let ignored = u64::from_str_radix(ignored, 16).expect("hexadecimal");
            assert_eq!(ignored & 0x7fff_ffff, 1 << 12, "{ignored:x}");
            let descriptors = dump["descriptors"].as_object().expect("descriptors");
            let log = sandbox.file(service, &format!("{service}.log")).display().to_string();
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
        down(sandbox, service);
    });
}

#[test]
fn nohup_does_not_reach_the_server() {
    for_each_service(&["dump=[ROOT]/dump.json"], |sandbox, service| {
        let dump = dump_of(sandbox, |sandbox| {
            let program = env!("CARGO_BIN_EXE_fusion");
            sandbox.command("/bin/sh").arg("-c").arg("nohup \"$0\" \"$1\" up").arg(program).arg(service)
        });
        if let Some(ignored) = dump["ignored"].as_str() {
            let ignored = u64::from_str_radix(ignored, 16).expect("hexadecimal");
            assert_eq!(ignored & 1, 0, "SIGHUP is ignored");
        }
        down(sandbox, service);
    });
}

#[test]
fn blocked_signals_do_not_reach_the_server() {
    for_each_service(&["dump=[ROOT]/dump.json"], |sandbox, service| {
        let dump = dump_of(sandbox, |sandbox| {
            let program = env!("CARGO_BIN_EXE_fusion");
            sandbox.command(fake_runtime()).arg("with-blocked-signals").arg(program).arg(service).arg("up")
        });
        assert_eq!(dump["blocked"], serde_json::json!([]));
        down(sandbox, service);
    });
}

/// What a server with the fault `dump=[ROOT]/dump.json` was started with by this `up`.
fn dump_of(sandbox: &Sandbox, up: impl FnOnce(&Sandbox) -> Invocation) -> serde_json::Value {
    let dump = sandbox.root().join("dump.json");
    up(sandbox).run().assert_code(0);
    serde_json::from_slice(&std::fs::read(dump).expect("the dump")).expect("JSON")
}
