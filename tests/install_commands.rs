//! Installing, upgrading and removing the program of a runtime, with stand-ins for uv, Python and Homebrew.

mod support;

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use support::terminal::Terminal;
use support::{Invocation, Sandbox, wait_for_end, wait_until, write_program};

/// What `uv` and Python's `venv` and `pip` do, as far as fusion can see: an environment with a program in it.
/// `VERSION` is the version that the index has; `BREAK` is run instead of filling the environment.
const INSTALLER: &str = r#"
make() { mkdir -p "$1/bin" && cp "$0" "$1/bin/python" && echo "made $1"; }
fill() {
    if [ -n "$BREAK" ]; then eval "$BREAK"; fi
    site="$1/lib/python3.12/site-packages"
    mkdir -p "$site/mlx_lm-${VERSION:-0.32.2}.dist-info"
    ln -s "$FAKE" "$1/bin/mlx_lm.server"
    echo "installed $2"
}
"#;

/// `uv venv --python SPEC DIR`, `uv pip install --python DIR/bin/python REQUIREMENT`.
const UV: &str = r#"
case "$1" in
venv) make "$4" ;;
pip) fill "${4%/bin/python}" "$5" ;;
esac
"#;

/// `python -I -c PROBE`, `python -I -m venv DIR`, `DIR/bin/python -I -m pip ... REQUIREMENT`.
const PYTHON: &str = r#"
case "$2 $3" in
"-c "*) echo "${PYTHON_VERSION:-3 12}"; exit ${NO_VENV:-0} ;;
"-m venv") make "$4" ;;
"-m pip") fill "${0%/bin/python}" "$8" ;;
esac
"#;

/// A sandbox without any runtime, whose `PATH` holds only its own programs and those in `/usr/bin` and `/bin` that
/// the stand-ins need.
struct Machine {
    sandbox: Sandbox,
}

impl Machine {
    /// With these stand-ins on `PATH`.
    fn with(programs: &[(&str, &str)]) -> Self {
        let machine = Self { sandbox: Sandbox::new() };
        for name in ["ollama", "mlx_lm.server"] {
            std::fs::remove_file(machine.sandbox.bin().join(name)).expect("the fake was there");
        }
        for name in ["sh", "mkdir", "cp", "ln", "cat", "rm", "mv"] {
            let real = ["/usr/bin", "/bin"].iter().map(|directory| Path::new(directory).join(name));
            let real = real.into_iter().find(|path| path.exists()).expect("a usual program");
            std::os::unix::fs::symlink(real, machine.sandbox.bin().join(name)).expect("a link");
        }
        for (name, body) in programs {
            machine.program(name, &format!("{INSTALLER}{body}"));
        }
        machine
    }

    fn program(&self, name: &str, body: &str) {
        write_program(&self.sandbox.bin().join(name), &format!("#!/bin/sh\n{body}"));
    }

    fn fusion(&self, words: &str) -> Invocation {
        self.sandbox
            .fusion(words.split(' '))
            .env("PATH", self.sandbox.bin())
            .env("FAKE", support::fake_runtime())
    }

    /// Fusion's own installation.
    fn home(&self) -> PathBuf {
        self.sandbox.file("mlx", "runtime")
    }

    /// What lies in it.
    fn contents(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.home()).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// What is asked of the package index on this platform.
fn requirement() -> &'static str {
    if cfg!(target_os = "macos") { "mlx-lm>=0.32.2,<0.33" } else { "mlx-lm[cpu]>=0.32.2,<0.33" }
}

#[test]
fn uv_installs_into_fusions_own_directory_and_shows_its_progress() {
    let machine = Machine::with(&[("uv", UV), ("python3", "exit 9")]);
    machine.fusion("mlx install").run().assert(
        0,
        "mlx 0.32.2 is installed in [ROOT]/config/mlx/runtime/1\n",
        &format!(
            "installing {0} with uv into [ROOT]/config/mlx/runtime/1\n\
             made [ROOT]/config/mlx/runtime/1\n\
             installed {0}\n\
             starting it once to see that it works\n",
            requirement()
        ),
    );
    assert_eq!(machine.contents(), ["1", "installed.json"]);
    machine.sandbox.assert_nothing_runs();
}

#[test]
fn without_uv_python_and_pip_install_it() {
    let machine = Machine::with(&[("python3", PYTHON)]);
    machine.fusion("mlx install").run().assert(
        0,
        "mlx 0.32.2 is installed in [ROOT]/config/mlx/runtime/1\n",
        &format!(
            "installing {0} with pip into [ROOT]/config/mlx/runtime/1\n\
             made [ROOT]/config/mlx/runtime/1\n\
             installed {0}\n\
             starting it once to see that it works\n",
            requirement()
        ),
    );
}

#[test]
fn quiet_installing_says_only_the_result() {
    let machine = Machine::with(&[("uv", UV)]);
    machine.fusion("mlx install --quiet").run().assert(
        0,
        "mlx 0.32.2 is installed in [ROOT]/config/mlx/runtime/1\n",
        "",
    );
}

#[test]
fn installing_twice_installs_once() {
    let machine = Machine::with(&[("uv", UV)]);
    machine.fusion("mlx install").run().assert_code(0);
    machine.fusion("mlx install").env("BREAK", "exit 1").run().assert(
        0,
        "mlx 0.32.2 is installed in [ROOT]/config/mlx/runtime/1, as it was\n",
        "",
    );
}

#[test]
fn an_upgrade_replaces_the_installation() {
    let machine = Machine::with(&[("uv", UV)]);
    machine.fusion("mlx install").run().assert_code(0);
    machine.fusion("mlx install --upgrade -q").env("VERSION", "0.32.9").run().assert(
        0,
        "mlx 0.32.9 is installed in [ROOT]/config/mlx/runtime/2, in place of 0.32.2\n",
        "",
    );
    assert_eq!(machine.contents(), ["2", "installed.json"]);
}

#[test]
fn an_upgrade_that_fails_leaves_the_installation_as_it_was() {
    let machine = Machine::with(&[("uv", UV)]);
    machine.fusion("mlx install").run().assert_code(0);
    let before = std::fs::read(machine.home().join("installed.json")).expect("the manifest");
    machine.fusion("mlx install --upgrade").env("BREAK", "exit 1").run().assert_code(1);
    assert_eq!(machine.contents(), ["1", "installed.json"]);
    assert_eq!(std::fs::read(machine.home().join("installed.json")).expect("the manifest"), before);
}

#[test]
fn no_network_is_told_in_the_words_of_the_installer_and_leaves_nothing() {
    let machine = Machine::with(&[("uv", UV)]);
    let offline = "echo 'Resolving...'; echo 'error: Failed to fetch the index' >&2; exit 2";
    machine.fusion("mlx install -q").env("BREAK", offline).run().assert(
        1,
        "",
        &format!(
            "  Resolving...\n  \
             error: Failed to fetch the index\n\
             error: `[ROOT]/bin/uv pip install --python [ROOT]/config/mlx/runtime/1/bin/python {}` failed with \
             exit status: 2\n\
             hint: is the network there? Once the cause is gone, run it again; what was downloaded is not lost\n",
            requirement()
        ),
    );
    assert_eq!(machine.contents(), Vec::<String>::new());
}

#[test]
fn a_program_that_does_not_start_is_no_installation() {
    let machine = Machine::with(&[("uv", UV)]);
    machine.fusion("mlx install -q").env("FAKE_RUNTIME", "die=3 print=ImportError:mlx").run().assert(
        1,
        "",
        "  ImportError:mlx\n\
         error: [ROOT]/config/mlx/runtime/1/bin/mlx_lm.server was installed and does not start: it ended with exit \
         status: 3\n",
    );
    assert_eq!(machine.contents(), Vec::<String>::new());
}

#[test]
fn an_interrupted_installation_leaves_nothing_and_dies_by_the_signal() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let machine = Machine::with(&[("uv", UV)]);
        let waiting = machine.sandbox.root().join("waiting");
        let body = format!("echo > '{}'; exec \"$FAKE\" ollama never-bind", waiting.display());
        let running = machine.fusion("mlx install -q").env("BREAK", body).start();
        wait_until("uv works", || waiting.exists());
        running.signal(signal);
        let finished = running.finish();
        assert_eq!(finished.code(), 128 + signal as i32);
        finished.assert(
            128 + signal as i32,
            "",
            "error: interrupted\nhint: run it again; what was downloaded is not lost\n",
        );
        assert_eq!(machine.contents(), Vec::<String>::new());
        machine.sandbox.assert_nothing_runs();
    }
}

/// Only its own ends by SIGTERM: an installer may have programs of its own, which hold the runtime's lock.
#[test]
fn an_interrupted_installer_that_ignores_the_signal_is_killed_with_what_it_started() {
    let machine = Machine::with(&[("uv", UV)]);
    let waiting = machine.sandbox.root().join("waiting");
    let body = format!(
        "trap '' TERM; (exec \"$FAKE\" ollama never-bind) & echo > '{}'; \"$FAKE\" ollama never-bind",
        waiting.display()
    );
    let running = machine.fusion("mlx install -q").env("BREAK", body).start();
    wait_until("uv works", || waiting.exists());
    running.signal(Signal::SIGINT);
    running.finish().assert(
        130,
        "",
        "error: interrupted\nhint: run it again; what was downloaded is not lost\n",
    );
    machine.sandbox.assert_nothing_runs();
    let lock = std::fs::File::open(machine.sandbox.file("mlx", "lock")).expect("the lock's file");
    lock.try_lock().expect("nobody holds the lock");
}

#[test]
fn a_killed_installation_never_looks_whole_and_holds_the_lock_until_its_installer_has_ended() {
    let machine = Machine::with(&[("uv", UV)]);
    let waiting = machine.sandbox.root().join("waiting");
    let body = format!("echo > '{}'; exec \"$FAKE\" ollama never-bind", waiting.display());
    let running = machine.fusion("mlx install -q").env("BREAK", body).start();
    wait_until("uv works", || waiting.exists());
    running.signal(Signal::SIGKILL);
    // The installer, which fusion could not end any more.
    wait_until("only the installer is left", || machine.sandbox.processes().len() == 1);
    let lock = std::fs::File::open(machine.sandbox.file("mlx", "lock")).expect("the lock's file");
    assert!(matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)));
    for pid in machine.sandbox.processes() {
        support::processes::kill(pid);
    }
    running.finish().assert_code(137);

    assert_eq!(machine.contents(), ["1"]);
    machine.fusion("mlx uninstall").run().assert(
        0,
        "mlx is uninstalled: removed [ROOT]/config/mlx/runtime\n",
        "",
    );
}

#[test]
fn the_next_installation_removes_what_a_killed_one_left() {
    let machine = Machine::with(&[("uv", UV)]);
    std::fs::create_dir_all(machine.home().join("7/bin")).expect("the sandbox is writable");
    machine.fusion("mlx install -q").run().assert_code(0);
    assert_eq!(machine.contents(), ["1", "installed.json"]);
}

#[test]
fn a_damaged_installation_is_made_anew() {
    let machine = Machine::with(&[("uv", UV)]);
    machine.fusion("mlx install").run().assert_code(0);
    std::fs::write(machine.home().join("installed.json"), "{").expect("the sandbox is writable");
    machine.fusion("mlx install -q").run().assert_code(0);
    assert_eq!(machine.contents(), ["1", "installed.json"]);

    std::fs::remove_file(machine.home().join("1/bin/python")).expect("the environment's Python");
    machine.fusion("mlx install -q").run().assert_code(0);
    assert_eq!(machine.contents(), ["1", "installed.json"]);
    assert!(machine.home().join("1/bin/python").exists());
}

#[test]
fn uninstalling_removes_only_what_fusion_installed() {
    let machine = Machine::with(&[("uv", UV)]);
    machine.fusion("mlx install").run().assert_code(0);
    machine.fusion("mlx uninstall").run().assert(
        0,
        "mlx is uninstalled: removed [ROOT]/config/mlx/runtime\n",
        "",
    );
    assert!(!machine.home().exists());
    assert!(machine.sandbox.config_dir().join("config.toml").exists());
    machine.fusion("mlx uninstall").run().assert(0, "mlx was not installed by fusion\n", "");
}

#[test]
fn an_installation_that_cannot_be_cleaned_up_after_is_one() {
    let machine = Machine::with(&[("uv", UV)]);
    // It looks like what is left of another attempt, and cannot be removed like one.
    let left = machine.home().join("9");
    machine.fusion("mlx install -q").env("BREAK", format!("echo > '{}'", left.display())).run().assert(
        0,
        "mlx 0.32.2 is installed in [ROOT]/config/mlx/runtime/1\n",
        "",
    );
    assert_eq!(machine.contents(), ["1", "9", "installed.json"]);
}

#[test]
fn what_runs_is_neither_replaced_nor_removed() {
    let machine = Machine::with(&[("uv", UV)]);
    machine.fusion("mlx up --install -q").run().assert_code(0);
    let refused = "error: mlx is running from this installation (process [PID])\n\
                   hint: stop it first: fusion mlx down\n";
    machine.fusion("mlx uninstall").run().assert(1, "", refused);
    machine.fusion("mlx install --upgrade").run().assert(1, "", refused);
    machine.fusion("mlx down").run().assert_code(0);
    machine.fusion("mlx uninstall").run().assert_code(0);
}

#[test]
fn up_in_a_script_names_the_command_that_installs() {
    let machine = Machine::with(&[("uv", UV)]);
    machine.fusion("mlx up").run().assert(
        4,
        "",
        "error: mlx is not installed: no mlx_lm.server on PATH\nhint: install it: fusion mlx install\n",
    );
    assert_eq!(machine.contents(), Vec::<String>::new());
}

#[test]
fn up_with_install_installs_and_starts_what_it_installed() {
    let machine = Machine::with(&[("uv", UV)]);
    let finished = machine.fusion("mlx up --install").run().assert_code(0);
    assert!(finished.stdout().starts_with("mlx is up at http://127.0.0.1:"), "{finished:?}");
    assert!(finished.stderr().contains("mlx 0.32.2 is installed in "), "{finished:?}");
    let record = machine.sandbox.record("mlx").expect("a record");
    let program = machine.home().join("1/bin/mlx_lm.server");
    assert_eq!(record["command"][0].as_str(), program.to_str());
    machine.fusion("mlx down").run().assert_code(0);
}

/// `fusion mlx up` on a terminal at which somebody types `answer`: the exit code, and what the terminal shows.
fn up_on_a_terminal(machine: &Machine, answer: &str) -> (Option<i32>, String) {
    let mut terminal = Terminal::open();
    let mut child = machine
        .fusion("mlx up")
        .into_command()
        .stdin(terminal.stream())
        .stdout(std::process::Stdio::null())
        .stderr(terminal.stream())
        .spawn()
        .expect("it starts");
    terminal.wait_for("Install MLX now? [Y/n] ");
    terminal.send(answer.as_bytes());
    let code = wait_for_end(&mut child).code();
    (code, terminal.finish())
}

#[test]
fn up_on_a_terminal_offers_to_install() {
    for answer in ["\n", "y\n", "Yes\n"] {
        let machine = Machine::with(&[("uv", UV)]);
        let (code, shown) = up_on_a_terminal(&machine, answer);
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains("mlx 0.32.2 is installed in "), "{shown}");
        machine.fusion("mlx down").run().assert_code(0);
    }
}

#[test]
fn whoever_declines_gets_the_command_and_nothing_else() {
    // The last is the end of input.
    for answer in ["n\n", "never\n", "\u{4}"] {
        let machine = Machine::with(&[("uv", UV)]);
        let (code, shown) = up_on_a_terminal(&machine, answer);
        assert_eq!(code, Some(4), "{shown}");
        assert!(shown.contains("install it: fusion mlx install"), "{shown}");
        assert_eq!(machine.contents(), Vec::<String>::new());
    }
}

const GET_PYTHON: &str =
    "hint: install uv, which brings its own Python (https://docs.astral.sh/uv/), or a newer Python\n";

#[test]
fn no_python_a_too_old_one_and_one_without_venv_are_told_apart() {
    let machine = Machine::with(&[]);
    machine.fusion("mlx install").run().assert(
        1,
        "",
        &format!("error: neither uv nor Python 3.11 or newer is on PATH\n{GET_PYTHON}"),
    );
    let machine = Machine::with(&[("python3", PYTHON)]);
    machine.fusion("mlx install").env("PYTHON_VERSION", "3 9").run().assert(
        1,
        "",
        &format!("error: [ROOT]/bin/python3 is Python 3.9, and 3.11 or newer is needed\n{GET_PYTHON}"),
    );
    machine.fusion("mlx install").env("NO_VENV", "1").run().assert(
        1,
        "",
        "error: [ROOT]/bin/python3 has no venv module\n\
         hint: install that module (Debian and Ubuntu: apt install python3-venv), or uv (https://docs.astral.sh/uv/)\n",
    );
}

#[test]
fn homebrew_installs_where_it_is() {
    let machine = Machine::with(&[("brew", r#"ln -s "$FAKE" "${0%/brew}/ollama"; echo "brew $*""#)]);
    machine.fusion("ollama install").run().assert(
        0,
        "ollama is installed: [ROOT]/bin/ollama\n",
        "installing ollama with brew\nbrew install ollama\n",
    );
    machine.fusion("ollama install").run().assert(0, "ollama is installed: [ROOT]/bin/ollama\n", "");
    machine.fusion("ollama uninstall").run().assert(
        0,
        "ollama was not installed by fusion\n",
        "hint: if Homebrew has installed it: brew uninstall ollama\n",
    );
}

#[test]
fn what_homebrew_installs_elsewhere_is_not_on_path() {
    let machine = Machine::with(&[("brew", "exit 0")]);
    machine.fusion("ollama install -q").run().assert(
        4,
        "",
        "error: brew has installed ollama, and it is not on PATH\n\
         hint: add the directory that `echo \"$(brew --prefix)/bin\"` prints to PATH\n",
    );
}

#[test]
fn without_homebrew_the_makers_command_is_named_and_not_run() {
    let machine = Machine::with(&[("curl", "touch \"${0%/bin/curl}/ran\"")]);
    let elsewhere = if cfg!(target_os = "macos") {
        "https://ollama.com/download"
    } else {
        "curl -fsSL https://ollama.com/install.sh | sh"
    };
    machine.fusion("ollama install").run().assert(
        4,
        "",
        &format!(
            "error: ollama is not installed, and there is no brew on PATH to install it with\n\
             hint: install it as its makers say: {elsewhere}\n"
        ),
    );
    assert!(!machine.sandbox.root().join("ran").exists());
}
