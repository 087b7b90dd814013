//! Addresses of servers: valid hosts, and conflicts between addresses.

use std::fmt;
use std::net::IpAddr;

/// The address of a server: a host and a port.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Address {
    /// A host name or an IP address, IPv6 without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl Address {
    /// Returns the address to which clients connect: loopback for a server that listens on all interfaces.
    #[must_use]
    pub fn dial(&self) -> Self {
        let host = match self.host.as_str() {
            "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            other => other,
        };
        Self { host: host.to_owned(), port: self.port }
    }

    /// Returns the base of every URL, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.dial())
    }

    /// Returns whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        is_localhost(&self.host) || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Returns whether two servers on these addresses would conflict: the port is the same, and so are the hosts, or
    /// one host includes the other (`localhost`, all interfaces).
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self.port == other.port && hosts_conflict(&self.host, &other.host)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// Returns whether the text is a host: an IP address (IPv6 without brackets) or a host name, without scheme, port or
/// path.
pub fn is_host(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // A name whose last label is a number is a mistyped IP address, which resolvers interpret in different ways.
    let last_is_number =
        text.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= 253 && !last_is_number && text.split('.').all(is_label)
}

fn is_localhost(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
}

fn hosts_conflict(one: &str, other: &str) -> bool {
    let (Some(one_ip), Some(other_ip)) = (ip(one), ip(other)) else {
        return one.eq_ignore_ascii_case(other)
            || (is_localhost(one) && is_local_for(other))
            || (is_localhost(other) && is_local_for(one));
    };
    let covers = |wide: IpAddr, narrow: IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4()) // `::` accepts IPv4 connections, too.
    };
    one_ip == other_ip || covers(one_ip, other_ip) || covers(other_ip, one_ip)
}

/// Returns whether `localhost` leads to a server at `host`.
fn is_local_for(host: &str) -> bool {
    let first_of_loopback =
        |ip: IpAddr| ip.is_unspecified() || matches!(ip.to_string().as_str(), "127.0.0.1" | "::1");
    ip(host).is_some_and(first_of_loopback)
}

/// Returns the host as an IP address, with IPv4 in IPv6 form as IPv4.
fn ip(host: &str) -> Option<IpAddr> {
    host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_name_or_ip_address() {
        for good in ["127.0.0.1", "::1", "::", "localhost", "gpu-box.local", "my_host", "a.b.c", "LOCALHOST"]
        {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "",
            " ",
            "http://localhost",
            "localhost/",
            "localhost:8080",
            "127.0.0.1:80",
            "[::1]",
            "a b",
            "a..b",
            ".a",
            "a.",
            "-a",
            "a-",
            "300.1.1.1",
            "127.1",
            "1",
            "user@host",
            "host?x",
            "host#x",
            "h\u{f6}st",
            "a\nb",
        ] {
            assert!(!is_host(bad), "{bad}");
        }
        assert!(!is_host(&"a".repeat(64)));
        assert!(!is_host(&"abc.".repeat(70)));
    }

    #[test]
    fn same_and_including_hosts_conflict() {
        let conflict = |one: &str, other: &str| {
            let address = |host: &str| Address { host: host.to_owned(), port: 1 };
            let result = address(one).conflicts_with(&address(other));
            assert_eq!(result, address(other).conflicts_with(&address(one)), "{one} {other}");
            result
        };
        for (one, other) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "0.0.0.0"),
            ("192.168.1.2", "0.0.0.0"),
            ("192.168.1.2", "::"),
            ("::1", "::"),
            ("0.0.0.0", "::"),
            ("localhost", "127.0.0.1"),
            ("localhost", "::1"),
            ("localhost", "0.0.0.0"),
            ("localhost", "LocalHost"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("gpu.local", "GPU.local"),
        ] {
            assert!(conflict(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("127.0.0.1", "::1"),
            ("127.0.0.1", "127.0.0.2"),
            ("::1", "0.0.0.0"),
            ("localhost", "127.0.0.2"),
            ("localhost", "gpu.local"),
            ("gpu.local", "0.0.0.0"),
        ] {
            assert!(!conflict(one, other), "{one} {other}");
        }
    }

    #[test]
    fn different_ports_do_not_conflict() {
        let one = Address { host: "127.0.0.1".to_owned(), port: 1 };
        let other = Address { host: "127.0.0.1".to_owned(), port: 2 };
        assert!(!one.conflicts_with(&other));
    }
}
