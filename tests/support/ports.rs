//! Ports that no other test uses.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// A port without a listener when it was chosen. No other sandbox of any test process has it.
///
/// The kernel does not choose it (`bind` to port 0), because it may give such a port to another program a moment later.
pub struct Port {
    number: u16,
    _reservation: File,
}

/// Below every system's range of ephemeral ports.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

fn is_in_use(address: (&str, u16)) -> bool {
    TcpListener::bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

impl Port {
    pub fn free() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Test processes start at different numbers, because each collision costs a lock file.
        let start = u16::try_from(std::process::id() * 61 % u32::from(COUNT)).expect("below COUNT");
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + start.wrapping_add(step) % COUNT;
            if let Some(port) = Self::reserve(number) {
                return port;
            }
        }
        panic!("no free port");
    }

    /// Returns this port, unless a listener or another sandbox has it.
    pub fn reserve(number: u16) -> Option<Self> {
        let lock_file = |directory: String| {
            let directory = std::env::temp_dir().join(directory);
            std::fs::create_dir_all(&directory)?;
            File::create(directory.join(number.to_string()))
        };
        // The first directory may be another user's.
        let reservation = lock_file("fusion-test-ports".to_owned())
            .or_else(|_| lock_file(format!("fusion-test-ports-{}", nix::unistd::getuid())))
            .expect("the temporary directory is writable");
        let is_free = reservation.try_lock().is_ok()
            && TcpListener::bind(("127.0.0.1", number)).is_ok()
            // Without IPv6, no listener has the port there.
            && !is_in_use(("::", number));
        if is_free {
            // A program that another test is just starting has these listeners, too, until it has closed what it inherits.
            while TcpStream::connect((Ipv4Addr::LOCALHOST, number)).is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        is_free.then_some(Self { number, _reservation: reservation })
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}
