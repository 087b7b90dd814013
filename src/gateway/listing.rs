//! `/v1/models`: every model that a request can name.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use serde::Serialize;

use super::body::ResponseBody;
use super::names::{self, Route, Served};
use super::query::percent_decoded;
use super::rejection::Rejection;
use super::respond::json_of;
use super::state::{Gateway, Setup};
use crate::core::cancel::CancelToken;
use crate::core::services::State;

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Row>,
}

/// A model, or an alias of one.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    object: &'static str,
    created: u64,
    /// The service that has it.
    owned_by: Arc<str>,
    /// The state of that service.
    status: State,
}

/// Answers `GET /v1/models`.
pub(super) fn all(gateway: &Gateway) -> Result<Response<ResponseBody>, Rejection> {
    let setup = gateway.setup();
    json_of(&List { object: "list", data: rows(&setup, &setup.served()) })
}

/// Answers `GET /v1/models/{id}`.
pub(super) fn one(gateway: &Gateway, id: &str) -> Result<Response<ResponseBody>, Rejection> {
    let id = percent_decoded(id);
    let setup = gateway.setup();
    let served = setup.served();
    let rows = rows(&setup, &served);
    if let Some(row) = rows.iter().find(|row| row.id == id) {
        return json_of(row);
    }
    let status = |service: &Arc<str>| rows.iter().find(|row| row.owned_by == *service).map(|row| row.status);
    let routes = names::resolve(&setup.app, &served, &id)?;
    let Some(Route { service, .. }) = routes.into_iter().next() else {
        return Err(Rejection::new(StatusCode::NOT_FOUND, "no such model"));
    };
    let status = status(&service).unwrap_or(State::Stopped);
    json_of(&Row { id, object: "model", created: 0, owned_by: service, status })
}

fn rows(setup: &Setup, served: &[Served]) -> Vec<Row> {
    let app = &setup.app;
    let never = CancelToken::new();
    let statuses = app.manager(&never).status_of_all(app.services());
    let state = |service: &Arc<str>| {
        let place = app.services().iter().position(|known| known.name == *service);
        let status = place.and_then(|place| statuses.get(place)?.as_ref().ok());
        status.map_or(State::Stopped, |status| status.state)
    };
    let row = |id: String, service: &Arc<str>| Row {
        id,
        object: "model",
        created: 0,
        owned_by: Arc::clone(service),
        status: state(service),
    };
    let mut rows: Vec<Row> = Vec::new();
    for Served { service, models, .. } in served.iter().filter(|served| served.can_be_used(app)) {
        rows.extend(models.iter().flatten().map(|model| row(model.clone(), service)));
    }
    for alias in app.config.aliases.keys() {
        let routes = names::resolve(app, served, alias).unwrap_or_default();
        let usable =
            |route: &&Route| rows.iter().any(|row| row.owned_by == route.service && row.id == route.model);
        if let Some(route) = routes.iter().find(usable) {
            rows.push(row(alias.clone(), &route.service));
        }
    }
    rows
}
