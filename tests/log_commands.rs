//! `fusion <runtime> log`, and the keeper that holds logs within their bounds, through the real program.

#![allow(missing_docs)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use fusion::core::logs::keeper::{self, KeeperSpec};
use fusion::core::logs::{Limits, Reader, Start};
use fusion::core::process::unix::UnixDriver;
use fusion::core::process::{Child, Liveness, ProcessDriver, ProcessSpec};
use fusion::core::services::record::InstanceId;
use nix::sys::signal::Signal;
use support::{MARKER, PATIENCE, Sandbox, wait_until};

const NO_LOG: &str = "error: mlx has no log yet: fusion has not started it\nhint: start it: fusion mlx up\n";

fn log_of(sandbox: &Sandbox) -> PathBuf {
    sandbox.file("mlx", "mlx.log")
}

fn sandbox_with_log(bytes: impl AsRef<[u8]>) -> Sandbox {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.file("mlx", "")).unwrap();
    fs::write(log_of(&sandbox), bytes).unwrap();
    sandbox
}

fn numbered_lines(numbers: std::ops::Range<u32>) -> String {
    numbers.fold(String::new(), |text, number| text + &format!("line {number}\n"))
}

#[test]
fn no_log_yet() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["mlx", "log"]).run().assert(1, "", NO_LOG);
    sandbox.fusion(["mlx", "log", "-n", "0"]).run().assert(1, "", NO_LOG);
    let not_running = "error: mlx is not running\nhint: start it: fusion mlx up\n";
    sandbox.fusion(["mlx", "log", "-f"]).run().assert(3, "", not_running);
    assert!(!sandbox.file("mlx", "").exists(), "showing a log makes no files");
}

#[test]
fn one_that_somebody_else_started() {
    let sandbox = Sandbox::new();
    let other = Sandbox::new();
    let mut command = sandbox.command(sandbox.bin().join("mlx_lm.server")).into_command();
    let port = sandbox.port("mlx").to_string();
    let stderr = File::create(other.root().join("stderr")).unwrap();
    let mut server = command.args(["--host", "127.0.0.1", "--port", &port]).stderr(stderr).spawn().unwrap();
    wait_until("it listens", || std::net::TcpStream::connect(("127.0.0.1", sandbox.port("mlx"))).is_ok());
    let told = "error: fusion did not start mlx at 127.0.0.1:[MLX], and does not have what it prints\n\
                hint: look where it was started\n";
    sandbox.fusion(["mlx", "log", "-f"]).run().assert(1, "", told);
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn the_path_is_told_whether_there_is_a_log_or_not() {
    let sandbox = Sandbox::new();
    let path = "[ROOT]/config/mlx/mlx.log\n";
    sandbox.fusion(["mlx", "log", "--path"]).run().assert(0, path, "");
    sandbox.write_config("broken =");
    sandbox.fusion(["mx", "lg", "--path"]).run().assert(0, path, "");
}

#[test]
fn the_whole_log_goes_into_a_pipe() {
    let sandbox = sandbox_with_log(numbered_lines(0..1000));
    sandbox.fusion(["mlx", "log"]).run().assert(0, &numbered_lines(0..1000), "");
    sandbox.fusion(["mlx", "log", "-n", "all"]).run().assert(0, &numbered_lines(0..1000), "");
}

#[test]
fn as_many_last_lines_as_asked_for() {
    let sandbox = sandbox_with_log(numbered_lines(0..1000));
    for (lines, first) in [("0", 1000), ("1", 999), ("30", 970), ("1000", 0), ("99999999999999999999999", 0)]
    {
        let expected = numbered_lines(first..1000);
        sandbox.fusion(["mlx", "logs", "-n", lines]).run().assert(0, &expected, "");
    }
    let wrong = sandbox.fusion(["mlx", "log", "-n", "many"]).run().assert_code(2);
    assert!(wrong.stderr().contains("expected a number of lines, or `all`"), "{}", wrong.stderr());
}

#[test]
fn a_broken_configuration_does_not_hide_the_log() {
    let sandbox = sandbox_with_log("one\ntwo\n");
    sandbox.write_config("broken =");
    sandbox.fusion(["mlx", "log", "-n", "1"]).run().assert(0, "two\n", "");
}

#[test]
fn raw_bytes_pass_a_pipe_unchanged() {
    let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let sandbox = sandbox_with_log(&bytes);
    let shown = sandbox.fusion(["mlx", "log"]).run().assert_code(0);
    assert!(shown.stdout == bytes && shown.stderr.is_empty());
}

#[test]
fn no_final_newline() {
    let sandbox = sandbox_with_log("one\ntwo\nthree");
    sandbox.fusion(["mlx", "log", "-n", "2"]).run().assert(0, "two\nthree", "");
}

#[test]
fn a_line_of_1_mb() {
    let long = "x".repeat(1_000_000);
    let sandbox = sandbox_with_log(format!("first\n{long}\nlast\n"));
    let expected = format!("{long}\nlast\n");
    let shown = sandbox.fusion(["mlx", "log", "-n", "2"]).run().assert_code(0);
    assert!(shown.stdout() == expected);
}

#[test]
fn a_log_of_2_gib() {
    let sandbox = sandbox_with_log("");
    let mut log = OpenOptions::new().append(true).open(log_of(&sandbox)).unwrap();
    log.set_len(2 << 30).unwrap();
    log.write_all(b"\none\ntwo\nthree\n").unwrap();
    sandbox.fusion(["mlx", "log", "-n", "2"]).run().assert(0, "two\nthree\n", "");
}

#[test]
fn a_symlinked_log_is_refused() {
    let sandbox = sandbox_with_log("");
    let secret = sandbox.root().join("secret");
    fs::write(&secret, "secret\n").unwrap();
    fs::remove_file(log_of(&sandbox)).unwrap();
    symlink(&secret, log_of(&sandbox)).unwrap();
    sandbox.fusion(["mlx", "log"]).run().assert(
        1,
        "",
        "error: [ROOT]/config/mlx/mlx.log is a symbolic link\n\
         hint: remove the link: fusion follows none here, for it could lead anywhere\n",
    );
}

#[test]
fn a_reader_that_has_seen_enough() {
    let sandbox = sandbox_with_log(numbered_lines(0..200_000));
    let mut command = sandbox.fusion(["mlx", "log"]).into_command();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 7];
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let ended = child.wait_with_output().unwrap();
    assert_eq!((&first, ended.status.code(), ended.stderr), (b"line 0\n", Some(0), Vec::new()));
}

/// A sandbox in which the runtime is up; what a test appends to its log is as if the runtime had printed it.
fn running() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.faults("mlx", &["quiet"]);
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    sandbox
}

fn stop(sandbox: &Sandbox) {
    sandbox.fusion(["mlx", "down"]).run().assert_code(0);
    sandbox.assert_nothing_runs();
}

fn print(sandbox: &Sandbox, text: &str) {
    let mut log = OpenOptions::new().append(true).open(log_of(sandbox)).unwrap();
    log.write_all(text.as_bytes()).unwrap();
}

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

    /// Follows from here on, and has begun to.
    fn begun(sandbox: &Sandbox) -> Self {
        print(sandbox, "begun\n");
        let following = Self::start(sandbox, &["-n", "1"]);
        following.expect(&["begun"]);
        following
    }

    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    #[track_caller]
    fn expect(&self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.line(), format!("{line}\n"));
        }
    }

    fn signal(&self, signal: Signal) {
        support::processes::send(i32::try_from(self.child.id()).unwrap(), signal);
    }

    /// Waits for its end.
    #[track_caller]
    fn finish(mut self) -> (ExitStatus, String, String) {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
        let rest = self.lines.iter().collect();
        let output = self.child.wait_with_output().unwrap();
        (output.status, rest, String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn follow_until_the_runtime_ends() {
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
    assert_eq!((status.code(), rest.as_str(), stderr.as_str()), (Some(0), "last", "mlx has ended\n"));
}

#[test]
fn follow_shows_the_last_20_lines_first() {
    let sandbox = running();
    print(&sandbox, &numbered_lines(0..100));
    let following = Following::start(&sandbox, &[]);
    following.expect(&["line 80", "line 81"]);
    stop(&sandbox);
    assert_eq!(following.finish().1, numbered_lines(82..100));
}

#[test]
fn follow_across_a_restart() {
    let sandbox = running();
    let following = Following::begun(&sandbox);
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
fn follow_across_truncation() {
    let sandbox = running();
    let following = Following::begun(&sandbox);
    let log = OpenOptions::new().write(true).open(log_of(&sandbox)).unwrap();
    log.set_len(0).unwrap();
    print(&sandbox, "after the truncation\n");
    following.expect(&["after the truncation"]);
    stop(&sandbox);
    assert_eq!(following.finish().2, "the log was truncated\nmlx has ended\n");
}

#[test]
fn follow_is_interrupted() {
    let sandbox = running();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let following = Following::begun(&sandbox);
        following.signal(signal);
        let (status, rest, stderr) = following.finish();
        assert_eq!((status.signal(), rest.as_str(), stderr.as_str()), (Some(signal as i32), "", ""));
    }
    stop(&sandbox);
}

#[test]
fn follow_ends_when_its_reader_does_although_nothing_is_printed() {
    let sandbox = running();
    let script = format!("{} mlx log -f -n 1 | head -n 1", env!("CARGO_BIN_EXE_fusion"));
    // The shell waits for both.
    sandbox.command("sh").arg("-c").arg(script).run().assert_code(0);
    stop(&sandbox);
}

#[test]
#[cfg(target_os = "linux")] // The only system that has /dev/full.
fn a_full_disk_is_told() {
    let sandbox = sandbox_with_log("one\n");
    let mut command = sandbox.fusion(["mlx", "log"]).into_command();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.starts_with("error: cannot write to standard output\n"), "{stderr}");
}

/// What a terminal gets.
fn on_a_terminal(sandbox: &Sandbox, arguments: &[&str]) -> Vec<u8> {
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut command = sandbox.fusion(arguments.iter().copied()).into_command();
    let mut child = command.stdout(pty.slave).stderr(Stdio::piped()).spawn().unwrap();
    // The builder holds the terminal open, too; without it the end of the output can be seen.
    drop(command);
    let mut shown = Vec::new();
    // Linux tells the end by EIO, others by an end of file.
    let _ = File::from(pty.master).read_to_end(&mut shown);
    assert!(child.wait().unwrap().success());
    shown
}

#[test]
fn a_terminal_obeys_nothing_in_a_log() {
    let hostile = "\x1b]52;c;cm0gLXJm\x07\x1b[2J\u{9b}31mred\x1b[0m\x07 10%\r20%\r\n\x1b]0;cut";
    let sandbox = sandbox_with_log(hostile);
    // The terminal itself makes `\r\n` of a newline.
    assert_eq!(on_a_terminal(&sandbox, &["mlx", "log"]), b"red 10%\r\n20%\r\n");
}

#[test]
fn a_terminal_gets_few_lines_and_the_last_one_is_completed() {
    let sandbox = sandbox_with_log(numbered_lines(0..100) + "cut");
    let expected = (numbered_lines(81..100) + "cut\n").replace('\n', "\r\n");
    assert_eq!(String::from_utf8(on_a_terminal(&sandbox, &["mlx", "log"])).unwrap(), expected);
    let expected = (numbered_lines(0..100) + "cut\n").replace('\n', "\r\n");
    assert_eq!(String::from_utf8(on_a_terminal(&sandbox, &["mlx", "log", "-n", "all"])).unwrap(), expected);
}

#[test]
fn the_log_deleted_while_running_is_put_back() {
    let sandbox = running();
    let following = Following::begun(&sandbox);
    let mut writer = OpenOptions::new().append(true).open(log_of(&sandbox)).unwrap();
    fs::remove_file(log_of(&sandbox)).unwrap();
    writer.write_all(b"after the deletion\n").unwrap();
    following.expect(&["after the deletion"]);
    wait_until("the log is back", || log_of(&sandbox).exists());
    sandbox.fusion(["mlx", "log", "-n", "2"]).run().assert(0, "begun\nafter the deletion\n", "");
    writer.write_all(b"after that\n").unwrap();
    following.expect(&["after that"]);
    stop(&sandbox);
    assert_eq!(following.finish().2, "mlx has ended\n");
}

#[test]
fn the_log_deleted_while_running_is_told_when_nobody_keeps_it() {
    let sandbox = running();
    let record = sandbox.record("mlx").unwrap();
    let keepers = keeper::find(&UnixDriver, record["instance"].as_str().unwrap()).unwrap();
    keeper::stop(&UnixDriver, &log_of(&sandbox), &keepers).unwrap();
    fs::remove_file(log_of(&sandbox)).unwrap();
    let told = "error: [ROOT]/config/mlx/mlx.log was deleted while mlx (pid [PID]) writes to it\n\
                hint: to begin a new log: fusion mlx restart\n";
    sandbox.fusion(["mlx", "log"]).run().assert(1, "", told);
    sandbox.fusion(["mlx", "log", "-f"]).run().assert(1, "", told);
    stop(&sandbox);
}

#[test]
fn up_puts_the_log_of_the_last_run_aside() {
    let sandbox = running();
    print(&sandbox, "first run\n");
    stop(&sandbox);
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    let log = log_of(&sandbox);
    assert!(fs::read_to_string(part(&log, 1)).unwrap().ends_with("first run\n"));
    let listening = format!("listening on 127.0.0.1:{}\n", sandbox.port("mlx"));
    assert_eq!(sandbox.fusion(["mlx", "log"]).run().assert_code(0).stdout(), listening);
    for path in [log.clone(), part(&log, 1)] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    stop(&sandbox);
}

#[test]
fn up_does_not_write_through_a_symlinked_log() {
    let sandbox = sandbox_with_log("");
    let victim = sandbox.root().join("victim");
    fs::write(&victim, "precious\n").unwrap();
    fs::remove_file(log_of(&sandbox)).unwrap();
    symlink(&victim, log_of(&sandbox)).unwrap();
    let refused = sandbox.fusion(["mlx", "up"]).run().assert_code(1);
    assert!(refused.stderr().contains("mlx.log is a symbolic link"), "{}", refused.stderr());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious\n");
    assert!(log_of(&sandbox).is_symlink());
    sandbox.assert_nothing_runs();
}

#[test]
fn up_bounds_the_log_of_what_it_starts() {
    let sandbox = Sandbox::new();
    let command = support::command_line("mlx", &["quiet", "flood=20000000"]);
    sandbox.configure("", &format!("{command}\nlog_max_mb = 1\nlog_keep = 2"));
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    let log = log_of(&sandbox);
    wait_until("the log is within its limit", || fs::metadata(&log).unwrap().len() <= 1_000_000);
    assert!(part(&log, 2).exists() && !part(&log, 3).exists());
    let listening = format!("listening on 127.0.0.1:{}\n", sandbox.port("mlx"));
    sandbox.fusion(["mlx", "log", "-n", "1"]).run().assert(0, "listening on 127.0.0.1:[MLX]\n", "");
    let shown = sandbox.fusion(["mlx", "log", "-n", "all"]).run().assert_code(0).stdout();
    assert!(shown.len() > 1_000_000 && shown.ends_with(&format!("{:099}\n{listening}", 199_999)));
    stop(&sandbox);
}

/// What runs in place of a runtime, with a keeper beside it.
struct Kept<'a> {
    sandbox: &'a Sandbox,
    runtime: Box<dyn Child>,
    spec: KeeperSpec,
}

impl<'a> Kept<'a> {
    /// Starts `script` as the processes of a runtime are started, and a keeper.
    fn start(sandbox: &'a Sandbox, script: &str, limits: Limits) -> Self {
        let log = log_of(sandbox);
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        let instance = String::from(InstanceId::random().unwrap());
        let runtime = spawn(
            sandbox,
            ProcessSpec {
                program: "/bin/sh".into(),
                args: ["-c", script].map(Into::into).into(),
                env: Vec::new(),
                directory: sandbox.root().to_owned(),
                log: Some(log.clone()),
                instance: instance.clone(),
            },
        );
        let spec = KeeperSpec { log, limits, instance, leader: runtime.id().clone() };
        let program = Path::new(env!("CARGO_BIN_EXE_fusion"));
        spawn(sandbox, spec.process(program, sandbox.root()));
        Self { sandbox, runtime, spec }
    }

    fn runs(&self) -> bool {
        UnixDriver.liveness(self.runtime.id()).unwrap() == Liveness::Alive
    }

    /// The keeper is the only process that is left.
    fn keeper_has_ended(&self) -> bool {
        self.sandbox.processes().is_empty()
    }

    fn text(&self) -> String {
        let mut reader = Reader::open(&self.spec.log, Start::Beginning).unwrap().unwrap();
        let mut bytes = Vec::new();
        while reader.remaining() > 0 {
            reader.read(&mut bytes).unwrap();
        }
        String::from_utf8(bytes).unwrap()
    }
}

fn spawn(sandbox: &Sandbox, mut spec: ProcessSpec) -> Box<dyn Child> {
    let marker = sandbox.root().file_name().unwrap().to_owned();
    spec.env.push((MARKER.into(), marker));
    spec.env.push(("FUSION_CONFIG_DIR".into(), sandbox.config_dir().into()));
    UnixDriver.spawn(&spec).unwrap()
}

const SMALL: Limits = Limits { max_bytes: 1_000_000, keep: 3 };

#[test]
fn the_keeper_ends_with_the_runtime() {
    let sandbox = Sandbox::new();
    let kept = Kept::start(&sandbox, "echo started; sleep 0.3; echo ended", SMALL);
    wait_until("the keeper has ended", || kept.keeper_has_ended());
    assert_eq!(kept.text(), "started\nended\n");
}

#[test]
fn the_keeper_outlives_the_leader_while_children_write() {
    let sandbox = Sandbox::new();
    let script = "(while [ ! -e stop ]; do sleep 0.01; done; echo child ended) & echo leader ended";
    let mut kept = Kept::start(&sandbox, script, SMALL);
    wait_until("the leader has ended", || kept.runtime.try_wait().unwrap().is_some());
    // Two processes are left: the child, or what it runs just now, and the keeper.
    wait_until("the keeper has looked", || sandbox.processes().len() >= 2);
    File::create(sandbox.root().join("stop")).unwrap();
    wait_until("the keeper has ended", || kept.keeper_has_ended());
    assert_eq!(kept.text(), "leader ended\nchild ended\n");
}

#[test]
fn a_stop_leaves_no_keeper_and_is_no_error_without_one() {
    let sandbox = Sandbox::new();
    let kept = Kept::start(&sandbox, "exec sleep 600", SMALL);
    assert_eq!(sandbox.processes().len(), 2);
    let stop = || {
        let keepers = keeper::find(&UnixDriver, &kept.spec.instance).unwrap();
        keeper::stop(&UnixDriver, &kept.spec.log, &keepers).unwrap();
    };
    stop();
    assert_eq!(sandbox.processes(), [kept.runtime.id().pid.as_raw()]);
    stop();
    assert!(kept.runs());
    support::processes::kill(kept.runtime.id().pid.as_raw());
    sandbox.assert_nothing_runs();
}

#[test]
fn a_keeper_is_no_member_of_what_it_is_kept_for() {
    let sandbox = Sandbox::new();
    let mut kept = Kept::start(&sandbox, "exec sleep 600", SMALL);
    let instance =
        fusion::core::process::Instance { id: &kept.spec.instance, leader: Some(&kept.spec.leader) };
    assert_eq!(UnixDriver.members(instance).unwrap(), [kept.spec.leader.clone()]);
    support::processes::kill(kept.runtime.id().pid.as_raw());
    wait_until("the runtime has ended", || kept.runtime.try_wait().unwrap().is_some());
    assert_eq!(UnixDriver.members(instance).unwrap(), []);
    wait_until("the keeper has ended", || kept.keeper_has_ended());
}

/// Writes as fast as it can, and marks its end by a file.
fn flood(lines: u32) -> String {
    format!(
        "awk 'BEGIN {{ for (i = 0; i < {lines}; i++) printf \"line %089d\\n\", i }}'; : > done; \
         while [ ! -e stop ]; do sleep 0.01; done"
    )
}

#[test]
fn a_flood_is_bounded_and_loses_nothing_of_what_is_kept() {
    let sandbox = Sandbox::new();
    let kept = Kept::start(&sandbox, &flood(1_000_000), SMALL);
    let done = sandbox.root().join("done");
    wait_until("the flood is over", || done.exists());
    let size = || fs::metadata(&kept.spec.log).unwrap().len();
    wait_until("the log is within its limit", || size() <= SMALL.max_bytes);
    let parts: Vec<u64> =
        (1..=3).map(|number| fs::metadata(part(&kept.spec.log, number)).unwrap().len()).collect();
    assert!(parts.iter().all(|part| *part <= SMALL.max_bytes), "{parts:?}");
    assert!(!part(&kept.spec.log, 4).exists());
    // What is left is the end of what was written, and where heads are cut off, without a gap.
    let text = kept.text();
    assert!(text.ends_with(&format!("line {:089}\n", 999_999)));
    let numbers: Vec<u32> = text.lines().skip(1).map(|line| line[5..].parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next));
    assert!(!heads_are_cut_off(&sandbox) || numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    File::create(sandbox.root().join("stop")).unwrap();
    wait_until("the keeper has ended", || kept.keeper_has_ended());
}

/// Whether the file system can remove the head of a file, so that nothing is lost.
#[cfg(target_os = "linux")]
fn heads_are_cut_off(sandbox: &Sandbox) -> bool {
    use nix::fcntl::{FallocateFlags, fallocate};
    let path = sandbox.root().join("probe");
    fs::write(&path, vec![0; 1 << 17]).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    fallocate(file, FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, 0, 1 << 16).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn heads_are_cut_off(_sandbox: &Sandbox) -> bool {
    false
}

fn part(log: &Path, number: u32) -> PathBuf {
    format!("{}.{number}", log.display()).into()
}

#[test]
fn the_log_deleted_while_running() {
    let sandbox = Sandbox::new();
    let kept = Kept::start(&sandbox, &flood(300_000), SMALL);
    wait_until("the log is there", || fs::remove_file(&kept.spec.log).is_ok());
    wait_until("the flood is over", || sandbox.root().join("done").exists());
    File::create(sandbox.root().join("stop")).unwrap();
    wait_until("the keeper has ended", || kept.keeper_has_ended());
}
