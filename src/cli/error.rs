//! The message and hint of every error.
//!
//! The exit codes are in `exit.rs`.

mod chat;
mod install;
mod launch;
mod models;
mod schema;
mod search;
mod serve;
mod services;
mod sessions;

use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::slice;

use crate::app::{AppError, RemoveError, SelectionError};
use crate::cli::exit::{self, Exit};
use crate::cli::units::bytes;
use crate::core::config::{ConfigError, EditError, Fault, Problem};
use crate::core::files::FileError;
use crate::core::models::quoted;
use crate::core::paths::PathsError;

pub use self::chat::{Asked, loaded_model_hint};
pub use self::services::other_port;

/// Why a command failed, ready to be printed as `error:`, `caused by:` and `hint:` lines. Boxed, for most functions
/// return it.
#[derive(Debug)]
pub struct Failure(Box<FailureLines>);

#[derive(Debug, Clone)]
pub struct FailureLines {
    pub exit: Exit,
    /// Lines before the message, such as the end of a log.
    pub details: Vec<String>,
    /// What failed; empty if nothing is to be printed.
    pub message: String,
    /// The causes, outermost first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl Deref for Failure {
    type Target = FailureLines;

    fn deref(&self) -> &FailureLines {
        &self.0
    }
}

impl DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut FailureLines {
        &mut self.0
    }
}

impl From<FailureLines> for Failure {
    fn from(lines: FailureLines) -> Self {
        Self(Box::new(lines))
    }
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        let message = message.into();
        FailureLines { exit, details: Vec::new(), message, causes: Vec::new(), hint: None }.into()
    }

    /// Returns the failure to write to standard output. A closed pipe is not a failure: its reader has read enough.
    pub fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Done, "");
        }
        let causes = vec![error.to_string()];
        Self::new(Exit::Failed, "cannot write to standard output").caused_by(causes)
    }

    /// Returns a failure with the message of `error` and its causes.
    pub fn of(exit: Exit, error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string);
        Self::new(exit, error.to_string()).caused_by(causes.collect())
    }

    /// Returns the message and its causes.
    pub fn facts(&self, separator: &str) -> String {
        [slice::from_ref(&self.message), &self.causes].concat().join(separator)
    }

    /// Replaces the causes.
    #[must_use]
    pub fn caused_by(mut self, causes: Vec<String>) -> Self {
        self.causes = causes;
        self
    }

    /// Replaces the message; the old message becomes the first cause.
    #[must_use]
    pub fn about(mut self, message: impl Into<String>) -> Self {
        let message = std::mem::replace(&mut self.message, message.into());
        self.causes.insert(0, message);
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Replaces the hint.
    #[must_use]
    pub fn hint_or_none(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        let exit = exit::of_app(&error);
        match error {
            AppError::Service(error) => Self::of_service(&error),
            AppError::Install(error) => error.into(),
            AppError::Gateway(error) => error.into(),
            AppError::Model { service, asked, error } => Self::of_model(&service, &asked, &error),
            AppError::ModelInUse { ref service, .. } => {
                Self::of(exit, &error).hint(format!("stop the server first: fusion {service} down"))
            }
            AppError::NoModelChosen { ref service, ref table, ref available } => {
                let hint = match available.first() {
                    Some(first) => format!(
                        "name one with --model, or: fusion config set {table}.model {}",
                        quoted(first)
                    ),
                    None => format!("download one: fusion {service} pull NAME"),
                };
                Self::of(exit, &error).hint(hint)
            }
            AppError::NoServiceChosen { ref available } | AppError::NotPrompted { ref available, .. } => {
                let first = available.first().map_or("NAME", |name| name);
                let hint = format!(
                    "set one: fusion config set default_service {first}; or name a model with --model"
                );
                Self::of(exit, &error).hint(hint)
            }
            AppError::TooLarge { needed, limit, .. } => {
                let numbers = format!("it needs about {}, and there are {}", bytes(needed), bytes(limit));
                Self::of(exit, &error)
                    .caused_by(vec![numbers])
                    .hint("choose a smaller model or quantization; or load it all the same with --force")
            }
            AppError::NotOnGpu { .. } => Self::of(exit, &error)
                .hint("free memory of the GPU, choose a smaller model or a shorter context, or leave out --require-gpu"),
            AppError::NoOwnContext { ref instead, .. } => {
                Self::of(exit, &error).hint_or_none(instead.clone())
            }
            AppError::NoServiceHas { ref model, pulls: Some(ref service) } => {
                let hint = format!("download it: fusion {service} pull {}", quoted(model));
                Self::of(exit, &error).hint(hint)
            }
            AppError::WouldReplace { ref service, ref model } => {
                let hint = format!("load it in place of that one: fusion {service} run -m {}", quoted(model));
                Self::of(exit, &error).hint(hint)
            }
            AppError::NoServiceHas { pulls: None, .. } | AppError::NoModels { .. } => Self::of(exit, &error),
        }
    }
}

/// Returns the hint for a missing model; `pull` is the command that downloads it.
fn missing_model_hint(model: &str, pull: &str) -> String {
    if model.starts_with('/') { "check the path".to_owned() } else { format!("download it: {pull}") }
}

impl From<RemoveError> for Failure {
    fn from(error: RemoveError) -> Self {
        let exit = exit::of_remove(&error);
        let hint = match error {
            RemoveError::App(error) => return error.into(),
            RemoveError::Edit(error) => return error.into(),
            RemoveError::Running { ref service, .. } => format!("stop it first: fusion {service} down"),
            RemoveError::BuiltIn { ref table, .. } => {
                format!("restore its defaults: fusion config unset {table}.KEY")
            }
            RemoveError::File { .. } => return Self::of(exit, &error),
        };
        Self::of(exit, &error).hint(hint)
    }
}

impl From<SelectionError> for Failure {
    fn from(error: SelectionError) -> Self {
        let hint = match error {
            SelectionError::NoService { .. } => "list the services: fusion ps",
            SelectionError::NoTemplate { .. } => "list the templates: fusion templates",
        };
        Self::of(exit::of_selection(&error), &error).hint(hint)
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

/// How many problems of an invalid configuration a command prints that is not about the configuration.
const MAX_PROBLEMS: usize = 3;

impl Failure {
    /// Returns the failure of an invalid configuration, with at most `max_problems` of its problems.
    pub fn of_config(error: &ConfigError, max_problems: usize) -> Self {
        let exit = exit::of_config(error);
        let hint = match error {
            ConfigError::Invalid { path, problems } => {
                return Self::of_problems(path, problems, max_problems);
            }
            ConfigError::OfOthers(file) => return Self::of(exit, error).hint_or_none(file_hint(file)),
            ConfigError::NotAFile { .. } | ConfigError::TooLarge { .. } => {
                "move it away; the next fusion command creates a new one"
            }
            ConfigError::Dangling { .. } => "create the file that the link points to, or remove the link",
            ConfigError::Read { .. } | ConfigError::Create { .. } | ConfigError::Lock { .. } => {
                "set FUSION_CONFIG_DIR to a directory that you can read and write"
            }
            ConfigError::Locked { .. } => "try again when that command has ended",
        };
        Self::of(exit, error).hint(hint)
    }

    fn of_problems(path: &Path, problems: &[Problem], max_problems: usize) -> Self {
        let line =
            |problem: &Problem| format!("{}:{}:{}: {problem}", path.display(), problem.line, problem.column);
        let mut failure = match problems {
            [problem] => Self::new(Exit::Usage, line(problem)),
            _ => Self::new(Exit::Usage, format!("{} has {} problems", path.display(), problems.len())),
        };
        if problems.len() > 1 {
            failure.causes = problems.iter().take(max_problems).map(line).collect();
        }
        failure.hint(if problems.len() > max_problems {
            "list all problems: fusion config check; edit the file: fusion config edit"
        } else {
            "edit the file: fusion config edit"
        })
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::of_config(&error, MAX_PROBLEMS)
    }
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        let shows_keys = "see every key: fusion config show --effective";
        let exit = exit::of_edit(&error);
        let makes_it;
        let hint = match &error {
            EditError::NotAKey { .. }
            | EditError::IsATable { .. }
            | EditError::Rejected { fault: Fault::Unknown { .. }, .. } => Some(shows_keys),
            EditError::Taken { .. } => Some("choose another name; list the services: fusion ps"),
            EditError::Rejected {
                fault: Fault::NoSuch { what: "instance", name, near: false, .. }, ..
            } => {
                makes_it = format!("make it: fusion create {} --template TEMPLATE", quoted(name));
                Some(&*makes_it)
            }
            EditError::NotInATable { .. } => Some("edit the file: fusion config edit"),
            EditError::Rejected { .. }
            | EditError::Config(_)
            | EditError::Changed { .. }
            | EditError::Write { .. } => None,
        };
        match error {
            EditError::Config(error) => error.into(),
            error => Self::of(exit, &error).hint_or_none(hint.map(str::to_owned)),
        }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::of(exit::of_file(&error), &error).hint_or_none(file_hint(&error))
    }
}

/// Returns the hint for a file that fusion refuses to use.
fn file_hint(error: &FileError) -> Option<String> {
    let hint = match error {
        FileError::WritableByOthers { path } => {
            return Some(format!("chmod go-w {}", quoted(&path.to_string_lossy())));
        }
        FileError::SymbolicLink { .. } => {
            "remove the link: fusion follows no links there, because they can point anywhere"
        }
        FileError::AnotherOwner { .. } => "run the command as its owner, or move it away",
        FileError::NotAFile { .. } | FileError::TooLarge { .. } => "move it away",
        FileError::Io { .. } => return None,
    };
    Some(hint.to_owned())
}
