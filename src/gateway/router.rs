//! The routes of the gateway.
//!
//! | method | path | |
//! |---|---|---|
//! | GET | `/health`, `/api/health` | the gateway answers |
//! | GET | `/v1/models`, `/v1/models/{id}` | the models of every service |
//! | POST | `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/v1/audio/*`, `/v1/images/*` | passed on |
//! | GET | `/` | the page |
//! | GET | `/metrics` | for Prometheus |
//! | GET | `/ws`, `/api/events` | what happens, as a WebSocket and as server-sent events |
//! | GET | `/api/templates`, `/api/templates/{name}` | the blueprints of services |
//! | GET, POST | `/api/instances` | the services; a new one |
//! | GET, DELETE | `/api/instances/{name}` | one service |
//! | POST | `/api/instances/{name}/start`, `stop`, `restart`, `load`, `unload` | answered when it is done |
//! | GET | `/api/instances/{name}/log` | its log, also followed |
//! | GET | `/api/metrics` | what is measured |
//! | POST | `/v1/messages`, `/v1/messages/count_tokens`, `/v1/responses` | passed on |

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HeaderMap, HeaderValue, VARY,
};
use hyper::{Method, Request, Response, StatusCode};

use super::admin::{AdminAnswer, AdminRoute};
use super::body::ResponseBody;
use super::rejection::Rejection;
use super::respond::{empty, json, reject};
use super::state::Gateway;
use super::task::blocking;
use super::wire::Wire;
use super::{admin, events, forward, framing, listing, metrics, page, socket};

/// Answers one request.
pub(super) async fn answer(gateway: Arc<Gateway>, request: Box<Request<Incoming>>) -> Response<ResponseBody> {
    let setup = gateway.setup();
    let wire = Wire::of_path(request.uri().path());
    let checked = setup.guard.check(request.method(), request.uri().path(), request.headers());
    let passed = match checked {
        Ok(passed) => passed,
        Err(refusal) => return reject(&Rejection::new(refusal.status(), refusal.to_string()), wire),
    };
    if let Err(fault) = framing::check(request.version(), request.headers()) {
        return reject(&Rejection::new(fault.status(), fault.to_string()), wire);
    }
    let is_head = *request.method() == Method::HEAD;
    let asked_headers = || request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let asked_headers = passed.cors_origin.is_some().then(asked_headers).flatten();
    let mut response = route(&gateway, request).await;
    if is_head {
        *response.body_mut() = ResponseBody::empty();
    }
    if let Some(origin) = passed.cors_origin {
        allow(response.headers_mut(), &origin, asked_headers);
    }
    response
}

/// What is answered on a thread that may block.
enum Errand {
    Models,
    Model(String),
    Metrics,
    Admin(AdminRoute),
}

async fn route(gateway: &Arc<Gateway>, mut request: Box<Request<Incoming>>) -> Response<ResponseBody> {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(&path).split('/').collect();
    let errand = match (method(request.method()), segments.as_slice()) {
        (
            Verb::Post,
            ["v1", "chat", "completions"]
            | ["v1", "completions" | "embeddings" | "responses" | "messages"]
            | ["v1", "messages", "count_tokens"]
            | ["v1", "audio" | "images", _],
        ) => return forward::post(gateway, request).await,
        (Verb::Get, ["health"] | ["api", "health"]) => {
            return json(r#"{"status":"ok","service":"fusion"}"#);
        }
        (Verb::Get, [""]) => return page::response(request.headers()),
        (Verb::Get, ["ws"]) => {
            return socket::open(gateway.feed(), &mut request)
                .unwrap_or_else(|rejection| rejected(&rejection));
        }
        (Verb::Get, ["api", "events"]) => return events::stream(gateway.feed(), request.headers()),
        (Verb::Options, _) => return options(&segments),
        (Verb::Get, ["v1", "models"]) => Errand::Models,
        (Verb::Get, ["v1", "models", id @ ..]) if !id.is_empty() => Errand::Model(id.join("/")),
        (Verb::Get, ["metrics"]) => Errand::Metrics,
        (_, segments) => match (admin::route(request.method(), segments), methods(segments)) {
            (Some(route), _) => Errand::Admin(route),
            (None, Some(methods)) => {
                let message = format!("the path {path} takes {methods}");
                let rejection = Rejection::new(StatusCode::METHOD_NOT_ALLOWED, message).allow(methods);
                return reject(&rejection, Wire::of_path(&path));
            }
            (None, None) => {
                let rejection = Rejection::new(StatusCode::NOT_FOUND, format!("there is no path {path}"));
                return reject(&rejection, Wire::of_path(&path));
            }
        },
    };
    Box::pin(run(Arc::clone(gateway), errand, request)).await.unwrap_or_else(|rejection| rejected(&rejection))
}

/// Reads the body, then carries out the errand on another thread.
async fn run(gateway: Arc<Gateway>, errand: Errand, request: Box<Request<Incoming>>) -> AdminAnswer {
    let (request, body) = forward::read(request).await?;
    let work = move || match errand {
        Errand::Models => listing::all(&gateway),
        Errand::Model(id) => listing::one(&gateway, &id),
        Errand::Metrics => metrics::prometheus(&gateway),
        Errand::Admin(route) => {
            admin::answer(&gateway, route, request.uri().query().unwrap_or_default(), &body)
        }
    };
    blocking(work).await?
}

/// The methods that occur in the table. HEAD is GET without a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Post,
    Options,
    Other,
}

fn method(method: &Method) -> Verb {
    match *method {
        Method::GET | Method::HEAD => Verb::Get,
        Method::POST => Verb::Post,
        Method::OPTIONS => Verb::Options,
        _ => Verb::Other,
    }
}

/// Returns the methods of a path; `None` if there is no such path.
fn methods(segments: &[&str]) -> Option<&'static str> {
    Some(match segments {
        ["" | "health" | "metrics" | "ws"] | ["api", "health" | "events"] | ["v1", "models", ..] => {
            "GET, HEAD, OPTIONS"
        }
        ["v1", "chat", "completions"]
        | ["v1", "completions" | "embeddings" | "responses" | "messages"]
        | ["v1", "messages", "count_tokens"]
        | ["v1", "audio" | "images", _] => "POST, OPTIONS",
        _ => return admin::methods(segments),
    })
}

/// Returns the response of a path outside the APIs of the model servers.
fn rejected(rejection: &Rejection) -> Response<ResponseBody> {
    reject(rejection, Wire::Chat)
}

fn options(segments: &[&str]) -> Response<ResponseBody> {
    let Some(methods) = methods(segments) else {
        return reject(&Rejection::new(StatusCode::NOT_FOUND, "there is no such path"), Wire::Chat);
    };
    let mut response = empty();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(hyper::header::ALLOW, HeaderValue::from_static(methods));
    response
}

/// Lets the page of a configured origin read the response.
fn allow(headers: &mut HeaderMap, origin: &str, asked: Option<HeaderValue>) {
    if let Ok(origin) = HeaderValue::from_str(origin) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    if let Some(methods) = headers.get(hyper::header::ALLOW).cloned() {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        // Clients send headers of their own, such as x-stainless-*, which do not matter here.
        if let Some(asked) = asked {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked);
        }
    }
}
