//! The words, hints and exit codes of what can go wrong with services.

use crate::cli::error::{Exit, Failure, file_hint, missing_model_hint};
use crate::cli::reporter::who;
use crate::core::process::ProcessError;
use crate::core::services::lock::LockError;
use crate::core::services::record::RecordError;
use crate::core::services::{Failed, ServiceError, StartedBy, State};

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        let exit = exit(&error);
        // Of these, the kind matters more than where they happened.
        let error = match error {
            ServiceError::Program(error) => return error.into(),
            ServiceError::Process(error) => return process(&error),
            ServiceError::Record(error) => return record(&error),
            other => other,
        };
        let failure = match &error {
            ServiceError::Model { runtime, model, error } => return Self::of_model(runtime, model, error),
            ServiceError::AddressTaken { address, listener, said, .. } => Self {
                causes: vec![said.clone()],
                ..Self::new(exit, format!("{address} belongs to {}", who(listener)))
            },
            ServiceError::ModelMissing { said: Some(said), .. } => {
                Self { causes: vec![said.clone()], ..Self::of(exit, &error) }
            }
            ServiceError::NotOurs { runtime, address, listener } => Self::new(
                exit,
                format!("{runtime} at {address} is {}, which fusion did not start", who(listener)),
            ),
            ServiceError::Failed(failed) => {
                let causes = failed.cause.iter().cloned().collect();
                Self { details: tail(failed), causes, ..Self::of(exit, &error) }
            }
            _ => Self::of(exit, &error),
        };
        match hint(&error) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

fn exit(error: &ServiceError) -> Exit {
    match error {
        ServiceError::AddressTaken { .. } | ServiceError::NotOurs { .. } => Exit::AddressTaken,
        ServiceError::ModelMissing { .. } | ServiceError::Model { .. } => Exit::ModelMissing,
        ServiceError::Failed(_) | ServiceError::Unhealthy { .. } | ServiceError::StoppedMeanwhile { .. } => {
            Exit::NotUp
        }
        ServiceError::CannotGenerate { timed_out: true, .. } => Exit::TimedOut,
        ServiceError::CannotGenerate { .. } => Exit::RequestFailed,
        ServiceError::Interrupted { .. } => Exit::Interrupted,
        ServiceError::Program(_) => Exit::NotInstalled,
        ServiceError::Lock(_)
        | ServiceError::Record(_)
        | ServiceError::Process(_)
        | ServiceError::Log(_)
        | ServiceError::AddressUnusable { .. }
        | ServiceError::Undead { .. }
        | ServiceError::NotRunning { state: State::Starting, .. } => Exit::Failed,
        ServiceError::NotRunning { .. } => Exit::NotRunning,
    }
}

fn hint(error: &ServiceError) -> Option<String> {
    Some(match error {
        ServiceError::Lock(LockError::File(error)) => return file_hint(error).map(str::to_owned),
        ServiceError::Lock(LockError::Held { .. }) => "wait for it to end, or end it".to_owned(),
        ServiceError::AddressTaken { runtime, .. } => {
            format!("end that program, or choose another port: fusion config set {runtime}_server.port PORT")
        }
        ServiceError::AddressUnusable { runtime, source, .. } => match source.kind() {
            std::io::ErrorKind::PermissionDenied => {
                format!("choose a port above 1023: fusion config set {runtime}_server.port PORT")
            }
            _ => format!(
                "choose an address of this machine: fusion config set {runtime}_server.host 127.0.0.1"
            ),
        },
        ServiceError::ModelMissing { model, fetch, .. } => missing_model_hint(model, fetch),
        ServiceError::Failed(failed) => format!("its whole log: fusion {} log", failed.runtime),
        ServiceError::Unhealthy { runtime, .. } => {
            format!("its log: fusion {runtime} log; to start it anew: fusion {runtime} restart")
        }
        ServiceError::CannotGenerate { runtime, started_by: StartedBy::Fusion, .. } => {
            format!("its log: fusion {runtime} log")
        }
        ServiceError::NotOurs { .. } => "end it the way it was started".to_owned(),
        ServiceError::NotRunning { runtime, state: State::Starting } => {
            format!("wait until it is ready: fusion {runtime} up")
        }
        ServiceError::NotRunning { runtime, .. } => format!("start it: fusion {runtime} up"),
        ServiceError::Undead { .. } => {
            "the kernel does not let go of them, most often because of a device or a network disk; try again later"
                .to_owned()
        }
        _ => return None,
    })
}

fn process(error: &ProcessError) -> Failure {
    let exit = match error {
        ProcessError::ProgramMissing { .. }
        | ProcessError::InterpreterMissing { .. }
        | ProcessError::CannotRun { .. } => Exit::NotInstalled,
        _ => Exit::Failed,
    };
    let hint = match error {
        ProcessError::ProgramMissing { .. } | ProcessError::InterpreterMissing { .. } => {
            Some("install it again")
        }
        ProcessError::CannotRun { .. } => Some("is it a program for this machine, and executable?"),
        ProcessError::Log(file) => file_hint(file),
        ProcessError::Signal { .. } => Some("it belongs to another user: end it as that user, or as root"),
        ProcessError::Ourselves { .. } => Some("run the command where the runtime did not start it"),
        ProcessError::Resolve { .. } => Some("is `host` in the configuration the name of this machine?"),
        ProcessError::DirectoryMissing { .. } | ProcessError::System { .. } => None,
    };
    Failure { hint: hint.map(str::to_owned), ..Failure::of(exit, error) }
}

fn record(error: &RecordError) -> Failure {
    let hint = match error {
        RecordError::Newer { .. } => Some("use the newer fusion that wrote it"),
        RecordError::Damaged { .. } => {
            Some("remove the file; what of it still runs will be shown as external, and is yours to end")
        }
        RecordError::File(file) => file_hint(file),
        RecordError::Random(_) | RecordError::Encode(_) => None,
    };
    Failure { hint: hint.map(str::to_owned), ..Failure::of(Exit::Failed, error) }
}

/// The end of the log, each line marked as such.
fn tail(failed: &Failed) -> Vec<String> {
    if failed.tail.trim().is_empty() {
        return vec![format!("its log is empty: {}", failed.log.display())];
    }
    let title = format!("the end of {}:", failed.log.display());
    [title].into_iter().chain(failed.tail.lines().map(|line| format!("  | {line}"))).collect()
}
