//! Messages and hints for programs: finding, installing, starting them at login.

use crate::cli::error::Failure;
use crate::cli::exit::{self, Exit};
use crate::core::install::InstallError;
use crate::core::login::LoginError;
use crate::core::programs::ProgramError;
use crate::core::services::ServiceError;

impl Failure {
    /// Returns the failure to find a program.
    pub fn of_program(error: &ProgramError) -> Self {
        Self::of(exit::of_program(error), error).hint(program_hint(error))
    }
}

/// Returns the hint for a program that cannot be found.
fn program_hint(error: &ProgramError) -> String {
    match error {
        ProgramError::NotInstalled { service, .. } => format!("install it: fusion {service} install"),
        ProgramError::Installation { service, .. } => {
            format!("install it again: fusion {service} install")
        }
        ProgramError::OfTemplate { template, program, .. } if program.starts_with('~') => {
            format!(
                "write ${{HOME}} for ~ in the command of [templates.{template}], which no shell runs: fusion config edit"
            )
        }
        ProgramError::OfTemplate { template, .. } => {
            format!("correct the command of [templates.{template}]: fusion config edit")
        }
        ProgramError::CommandMissing { key, .. } => {
            format!("correct the path: fusion config edit; or remove it: fusion config unset {key}")
        }
    }
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        let mut failure = Self::of(exit::of_install(&error), &error).hint_or_none(hint(&error));
        match error {
            InstallError::Failed { output, .. } | InstallError::DoesNotStart { output, .. } => {
                failure.details = output.lines().map(|line| format!("  {line}")).collect();
                failure
            }
            InstallError::Lock(error) => ServiceError::Lock(error).into(),
            InstallError::Record(error) => ServiceError::Record(error).into(),
            InstallError::Process(error) => ServiceError::Process(error).into(),
            InstallError::File(error) => error.into(),
            _ => failure,
        }
    }
}

fn hint(error: &InstallError) -> Option<String> {
    Some(match error {
        InstallError::NoMethod { program } => format!("install {program} in a directory of PATH"),
        InstallError::NotOnPath { .. } => {
            "add this directory to PATH: `echo \"$(brew --prefix)/bin\"`".to_owned()
        }
        InstallError::NotOfHomebrew { program } => format!(
            "upgrade {} the way it was installed; an application upgrades itself",
            program.display()
        ),
        InstallError::Machine { .. } => {
            "use another runtime on this machine: fusion templates".to_owned()
        }
        InstallError::ByHand { manual, .. } => format!("install it as its documentation says: {manual}"),
        InstallError::NoPython { .. } | InstallError::PythonTooOld { .. } => {
            "install uv (https://docs.astral.sh/uv/), which brings its own Python, or a newer Python".to_owned()
        }
        InstallError::NoVenv { .. } => {
            "install that module (Debian, Ubuntu: apt install python3-venv), or uv (https://docs.astral.sh/uv/)"
                .to_owned()
        }
        InstallError::NoSpace { .. } => "free some space, or set FUSION_CONFIG_DIR to a directory on another disk".to_owned(),
        InstallError::Failed { .. } => {
            "check the network, then run the command again; finished downloads are kept".to_owned()
        }
        InstallError::InUse { service, .. } => format!("stop the server first: fusion {service} down"),
        InstallError::InUseElsewhere { service, .. } => format!("stop the server there first: fusion {service} down"),
        InstallError::Cancelled => "run the command again; finished downloads are kept".to_owned(),
        _ => return None,
    })
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        let failure = Self::of(Exit::Failed, &error);
        match error {
            LoginError::File(error) => error.into(),
            LoginError::Foreign { path } => {
                failure.hint(format!("move {} away, then run the command again", path.display()))
            }
            _ => failure,
        }
    }
}
