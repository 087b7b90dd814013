//! What `ps` asks about a running service must not cost more on a machine with many other processes.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::facts::{Inspect, Process, Resources, descendants};
use super::{HolderSearch, identify, listener, usage};
use crate::core::address::Address;
use crate::core::parallel;
use crate::core::pid::Pid;
use crate::core::process::driver::{Instance, Listener, ProcessError};
use crate::core::process::host::Host;
use crate::core::process::socket::{ListeningSockets, Socket};

const LEADER: i32 = 100;
const CHILD: i32 = 101;
const PORT: u16 = 8080;

/// A machine that counts the processes that are inspected.
struct Counting {
    processes: Vec<Process>,
    inspected: AtomicUsize,
    /// How often a process was asked for its sockets.
    asked: AtomicUsize,
    /// The processes that hold a socket each: the first one at [`PORT`], the next ones at the ports after it.
    holders: Vec<i32>,
    /// Whether this user may know them.
    tells_holders: bool,
    /// Processes with smaller PIDs are unlikely to hold one, and those with larger ones than the second.
    likely: [i32; 2],
    /// How often a process was ranked.
    ranked: AtomicUsize,
}

impl Counting {
    fn with_others(count: i32) -> Self {
        let process = |pid, parent, session| Process { pid, start_time: 5, parent, session, zombie: false };
        let ours = [process(LEADER, 1, LEADER), process(CHILD, LEADER, LEADER)];
        // A search through all processes meets the others first.
        let others = (0..count).map(|number| process(1000 + number, 1, 1000 + number));
        let processes = others.chain(ours).collect();
        let (inspected, asked, ranked) = Default::default();
        let (holders, likely) = (vec![CHILD], [0, i32::MAX]);
        Self { processes, inspected, asked, holders, tells_holders: true, likely, ranked }
    }

    fn count(&self, processes: usize) {
        self.inspected.fetch_add(processes, Ordering::Relaxed);
    }
}

impl Inspect for Counting {
    fn host(&self) -> Result<Host, ProcessError> {
        let boot_id = "boot".to_owned();
        Ok(Host { boot_id, pid_namespace: None, machine_id: None, name: String::new() })
    }

    fn process(&self, pid: i32) -> Result<Option<Process>, ProcessError> {
        self.count(1);
        Ok(self.processes.iter().find(|process| process.pid == pid).cloned())
    }

    fn processes(&self) -> Result<Vec<Process>, ProcessError> {
        self.count(self.processes.len());
        Ok(self.processes.clone())
    }

    fn descendants(&self, pid: i32) -> Vec<i32> {
        let children = |parent| {
            let children = self.processes.iter().filter(|process| process.parent == parent);
            children.map(|process| process.pid).collect()
        };
        let found = descendants(pid, children);
        self.count(found.len());
        found
    }

    fn instance(&self, _pid: i32) -> Option<String> {
        self.count(1);
        None
    }

    fn resources(&self, pid: i32) -> Option<(Process, Resources)> {
        Some((self.process(pid).ok()??, Resources::default()))
    }

    fn age(&self, _process: &Process) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }

    fn program(&self, _pid: i32) -> Option<String> {
        self.count(1);
        None
    }

    fn listening(&self, port: Option<u16>) -> Result<Vec<Socket>, ProcessError> {
        let address = Ipv4Addr::LOCALHOST.into();
        let socket = |port| Socket { port, address, only_v6: false, user: None, id: u64::from(port) };
        let sockets = (PORT..).take(self.holders.len()).map(socket);
        Ok(sockets.filter(|socket| port.is_none_or(|port| port == socket.port)).collect())
    }

    fn can_find_holder(&self, _socket: &Socket) -> bool {
        self.tells_holders
    }

    fn holder_rank(&self, pid: i32, _sockets: &[Socket]) -> usize {
        self.ranked.fetch_add(1, Ordering::Relaxed);
        usize::from(pid < self.likely[0] || pid > self.likely[1])
    }

    fn sockets_of(&self, pid: i32, sockets: &[u64]) -> Vec<u64> {
        self.count(1);
        self.asked.fetch_add(1, Ordering::Relaxed);
        let held = (u64::from(PORT)..).zip(&self.holders).filter(|(_, holder)| **holder == pid);
        held.map(|(id, _)| id).filter(|id| sockets.contains(id)).collect()
    }
}

fn list(machine: &Counting, ports: &[u16]) -> ListeningSockets {
    let sockets = machine.listening(None).unwrap();
    let searched = sockets.iter().filter(|socket| ports.contains(&socket.port)).cloned();
    ListeningSockets { ports: ports.to_vec(), search: HolderSearch::of(machine, searched), sockets }
}

fn listener_at(machine: &Counting, list: Option<&ListeningSockets>, port: u16) -> Listener {
    listener(machine, list, &Address { host: "127.0.0.1".to_owned(), port }, None).unwrap()
}

fn server(pid: i32) -> Listener {
    Listener::Other { pid: Pid::try_from(i64::from(pid)).unwrap(), program: None }
}

/// Returns how many processes were inspected for all that `ps` reports.
fn inspected(others: i32) -> usize {
    let machine = Counting::with_others(others);
    let pid = Pid::try_from(i64::from(LEADER)).unwrap();
    let leader = identify(&machine, pid).unwrap().unwrap();
    let instance = Instance { id: "ours", leader: Some(&leader) };
    let at = |port| {
        listener(&machine, None, &Address { host: "127.0.0.1".to_owned(), port }, Some(instance)).unwrap()
    };
    assert_eq!(at(PORT), Listener::Ours { pid: Pid::try_from(i64::from(CHILD)).unwrap() });
    assert_eq!(at(PORT + 1), Listener::None);
    assert!(usage(&machine, &leader).is_some());
    machine.inspected.into_inner()
}

/// Beside a thousand processes, to ask all takes longer than everything else that `ps` does.
#[test]
fn first_and_last_started_servers_are_soon_found() {
    for child in [50, 999_999] {
        let mut machine = Counting::with_others(1000);
        machine.processes.retain(|process| process.pid != CHILD);
        let process = Process { pid: child, start_time: 5, parent: 1, session: child, zombie: false };
        machine.processes.insert(if child == 50 { 0 } else { 1001 }, process);
        machine.holders = vec![child];
        assert_eq!(listener_at(&machine, None, PORT), server(child));
        let asked = machine.asked.into_inner();
        assert!(asked <= 5, "{asked}");
    }
}

/// Such as the threads of the kernel, which are the oldest, and a thousand processes without a socket, the newest.
#[test]
fn unlikely_processes_do_not_delay_the_search() {
    for (likely, holder) in [([1100, i32::MAX], 1100), ([0, 1010], 1005)] {
        let mut machine = Counting::with_others(1000);
        // Without the leader and its child, which come last.
        machine.processes.retain(|process| process.pid >= 1000);
        machine.holders = vec![holder];
        machine.likely = likely;
        assert_eq!(listener_at(&machine, None, PORT), server(holder));
        let (asked, ranked) = (machine.asked.into_inner(), machine.ranked.into_inner());
        assert!(asked <= 16 && ranked <= 220, "{asked} asked, {ranked} ranked");
    }
}

/// Beside two servers that fusion did not start, too, each process is asked once.
#[test]
fn one_search_finds_all_servers() {
    let mut machine = Counting::with_others(1000);
    machine.holders = vec![1500, 1501];
    let list = list(&machine, &[PORT, PORT + 1]);
    let found = |port| listener_at(&machine, Some(&list), port);
    assert_eq!((found(PORT), found(PORT + 1)), (server(1500), server(1501)));
    let asked = machine.asked.load(Ordering::Relaxed);
    // Of each server, its parent is asked, too.
    assert!(asked <= machine.processes.len() + 2, "{asked}");
    // The server is asked once more, and its parent; no other is left.
    assert_eq!(found(PORT), server(1500));
    assert_eq!(machine.asked.into_inner(), asked + 2);
}

/// As of a server that puts itself into the background.
#[test]
fn a_holder_that_has_ended_is_replaced() {
    let mut machine = Counting::with_others(10);
    machine.holders = vec![1000, 1001, 1002];
    let list = list(&machine, &[PORT, PORT + 1, PORT + 2]);
    assert_eq!(listener_at(&machine, Some(&list), PORT + 2), server(1002));
    machine.holders = vec![1005, 1001, 1002];
    assert_eq!(listener_at(&machine, Some(&list), PORT), server(1005));
    machine.processes.retain(|process| process.pid != 1001);
    machine.holders = vec![1005, 1007, 1002];
    assert_eq!(listener_at(&machine, Some(&list), PORT + 1), server(1007));
}

/// The threads share the work.
#[test]
fn searches_at_once_find_all_servers() {
    for _ in 0..50 {
        let mut machine = Counting::with_others(30);
        machine.holders = vec![1010, 1020, 1029];
        let ports = [PORT, PORT + 1, PORT + 2];
        let list = list(&machine, &ports);
        let found = parallel::each(&ports, |_| false, |port| listener_at(&machine, Some(&list), *port));
        assert_eq!(found, [1010, 1020, 1029].map(server));
    }
}

#[test]
fn other_ports_are_searched_without_the_list() {
    let machine = Counting::with_others(10);
    assert_eq!(listener_at(&machine, Some(&list(&machine, &[PORT + 1])), PORT), server(CHILD));
}

/// Among tens of thousands of processes, the state of a server is told without its process.
#[test]
fn a_search_ends_in_time() {
    let machine = Counting::with_others(1000);
    let mut list = list(&machine, &[PORT]);
    list.search = list.search.within(Duration::ZERO);
    assert_eq!(listener_at(&machine, Some(&list), PORT), Listener::Unknown);
    assert_eq!(machine.asked.into_inner(), 0);
}

/// An Ollama that the system runs is that of another user.
#[test]
fn sockets_of_other_users_are_not_searched() {
    let machine = Counting { tells_holders: false, ..Counting::with_others(1000) };
    for list in [None, Some(&list(&machine, &[PORT]))] {
        assert_eq!(listener_at(&machine, list, PORT), Listener::Unknown);
    }
    assert_eq!(machine.asked.into_inner(), 0);
}

#[test]
fn ps_inspects_no_other_process() {
    assert_eq!(inspected(1000), inspected(0));
}
