//! Messages and hints for saved conversations.

use super::Failure;
use crate::app::chat::SessionError;
use crate::cli::exit;

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        let exit = exit::of_session(&error);
        let hint = match &error {
            SessionError::InvalidName { .. } => {
                "a name has letters, digits, `-`, `_` and `.`, and begins with none of `-` and `.`"
            }
            SessionError::InUse { .. } => {
                "leave it there with Ctrl-D, or choose another name with --session NAME"
            }
            SessionError::Missing { .. } => "list the sessions: fusion chat ls",
            SessionError::NoneYet { .. } => "start one without --continue",
            SessionError::File(_) => "",
        };
        match error {
            SessionError::File(error) => error.into(),
            error => Self::of(exit, &error).hint(hint),
        }
    }
}
