//! `/v1/models`: every model that a request can name.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use serde::Serialize;

use super::body::ResponseBody;
use super::names::{self, Route, Served};
use super::query::percent_decoded;
use super::rejection::Rejection;
use super::respond::{json, reject};
use super::state::{Gateway, Setup, running};
use super::task::blocking;
use super::wire::Wire;
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
pub(super) async fn all(gateway: &Arc<Gateway>) -> Response<ResponseBody> {
    match rows(gateway).await {
        Ok(data) => match serde_json::to_vec(&List { object: "list", data }) {
            Ok(text) => json(text),
            Err(error) => {
                reject(&Rejection::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()), Wire::Chat)
            }
        },
        Err(rejection) => reject(&rejection, Wire::Chat),
    }
}

/// Answers `GET /v1/models/{id}`.
pub(super) async fn one(gateway: &Arc<Gateway>, id: &str) -> Response<ResponseBody> {
    let id = percent_decoded(id);
    let rows = match rows(gateway).await {
        Ok(rows) => rows,
        Err(rejection) => return reject(&rejection, Wire::Chat),
    };
    if let Some(row) = rows.iter().find(|row| row.id == id) {
        return json(serde_json::to_vec(row).unwrap_or_default());
    }
    let setup = gateway.setup();
    match gateway.route(&setup, &id).await {
        Ok(Route { service, .. }) => {
            let status = rows.iter().find(|row| row.owned_by == service).map(|row| row.status);
            let status = status.unwrap_or(State::Stopped);
            let row = Row { id, object: "model", created: 0, owned_by: service, status };
            json(serde_json::to_vec(&row).unwrap_or_default())
        }
        Err(rejection) => reject(&rejection, Wire::Chat),
    }
}

async fn rows(gateway: &Arc<Gateway>) -> Result<Vec<Row>, Rejection> {
    let setup = gateway.setup();
    blocking(move || list(&setup)).await
}

fn list(setup: &Setup) -> Vec<Row> {
    let app = &setup.app;
    let never = CancelToken::new();
    let statuses = app.manager(&never).status_of_all(app.services());
    let state = |service: &Arc<str>| {
        let place = app.services().iter().position(|known| known.name == *service);
        let status = place.and_then(|place| statuses.get(place)?.as_ref().ok());
        status.map_or(State::Stopped, |status| status.state)
    };
    let served = names::served(app, &|service| running(app, service));
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
        let routes = names::resolve(app, &served, alias, &|service| state(service).is_running());
        let routes = routes.unwrap_or_default();
        let usable =
            |route: &&Route| rows.iter().any(|row| row.owned_by == route.service && row.id == route.model);
        if let Some(route) = routes.iter().find(usable) {
            rows.push(row(alias.clone(), &route.service));
        }
    }
    rows
}
