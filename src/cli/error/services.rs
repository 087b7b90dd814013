//! Messages and hints for services.

use crate::cli::error::{Failure, file_hint, missing_model_hint};
use crate::cli::exit::{self, Exit};
use crate::core::models::quoted;
use crate::core::process::{Listener, ProcessError};
use crate::core::services::lock::ServiceLockError;
use crate::core::services::record::RecordError;
use crate::core::services::{ServiceError, StartFailure, StartedBy, State};

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self::of_service(&error)
    }
}

impl Failure {
    /// Returns the failure of an operation on a service.
    pub fn of_service(error: &ServiceError) -> Self {
        let exit = exit::of_service(error);
        let failure = match error {
            // These have messages of their own.
            ServiceError::Program(error) => return Self::of_program(error),
            ServiceError::Process(error) => return process(error),
            ServiceError::Record(error) => return record(error),
            ServiceError::Model { service, model, error } => return Self::of_model(service, model, error),
            // The sender of the signal knows.
            ServiceError::Cancelled(_) => return Self::new(exit, ""),
            ServiceError::PortInUse { message, .. } => {
                Self::of(exit, error).caused_by(vec![message.to_string()])
            }
            ServiceError::ModelMissing { message: Some(message), .. } => {
                Self::of(exit, error).caused_by(vec![message.clone()])
            }
            ServiceError::External { service, address, listener } => Self::new(
                exit,
                format!("{service} at {address} is {listener}, a process that fusion did not start"),
            ),
            ServiceError::Failed(failed) => {
                let mut failure = Self::of(exit, error).caused_by(failed.cause.iter().cloned().collect());
                failure.details = tail(failed);
                failure
            }
            _ => Self::of(exit, error),
        };
        match hint(error) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

fn hint(error: &ServiceError) -> Option<String> {
    Some(match error {
        ServiceError::Lock(ServiceLockError::File(error)) => return file_hint(error),
        ServiceError::Lock(ServiceLockError::Held { .. }) => {
            "wait until that command has ended, or stop it".to_owned()
        }
        ServiceError::PortInUse { listener, .. } | ServiceError::External { listener, .. }
            if application(listener).is_some() =>
        {
            let name = application(listener).unwrap_or_default();
            format!("quit {name}, which starts its server again when that ends; its icon is in the menu bar")
        }
        ServiceError::PortInUse { table, spare, .. } => other_port("stop that program, or ", table, *spare),
        ServiceError::AddressTaken { table, spare, other, .. } => {
            other_port(&format!("stop it: fusion {other} down; or "), table, *spare)
        }
        ServiceError::NoPort { range: Some(range), .. } if range.start() < range.end() => {
            "stop a program that uses one of them, or widen `port_range`: fusion config edit".to_owned()
        }
        ServiceError::NoPort { service, .. } => {
            format!("choose a port: fusion config set instances.{service}.port PORT")
        }
        ServiceError::NotConfigured { service } => format!("stop it: fusion {service} down"),
        ServiceError::NoWorkingDir { service, path, exists } => {
            let make = format!("make it: mkdir -p {}; or ", quoted(&path.to_string_lossy()));
            let make = if *exists { "" } else { &make };
            format!("{make}choose another: fusion config set instances.{service}.working_dir DIR")
        }
        ServiceError::PlaceholderUnknown { placeholder: "{model}", service, .. } => {
            format!("name a model: fusion config set instances.{service}.model MODEL")
        }
        ServiceError::PlaceholderUnknown { placeholder: "${PROJECT_ROOT}", .. } => {
            "set FUSION_PROJECT_ROOT to a directory whose name is UTF-8".to_owned()
        }
        ServiceError::CannotListen { table, source, .. } => match source.kind() {
            std::io::ErrorKind::PermissionDenied => {
                format!("choose a port above 1023: fusion config set {table}.port PORT")
            }
            _ => {
                format!("choose an address of this machine: fusion config set {table}.host 127.0.0.1")
            }
        },
        ServiceError::ModelMissing { model, pull, .. } => missing_model_hint(model, pull),
        ServiceError::Failed(failed) if failed.kind.is_illegal_instruction() => {
            "the program was built for another processor: install or build it for this one".to_owned()
        }
        ServiceError::Failed(failed) if failed.full_disk.is_some() => {
            format!("free some space, then start it again: fusion {} up", failed.service)
        }
        ServiceError::Failed(failed) => format!("see the whole log: fusion {} log", failed.service),
        ServiceError::Unhealthy { service, .. } => {
            format!("see the log: fusion {service} log; restart the server: fusion {service} restart")
        }
        ServiceError::CannotGenerate { service, started_by: StartedBy::Fusion, .. }
        | ServiceError::NotHealthy { service, started_by: StartedBy::Fusion, .. } => {
            format!("see the log: fusion {service} log")
        }
        ServiceError::Elsewhere { service, record, .. } => format!(
            "stop it there: fusion {service} down; if that machine or container is gone: rm {}",
            quoted(&record.display().to_string())
        ),
        ServiceError::External { .. } => "stop it with the program that started it".to_owned(),
        ServiceError::NotRunning { service, state: State::Starting } => {
            format!("wait until it is ready: fusion {service} up")
        }
        ServiceError::NotRunning { service, .. } => format!("start the server: fusion {service} up"),
        ServiceError::StillAlive { .. } => {
            "the kernel cannot end them, usually because of a device or a network disk; try again later"
                .to_owned()
        }
        _ => return None,
    })
}

/// Returns the advice to configure another port in a table: `spare`, if one is known.
pub fn other_port(before: &str, table: &str, spare: Option<u16>) -> String {
    let port = spare.map_or_else(|| "PORT".to_owned(), |port| port.to_string());
    format!("{before}choose another port: fusion config set {table}.port {port}")
}

/// Returns the name of the macOS application that listens.
fn application(listener: &Listener) -> Option<&str> {
    match listener {
        Listener::Other { program: Some(program), .. } => program.strip_suffix(".app"),
        _ => None,
    }
}

fn process(error: &ProcessError) -> Failure {
    let hint = match error {
        ProcessError::Log(file) => {
            return Failure::of(exit::of_process(error), error).hint_or_none(file_hint(file));
        }
        ProcessError::ProgramMissing { .. } | ProcessError::InterpreterMissing { .. } => {
            Some("install it again")
        }
        ProcessError::CannotRun { .. } => Some("check that it is executable and made for this machine"),
        ProcessError::Signal { .. } => {
            Some("it is a process of another user: stop it as that user, or as root")
        }
        ProcessError::Ourselves { .. } => {
            Some("run the command from a terminal that the service did not start")
        }
        ProcessError::Resolve { .. } => {
            Some("check that `host` in the configuration is a name of this machine")
        }
        ProcessError::DirectoryMissing { .. } | ProcessError::System { .. } => None,
    };
    Failure::of(exit::of_process(error), error).hint_or_none(hint.map(str::to_owned))
}

fn record(error: &RecordError) -> Failure {
    let hint = match error {
        RecordError::File(file) => {
            return Failure::of(exit::of_file(file), error).hint_or_none(file_hint(file));
        }
        RecordError::Newer { .. } => Some("use the newer version of fusion that wrote the record"),
        RecordError::Damaged { .. } => Some(
            "remove the file; fusion finds a running server again by its environment, if the system shows that",
        ),
        RecordError::Random(_) | RecordError::Encode(_) => None,
    };
    Failure::of(Exit::Failed, error).hint_or_none(hint.map(str::to_owned))
}

/// Returns the end of the log, each line marked with `|`.
fn tail(failed: &StartFailure) -> Vec<String> {
    if failed.tail.trim().is_empty() {
        return vec![format!("the log is empty: {}", failed.log.display())];
    }
    let title = format!("the end of {}:", failed.log.display());
    [title].into_iter().chain(failed.tail.lines().map(|line| format!("  | {line}"))).collect()
}
