//! The listener on an address: which sockets get its connections, and which processes hold them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use super::facts::Inspect;
use super::members::KnownInstance;
use super::search::HolderSearch;
use crate::core::address::Address;
use crate::core::pid::Pid;
use crate::core::process::driver::{Instance, Listener, ProcessError};
use crate::core::process::socket::{ListeningSockets, Socket};

/// How often the sockets are listed, if they change during the search for their holder.
const ATTEMPTS: usize = 3;

/// How many processes between a worker and its server hold the server's socket at most.
const MAX_PARENTS: usize = 8;

/// See [`ProcessDriver::listener`](crate::core::process::ProcessDriver::listener). Begins with the search of `list`, if
/// there is one.
pub(in crate::core::process) fn listener(
    inspect: &dyn Inspect,
    list: Option<&ListeningSockets>,
    address: &Address,
    ours: Option<Instance<'_>>,
) -> Result<Listener, ProcessError> {
    let targets = resolve(address)?;
    let mut open = Vec::new();
    if let Some(list) = list.filter(|list| list.ports.contains(&address.port)) {
        open = reached(&list.sockets, address.port, &targets);
        match holder(inspect, &open, &list.search, ours)? {
            Listener::Unknown if list.search.has_timed_out() => return Ok(Listener::Unknown),
            // What others found may have ended since.
            Listener::Unknown => open.retain(|socket| !inspect.can_find_holder(socket)),
            found => return Ok(found),
        }
    }
    for _ in 0..ATTEMPTS {
        // The holder may have ended during the search.
        let now = reached(&inspect.listening(Some(address.port))?, address.port, &targets);
        let is_same = now == open;
        open = now;
        if is_same || open.is_empty() {
            break;
        }
        let search = HolderSearch::of(inspect, open.iter().cloned());
        match holder(inspect, &open, &search, ours)? {
            Listener::Unknown => {}
            found => return Ok(found),
        }
    }
    let accepts = |target: &IpAddr| inspect.accepts(SocketAddr::new(*target, address.port));
    Ok(if open.is_empty() && !targets.iter().any(accepts) { Listener::None } else { Listener::Unknown })
}

/// See [`ProcessDriver::own_listener`](crate::core::process::ProcessDriver::own_listener).
pub(in crate::core::process) fn own_listener(
    inspect: &dyn Inspect,
    ListeningSockets { sockets, .. }: &ListeningSockets,
    address: &Address,
    leader: Pid,
) -> Option<Pid> {
    let mut left = ids(&reached(sockets, address.port, &resolve(address).ok()?));
    let pid = near_holder(inspect, Some(leader.as_raw()), &mut left);
    pid.and_then(checked).filter(|_| left.is_empty())
}

/// See [`ProcessDriver::background_listener`](crate::core::process::ProcessDriver::background_listener).
pub(in crate::core::process) fn background_listener(
    inspect: &dyn Inspect,
    address: &Address,
    first: Pid,
) -> Option<Pid> {
    let is_away = |pid: &i32| {
        let process = inspect.process(*pid).ok().flatten();
        process.is_some_and(|process| process.session != first.as_raw() && !process.zombie)
    };
    let away: Vec<i32> = inspect.descendants(first.as_raw()).into_iter().skip(1).filter(is_away).collect();
    if away.is_empty() {
        return None;
    }
    let listening = inspect.listening(Some(address.port)).ok()?;
    let sockets = ids(&reached(&listening, address.port, &resolve(address).ok()?));
    away.into_iter().find(|pid| !inspect.sockets_of(*pid, &sockets).is_empty()).and_then(checked)
}

/// Returns the process that holds one of the sockets; `Unknown` if none is found.
fn holder(
    inspect: &dyn Inspect,
    sockets: &[Socket],
    search: &HolderSearch,
    ours: Option<Instance<'_>>,
) -> Result<Listener, ProcessError> {
    let sockets = ids(sockets);
    let mut left = sockets.clone();
    let known = ours.map(|instance| KnownInstance::of(inspect, instance)).transpose()?;
    let leader = known.as_ref().and_then(KnownInstance::leader);
    let mut our_pid = near_holder(inspect, leader, &mut left);
    let mut everyone = Vec::new();
    while !left.is_empty()
        && let Some((pid, held)) = search.holder(inspect, &left)?
    {
        if known.is_some() && everyone.is_empty() {
            everyone = inspect.processes()?;
        }
        if known.as_ref().is_some_and(|known| known.has(inspect, pid, &everyone)) {
            our_pid = our_pid.or(Some(pid));
            left.retain(|id| !held.contains(id));
            continue;
        }
        let first = first_holder(inspect, pid, &sockets);
        // A process that is being started has the sockets of its parent for a moment, and may have ended since.
        if inspect.process(first)?.is_none_or(|process| process.zombie) {
            search.forget(pid);
            continue;
        }
        return Ok(match checked(first) {
            Some(pid) => Listener::Other { pid, program: inspect.program(pid.as_raw()) },
            None => Listener::Unknown,
        });
    }
    Ok(match our_pid.and_then(checked) {
        Some(pid) if left.is_empty() => Listener::Ours { pid },
        _ => Listener::Unknown,
    })
}

/// Returns the nearest ancestor of a holder that has no parent which holds one of the sockets, too: the server of which
/// the others are workers.
fn first_holder(inspect: &dyn Inspect, holder: i32, sockets: &[u64]) -> i32 {
    let parent = |pid: i32| Some(inspect.process(pid).ok()??.parent);
    let mut first = holder;
    for _ in 0..MAX_PARENTS {
        match parent(first).filter(|parent| *parent > 0 && !inspect.sockets_of(*parent, sockets).is_empty()) {
            Some(parent) => first = parent,
            None => break,
        }
    }
    first
}

/// Returns the leader, or its first descendant, that holds one of the sockets. Takes those that they hold from `left`.
fn near_holder(inspect: &dyn Inspect, leader: Option<i32>, left: &mut Vec<u64>) -> Option<i32> {
    let mut holder = leader.filter(|leader| holds_one_of(inspect, *leader, left));
    // Most leaders hold all sockets themselves.
    let near = leader.filter(|_| !left.is_empty()).map(|leader| inspect.descendants(leader));
    for pid in near.unwrap_or_default().into_iter().skip(1) {
        if holds_one_of(inspect, pid, left) {
            holder = holder.or(Some(pid));
        }
    }
    holder
}

/// Returns whether the process holds one of the sockets, and takes those from `left`. A socket is shared by all processes
/// that inherited it: one that ours holds is ours, even if others hold it too.
fn holds_one_of(inspect: &dyn Inspect, pid: i32, left: &mut Vec<u64>) -> bool {
    let held = if left.is_empty() { Vec::new() } else { inspect.sockets_of(pid, left) };
    left.retain(|id| !held.contains(id));
    !held.is_empty()
}

/// The first process (PID 1, as in a container) has no checked PID, so it stays unnamed.
fn checked(pid: i32) -> Option<Pid> {
    Pid::try_from(i64::from(pid)).ok()
}

/// Returns the IP addresses to which a client of `address` may connect.
fn resolve(address: &Address) -> Result<Vec<IpAddr>, ProcessError> {
    if let Ok(ip) = address.host.parse::<IpAddr>() {
        return Ok(vec![ip]);
    }
    if address.host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let found = (address.host.as_str(), address.port).to_socket_addrs();
    let found = found.map_err(|source| ProcessError::Resolve { host: address.host.clone(), source })?;
    Ok(found.map(|socket| socket.ip()).collect())
}

/// Returns the sockets on the port that get the connections to the targets, or that keep a server from binding one of
/// them.
fn reached(sockets: &[Socket], port: u16, targets: &[IpAddr]) -> Vec<Socket> {
    let on_port: Vec<Socket> = sockets.iter().filter(|socket| socket.port == port).cloned().collect();
    targets.iter().flat_map(|target| reached_at(&on_port, *target)).cloned().collect()
}

fn ids(sockets: &[Socket]) -> Vec<u64> {
    sockets.iter().map(|socket| socket.id).collect()
}

fn reached_at(sockets: &[Socket], target: IpAddr) -> Vec<&Socket> {
    let chosen = |choose: &dyn Fn(&Socket) -> bool| -> Vec<&Socket> {
        sockets.iter().filter(|socket| choose(socket)).collect()
    };
    let target = target.to_canonical();
    if target.is_unspecified() {
        // A wildcard address conflicts with every address of its family.
        return chosen(&|socket| target.is_ipv6() || serves_v4(socket));
    }
    // The kernel prefers a socket that is bound to the exact address.
    let exact = chosen(&|socket| socket.address.to_canonical() == target);
    if !exact.is_empty() {
        return exact;
    }
    let own_family =
        chosen(&|socket| socket.address.is_unspecified() && socket.address.is_ipv4() == target.is_ipv4());
    if !own_family.is_empty() || target.is_ipv6() {
        return own_family;
    }
    chosen(&|socket| socket.address == IpAddr::from(Ipv6Addr::UNSPECIFIED) && !socket.only_v6)
}

fn serves_v4(socket: &Socket) -> bool {
    socket.address.to_canonical().is_ipv4() || (socket.address.is_unspecified() && !socket.only_v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u64; 0] = [];

    /// Returns the numbers of the `sockets` that a connection to `target` reaches.
    fn at(sockets: &[&str], target: &str) -> Vec<u64> {
        let read = |(index, text): (usize, &&str)| {
            let (address, only_v6) =
                text.strip_suffix(" only").map_or((*text, false), |address| (address, true));
            Socket { port: 0, address: address.parse().unwrap(), only_v6, user: None, id: index as u64 }
        };
        let sockets: Vec<Socket> = sockets.iter().enumerate().map(read).collect();
        let mut found: Vec<u64> = ids(&reached(&sockets, 0, &[target.parse().unwrap()]));
        found.sort_unstable();
        found
    }

    #[test]
    fn an_exact_address_wins_over_a_wildcard() {
        assert_eq!(at(&["0.0.0.0", "127.0.0.1", "::"], "127.0.0.1"), [1]);
        assert_eq!(at(&["0.0.0.0", "127.0.0.1", "::"], "127.0.0.2"), [0]);
        assert_eq!(at(&["0.0.0.0", "::", "::1"], "::1"), [2]);
        assert_eq!(at(&["0.0.0.0", "::", "::1"], "::2"), [1]);
    }

    #[test]
    fn an_ipv6_wildcard_serves_ipv4_unless_told_otherwise() {
        assert_eq!(at(&["::"], "127.0.0.1"), [0]);
        assert_eq!(at(&[":: only"], "127.0.0.1"), NONE);
        assert_eq!(at(&[":: only"], "::1"), [0]);
        assert_eq!(at(&["0.0.0.0"], "::1"), NONE);
        assert_eq!(at(&["0.0.0.0", "::"], "127.0.0.1"), [0]);
    }

    #[test]
    fn an_ipv4_address_matches_its_ipv6_form() {
        assert_eq!(at(&["::ffff:127.0.0.1"], "127.0.0.1"), [0]);
        assert_eq!(at(&["127.0.0.1"], "::ffff:127.0.0.1"), [0]);
    }

    #[test]
    fn another_address_is_not_reached() {
        assert_eq!(at(&["127.0.0.1", "::1"], "127.0.0.2"), NONE);
        assert_eq!(at(&[], "127.0.0.1"), NONE);
    }

    #[test]
    fn a_wildcard_conflicts_with_its_whole_family() {
        assert_eq!(at(&["127.0.0.1", "::1", ":: only", "::"], "0.0.0.0"), [0, 3]);
        assert_eq!(at(&["127.0.0.1", "::1", ":: only", "::"], "::"), [0, 1, 2, 3]);
    }

    #[test]
    fn all_sockets_of_an_address_are_reached() {
        assert_eq!(at(&["127.0.0.1", "127.0.0.1"], "127.0.0.1"), [0, 1]);
    }
}
