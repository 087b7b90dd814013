//! `fusion keep-log`: what `up` starts beside a runtime to keep its log within bounds; not for users.

use std::path::PathBuf;

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::core::logs::Limits;
use crate::core::logs::keeper::{self, KeeperSpec};
use crate::core::process::unix::UnixDriver;
use crate::core::process::{InvalidPid, Pid, ProcessId};

/// Keep a log within bounds until its runtime ends
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {
    #[arg(long)]
    log: PathBuf,
    #[arg(long)]
    max_bytes: u64,
    #[arg(long)]
    keep: u32,
    #[arg(long)]
    instance: String,
    #[arg(long, value_parser = pid)]
    pid: Pid,
    #[arg(long)]
    start_time: u64,
    #[arg(long)]
    boot_id: String,
}

fn pid(text: &str) -> Result<Pid, InvalidPid> {
    Pid::try_from(text.parse().unwrap_or(0))
}

impl From<&Args> for KeeperSpec {
    fn from(args: &Args) -> Self {
        Self {
            log: args.log.clone(),
            limits: Limits { max_bytes: args.max_bytes, keep: args.keep },
            instance: args.instance.clone(),
            leader: ProcessId {
                pid: args.pid,
                start_time: args.start_time,
                boot_id: args.boot_id.clone(),
            },
        }
    }
}

/// Runs the command.
pub fn run(_context: &Context, args: &Args) -> Result<Exit, Failure> {
    keeper::run(&UnixDriver::default(), &args.into())?;
    Ok(Exit::Done)
}
