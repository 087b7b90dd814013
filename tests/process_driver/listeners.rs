//! Who listens at an address.

use std::net::{TcpListener, TcpStream};

use fusion::core::address::Address;
use fusion::core::process::unix::UnixDriver;
use fusion::core::process::{Listener, Pid, ProcessDriver, ProcessError};

use crate::stage::{Stage, skipped};
use crate::support::ports::Port;
use crate::support::{fake_runtime, wait_until};

#[test]
fn the_child_and_its_descendants_are_ours() {
    let stage = Stage::new();
    let port = Port::free();
    assert_eq!(stage.listener("127.0.0.1", &port, None), Listener::None);
    let child = stage.fake(&[], &port);
    let pid = child.id().pid;
    assert_eq!(stage.listener("127.0.0.1", &port, Some(child.id())), Listener::Ours { pid });
    let other = Stage::new();
    let found = other.listener("127.0.0.1", &port, None);
    assert!(matches!(found, Listener::Other { pid: other, .. } if other == pid), "{found:?}");
}

#[test]
fn a_server_behind_a_wrapper_is_ours() {
    let stage = Stage::new();
    let port = Port::free();
    let wrapper =
        stage.shell(&format!("{} ollama --host 127.0.0.1 --port {}; :", fake_runtime(), port.number()));
    wait_until("it listens", || TcpStream::connect(("127.0.0.1", port.number())).is_ok());
    let found = stage.listener("127.0.0.1", &port, Some(wrapper.id()));
    assert!(matches!(found, Listener::Ours { pid } if pid != wrapper.id().pid), "{found:?}");
}

#[test]
fn listeners_on_both_loopbacks_are_distinguished() {
    let stage = Stage::new();
    let port = Port::free();
    let Ok(_listener) = TcpListener::bind(("::1", port.number())) else {
        return skipped("two programs at one port", "there is no IPv6 here");
    };
    let child = stage.fake(&[], &port);
    let ours = Listener::Ours { pid: child.id().pid };
    let own = Pid::try_from(i64::from(std::process::id())).unwrap();
    assert_eq!(stage.listener("127.0.0.1", &port, Some(child.id())), ours);
    for host in ["::1", "localhost"] {
        let found = stage.listener(host, &port, Some(child.id()));
        assert!(matches!(found, Listener::Other { pid, .. } if pid == own), "{host}: {found:?}");
    }
}

/// A list of sockets answers for a service and what it started, and for nothing else.
#[test]
fn a_list_of_sockets_shows_own_listeners() {
    let stage = Stage::new();
    let [port, other] = [Port::free(), Port::free()];
    let wrapper =
        stage.shell(&format!("{} ollama --host 127.0.0.1 --port {}; :", fake_runtime(), port.number()));
    wait_until("it listens", || TcpStream::connect(("127.0.0.1", port.number())).is_ok());
    let child = stage.fake(&[], &other);
    let sockets = stage.driver.listening(&[]).expect("the system lists sockets");
    let own = |port: &Port, leader: Pid| {
        let address = Address { host: "127.0.0.1".to_owned(), port: port.number() };
        stage.driver.own_listener(&sockets, &address, leader)
    };
    let (wrapper, child) = (wrapper.id().pid, child.id().pid);
    assert!(own(&port, wrapper).is_some_and(|pid| pid != wrapper));
    assert_eq!((own(&other, child), own(&other, wrapper), own(&port, child)), (Some(child), None, None));
    let closed = Port::free();
    assert_eq!(own(&closed, child), None);
}

/// A list of sockets answers for other programs, too, and for what has changed since it was made.
#[test]
fn a_list_of_sockets_shows_other_programs() {
    let stage = Stage::new();
    let ports = [Port::free(), Port::free(), Port::free()];
    let numbers = ports.each_ref().map(Port::number);
    let bind = |number: u16| TcpListener::bind(("127.0.0.1", number)).unwrap();
    let [first, second, third] = numbers;
    let servers = [bind(first), bind(second)];
    let sockets = stage.driver.listening(&numbers).expect("the system lists sockets");
    let at = |port: u16| {
        let address = Address { host: "127.0.0.1".to_owned(), port };
        stage.driver.listener_among(&sockets, &address, None).unwrap()
    };
    let own = Pid::try_from(i64::from(std::process::id())).unwrap();
    let is_own = |found: Listener| matches!(found, Listener::Other { pid, .. } if pid == own);
    assert_eq!([first, second, third].map(|port| is_own(at(port))), [true, true, false]);
    assert_eq!(at(third), Listener::None);
    let _later = bind(third);
    assert!(is_own(at(third)));
    drop(servers);
}

#[test]
fn a_host_that_does_not_exist_is_named() {
    let address = Address { host: "no-such-host.invalid".to_owned(), port: 1 };
    let error = UnixDriver::new().listener(&address, None).unwrap_err();
    assert!(matches!(&error, ProcessError::Resolve { host, .. } if *host == address.host), "{error:?}");
}
