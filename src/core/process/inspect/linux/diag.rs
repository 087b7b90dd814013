//! The listening TCP sockets of this network namespace.
//!
//! They come from `NETLINK_SOCK_DIAG` (`sock_diag(7)`, `linux/inet_diag.h`), which walks only the few listening
//! sockets. `/proc/net/tcp` walks the table of all connections, which takes 10 ms even if it is empty; it is read
//! only where netlink is not allowed.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc::{AF_INET, AF_INET6, IPPROTO_TCP, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::core::process::driver::ProcessError;
use crate::core::process::socket::Socket;

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `TCP_LISTEN` of `linux/tcp_states.h`.
const TCP_LISTEN: u8 = 10;
/// `INET_DIAG_SKV6ONLY` of `linux/inet_diag.h`: whether an IPv6 socket refuses IPv4; sent for listening sockets.
const INET_DIAG_SKV6ONLY: u16 = 11;

/// The size of `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// The size of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// The size of `struct inet_diag_msg`.
const MESSAGE: usize = 72;

pub(super) fn listening(port: Option<u16>) -> Result<Vec<Socket>, ProcessError> {
    let asked = query(AF_INET, port).and_then(|mut sockets| {
        sockets.extend(query(AF_INET6, port)?);
        Ok(sockets)
    });
    let found = asked.or_else(|_| read_tables(port));
    found.map_err(|source| ProcessError::System { what: "list the listening sockets", source })
}

fn query(family: i32, port: Option<u16>) -> io::Result<Vec<Socket>> {
    let mut kernel = File::from(socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?);
    kernel.write_all(&request(family, port))?;
    let mut sockets = Vec::new();
    // Twice the size that netlink(7) recommends. The kernel sends no more at once than the buffer holds.
    let mut buffer = [0; 16 * 1024];
    loop {
        let length = kernel.read(&mut buffer)?;
        if read_messages(&buffer[..length], &mut sockets)? {
            // Kernels before 3.3 ignore the filter.
            sockets.retain(|socket: &Socket| port.is_none_or(|port| socket.port == port));
            return Ok(sockets);
        }
    }
}

fn request(family: i32, port: Option<u16>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    let narrow = |number: i32| u8::try_from(number).unwrap_or_default();
    let length = u32::try_from(HEADER + REQUEST).unwrap_or_default();
    let flags = u16::try_from(NLM_F_REQUEST | NLM_F_DUMP).unwrap_or_default();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([narrow(family), narrow(IPPROTO_TCP), 0, 0]);
    bytes.extend((1_u32 << TCP_LISTEN).to_ne_bytes());
    // The kernel lists all sockets for 0.
    bytes.extend(port.unwrap_or_default().to_be_bytes());
    bytes.resize(HEADER + REQUEST, 0);
    bytes
}

/// Adds the sockets of one message from the kernel, and returns whether it was the last.
fn read_messages(mut bytes: &[u8], sockets: &mut Vec<Socket>) -> io::Result<bool> {
    while let Some(header) = bytes.first_chunk::<HEADER>() {
        let length = u32_at(header, 0).and_then(|length| usize::try_from(length).ok());
        let kind = u16_at(header, 4).map_or(0, i32::from);
        let message = length.and_then(|length| bytes.get(HEADER..length)).ok_or(ErrorKind::InvalidData)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = u32_at(message, 0).map_or(0, |code| code.cast_signed().wrapping_neg());
                return Err(io::Error::from_raw_os_error(code));
            }
            _ => sockets.extend(read_socket(message)),
        }
        bytes = bytes.get(align(HEADER + message.len())..).unwrap_or_default();
    }
    Ok(false)
}

fn read_socket(message: &[u8]) -> Option<Socket> {
    let message_head = message.first_chunk::<MESSAGE>()?;
    let port = u16::from_be_bytes([message_head[4], message_head[5]]);
    let source = &message_head[8..24];
    let address = match i32::from(message_head[0]) {
        AF_INET => IpAddr::from(*source.first_chunk::<4>()?),
        AF_INET6 => IpAddr::from(*source.first_chunk::<16>()?),
        _ => return None,
    };
    let only_v6 =
        attribute(&message[MESSAGE..], INET_DIAG_SKV6ONLY).is_some_and(|value| value.first() == Some(&1));
    let user = u32_at(message_head, 64);
    let id = u64::from(u32_at(message_head, 68)?);
    Some(Socket { port, address, only_v6, user, id })
}

/// Returns the value of a netlink attribute, which is: length (with its own four bytes), type, value, padding to four
/// bytes.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(4..length)?;
        if u16_at(bytes, 2)? == wanted {
            return Some(value);
        }
        bytes = bytes.get(align(length)..)?;
    }
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Reads `/proc/net/tcp` and `tcp6`, which do not tell whether an IPv6 socket refuses IPv4.
fn read_tables(port: Option<u16>) -> io::Result<Vec<Socket>> {
    let v4 = fs::read_to_string("/proc/net/tcp")?;
    // Absent where IPv6 is switched off.
    let v6 = fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    Ok(v4.lines().chain(v6.lines()).filter_map(|line| read_line(line, port)).collect())
}

/// Parses `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode ...`. Numbers are hexadecimal, the
/// address is in words of four bytes, each in the machine's order.
fn read_line(line: &str, wanted: Option<u16>) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace();
    let (address, local_port) = fields.nth(1)?.split_once(':')?;
    let state = fields.nth(1)?;
    let user = fields.nth(3)?.parse().ok();
    let id = fields.nth(1)?.parse().ok()?;
    let listens = u8::from_str_radix(state, 16).ok()? == TCP_LISTEN;
    let port = u16::from_str_radix(local_port, 16).ok()?;
    if !listens || wanted.is_some_and(|wanted| wanted != port) {
        return None;
    }
    let mut bytes = Vec::new();
    for start in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(start..start + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let address = match bytes.len() {
        4 => Ipv4Addr::from(*bytes.first_chunk()?).into(),
        16 => Ipv6Addr::from(*bytes.first_chunk()?).into(),
        _ => return None,
    };
    Some(Socket { port, address, only_v6: false, user, id })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;

    fn sorted(mut sockets: Vec<Socket>) -> Vec<Socket> {
        sockets.sort_by_key(|socket| (socket.address, socket.id));
        sockets
    }

    #[test]
    fn netlink_and_the_tables_agree() {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let _second = TcpListener::bind(("127.0.0.2", port)).unwrap();
        let found = sorted(query(AF_INET, Some(port)).unwrap());
        let addresses: Vec<IpAddr> = found.iter().map(|socket| socket.address).collect();
        assert_eq!(addresses, [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])]);
        assert_eq!(found, sorted(read_tables(Some(port)).unwrap()));
        // Among those of every port.
        for all in [query(AF_INET, None).unwrap(), read_tables(None).unwrap()] {
            assert_eq!(found, sorted(all.into_iter().filter(|socket| socket.port == port).collect()));
        }
    }

    #[test]
    fn tables_yield_only_listeners_on_the_port() {
        let listens =
            "0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1000 0 4242 1 0 100 0";
        let address = IpAddr::from([127, 0, 0, 1]);
        let socket = Socket { port: 8080, address, only_v6: false, user: Some(1000), id: 4242 };
        if cfg!(target_endian = "little") {
            assert_eq!(read_line(listens, Some(8080)), Some(socket));
        }
        assert_eq!(read_line(listens, Some(8081)), None);
        assert_eq!(read_line(&listens.replace(" 0A ", " 01 "), Some(8080)), None);
        assert_eq!(read_line("  sl  local_address rem_address   st tx_queue rx_queue", Some(8080)), None);
        assert_eq!(read_line("0: 01:1F90 0:0 0A 0:0 0:0 0 0 0 4242", Some(8080)), None);
    }

    #[test]
    fn a_refusal_of_the_kernel_is_an_error() {
        let mut reply = Vec::new();
        reply.extend(36_u32.to_ne_bytes());
        reply.extend(u16::try_from(NLMSG_ERROR).unwrap().to_ne_bytes());
        reply.extend([0; 10]);
        reply.extend((-nix::libc::ENOENT).to_ne_bytes());
        reply.extend([0; 16]);
        let error = read_messages(&reply, &mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOENT));
    }

    proptest! {
        #[test]
        fn any_reply_is_read_without_panic(reply in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_messages(&reply, &mut Vec::new());
        }

        #[test]
        fn any_message_is_read_without_panic(mut reply in proptest::collection::vec(any::<u8>(), 16..400)) {
            let length = u32::try_from(reply.len()).unwrap();
            reply[..4].copy_from_slice(&length.to_ne_bytes());
            reply[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            let _ = read_messages(&reply, &mut Vec::new());
        }

        #[test]
        fn any_line_is_read_without_panic(line in ".{0,200}", port: u16) {
            let _ = read_line(&line, Some(port));
        }
    }
}
