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
    /// Load the model although it needs more memory than the machine has.
    pub force: bool,
    /// Fail if a model is not on the GPU as a whole.
    pub require_gpu: bool,
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
        self.admit_start(service, options.model.as_deref(), request.force, cancel)?;
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
        let is_ours = up.kind == UpKind::Started;
        self.finish_up(service, request, up, cancel).inspect_err(|_| {
            if is_ours {
                self.stop_failed(service);
            }
        })
    }

    /// Has a running service load the requested model, and checks where its models run.
    fn finish_up(
        &self,
        service: &ManagedService,
        request: &UpRequest,
        up: Up,
        cancel: &CancelToken,
    ) -> Result<Up, AppError> {
        if up.kind == UpKind::Launched {
            return Ok(up);
        }
        let up = match &request.model {
            Some(model) if service.runtime().is_some_and(|runtime| runtime.catalogue().is_some()) => {
                let models = self.models(service, cancel)?;
                models.ensure_loaded(&models.named(model)?, up, request.force)?
            }
            _ => up,
        };
        self.check_gpu(service, &up.endpoint, request.require_gpu, cancel)?;
        Ok(up)
    }

    /// Checks that the model with which a start would begin fits into the memory, where that is known without the
    /// server.
    pub(super) fn admit_start(
        &self,
        service: &ManagedService,
        model: Option<&str>,
        force: bool,
        cancel: &CancelToken,
    ) -> Result<(), AppError> {
        let configured = || Some(self.configured_model(service, service.server().model.as_deref()?).name);
        let Some(model) = model.map(str::to_owned).or_else(configured) else { return Ok(()) };
        let models = self.models(service, cancel);
        if models.is_ok_and(|models| models.needs_server()) {
            return Ok(());
        }
        // What runs is not started.
        match self.manager(cancel).find_endpoint(service)? {
            Some(endpoint) if endpoint.model.as_ref().is_none_or(|loaded| *loaded == model) => Ok(()),
            _ => self.admit(service, &model, None, force, cancel),
        }
    }

    /// Stops a service that this command has started in vain, also after an interrupt. That is tried; the failure that
    /// led to it is the one to be told.
    pub(super) fn stop_failed(&self, service: &ManagedService) {
        let _ = self.manager(&CancelToken::new()).down(service, &DownOptions::default());
    }
}
