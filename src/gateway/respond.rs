//! The responses that the gateway makes itself.

use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::body::ResponseBody;
use super::rejection::Rejection;
use super::wire::Wire;

/// Returns a JSON response.
pub(super) fn json(text: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns a value as a JSON response.
pub(super) fn json_of(value: &impl Serialize) -> Result<Response<ResponseBody>, Rejection> {
    written(serde_json::to_vec(value))
}

fn written(text: serde_json::Result<Vec<u8>>) -> Result<Response<ResponseBody>, Rejection> {
    text.map(json).map_err(|error| Rejection::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// Returns a response without a body.
pub(super) fn empty() -> Response<ResponseBody> {
    Response::new(ResponseBody::empty())
}

/// Returns the error in the shape of the API that was called.
pub(super) fn reject(rejection: &Rejection, wire: Wire) -> Response<ResponseBody> {
    let mut response = json(wire.error_body(&rejection.failure()));
    *response.status_mut() = rejection.status;
    let headers = response.headers_mut();
    if let Some(seconds) = rejection.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(methods) = rejection.allow {
        headers.insert(ALLOW, HeaderValue::from_static(methods));
    }
    response
}
