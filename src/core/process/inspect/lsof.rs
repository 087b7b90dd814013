//! The sockets that listen on a port, as `lsof` reports them.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::core::parallel::PendingValue;
use crate::core::process::socket::Socket;

/// Part of macOS, but not in every `PATH`.
const LSOF: &str = "/usr/sbin/lsof";

/// lsof can hang on dead network file systems.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the sockets that listen on a TCP port; without one, on any. The id of each is the PID of a process that holds
/// it. For users other than root, these are sockets of their own processes only.
pub(super) fn listening(port: Option<u16>) -> io::Result<Vec<Socket>> {
    Ok(read_lsof(&String::from_utf8_lossy(&lsof(port)?)))
}

/// Returns what lsof reports of the sockets that listen, in the format of its option `-F`.
fn lsof(port: Option<u16>) -> io::Result<Vec<u8>> {
    let ports = port.map_or_else(|| "-iTCP".to_owned(), |port| format!("-iTCP:{port}"));
    let mut child = Command::new(LSOF)
        .args(["-nP", &ports, "-sTCP:LISTEN", "-Fptn"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = child.stdout.take();
    let report = PendingValue::begin(move || {
        let mut report = Vec::new();
        stdout.map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut report)).map(|_| report)
    });
    let Some(report) = report.wait(TIMEOUT) else {
        child.kill()?;
        // A process that hangs in the kernel dies only when its system call returns. A thread waits for that:
        // no zombie is left.
        thread::Builder::new().spawn(move || child.wait())?;
        return Err(io::ErrorKind::TimedOut.into());
    };
    // Its exit code has no meaning here: it fails if it finds nothing.
    child.wait()?;
    report
}

/// Parses a report. Each line is a field that begins with a letter: `p` PID, then for each descriptor `f` number, `t`
/// IPv4 or IPv6, `n` name, such as `127.0.0.1:8080`, `[::1]:8080` or `*:8080`.
fn read_lsof(report: &str) -> Vec<Socket> {
    let (mut id, mut v6) = (None, false);
    let mut sockets = Vec::new();
    for line in report.lines() {
        if let Some(pid) = line.strip_prefix('p') {
            id = pid.parse().ok();
        } else if let Some(family) = line.strip_prefix('t') {
            v6 = family == "IPv6";
        } else if let Some(name) = line.strip_prefix('n')
            && let (Some(id), Some((address, port))) = (id, read_name(name, v6))
        {
            sockets.push(Socket { port, address, only_v6: false, user: None, id });
        }
    }
    sockets
}

fn read_name(name: &str, v6: bool) -> Option<(IpAddr, u16)> {
    let (host, port) = name.rsplit_once(':')?;
    let address = match host {
        "*" if v6 => Ipv6Addr::UNSPECIFIED.into(),
        "*" => Ipv4Addr::UNSPECIFIED.into(),
        // A link-local address is followed by its interface.
        host => host.trim_matches(['[', ']']).split('%').next()?.parse().ok()?,
    };
    Some((address, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The format is that of lsof(8).
    #[test]
    fn a_report_of_lsof_is_parsed() {
        let report = "p501\nf3\ntIPv4\nn127.0.0.1:8080\nf4\ntIPv6\nn[::1]:8081\np777\nf9\ntIPv6\nn*:8080\n\
                      p778\nf9\ntIPv4\nn*:8080\nf10\ntIPv6\nn[fe80::1%lo0]:8080\n";
        let found: Vec<String> = read_lsof(report)
            .into_iter()
            .map(|socket| format!("{} {} {}", socket.id, socket.address, socket.port))
            .collect();
        let expected =
            ["501 127.0.0.1 8080", "501 ::1 8081", "777 :: 8080", "778 0.0.0.0 8080", "778 fe80::1 8080"];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_empty_report_has_no_sockets() {
        assert_eq!(read_lsof(""), []);
        assert_eq!(read_lsof("n127.0.0.1:8080\n"), []);
    }

    proptest! {
        #[test]
        fn any_report_is_parsed_without_panic(report in "([ptn]?[^\n]{0,40}\n){0,8}") {
            let _ = read_lsof(&report);
        }
    }
}
