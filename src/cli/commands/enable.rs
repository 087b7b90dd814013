//! `fusion <service> enable`: start it at login.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::app::{App, Selection};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::executables::on_path;
use crate::core::login::{self, Job, LoginError, LoginManager, LoginStep, Places};
use crate::core::programs;
use crate::core::services::ManagedService;
use crate::env::PROJECT_ROOT;

/// Start the server now and at every login
///
/// Installs a systemd user unit (Linux) or a launchd agent (macOS) that runs `fusion SERVICE up`.
#[derive(Debug, clap::Args)]
pub struct EnableArgs {}

/// Runs the command.
pub fn run(context: &Context, service: &ManagedService, _args: &EnableArgs) -> Result<Exit, Failure> {
    let (manager, places) = (LoginManager::native(), places(context)?);
    let job = job(context, service, manager.log(&service.name, &service.files.directory, &places))?;
    for warning in warnings(manager, service, context, &places) {
        context.ui.warning(&warning);
    }
    let is_new = !login::is_enabled(manager, &service.name, &places);
    let steps = login::enable(manager, &job, &places, context.environment.path.as_deref());
    tell(context, &steps.map_err(|error| not_enabled(error, &service.name))?);
    if manager == LoginManager::Launchd && is_new {
        context
            .ui
            .note("macOS shows \"Background Items Added\" with an unidentified developer: that is fusion");
    }
    let name = &service.name;
    context.ui.result(&format!("{name} starts at every login, and is starting now\n"))?;
    context.ui.hint(&format!("see when it is ready: fusion {name} ps; undo this: fusion {name} disable"));
    Ok(Exit::Done)
}

fn not_enabled(error: LoginError, service: &str) -> Failure {
    match error {
        LoginError::NoManager { .. } | LoginError::Refused { .. } => Failure::from(error).hint(format!(
            "without a service manager, run `fusion {service} up` from the program that starts your session"
        )),
        _ => error.into(),
    }
}

/// Start a service now and at every login
///
/// Installs a systemd user unit (Linux) or a launchd agent (macOS) that runs `fusion NAME up`.
#[derive(Debug, clap::Args)]
pub struct EnableNamedArgs {
    /// Name of the service
    name: String,
}

/// Runs the command for the service of that name.
pub fn run_named(context: &Context, app: &App, args: &EnableNamedArgs) -> Result<Exit, Failure> {
    let selection = Selection { names: vec![args.name.clone()], ..Selection::default() };
    let services = app.select(&selection)?;
    services
        .into_iter()
        .try_fold(Exit::Done, |exit, service| Ok(exit.or(run(context, service, &EnableArgs {})?)))
}

/// Returns what may keep the job from working.
fn warnings(
    manager: LoginManager,
    service: &ManagedService,
    context: &Context,
    places: &Places,
) -> Vec<String> {
    let models = service.places(&context.environment, &context.paths);
    let model =
        service.server().model.as_deref().and_then(|model| models.of_configuration().directory(model));
    let paths = [
        ("the configuration", Some(context.paths.directory().to_owned())),
        ("the model cache", models.hub_cache),
        ("`models_dir`", models.models_dir),
        ("the model", model),
    ];
    let mut warnings = Vec::new();
    let roots = [Path::new("/"), &places.home];
    if let Some(path) = programs::application(service.runtime(), &roots) {
        warnings.push(format!(
            "{} ends other servers of its kind and starts its own: remove it from the login items in System Settings",
            path.display()
        ));
    }
    for (what, path) in paths {
        if let Some(path) = path.filter(|path| manager.may_refuse(path, &places.home)) {
            warnings.push(format!(
                "macOS may refuse {what} in {} to programs started at login: allow fusion in System Settings > \
                 Privacy & Security > Full Disk Access, or move it to another directory of the startup disk",
                path.display()
            ));
        }
    }
    warnings
}

/// Prints what was done.
pub(super) fn tell(context: &Context, steps: &[LoginStep]) {
    for step in steps {
        context.ui.note(&match step {
            LoginStep::Wrote(path) => format!("wrote {}", path.display()),
            LoginStep::Removed(path) => format!("removed {}", path.display()),
            LoginStep::Ran(command) => format!("ran {command}"),
            LoginStep::InBackground => {
                "there is no graphical session: the server starts at a login, not when the machine starts"
                    .to_owned()
            }
            LoginStep::CannotOpen => {
                "launchd could not open the log or the directory of the job, so it did not start".to_owned()
            }
        });
    }
}

/// Returns where this user's login jobs are stored.
pub(super) fn places(context: &Context) -> Result<Places, Failure> {
    let environment = &context.environment;
    let home = environment.home.clone();
    let (Some(home), Some(config)) = (home, environment.platform_config_dir.clone()) else {
        return Err(Failure::new(Exit::Failed, "cannot start the server at login without a home directory")
            .hint("set HOME"));
    };
    Ok(Places { home, config, user: nix::unistd::getuid().as_raw() })
}

fn job(context: &Context, service: &ManagedService, log: PathBuf) -> Result<Job, Failure> {
    let paths = &context.paths;
    let mut environment = Vec::new();
    for (name, value) in context.environment.for_login(paths.directory()) {
        environment.push((name.to_owned(), text(value)?));
    }
    if service.has_placeholders()
        && let Some(directory) = context.environment.project_directory()
    {
        environment.push((PROJECT_ROOT.to_owned(), text(directory.into_os_string())?));
    }
    let app = context.app()?;
    for (name, value) in app.manager(&context.cancel).handed_on(service) {
        if let Some(name) = name.to_str() {
            environment.push((name.to_owned(), text(value)?));
        }
    }
    Ok(Job {
        service: service.name.to_string(),
        display_name: service.template.display_name().to_owned(),
        fusion: fusion(context)?,
        environment,
        log,
    })
}

fn text(value: OsString) -> Result<String, LoginError> {
    value.into_string().map_err(|value| LoginError::NotText { path: value.into() })
}

/// Returns the path of this program. If the program of that name on `PATH` is the same file, its path there is used: a
/// package manager that replaces the file keeps that path.
fn fusion(context: &Context) -> Result<PathBuf, Failure> {
    let program =
        context.environment.program.clone().ok_or_else(|| {
            Failure::new(Exit::Failed, "the system does not report the path of this program")
        })?;
    let known = program.file_name().and_then(|name| name.to_str());
    let known = known.and_then(|name| on_path(name, context.environment.path.as_deref()));
    let same = |known: &PathBuf| known.canonicalize().ok() == program.canonicalize().ok();
    Ok(known.filter(same).unwrap_or(program))
}
