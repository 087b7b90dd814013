//! `up`: makes a service ready with the requested model, which is downloaded and loaded.

use super::app::App;
use super::error::AppError;
use super::models::Named;
use crate::core::cancel::CancelToken;
use crate::core::services::{DownOptions, ManagedService, ServiceError, Up, UpKind, UpOptions};

/// The parameters of `up`.
#[derive(Debug, Clone, Default)]
pub struct UpRequest {
    pub options: UpOptions,
    /// Install the program if it is missing.
    pub install: bool,
    /// The model to load, as the user named it; downloaded if it is missing. `None` downloads nothing.
    pub model: Option<String>,
}

impl App {
    /// Starts the service if needed, and loads the requested model.
    pub fn up(
        &self,
        service: &ManagedService,
        request: &UpRequest,
        cancel: &CancelToken,
    ) -> Result<Up, AppError> {
        let mut options = request.options.clone();
        if let Some(asked) = &request.model {
            let model = self.model(service, asked);
            self.check_model_name(service, asked, &model.name)?;
            self.check_model_settings(service, &model.name)?;
            options.model = Some(model.name);
        }
        let start = || self.start(service, &options, request.install, cancel);
        let up = match start() {
            Err(AppError::Service(error)) if request.model.is_some() => match &*error {
                ServiceError::Model { model, error: reason, .. } if reason.is_pullable() => {
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
                let is_ours = up.kind == UpKind::Started;
                models.named(model).and_then(|model| models.ensure_loaded(&model, up)).inspect_err(|_| {
                    if is_ours {
                        self.stop_failed(service);
                    }
                })
            }
            _ => Ok(up),
        }
    }

    /// Stops a service that this command has started in vain, also after an interrupt. That is tried; the failure that
    /// led to it is the one to be told.
    fn stop_failed(&self, service: &ManagedService) {
        let _ = self.manager(&CancelToken::new()).down(service, &DownOptions::default());
    }
}
