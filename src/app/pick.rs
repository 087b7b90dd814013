//! Picks the service that answers a prompt, where neither the user nor a client names one.
//!
//! Never swaps or downloads.

use std::sync::Arc;

use super::app::App;
use super::error::AppError;
use super::models::served;
use crate::core::cancel::CancelToken;
use crate::core::config::SavedPrompt;
use crate::core::models::Model;
use crate::core::services::{ManagedService, State, Status};

/// How a service and a model fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The service has the model: it answers with it, or would if it were started.
    Serves,
    /// The model is on this machine, and the service is configured with another one. Stopped, it can be started with
    /// this one.
    CouldServe,
    /// Only the server knows its models, and it is not running.
    Unknown,
    /// The model is on this machine, and the server would have to unload another one for it.
    WouldReplace,
    /// The service does not have the model.
    No,
}

/// What is known of a service that could answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub fit: Fit,
    pub is_running: bool,
}

/// Returns the index of the service to ask: of those that have the model the running one, then the first.
pub fn pick(candidates: &[Candidate]) -> Option<usize> {
    let rank = |candidate: &Candidate| match (candidate.fit, candidate.is_running) {
        (Fit::Serves, true) => Some(0),
        (Fit::Serves, false) => Some(1),
        (Fit::CouldServe, _) => Some(2),
        (Fit::Unknown, _) => Some(3),
        (Fit::WouldReplace | Fit::No, _) => None,
    };
    let ranked = candidates.iter().enumerate().filter_map(|(index, each)| Some((rank(each)?, index)));
    ranked.min().map(|(_, index)| index)
}

/// A service, and its status if that was needed to pick it and the service runs.
pub type Picked<'a> = (&'a ManagedService, Option<Status>);

impl App {
    /// Returns the service that has the model, which the user wrote as `asked` and `resolve` returns by each service's
    /// name for it: of several the running one, then the first. Starts nothing.
    pub fn pick(
        &self,
        asked: &str,
        resolve: &dyn Fn(&ManagedService) -> Model,
        cancel: &CancelToken,
    ) -> Result<Picked<'_>, AppError> {
        let services: Vec<&ManagedService> = self.prompted().collect();
        let (candidates, mut running) = self.candidates(&services, resolve, cancel);
        if let Some(index) = pick(&candidates) {
            return Ok((services[index], running.swap_remove(index)));
        }
        let blocked = candidates.iter().position(|candidate| candidate.fit == Fit::WouldReplace);
        let (service, model) = (|index: usize| Arc::clone(&services[index].name), asked.to_owned());
        if let Some(index) = blocked {
            return Err(AppError::WouldReplace { service: service(index), model });
        }
        let check = |service: &&ManagedService| self.check_model_name(service, asked, &resolve(service).name);
        let pulls = services.iter().position(|service| check(service).is_ok());
        if pulls.is_none() {
            services.first().map_or(Ok(()), check)?;
        }
        Err(AppError::NoServiceHas { model, pulls: pulls.map(service) })
    }

    /// Returns the service for a prompt that names none: the one that has the model of the command line, else of the
    /// saved prompt; `default_service` if neither names a model.
    pub fn service_for(
        &self,
        model: Option<&str>,
        saved: Option<&SavedPrompt>,
        cancel: &CancelToken,
    ) -> Result<Picked<'_>, AppError> {
        if let Some(name) = model {
            return self.pick(name, &|service| self.model(service, name), cancel);
        }
        if let Some(name) = saved.and_then(|prompt| prompt.model.as_deref()) {
            return self.pick(name, &|service| self.configured_model(service, name), cancel);
        }
        let names = || self.prompted().map(|service| Arc::clone(&service.name)).collect();
        let Some(name) = &self.config.default_service else {
            return Err(AppError::NoServiceChosen { available: names() });
        };
        self.prompted()
            .find(|service| *service.name == **name)
            .map(|service| (service, None))
            .ok_or_else(|| AppError::NotPrompted { service: name.as_str().into(), available: names() })
    }

    /// Returns the services that can answer prompts, in the order of the file.
    fn prompted(&self) -> impl Iterator<Item = &ManagedService> {
        self.services().iter().filter(|service| service.runtime().is_some())
    }

    /// Returns how each service and the model that `resolve` returns for it fit together, and the status of each that
    /// runs. Starts nothing.
    fn candidates(
        &self,
        services: &[&ManagedService],
        resolve: &dyn Fn(&ManagedService) -> Model,
        cancel: &CancelToken,
    ) -> (Vec<Candidate>, Vec<Option<Status>>) {
        let owned: Vec<ManagedService> = services.iter().map(|service| (*service).clone()).collect();
        let statuses = self.manager(cancel).status_of_all(&owned);
        let with_status = services.iter().zip(statuses);
        let candidate = |(service, status): (&&ManagedService, Result<Status, _>)| {
            let model = resolve(service);
            let running = status.ok().filter(|status| matches!(status.state, State::Ready | State::External));
            let fit = match &running {
                Some(status) => self.fit_running(service, status, &model, cancel),
                None => self.fit_stopped(service, &model),
            };
            (Candidate { fit, is_running: running.is_some() }, running)
        };
        with_status.map(candidate).unzip()
    }

    fn fit_running(
        &self,
        service: &ManagedService,
        status: &Status,
        model: &Model,
        cancel: &CancelToken,
    ) -> Fit {
        let Ok(models) = self.models(service, cancel) else { return Fit::No };
        let names = service.runtime().and_then(|runtime| served(runtime, status.address.as_ref()?));
        let has = match names {
            Some(names) => Some(names.contains(&model.name)),
            None => status
                .address
                .as_ref()
                .filter(|_| models.needs_server())
                .map(|address| models.lists(address, &model.name)),
        };
        if let Some(has) = has {
            return if has { Fit::Serves } else { Fit::No };
        }
        // Of a server that fusion did not start, the configured model is presumed to be the loaded one.
        let loaded =
            status.models.clone().unwrap_or_else(|| self.started_with(service).into_iter().collect());
        match model.present {
            _ if loaded.contains(&model.name) => Fit::Serves,
            Some(false) => Fit::No,
            _ => Fit::WouldReplace,
        }
    }

    fn fit_stopped(&self, service: &ManagedService, model: &Model) -> Fit {
        if service.runtime().is_none_or(|runtime| !runtime.is_model_name(&model.name)) {
            return Fit::No;
        }
        match (self.is_present(service, model), self.started_with(service)) {
            (None, _) => Fit::Unknown,
            (Some(false), _) => Fit::No,
            (Some(true), Some(configured)) if configured != model.name => Fit::CouldServe,
            (Some(true), _) => Fit::Serves,
        }
    }

    /// Returns whether a service that does not run has the model; `None` if only its server knows.
    fn is_present(&self, service: &ManagedService, model: &Model) -> Option<bool> {
        let is_same =
            |name: &String| service.runtime().is_some_and(|runtime| runtime.is_same_model(name, &model.name));
        let stored = || Some(service.stored_models(&self.environment)?.iter().any(is_same));
        model.present.or_else(stored)
    }

    /// Returns the model with which a server of one model is started.
    fn started_with(&self, service: &ManagedService) -> Option<String> {
        let configured = service.server().model.as_deref()?;
        Some(self.configured_model(service, configured).name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_service_with_the_model_is_picked() {
        use Fit::{CouldServe, No, Serves, Unknown, WouldReplace};
        let (running, stopped) = (true, false);
        for (services, picked) in [
            (&[][..], None),
            (&[(Serves, stopped)], Some(0)),
            (&[(Serves, stopped), (Serves, running)], Some(1)),
            (&[(Serves, running), (Serves, running)], Some(0)),
            (&[(Serves, stopped), (Serves, stopped)], Some(0)),
            // Started with its own model rather than with another one.
            (&[(CouldServe, stopped), (Serves, stopped)], Some(1)),
            (&[(Unknown, stopped), (CouldServe, stopped)], Some(1)),
            (&[(Unknown, stopped), (Unknown, stopped)], Some(0)),
            (&[(No, running), (Unknown, stopped)], Some(1)),
            // Nothing is unloaded unasked.
            (&[(WouldReplace, running), (CouldServe, stopped)], Some(1)),
            (&[(WouldReplace, running), (No, running)], None),
            (&[(No, stopped)], None),
        ] {
            let candidates: Vec<_> =
                services.iter().map(|&(fit, is_running)| Candidate { fit, is_running }).collect();
            assert_eq!(pick(&candidates), picked, "{services:?}");
        }
    }
}
