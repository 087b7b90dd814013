//! Messages and hints for the gateway.

use crate::app::ServeError;
use crate::cli::error::Failure;
use crate::cli::exit;

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let failure = Self::of(exit::of_serve(&error), &error);
        match &error {
            ServeError::PortInUse { .. } => {
                failure.hint("stop that program, or choose another port: fusion config set gateway.port PORT")
            }
            ServeError::Listen { .. } => {
                failure.hint("choose an address of this machine: fusion config set gateway.host 127.0.0.1")
            }
            ServeError::NoToken { .. } => failure
                .hint("choose a secret, which clients then send: fusion config set gateway.token SECRET"),
            ServeError::OwnPort { .. } => {
                failure.hint("choose another port: fusion config set gateway.port PORT")
            }
            ServeError::Runtime(_) => failure,
        }
    }
}
