//! Messages and hints for the gateway.

use crate::app::ServeError;
use crate::app::gateway::GATEWAY;
use crate::cli::error::{Failure, other_port};
use crate::cli::exit;

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let failure = Self::of(exit::of_serve(&error), &error);
        match &error {
            ServeError::PortInUse { spare, .. } => {
                failure.hint(other_port("stop that program, or ", GATEWAY, *spare))
            }
            ServeError::Listen { .. } => {
                failure.hint("choose an address of this machine: fusion config set gateway.host 127.0.0.1")
            }
            ServeError::NoToken { .. } => failure
                .hint("choose a secret, which clients then send: fusion config set gateway.token SECRET"),
            ServeError::OwnPort { spare, .. } => failure.hint(other_port("", GATEWAY, *spare)),
            ServeError::Runtime(_) => failure,
        }
    }
}
