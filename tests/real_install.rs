//! From a bare machine to an answer, for real: packages from the index, the real `mlx_lm.server`, the tiny model of
//! this repository.
//!
//! Run only with `install` in `FUSION_TEST_REQUIRE`, for it downloads a hundred megabytes.

mod support;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};
use support::{Invocation, Sandbox, real};

/// The answer of the tiny model at temperature 0.
const SENTENCE: &str = "Hello! This is a tiny model on your own machine.\n";

#[expect(clippy::print_stderr, reason = "the user must see which tests were left out")]
fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let is_ignored = !real::is_required("install");
    if is_ignored && !arguments.list {
        eprintln!("\nNOT RUN: the tests that install for real; FUSION_TEST_REQUIRE=install runs them");
    }
    let tests: [(&str, fn()); 2] = [
        ("pip_installs_on_a_bare_machine", pip_installs_on_a_bare_machine),
        ("uv_installs_on_a_bare_machine", uv_installs_on_a_bare_machine),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(is_ignored)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// A machine with a fresh configuration directory, and on its `PATH` nothing but these programs.
struct Machine {
    sandbox: Sandbox,
    path: PathBuf,
}

impl Machine {
    fn new(programs: &[(&str, &Path)]) -> Self {
        let sandbox = Sandbox::without_config();
        let path = sandbox.root().join("path");
        std::fs::create_dir(&path).expect("the sandbox is writable");
        for (name, program) in programs {
            std::os::unix::fs::symlink(program, path.join(name)).expect("a link");
        }
        Self { sandbox, path }
    }

    /// With the caller's way to the package index, and caches that stay.
    fn fusion<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
        let mut invocation = self
            .sandbox
            .fusion(arguments)
            .env("PATH", &self.path)
            .env("PIP_CACHE_DIR", kept("pip-cache"))
            .env("UV_CACHE_DIR", kept("uv-cache"))
            .timeout(std::time::Duration::from_secs(1200));
        for (name, value) in index_variables() {
            invocation = invocation.env(&name, value);
        }
        invocation
    }

    /// The README's first command, until everything is uninstalled.
    fn whole_way(&self, installed_with: &str) {
        let port = self.sandbox.port("mlx").to_string();
        self.fusion(["config", "set", "mlx_server.port", &port]).run().assert_code(0);
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/tiny");
        let model = model.to_str().expect("a path of text");
        let run = ["mlx", "run", "--install", "--model", model, "-t", "0", "Hello"];

        let first = self.fusion(run).run().assert_code(0);
        assert_eq!(first.stdout(), SENTENCE);
        assert!(first.stderr().contains(&format!(" with {installed_with} into ")), "{}", first.stderr());
        let record = self.sandbox.record("mlx").expect("it runs");
        let program = record["command"][0].as_str().expect("a program");
        assert!(Path::new(program).starts_with(self.sandbox.installation("mlx")), "{program}");

        // The second time, nothing is installed.
        let again = self.fusion(run).run().assert_code(0);
        assert_eq!((again.stdout().as_str(), again.stderr().as_str()), (SENTENCE, ""));

        self.fusion(["mlx", "uninstall"]).run().assert_code(1);
        self.fusion(["mlx", "down"]).run().assert_code(0);
        self.fusion(["mlx", "uninstall"]).run().assert_code(0);
        assert!(!self.sandbox.installation("mlx").exists());
        self.sandbox.assert_nothing_runs();
    }
}

/// A directory that outlives the tests.
fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// How pip and uv reach the package index.
#[expect(clippy::disallowed_methods, reason = "tests have an environment")]
fn index_variables() -> Vec<(String, OsString)> {
    let wanted = |name: &str| {
        let upper = name.to_uppercase();
        upper.starts_with("PIP_")
            || upper.starts_with("UV_")
            || upper.ends_with("_PROXY")
            || ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"].contains(&upper.as_str())
    };
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| wanted(name) && name != "PIP_CACHE_DIR" && name != "UV_CACHE_DIR")
        .collect()
}

/// The Python that runs when `python3` is called; the file itself, not what a version manager puts in front of it.
fn python() -> PathBuf {
    let output = Command::new("python3").args(["-I", "-c", "import sys; print(sys.executable)"]).output();
    let output = output.expect("there is a python3");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path of text").trim())
}

fn pip_installs_on_a_bare_machine() {
    Machine::new(&[("python3", &python())]).whole_way("pip");
}

fn uv_installs_on_a_bare_machine() {
    let uv = kept("uv").join("bin/uv");
    if !uv.exists() {
        let make = |program: &Path, arguments: &[&str]| {
            let status = Command::new(program).args(arguments).status().expect("Python runs");
            assert!(status.success(), "{arguments:?}");
        };
        let environment = kept("uv");
        let environment = environment.to_str().expect("a path of text");
        make(&python(), &["-I", "-m", "venv", "--clear", environment]);
        make(&kept("uv").join("bin/python"), &["-I", "-m", "pip", "install", "--quiet", "uv"]);
    }
    Machine::new(&[("uv", &uv), ("python3", &python())]).whole_way("uv");
}
