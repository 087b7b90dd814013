//! Both implementations of [`Inspect`] against real processes.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv6Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::like_macos::LikeMacos;
use super::linux::Linux;

use super::{Inspect, identify, listener, members, usage};
use crate::core::address::Address;
use crate::core::process::driver::{Child, Instance, Listener, ProcessDriver, ProcessSpec, StopSignal};
use crate::core::process::host::Host;
use crate::core::process::id::ProcessId;
use crate::core::process::unix::UnixDriver;

const IMPLEMENTATIONS: [(&str, &dyn Inspect); 2] = [("linux", &Linux), ("like macOS", &LikeMacos)];

/// A shell that the driver started. It and all of its instance are killed at the end.
struct Shell {
    driver: UnixDriver,
    child: Box<dyn Child>,
    instance: String,
}

impl Shell {
    fn run(script: &str) -> Self {
        Self::of("/bin/sh", script)
    }

    fn of(program: impl Into<PathBuf>, script: &str) -> Self {
        let instance = format!("{script}-{:?}-{:?}", Instant::now(), std::thread::current().id());
        let spec = ProcessSpec {
            program: program.into(),
            args: vec![OsString::from("-c"), OsString::from(script)],
            without: Vec::new(),
            home: None,
            env: Vec::new(),
            directory: PathBuf::from("/"),
            log: None,
            instance: instance.clone(),
        };
        let driver = UnixDriver::new();
        let child = driver.spawn(&spec).expect("a shell starts");
        Self { driver, child, instance }
    }

    fn pid(&self) -> i32 {
        self.child.id().pid.as_raw()
    }

    fn instance(&self) -> Instance<'_> {
        Instance { id: &self.instance, leader: Some(self.child.id()) }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        until("the instance is gone", || {
            let members = self.driver.members(self.instance()).expect("members are found");
            for member in &members {
                self.driver.signal(member, StopSignal::Kill).expect("members can be killed");
            }
            members.is_empty() && self.child.try_wait().expect("a child can be waited for").is_some()
        });
    }
}

fn until(what: &str, condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    let mut condition = condition;
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(20), "timeout: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

#[test]
fn this_process_is_described() {
    for (name, inspect) in IMPLEMENTATIONS {
        let own = inspect.process(own_pid()).unwrap().expect(name);
        assert_eq!(own.pid, own_pid(), "{name}");
        assert_eq!(own.parent, nix::unistd::getppid().as_raw(), "{name}");
        assert_eq!(own.session, nix::unistd::getsid(None).unwrap().as_raw(), "{name}");
        assert!(!own.zombie, "{name}");
        assert!(inspect.processes().unwrap().iter().any(|process| process.pid == own_pid()), "{name}");
    }
}

#[test]
fn an_identity_stays_the_same() {
    let shell = Shell::run("sleep 1000; :");
    for (name, inspect) in IMPLEMENTATIONS {
        let pid = shell.child.id().pid;
        let first = identify(inspect, pid).unwrap().expect(name);
        until("a second has passed", || {
            inspect.age(&inspect.process(pid.as_raw()).unwrap().unwrap()) > Some(Duration::from_secs(1))
        });
        assert_eq!(identify(inspect, pid).unwrap(), Some(first), "{name}");
        assert!(!inspect.host().unwrap().boot_id.is_empty(), "{name}");
    }
    assert_eq!(identify(&Linux, shell.child.id().pid).unwrap().as_ref(), Some(shell.child.id()));
}

#[test]
fn a_zombie_has_ended() {
    // Its driver is not asked anything, so it stays a zombie.
    let shell = Shell::run("exit 0");
    for (name, inspect) in IMPLEMENTATIONS {
        until("it has ended", || identify(inspect, shell.child.id().pid).unwrap().is_none());
        assert!(inspect.process(shell.pid()).unwrap().is_none_or(|process| process.zombie), "{name}");
    }
    // A driver that sees no zombie has asked for its end at once.
    if cfg!(not(feature = "like-macos")) {
        assert!(Linux.process(shell.pid()).unwrap().unwrap().zombie);
    }
}

#[test]
fn the_largest_number_is_no_process() {
    for (name, inspect) in IMPLEMENTATIONS {
        assert_eq!(inspect.process(i32::MAX).unwrap(), None, "{name}");
        assert_eq!(inspect.resources(i32::MAX), None, "{name}");
        assert_eq!(inspect.program(i32::MAX), None, "{name}");
        assert_eq!(inspect.instance(i32::MAX), None, "{name}");
    }
}

#[test]
fn an_instance_id_is_read_as_a_whole() {
    let shell = Shell::run("sleep 1000; :");
    let id = Some(shell.instance.clone());
    until("the environment is there", || Linux.instance(shell.pid()) == id);
    assert_ne!(Linux.instance(own_pid()), id);
    // As macOS hides it.
    assert_eq!(LikeMacos.instance(shell.pid()), None);
}

/// The kernel of macOS remembers which process started them.
#[test]
fn children_of_a_dead_leader_are_proven() {
    let shell = Shell::run("sleep 1000 & sleep 1000 & exit 0");
    until("the leader has ended", || shell.child.try_wait().unwrap().is_some());
    for (name, inspect) in IMPLEMENTATIONS {
        until(&format!("{name} finds two"), || members(inspect, shell.instance()).unwrap().len() == 2);
    }
}

/// The gateway is the parent of services that outlive it. macOS does not hide its environment, as that of `/bin/sh`.
#[test]
fn what_another_start_made_is_no_member() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = directory.path().join("gateway");
    // By another process: a program cannot be run while a process has it open for writing.
    let copied = std::process::Command::new("cp").arg("/bin/sh").arg(&gateway).status();
    assert!(copied.unwrap().success());
    for (name, inspect) in IMPLEMENTATIONS {
        let shell =
            Shell::of(&gateway, "FUSION_INSTANCE=other setsid sh -c 'sleep 1000 & wait' & sleep 1000; :");
        let of_other = || {
            let mut found = inspect.descendants(shell.pid());
            found.retain(|pid| Linux.instance(*pid).as_deref() == Some("other"));
            found
        };
        until("all have been started", || of_other().len() == 2);
        let others = of_other();
        let leader = identify(inspect, shell.child.id().pid).unwrap().expect(name);
        let instance = Instance { leader: Some(&leader), ..shell.instance() };
        let own = || members(inspect, instance).unwrap();
        // The memory of a process grows while it starts.
        let memory_of = |member: &ProcessId| {
            inspect.resources(member.pid.as_raw()).map_or(0, |(_, resources)| resources.memory_bytes)
        };
        until(&format!("{name} finds its own two"), || own().len() == 2);
        until(&format!("{name} counts the memory of its own"), || {
            let used = usage(inspect, &leader).unwrap().memory_bytes;
            used == own().iter().map(memory_of).sum::<u64>()
        });
        for pid in others {
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
}

#[test]
fn sessions_of_a_hardened_program_are_members() {
    let shell = Shell::run("setsid sleep 1000 & sleep 1000; :");
    for (name, inspect) in IMPLEMENTATIONS {
        until(&format!("{name} finds all"), || members(inspect, shell.instance()).unwrap().len() == 3);
    }
}

#[test]
fn descendants_are_found_down_to_the_last() {
    let shell = Shell::run("sh -c 'sleep 1000 & sleep 1000 & wait' & wait");
    for (name, inspect) in IMPLEMENTATIONS {
        until("all have been started", || inspect.descendants(shell.pid()).len() == 4);
        let found = inspect.descendants(shell.pid());
        assert_eq!(found[0], shell.pid(), "{name}");
        for pid in &found[1..] {
            let parent = inspect.process(*pid).unwrap().expect(name).parent;
            assert!(found.contains(&parent), "{name}");
        }
    }
}

#[test]
fn usage_counts_the_whole_tree() {
    let shell = Shell::run("while :; do :; done & while :; do :; done & wait");
    for (name, inspect) in IMPLEMENTATIONS {
        let identity = identify(inspect, shell.child.id().pid).unwrap().expect(name);
        let leader = || inspect.resources(shell.pid()).expect(name).1;
        // The leader sleeps; what grows is the children's.
        until("the children have worked", || {
            usage(inspect, &identity).expect(name).cpu_percent > 1.0
                && leader().cpu_time < Duration::from_millis(50)
        });
        let whole = usage(inspect, &identity).expect(name);
        assert!(whole.memory_bytes > leader().memory_bytes, "{name}");
        assert!(leader().memory_bytes > 4096, "{name}");
        assert!(whole.uptime < Duration::from_secs(60), "{name}: {:?}", whole.uptime);
    }
}

#[test]
fn a_replaced_process_has_no_usage() {
    let shell = Shell::run("sleep 1000; :");
    for (name, inspect) in IMPLEMENTATIONS {
        let now = identify(inspect, shell.child.id().pid).unwrap().expect(name);
        assert!(usage(inspect, &now).is_some(), "{name}");
        let older = ProcessId { start_time: now.start_time - 1, ..now.clone() };
        assert_eq!(usage(inspect, &older), None, "{name}");
        let other_boot = Host { boot_id: "another".to_owned(), ..now.host.clone() };
        assert_eq!(usage(inspect, &ProcessId { host: other_boot, ..now }), None, "{name}");
    }
}

#[test]
fn a_program_has_its_name() {
    let shell = Shell::run("exec sleep 1000");
    for (name, inspect) in IMPLEMENTATIONS {
        until(&format!("{name} sees sleep"), || inspect.program(shell.pid()).as_deref() == Some("sleep"));
    }
}

#[test]
fn members_are_found_without_a_leader() {
    let shell = Shell::run("sleep 1000 & sleep 1000 & wait");
    for (name, inspect) in IMPLEMENTATIONS {
        let leader = identify(inspect, shell.child.id().pid).unwrap();
        // Without a leader only the environment proves anything.
        let leaders = [leader.as_ref(), None].into_iter().take(if name == "linux" { 2 } else { 1 });
        for leader in leaders {
            let instance = Instance { id: &shell.instance, leader };
            until(&format!("{name} finds three"), || members(inspect, instance).unwrap().len() == 3);
        }
        let other = Instance { id: "another", leader: None };
        assert_eq!(members(inspect, other).unwrap(), [], "{name}");
    }
}

#[test]
fn members_without_environment_are_found() {
    let shell = Shell::run("env -i sleep 1000 & wait");
    for (name, inspect) in IMPLEMENTATIONS {
        let leader = identify(inspect, shell.child.id().pid).unwrap();
        let instance = Instance { id: &shell.instance, leader: leader.as_ref() };
        until(&format!("{name} finds two"), || members(inspect, instance).unwrap().len() == 2);
    }
}

/// Returns the implementations that can list sockets.
#[expect(clippy::print_stderr, reason = "a skipped check is reported")]
fn able_to_list_sockets() -> Vec<(&'static str, &'static dyn Inspect)> {
    let (able, unable): (Vec<_>, Vec<_>) =
        IMPLEMENTATIONS.into_iter().partition(|(_, inspect)| inspect.listening(Some(1)).is_ok());
    for (name, _) in unable {
        eprintln!("skipped: the listeners of {name}, because there is no lsof");
    }
    able
}

/// The sockets belong to this process, which is not part of the instance.
#[test]
fn each_address_has_its_listener() {
    let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = loopback.local_addr().unwrap().port();
    let wildcard = TcpListener::bind("0.0.0.0:0").unwrap();
    let wildcard_port = wildcard.local_addr().unwrap().port();
    for (name, inspect) in able_to_list_sockets() {
        let found = |host: &str, port| {
            let address = Address { host: host.to_owned(), port };
            match listener(inspect, None, &address, None).unwrap() {
                Listener::Other { pid, program } => {
                    assert_eq!(pid.as_raw(), own_pid(), "{name}");
                    assert!(program.is_some(), "{name}");
                    true
                }
                Listener::None => false,
                other => panic!("{name}: {other:?}"),
            }
        };
        assert!(found("127.0.0.1", port), "{name}");
        assert!(found("localhost", port), "{name}");
        assert!(found("0.0.0.0", port), "{name}");
        assert!(found("::ffff:127.0.0.1", port), "{name}");
        assert!(!found("127.0.0.2", port), "{name}");
        assert!(!found("::1", port), "{name}");
        assert!(found("127.0.0.1", wildcard_port), "{name}");
        assert!(found("127.0.0.2", wildcard_port), "{name}");
        assert!(!found("::1", wildcard_port), "{name}");
    }
}

/// The worker is asked first, because it has fewer descriptors.
#[test]
fn a_server_is_named_before_its_workers() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address { host: "127.0.0.1".to_owned(), port: socket.local_addr().unwrap().port() };
    let shared = OwnedFd::from(socket.try_clone().unwrap());
    let mut worker = Command::new("/bin/sh");
    worker.args(["-c", "exec 3<&0; echo ready; exec sleep 1000"]).stdin(shared).stdout(Stdio::piped());
    let mut worker = worker.spawn().unwrap();
    BufReader::new(worker.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let _many: Vec<File> = (0..100).map(|_| File::open("/dev/null").unwrap()).collect();
    let found = IMPLEMENTATIONS.map(|(_, inspect)| listener(inspect, None, &address, None).unwrap());
    worker.kill().unwrap();
    worker.wait().unwrap();
    for found in found {
        assert!(matches!(found, Listener::Other { pid, .. } if pid.as_raw() == own_pid()), "{found:?}");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped check is reported")]
fn an_ipv6_wildcard_serves_ipv4() {
    let Ok(listening) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) else {
        return eprintln!("skipped: an IPv6 wildcard, because there is no IPv6 here");
    };
    let port = listening.local_addr().unwrap().port();
    for (name, inspect) in able_to_list_sockets() {
        for host in ["::1", "127.0.0.1", "::", "0.0.0.0"] {
            let found = listener(inspect, None, &Address { host: host.to_owned(), port }, None).unwrap();
            assert!(matches!(found, Listener::Other { .. }), "{name} {host}: {found:?}");
        }
    }
}

#[test]
fn linux_reports_the_end_of_a_process() {
    const AN_HOUR: Duration = Duration::from_secs(3600);
    let shell = Shell::run("sleep 1000");
    Linux.sleep_until_exit(shell.pid(), Duration::from_millis(1)).unwrap();
    assert_eq!(shell.child.try_wait().unwrap(), None);
    std::thread::scope(|scope| {
        let pid = shell.pid();
        let sleeping = scope.spawn(move || Linux.sleep_until_exit(pid, AN_HOUR));
        shell.driver.signal(shell.child.id(), StopSignal::Kill).unwrap();
        sleeping.join().unwrap().unwrap();
    });
    until("it is reaped", || shell.child.try_wait().unwrap().is_some());
    Linux.sleep_until_exit(shell.pid(), AN_HOUR).unwrap();
}
