//! `fusion <service> log -f`, whatever happens to the log and its server.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::Receiver;

use nix::sys::signal::Signal;

use crate::support::matrix::{add_key, assert_shows, for_each_service};
use crate::support::{Sandbox, TEST_TIMEOUT, processes, same_output, wait_for_end, wait_until};
use crate::{for_each_running, log_of, numbered_lines, print, stop};

/// `fusion SERVICE log -f`, whose output is read while it runs.
struct Following {
    child: std::process::Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(sandbox: &Sandbox, service: &str, arguments: &[&str]) -> Self {
        let arguments = [service, "log", "-f"].into_iter().chain(arguments.iter().copied());
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
    fn started(sandbox: &Sandbox, service: &str) -> Self {
        print(sandbox, service, "started\n");
        let following = Self::start(sandbox, service, &["-n", "1"]);
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
    for_each_running(|sandbox, service| {
        print(sandbox, service, "one\ntwo\n");
        let following = Following::start(sandbox, service, &["-n", "1"]);
        following.expect(&["two"]);
        print(sandbox, service, "three\nfo");
        following.expect(&["three"]);
        print(sandbox, service, "ur\n");
        following.expect(&["four"]);
        print(sandbox, service, "last");
        stop(sandbox, service);
        let (status, rest, stderr) = following.finish();
        assert_eq!((status.code(), rest.as_str()), (Some(0), "last"));
        assert_eq!(stderr, format!("{service} has ended\n"));
    });
}

#[test]
fn follow_begins_with_the_last_20_lines() {
    for_each_running(|sandbox, service| {
        print(sandbox, service, &numbered_lines(0..100));
        let following = Following::start(sandbox, service, &[]);
        following.expect(&["line 80", "line 81"]);
        stop(sandbox, service);
        assert_eq!(following.finish().1, numbered_lines(82..100));
    });
}

#[test]
fn follow_continues_across_a_restart() {
    for_each_running(|sandbox, service| {
        let following = Following::started(sandbox, service);
        sandbox.fusion([service, "restart"]).run().assert_code(0);
        print(sandbox, service, "after\n");
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != "after\n") {
            lines.push(following.line());
        }
        let listening = format!("listening on 127.0.0.1:{}\n", sandbox.port("ollama"));
        assert_eq!(lines.iter().filter(|line| **line == listening).count(), 1, "{lines:?}");
        stop(sandbox, service);
        assert_eq!(following.finish().0.code(), Some(0));
    });
}

#[test]
fn follow_continues_across_truncation() {
    for_each_running(|sandbox, service| {
        let following = Following::started(sandbox, service);
        let log = OpenOptions::new().write(true).open(log_of(sandbox, service)).unwrap();
        log.set_len(0).unwrap();
        print(sandbox, service, "after the truncation\n");
        following.expect(&["after the truncation"]);
        stop(sandbox, service);
        assert_eq!(
            following.finish().2,
            format!("the log of {service} was truncated: lines may be missing\n{service} has ended\n")
        );
    });
}

#[test]
fn each_signal_interrupts_follow() {
    for_each_running(|sandbox, service| {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let following = Following::started(sandbox, service);
            following.signal(signal);
            let (status, rest, stderr) = following.finish();
            assert_eq!((status.signal(), rest.as_str(), stderr.as_str()), (Some(signal as i32), "", ""));
        }
        stop(sandbox, service);
    });
}

#[test]
fn follow_ends_when_its_pipe_closes() {
    for_each_running(|sandbox, service| {
        let script = format!("{} {service} log -f -n 1 | head -n 1", env!("CARGO_BIN_EXE_fusion"));
        // The shell waits for both.
        sandbox.command("sh").arg("-c").arg(script).run().assert_code(0);
        stop(sandbox, service);
    });
}

#[test]
fn follow_continues_across_rotations() {
    for_each_service(&["quiet"], |sandbox, service| {
        add_key(sandbox, "log_max_size = \"1KB\"");
        sandbox.fusion([service, "up"]).run().assert_code(0);
        let following = Following::started(sandbox, service);
        for start in [0, 200, 400] {
            print(sandbox, service, &numbered_lines(start..start + 200));
            let log = log_of(sandbox, service);
            wait_until("the log is rotated", || fs::metadata(&log).unwrap().len() == 0);
        }
        let expected = numbered_lines(0..600);
        following.expect(&expected.lines().collect::<Vec<_>>());
        stop(sandbox, service);
        assert_eq!(following.finish().2, format!("{service} has ended\n"));
    });
}

#[test]
fn follow_reports_a_deleted_log() {
    for_each_running(|sandbox, service| {
        let mut following = Following::started(sandbox, service);
        let log = log_of(sandbox, service);
        let mut writer = OpenOptions::new().append(true).open(&log).unwrap();
        fs::remove_file(&log).unwrap();
        writer.write_all(b"after the deletion\n").unwrap();
        following.expect(&["after the deletion"]);
        let mut stderr = BufReader::new(following.child.stderr.take().unwrap());
        let mut warning = String::new();
        stderr.read_line(&mut warning).unwrap();
        let (log, pid) = (log.display(), sandbox.pid(service).unwrap());
        assert_eq!(warning, format!("warning: {log} was deleted while {service} (pid {pid}) writes to it\n"));
        writer.write_all(b"after that\n").unwrap();
        following.expect(&["after that"]);
        stop(sandbox, service);
        following.finish();
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, format!("{service} has ended\n"));
    });
}

#[test]
fn log_and_up_report_a_deleted_log() {
    for_each_running(|sandbox, service| {
        fs::remove_file(log_of(sandbox, service)).unwrap();
        assert_shows(
            &sandbox.fusion([service, "up"]).run(),
            service,
            "exit 0\n\
             [stdout]\n\
             [SERVICE] is up at http://127.0.0.1:[PORT] (pid [PID])\n\
             [stderr]\n\
             warning: [ROOT]/config/[SERVICE]/[SERVICE].log was deleted while [SERVICE] writes to it; start a new log: fusion [SERVICE] restart",
        );
        let logs = [&[service, "log"][..], &[service, "log", "-f"]];
        let logs = logs.map(|words| sandbox.fusion(words.iter().copied()).run());
        assert_shows(
            &same_output(logs),
            service,
            "exit 1\n\
             [stderr]\n\
             error: [ROOT]/config/[SERVICE]/[SERVICE].log was deleted while [SERVICE] (pid [PID]) writes to it\n\
             hint: start a new log: fusion [SERVICE] restart",
        );
        stop(sandbox, service);
    });
}
