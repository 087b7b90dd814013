//! Installing, upgrading and removing the program of a runtime, with scripts in place of uv, Python and Homebrew.

mod support;

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use support::terminal::Terminal;
use support::{Invocation, Sandbox, same_output, wait_for_end, wait_until, write_program};

/// Does what `uv` and Python's `venv` and `pip` do, as far as fusion can see: makes an environment with a program in
/// it. `VERSION` is the version that the index has; `BREAK` is run instead of filling the environment.
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

/// A sandbox without any runtime. Its `PATH` holds only its own programs and those of `/usr/bin` and `/bin` that the
/// scripts need.
struct Machine {
    sandbox: Sandbox,
}

impl Machine {
    /// With these scripts on `PATH`.
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
            .mask(REQUIREMENT, "[REQUIREMENT]")
    }

    /// Fusion's own installation.
    fn home(&self) -> PathBuf {
        self.sandbox.installation("mlx")
    }

    /// The names of its entries.
    fn contents(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.home()).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// What is asked of the package index on this platform.
const REQUIREMENT: &str =
    if cfg!(target_os = "macos") { "mlx-lm>=0.32.2,<0.33" } else { "mlx-lm[cpu]>=0.32.2,<0.33" };

#[test]
fn uv_installs_into_its_own_directory_showing_progress() {
    let machine = Machine::with(&[("uv", UV), ("python3", "exit 9")]);
    insta::assert_snapshot!(machine.fusion("mlx install").run(), @"
    exit 0
    [stdout]
    mlx 0.32.2 is installed in [ROOT]/config/data/runtimes/mlx/1
    [stderr]
    installing [REQUIREMENT] with uv into [ROOT]/config/data/runtimes/mlx/1
    made [ROOT]/config/data/runtimes/mlx/1
    installed [REQUIREMENT]
    starting the program once to check that it works
    ");
    assert_eq!(machine.contents(), ["1", "installed.json"]);
    machine.sandbox.assert_nothing_runs();
}

#[test]
fn pip_installs_without_uv() {
    let machine = Machine::with(&[("python3", PYTHON)]);
    insta::assert_snapshot!(machine.fusion("mlx install").run(), @"
    exit 0
    [stdout]
    mlx 0.32.2 is installed in [ROOT]/config/data/runtimes/mlx/1
    [stderr]
    installing [REQUIREMENT] with pip into [ROOT]/config/data/runtimes/mlx/1
    made [ROOT]/config/data/runtimes/mlx/1
    installed [REQUIREMENT]
    starting the program once to check that it works
    ");
}

#[test]
fn quiet_install_prints_only_the_result() {
    let machine = Machine::with(&[("uv", UV)]);
    insta::assert_snapshot!(machine.fusion("mlx install --quiet").run(), @"
    exit 0
    [stdout]
    mlx 0.32.2 is installed in [ROOT]/config/data/runtimes/mlx/1
    ");
}

#[test]
fn installing_twice_installs_once() {
    let machine = Machine::with(&[("uv", UV)]);
    machine.fusion("mlx install").run().assert_code(0);
    insta::assert_snapshot!(machine.fusion("mlx install").env("BREAK", "exit 1").run(), @"
    exit 0
    [stdout]
    mlx 0.32.2 is installed in [ROOT]/config/data/runtimes/mlx/1 already
    ");
}

#[test]
fn an_upgrade_replaces_the_installation() {
    let machine = Machine::with(&[("uv", UV)]);
    machine.fusion("mlx install").run().assert_code(0);
    let finished = machine.fusion("mlx install --upgrade -q").env("VERSION", "0.32.9").run();
    insta::assert_snapshot!(finished, @"
    exit 0
    [stdout]
    mlx 0.32.9 is installed in [ROOT]/config/data/runtimes/mlx/2; it replaces 0.32.2
    ");
    assert_eq!(machine.contents(), ["2", "installed.json"]);
}

#[test]
fn a_failed_upgrade_leaves_the_installation() {
    let machine = Machine::with(&[("uv", UV)]);
    machine.fusion("mlx install").run().assert_code(0);
    let before = std::fs::read(machine.home().join("installed.json")).expect("the manifest");
    machine.fusion("mlx install --upgrade").env("BREAK", "exit 1").run().assert_code(1);
    assert_eq!(machine.contents(), ["1", "installed.json"]);
    assert_eq!(std::fs::read(machine.home().join("installed.json")).expect("the manifest"), before);
}

#[test]
fn an_offline_install_quotes_the_installer() {
    let machine = Machine::with(&[("uv", UV)]);
    let offline = "echo 'Resolving...'; echo 'error: Failed to fetch the index' >&2; exit 2";
    insta::assert_snapshot!(machine.fusion("mlx install -q").env("BREAK", offline).run(), @"
    exit 1
    [stderr]
      Resolving...
      error: Failed to fetch the index
    error: `[ROOT]/bin/uv pip install --python [ROOT]/config/data/runtimes/mlx/1/bin/python [REQUIREMENT]` failed with exit status: 2
    hint: check the network, then run the command again; finished downloads are kept
    ");
    assert_eq!(machine.contents(), Vec::<String>::new());
}

#[test]
fn programs_that_do_not_start_are_no_installation() {
    let machine = Machine::with(&[("uv", UV)]);
    let finished = machine.fusion("mlx install -q").env("FAKE_RUNTIME", "die=3 print=ImportError:mlx").run();
    insta::assert_snapshot!(finished, @"
    exit 1
    [stderr]
      ImportError:mlx
    error: [ROOT]/config/data/runtimes/mlx/1/bin/mlx_lm.server was installed and does not start: it ended with exit status: 3
    ");
    assert_eq!(machine.contents(), Vec::<String>::new());
}

#[test]
fn an_interrupted_install_leaves_nothing() {
    let interrupted = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].map(|signal| {
        let machine = Machine::with(&[("uv", UV)]);
        let waiting = machine.sandbox.root().join("waiting");
        let body = format!("echo > '{}'; exec \"$FAKE\" ollama never-bind", waiting.display());
        let running = machine.fusion("mlx install -q").env("BREAK", body).start();
        wait_until("uv works", || waiting.exists());
        running.signal(signal);
        let finished = running.finish().assert_code(128 + signal as i32);
        assert_eq!(finished.stdout(), "");
        assert_eq!(machine.contents(), Vec::<String>::new());
        machine.sandbox.assert_nothing_runs();
        let lock = std::fs::File::open(machine.sandbox.file("mlx", "lock")).expect("the lock's file");
        lock.try_lock().expect("nothing holds the lock");
        finished.stderr()
    });
    assert!(interrupted.iter().all(|stderr| *stderr == interrupted[0]), "{interrupted:#?}");
    insta::assert_snapshot!(interrupted[0], @"
    error: interrupted
    hint: run the command again; finished downloads are kept
    ");
}

#[test]
fn the_lock_of_a_killed_install_is_held() {
    let machine = Machine::with(&[("uv", UV)]);
    let waiting = machine.sandbox.root().join("waiting");
    let body = format!("echo > '{}'; exec \"$FAKE\" ollama never-bind", waiting.display());
    let running = machine.fusion("mlx install -q").env("BREAK", body).start();
    wait_until("uv works", || waiting.exists());
    running.signal(Signal::SIGKILL);
    // The installer goes on without fusion.
    wait_until("only the installer is left", || machine.sandbox.processes().len() == 1);
    let lock = std::fs::File::open(machine.sandbox.file("mlx", "lock")).expect("the lock's file");
    assert!(matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)));
    for pid in machine.sandbox.processes() {
        support::processes::kill(pid);
    }
    running.finish().assert_code(137);

    assert_eq!(machine.contents(), ["1"]);
    insta::assert_snapshot!(machine.fusion("mlx uninstall").run(), @"
    exit 0
    [stdout]
    mlx is uninstalled: removed [ROOT]/config/data/runtimes/mlx
    ");
}

#[test]
fn the_next_installation_removes_the_remains() {
    let machine = Machine::with(&[("uv", UV)]);
    std::fs::create_dir_all(machine.home().join("7/bin")).expect("the sandbox is writable");
    machine.fusion("mlx install -q").run().assert_code(0);
    assert_eq!(machine.contents(), ["1", "installed.json"]);
}

#[test]
fn a_damaged_installation_is_replaced() {
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
    insta::assert_snapshot!(machine.fusion("mlx uninstall").run(), @"
    exit 0
    [stdout]
    mlx is uninstalled: removed [ROOT]/config/data/runtimes/mlx
    ");
    assert!(!machine.home().exists());
    assert!(machine.sandbox.config_dir().join("config.toml").exists());
    insta::assert_snapshot!(machine.fusion("mlx uninstall").run(), @"
    exit 0
    [stdout]
    mlx was not installed by fusion
    ");
}

#[test]
fn a_failed_cleanup_does_not_fail_the_install() {
    let machine = Machine::with(&[("uv", UV)]);
    // A file where another attempt would have left a directory: it cannot be removed as one.
    let left = machine.home().join("9");
    let finished =
        machine.fusion("mlx install -q").env("BREAK", format!("echo > '{}'", left.display())).run();
    insta::assert_snapshot!(finished, @"
    exit 0
    [stdout]
    mlx 0.32.2 is installed in [ROOT]/config/data/runtimes/mlx/1
    ");
    assert_eq!(machine.contents(), ["1", "9", "installed.json"]);
}

#[test]
fn a_running_installation_is_neither_replaced_nor_removed() {
    let machine = Machine::with(&[("uv", UV)]);
    machine.fusion("mlx up --install -q").run().assert_code(0);
    let refused = ["mlx uninstall", "mlx install --upgrade"].map(|command| machine.fusion(command).run());
    insta::assert_snapshot!(same_output(refused), @"
    exit 1
    [stderr]
    error: mlx is running from this installation (pid [PID])
    hint: stop the server first: fusion mlx down
    ");
    machine.fusion("mlx down").run().assert_code(0);
    machine.fusion("mlx uninstall").run().assert_code(0);
}

#[test]
fn up_in_a_script_names_the_install_command() {
    let machine = Machine::with(&[("uv", UV)]);
    insta::assert_snapshot!(machine.fusion("mlx up").run(), @"
    exit 4
    [stderr]
    error: mlx is not installed: no mlx_lm.server on PATH
    hint: install it: fusion mlx install
    ");
    assert_eq!(machine.contents(), Vec::<String>::new());
}

#[test]
fn up_with_install_starts_what_it_installs() {
    let machine = Machine::with(&[("uv", UV)]);
    insta::assert_snapshot!(machine.fusion("mlx up --install").run(), @"
    exit 0
    [stdout]
    mlx is up at http://127.0.0.1:[MLX] (pid [PID])
    [stderr]
    installing [REQUIREMENT] with uv into [ROOT]/config/data/runtimes/mlx/1
    made [ROOT]/config/data/runtimes/mlx/1
    installed [REQUIREMENT]
    starting the program once to check that it works
    mlx 0.32.2 is installed in [ROOT]/config/data/runtimes/mlx/1
    ");
    let record = machine.sandbox.record("mlx").expect("a record");
    let program = machine.home().join("1/bin/mlx_lm.server");
    assert_eq!(record["command"][0].as_str(), program.to_str());
    machine.fusion("mlx down").run().assert_code(0);
}

/// Runs `fusion mlx up` on a terminal and types `answer`; returns the exit code and what the terminal shows.
fn up_on_a_terminal(machine: &Machine, answer: &str) -> (Option<i32>, String) {
    let mut terminal = Terminal::without_echo();
    let mut child = machine
        .fusion("mlx up")
        .env("NO_COLOR", "1")
        .into_command()
        .stdin(terminal.stream())
        .stdout(std::process::Stdio::null())
        .stderr(terminal.stream())
        .spawn()
        .expect("it starts");
    terminal.wait_for("[Y/n] ");
    terminal.send(answer.as_bytes());
    let code = wait_for_end(&mut child).code();
    (code, terminal.finish().replace("\r\n", "\n"))
}

#[test]
fn up_on_a_terminal_offers_to_install() {
    for answer in ["\n", "y\n", "Yes\n"] {
        let machine = Machine::with(&[("uv", UV)]);
        let (code, shown) = up_on_a_terminal(&machine, answer);
        assert_eq!(code, Some(0), "{shown}");
        assert_eq!(machine.contents(), ["1", "installed.json"]);
        machine.fusion("mlx down").run().assert_code(0);
    }
}

#[test]
fn declining_to_install_prints_the_command() {
    // The last is the end of input.
    let declined = ["n\n", "never\n", "\u{4}"].map(|answer| {
        let machine = Machine::with(&[("uv", UV)]);
        let (code, shown) = up_on_a_terminal(&machine, answer);
        assert_eq!(code, Some(4), "{shown}");
        assert_eq!(machine.contents(), Vec::<String>::new());
        shown
    });
    assert!(declined.iter().all(|shown| *shown == declined[0]), "{declined:#?}");
    insta::assert_snapshot!(declined[0], @"
    warning: mlx is not installed: no mlx_lm.server on PATH
    Install MLX now? [Y/n] error: mlx is not installed: no mlx_lm.server on PATH
    hint: install it: fusion mlx install
    ");
}

#[test]
fn missing_python_old_python_and_missing_venv_differ() {
    let machine = Machine::with(&[]);
    insta::assert_snapshot!(machine.fusion("mlx install").run(), @"
    exit 1
    [stderr]
    error: neither uv nor Python 3.11 or newer is on PATH
    hint: install uv (https://docs.astral.sh/uv/), which brings its own Python, or a newer Python
    ");
    let machine = Machine::with(&[("python3", PYTHON)]);
    insta::assert_snapshot!(machine.fusion("mlx install").env("PYTHON_VERSION", "3 9").run(), @"
    exit 1
    [stderr]
    error: [ROOT]/bin/python3 is Python 3.9, and 3.11 or newer is needed
    hint: install uv (https://docs.astral.sh/uv/), which brings its own Python, or a newer Python
    ");
    insta::assert_snapshot!(machine.fusion("mlx install").env("NO_VENV", "1").run(), @"
    exit 1
    [stderr]
    error: [ROOT]/bin/python3 has no venv module
    hint: install that module (Debian, Ubuntu: apt install python3-venv), or uv (https://docs.astral.sh/uv/)
    ");
}

#[test]
fn homebrew_installs_ollama() {
    let machine = Machine::with(&[("brew", r#"ln -s "$FAKE" "${0%/brew}/ollama"; echo "brew $*""#)]);
    insta::assert_snapshot!(machine.fusion("ollama install").run(), @"
    exit 0
    [stdout]
    ollama is installed: [ROOT]/bin/ollama
    [stderr]
    installing ollama with brew
    brew install ollama
    ");
    insta::assert_snapshot!(machine.fusion("ollama install").run(), @"
    exit 0
    [stdout]
    ollama is installed: [ROOT]/bin/ollama
    ");
    insta::assert_snapshot!(machine.fusion("ollama uninstall").run(), @"
    exit 0
    [stdout]
    ollama was not installed by fusion
    [stderr]
    hint: remove an installation by Homebrew: brew uninstall ollama
    ");
}

/// An application upgrades itself, and Homebrew does not know it.
#[test]
fn only_what_homebrew_installed_is_upgraded() {
    let machine = Machine::with(&[("brew", "echo \"brew $*\""), ("ollama", "")]);
    insta::assert_snapshot!(machine.fusion("ollama install --upgrade").run(), @"
    exit 1
    [stderr]
    error: Homebrew did not install [ROOT]/bin/ollama
    hint: upgrade [ROOT]/bin/ollama the way it was installed; an application upgrades itself
    ");
    // What lies in the cellar is Homebrew's.
    let cellar = machine.sandbox.root().join("Cellar/ollama");
    std::fs::create_dir_all(&cellar).expect("the sandbox is writable");
    let (program, link) = (cellar.join("ollama"), machine.sandbox.bin().join("ollama"));
    std::fs::rename(&link, &program).expect("the sandbox is writable");
    std::os::unix::fs::symlink(&program, &link).expect("the sandbox is writable");
    insta::assert_snapshot!(machine.fusion("ollama install --upgrade").run(), @"
    exit 0
    [stdout]
    ollama is installed: [ROOT]/bin/ollama
    [stderr]
    installing ollama with brew
    brew upgrade ollama
    ");
}

#[test]
fn a_homebrew_program_outside_path_is_reported() {
    let machine = Machine::with(&[("brew", "exit 0")]);
    insta::assert_snapshot!(machine.fusion("ollama install -q").run(), @r#"
    exit 4
    [stderr]
    error: brew has installed ollama, and it is not on PATH
    hint: add this directory to PATH: `echo "$(brew --prefix)/bin"`
    "#);
}

#[test]
fn without_homebrew_the_official_command_is_only_named() {
    let machine = Machine::with(&[("curl", "touch \"${0%/bin/curl}/ran\"")]);
    let official = if cfg!(target_os = "macos") {
        "https://ollama.com/download"
    } else {
        "curl -fsSL https://ollama.com/install.sh | sh"
    };
    insta::assert_snapshot!(machine.fusion("ollama install").mask(official, "[OFFICIAL]").run(), @"
    exit 4
    [stderr]
    error: ollama is not installed, and there is no brew on PATH to install it with
    hint: install it as its documentation says: [OFFICIAL]
    ");
    assert!(!machine.sandbox.root().join("ran").exists());
}
