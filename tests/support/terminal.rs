//! A pseudo-terminal, for what a program does on one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::pty::openpty;

use super::wait_until;

/// Both ends of a pseudo-terminal. What is written to it is collected.
pub struct Terminal {
    master: File,
    slave: Option<OwnedFd>,
    output: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    pub fn open() -> Self {
        let pair = openpty(None, None).expect("a pseudo-terminal");
        let master = File::from(pair.master);
        let mut source = master.try_clone().expect("a descriptor");
        let output = Arc::new(Mutex::new(Vec::new()));
        let reader = std::thread::spawn({
            let output = Arc::clone(&output);
            move || {
                let mut buffer = [0; 4096];
                // On Linux a terminal that nobody has open any more gives an error instead of an end.
                while let Ok(length @ 1..) = source.read(&mut buffer) {
                    output.lock().expect("no panic while it is held").extend_from_slice(&buffer[..length]);
                }
            }
        });
        Self { master, slave: Some(pair.slave), output, reader: Some(reader) }
    }

    /// The terminal as a stream of a program.
    pub fn stream(&self) -> Stdio {
        let slave = self.slave.as_ref().expect("the terminal is open");
        Stdio::from(slave.try_clone().expect("a descriptor"))
    }

    /// Types something.
    pub fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).expect("the terminal takes it");
    }

    /// What was written to it so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().expect("no panic while it is held")).into_owned()
    }

    /// Waits until something was written to it.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        wait_until(&format!("the terminal shows {text:?}"), || self.text().contains(text));
    }

    /// All that was written to it, after the programs that use it have ended.
    pub fn finish(mut self) -> String {
        self.slave = None;
        self.reader.take().expect("it is finished once").join().expect("the reader ends");
        self.text()
    }
}
