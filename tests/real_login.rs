//! Starting services at login, by a real systemd of a user.

mod support;

use std::path::Path;
use std::process::ExitCode;

use support::{Finished, Sandbox, real};

fn main() -> ExitCode {
    // Not everywhere may root start one, so it is tried.
    let can_start = cfg!(target_os = "linux")
        && real::find("unshare").is_some()
        && in_session(&Sandbox::new(), "login; logout").code() == 0;
    let program = if can_start { "unshare" } else { "systemd --user" };
    real::main("systemd", program, real::tests![enabled_services_start_at_each_login])
}

/// The beginning of every script. `login` starts the systemd of the user, and `logout` ends it with all its services.
const SESSION: &str = r#"
set -e
mount -t tmpfs tmpfs /run
export XDG_RUNTIME_DIR=/run/user/0
mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR"
chmod 700 "$XDG_RUNTIME_DIR"
login() {
    /lib/systemd/systemd --user > "$HOME/systemd.log" 2>&1 &
    for _ in $(seq 100); do
        if systemctl --user list-units > "$HOME/units" 2>&1; then return; fi
        if ! kill -0 $!; then break; fi
        sleep 0.1
    done
    cat "$HOME/systemd.log" "$HOME/units" >&2
    exit 1
}
logout() {
    systemctl --user exit
    wait
}
"#;

/// Runs a script with a `/run`, a session and PIDs of its own, for which root is needed. What it started ends with it.
fn in_session(sandbox: &Sandbox, script: &str) -> Finished {
    let session = "60 unshare --mount --pid --fork --kill-child --mount-proc --propagation private sh -c";
    let mut command = sandbox.command("timeout");
    for word in session.split(' ') {
        command = command.arg(word);
    }
    command.arg(format!("{SESSION}\n{script}")).env("FUSION", env!("CARGO_BIN_EXE_fusion")).run()
}

fn enabled_services_start_at_each_login(_unshare: &Path) {
    let sandbox = Sandbox::new();
    let config = std::fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("a configuration");
    let (port, model) = (sandbox.port("llama"), sandbox.model());
    let coder = format!("template = \"mlx\"\nport = {port}\nmodel = \"{}\"", model.display());
    sandbox.write_config(&format!("{config}\n[instances.coder]\n{coder}\n"));
    let script = r#"
        unit() { systemctl --user is-active "fusion-$1.service" || true; }
        state() { "$FUSION" "$1" ps --json | sed -n 's/.*"state": "\(.*\)".*/\1/p'; }
        # The unit follows a moment after the service.
        await() {
            for _ in $(seq 200); do
                if [ "$(state "$1"), $(unit "$1")" = "$2" ]; then return; fi
                sleep 0.1
            done
            echo "$1 is $(state "$1"), $(unit "$1")"
        }
        login
        for service in ollama coder; do "$FUSION" "$service" enable; await "$service" "ready, active"; done
        "$FUSION" ollama down
        await ollama "stopped, inactive"
        logout
        echo "logged out: $(state ollama), $(state coder)"
        login
        for service in ollama coder; do await "$service" "ready, active"; done
        "$FUSION" ollama disable
        "$FUSION" ollama down
        logout
        login
        await coder "ready, active"
        echo "last login: $(state ollama), $(state coder)"
        "$FUSION" coder disable
        "$FUSION" coder down
        logout
    "#;
    let finished = in_session(&sandbox, script).assert_code(0);
    insta::assert_snapshot!(finished.stdout(), @"
    ollama starts at every login, and is starting now
    coder starts at every login, and is starting now
    ollama is down
    logged out: stopped, exited
    ollama no longer starts at login
    ollama is down
    last login: stopped, ready
    coder no longer starts at login
    coder is down
    ");
}
