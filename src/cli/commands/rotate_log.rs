//! `fusion rotate-log`: the helper process that `up` starts beside a server; hidden from users.

use std::path::PathBuf;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::logs::Limits;
use crate::core::logs::rotator::LogRotator;
use crate::core::process::{Host, InvalidPid, Pid, ProcessId};
use crate::core::services::ServiceError;

/// Rotate a log above its limit until its server ends
#[derive(Debug, clap::Args)]
pub struct RotateLogArgs {
    #[arg(long)]
    log: PathBuf,
    #[arg(long)]
    max_bytes: u64,
    #[arg(long)]
    keep: u64,
    #[arg(long)]
    instance: String,
    #[arg(long)]
    pid: u64,
    #[arg(long)]
    start_time: u64,
}

impl RotateLogArgs {
    /// Returns the rotator. One process started it and the server, so both run on `host`.
    fn rotator(&self, host: Host) -> Result<LogRotator, InvalidPid> {
        let pid = Pid::try_from(self.pid.cast_signed())?;
        Ok(LogRotator {
            log: self.log.clone(),
            limits: Limits { max_bytes: self.max_bytes, keep: self.keep },
            instance: self.instance.clone(),
            leader: ProcessId { pid, start_time: self.start_time, host },
        })
    }
}

/// Runs the command.
pub fn run(context: &Context, args: &RotateLogArgs) -> Result<Exit, Failure> {
    let host = context.driver.host().map_err(ServiceError::from)?;
    let rotator = args.rotator(host).map_err(|error| Failure::of(Exit::Usage, &error))?;
    rotator.run(&*context.driver)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::Path;

    use clap::{Args as _, FromArgMatches as _};

    use super::*;
    use crate::core::logs::rotator;
    use crate::core::process::ProcessDriver as _;
    use crate::core::process::unix::UnixDriver;

    #[test]
    fn arguments_of_the_rotator_are_parsed() {
        let host = UnixDriver::new().host().unwrap();
        let spec = LogRotator {
            log: OsString::from_vec(b"/with space/and \xff/x.log".to_vec()).into(),
            limits: Limits { max_bytes: 50_000_000, keep: 3 },
            instance: "0123456789abcdef0123456789abcdef".to_owned(),
            leader: ProcessId { pid: Pid::try_from(4242).unwrap(), start_time: u64::MAX, host: host.clone() },
        };
        let process = spec.process(Path::new("/bin/fusion"), Path::new("/"));
        assert_eq!(process.args[0], rotator::SUBCOMMAND);
        let matches =
            RotateLogArgs::augment_args(clap::Command::new("rotate-log")).get_matches_from(&process.args);
        assert_eq!(RotateLogArgs::from_arg_matches(&matches).unwrap().rotator(host), Ok(spec));
        let named = crate::cli::tree::command(crate::core::runtimes::TABLE, &[]);
        assert!(named.find_subcommand(rotator::SUBCOMMAND).is_some_and(clap::Command::is_hide_set));
    }

    #[test]
    fn an_invalid_pid_is_refused() {
        let host = UnixDriver::new().host().unwrap();
        for pid in [0, 1, 4_294_967_295, u64::MAX] {
            let args = RotateLogArgs {
                log: PathBuf::new(),
                max_bytes: 0,
                keep: 0,
                instance: String::new(),
                pid,
                start_time: 0,
            };
            assert!(args.rotator(host.clone()).is_err(), "{pid}");
        }
    }
}
