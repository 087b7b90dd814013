//! The events of a response of OpenAI's.

use serde_json::{Value, json};

use super::super::super::wire::ApiFailure;
use super::super::Stamp;
use super::super::completion::{
    CompletionCall, Finish, ResponseState, call_item, item_id, message_item, response_object, text_part,
};
use super::{EventWriter, write_event};
use crate::core::api::chat::TokenUsage;

/// The item of the output that is being written.
#[derive(Debug)]
enum Open {
    Message { id: String, text: String },
    Call { id: String, call: CompletionCall },
}

#[derive(Debug)]
pub(super) struct ResponseEvents {
    stamp: Stamp,
    model: String,
    /// The `sequence_number` of the next event.
    sequence: u64,
    open: Option<Open>,
    /// The items that are complete.
    output: Vec<Value>,
}

impl ResponseEvents {
    pub(super) fn new(stamp: Stamp) -> Self {
        Self { stamp, model: String::new(), sequence: 0, open: None, output: Vec::new() }
    }

    /// Appends an event; `fields` is an object.
    fn write(&mut self, name: &str, mut fields: Value, out: &mut Vec<u8>) {
        fields["type"] = name.into();
        fields["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        write_event(out, name, &fields);
    }

    /// Appends an event about the whole response.
    fn write_response(&mut self, name: &str, state: &ResponseState<'_>, out: &mut Vec<u8>) {
        let response = response_object(&self.model, &self.stamp, &self.output, state);
        self.write(name, json!({ "response": response }), out);
    }

    /// Appends an event about a part of the open item.
    fn write_part(&mut self, name: &str, id: &str, mut fields: Value, out: &mut Vec<u8>) {
        fields["item_id"] = id.into();
        fields["output_index"] = self.output.len().into();
        self.write(name, fields, out);
    }

    fn write_item(&mut self, name: &str, item: &Value, out: &mut Vec<u8>) {
        self.write(name, json!({ "output_index": self.output.len(), "item": item }), out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let item = match self.open.take() {
            None => return,
            Some(Open::Message { id, text }) => {
                let done = json!({ "content_index": 0, "text": text, "logprobs": [] });
                self.write_part("response.output_text.done", &id, done, out);
                let done = json!({ "content_index": 0, "part": text_part(&text) });
                self.write_part("response.content_part.done", &id, done, out);
                message_item(&id, "completed", Some(&text))
            }
            Some(Open::Call { id, call }) => {
                let done = json!({ "arguments": call.arguments, "name": call.name });
                self.write_part("response.function_call_arguments.done", &id, done, out);
                call_item(&id, "completed", &call)
            }
        };
        self.write_item("response.output_item.done", &item, out);
        self.output.push(item);
    }

    fn open_message(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        let id = item_id("msg", &self.stamp, self.output.len());
        self.write_item("response.output_item.added", &message_item(&id, "in_progress", None), out);
        let added = json!({ "content_index": 0, "part": text_part("") });
        self.write_part("response.content_part.added", &id, added, out);
        self.open = Some(Open::Message { id, text: String::new() });
    }
}

impl EventWriter for ResponseEvents {
    fn begin(&mut self, model: &str, out: &mut Vec<u8>) {
        model.clone_into(&mut self.model);
        self.write_response("response.created", &ResponseState::InProgress, out);
        self.write_response("response.in_progress", &ResponseState::InProgress, out);
    }

    /// The events of reasoning need summaries and encrypted content, which only hosted models have.
    fn reasoning(&mut self, _text: &str, _out: &mut Vec<u8>) {}

    fn text(&mut self, delta: &str, out: &mut Vec<u8>) {
        if !matches!(self.open, Some(Open::Message { .. })) {
            self.open_message(out);
        }
        let Some(Open::Message { id, text }) = &mut self.open else { return };
        text.push_str(delta);
        let id = id.clone();
        let fields = json!({ "content_index": 0, "delta": delta, "logprobs": [] });
        self.write_part("response.output_text.delta", &id, fields, out);
    }

    fn call(&mut self, call_id: &str, name: &str, out: &mut Vec<u8>) {
        self.close(out);
        let id = item_id("fc", &self.stamp, self.output.len());
        let call = CompletionCall { id: call_id.to_owned(), name: name.to_owned(), arguments: String::new() };
        self.write_item("response.output_item.added", &call_item(&id, "in_progress", &call), out);
        self.open = Some(Open::Call { id, call });
    }

    fn arguments(&mut self, delta: &str, out: &mut Vec<u8>) {
        let Some(Open::Call { id, call }) = &mut self.open else { return };
        call.arguments.push_str(delta);
        let id = id.clone();
        self.write_part("response.function_call_arguments.delta", &id, json!({ "delta": delta }), out);
    }

    fn finish(&mut self, finish: Finish, usage: Option<TokenUsage>, out: &mut Vec<u8>) {
        self.close(out);
        match finish.incomplete_reason() {
            None => self.write_response("response.completed", &ResponseState::Completed(usage), out),
            Some(reason) => {
                self.write_response("response.incomplete", &ResponseState::Incomplete(reason, usage), out);
            }
        }
    }

    fn fail(&mut self, failure: &ApiFailure, out: &mut Vec<u8>) {
        self.write_response("response.failed", &ResponseState::Failed(failure), out);
    }
}
