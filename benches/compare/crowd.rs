//! Load from other programs: many processes, or one process of many threads or descriptors.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

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
        Self::playing("--threads", count)
    }

    pub(crate) fn of_descriptors(count: usize) -> Result<Self> {
        Self::playing("--descriptors", count)
    }

    /// The processes of these commands.
    pub(crate) fn of_commands(commands: impl IntoIterator<Item = Command>) -> Result<Self> {
        let mut crowd = Self(Vec::new());
        for mut command in commands {
            crowd.0.push(command.spawn()?);
        }
        Ok(crowd)
    }

    fn playing(role: &str, count: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([role, &count.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take();
        let crowd = Self(vec![child]);
        let mut line = String::new();
        BufReader::new(output.context("no pipe")?).read_line(&mut line)?;
        ensure!(line == "ready\n", "the system does not allow {role} {count}");
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

/// Plays the process of [`Crowd::of_descriptors`], as [`play_threads`] does.
pub(crate) fn play_descriptors(count: usize) -> Result<()> {
    let limit = u64::try_from(count)? + 64;
    setrlimit(Resource::RLIMIT_NOFILE, limit, getrlimit(Resource::RLIMIT_NOFILE)?.1.max(limit))?;
    let _open = (0..count).map(|_| File::open("/dev/null")).collect::<Result<Vec<_>, _>>()?;
    println!("ready");
    park()
}

fn park<T>() -> T {
    loop {
        thread::park();
    }
}
