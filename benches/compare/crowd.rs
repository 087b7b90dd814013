//! Strangers on the machine: many processes, or one process of many threads.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

/// Processes that end when this is dropped.
pub(crate) struct Crowd(Vec<Child>);

impl Crowd {
    pub(crate) fn of_processes(count: usize) -> Self {
        let mut crowd = Self(Vec::new());
        for _ in 0..count {
            let child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("a process");
            crowd.0.push(child);
        }
        crowd
    }

    pub(crate) fn of_threads(count: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--threads", &count.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("own program runs");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let crowd = Self(vec![child]);
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n", "the system allows no {count} threads");
        crowd
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The process of [`Crowd::of_threads`].
pub(crate) fn play_threads(count: usize) {
    for _ in 1..count {
        thread::Builder::new()
            .stack_size(16 * 1024)
            .spawn(|| {
                loop {
                    thread::park();
                }
            })
            .expect("a thread");
    }
    println!("ready");
    loop {
        thread::park();
    }
}
