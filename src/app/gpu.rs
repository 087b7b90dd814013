//! Checks that loaded models are on the GPU as a whole.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::app::App;
use super::error::AppError;
use crate::core::cancel::CancelToken;
use crate::core::events::EventKind;
use crate::core::gpu::{GpuParts, GpuShare, on_cpu};
use crate::core::helper;
use crate::core::programs::Source;
use crate::core::services::{Endpoint, ManagedService};

/// How long a program may take to list its GPUs.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

impl App {
    /// Tells which models of a running service are not on the GPU as a whole. With `required`, fails on the first.
    pub(super) fn check_gpu(
        &self,
        service: &ManagedService,
        endpoint: &Endpoint,
        required: bool,
        cancel: &CancelToken,
    ) -> Result<(), AppError> {
        let mut shares = self.manager(cancel).gpu_shares(service, endpoint);
        if required && shares.is_empty() {
            if let Some(share) = self.without_gpu(service, cancel) {
                shares.push(share);
            } else {
                let tells = service.runtime().is_some_and(|runtime| runtime.gpu_probe().is_some());
                self.events.emit(&service.name, EventKind::GpuUnknown { tells });
            }
        }
        for (model, gpu_percent) in on_cpu(&shares) {
            let model = model.to_owned();
            if required {
                return Err(AppError::NotOnGpu { service: Arc::clone(&service.name), model, gpu_percent });
            }
            self.events.emit(&service.name, EventKind::OnCpu { model, gpu_percent });
        }
        Ok(())
    }

    /// Returns the share of the loaded model, which is nothing, if the program says that it can use no GPU. A program
    /// of the user's own is not asked: it may do anything with the question.
    fn without_gpu(&self, service: &ManagedService, cancel: &CancelToken) -> Option<GpuShare> {
        let query = service.runtime()?.gpu_query()?;
        let model = self.manager(cancel).status(service).ok()?.models?.first()?.clone();
        let program = self.manager(cancel).program(service).ok()?;
        if program.source == Source::Configuration {
            return None;
        }
        let mut command = Command::new(program.path);
        command.args(query.args).env_clear().envs(self.environment.variables.iter().cloned());
        let has_gpu = (query.read)(&helper::output_of(command, QUERY_TIMEOUT, cancel)?)?;
        (!has_gpu).then_some(GpuShare { model, parts: GpuParts { on_gpu: 0, all: 1 } })
    }
}
