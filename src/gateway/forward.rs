//! Requests that name a model: reads the body, finds the model, and waits for its service.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Request, Response, StatusCode};

use super::body::{COMMENT_INTERVAL, Pending, ResponseBody, stream_head};
use super::exchange::{NamePlace, NamedModel, Passing, admitted, estimate, failed, frame, send};
use super::meter::{Meter, Outcome};
use super::rejection::Rejection;
use super::respond::reject;
use super::seats::Entrance;
use super::state::Gateway;
use super::task;
use super::wire::Wire;
use super::{headers, keeper, multipart, splice};

/// Maximum size of a request body.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Maximum length of a model's name, which may be a path: errors repeat it.
const MAX_MODEL_BYTES: usize = 4096;

/// How long the rest of a body that is too large is read: some clients read no response before they have sent
/// everything.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers a request of the OpenAI or Anthropic API that names its model in the body.
pub(super) async fn post(gateway: &Arc<Gateway>, request: Box<Request<Incoming>>) -> Response<ResponseBody> {
    let wire = Wire::of_path(request.uri().path());
    let (request, body) = match read(request).await {
        Ok(read) => read,
        Err(rejection) => return reject(&rejection, wire),
    };
    let answered = answer(gateway, request, body, wire).await;
    answered.unwrap_or_else(|rejection| reject(&rejection, wire))
}

async fn answer(
    gateway: &Arc<Gateway>,
    request: Box<Request<Incoming>>,
    body: Bytes,
    wire: Wire,
) -> Result<Response<ResponseBody>, Rejection> {
    let setup = gateway.setup();
    // A request has no service until its model is found.
    let mut refused = Meter::begin(&gateway.counts, &Arc::default());
    refused.ends(Outcome::Refused);
    if headers::is_compressed(request.headers()) {
        let message = "the body is compressed: send it without `Content-Encoding`";
        return Err(Rejection::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let asked = asked(request.headers(), &body)?;
    if asked.model.len() > MAX_MODEL_BYTES {
        let message = format!("`model` is longer than {MAX_MODEL_BYTES} bytes");
        return Err(Rejection::bad_request(message).param("model"));
    }
    let route = gateway.route(&setup, &asked.model).await?;
    let mut meter = refused.of(&route.service);
    let passing = Box::new(Passing { request, body, wire, asked, route });
    if passing.is_count() && setup.lacks_other_wires(&passing.route.service) {
        return estimate(&passing, &mut meter);
    }
    match keeper::enter(gateway, &setup, &passing.route).await {
        Entrance::Admitted(lease) => send(gateway, &setup, &passing, lease, meter).await,
        Entrance::Refused(rejection) => Err(failed(&mut meter, rejection)),
        Entrance::Stale => Err(failed(&mut meter, Rejection::unavailable("the service does not run"))),
        Entrance::Waits(ticket) => {
            let is_stream = passing.asked.is_stream;
            let gateway = Arc::clone(gateway);
            let mut pending: Pending = Box::pin(async move {
                let lease = match admitted(ticket.admission().await) {
                    Ok(lease) => lease,
                    Err(rejection) => return Err(failed(&mut meter, rejection)),
                };
                send(&gateway, &setup, &passing, lease, meter).await
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

/// Reads the whole body into one buffer. The request keeps its head.
pub(super) async fn read(
    mut request: Box<Request<Incoming>>,
) -> Result<(Box<Request<Incoming>>, Bytes), Rejection> {
    let announced = usize::try_from(request.body().size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_BODY_BYTES {
        return Err(too_large(request));
    }
    let mut whole = Vec::new();
    while let Some(frame) = frame(request.body_mut()).await {
        let frame = frame.map_err(|_| Rejection::bad_request("the body of the request broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if request.body().is_end_stream() && whole.is_empty() {
            return Ok((request, data));
        }
        if whole.len() + data.len() > MAX_BODY_BYTES {
            return Err(too_large(request));
        }
        if whole.is_empty() {
            whole.reserve_exact(announced.max(data.len()));
        }
        whole.extend_from_slice(&data);
    }
    Ok((request, whole.into()))
}

/// Refuses the body, and keeps reading it for a moment: closing the connection at once would lose the response.
fn too_large(mut request: Box<Request<Incoming>>) -> Rejection {
    task::start(async move {
        let rest = async { while let Some(Ok(_)) = frame(request.body_mut()).await {} };
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, rest).await;
    });
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
