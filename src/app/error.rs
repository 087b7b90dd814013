//! [`AppError`]: facts, without advice.

use std::sync::Arc;

use super::serve::ServeError;
use crate::core::gpu::where_it_runs;
use crate::core::install::InstallError;
use crate::core::models::catalogue::{ModelError, some};
use crate::core::programs::ProgramError;
use crate::core::services::ServiceError;

/// Why a use case failed.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A service could not be started, stopped or observed. Shared, because several callers can wait for one start.
    #[error(transparent)]
    Service(#[from] Arc<ServiceError>),
    /// The gateway could not serve if it was started again.
    #[error(transparent)]
    Gateway(#[from] ServeError),
    /// The program of a service could not be installed.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// An operation on a model failed.
    #[error("{error}")]
    Model {
        service: Arc<str>,
        /// The model as the user named it.
        asked: String,
        error: Box<ModelError>,
    },
    /// No model was named, and it cannot be told which one is meant.
    #[error("no model is given, and {service} has {}", some(available))]
    NoModelChosen {
        /// The table of the configuration that may name one.
        table: String,
        service: Arc<str>,
        /// Those it has.
        available: Vec<String>,
    },
    /// The prompt names no model, and the configuration no service.
    #[error("no model is named, and no default service is set")]
    NoServiceChosen {
        /// Those that can answer prompts.
        available: Vec<Arc<str>>,
    },
    /// The service is a program that answers no prompts.
    #[error("{service} answers no prompts: it is not a model server that fusion knows")]
    NotPrompted {
        service: Arc<str>,
        /// Those that can answer prompts.
        available: Vec<Arc<str>>,
    },
    /// `[models]` sets a context, which the service cannot give to one model.
    #[error("`models.{model}.context` is set, and {service} has one context for all models")]
    NoOwnContext {
        service: Arc<str>,
        model: String,
        /// How the service gets that context, in words.
        instead: Option<String>,
    },
    /// The model needs more memory than the machine has for models.
    #[error("{service} does not load {model}: it needs more memory than this machine has for models")]
    TooLarge {
        service: Arc<str>,
        model: String,
        /// In bytes.
        needed: u64,
        /// In bytes.
        limit: u64,
    },
    /// A part of the model, or all of it, is on the CPU, and the user requires a GPU.
    #[error("{service} runs {model} {}", where_it_runs(*gpu_percent))]
    NotOnGpu {
        service: Arc<str>,
        model: String,
        /// What is on the GPU.
        gpu_percent: u64,
    },
    /// No service has the model.
    #[error("no service has the model {model}")]
    NoServiceHas {
        model: String,
        /// The first service that could download it.
        pulls: Option<Arc<str>>,
    },
    /// The model is on this machine, and its service has another one loaded.
    #[error("{service} runs with another model than {model}")]
    WouldReplace { service: Arc<str>, model: String },
    /// fusion does not manage the models of the service.
    #[error("fusion does not manage the models of {display_name}")]
    NoModels { display_name: String },
    /// The model is loaded: its server would not notice that it was removed.
    #[error("{model} is in use: {service} has loaded it")]
    ModelInUse { service: Arc<str>, model: String },
}

impl From<ServiceError> for AppError {
    fn from(error: ServiceError) -> Self {
        Self::Service(Arc::new(error))
    }
}

impl AppError {
    /// Returns whether the service runs and fusion did not start it.
    pub fn is_external(&self) -> bool {
        matches!(self, Self::Service(error) if matches!(**error, ServiceError::External { .. }))
    }

    /// Returns whether a model is not on this machine.
    pub fn is_missing_model(&self) -> bool {
        match self {
            Self::Service(error) => matches!(**error, ServiceError::ModelMissing { .. }),
            Self::Model { error, .. } => {
                matches!(**error, ModelError::NotHere { .. } | ModelError::NotServed { .. })
            }
            _ => false,
        }
    }

    /// Returns the error of a missing program, if that is the cause.
    pub fn missing_program(&self) -> Option<&ProgramError> {
        match self {
            Self::Service(error) => match &**error {
                ServiceError::Program(missing) => Some(missing),
                _ => None,
            },
            _ => None,
        }
    }
}
