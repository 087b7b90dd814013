//! Tests that need a real runtime.
//!
//! Without its program on `PATH` they are listed as ignored, and a line says so. If `FUSION_TEST_REQUIRE` names the
//! runtime (commas between several), its absence is a failure.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use super::Sandbox;

const REQUIRE: &str = "FUSION_TEST_REQUIRE";

/// An image of one pixel.
pub const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/pixel.png");

/// A test, which gets the path of the real program, or of the first of several.
pub type Test = fn(&Path);

/// The functions with their names, for [`main`].
macro_rules! tests {
    ($($test:ident),* $(,)?) => { &[$((stringify!($test), $test as $crate::support::real::Test)),*] };
}
pub(crate) use tests;

/// What a group of tests is called in the variable of the required ones, its programs with spaces between, and its
/// tests.
pub type Group<'a> = (&'a str, &'a str, &'a [(&'a str, Test)]);

/// The `main` of a test file with `harness = false`.
pub fn main(runtime: &str, program: &str, tests: &[(&str, Test)]) -> ExitCode {
    main_of(&[(runtime, program, tests)])
}

/// The `main` of a test file whose tests need different programs.
pub fn main_of(groups: &[Group<'_>]) -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = groups.iter().flat_map(|group| trials(&arguments, *group)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

#[expect(clippy::print_stderr, reason = "the user must see which tests did not run")]
fn trials(arguments: &Arguments, (runtime, program, tests): Group<'_>) -> Vec<Trial> {
    let found = program.split(' ').map(find).collect::<Option<Vec<PathBuf>>>();
    let is_ignored = found.is_none() && !is_required(runtime);
    if is_ignored && !arguments.list {
        eprintln!("\nNOT RUN: the {} tests against the real {program}, which is not here", tests.len());
    }
    let trials = tests.iter().map(|(name, test)| {
        let (test, found, program) = (*test, found.clone(), program.to_owned());
        let run = move || {
            let found = found.ok_or_else(|| Failed::from(format!("not here: {program}")))?;
            test(&found[0]);
            Ok(())
        };
        Trial::test(*name, run).with_ignored_flag(is_ignored)
    });
    trials.collect()
}

/// Whether `FUSION_TEST_REQUIRE` names it.
#[expect(clippy::disallowed_methods, reason = "tests have an environment")]
pub fn is_required(runtime: &str) -> bool {
    std::env::var(REQUIRE).is_ok_and(|names| names.split(',').any(|name| name.trim() == runtime))
}

/// Finds a program on `PATH`, or for `$NAME` what the variable names.
#[expect(clippy::disallowed_methods, reason = "tests have an environment")]
pub fn find(program: &str) -> Option<PathBuf> {
    if let Some(variable) = program.strip_prefix('$') {
        return std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// Puts the real program on the sandbox's `PATH`, in place of the fake one.
pub fn install(sandbox: &Sandbox, program: &Path) {
    let link = sandbox.bin().join(program.file_name().expect("a program"));
    // The sandbox may have no fake of this runtime.
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(program, link).expect("a link");
}

/// Listens on a port and answers nothing. A free port is not enough for a server that must not answer.
pub fn hold(port: u16) -> std::net::TcpListener {
    std::net::TcpListener::bind(("127.0.0.1", port)).expect("the sandbox's port is free")
}

/// Starts a command and reads its standard output up to and with `text`. Returns the running command and the output.
#[track_caller]
pub fn start_and_read_until(
    mut command: std::process::Command,
    text: &str,
) -> (std::process::Child, Vec<u8>) {
    use std::io::Read as _;
    let mut child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let stdout = child.stdout.as_mut().expect("a pipe");
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(text.as_bytes()) {
        let length = stdout.read(&mut byte).expect("a pipe can be read");
        if length == 0 {
            let output = child.wait_with_output().expect("it ends");
            let (read, error) = (String::from_utf8_lossy(&read), String::from_utf8_lossy(&output.stderr));
            panic!("it ended with {} after {read:?} and {error:?}", output.status);
        }
        read.push(byte[0]);
    }
    (child, read)
}
