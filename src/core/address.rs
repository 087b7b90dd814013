//! Where a server listens: what counts as a host, and when two addresses are one.

use std::fmt;
use std::net::IpAddr;

/// Where a server listens: a host name or IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Address {
    /// A host name or an IP address, IPv6 without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl Address {
    /// The address to connect to: a server bound to every interface is reached by loopback.
    #[must_use]
    pub fn dial(&self) -> Self {
        let host = match self.host.as_str() {
            "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            other => other,
        };
        Self { host: host.to_owned(), port: self.port }
    }

    /// The base of every URL, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.dial())
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        is_localhost(&self.host) || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether two servers cannot both listen there, or a client would not know whom it reaches: the same port, and
    /// hosts that are the same, or of which one stands for the other (`localhost`, every interface).
    pub fn collides_with(&self, other: &Self) -> bool {
        self.port == other.port && hosts_collide(&self.host, &other.host)
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

/// Whether the text is a host alone: an IP address (IPv6 without brackets) or a host name, without scheme, port or
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
    // A name whose last label is a number is a mistyped IP address, and resolvers guess what it means.
    let last_is_number =
        text.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= 253 && !last_is_number && text.split('.').all(is_label)
}

fn is_localhost(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
}

fn hosts_collide(one: &str, other: &str) -> bool {
    let (Some(one_ip), Some(other_ip)) = (ip(one), ip(other)) else {
        return one.eq_ignore_ascii_case(other)
            || (is_localhost(one) && is_local_for(other))
            || (is_localhost(other) && is_local_for(one));
    };
    let covers = |wide: IpAddr, narrow: IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4()) // `::` takes IPv4 connections too.
    };
    one_ip == other_ip || covers(one_ip, other_ip) || covers(other_ip, one_ip)
}

/// Whether a server at `host` is (also) where `localhost` leads.
fn is_local_for(host: &str) -> bool {
    let first_of_loopback =
        |ip: IpAddr| ip.is_unspecified() || matches!(ip.to_string().as_str(), "127.0.0.1" | "::1");
    ip(host).is_some_and(first_of_loopback)
}

/// The IP address that the host is written as, IPv4 also in its IPv6 form.
fn ip(host: &str) -> Option<IpAddr> {
    host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_ip_address_alone() {
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
    fn addresses_collide_when_a_client_could_not_tell_them_apart() {
        let collide = |one: &str, other: &str| {
            let address = |host: &str| Address { host: host.to_owned(), port: 1 };
            let result = address(one).collides_with(&address(other));
            assert_eq!(result, address(other).collides_with(&address(one)), "{one} {other}");
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
            assert!(collide(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("127.0.0.1", "::1"),
            ("127.0.0.1", "127.0.0.2"),
            ("::1", "0.0.0.0"),
            ("localhost", "127.0.0.2"),
            ("localhost", "gpu.local"),
            ("gpu.local", "0.0.0.0"),
        ] {
            assert!(!collide(one, other), "{one} {other}");
        }
    }

    #[test]
    fn different_ports_never_collide() {
        let one = Address { host: "127.0.0.1".to_owned(), port: 1 };
        let other = Address { host: "127.0.0.1".to_owned(), port: 2 };
        assert!(!one.collides_with(&other));
    }
}
