//! A conversation as plain data, and the lines of a session file that change it.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::context_use::ContextUse;

use crate::core::json_object;

/// One line of a session file. What is read from a file and what happens now change a conversation in the same way.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum SessionLine {
    Header(SessionHeader),
    Message(ChatMessage),
    Mark(Mark),
}

impl SessionLine {
    /// Reads a line of a file; `None` if it is no JSON object that is known.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let mut fields: Map<String, Value> = json_object::parse(line).ok()?;
        let header = SessionHeader::of(&fields).map(Self::Header);
        let message = || ChatMessage::of(&mut fields).map(Self::Message);
        header.or_else(message).or_else(|| Mark::of(&fields).map(Self::Mark))
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    fields.get(name)?.as_str().map(str::to_owned)
}

/// The first line of a session file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionHeader {
    /// The service that the conversation was started with.
    pub service: String,
    /// By the server's name for it.
    pub model: String,
    /// The system message; an empty one is not sent.
    pub system: String,
    /// The other fields of the request.
    pub parameters: Map<String, Value>,
}

impl SessionHeader {
    fn of(fields: &Map<String, Value>) -> Option<Self> {
        let parameters =
            fields.get("parameters").map_or_else(|| Some(Map::new()), |it| it.as_object().cloned());
        Some(Self {
            service: text(fields, "service")?,
            model: text(fields, "model")?,
            system: if fields.contains_key("system") { text(fields, "system")? } else { String::new() },
            parameters: parameters?,
        })
    }
}

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    User,
    Assistant,
}

/// A question or an answer. `role` and `content` are as in the request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatMessage {
    pub role: Role,
    pub content: Value,
    /// Of an answer: the tokens of the whole conversation up to here, if the server counted them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Of an answer: whether it was stopped or broke off.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

impl ChatMessage {
    /// Takes the content out of the fields, for it may be large.
    fn of(fields: &mut Map<String, Value>) -> Option<Self> {
        let role = match fields.get("role")?.as_str()? {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => return None,
        };
        let tokens = match fields.get("tokens") {
            None | Some(Value::Null) => None,
            Some(tokens) => Some(tokens.as_u64()?),
        };
        let partial = fields.get("partial").map_or(Some(false), Value::as_bool)?;
        Some(Self { role, content: fields.remove("content")?, tokens, partial })
    }

    /// Returns a question.
    pub fn question(content: Value) -> Self {
        Self { role: Role::User, content, tokens: None, partial: false }
    }

    /// Returns the text, without images.
    pub fn text(&self) -> String {
        let part = |part: &Value| part["text"].as_str().map(str::to_owned);
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts.iter().filter_map(part).collect::<Vec<_>>().join("\n\n"),
            _ => String::new(),
        }
    }

    /// Returns the images as `data:` URLs.
    pub fn images(&self) -> Vec<String> {
        let parts = self.content.as_array().map_or(&[][..], Vec::as_slice);
        parts.iter().filter_map(|part| part["image_url"]["url"].as_str()).map(str::to_owned).collect()
    }
}

/// A change of the conversation that is not a message.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "mark", rename_all = "lowercase")]
pub enum Mark {
    /// Takes out the last question with its answer.
    Undo,
    /// Takes out the last answer.
    Retry,
    /// Takes out the oldest questions with their answers.
    Drop { count: usize },
    /// Takes out every message.
    Clear,
    /// Changes the model.
    Model { model: String },
    /// Changes the system message.
    System { system: String },
    /// Sets a field of the request; null removes it.
    Set { key: String, value: Value },
}

impl Mark {
    fn of(fields: &Map<String, Value>) -> Option<Self> {
        let mark = match fields.get("mark")?.as_str()? {
            "undo" => Self::Undo,
            "retry" => Self::Retry,
            "drop" => Self::Drop { count: fields.get("count")?.as_u64()?.try_into().ok()? },
            "clear" => Self::Clear,
            "model" => Self::Model { model: text(fields, "model")? },
            "system" => Self::System { system: text(fields, "system")? },
            "set" => Self::Set { key: text(fields, "key")?, value: fields.get("value")?.clone() },
            _ => return None,
        };
        Some(mark)
    }
}

/// A conversation: what every request is made of. Questions and answers alternate, and the first message is a question.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// By the server's name for it; empty if no model is set.
    pub model: String,
    pub system: String,
    /// The other fields of the request.
    pub parameters: Map<String, Value>,
    messages: Vec<ChatMessage>,
}

impl Conversation {
    /// Applies a line.
    pub fn apply(&mut self, line: &SessionLine) {
        match line {
            SessionLine::Header(header) => {
                self.model.clone_from(&header.model);
                self.system.clone_from(&header.system);
                self.parameters.clone_from(&header.parameters);
            }
            SessionLine::Message(message) => self.add(message),
            SessionLine::Mark(mark) => self.change(mark),
        }
    }

    /// Adds a message. A question replaces one without an answer: servers refuse two in a row. An answer whose
    /// question is gone is left out.
    fn add(&mut self, message: &ChatMessage) {
        match message.role {
            Role::User if self.is_unanswered() => {
                self.messages.pop();
            }
            Role::Assistant if !self.is_unanswered() => return,
            Role::User | Role::Assistant => {}
        }
        self.messages.push(message.clone());
    }

    fn change(&mut self, mark: &Mark) {
        match mark {
            Mark::Undo => {
                self.take_answer();
                self.messages.pop();
                return;
            }
            Mark::Retry => return self.take_answer(),
            Mark::Drop { count } => {
                let end = count.saturating_mul(2).min(self.messages.len());
                self.messages.drain(..end);
            }
            Mark::Clear => self.messages.clear(),
            Mark::Model { model } => self.model.clone_from(model),
            Mark::System { system } => self.system.clone_from(system),
            Mark::Set { key, value: Value::Null } => {
                self.parameters.remove(key);
                return;
            }
            Mark::Set { key, value } => {
                self.parameters.insert(key.clone(), value.clone());
                return;
            }
        }
        // Earlier counts are those of another request.
        for message in &mut self.messages {
            message.tokens = None;
        }
    }

    fn take_answer(&mut self) {
        if self.messages.last().is_some_and(|message| message.role == Role::Assistant) {
            self.messages.pop();
        }
    }

    pub fn messages(&self) -> &[ChatMessage] {
        &self.messages
    }

    /// Returns the number of questions.
    pub fn questions(&self) -> usize {
        self.messages.len().div_ceil(2)
    }

    /// Returns the last question.
    pub fn last_question(&self) -> Option<&ChatMessage> {
        self.messages.iter().rfind(|message| message.role == Role::User)
    }

    /// Returns whether the last message is a question.
    pub fn is_unanswered(&self) -> bool {
        self.messages.last().is_some_and(|message| message.role == Role::User)
    }

    /// Returns the tokens of the whole conversation, if the server counted them with its last answer.
    pub fn tokens(&self) -> Option<u64> {
        self.messages.iter().rfind(|message| message.role == Role::Assistant)?.tokens
    }

    /// Returns the body of the request for the next answer.
    pub fn body(&self, model: &str) -> Value {
        let mut body = self.parameters.clone();
        body.insert("model".to_owned(), json!(model));
        body.insert("messages".to_owned(), self.sent_messages());
        body.insert("stream".to_owned(), json!(true));
        Value::Object(body)
    }

    fn sent_messages(&self) -> Value {
        let system = (!self.system.is_empty()).then(|| json!({ "role": "system", "content": self.system }));
        let sent = |message: &ChatMessage| json!({ "role": message.role, "content": message.content });
        system.into_iter().chain(self.messages.iter().map(sent)).collect()
    }

    /// Returns how many of the oldest questions must go until about half of the context is free, by their share of the
    /// characters; at most all but the last.
    pub fn surplus_questions(&self, context: ContextUse) -> usize {
        let sizes: Vec<usize> =
            self.messages.iter().map(|message| message.content.to_string().len()).collect();
        let total = sizes.iter().sum::<usize>() as u64;
        let kept = |dropped: usize| {
            let kept = sizes.iter().skip(dropped * 2).sum::<usize>() as u64;
            context.used.saturating_mul(kept) / total.max(1)
        };
        let last = self.questions().saturating_sub(1);
        (1..=last).find(|dropped| kept(*dropped) <= context.size / 2).unwrap_or(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(text: &str) -> SessionLine {
        SessionLine::Message(ChatMessage::question(json!(text)))
    }

    fn answer(text: &str, tokens: u64) -> SessionLine {
        let message = ChatMessage::question(json!(text));
        SessionLine::Message(ChatMessage { role: Role::Assistant, tokens: Some(tokens), ..message })
    }

    fn after(lines: &[SessionLine]) -> Conversation {
        let mut conversation = Conversation::default();
        for line in lines {
            conversation.apply(line);
        }
        conversation
    }

    fn texts(conversation: &Conversation) -> String {
        conversation.messages().iter().map(ChatMessage::text).collect::<Vec<_>>().join(" ")
    }

    /// Three questions, two answers.
    fn five() -> Vec<SessionLine> {
        vec![question("q1"), answer("a1", 10), question("q2"), answer("a2", 20), question("q3")]
    }

    #[test]
    fn each_mark_changes_the_messages() {
        let four = &five()[..4];
        for (lines, mark, expected, tokens) in [
            (&five()[..], Mark::Undo, "q1 a1 q2 a2", Some(20)),
            (four, Mark::Undo, "q1 a1", Some(10)),
            (four, Mark::Retry, "q1 a1 q2", Some(10)),
            (&five(), Mark::Retry, "q1 a1 q2 a2 q3", Some(20)),
            (&five(), Mark::Drop { count: 1 }, "q2 a2 q3", None),
            (&five(), Mark::Drop { count: 3 }, "", None),
            (&five(), Mark::Drop { count: usize::MAX }, "", None),
            (four, Mark::Clear, "", None),
            (four, Mark::Model { model: "m".to_owned() }, "q1 a1 q2 a2", None),
            (&[], Mark::Undo, "", None),
            (&[], Mark::Retry, "", None),
        ] {
            let conversation = after(&[lines, &[SessionLine::Mark(mark.clone())]].concat());
            assert_eq!(texts(&conversation), expected, "{mark:?}");
            assert_eq!(conversation.tokens(), tokens, "{mark:?}");
        }
    }

    #[test]
    fn questions_and_answers_always_alternate() {
        assert_eq!(texts(&after(&[question("q1"), question("q2"), answer("a2", 1)])), "q2 a2");
        assert_eq!(
            texts(&after(&[answer("lost", 1), question("q1"), answer("a1", 1), answer("lost", 1)])),
            "q1 a1"
        );
    }

    #[test]
    fn set_null_removes_a_parameter() {
        let set = |value: Value| SessionLine::Mark(Mark::Set { key: "seed".to_owned(), value });
        assert_eq!(after(&[set(json!(1))]).body("m")["seed"], 1);
        assert_eq!(after(&[set(json!(1)), set(Value::Null)]).body("m").get("seed"), None);
    }

    #[test]
    fn request_has_only_role_and_content() {
        let mut conversation = after(&five()[..2]);
        assert_eq!(
            conversation.body("m").to_string(),
            r#"{"messages":[{"content":"q1","role":"user"},{"content":"a1","role":"assistant"}],"model":"m","stream":true}"#
        );
        conversation.system = "Be brief.".to_owned();
        assert_eq!(
            conversation.body("m")["messages"][0],
            json!({ "role": "system", "content": "Be brief." })
        );
    }

    #[test]
    fn surplus_leaves_half_of_the_context() {
        let conversation = after(&five()[..4]);
        assert_eq!(conversation.surplus_questions(ContextUse { used: 100, size: 100 }), 1);
        let long = [question(&"x".repeat(10)), answer("a", 1), question(&"x".repeat(1000)), answer("a", 1)];
        let three = after(&[&long[..], &five()[..2]].concat());
        assert_eq!(three.surplus_questions(ContextUse { used: 100, size: 100 }), 2);
        assert_eq!(after(&five()[..1]).surplus_questions(ContextUse { used: 100, size: 100 }), 0);
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let header = SessionHeader {
            service: "mlx".to_owned(),
            model: "m".to_owned(),
            system: String::new(),
            parameters: Map::new(),
        };
        let marks = [
            Mark::Undo,
            Mark::Retry,
            Mark::Drop { count: 2 },
            Mark::Clear,
            Mark::Model { model: "m".to_owned() },
            Mark::System { system: "s".to_owned() },
            Mark::Set { key: "k".to_owned(), value: json!({ "a": null }) },
        ];
        let lines = [SessionLine::Header(header)]
            .into_iter()
            .chain(five())
            .chain(marks.into_iter().map(SessionLine::Mark));
        for line in lines {
            let written = serde_json::to_string(&line).unwrap();
            assert_eq!(SessionLine::read(written.as_bytes()).unwrap(), line, "{written}");
        }
    }
}
