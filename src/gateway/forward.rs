//! Passes a request on to the service that has its model, and the response back.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, Response, StatusCode, Uri};

use super::body::{COMMENT_INTERVAL, PassedBody, Pending, ResponseBody, stream_head};
use super::end_mark::EndMark;
use super::headers;
use super::keeper;
use super::meter::{Meter, Outcome};
use super::names::Route;
use super::pool::{Outgoing, Pieces, SendError};
use super::rejection::Rejection;
use super::respond::reject;
use super::seats::{Admission, Entrance, Lease};
use super::state::{Gateway, Setup};
use super::wire::Wire;
use super::{multipart, splice};

/// Maximum size of a request body.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// How long the rest of a body that is too large is read, for a client that reads no response before it has sent all.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A request as far as the gateway reads it.
struct NamedModel {
    model: String,
    /// Whether the client expects a stream of events.
    is_stream: bool,
    place: NamePlace,
}

/// Where the model is in the body.
enum NamePlace {
    Json(splice::Fields),
    Form(std::ops::Range<usize>),
}

/// Answers a request of the OpenAI or Anthropic API that names its model in the body.
pub(super) async fn post(gateway: &Arc<Gateway>, request: Request<Incoming>) -> Response<ResponseBody> {
    let wire = Wire::of_path(request.uri().path());
    let (head, body) = request.into_parts();
    let body = match read(&head.headers, body).await {
        Ok(body) => body,
        Err(rejection) => return reject(&rejection, wire),
    };
    let answered = answer(gateway, head, body, wire).await;
    answered.unwrap_or_else(|rejection| {
        if rejection.status.is_client_error() {
            gateway.counts.count(&"".into(), |counters| {
                *counters.outcomes.entry(Outcome::Refused).or_default() += 1;
            });
        }
        reject(&rejection, wire)
    })
}

async fn answer(
    gateway: &Arc<Gateway>,
    head: Parts,
    body: Bytes,
    wire: Wire,
) -> Result<Response<ResponseBody>, Rejection> {
    let setup = gateway.setup();
    let asked = asked(&head.headers, &body)?;
    let route = gateway.route(&setup, &asked.model).await?;
    let meter = Meter::begin(&gateway.counts, &route.service);
    let outgoing = Passing { head, body, wire, asked, route };
    match keeper::enter(gateway, &setup, &outgoing.route.service).await {
        Entrance::Admitted(lease) => send(gateway, &setup, &outgoing, lease, meter).await,
        Entrance::Refused(rejection) => Err(failed(meter, rejection)),
        Entrance::Stale => Err(failed(meter, Rejection::unavailable("the service does not run"))),
        Entrance::Waits(ticket) => {
            let is_stream = outgoing.asked.is_stream;
            let gateway = Arc::clone(gateway);
            let mut pending: Pending = Box::pin(async move {
                let lease = match admitted(ticket.admission().await) {
                    Ok(lease) => lease,
                    Err(rejection) => return Err(failed(meter, rejection)),
                };
                send(&gateway, &setup, &outgoing, lease, meter).await
            });
            if !is_stream {
                return pending.await;
            }
            if let Ok(response) = tokio::time::timeout(COMMENT_INTERVAL, &mut pending).await {
                return response;
            }
            let mut response = Response::new(ResponseBody::loading(pending, wire));
            *response.headers_mut() = stream_head();
            Ok(response)
        }
    }
}

/// A request on its way to the service of its model.
struct Passing {
    head: Parts,
    body: Bytes,
    wire: Wire,
    asked: NamedModel,
    route: Route,
}

fn admitted(admission: Option<Admission>) -> Admission {
    admission.unwrap_or_else(|| Err(Rejection::unavailable("the gateway ends")))
}

fn failed(mut meter: Meter, rejection: Rejection) -> Rejection {
    meter.ends(Outcome::Failed);
    rejection
}

/// Reads the whole body into one buffer.
async fn read(headers: &HeaderMap, mut body: Incoming) -> Result<Bytes, Rejection> {
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BODY_BYTES) {
        return Err(too_large(body));
    }
    let mut whole = Vec::new();
    while let Some(frame) = frame(&mut body).await {
        let frame = frame.map_err(|_| Rejection::bad_request("the body of the request broke off"))?;
        let Some(data) = frame.data_ref() else { continue };
        if body.is_end_stream() && whole.is_empty() {
            return Ok(data.clone());
        }
        if whole.len() + data.len() > MAX_BODY_BYTES {
            return Err(too_large(body));
        }
        if whole.is_empty() {
            whole.reserve_exact(announced.unwrap_or(data.len()));
        }
        whole.extend_from_slice(data);
    }
    Ok(whole.into())
}

async fn frame(body: &mut Incoming) -> Option<Result<hyper::body::Frame<Bytes>, hyper::Error>> {
    std::future::poll_fn(|context| std::pin::Pin::new(&mut *body).poll_frame(context)).await
}

/// Refuses the body, and goes on reading it for a moment: closing the connection at once would take the response with it.
fn too_large(mut body: Incoming) -> Rejection {
    tokio::spawn(tokio::time::timeout(DRAIN_TIMEOUT, async move {
        while let Some(Ok(_)) = frame(&mut body).await {}
    }));
    let message = format!("the body is larger than {} MiB", MAX_BODY_BYTES / 1024 / 1024);
    Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

fn asked(headers: &HeaderMap, body: &[u8]) -> Result<NamedModel, Rejection> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Some(boundary) = multipart::boundary(content_type) {
        let (place, model) = multipart::model(body, &boundary)
            .ok_or_else(|| Rejection::bad_request("the form has no field `model`").param("model"))?;
        return Ok(NamedModel { model, is_stream: false, place: NamePlace::Form(place) });
    }
    let fields =
        splice::fields(body).map_err(|fault| Rejection::bad_request(fault.to_string()).param("model"))?;
    Ok(NamedModel { model: fields.model.clone(), is_stream: fields.stream, place: NamePlace::Json(fields) })
}

/// Returns the body for the server: the same bytes but for the model's name.
fn pieces(asking: &Passing) -> Pieces {
    let Passing { body, asked, route, .. } = asking;
    let changed = match &asked.place {
        NamePlace::Json(fields) => splice::with_model(body, fields, &route.model),
        NamePlace::Form(place) if route.model != asked.model => {
            Some(multipart::with_model(body, place.clone(), &route.model))
        }
        NamePlace::Form(_) => None,
    };
    Pieces::new(vec![changed.map_or_else(|| body.clone(), Bytes::from)])
}

/// Sends the request. A server that takes no connection was stopped or died: it is started anew, once.
async fn send(
    gateway: &Arc<Gateway>,
    setup: &Arc<Setup>,
    asking: &Passing,
    lease: Lease,
    mut meter: Meter,
) -> Result<Response<ResponseBody>, Rejection> {
    let body = pieces(asking);
    let first = try_to_send(gateway, asking, &body, &lease).await;
    let (sent, lease) = match first {
        Err(SendError::Connect(_)) => {
            gateway.seats.distrust(&lease.service);
            drop(lease);
            let again = match keeper::enter(gateway, setup, &asking.route.service).await {
                Entrance::Admitted(lease) => Ok(lease),
                Entrance::Waits(ticket) => admitted(ticket.admission().await),
                Entrance::Refused(rejection) => Err(rejection),
                Entrance::Stale => Err(Rejection::unavailable("the service does not run")),
            };
            let lease = match again {
                Ok(lease) => lease,
                Err(rejection) => return Err(failed(meter, rejection)),
            };
            (try_to_send(gateway, asking, &body, &lease).await, lease)
        }
        sent => (sent, lease),
    };
    let (response, connection) = match sent {
        Ok(sent) => sent,
        Err(error) => return Err(failed(meter, bad_gateway(&lease, &error))),
    };
    meter.receives();
    let (head, incoming) = response.into_parts();
    let is_watched = head.status == StatusCode::OK && headers::is_event_stream(&head.headers);
    let end = is_watched.then(EndMark::default);
    let pool = Arc::clone(&gateway.pool);
    let body = PassedBody::new(incoming, connection, pool, end, asking.wire, meter, lease);
    let mut response = Response::new(ResponseBody::Passed(Box::new(body)));
    *response.status_mut() = head.status;
    *response.headers_mut() = headers::to_client(&head.headers);
    Ok(response)
}

async fn try_to_send(
    gateway: &Gateway,
    asking: &Passing,
    body: &Pieces,
    lease: &Lease,
) -> Result<(Response<Incoming>, super::pool::Connection), SendError> {
    let address = &lease.endpoint.address;
    let path = asking.head.uri.path_and_query().cloned();
    let outgoing = Outgoing {
        method: asking.head.method.clone(),
        uri: path.map_or_else(|| Uri::from_static("/"), Uri::from),
        headers: headers::to_server(&asking.head.headers, &address.dial().to_string(), body.len()),
        body: body.clone(),
    };
    gateway.pool.send(address, &outgoing).await
}

fn bad_gateway(lease: &Lease, error: &SendError) -> Rejection {
    let service = &lease.service;
    let message = match error {
        SendError::Connect(error) => {
            format!("cannot connect to {service} at {}: {error}", lease.endpoint.address)
        }
        SendError::NoResponse(error) if error.is_parse() => {
            format!("{service} at {} did not answer with HTTP: {error}", lease.endpoint.address)
        }
        SendError::NoResponse(_) => format!("{service} closed the connection without a response"),
    };
    Rejection::new(StatusCode::BAD_GATEWAY, message)
}
