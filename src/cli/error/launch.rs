//! Messages and hints for agents that are not launched.

use super::Failure;
use crate::app::ability::AbilityError;
use crate::app::launch::LaunchError;
use crate::cli::exit;

impl From<AbilityError> for Failure {
    fn from(error: AbilityError) -> Self {
        Self::of(exit::of_chat(&error.source), &error).hint("see the log of the service")
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        let exit = exit::of_launch(&error);
        let hint = match &error {
            LaunchError::NotInstalled { agent } => format!("install it: {}", agent.install),
            LaunchError::TooOld { agent, .. } => {
                format!("install a newer one: {}; or try it with --force", agent.install)
            }
            LaunchError::WindowTooSmall { cure, .. } => {
                let cure = cure.as_ref().map(|cure| format!("{cure}; or ")).unwrap_or_default();
                format!("{cure}try it with --force")
            }
            LaunchError::ContextTooLarge { context, .. } => {
                format!("tell it at most {context}, or load more")
            }
            LaunchError::NoToolCall { .. } => {
                "choose a model that calls tools, such as qwen3:8b; or try it with --force".to_owned()
            }
            LaunchError::FullThroughGateway { .. } => "launch it without --full".to_owned(),
            LaunchError::Ability(_) => "see the log of the service, or launch it with --force".to_owned(),
            LaunchError::File(_) | LaunchError::Lock(_) => String::new(),
        };
        match error {
            LaunchError::File(error) => error.into(),
            error => Self::of(exit, &error).hint(hint),
        }
    }
}
