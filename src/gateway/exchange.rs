//! Sends a request to the service of its model, and makes the response for the client: as it is, or translated.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::body::{Body as _, Bytes, Frame, Incoming};
use hyper::header::{RETRY_AFTER, TRANSFER_ENCODING};
use hyper::{Request, Response, StatusCode, Uri};

use super::body::{PassedBody, ResponseBody, Treatment, stream_head};
use super::end_mark::{EndMark, usage_of_response};
use super::headers;
use super::keeper;
use super::meter::{Meter, Outcome};
use super::names::Route;
use super::pool::{Connection, Pieces, SendError};
use super::rejection::Rejection;
use super::respond::json;
use super::seats::{Admission, Entrance, Lease};
use super::state::{Gateway, Setup};
use super::translate::{self, CHAT_PATH, Stamp, Translator};
use super::wire::Wire;
use super::{multipart, splice};

/// Maximum size of an error response that is translated.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Maximum size of an answer that is translated as a whole.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A request on its way to the service of its model.
pub(super) struct Passing {
    /// Its own body has been read.
    pub(super) request: Box<Request<Incoming>>,
    pub(super) body: Bytes,
    pub(super) wire: Wire,
    pub(super) asked: NamedModel,
    pub(super) route: Route,
}

/// The kind of answer that a request asks for.
pub(super) struct NamedModel {
    pub(super) model: String,
    /// Whether the client expects a stream of events.
    pub(super) is_stream: bool,
    pub(super) place: NamePlace,
}

/// Where the model is in the body.
pub(super) enum NamePlace {
    Json(splice::Fields),
    Form(Range<usize>),
}

/// A response whose head is here.
struct Delivered {
    head: hyper::http::response::Parts,
    incoming: Incoming,
    connection: Connection,
    lease: Lease,
}

impl Passing {
    /// Returns whether the request only counts its tokens.
    pub(super) fn is_count(&self) -> bool {
        self.request.uri().path().ends_with("/count_tokens")
    }

    /// Returns the request for the server: the same bytes except the model's name.
    fn as_it_is(&self) -> (Uri, Pieces) {
        let body = match &self.asked.place {
            NamePlace::Json(fields) => splice::with_model(&self.body, fields, &self.route.model),
            NamePlace::Form(place) => multipart::with_model(&self.body, place.clone(), &self.route.model),
        };
        let path = self.request.uri().path_and_query().cloned();
        (path.map_or_else(|| Uri::from_static("/"), Uri::from), Pieces::new(body))
    }

    /// Returns the request as one for a chat completion.
    fn translated(&self) -> Result<(Uri, Pieces), Rejection> {
        let body = translate::request(self.wire, &self.body, &self.route.model).map_err(Rejection::from)?;
        Ok((Uri::from_static(CHAT_PATH), Pieces::new(vec![body.into()])))
    }
}

/// Counts the request as failed.
pub(super) fn failed(meter: &mut Meter, rejection: Rejection) -> Rejection {
    if rejection.status.is_client_error() {
        meter.ends(Outcome::Refused);
    } else {
        meter.fails(&rejection.message);
    }
    rejection
}

pub(super) fn admitted(admission: Option<Admission>) -> Admission {
    admission.unwrap_or_else(|| Err(Rejection::unavailable("the gateway ends")))
}

/// Sends the request and returns the response. A server without the API of the request gets it translated.
pub(super) async fn send(
    gateway: &Arc<Gateway>,
    setup: &Arc<Setup>,
    passing: &Passing,
    lease: Lease,
    mut meter: Box<Meter>,
) -> Result<Response<ResponseBody>, Rejection> {
    let known = match passing.wire {
        Wire::Chat => Some(true),
        _ => lease.upstream.has_other_wires,
    };
    let mut has_wire = known.unwrap_or_else(|| !gateway.is_translated(&lease.service, passing.wire));
    let mut lease = lease;
    loop {
        if !has_wire && passing.is_count() {
            return estimate(passing, &mut meter);
        }
        let request = if has_wire { Ok(passing.as_it_is()) } else { passing.translated() };
        let request = match request {
            Ok(request) => request,
            Err(rejection) => return Err(failed(&mut meter, rejection)),
        };
        let sent = match deliver(gateway, setup, passing, &request, lease).await {
            Ok(sent) => sent,
            Err(rejection) => return Err(failed(&mut meter, rejection)),
        };
        let lacks_it = matches!(sent.head.status.as_u16(), 404 | 405 | 501);
        // That says nothing of its other paths.
        if lacks_it && passing.is_count() {
            return estimate(passing, &mut meter);
        }
        if !has_wire || known.is_some() || !lacks_it {
            meter.receives();
            if has_wire {
                return Ok(passed(gateway, passing, sent, meter));
            }
            return Box::pin(translated(gateway, passing, sent, meter)).await;
        }
        gateway.translates(&sent.lease.service, passing.wire);
        has_wire = false;
        lease = sent.lease;
    }
}

/// Answers a request to count tokens for a server that cannot.
pub(super) fn estimate(passing: &Passing, meter: &mut Meter) -> Result<Response<ResponseBody>, Rejection> {
    meter.ends(Outcome::Ok);
    translate::count_tokens(&passing.body).map(json).map_err(|failure| failed(meter, failure.into()))
}

/// Sends the request. A server that accepts no connection was stopped or died: it is started again, once.
async fn deliver(
    gateway: &Arc<Gateway>,
    setup: &Arc<Setup>,
    passing: &Passing,
    request: &(Uri, Pieces),
    mut lease: Lease,
) -> Result<Delivered, Rejection> {
    let awake = gateway.wakefulness.wake(&setup.app, &lease.service);
    let mut is_first = true;
    loop {
        match try_to_send(gateway, passing, request, &lease).await {
            // No request that is passed on asks for another protocol.
            Ok((response, _)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let message = format!("{} switched to another protocol, unasked", lease.service);
                return Err(Rejection::new(StatusCode::BAD_GATEWAY, message));
            }
            Ok((response, connection)) => {
                lease.awake = awake;
                let (head, incoming) = response.into_parts();
                return Ok(Delivered { head, incoming, connection, lease });
            }
            Err(SendError::Connect(_)) if is_first => {
                let refused = Arc::clone(&lease.upstream);
                drop(lease);
                Box::pin(keeper::check_again(gateway, setup, &passing.route.service, Some(refused))).await;
                lease = Box::pin(enter(gateway, setup, passing)).await?;
                is_first = false;
            }
            Err(error) => return Err(bad_gateway(&lease, &error)),
        }
    }
}

/// Waits for the service.
async fn enter(gateway: &Arc<Gateway>, setup: &Arc<Setup>, passing: &Passing) -> Admission {
    match keeper::enter(gateway, setup, &passing.route).await {
        Entrance::Admitted(lease) => Ok(lease),
        Entrance::Waits(ticket) => admitted(ticket.admission().await),
        Entrance::Refused(rejection) => Err(rejection),
        Entrance::Stale => Err(Rejection::unavailable("the service does not run")),
    }
}

async fn try_to_send(
    gateway: &Gateway,
    passing: &Passing,
    (uri, body): &(Uri, Pieces),
    lease: &Lease,
) -> Result<(Response<Incoming>, Connection), SendError> {
    let outgoing = || {
        let mut request = Request::new(body.clone());
        request.method_mut().clone_from(passing.request.method());
        request.uri_mut().clone_from(uri);
        *request.headers_mut() =
            headers::to_server(passing.request.headers(), &lease.upstream.host, body.len());
        request
    };
    gateway.pool.send(&lease.upstream, body.len(), &outgoing).await
}

fn bad_gateway(lease: &Lease, error: &SendError) -> Rejection {
    let (service, address) = (&lease.service, &lease.upstream.endpoint.address);
    let message = match error {
        SendError::Connect(error) => format!("cannot connect to {service} at {address}: {error}"),
        SendError::NoResponse(error) if error.is_parse() => {
            format!("{service} at {address} did not answer with HTTP: {error}")
        }
        SendError::NoResponse(_) => format!("{service} closed the connection without a response"),
    };
    Rejection::new(StatusCode::BAD_GATEWAY, message)
}

/// Returns the response of the server as it is.
fn passed(
    gateway: &Gateway,
    passing: &Passing,
    sent: Delivered,
    meter: Box<Meter>,
) -> Response<ResponseBody> {
    let Delivered { head, incoming, connection, lease } = sent;
    let is_stream = headers::is_event_stream(&head.headers);
    let treatment = match head.status {
        // It was not asked for a compressed response, which cannot be read.
        _ if headers::is_compressed(&head.headers) => Treatment::Unread,
        StatusCode::OK if is_stream => Treatment::Watched(EndMark::default()),
        StatusCode::OK if headers::is_json(&head.headers) => {
            let is_chunked = head.headers.contains_key(TRANSFER_ENCODING);
            let is_delimited = is_chunked || incoming.size_hint().exact().is_some();
            Treatment::Counted { end: Vec::new(), is_delimited }
        }
        _ => Treatment::Unread,
    };
    let pool = Arc::clone(&gateway.pool);
    let body = PassedBody::new(incoming, connection, pool, treatment, passing.wire, meter, lease);
    let mut response = Response::new(ResponseBody::Passed(Box::new(body)));
    *response.status_mut() = head.status;
    *response.headers_mut() = headers::to_client(&head.headers, is_stream);
    response
}

/// Returns the response of the server in the wire of the client.
async fn translated(
    gateway: &Gateway,
    passing: &Passing,
    sent: Delivered,
    mut meter: Box<Meter>,
) -> Result<Response<ResponseBody>, Rejection> {
    let Delivered { head, mut incoming, mut connection, lease } = sent;
    let (wire, model) = (passing.wire, &passing.asked.model);
    if head.status != StatusCode::OK {
        let body = whole(&mut incoming, &mut connection, MAX_ERROR_BYTES).await.unwrap_or_default();
        meter.ends(Outcome::Ok);
        let mut response = json(translate::error(wire, head.status.as_u16(), &body));
        *response.status_mut() = head.status;
        if let Some(seconds) = head.headers.get(RETRY_AFTER) {
            response.headers_mut().insert(RETRY_AFTER, seconds.clone());
        }
        return Ok(response);
    }
    let stamp = stamp();
    if headers::is_event_stream(&head.headers) {
        let treatment = Treatment::Translated(Box::new(Translator::new(wire, model, stamp)));
        let pool = Arc::clone(&gateway.pool);
        let body = PassedBody::new(incoming, connection, pool, treatment, wire, meter, lease);
        let mut response = Response::new(ResponseBody::Passed(Box::new(body)));
        *response.headers_mut() = stream_head();
        return Ok(response);
    }
    let Some(body) = whole(&mut incoming, &mut connection, MAX_ANSWER_BYTES).await else {
        meter.ends(Outcome::Cut);
        return Err(Rejection::new(StatusCode::BAD_GATEWAY, "the response of the server broke off"));
    };
    gateway.pool.keep(connection);
    meter.costs(usage_of_response(&body));
    meter.ends(Outcome::Ok);
    if passing.asked.is_stream {
        // The server does not stream.
        let (mut translator, mut events) = (Translator::new(wire, model, stamp), Vec::new());
        translator.push_whole(&body, &mut events);
        translator.end(&mut events);
        let mut response = Response::new(ResponseBody::whole(events));
        *response.headers_mut() = stream_head();
        return Ok(response);
    }
    translate::answer(wire, &body, model, &stamp).map(json).map_err(Rejection::from)
}

/// Reads a body to its end; `None` if it breaks off or is larger than `limit`.
async fn whole(incoming: &mut Incoming, connection: &mut Connection, limit: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let mut next = async || {
        std::future::poll_fn(|context| {
            connection.drive(context);
            Pin::new(&mut *incoming).poll_frame(context)
        })
        .await
    };
    while let Some(frame) = next().await {
        if let Some(data) = frame.ok()?.data_ref() {
            body.extend_from_slice(data);
        }
        if body.len() > limit {
            return None;
        }
    }
    Some(body)
}

pub(super) async fn frame(body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

fn stamp() -> Stamp {
    let mut bytes = [0; 8];
    // Without randomness, the time distinguishes answers.
    let _ = getrandom::fill(&mut bytes);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let tag = u64::from_ne_bytes(bytes) ^ u64::from(now.subsec_nanos());
    Stamp { tag: format!("{tag:016x}"), created_at: now.as_secs() }
}
