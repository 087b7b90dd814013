//! What may be wrong with this machine, this configuration and these services: facts, without advice.

use std::path::{Path, PathBuf};

use crate::core::address::Address;
use crate::core::config::ConfigError;
use crate::core::install;
use crate::core::login::{self, LoginManager, Places, Session};
use crate::core::machine::{self, Memory};
use crate::core::models::ModelPlaces;
use crate::core::programs::{self, Program, ProgramError, Source};
use crate::core::runtimes::{InstallMethod, Runtime};
use crate::core::services::{ManagedService, ServiceError, ServiceManager, Status};

/// One thing that was looked at.
pub enum Finding {
    /// The configuration is as it should be.
    Configuration {
        /// The file.
        path: PathBuf,
    },
    /// The configuration has mistakes; what else was found follows its sound part.
    BrokenConfiguration(ConfigError),
    /// How much space there is for programs, logs or models.
    Disk {
        /// The directory on the disk.
        directory: PathBuf,
        /// Bytes that this user may still write; `None` when the system does not tell.
        free: Option<u64>,
    },
    /// The machine's memory; `None` when the system does not tell.
    Memory(Option<Memory>),
    /// What logging out does to what was started; `None` when nobody watches over logins.
    Logout(Option<Session>),
    /// The program of a runtime.
    Program {
        service: ManagedService,
        /// Which it is.
        program: Program,
        /// Its version, where that can be told without running it.
        version: Option<String>,
        /// Whether that is one of those known to work; `None` when that cannot be told.
        known: Option<bool>,
    },
    /// A runtime has no program.
    NoProgram {
        service: ManagedService,
        /// Why.
        reason: ProgramError,
        /// Whether something needs it: it is to be started by itself, or there is no other runtime.
        needed: bool,
    },
    /// An installation was begun and not finished.
    Unfinished {
        service: ManagedService,
        /// What it left.
        directory: PathBuf,
    },
    /// What a runtime is doing, and who has its address.
    Service {
        service: ManagedService,
        /// As `ps` shows it.
        status: Box<Result<Status, ServiceError>>,
        /// Whether it has a program, so that its address matters.
        installed: bool,
    },
    /// A server without authentication is to be reachable from other machines.
    Exposed {
        service: ManagedService,
        /// Where it listens.
        address: Address,
    },
    /// A runtime is started at login.
    AtLogin {
        service: ManagedService,
        /// The file that says so.
        file: PathBuf,
        /// Whether what is started there survives the user's last logout; `None` when the system does not tell.
        lingers: Option<bool>,
    },
}

/// What is looked at.
pub struct Examination<'a> {
    /// Every service, with the valid part of the configuration.
    pub services: &'a [ManagedService],
    /// What observes them.
    pub manager: &'a ServiceManager<'a>,
    /// What is wrong with the configuration.
    pub broken: Option<ConfigError>,
    /// Where this user's jobs lie, if there is a home.
    pub places: Option<Places>,
    /// The user's name.
    pub user: Option<String>,
}

impl Examination<'_> {
    /// Examines everything, the machine first, then one service after the other.
    pub fn findings(mut self) -> Vec<Finding> {
        let session = self.session();
        let mut findings = self.machine(session);
        let services = self.services;
        let statuses = self.manager.status_of_all(services);
        let programs: Vec<_> = services.iter().map(|service| self.manager.program(service)).collect();
        let any = programs.iter().any(Result::is_ok);
        for ((service, status), program) in services.iter().zip(statuses).zip(programs) {
            findings.extend(self.service(service, status, program, any, session));
        }
        findings
    }

    fn session(&self) -> Option<Session> {
        let name = self.user.as_deref().unwrap_or_default();
        login::session(self.manager.environment.path.as_deref(), self.places.as_ref()?.user, name)
    }

    fn machine(&mut self, session: Option<Session>) -> Vec<Finding> {
        let configuration = match self.broken.take() {
            Some(error) => Finding::BrokenConfiguration(error),
            None => Finding::Configuration { path: self.manager.paths.config_file() },
        };
        let mut findings = vec![configuration];
        findings.extend(self.disks().into_iter().map(|directory| {
            let free = machine::free_space(&directory).ok();
            Finding::Disk { directory, free }
        }));
        findings.push(Finding::Memory(machine::memory()));
        findings.push(Finding::Logout(session));
        findings
    }

    /// Where fusion writes and where the models of each runtime are downloaded to; one directory for each disk.
    fn disks(&self) -> Vec<PathBuf> {
        let manager = self.manager;
        let mut directories = vec![manager.paths.directory().to_owned()];
        for service in self.services {
            let env = &service.server().env;
            let models = ModelPlaces::discover(manager.environment, manager.paths, env).hub_cache;
            let is_new = |models: &PathBuf| directories.iter().all(|known| device(known) != device(models));
            directories.extend(models.filter(is_new));
        }
        directories
    }

    fn service(
        &self,
        service: &ManagedService,
        status: Result<Status, ServiceError>,
        program: Result<Program, ProgramError>,
        any: bool,
        session: Option<Session>,
    ) -> Vec<Finding> {
        let owned = || service.clone();
        let at_login = self.places.as_ref().and_then(|places| {
            let manager = LoginManager::native();
            login::is_enabled(manager, &service.name, places).then(|| manager.file(&service.name, places))
        });
        let installed = program.is_ok();
        let mut findings = vec![match program {
            Ok(program) => {
                let runtime = service.runtime();
                let version = runtime.and_then(|runtime| programs::version(runtime, &program));
                let known = runtime.zip(version.as_deref());
                let known = known.and_then(|(runtime, version)| known_version(runtime, &program, version));
                Finding::Program { service: owned(), program, version, known }
            }
            Err(reason) => {
                let configured = !matches!(reason, ProgramError::NotInstalled { .. });
                let needed = configured || service.server().auto_start || at_login.is_some() || !any;
                Finding::NoProgram { service: owned(), reason, needed }
            }
        }];
        let runtime = service.runtime();
        let unfinished =
            runtime.and_then(|runtime| install::unfinished(&service.files.installation, runtime));
        findings.extend(unfinished.map(|directory| Finding::Unfinished { service: owned(), directory }));
        findings.push(Finding::Service { service: owned(), status: Box::new(status), installed });
        let address = &service.server().address;
        if !address.is_loopback() {
            findings.push(Finding::Exposed { service: owned(), address: address.clone() });
        }
        findings.extend(at_login.map(|file| Finding::AtLogin {
            service: owned(),
            file,
            lingers: session.and_then(|session| session.lingers),
        }));
        findings
    }
}

/// What is in fusion's own installation was chosen among the known versions.
fn known_version(runtime: &dyn Runtime, program: &Program, version: &str) -> Option<bool> {
    match runtime.install_method() {
        Some(InstallMethod::Python(package)) if program.source != Source::Installation => {
            Some(package.knows(version))
        }
        _ => None,
    }
}

/// The disk of a path, which need not exist yet.
fn device(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    machine::nearest_existing(path).metadata().ok().map(|metadata| metadata.dev())
}
