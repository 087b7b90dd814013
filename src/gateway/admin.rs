//! The admin API below `/api`: services and templates in the JSON of `ps`, `templates` and `metrics`.

mod bodies;
mod log;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;

use super::body::ResponseBody;
use super::rejection::Rejection;
use super::respond::{empty, json_of};
use super::state::{Gateway, Setup};
use super::task::blocking;
use super::{forward, keeper, metrics, query, reload};
use crate::app::views::ServiceView;
use crate::app::{AppError, LoadOptions, RemoveError, UpRequest};
use crate::core::api::error::clean;
use crate::core::cancel::CancelToken;
use crate::core::config::{EditError, edit};
use crate::core::events::chain;
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

/// Answers a request.
pub(super) async fn answer(
    gateway: &Arc<Gateway>,
    route: AdminRoute,
    request: Request<Incoming>,
) -> AdminAnswer {
    let query = request.uri().query();
    match route {
        AdminRoute::Templates => json_of(&gateway.setup().app.templates()),
        AdminRoute::Template(name) => template_view(gateway, &name),
        AdminRoute::CreateTemplate => create_template(gateway, request).await,
        AdminRoute::Create => create(gateway, request).await,
        AdminRoute::Delete(name) => delete(gateway, &name).await,
        AdminRoute::Instances => instances(gateway, query).await,
        AdminRoute::Instance(name) => one_instance(gateway, &name).await,
        AdminRoute::Act(name, deed) => act(gateway, &name, deed, request).await,
        AdminRoute::Log(name) => log(gateway, &name, query).await,
        AdminRoute::Metrics => metrics::all(gateway).await,
    }
}

type AdminAnswer = Result<Response<ResponseBody>, Rejection>;

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
async fn instances(gateway: &Arc<Gateway>, query: Option<&str>) -> AdminAnswer {
    let filter = Filter::read(query.unwrap_or_default())?;
    let setup = gateway.setup();
    let views = blocking(move || views(&setup, &filter)).await??;
    json_of(&views)
}

/// Answers `GET /api/instances/{name}`.
async fn one_instance(gateway: &Arc<Gateway>, name: &str) -> AdminAnswer {
    let view = view(&gateway.setup(), name).await?;
    json_of(&view)
}

/// Answers `POST /api/instances/{name}/start` and the other actions, after they are done.
async fn act(gateway: &Arc<Gateway>, name: &str, deed: Deed, request: Request<Incoming>) -> AdminAnswer {
    let setup = gateway.setup();
    known(&setup, name)?;
    let (head, body) = request.into_parts();
    let body = forward::read(&head.headers, body).await?;
    let model = match deed {
        Deed::Load | Deed::Unload => Some(model(&body)?),
        Deed::Start | Deed::Stop | Deed::Restart => None,
    };
    let (own, asked) = (Arc::clone(&setup), name.to_owned());
    let done = blocking(move || {
        let service = known(&own, &asked)?;
        carry_out(&own, service, deed, model.as_deref()).map_err(|error| failed(&error))
    });
    let done = done.await?;
    // A request must not go to its former address.
    setup.forget_names();
    gateway.seats.distrust(&Arc::from(name));
    gateway.seats.wake_keeper();
    done?;
    one_instance(gateway, name).await
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
        AppError::Service(error) if matches!(**error, ServiceError::External { .. }) => StatusCode::CONFLICT,
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
async fn create_template(gateway: &Arc<Gateway>, request: Request<Incoming>) -> AdminAnswer {
    let setup = gateway.setup();
    let (head, body) = request.into_parts();
    let body = forward::read(&head.headers, body).await?;
    let template = TemplateBody::read(&body, setup.guard.token.is_some())?;
    let name = template.name.clone();
    let own = Arc::clone(&setup);
    let written = blocking(move || {
        let TemplateBody { name, keys } = template;
        if own.app.templates().iter().any(|known| known.name == name) {
            return Err(EditError::Taken { what: "a template", name });
        }
        edit::create_template(&own.app.paths.config_file(), own.app.table, &name, &keys)
    });
    written.await?.map_err(|error| not_written(&error))?;
    reload::reload(gateway).await;
    Ok(created(template_view(gateway, &name)?, &format!("/api/templates/{name}")))
}

/// Answers `POST /api/instances`: writes the instance into the configuration, and returns it.
async fn create(gateway: &Arc<Gateway>, request: Request<Incoming>) -> AdminAnswer {
    let setup = gateway.setup();
    let (head, body) = request.into_parts();
    let body = forward::read(&head.headers, body).await?;
    // If a token is set, every request to this path has presented it.
    let may_choose_commands = setup.guard.token.is_some();
    let instance = InstanceBody::read(&body, may_choose_commands)?.into_new()?;
    let name = instance.name.clone();
    let own = Arc::clone(&setup);
    let written = blocking(move || edit::create(&own.app.paths.config_file(), own.app.table, &instance));
    written.await?.map_err(|error| not_written(&error))?;
    reload::reload(gateway).await;
    Ok(created(one_instance(gateway, &name).await?, &format!("/api/instances/{name}")))
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
async fn delete(gateway: &Arc<Gateway>, name: &str) -> AdminAnswer {
    let setup = gateway.setup();
    let (own, asked) = (Arc::clone(&setup), name.to_owned());
    blocking(move || {
        let service = known(&own, &asked)?;
        own.app.remove(service, false, &CancelToken::new()).map_err(|error| {
            let status = match error {
                RemoveError::Running { .. } | RemoveError::BuiltIn { .. } => StatusCode::CONFLICT,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Rejection::new(status, chain(&error))
        })
    })
    .await??;
    reload::reload(gateway).await;
    let mut response = empty();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Reads `{"model": NAME}`.
fn model(body: &[u8]) -> Result<String, Rejection> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ModelBody {
        model: String,
    }
    serde_json::from_slice::<ModelBody>(body)
        .map(|body| body.model)
        .map_err(|error| Rejection::bad_request(format!("the body is not {{\"model\": NAME}}: {error}")))
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

async fn view(setup: &Arc<Setup>, name: &str) -> Result<ServiceView, Rejection> {
    let (own, name) = (Arc::clone(setup), name.to_owned());
    blocking(move || {
        let service = known(&own, &name)?;
        let status = own.app.manager(&CancelToken::new()).status(service);
        status.map(|status| ServiceView::new(service, &status)).map_err(|error| Rejection::of_service(&error))
    })
    .await?
}

fn views(setup: &Setup, filter: &Filter) -> Result<Vec<ServiceView>, Rejection> {
    let views = setup.statuses()?.into_iter().map(|(service, status)| ServiceView::new(service, &status));
    Ok(views.filter(|view| filter.takes(view)).collect())
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
