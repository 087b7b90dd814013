//! Load from other programs: many processes, or one process of many threads.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};

/// Processes that end when this is dropped.
pub(crate) struct Crowd(Vec<Child>);

impl Crowd {
    pub(crate) fn of_processes(count: usize) -> Result<Self> {
        let mut crowd = Self(Vec::new());
        for _ in 0..count {
            crowd.0.push(Command::new("sleep").arg("600").stdin(Stdio::null()).spawn()?);
        }
        Ok(crowd)
    }

    pub(crate) fn of_threads(count: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--threads", &count.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take();
        let crowd = Self(vec![child]);
        let mut line = String::new();
        BufReader::new(output.context("no pipe")?).read_line(&mut line)?;
        ensure!(line == "ready\n", "the system does not allow {count} threads");
        Ok(crowd)
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

/// Plays the process of [`Crowd::of_threads`]: prints `ready` and waits to be killed.
pub(crate) fn play_threads(count: usize) -> Result<()> {
    for _ in 1..count {
        thread::Builder::new().stack_size(16 * 1024).spawn(park::<()>)?;
    }
    println!("ready");
    park()
}

fn park<T>() -> T {
    loop {
        thread::park();
    }
}
