//! Messages and hints for searches of the hub.

use super::Failure;
use super::models::install_tool_hint;
use crate::app::search::SearchError;
use crate::cli::exit;
use crate::cli::units::duration;
use crate::core::models::catalogue::ModelError;
use crate::core::models::hub::search::HubError;

impl From<SearchError> for Failure {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::ToolMissing { ref comes_with } => {
                let hint = install_tool_hint(comes_with.as_deref());
                Self::of(exit::of_search(&error), &error).hint(hint)
            }
            SearchError::NoHub { .. } => Self::of(exit::of_search(&error), &error),
            SearchError::Hub(error) => error.into(),
            SearchError::App(error) => error.into(),
        }
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        let failure = Self::of(exit::of_hub(&error), &error);
        match error {
            // The user who sent the signal knows it.
            HubError::Tool(ModelError::Cancelled) => Self::new(failure.exit, ""),
            HubError::TooManyRequests { retry_after: Some(time) } => {
                failure.hint(format!("try again in {}", duration(time)))
            }
            HubError::TooManyRequests { retry_after: None } => failure.hint("try again in five minutes"),
            HubError::Unreachable { .. } => failure.hint("check the connection, then try again"),
            HubError::Offline { variable } => failure.hint(format!("unset {variable}, then try again")),
            HubError::Failed { said } if said.contains("401") => {
                failure.hint("check the token of the hub: hf auth whoami")
            }
            HubError::ToolTooOld => failure.hint(
                "install a newer one, with the tool that installed it: uv tool upgrade huggingface_hub",
            ),
            HubError::Failed { .. } | HubError::Tool(_) => failure,
        }
    }
}
