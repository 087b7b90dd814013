//! Which service serves a model: the model names of each service, and the meaning of a client's name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;

use super::rejection::Rejection;
use crate::app::App;
use crate::core::cancel::CancelToken;
use crate::core::config::Alias;
use crate::core::models::quoted;
use crate::core::nearest::similar;
use crate::core::order;
use crate::core::parallel;
use crate::core::services::ManagedService;
use crate::core::sorted_map::SortedMap;
use crate::core::templates::Template;

/// The model of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) service: Arc<str>,
    /// The name by which the service knows it.
    pub(super) model: String,
}

/// The models of one service.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) service: Arc<str>,
    /// The server's names of the models; `None` if only the server knows them and it does not run.
    pub(super) models: Option<Vec<String>>,
    /// The only model, if requests cannot choose.
    is_single: bool,
    is_running: bool,
}

/// The cache of resolved names.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: SortedMap<String, Vec<Route>>,
}

impl Names {
    /// Returns the routes of a name from the cache.
    pub(super) fn known(&self, name: &str) -> Option<&[Route]> {
        self.known.get(name).map(Vec::as_slice)
    }

    pub(super) fn learn(&mut self, name: &str, routes: Vec<Route>) {
        // Invented names of a client must not fill the memory.
        if self.known.len() >= 1000 {
            self.known = SortedMap::new();
        }
        self.known.insert(name.to_owned(), routes);
    }
}

/// A service that takes longer to tell its models is not asked again for a while.
const SLOW: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(10);

/// What the services said when they were asked for their models last.
#[derive(Debug, Default)]
pub(super) struct Lists(Mutex<SortedMap<Arc<str>, Listed>>);

#[derive(Debug)]
struct Listed {
    served: Served,
    /// Until when the service is not asked again.
    until: Instant,
}

impl Lists {
    /// Forgets what a service said: it has started or stopped.
    pub(super) fn forget(&self, service: &str) {
        self.lock().remove(service);
    }

    /// Returns what a service said that is not asked again yet.
    fn kept(&self, service: &str, now: Instant) -> Option<Served> {
        self.lock().get(service).filter(|listed| now < listed.until).map(|listed| listed.served.clone())
    }

    /// Returns the models that a service had when it was asked last.
    fn last(&self, service: &str) -> Option<Vec<String>> {
        self.lock().get(service)?.served.models.clone()
    }

    /// Records what a service said at last, which took so long.
    fn learn(&self, served: Served, took: Duration) -> Served {
        let until = Instant::now() + if took < SLOW { Duration::ZERO } else { PAUSE };
        self.lock().insert(Arc::clone(&served.service), Listed { served: served.clone(), until });
        served
    }

    fn lock(&self) -> MutexGuard<'_, SortedMap<Arc<str>, Listed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Served {
    /// Returns whether a request could be answered: the files are here, or the template has a start of its own.
    pub(super) fn can_be_used(&self, app: &App) -> bool {
        let Some(service) = app.service(&self.service).filter(|_| self.is_single) else { return true };
        let model = service.server().model.as_deref().map(|model| app.configured_model(service, model));
        model.is_none_or(|model| model.present != Some(false))
    }
}

/// Returns which models every service has. One that does not run is not started; what another program at its address
/// says does not count. They are asked at once, and a server that hangs delays the others once in a while.
pub(super) fn served(app: &App, lists: &Lists, cancel: &CancelToken) -> Vec<Served> {
    let ask = |service: &ManagedService| {
        let begin = Instant::now();
        let kept = lists.kept(&service.name, begin);
        kept.or_else(|| Some(lists.learn(served_by(app, service, lists, cancel)?, begin.elapsed())))
    };
    parallel::each(app.services(), |_| false, ask).into_iter().flatten().collect()
}

fn served_by(app: &App, service: &ManagedService, lists: &Lists, cancel: &CancelToken) -> Option<Served> {
    let models = app.models(service, cancel).ok();
    if models.is_none() && service.server().model.is_none() {
        return None;
    }
    // For requests, a service that cannot be observed does not run.
    let endpoint = app.manager(cancel).find_endpoint(service).ok().flatten();
    let is_running = endpoint.is_some();
    let made =
        |models, is_single| Served { service: Arc::clone(&service.name), models, is_single, is_running };
    let loaded = endpoint.and_then(|endpoint| endpoint.model);
    if let Some(configured) = &service.server().model {
        let model = loaded.unwrap_or_else(|| app.configured_model(service, configured).name);
        return Some(made(Some(vec![model]), true));
    }
    let models = models?;
    let rows = if is_running || !models.needs_server() { models.list(false).ok().flatten() } else { None };
    let names = rows.map(|rows| rows.into_iter().map(|row| row.entry.name).collect());
    // A missing list means that the server does not respond: it still has what it had.
    let names = names.or_else(|| if is_running { lists.last(&service.name) } else { None });
    Some(made(names.or_else(|| service.stored_models(&app.environment)), false))
}

/// Returns the routes of `name`, the best match first: a model's exact name, an alias, `SERVICE/MODEL`. Of several
/// services the running one is first, then the order of the file.
pub(super) fn resolve(app: &App, served: &[Served], name: &str) -> Result<Vec<Route>, Rejection> {
    let mut in_order: Vec<&Served> = served.iter().collect();
    order::sort_by_key(&mut in_order, |served| !served.is_running);
    let within = |asked: &str, only: Option<&str>| -> Vec<Route> {
        let candidates = in_order.iter().filter(|served| only.is_none_or(|only| &*served.service == only));
        candidates.filter_map(|served| route(app, served, asked)).collect()
    };
    let mut routes = within(name, None);
    if routes.is_empty()
        && let Some((service, model)) = name.split_once('/')
    {
        routes = within(model, Some(service));
    }
    if routes.is_empty() {
        // A server that does not run may have it.
        routes = guess(app, served, name);
    }
    if routes.is_empty() { Err(unknown(app, served, name)) } else { Ok(routes) }
}

/// Returns the routes to servers that do not run and may have the model. A name that begins with that of a service
/// means no other one.
fn guess(app: &App, served: &[Served], name: &str) -> Vec<Route> {
    let mut silent = served.iter().filter(|served| served.models.is_none());
    match name.split_once('/').filter(|(service, _)| app.service(service).is_some()) {
        Some((service, model)) => silent
            .find(|served| *served.service == *service)
            .and_then(|served| possible(app, served, model))
            .into_iter()
            .collect(),
        // What is known of a runtime does not hold for another start.
        None => silent
            .filter(|served| is_started_by_its_runtime(app, served))
            .filter_map(|served| possible(app, served, name))
            .collect(),
    }
}

fn is_started_by_its_runtime(app: &App, served: &Served) -> bool {
    app.service(&served.service).is_some_and(|service| matches!(service.template, Template::Runtime(_)))
}

/// Returns the route to the model of `served` that is called `asked`, or has that alias.
fn route(app: &App, served: &Served, asked: &str) -> Option<Route> {
    let models = served.models.as_ref()?;
    let service = app.service(&served.service)?;
    let same = |known: &String, name: &str| match service.runtime() {
        Some(runtime) => known == name || runtime.is_same_model(known, name),
        None => known == name,
    };
    let found = |name: &str| models.iter().any(|known| same(known, name)).then(|| name.to_owned());
    let configured = || {
        let written = service.server().model.as_deref();
        (served.is_single && written == Some(asked)).then(|| models.first().cloned())?
    };
    let aliased = || match app.config.aliases.get(asked) {
        Some(Alias::Everywhere(model)) => found(model),
        _ => None,
    };
    let model = found(asked)
        .or_else(configured)
        .or_else(aliased)
        .or_else(|| found(&app.configured_model(service, asked).name))?;
    Some(Route { service: Arc::clone(&served.service), model })
}

/// Returns the route to a service whose models are not known, if it could have one of this name.
fn possible(app: &App, served: &Served, asked: &str) -> Option<Route> {
    let service = app.service(&served.service)?;
    let model = app.configured_model(service, asked).name;
    let is_name = app.check_model_name(service, asked, &model).is_ok();
    let can_start = app.manager(&CancelToken::new()).program(service).is_ok();
    (is_name && can_start).then(|| Route { service: Arc::clone(&served.service), model })
}

fn unknown(app: &App, served: &[Served], name: &str) -> Rejection {
    let models = served.iter().filter_map(|served| served.models.as_ref()).flatten();
    let names: Vec<&str> =
        models.map(String::as_str).chain(app.config.aliases.keys().map(String::as_str)).collect();
    let message = only_on_disk(app, served, name).unwrap_or_else(|| match similar(name, &names).as_slice() {
        [] => format!("no service has the model {name}; GET /v1/models lists those that can be used"),
        near => format!("no service has the model {name}; similar names: {}", near.join(", ")),
    });
    Rejection::new(StatusCode::NOT_FOUND, message).code("model_not_found").param("model")
}

/// Returns what to do for a model of this disk that the server of a service could load, but was not started with.
fn only_on_disk(app: &App, served: &[Served], name: &str) -> Option<String> {
    let (service, model, loaded) = served.iter().filter(|served| served.is_single).find_map(|served| {
        let service = app.service(&served.service)?;
        let own = name.strip_prefix(&*served.service).and_then(|rest| rest.strip_prefix('/'));
        let model = app.configured_model(service, own.unwrap_or(name));
        (model.present == Some(true)).then_some((service, model.name, served.models.as_ref()?.first()?))
    })?;
    let (template, quoted) = (service.template.name(), quoted(&model));
    Some(format!(
        "{} serves {loaded} alone; {model} is on this disk and needs a service of its own: \
         fusion create NAME --template {template} --model {quoted}",
        service.name
    ))
}
