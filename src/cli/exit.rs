//! Every exit code, and the errors that lead to it.

use std::process::ExitCode;

use crate::app::chat::SessionError;
use crate::app::launch::LaunchError;
use crate::app::search::SearchError;
use crate::app::{AppError, RemoveError, SelectionError, ServeError};
use crate::core::api::ApiError;
use crate::core::api::chat::ChatError;
use crate::core::api::error::{ServerError, ServerErrorKind};
use crate::core::config::{ConfigError, EditError};
use crate::core::files::FileError;
use crate::core::install::InstallError;
use crate::core::models::catalogue::ModelError;
use crate::core::models::hub::search::HubError;
use crate::core::process::ProcessError;
use crate::core::programs::ProgramError;
use crate::core::schema::{SchemaError, Violation};
use crate::core::services::lock::ServiceLockError;
use crate::core::services::record::RecordError;
use crate::core::services::{ServiceError, State};

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do: already up, already down.
    Done = 0,
    /// Failed in a way not listed here.
    Failed = 1,
    /// A wrong command line, or a configuration that does not parse or validate.
    Usage = 2,
    /// The service is stopped or has exited.
    NotRunning = 3,
    NotInstalled = 4,
    PortInUse = 5,
    /// The server did not come up: it died, was not ready in time, or was refused.
    NotUp = 6,
    ModelMissing = 7,
    /// The request failed, or the response broke off.
    RequestFailed = 8,
    /// The answer was cut at the token limit (only with `--strict`).
    Truncated = 9,
    /// No data arrived within the idle timeout.
    TimedOut = 124,
    /// Interrupted by a signal. Where possible the signal is raised again instead.
    Interrupted = 130,
}

impl Exit {
    /// Returns this code, or `other` if this is `Done`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self == Self::Done { other } else { self }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Returns the exit code of what `ps` shows of one service.
pub fn of_state(state: State) -> Exit {
    match state {
        State::Ready | State::External => Exit::Done,
        State::Stopped | State::Exited => Exit::NotRunning,
        State::Starting | State::Unhealthy => Exit::Failed,
    }
}

/// Returns the exit code for a service that could not be started, stopped or observed.
pub fn of_service(error: &ServiceError) -> Exit {
    match error {
        ServiceError::PortInUse { .. }
        | ServiceError::AddressTaken { .. }
        | ServiceError::NoPort { .. }
        | ServiceError::External { .. } => Exit::PortInUse,
        ServiceError::NotConfigured { .. }
        | ServiceError::PlaceholderUnknown { .. }
        | ServiceError::NoWorkingDir { .. } => Exit::Usage,
        ServiceError::ModelMissing { .. } => Exit::ModelMissing,
        ServiceError::Model { error, .. } => of_model(error),
        ServiceError::Failed(_) | ServiceError::Unhealthy { .. } | ServiceError::StoppedMeanwhile { .. } => {
            Exit::NotUp
        }
        ServiceError::CannotGenerate { timed_out: true, .. }
        | ServiceError::NotHealthy { timed_out: true, .. } => Exit::TimedOut,
        ServiceError::CannotGenerate { .. } | ServiceError::NotHealthy { .. } => Exit::RequestFailed,
        ServiceError::Cancelled(_) => Exit::Interrupted,
        ServiceError::Program(error) => of_program(error),
        ServiceError::Process(error) => of_process(error),
        ServiceError::Lock(ServiceLockError::File(error))
        | ServiceError::Record(RecordError::File(error))
        | ServiceError::Log(error) => of_file(error),
        ServiceError::Lock(_)
        | ServiceError::Record(_)
        | ServiceError::CannotListen { .. }
        | ServiceError::StillAlive { .. }
        | ServiceError::Elsewhere { .. }
        | ServiceError::NotRunning { state: State::Starting, .. } => Exit::Failed,
        ServiceError::NotRunning { .. } => Exit::NotRunning,
    }
}

/// Returns the exit code for a file that cannot be used.
pub fn of_file(error: &FileError) -> Exit {
    if error.is_of_others() { Exit::Usage } else { Exit::Failed }
}

/// Returns the exit code for a failed operation on a process.
pub fn of_process(error: &ProcessError) -> Exit {
    match error {
        ProcessError::ProgramMissing { .. }
        | ProcessError::InterpreterMissing { .. }
        | ProcessError::CannotRun { .. } => Exit::NotInstalled,
        _ => Exit::Failed,
    }
}

/// Returns the exit code for a program that cannot be found.
pub fn of_program(_: &ProgramError) -> Exit {
    Exit::NotInstalled
}

/// Returns the exit code for a failed use case.
pub fn of_app(error: &AppError) -> Exit {
    match error {
        AppError::Service(error) => of_service(error),
        AppError::Install(error) => of_install(error),
        AppError::Gateway(error) => of_serve(error),
        AppError::Model { error, .. } => of_model(error),
        AppError::NoServiceChosen { .. } | AppError::NotPrompted { .. } | AppError::NoOwnContext { .. } => {
            Exit::Usage
        }
        AppError::NoModelChosen { .. } | AppError::NoServiceHas { .. } | AppError::WouldReplace { .. } => {
            Exit::ModelMissing
        }
        AppError::TooLarge { .. } | AppError::NotOnGpu { .. } => Exit::NotUp,
        AppError::ModelInUse { .. } | AppError::NoModels { .. } => Exit::Failed,
    }
}

/// Returns the exit code for a gateway that cannot serve.
pub fn of_serve(error: &ServeError) -> Exit {
    match error {
        ServeError::PortInUse { .. } => Exit::PortInUse,
        ServeError::NoToken { .. } | ServeError::OwnPort { .. } => Exit::Usage,
        ServeError::Listen { .. } | ServeError::Runtime(_) => Exit::Failed,
    }
}

/// Returns the exit code for an agent that is not launched.
pub fn of_launch(error: &LaunchError) -> Exit {
    match error {
        LaunchError::NotInstalled { .. } => Exit::NotInstalled,
        LaunchError::ContextTooLarge { .. } | LaunchError::FullThroughGateway { .. } => Exit::Usage,
        LaunchError::Ability(error) => of_chat(&error.source),
        LaunchError::TooOld { .. }
        | LaunchError::WindowTooSmall { .. }
        | LaunchError::NoToolCall { .. }
        | LaunchError::File(_)
        | LaunchError::Lock(_) => Exit::Failed,
    }
}

/// Returns the exit code for a search that cannot be made.
pub fn of_search(error: &SearchError) -> Exit {
    match error {
        SearchError::ToolMissing { .. } => Exit::NotInstalled,
        SearchError::NoHub { .. } => Exit::Usage,
        SearchError::Hub(error) => of_hub(error),
        SearchError::App(error) => of_app(error),
    }
}

/// Returns the exit code for a hub that does not answer.
pub fn of_hub(error: &HubError) -> Exit {
    match error {
        HubError::TooManyRequests { .. }
        | HubError::Unreachable { .. }
        | HubError::Offline { .. }
        | HubError::Failed { .. } => Exit::RequestFailed,
        HubError::ToolTooOld => Exit::Failed,
        HubError::Tool(error) => of_model(error),
    }
}

/// Returns the exit code for a session that cannot be used.
pub fn of_session(error: &SessionError) -> Exit {
    match error {
        SessionError::InvalidName { .. } | SessionError::Missing { .. } | SessionError::NoneYet { .. } => {
            Exit::Usage
        }
        SessionError::InUse { .. } | SessionError::File(_) => Exit::Failed,
    }
}

/// Returns the exit code for an instance that is not removed.
pub fn of_remove(error: &RemoveError) -> Exit {
    match error {
        RemoveError::App(error) => of_app(error),
        RemoveError::Edit(error) => of_edit(error),
        RemoveError::BuiltIn { .. } => Exit::Usage,
        RemoveError::Running { .. } | RemoveError::File { .. } => Exit::Failed,
    }
}

/// Returns the exit code for names that select no services.
pub fn of_selection(_: &SelectionError) -> Exit {
    Exit::Usage
}

/// Returns the exit code for a configuration that cannot be used.
pub fn of_config(error: &ConfigError) -> Exit {
    match error {
        ConfigError::Invalid { .. }
        | ConfigError::OfOthers(_)
        | ConfigError::NotAFile { .. }
        | ConfigError::TooLarge { .. } => Exit::Usage,
        ConfigError::Dangling { .. }
        | ConfigError::Read { .. }
        | ConfigError::Create { .. }
        | ConfigError::Lock { .. }
        | ConfigError::Locked { .. } => Exit::Failed,
    }
}

/// Returns the exit code for a configuration that was not changed.
pub fn of_edit(error: &EditError) -> Exit {
    match error {
        EditError::Config(error) => of_config(error),
        EditError::Taken { .. }
        | EditError::NotAKey { .. }
        | EditError::IsATable { .. }
        | EditError::Rejected { .. }
        | EditError::NotInATable { .. } => Exit::Usage,
        EditError::Changed { .. } | EditError::Write { .. } => Exit::Failed,
    }
}

/// Returns the exit code for a failed installation.
pub fn of_install(error: &InstallError) -> Exit {
    match error {
        InstallError::NoMethod { .. } | InstallError::ByHand { .. } | InstallError::NotOnPath { .. } => {
            Exit::NotInstalled
        }
        InstallError::Cancelled => Exit::Interrupted,
        _ => Exit::Failed,
    }
}

/// Returns the exit code for an error that a server reports.
pub fn of_server(error: &ServerError) -> Exit {
    if error.kind == ServerErrorKind::ModelMissing { Exit::ModelMissing } else { Exit::RequestFailed }
}

/// Returns the exit code for a failed operation on a model.
pub fn of_model(error: &ModelError) -> Exit {
    use ModelError as E;
    match error {
        E::NotHere { .. }
        | E::Incomplete { .. }
        | E::Unusable { .. }
        | E::NoDirectory { .. }
        | E::NoFile { .. }
        | E::NotServed { .. }
        | E::NoQuantization { .. }
        | E::Unknown { .. } => Exit::ModelMissing,
        E::Server { said, .. } => of_server(said),
        E::InvalidName { .. } => Exit::Usage,
        E::NotRunning => Exit::NotRunning,
        E::ToolMissing { .. } => Exit::NotInstalled,
        E::LoadTimedOut { .. } | E::Api(ApiError::TimedOut { .. }) => Exit::TimedOut,
        E::Network { .. } | E::Download { .. } | E::Api(_) => Exit::RequestFailed,
        E::Cancelled => Exit::Interrupted,
        E::CannotUnload
        | E::UnloadTimedOut { .. }
        | E::OwnFile { .. }
        | E::CannotKeepAlive
        | E::OwnDirectory { .. }
        | E::Unreadable { .. }
        | E::Gated { .. }
        | E::NoSpace { .. }
        | E::Offline { .. }
        | E::ToolBroken { .. }
        | E::Cache(_) => Exit::Failed,
    }
}

/// Returns the exit code for a prompt without a complete answer.
pub fn of_chat(error: &ChatError) -> Exit {
    match error {
        ChatError::Api(error) => of_api(error),
        ChatError::Server(error) => of_server(error),
        ChatError::Receiver(_) => Exit::Failed,
        _ => Exit::RequestFailed,
    }
}

/// Returns the exit code for a schema that cannot be used.
pub fn of_schema(_: &SchemaError) -> Exit {
    Exit::Usage
}

/// Returns the exit code for an answer that does not satisfy a schema.
pub fn of_violation(_: &Violation) -> Exit {
    Exit::RequestFailed
}

/// Returns the exit code for a failed request.
pub fn of_api(error: &ApiError) -> Exit {
    match error {
        ApiError::Connect { .. } => Exit::NotRunning,
        ApiError::TimedOut { .. } => Exit::TimedOut,
        ApiError::Cancelled => Exit::Interrupted,
        ApiError::Closed { .. } | ApiError::Protocol { .. } => Exit::RequestFailed,
    }
}
