//! `fusion <service> log -f`, whatever happens to the log and its server.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::Receiver;

use nix::sys::signal::Signal;

use crate::support::{Sandbox, TEST_TIMEOUT, command_line, processes, same_output, wait_for_end, wait_until};
use crate::{log_of, numbered_lines, print, running, stop};

/// `fusion mlx log -f`, whose output is read while it runs.
struct Following {
    child: std::process::Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let arguments = ["mlx", "log", "-f"].iter().chain(arguments).copied();
        let mut command = sandbox.fusion(arguments).into_command();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|length| length > 0) {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// Follows from here on, and has started to.
    fn started(sandbox: &Sandbox) -> Self {
        print(sandbox, "started\n");
        let following = Self::start(sandbox, &["-n", "1"]);
        following.expect(&["started"]);
        following
    }

    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(TEST_TIMEOUT).expect("a line")
    }

    #[track_caller]
    fn expect(&self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.line(), format!("{line}\n"));
        }
    }

    fn signal(&self, signal: Signal) {
        processes::send(i32::try_from(self.child.id()).unwrap(), signal);
    }

    /// Waits for its end.
    #[track_caller]
    fn finish(mut self) -> (ExitStatus, String, String) {
        wait_for_end(&mut self.child);
        let rest = self.lines.iter().collect();
        let output = self.child.wait_with_output().unwrap();
        (output.status, rest, String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn follow_ends_with_the_server() {
    let sandbox = running();
    print(&sandbox, "one\ntwo\n");
    let following = Following::start(&sandbox, &["-n", "1"]);
    following.expect(&["two"]);
    print(&sandbox, "three\nfo");
    following.expect(&["three"]);
    print(&sandbox, "ur\n");
    following.expect(&["four"]);
    print(&sandbox, "last");
    stop(&sandbox);
    let (status, rest, stderr) = following.finish();
    assert_eq!((status.code(), rest.as_str()), (Some(0), "last"));
    insta::assert_snapshot!(stderr, @"mlx has ended");
}

#[test]
fn follow_begins_with_the_last_20_lines() {
    let sandbox = running();
    print(&sandbox, &numbered_lines(0..100));
    let following = Following::start(&sandbox, &[]);
    following.expect(&["line 80", "line 81"]);
    stop(&sandbox);
    assert_eq!(following.finish().1, numbered_lines(82..100));
}

#[test]
fn follow_continues_across_a_restart() {
    let sandbox = running();
    let following = Following::started(&sandbox);
    sandbox.fusion(["mlx", "restart"]).run().assert_code(0);
    print(&sandbox, "after\n");
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "after\n") {
        lines.push(following.line());
    }
    let listening = format!("listening on 127.0.0.1:{}\n", sandbox.port("mlx"));
    assert_eq!(lines.iter().filter(|line| **line == listening).count(), 1, "{lines:?}");
    stop(&sandbox);
    assert_eq!(following.finish().0.code(), Some(0));
}

#[test]
fn follow_continues_across_truncation() {
    let sandbox = running();
    let following = Following::started(&sandbox);
    let log = OpenOptions::new().write(true).open(log_of(&sandbox)).unwrap();
    log.set_len(0).unwrap();
    print(&sandbox, "after the truncation\n");
    following.expect(&["after the truncation"]);
    stop(&sandbox);
    insta::assert_snapshot!(following.finish().2, @"
    the log of mlx was truncated: lines may be missing
    mlx has ended
    ");
}

#[test]
fn each_signal_interrupts_follow() {
    let sandbox = running();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let following = Following::started(&sandbox);
        following.signal(signal);
        let (status, rest, stderr) = following.finish();
        assert_eq!((status.signal(), rest.as_str(), stderr.as_str()), (Some(signal as i32), "", ""));
    }
    stop(&sandbox);
}

#[test]
fn follow_ends_when_its_pipe_closes() {
    let sandbox = running();
    let script = format!("{} mlx log -f -n 1 | head -n 1", env!("CARGO_BIN_EXE_fusion"));
    // The shell waits for both.
    sandbox.command("sh").arg("-c").arg(script).run().assert_code(0);
    stop(&sandbox);
}

#[test]
fn follow_continues_across_rotations() {
    let sandbox = Sandbox::new();
    let command = command_line("mlx", &["quiet"]);
    sandbox.configure("", &format!("{command}\nlog_max_size = \"1KB\""));
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    let following = Following::started(&sandbox);
    for start in [0, 200, 400] {
        print(&sandbox, &numbered_lines(start..start + 200));
        wait_until("the log is rotated", || fs::metadata(log_of(&sandbox)).unwrap().len() == 0);
    }
    let expected = numbered_lines(0..600);
    following.expect(&expected.lines().collect::<Vec<_>>());
    stop(&sandbox);
    insta::assert_snapshot!(following.finish().2, @"mlx has ended");
}

#[test]
fn follow_reports_a_deleted_log() {
    let sandbox = running();
    let mut following = Following::started(&sandbox);
    let mut writer = OpenOptions::new().append(true).open(log_of(&sandbox)).unwrap();
    fs::remove_file(log_of(&sandbox)).unwrap();
    writer.write_all(b"after the deletion\n").unwrap();
    following.expect(&["after the deletion"]);
    let mut stderr = BufReader::new(following.child.stderr.take().unwrap());
    let mut warning = String::new();
    stderr.read_line(&mut warning).unwrap();
    insta::assert_snapshot!(
        sandbox.normalized(&warning).replace(&sandbox.pid("mlx").unwrap().to_string(), "[PID]"),
        @"warning: [ROOT]/config/mlx/mlx.log was deleted while mlx (pid [PID]) writes to it"
    );
    writer.write_all(b"after that\n").unwrap();
    following.expect(&["after that"]);
    stop(&sandbox);
    following.finish();
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    insta::assert_snapshot!(rest, @"mlx has ended");
}

#[test]
fn log_and_up_report_a_deleted_log() {
    let sandbox = running();
    fs::remove_file(log_of(&sandbox)).unwrap();
    insta::assert_snapshot!(sandbox.fusion(["mlx", "up"]).run(), @"
    exit 0
    [stdout]
    mlx is up at http://127.0.0.1:[MLX] (pid [PID])
    [stderr]
    warning: [ROOT]/config/mlx/mlx.log was deleted while mlx writes to it; start a new log: fusion mlx restart
    ");
    let logs = [&["mlx", "log"][..], &["mlx", "log", "-f"]].map(|words| sandbox.fusion(words.to_vec()).run());
    insta::assert_snapshot!(same_output(logs), @"
    exit 1
    [stderr]
    error: [ROOT]/config/mlx/mlx.log was deleted while mlx (pid [PID]) writes to it
    hint: start a new log: fusion mlx restart
    ");
    stop(&sandbox);
}
