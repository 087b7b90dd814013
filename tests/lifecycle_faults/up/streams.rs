//! The standard streams of `up`: closed, full, or waited for by somebody.

use crate::support::Sandbox;
use crate::{assert_nothing_left, down, state};

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
        sandbox.command("/bin/sh").arg("-c").arg(&script).arg(program).run().assert_code(0);
        assert_eq!(state(&sandbox, "ollama"), "ready", "{redirection}");
        down(&sandbox, "ollama");
    }
}

/// The result could not be told; it was done all the same, and the exit code says that something went wrong.
#[test]
#[cfg(target_os = "linux")] // The only system that has /dev/full.
fn standard_output_is_full() {
    let sandbox = Sandbox::new();
    let program = env!("CARGO_BIN_EXE_fusion");
    let up = sandbox.command("/bin/sh").arg("-c").arg("\"$0\" ollama up >/dev/full").arg(program).run();
    up.assert_code(1);
    assert_eq!(state(&sandbox, "ollama"), "ready");
    down(&sandbox, "ollama");
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
