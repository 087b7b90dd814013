//! Messages and hints for searches.

use super::Failure;
use crate::app::search::SearchError;
use crate::cli::exit;
use crate::cli::terminal::ui::printable;
use crate::cli::units::duration;
use crate::core::models::catalogue::some;
use crate::core::models::hub::search::HubSearchError;

impl From<SearchError> for Failure {
    fn from(error: SearchError) -> Self {
        let exit = exit::of_search(&error);
        let SearchError::Hub { error, here, brings_tool } = &error else {
            return Self::of(exit, &error).hint("`fusion templates` lists the runtimes");
        };
        let mut failure = Self::of(exit, error).hint(hint(error, *brings_tool));
        failure.message = printable(&failure.message);
        if exit == exit::Exit::RequestFailed {
            failure.details = vec![if here.is_empty() {
                "no model on this machine matches".to_owned()
            } else {
                format!("on this machine: {}", some(here))
            }];
        }
        failure
    }
}

fn hint(error: &HubSearchError, brings_tool: Option<&'static str>) -> String {
    const BY_HAND: &str = "uv tool install huggingface_hub";
    match (error, brings_tool) {
        (HubSearchError::ToolMissing { .. } | HubSearchError::ToolBroken { .. }, Some(runtime)) => {
            format!("install it: fusion {runtime} install, which brings it; or {BY_HAND}")
        }
        (HubSearchError::ToolMissing { .. } | HubSearchError::ToolBroken { .. }, None) => {
            format!("install it: {BY_HAND}")
        }
        (HubSearchError::RateLimited { seconds }, _) => {
            // The hub counts requests in windows of five minutes.
            let wait = std::time::Duration::from_secs(seconds.unwrap_or(300));
            format!("try again in {}", duration(wait))
        }
        (HubSearchError::Unreachable { said }, _) if said.contains("HF_HUB_OFFLINE") => {
            "unset HF_HUB_OFFLINE".to_owned()
        }
        (HubSearchError::Unreachable { .. }, _) => "try again when the network is back".to_owned(),
        (HubSearchError::Failed { .. } | HubSearchError::Cancelled, Some(runtime)) => {
            format!("update the tool: fusion {runtime} install --upgrade; or try again")
        }
        (HubSearchError::Failed { .. } | HubSearchError::Cancelled, None) => "try again".to_owned(),
    }
}
