//! The admin API below `/api`: services and templates in the JSON of `ps`, `templates` and `metrics`.

mod bodies;
mod log;

use std::sync::Arc;

use hyper::header::{HeaderValue, LOCATION};
use hyper::{Method, Response, StatusCode};
use serde_json::{Map, Value};

use super::body::ResponseBody;
use super::rejection::Rejection;
use super::respond::{empty, json_of};
use super::state::{Gateway, Setup};
use super::{keeper, metrics, query, reload};
use crate::app::views::ServiceView;
use crate::app::{AppError, LoadOptions, RemoveError, UpRequest};
use crate::core::api::error::clean;
use crate::core::cancel::CancelToken;
use crate::core::config::{EditError, edit};
use crate::core::events::chain;
use crate::core::json_object;
use crate::core::models::catalogue::ModelError;
use crate::core::services::{DownOptions, ManagedService, ServiceError, State, UpOptions};

use self::bodies::{InstanceBody, TemplateBody};
use self::log::log;

/// A request to the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AdminRoute {
    Templates,
    Template(String),
    CreateTemplate,
    Instances,
    Create,
    Instance(String),
    Delete(String),
    Act(String, Deed),
    Log(String),
    Metrics,
}

/// Returns the request of a method and a path.
pub(super) fn route(method: &Method, segments: &[&str]) -> Option<AdminRoute> {
    let ["api", segments @ ..] = segments else { return None };
    let name = |name: &str| name.to_owned();
    Some(match (method.as_str(), segments) {
        ("GET" | "HEAD", ["templates"]) => AdminRoute::Templates,
        ("GET" | "HEAD", ["templates", id]) => AdminRoute::Template(name(id)),
        ("POST", ["templates"]) => AdminRoute::CreateTemplate,
        ("POST", ["instances"]) => AdminRoute::Create,
        ("DELETE", ["instances", id]) => AdminRoute::Delete(name(id)),
        ("GET" | "HEAD", ["instances"]) => AdminRoute::Instances,
        ("GET" | "HEAD", ["instances", id]) => AdminRoute::Instance(name(id)),
        ("POST", ["instances", id, deed]) => AdminRoute::Act(name(id), Deed::of(deed)?),
        ("GET" | "HEAD", ["instances", id, "log"]) => AdminRoute::Log(name(id)),
        ("GET" | "HEAD", ["metrics"]) => AdminRoute::Metrics,
        _ => return None,
    })
}

/// Returns the methods of a path; `None` if the API has no such path.
pub(super) fn methods(segments: &[&str]) -> Option<&'static str> {
    let has = |method: Method| route(&method, segments).is_some();
    match (has(Method::GET), has(Method::POST), has(Method::DELETE)) {
        (true, true, _) => Some("GET, HEAD, POST, OPTIONS"),
        (true, _, true) => Some("GET, HEAD, DELETE, OPTIONS"),
        (true, ..) => Some("GET, HEAD, OPTIONS"),
        (_, true, _) => Some("POST, OPTIONS"),
        _ => None,
    }
}

/// Answers a request, on a thread that may block.
pub(super) fn answer(gateway: &Arc<Gateway>, route: AdminRoute, query: &str, body: &[u8]) -> AdminAnswer {
    match route {
        AdminRoute::Templates => json_of(&gateway.setup().app.templates()),
        AdminRoute::Template(name) => template_view(gateway, &name),
        AdminRoute::CreateTemplate => create_template(gateway, body),
        AdminRoute::Create => create(gateway, body),
        AdminRoute::Delete(name) => delete(gateway, &name),
        AdminRoute::Instances => instances(gateway, query),
        AdminRoute::Instance(name) => one_instance(gateway, &name),
        AdminRoute::Act(name, deed) => act(gateway, &name, deed, body),
        AdminRoute::Log(name) => log(gateway, &name, query),
        AdminRoute::Metrics => metrics::all(gateway),
    }
}

pub(super) type AdminAnswer = Result<Response<ResponseBody>, Rejection>;

/// An action on an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Start,
    Stop,
    Restart,
    Load,
    Unload,
}

impl Deed {
    /// Reads the last part of a path.
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "start" => Self::Start,
            "stop" => Self::Stop,
            "restart" => Self::Restart,
            "load" => Self::Load,
            "unload" => Self::Unload,
            _ => return None,
        })
    }
}

/// Answers `GET /api/instances`.
fn instances(gateway: &Gateway, query: &str) -> AdminAnswer {
    let filter = Filter::read(query)?;
    let setup = gateway.setup();
    let views = setup.statuses()?.into_iter().map(|(service, status)| ServiceView::new(service, &status));
    json_of(&views.filter(|view| filter.takes(view)).collect::<Vec<_>>())
}

/// Answers `GET /api/instances/{name}`.
fn one_instance(gateway: &Gateway, name: &str) -> AdminAnswer {
    let setup = gateway.setup();
    let service = known(&setup, name)?;
    match setup.app.manager(&CancelToken::new()).status(service) {
        Ok(status) => json_of(&ServiceView::new(service, &status)),
        Err(error) => Err(Rejection::of_service(&error)),
    }
}

/// Answers `POST /api/instances/{name}/start` and the other actions, after they are done.
fn act(gateway: &Gateway, name: &str, deed: Deed, body: &[u8]) -> AdminAnswer {
    let setup = gateway.setup();
    let service = known(&setup, name)?;
    let model = match deed {
        Deed::Load | Deed::Unload => Some(model(body)?),
        Deed::Start | Deed::Stop | Deed::Restart => None,
    };
    let done = carry_out(&setup, service, deed, model.as_deref());
    // A request must not go to its former address.
    setup.forget_names(&service.name);
    gateway.seats.distrust(&service.name);
    gateway.seats.wake_keeper();
    done.map_err(|error| failed(&error))?;
    one_instance(gateway, name)
}

fn carry_out(
    setup: &Setup,
    service: &ManagedService,
    deed: Deed,
    model: Option<&str>,
) -> Result<(), AppError> {
    let app = &setup.app;
    let never = CancelToken::new();
    match (deed, model) {
        (Deed::Start, _) => app.up(service, &UpRequest::default(), &never).map(drop),
        (Deed::Stop, _) => Ok(app.manager(&never).down(service, &DownOptions::default()).map(drop)?),
        (Deed::Restart, _) => app.restart(service, &UpOptions::default(), &never).map(drop),
        (Deed::Load, Some(model)) => {
            let models = app.models(service, &never)?;
            models.load(&models.named(model)?, true, &LoadOptions::default())
        }
        (Deed::Unload, Some(model)) => {
            let models = app.models(service, &never)?;
            models.unload(&models.named(model)?).map(drop)
        }
        (Deed::Load | Deed::Unload, None) => Ok(()),
    }
}

/// Returns the response for a failed action.
fn failed(error: &AppError) -> Rejection {
    let status = match error {
        AppError::Service(error)
            if matches!(**error, ServiceError::External { .. } | ServiceError::Elsewhere { .. }) =>
        {
            StatusCode::CONFLICT
        }
        AppError::NoModels { .. } => StatusCode::BAD_REQUEST,
        AppError::Model { error, .. } => match **error {
            ModelError::InvalidName { .. } => StatusCode::BAD_REQUEST,
            ModelError::CannotUnload | ModelError::CannotKeepAlive | ModelError::NotRunning => {
                StatusCode::CONFLICT
            }
            ModelError::LoadTimedOut { .. } | ModelError::UnloadTimedOut { .. } => {
                StatusCode::GATEWAY_TIMEOUT
            }
            ModelError::NotHere { .. } | ModelError::NotServed { .. } | ModelError::Unknown { .. } => {
                StatusCode::NOT_FOUND
            }
            _ => StatusCode::BAD_GATEWAY,
        },
        _ => return keeper::start_failed(error),
    };
    Rejection::new(status, clean(&chain(error)))
}

/// Answers `GET /api/templates/{name}`.
fn template_view(gateway: &Gateway, name: &str) -> AdminAnswer {
    match gateway.setup().app.templates().iter().find(|template| template.name == name) {
        Some(template) => json_of(template),
        None => Err(Rejection::new(StatusCode::NOT_FOUND, format!("there is no template {name}"))),
    }
}

/// Answers `POST /api/templates`: writes the template into the configuration, and answers with it.
fn create_template(gateway: &Gateway, body: &[u8]) -> AdminAnswer {
    let setup = gateway.setup();
    let app = &setup.app;
    let TemplateBody { name, keys } = TemplateBody::read(body, setup.guard.token.is_some())?;
    if app.templates().iter().any(|known| known.name == name) {
        return Err(not_written(&EditError::Taken { what: "a template", name }));
    }
    edit::create_template(&app.paths.config_file(), app.table, &name, &keys)
        .map_err(|error| not_written(&error))?;
    reload::reload(gateway);
    Ok(created(template_view(gateway, &name)?, &format!("/api/templates/{name}")))
}

/// Answers `POST /api/instances`: writes the instance into the configuration, and returns it.
fn create(gateway: &Gateway, body: &[u8]) -> AdminAnswer {
    let setup = gateway.setup();
    let app = &setup.app;
    // If a token is set, every request to this path has presented it.
    let may_choose_commands = setup.guard.token.is_some();
    let instance = InstanceBody::read(body, may_choose_commands)?.into_new()?;
    // No configuration with it could be read again.
    if instance.port == Some(setup.guard.bound.port) {
        return Err(Rejection::bad_request("`port` is the gateway's own"));
    }
    edit::create(&app.paths.config_file(), app.table, &instance).map_err(|error| not_written(&error))?;
    reload::reload(gateway);
    let name = &instance.name;
    Ok(created(one_instance(gateway, name)?, &format!("/api/instances/{name}")))
}

fn not_written(error: &EditError) -> Rejection {
    let status = match error {
        EditError::Taken { .. } => StatusCode::CONFLICT,
        EditError::Rejected { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Rejection::new(status, chain(error))
}

/// Marks the response as that of a new thing at `path`.
fn created(mut response: Response<ResponseBody>, path: &str) -> Response<ResponseBody> {
    *response.status_mut() = StatusCode::CREATED;
    if let Ok(location) = HeaderValue::try_from(path) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Answers `DELETE /api/instances/{name}`.
fn delete(gateway: &Gateway, name: &str) -> AdminAnswer {
    let setup = gateway.setup();
    setup.app.remove(known(&setup, name)?, false, &CancelToken::new()).map_err(|error| {
        let status = match error {
            RemoveError::App(error) => return failed(&error),
            // Something else in the file names it.
            RemoveError::Edit(EditError::Rejected { .. })
            | RemoveError::Running { .. }
            | RemoveError::BuiltIn { .. } => StatusCode::CONFLICT,
            RemoveError::Edit(_) | RemoveError::File { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Rejection::new(status, chain(&error))
    })?;
    reload::reload(gateway);
    let mut response = empty();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Reads `{"model": NAME}`.
fn model(body: &[u8]) -> Result<String, Rejection> {
    let mut fields: Map<String, Value> = json_object::parse(body).unwrap_or_default();
    match fields.remove("model") {
        Some(Value::String(model)) if fields.is_empty() => Ok(model),
        _ => Err(Rejection::bad_request("the body is not {\"model\": NAME}")),
    }
}

/// Returns the service called `name`.
fn known<'s>(setup: &'s Setup, name: &str) -> Result<&'s ManagedService, Rejection> {
    setup.app.service(name).ok_or_else(|| {
        Rejection::new(
            StatusCode::NOT_FOUND,
            format!("there is no instance {name}; GET /api/instances lists them"),
        )
    })
}

/// The filters of the list.
#[derive(Debug, Default)]
struct Filter {
    template: Option<String>,
    tag: Option<String>,
    state: Option<String>,
}

impl Filter {
    fn read(text: &str) -> Result<Self, Rejection> {
        let state = query::value(text, "status").or_else(|| query::value(text, "state"));
        if let Some(unknown) =
            state.as_ref().filter(|state| State::ALL.iter().all(|known| known.word() != **state))
        {
            let words = State::ALL.map(State::word).join(", ");
            return Err(Rejection::bad_request(format!(
                "there is no state {unknown}; the states are {words}"
            )));
        }
        Ok(Self { template: query::value(text, "template"), tag: query::value(text, "tag"), state })
    }

    fn takes(&self, view: &ServiceView) -> bool {
        self.template.as_ref().is_none_or(|template| *template == view.template)
            && self.tag.as_ref().is_none_or(|tag| view.tags.contains(tag))
            && self.state.as_ref().is_none_or(|state| state == view.state.word())
    }
}
