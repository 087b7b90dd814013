//! `fusion <service> log`, and the log rotator, through the real program.

mod follow;
mod rotator;
#[path = "../support/mod.rs"]
mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Stdio;

use support::matrix::{assert_shows, for_each_service};
use support::terminal::Terminal;
use support::{Sandbox, same_output, wait_for_end, wait_until};

fn log_of(sandbox: &Sandbox, service: &str) -> PathBuf {
    sandbox.file(service, &format!("{service}.log"))
}

fn write_log(sandbox: &Sandbox, service: &str, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(sandbox.file(service, "")).unwrap();
    fs::write(log_of(sandbox, service), bytes).unwrap();
}

fn sandbox_with_log(bytes: impl AsRef<[u8]>) -> Sandbox {
    let sandbox = Sandbox::new();
    write_log(&sandbox, "mlx", bytes);
    sandbox
}

/// Runs a test with each kind of service that has this log.
#[track_caller]
fn for_each_log(bytes: impl AsRef<[u8]> + Sync, test: impl Fn(&Sandbox, &str) + Sync) {
    for_each_service(&[], |sandbox, service| {
        write_log(sandbox, service, &bytes);
        test(sandbox, service);
    });
}

fn numbered_lines(numbers: std::ops::Range<u32>) -> String {
    numbers.fold(String::new(), |text, number| text + &format!("line {number}\n"))
}

#[test]
fn log_without_a_log_makes_no_files() {
    let sandbox = Sandbox::new();
    let logs =
        [&["mlx", "log"][..], &["mlx", "log", "-n", "0"]].map(|words| sandbox.fusion(words.to_vec()).run());
    insta::assert_snapshot!(same_output(logs), @"
    exit 1
    [stderr]
    error: mlx has no log yet: fusion has not started it
    hint: start the server: fusion mlx up
    ");
    insta::assert_snapshot!(sandbox.fusion(["mlx", "log", "-f"]).run(), @"
    exit 3
    [stderr]
    error: mlx is not running
    hint: start the server: fusion mlx up
    ");
    assert!(!sandbox.file("mlx", "").exists(), "showing a log makes no files");
}

#[test]
fn follow_refuses_an_external_server() {
    let sandbox = Sandbox::new();
    let other = Sandbox::new();
    let mut command = sandbox.command(sandbox.bin().join("mlx_lm.server")).into_command();
    let port = sandbox.port("mlx").to_string();
    let stderr = File::create(other.root().join("stderr")).unwrap();
    let mut server = command.args(["--host", "127.0.0.1", "--port", &port]).stderr(stderr).spawn().unwrap();
    wait_until("it listens", || std::net::TcpStream::connect(("127.0.0.1", sandbox.port("mlx"))).is_ok());
    insta::assert_snapshot!(sandbox.fusion(["mlx", "log", "-f"]).run(), @"
    exit 1
    [stderr]
    error: fusion did not start mlx at 127.0.0.1:[MLX] and has no log of it
    hint: see the terminal or the program that started mlx
    ");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn path_needs_no_log() {
    let sandbox = Sandbox::new();
    let path = format!("{}\n", log_of(&sandbox, "mlx").display());
    sandbox.fusion(["mlx", "log", "--path"]).run().assert_stdout(&path);
    sandbox.write_config("broken =");
    sandbox.fusion(["mx", "lg", "--path"]).run().assert_stdout(&path);
}

#[test]
fn a_pipe_gets_the_whole_log() {
    for_each_log(numbered_lines(0..1000), |sandbox, service| {
        sandbox.fusion([service, "log"]).run().assert_stdout(&numbered_lines(0..1000));
        sandbox.fusion([service, "log", "-n", "all"]).run().assert_stdout(&numbered_lines(0..1000));
    });
}

#[test]
fn n_limits_the_number_of_lines() {
    let sandbox = sandbox_with_log(numbered_lines(0..1000));
    for (lines, first) in [("0", 1000), ("1", 999), ("30", 970), ("1000", 0), ("99999999999999999999999", 0)]
    {
        let expected = numbered_lines(first..1000);
        sandbox.fusion(["mlx", "logs", "-n", lines]).run().assert_stdout(&expected);
    }
    insta::assert_snapshot!(sandbox.fusion(["mlx", "log", "-n", "many"]).run(), @"
    exit 2
    [stderr]
    error: invalid value 'many' for '--lines <LINES>': expected a number of lines, or `all`

    For more information, try '--help'.
    ");
}

#[test]
fn a_broken_configuration_does_not_hide_the_log() {
    let sandbox = sandbox_with_log("one\ntwo\n");
    sandbox.write_config("broken =");
    sandbox.fusion(["mlx", "log", "-n", "1"]).run().assert_stdout("two\n");
}

#[test]
fn raw_bytes_pass_a_pipe_unchanged() {
    let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
    for_each_log(&bytes, |sandbox, service| {
        let shown = sandbox.fusion([service, "log"]).run().assert_code(0);
        assert!(shown.stdout == bytes && shown.stderr.is_empty());
    });
}

#[test]
fn a_pipe_gets_no_added_newline() {
    for_each_log("one\ntwo\nthree", |sandbox, service| {
        sandbox.fusion([service, "log", "-n", "2"]).run().assert_stdout("two\nthree");
    });
}

#[test]
fn a_line_of_1_mb_is_printed_whole() {
    let long = "x".repeat(1_000_000);
    for_each_log(format!("first\n{long}\nlast\n"), |sandbox, service| {
        let shown = sandbox.fusion([service, "log", "-n", "2"]).run().assert_code(0);
        assert!(shown.stdout() == format!("{long}\nlast\n"));
    });
}

#[test]
fn a_log_of_2_gib_needs_little_memory() {
    for_each_log("", |sandbox, service| {
        let mut log = OpenOptions::new().append(true).open(log_of(sandbox, service)).unwrap();
        log.set_len(2 << 30).unwrap();
        log.write_all(b"\none\ntwo\nthree\n").unwrap();
        let (shown, memory) = sandbox.fusion([service, "log", "-n", "2"]).run_measured();
        shown.assert_stdout("two\nthree\n");
        assert!(memory < 50 << 20, "{memory} bytes");
    });
}

#[test]
fn a_symlinked_log_is_refused() {
    for_each_log("", |sandbox, service| {
        let secret = sandbox.root().join("secret");
        fs::write(&secret, "secret\n").unwrap();
        fs::remove_file(log_of(sandbox, service)).unwrap();
        symlink(&secret, log_of(sandbox, service)).unwrap();
        assert_shows(
            &sandbox.fusion([service, "log"]).run(),
            service,
            "exit 1\n\
             [stderr]\n\
             error: [ROOT]/config/[SERVICE]/[SERVICE].log is a symbolic link\n\
             hint: remove the link: fusion follows no links there, because they can point anywhere",
        );
    });
}

#[test]
fn a_closed_pipe_is_no_error() {
    for_each_log(numbered_lines(0..200_000), |sandbox, service| {
        let mut command = sandbox.fusion([service, "log"]).into_command();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut first = [0; 7];
        stdout.read_exact(&mut first).unwrap();
        drop(stdout);
        let ended = child.wait_with_output().unwrap();
        assert_eq!((&first, ended.status.code(), ended.stderr), (b"line 0\n", Some(0), Vec::new()));
    });
}

/// Runs a test with each kind of service, which is up. The test may append to its log as if the server had printed it.
#[track_caller]
fn for_each_running(test: impl Fn(&Sandbox, &str) + Sync) {
    for_each_service(&["quiet"], |sandbox, service| {
        sandbox.fusion([service, "up"]).run().assert_code(0);
        test(sandbox, service);
    });
}

fn stop(sandbox: &Sandbox, service: &str) {
    sandbox.fusion([service, "down"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}

fn print(sandbox: &Sandbox, service: &str, text: &str) {
    let mut log = OpenOptions::new().append(true).open(log_of(sandbox, service)).unwrap();
    log.write_all(text.as_bytes()).unwrap();
}

#[test]
#[cfg(target_os = "linux")] // The only system that has /dev/full.
fn a_full_disk_is_reported() {
    let sandbox = sandbox_with_log("one\n");
    let mut command = sandbox.fusion(["mlx", "log"]).into_command();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(sandbox.normalized(&stderr), @"
    error: cannot write to standard output
      caused by: No space left on device (os error [ERRNO])
    ");
}

/// The output of a command on a terminal.
fn on_a_terminal(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let terminal = Terminal::open();
    let mut command = sandbox.fusion(arguments.iter().copied()).into_command();
    let mut child = command.stdout(terminal.stream()).spawn().unwrap();
    // The builder holds the terminal open, too; without it the end of the output can be seen.
    drop(command);
    assert!(wait_for_end(&mut child).success());
    terminal.finish()
}

#[test]
fn a_terminal_gets_no_control_characters() {
    let hostile = "\x1b]52;c;cm0gLXJm\x07\x1b[2J\u{9b}31mred\x1b[0m\x07 10%\r20%\r\n\x1b]0;cut";
    for_each_log(hostile, |sandbox, service| {
        // The terminal itself makes `\r\n` of a newline.
        assert_eq!(on_a_terminal(sandbox, &[service, "log"]), "red 10%\r\n20%\r\n");
    });
}

#[test]
fn a_terminal_gets_20_complete_lines() {
    let sandbox = sandbox_with_log(numbered_lines(0..100) + "cut");
    let expected = (numbered_lines(81..100) + "cut\n").replace('\n', "\r\n");
    assert_eq!(on_a_terminal(&sandbox, &["mlx", "log"]), expected);
    let expected = (numbered_lines(0..100) + "cut\n").replace('\n', "\r\n");
    assert_eq!(on_a_terminal(&sandbox, &["mlx", "log", "-n", "all"]), expected);
}
