//! What the placeholders of a service stand for, and its working directory.

use std::path::{Path, PathBuf};

use super::error::ServiceError;
use super::manager::ServiceManager;
use super::service::ManagedService;
use crate::core::address::Address;
use crate::core::command_line::{self, Placeholder};
use crate::core::models::expand_home;
use crate::core::process::Pid;

/// The values of the placeholders of one service.
pub(super) struct Scope<'a> {
    service: &'a ManagedService,
    address: Option<&'a Address>,
    config: PathBuf,
    project_root: Option<&'a Path>,
    home: Option<&'a Path>,
    working_dir: Option<PathBuf>,
    pid: Option<Pid>,
}

impl ServiceManager<'_> {
    /// Returns the values for a service at `address`. Fails if its working directory depends on a value that is not
    /// known.
    pub(super) fn scope<'a>(
        &'a self,
        service: &'a ManagedService,
        address: Option<&'a Address>,
        project_root: Option<&'a Path>,
    ) -> Result<Scope<'a>, ServiceError> {
        let mut scope = Scope {
            service,
            address,
            config: self.paths.config_file(),
            project_root,
            home: self.environment.home.as_deref(),
            working_dir: None,
            pid: None,
        };
        scope.working_dir = match &service.settings.instance.working_dir {
            Some(directory) => {
                let directory = scope.expand(directory)?;
                // A relative one starts at the directory of the configuration file, as every path there does.
                Some(self.paths.directory().join(expand_home(Path::new(&directory), scope.home)))
            }
            None => scope.home.map(Path::to_owned),
        };
        Ok(scope)
    }
}

impl Scope<'_> {
    /// Returns the working directory of the process; `None` if there is neither a configured one nor a home.
    pub(super) fn working_dir(&self) -> Option<&Path> {
        self.working_dir.as_deref()
    }

    /// Returns the same values for the service while its process is `pid`, in the directory in which that was started if
    /// it is known: the configured one may have changed since.
    pub(super) fn of_process(self, pid: Pid, started_in: Option<&Path>) -> Self {
        let working_dir = started_in.map(Path::to_owned).or(self.working_dir);
        Self { pid: Some(pid), working_dir, ..self }
    }

    /// Replaces the placeholders of a text of the configuration.
    pub(super) fn expand(&self, text: &str) -> Result<String, ServiceError> {
        command_line::expand(text, &|placeholder| self.value(placeholder)).map_err(|placeholder| {
            ServiceError::PlaceholderUnknown {
                service: self.service.name.clone(),
                placeholder: placeholder.text(),
                text: text.to_owned(),
            }
        })
    }

    fn value(&self, placeholder: Placeholder) -> Option<String> {
        let path = |path: Option<&Path>| path?.to_str().map(str::to_owned);
        match placeholder {
            Placeholder::Port => Some(self.address?.port.to_string()),
            Placeholder::Host => {
                let host = self.address.map_or(&self.service.server().host, |address| &address.host);
                Some(host.clone())
            }
            Placeholder::Name => Some(self.service.name.to_string()),
            Placeholder::Model => self.service.server().model.clone(),
            Placeholder::Config => path(Some(&self.config)),
            Placeholder::ProjectRoot => path(self.project_root),
            Placeholder::Home => path(self.home),
            Placeholder::WorkingDir => path(self.working_dir()),
            Placeholder::Pid => Some(self.pid?.to_string()),
        }
    }
}
