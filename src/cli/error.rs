//! Every error's words and hint. The exit codes are in `exit.rs`.

mod chat;
mod install;
mod models;
mod services;

use std::io;
use std::path::Path;

use crate::app::AppError;
use crate::cli::exit::Exit;
use crate::core::config::{ConfigError, EditError, Fault, Problem};
use crate::core::files::FileError;
use crate::core::models::quoted;
use crate::core::paths::PathsError;

pub use self::chat::Asked;

/// Why a command failed, ready to be printed as `error:`, `caused by:` and `hint:` lines.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What comes before the message, such as the end of a log.
    pub details: Vec<String>,
    /// What failed; empty when it was told already or nobody is left to hear of it.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure in words.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, details: Vec::new(), message: message.into(), causes: Vec::new(), hint: None }
    }

    /// Standard output cannot be written. A closed pipe means that the reader has what it wanted.
    pub fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Done, "");
        }
        let causes = vec![error.to_string()];
        Self { causes, ..Self::new(Exit::Failed, "cannot write to standard output") }
    }

    /// A failure in the words of `error` and everything that caused it.
    pub fn of(exit: Exit, error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string);
        Self { causes: causes.collect(), ..Self::new(exit, error.to_string()) }
    }

    /// Part of a larger failure, in whose words it begins; what it was until now is the cause.
    #[must_use]
    pub fn about(mut self, message: impl Into<String>) -> Self {
        self.causes.insert(0, std::mem::replace(&mut self.message, message.into()));
        self
    }

    /// With what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Service(error) => Self::of_service(&error),
            AppError::Install(error) => error.into(),
            AppError::Model { service, asked, error } => Self::of_model(&service, &asked, &error),
            AppError::ModelInUse { ref service, .. } => {
                Self::of(Exit::Failed, &error).hint(format!("stop it first: fusion {service} down"))
            }
            AppError::NoModels { .. } => Self::of(Exit::Failed, &error),
        }
    }
}

/// What to do about a model that is not there, where `fetch` is the command that fetches one by its name.
fn missing_model_hint(model: &str, fetch: &str) -> String {
    if model.starts_with('/') {
        "a path must lead to the directory of a model".to_owned()
    } else {
        format!("fetch it: {fetch}")
    }
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::of(Exit::Usage, &error)
    }
}

impl From<PathsError> for Failure {
    fn from(error: PathsError) -> Self {
        Self::of(Exit::Failed, &error).hint("set HOME, or FUSION_CONFIG_DIR to an absolute directory")
    }
}

/// How many problems of a broken configuration are told by a command that is about something else.
const FIRST_PROBLEMS: usize = 3;

impl Failure {
    /// A configuration that cannot be used, with at most `most` of its problems. What is wrong in the file is a wrong
    /// configuration; what the system refuses is another failure.
    pub fn of_config(error: &ConfigError, most: usize) -> Self {
        let (exit, hint) = match error {
            ConfigError::Invalid { path, problems } => return Self::of_problems(path, problems, most),
            ConfigError::WritableByOthers { path } => {
                let command = format!("chmod go-w {}", quoted(&path.to_string_lossy()));
                return Self::of(Exit::Usage, error).hint(command);
            }
            ConfigError::NotAFile { .. } | ConfigError::TooLarge { .. } => {
                (Exit::Usage, "move it away; fusion makes a new one on its next use")
            }
            ConfigError::Dangling { .. } => {
                (Exit::Failed, "make the file that the link leads to, or remove the link")
            }
            ConfigError::Read { .. } | ConfigError::Create { .. } | ConfigError::Lock { .. } => {
                (Exit::Failed, "set FUSION_CONFIG_DIR to a directory that you can read and write")
            }
            ConfigError::Locked { .. } => (Exit::Failed, "try again when it has ended"),
        };
        Self::of(exit, error).hint(hint)
    }

    fn of_problems(path: &Path, problems: &[Problem], most: usize) -> Self {
        let line =
            |problem: &Problem| format!("{}:{}:{}: {problem}", path.display(), problem.line, problem.column);
        let mut failure = match problems {
            [problem] => Self::new(Exit::Usage, line(problem)),
            _ => Self::new(Exit::Usage, format!("{} has {} problems", path.display(), problems.len())),
        };
        if problems.len() > 1 {
            failure.causes = problems.iter().take(most).map(line).collect();
        }
        failure.hint(if problems.len() > most {
            "`fusion config check` lists them all, `fusion config edit` opens the file"
        } else {
            "`fusion config edit` opens the file"
        })
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::of_config(&error, FIRST_PROBLEMS)
    }
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        let shows_keys = "`fusion config show --effective` shows every key";
        let (exit, hint) = match &error {
            EditError::Config(_) => (Exit::Usage, None),
            EditError::NotAKey { .. } | EditError::IsATable { .. } => (Exit::Usage, Some(shows_keys)),
            EditError::Rejected { fault, .. } => {
                (Exit::Usage, matches!(fault, Fault::Unknown { .. }).then_some(shows_keys))
            }
            EditError::NotInATable { .. } => (Exit::Usage, Some("`fusion config edit` opens the file")),
            EditError::Changed { .. } | EditError::Write { .. } => (Exit::Failed, None),
        };
        match error {
            EditError::Config(error) => error.into(),
            error => Self { hint: hint.map(str::to_owned), ..Self::of(exit, &error) },
        }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let hint = file_hint(&error).map(str::to_owned);
        Self { hint, ..Self::of(Exit::Failed, &error) }
    }
}

/// What to do about a file that is not used.
fn file_hint(error: &FileError) -> Option<&'static str> {
    match error {
        FileError::SymbolicLink { .. } => {
            Some("remove the link: fusion follows none here, for it could lead anywhere")
        }
        FileError::AnotherOwner { .. } => Some("run the command as that user, or move the file away"),
        FileError::NotAFile { .. } | FileError::TooLarge { .. } => Some("move it away"),
        FileError::Io { .. } => None,
    }
}
