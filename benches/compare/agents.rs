//! What a user waits for with `launch` and `chat`, and what `top` costs while it is open.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};

use crate::fleet;
use crate::measure::{children_cpu, cost, in_turn, median};
use crate::programs::Programs;
use crate::report::Report;
use crate::row::Unit;

/// The end of the line on which `chat` reads.
const PROMPT: &str = "> ";
const END_OF_INPUT: &str = "\x04";
const QUIT: &str = "q";

/// How long a program may show nothing.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);

/// From the start of `launch` to the end of an agent that does nothing, once the agent and the model are known.
pub(crate) fn launch(programs: &Programs, report: &mut Report, rounds: usize) -> Result<()> {
    let no_arguments: [&str; 0] = [];
    let mut launch = programs.fusion(["launch", "opencode", "--service", "ollama", "-m", "one"]);
    launch.env("PATH", programs.path("")).stderr(Stdio::null());
    let costs = in_turn(rounds, &mut [launch, programs.floor("opencode", no_arguments)])?;
    report.times("launch of a known agent", &costs[0], "the agent alone", &costs[1], "at most 20 ms more");
    Ok(())
}

/// From the start of `chat` to the line on which it reads.
pub(crate) fn first_prompt(programs: &Programs, report: &mut Report, rounds: usize) -> Result<()> {
    let mut waits = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        let chat = OnTerminal::start(programs.fusion(["ollama", "chat", "-m", "one"]))?;
        chat.wait_for(PROMPT)?;
        waits.push(start.elapsed().as_secs_f64() * 1e3);
        chat.end(END_OF_INPUT)?;
    }
    report.alone("first line of chat", Unit::Milliseconds, median(waits)?, "at most 10 ms");
    Ok(())
}

/// The processor time of `top`, open for some seconds.
pub(crate) fn top(programs: &Programs, report: &mut Report, seconds: u32) -> Result<()> {
    fleet::configure(programs, 10, 10)?;
    cost(&mut programs.fusion(["up", "--tag", "on"]))?;
    let before = children_cpu()?;
    let top = OnTerminal::start(programs.fusion(["top"]))?;
    top.wait_for("stub9")?;
    thread::sleep(Duration::from_secs(seconds.into()));
    top.end(QUIT)?;
    let used = children_cpu()?.saturating_sub(before).as_secs_f64() * 1e3 / f64::from(seconds);
    cost(&mut programs.fusion(["down"]))?;
    report.alone("a second of top with ten services", Unit::Milliseconds, used, "at most 10 ms");
    Ok(())
}

/// A program on a pseudo-terminal of its own.
struct OnTerminal {
    program: Child,
    terminal: File,
    shown: Receiver<Vec<u8>>,
}

impl OnTerminal {
    fn start(mut command: Command) -> Result<Self> {
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None)?;
        // The program must not keep its own terminal open.
        fcntl(&pair.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        command.env("TERM", "xterm").stdin(pair.slave.try_clone()?).stdout(pair.slave.try_clone()?);
        let program =
            command.stderr(pair.slave).spawn().with_context(|| format!("cannot run {command:?}"))?;
        let terminal = File::from(pair.master);
        let (sender, shown) = channel();
        let mut source = terminal.try_clone()?;
        // A program whose output nobody reads would wait.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of the program is an error on Linux.
            while let Ok(length @ 1..) = source.read(&mut buffer) {
                let _ = sender.send(buffer[..length].to_vec());
            }
        });
        Ok(Self { program, terminal, shown })
    }

    fn wait_for(&self, text: &str) -> Result<()> {
        let mut shown = Vec::new();
        while !shown.windows(text.len()).any(|window| window == text.as_bytes()) {
            let piece = self.shown.recv_timeout(SILENCE_TIMEOUT);
            shown.extend(
                piece.with_context(|| format!("no {text:?} in {}", String::from_utf8_lossy(&shown)))?,
            );
        }
        Ok(())
    }

    /// Types the key that ends the program.
    fn end(mut self, key: &str) -> Result<()> {
        self.terminal.write_all(key.as_bytes())?;
        let status = self.program.wait()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}
