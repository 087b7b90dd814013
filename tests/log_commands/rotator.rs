//! The rotator, which rotates the log above its limit as long as a process of the server lives.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fusion::core::logs::rotator::{self, LogRotator};
use fusion::core::logs::{Limits, LogReader};
use fusion::core::process::unix::UnixDriver;
use fusion::core::process::{Child, Instance, Liveness, ProcessDriver, ProcessId, ProcessSpec};
use fusion::core::services::record::InstanceId;

use crate::support::matrix::{add_key, for_each_service};
use crate::support::{MARKER, Sandbox, command_line, fake_runtime, processes, wait_until};
use crate::{log_of, numbered_lines, print, stop};

#[test]
fn up_starts_a_rotator() {
    let sandbox = Sandbox::new();
    let go = sandbox.root().join("go");
    let command = command_line("mlx", &["quiet", "flood=20000000", &format!("bind-when={}", go.display())]);
    sandbox.configure("", &format!("{command}\nlog_max_size = \"1MB\"\nlog_keep = 2"));
    sandbox.fusion(["mlx", "up", "--no-wait"]).run().assert_code(0);
    let log = log_of(&sandbox, "mlx");
    let mut sizes = Vec::new();
    wait_until("the log is rotated, and the flood over", || {
        let size = fs::metadata(&log).unwrap().len();
        sizes.push(size);
        size <= 1_000_000 && sizes.ends_with(&[size; 5]) && part(&log, 1).exists()
    });
    File::create(go).unwrap();
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    let listening = format!("listening on 127.0.0.1:{}\n", sandbox.port("mlx"));
    sandbox.fusion(["mlx", "log", "-n", "1"]).run().assert_stdout(&listening);
    let shown = sandbox.fusion(["mlx", "log", "-n", "all"]).run().assert_code(0).stdout();
    assert!(shown.len() > 1_000_000 && shown.ends_with(&listening));
    assert!(!part(&log, 3).exists());
    stop(&sandbox, "mlx");
}

#[test]
fn up_replaces_a_dead_rotator() {
    let sandbox = Sandbox::new();
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    let instance = instance_of(&sandbox, "mlx");
    let rotators = || rotator::find(&UnixDriver::new(), &instance).unwrap();
    let [first] = rotators().try_into().unwrap();
    processes::kill(first.pid.as_raw());
    wait_until("it is dead", || rotators().is_empty());
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    let [second] = rotators().try_into().unwrap();
    // One that lives is left alone.
    sandbox.fusion(["mlx", "up"]).run().assert_code(0);
    assert_eq!(rotators(), [second]);
    stop(&sandbox, "mlx");
}

/// A process in place of a server, with a rotator beside it.
struct Server<'a> {
    sandbox: &'a Sandbox,
    process: Box<dyn Child>,
    rotator: LogRotator,
}

impl<'a> Server<'a> {
    /// Starts `script` as a server is started, and a rotator.
    fn shell(sandbox: &'a Sandbox, script: &str) -> Self {
        Self::start(sandbox, "/bin/sh", &["-c", script])
    }

    /// Starts a process that runs until it is killed, and a rotator.
    fn idle(sandbox: &'a Sandbox) -> Self {
        Self::start(sandbox, fake_runtime(), &["ollama", "never-bind"])
    }

    fn start(sandbox: &'a Sandbox, program: &str, args: &[&str]) -> Self {
        let log = log_of(sandbox, "mlx");
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        let instance = String::from(InstanceId::random(&"0".repeat(16)).unwrap());
        let process = spawn(
            sandbox,
            ProcessSpec {
                program: program.into(),
                args: args.iter().map(Into::into).collect(),
                without: Vec::new(),
                home: None,
                env: Vec::new(),
                directory: sandbox.root().to_owned(),
                log: Some(log.clone()),
                instance: instance.clone(),
            },
        );
        let rotator = LogRotator { log, limits: SMALL, instance, leader: process.id().clone() };
        let program = Path::new(env!("CARGO_BIN_EXE_fusion"));
        spawn(sandbox, rotator.process(program, sandbox.root()));
        Self { sandbox, process, rotator }
    }

    fn rotators(&self) -> Vec<ProcessId> {
        rotator::find(&UnixDriver::new(), &self.rotator.instance).unwrap()
    }

    #[track_caller]
    fn wait_for_the_rotators_end(&self) {
        wait_until("the rotator has ended", || self.sandbox.processes().is_empty());
    }

    /// Kills what [`Self::idle`] started.
    fn kill(&self) {
        processes::kill(self.process.id().pid.as_raw());
    }

    fn text(&self) -> String {
        let mut reader = LogReader::open(&self.rotator.log, u64::MAX).unwrap().unwrap();
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
    UnixDriver::new().spawn(&spec).unwrap()
}

const SMALL: Limits = Limits { max_bytes: 1_000_000, keep: 3 };

#[test]
fn the_rotator_ends_with_the_server() {
    let sandbox = Sandbox::new();
    let server = Server::shell(&sandbox, "echo started; until [ -e go ]; do sleep 0.01; done; echo ended");
    wait_until("the rotator runs", || server.rotators().len() == 1);
    File::create(sandbox.root().join("go")).unwrap();
    server.wait_for_the_rotators_end();
    assert_eq!(server.text(), "started\nended\n");
}

#[test]
fn the_rotator_outlives_the_leader_while_children_write() {
    let sandbox = Sandbox::new();
    let child = format!("until [ -e go ]; do sleep 0.01; done; {}", flood(30_000));
    let server = Server::shell(&sandbox, &format!("({child}) & echo leader ended"));
    wait_until("the leader has ended", || server.process.try_wait().unwrap().is_some());
    File::create(sandbox.root().join("go")).unwrap();
    wait_until("the log is rotated", || part(&server.rotator.log, 1).exists());
    wait_until("the child has written", || sandbox.root().join("done").exists());
    File::create(sandbox.root().join("stop")).unwrap();
    server.wait_for_the_rotators_end();
}

/// Its first process ends, and nothing proves that the one that goes on is a process of the service, but that it writes
/// to the log.
#[test]
fn the_rotator_follows_a_server_into_the_background() {
    for_each_service(&["fork-away", "lingers=300", "quiet"], |sandbox, service| {
        add_key(sandbox, "log_max_size = \"1KB\"");
        sandbox.fusion([service, "up"]).run().assert_code(0);
        let rotators = || rotator::find(&UnixDriver::new(), &instance_of(sandbox, service)).unwrap();
        let [rotator] = rotators().try_into().unwrap();
        wait_until("only the server and the rotator are left", || sandbox.processes().len() == 2);
        let log = log_of(sandbox, service);
        for _ in 0..3 {
            print(sandbox, service, &numbered_lines(0..200));
            wait_until("the log is rotated", || fs::metadata(&log).unwrap().len() == 0);
        }
        assert!(part(&log, 3).exists());
        assert_eq!(rotators(), [rotator], "it is the one of the start");
        sandbox.fusion([service, "down"]).run().assert_code(0);
        sandbox.assert_nothing_runs();
    });
}

fn instance_of(sandbox: &Sandbox, service: &str) -> String {
    sandbox.record(service).unwrap()["instance"].as_str().unwrap().to_owned()
}

#[test]
fn stop_leaves_no_rotator() {
    let sandbox = Sandbox::new();
    let server = Server::idle(&sandbox);
    // The environment of a process cannot be read at once when it is started.
    wait_until("both run", || sandbox.processes().len() == 2);
    let stop = || rotator::stop(&UnixDriver::new(), &server.rotator.log, &server.rotators()).unwrap();
    stop();
    assert_eq!(sandbox.processes(), [server.process.id().pid.as_raw()]);
    stop();
    assert_eq!(UnixDriver::new().liveness(server.process.id()).unwrap(), Liveness::Alive);
    server.kill();
    sandbox.assert_nothing_runs();
}

#[test]
fn the_rotator_is_no_member_of_the_instance() {
    let sandbox = Sandbox::new();
    let server = Server::idle(&sandbox);
    wait_until("the rotator runs", || server.rotators().len() == 1);
    let instance = Instance { id: &server.rotator.instance, leader: Some(&server.rotator.leader) };
    let members = || UnixDriver::new().members(instance).unwrap();
    assert_eq!(members(), std::slice::from_ref(&server.rotator.leader));
    server.kill();
    wait_until("the server has ended", || server.process.try_wait().unwrap().is_some());
    assert_eq!(members(), []);
    server.wait_for_the_rotators_end();
}

/// Writes as fast as it can, and marks its end by a file.
fn flood(lines: u32) -> String {
    format!(
        "awk 'BEGIN {{ for (i = 0; i < {lines}; i++) printf \"line %089d\\n\", i }}'; : > done; \
         while [ ! -e stop ]; do sleep 0.01; done"
    )
}

#[test]
fn a_flood_stays_within_the_limits() {
    let sandbox = Sandbox::new();
    let server = Server::shell(&sandbox, &flood(1_000_000));
    let log = &server.rotator.log;
    let done = sandbox.root().join("done");
    wait_until("the flood is over", || done.exists());
    wait_until("the log is within its limit", || fs::metadata(log).unwrap().len() <= SMALL.max_bytes);
    assert!(part(log, 1).exists() && !part(log, 4).exists());
    let files = (1..=3).rev().map(|number| part(log, number)).filter(|part| part.exists());
    let texts: Vec<String> =
        files.chain([log.clone()]).map(|file| fs::read_to_string(file).unwrap()).collect();
    assert!(texts.concat().len() < 60_000_000, "of 95,000,000 bytes");
    // Only between two files may lines be missing.
    for text in texts {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let whole = lines.iter().skip(1).filter(|line| line.ends_with('\n'));
        let numbers: Vec<u32> = whole.map(|line| line[5..].trim_end().parse().unwrap()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    }
    File::create(sandbox.root().join("stop")).unwrap();
    server.wait_for_the_rotators_end();
}

fn part(log: &Path, number: u32) -> PathBuf {
    format!("{}.{number}", log.display()).into()
}
