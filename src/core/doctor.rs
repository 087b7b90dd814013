//! Checks this machine, its configuration and its services.
//!
//! Returns facts, without advice.

use std::path::{Path, PathBuf};

use crate::core::address::Address;
use crate::core::config::ConfigError;
use crate::core::events::VariableNotice;
use crate::core::gpu;
use crate::core::install::{self, InstallError};
use crate::core::login::{self, LoginManager, Places, Session};
use crate::core::machine::{self, Memory};
use crate::core::models::ModelPlaces;
use crate::core::programs::{self, Program, ProgramError, Source};
use crate::core::runtimes::{InstallMethod, Runtime};
use crate::core::services::{ManagedService, ServiceError, ServiceManager, Status};

/// The result of one check.
pub enum Finding {
    /// The configuration is valid.
    Configuration { path: PathBuf },
    /// The configuration has errors; the other findings use its valid part.
    BrokenConfiguration(ConfigError),
    /// The free disk space for programs, logs or models.
    Disk {
        /// The directory on the disk.
        directory: PathBuf,
        /// Bytes that this user may still write; `None` if the system does not report it.
        free: Option<u64>,
    },
    /// The machine's memory; `None` if the system does not report it.
    Memory(Option<Memory>),
    /// The effect of logging out on running services; `None` if no manager watches logins.
    Logout(Option<Session>),
    Program {
        service: ManagedService,
        program: Program,
        /// Its version, if it can be read without running the program.
        version: Option<String>,
        /// Whether this is a supported version; `None` if unknown.
        known: Option<bool>,
    },
    /// A loaded model of which a part, or all, is on the CPU.
    OnCpu {
        service: ManagedService,
        model: String,
        /// What is on the GPU.
        gpu_percent: u64,
    },
    /// The program of a runtime is missing.
    NoProgram {
        service: ManagedService,
        reason: ProgramError,
        /// Whether it is needed: the service starts automatically, or no other runtime is installed.
        needed: bool,
        /// Why it cannot be installed on this machine, if that is so.
        refused: Option<InstallError>,
    },
    /// The working directory of an instance is missing, or depends on a value that is not known.
    NoWorkingDir { service: ManagedService, error: ServiceError },
    /// An installation was interrupted.
    Unfinished {
        service: ManagedService,
        /// Its directory.
        directory: PathBuf,
    },
    /// The state of a service, and the listener on its port.
    Service {
        service: ManagedService,
        /// The status as in `ps`.
        status: Box<Result<Status, ServiceError>>,
        /// A port on which it could listen, if another process listens on its own.
        spare: Option<u16>,
        /// Whether its program is installed, so its port matters.
        installed: bool,
    },
    /// Other machines can reach the server, which has no authentication.
    Exposed { service: ManagedService, address: Address },
    /// The service is started at login.
    AtLogin {
        service: ManagedService,
        /// The file of its job.
        file: PathBuf,
        /// Whether the service survives the user's last logout; `None` if the system does not report it.
        lingers: Option<bool>,
        /// Whether the user has switched the job off in the system's settings.
        is_switched_off: bool,
    },
    /// A variable of the server's environment does not do what the user expects.
    Variable { service: ManagedService, notice: VariableNotice },
    /// A macOS application ends the servers of this kind that it did not start.
    Application { service: ManagedService, path: PathBuf },
}

/// The input of the checks.
pub struct Examination<'a> {
    /// Every service, with the valid part of the configuration.
    pub services: &'a [ManagedService],
    pub manager: &'a ServiceManager<'a>,
    /// The errors of the configuration.
    pub broken: Option<ConfigError>,
    /// The directories of this user's jobs, if there is a home directory.
    pub places: Option<Places>,
    pub user: Option<String>,
}

impl Examination<'_> {
    /// Checks the machine first, then one service after the other.
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

    /// Returns one directory on each disk that fusion or the downloads of a runtime use.
    fn disks(&self) -> Vec<PathBuf> {
        let manager = self.manager;
        let models = self.services.iter().filter_map(|service| {
            ModelPlaces::discover(manager.environment, manager.paths, &service.server().env).hub_cache
        });
        let data = manager.paths.data_directory().to_owned();
        let mut directories = vec![manager.paths.directory().to_owned()];
        for directory in std::iter::once(data).chain(models) {
            if directories.iter().all(|known| device(known) != device(&directory)) {
                directories.push(directory);
            }
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
                let package = match service.runtime().and_then(Runtime::install_method) {
                    Some(InstallMethod::Python(package)) => Some(package),
                    _ => None,
                };
                let mac = machine::mac();
                let refused =
                    package.and_then(|package| install::check_machine(&package, mac.as_ref()).err());
                Finding::NoProgram { service: owned(), reason, needed, refused }
            }
        }];
        if let Err(error) = self.manager.check_working_dir(service) {
            findings.push(Finding::NoWorkingDir { service: owned(), error });
        }
        let runtime = service.runtime();
        let unfinished = runtime.and_then(|runtime| {
            install::unfinished(&self.manager.paths.installation(runtime.name()), runtime)
        });
        findings.extend(unfinished.map(|directory| Finding::Unfinished { service: owned(), directory }));
        let shares = status.as_ref().map_or(&[][..], |status| &status.gpu_shares);
        let on_cpu: Vec<Finding> = gpu::on_cpu(shares)
            .map(|(model, gpu_percent)| Finding::OnCpu {
                service: owned(),
                model: model.to_owned(),
                gpu_percent,
            })
            .collect();
        let is_in_use = status.as_ref().is_ok_and(|status| status.other_listener.is_some());
        let spare = if is_in_use { self.manager.usable_port(service, None) } else { None };
        findings.push(Finding::Service { service: owned(), status: Box::new(status), spare, installed });
        findings.extend(on_cpu);
        let notices = self.manager.variable_notices(service).into_iter();
        let notices = notices.chain(self.manager.shell_notices(service));
        findings.extend(notices.map(|notice| Finding::Variable { service: owned(), notice }));
        if let Some(address) = service.address().filter(|address| !address.is_loopback()) {
            findings.push(Finding::Exposed { service: owned(), address });
        }
        let search = self.manager.environment.path.as_deref();
        findings.extend(at_login.zip(self.places.as_ref()).map(|(file, places)| Finding::AtLogin {
            service: owned(),
            file,
            lingers: session.and_then(|session| session.lingers),
            is_switched_off: login::is_switched_off(LoginManager::native(), &service.name, places, search),
        }));
        let home = self.places.as_ref().map(|places| places.home.as_path());
        let application =
            home.and_then(|home| programs::application(service.runtime(), &[Path::new("/"), home]));
        findings.extend(application.map(|path| Finding::Application { service: owned(), path }));
        findings
    }
}

/// Returns whether a version is supported. Fusion's own installation always is: it was restricted to these versions.
fn known_version(runtime: &dyn Runtime, program: &Program, version: &str) -> Option<bool> {
    match runtime.install_method() {
        Some(InstallMethod::Python(package)) if program.source != Source::Installation => {
            Some(package.knows(version))
        }
        _ => None,
    }
}

/// Returns the device of a path, which need not exist.
fn device(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    machine::nearest_existing(path).metadata().ok().map(|metadata| metadata.dev())
}
