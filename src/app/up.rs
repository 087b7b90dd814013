//! `up`: have a service ready with the model that was asked for, which is downloaded and loaded.

use super::app::App;
use super::error::AppError;
use super::models::{Named, is_pullable};
use crate::core::cancel::CancelToken;
use crate::core::services::{ManagedService, ServiceError, Up, UpOptions};

/// What `up` is asked for.
#[derive(Debug, Clone, Default)]
pub struct UpRequest {
    /// How to start.
    pub options: UpOptions,
    /// Install the program first if it is missing.
    pub install: bool,
    /// The model that is to be loaded, as the user names it; downloaded first if it is missing. Without it, nothing is
    /// downloaded.
    pub model: Option<String>,
}

impl App {
    /// Has the service up, with the model that was asked for.
    pub fn up(
        &self,
        service: &ManagedService,
        request: &UpRequest,
        cancel: &CancelToken,
    ) -> Result<Up, AppError> {
        let mut options = request.options.clone();
        options.model = request.model.as_deref().map(|model| self.model(service, model).name);
        let start = || self.start(service, &options, request.install, cancel);
        let up = match start() {
            Err(AppError::Service(error)) if request.model.is_some() => match &*error {
                ServiceError::Model { model, error: reason, .. } if is_pullable(reason) => {
                    self.models(service, cancel)?.pull(&Named::resolved(model), false)?;
                    start()?
                }
                _ => return Err(error.into()),
            },
            other => other?,
        };
        match &request.model {
            Some(model) if service.runtime().is_some_and(|runtime| runtime.catalogue().is_some()) => {
                let models = self.models(service, cancel)?;
                models.ensure_loaded(&models.named(model), up)
            }
            _ => Ok(up),
        }
    }
}
