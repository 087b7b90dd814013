//! Conversations: their requests, and the sessions in which they are saved.

mod context_use;
mod conversation;
mod session;
mod sessions;

pub use self::context_use::{ContextUse, Fill};
pub use self::conversation::{ChatMessage, Conversation, Mark, Role, SessionHeader, SessionLine};
pub use self::session::{ChatSession, Contents, SessionError};
pub use self::sessions::{SessionRow, Sessions};

use super::app::App;
use super::request::{Overrides, Question, Request};
use crate::core::services::ManagedService;

/// Fields of a request that the conversation itself makes.
const MADE_FIELDS: [&str; 3] = ["model", "messages", "stream"];

impl App {
    /// Returns the sessions of this user.
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.paths.sessions())
    }

    /// Returns the header of a new session with `service`: what the configuration and the command line say.
    pub fn new_session(&self, service: &ManagedService, overrides: &Overrides<'_>) -> SessionHeader {
        let Request { model, body } = self.request(service, &Question::default(), None, overrides);
        let mut parameters = body.as_object().cloned().unwrap_or_default();
        parameters.retain(|field, _| !MADE_FIELDS.contains(&field.as_str()));
        let system = overrides.system.unwrap_or_else(|| self.system_prompt(service, &model.name)).to_owned();
        SessionHeader { service: service.name.to_string(), model: model.name, system, parameters }
    }

    /// Builds the request for the next answer.
    pub fn chat_request(&self, service: &ManagedService, conversation: &Conversation) -> Request {
        let model = self.model(service, &conversation.model);
        let body = conversation.body(&model.name);
        Request { model, body }
    }
}
