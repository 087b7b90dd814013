//! Why the gateway does not pass a request on.

use hyper::StatusCode;

use super::wire::{ApiFailure, Wire};
use crate::core::events::chain;
use crate::core::services::ServiceError;

/// An error response of the gateway. Cloned for every request that waited for the same thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// A code for programs, such as `model_not_found`.
    code: Option<&'static str>,
    /// The field of the body that is wrong.
    param: Option<&'static str>,
    /// Seconds after which another attempt may succeed.
    pub(super) retry_after: Option<u64>,
    /// The methods that the path has.
    pub(super) allow: Option<&'static str>,
}

impl Rejection {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), code: None, param: None, retry_after: None, allow: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// Returns the error for a service that cannot be observed.
    pub(super) fn of_service(error: &ServiceError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, chain(error))
    }

    #[must_use]
    pub(super) fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    #[must_use]
    pub(super) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    #[must_use]
    pub(super) fn param(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    #[must_use]
    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    #[must_use]
    pub(super) fn allow(self, methods: &'static str) -> Self {
        Self { allow: Some(methods), ..self }
    }

    /// Returns the error as the last event of a stream.
    pub(super) fn event(&self, wire: Wire) -> String {
        wire.error_event(&self.failure())
    }

    pub(super) fn failure(&self) -> ApiFailure {
        ApiFailure {
            status: self.status.as_u16(),
            message: self.message.clone(),
            param: self.param,
            code: self.code,
        }
    }
}

impl From<ApiFailure> for Rejection {
    fn from(failure: ApiFailure) -> Self {
        let ApiFailure { status, message, param, code } = failure;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { code, param, ..Self::new(status, message) }
    }
}
