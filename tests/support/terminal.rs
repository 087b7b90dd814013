//! A pseudo-terminal for programs under test.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::{Running, Sandbox, wait_until};

/// Both ends of a pseudo-terminal. It collects the output of its programs.
pub struct Terminal {
    master: File,
    slave: Option<OwnedFd>,
    output: Arc<Mutex<Vec<u8>>>,
    closed: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    pub fn open() -> Self {
        Self::of_size(None)
    }

    /// Shows nothing of what is typed, which would be mixed with the output.
    pub fn without_echo() -> Self {
        let terminal = Self::open();
        let slave = terminal.slave.as_ref().expect("the terminal is open");
        let mut settings = tcgetattr(slave).expect("a terminal");
        settings.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(slave, SetArg::TCSANOW, &settings).expect("a terminal");
        terminal
    }

    /// A window of so many columns.
    pub fn of_columns(columns: u16) -> Self {
        Self::of_size(Some(Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }))
    }

    fn of_size(size: Option<Winsize>) -> Self {
        let pair = openpty(size.as_ref(), None).expect("a pseudo-terminal");
        for end in [&pair.master, &pair.slave] {
            // A process that inherited an end would keep it open.
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("own descriptor");
        }
        let master = File::from(pair.master);
        let mut source = master.try_clone().expect("a descriptor");
        let output = Arc::new(Mutex::new(Vec::new()));
        let closed = Arc::new(AtomicBool::new(false));
        let reader = std::thread::spawn({
            let (output, closed) = (Arc::clone(&output), Arc::clone(&closed));
            move || {
                let mut buffer = [0; 4096];
                while !closed.load(Ordering::Relaxed) {
                    let mut readable = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
                    if poll(&mut readable, PollTimeout::from(20_u8)) == Ok(0) {
                        continue;
                    }
                    // On Linux, a terminal that no process has open gives an error instead of an end.
                    let Ok(length @ 1..) = source.read(&mut buffer) else { return };
                    output.lock().expect("no panic while it is held").extend_from_slice(&buffer[..length]);
                }
            }
        });
        Self { master, slave: Some(pair.slave), output, closed, reader: Some(reader) }
    }

    /// The terminal as a stream of a program.
    pub fn stream(&self) -> Stdio {
        let slave = self.slave.as_ref().expect("the terminal is open");
        Stdio::from(slave.try_clone().expect("a descriptor"))
    }

    /// Starts a shell script in its own session, of which this is the controlling terminal. Ctrl-C reaches it as a
    /// signal, and closing the terminal hangs it up. `$0` is the program under test.
    pub fn script(&self, sandbox: &Sandbox, options: &str, script: &str) -> Running {
        let slave = self.slave.as_ref().expect("the terminal is open");
        let path = nix::unistd::ttyname(slave).expect("a terminal");
        let invocation = sandbox.command(super::fake_runtime()).arg("on-terminal").arg(path);
        invocation.arg("/bin/sh").arg(options).arg(script).arg(env!("CARGO_BIN_EXE_fusion")).start()
    }

    /// Closes it like a window: its programs are hung up.
    pub fn close(mut self) {
        self.slave = None;
        self.closed.store(true, Ordering::Relaxed);
        self.reader.take().expect("it is closed once").join().expect("the reader ends");
    }

    /// Changes the size of the window.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = ["cols", &columns.to_string(), "rows", &rows.to_string()].map(str::to_owned);
        let resized = std::process::Command::new("stty").args(size).stdin(self.stream()).status();
        assert!(resized.expect("stty runs").success());
    }

    /// The local settings of the terminal.
    pub fn flags(&self) -> LocalFlags {
        tcgetattr(self.slave.as_ref().expect("the terminal is open")).expect("a terminal").local_flags
    }

    /// Types these bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).expect("the terminal takes it");
    }

    /// The output so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().expect("no panic while it is held")).into_owned()
    }

    /// Waits until the output has this text.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        wait_until(&format!("the terminal shows {text:?}"), || self.text().contains(text));
    }

    /// The whole output. Waits until every program that uses the terminal has ended.
    pub fn finish(mut self) -> String {
        self.slave = None;
        let reader = self.reader.take().expect("it is finished once");
        wait_until("no process has the terminal open", || reader.is_finished());
        reader.join().expect("the reader ends");
        self.text()
    }
}
