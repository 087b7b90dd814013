//! The events of an Anthropic message.

use serde_json::{Value, json};

use super::super::super::wire::{ApiFailure, Wire};
use super::super::Stamp;
use super::super::completion::Finish;
use super::{EventWriter, write_event};
use crate::core::api::chat::TokenUsage;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    ToolUse,
}

#[derive(Debug)]
pub(super) struct MessageEvents {
    stamp: Stamp,
    open: Option<Block>,
    /// Number of blocks so far.
    blocks: usize,
    has_calls: bool,
}

impl MessageEvents {
    pub(super) fn new(stamp: Stamp) -> Self {
        Self { stamp, open: None, blocks: 0, has_calls: false }
    }

    /// Closes the open block and opens another.
    fn open(&mut self, block: Block, start: &Value, out: &mut Vec<u8>) {
        self.close(out);
        let event = json!({ "type": "content_block_start", "index": self.blocks, "content_block": start });
        write_event(out, "content_block_start", &event);
        self.open = Some(block);
        self.blocks += 1;
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            let event = json!({ "type": "content_block_stop", "index": self.blocks - 1 });
            write_event(out, "content_block_stop", &event);
        }
    }

    fn delta(&self, delta: &Value, out: &mut Vec<u8>) {
        let index = self.blocks.saturating_sub(1);
        let event = json!({ "type": "content_block_delta", "index": index, "delta": delta });
        write_event(out, "content_block_delta", &event);
    }
}

impl EventWriter for MessageEvents {
    fn begin(&mut self, model: &str, out: &mut Vec<u8>) {
        let message = json!({
            "id": format!("msg_{}", self.stamp.tag), "type": "message", "role": "assistant", "model": model,
            "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": { "input_tokens": 0, "output_tokens": 0 },
        });
        write_event(out, "message_start", &json!({ "type": "message_start", "message": message }));
    }

    fn reasoning(&mut self, text: &str, out: &mut Vec<u8>) {
        if self.open != Some(Block::Thinking) {
            self.open(Block::Thinking, &json!({ "type": "thinking", "thinking": "", "signature": "" }), out);
        }
        self.delta(&json!({ "type": "thinking_delta", "thinking": text }), out);
    }

    fn text(&mut self, text: &str, out: &mut Vec<u8>) {
        if self.open != Some(Block::Text) {
            self.open(Block::Text, &json!({ "type": "text", "text": "" }), out);
        }
        self.delta(&json!({ "type": "text_delta", "text": text }), out);
    }

    fn call(&mut self, id: &str, name: &str, out: &mut Vec<u8>) {
        self.has_calls = true;
        self.open(Block::ToolUse, &json!({ "type": "tool_use", "id": id, "name": name, "input": {} }), out);
    }

    fn arguments(&mut self, text: &str, out: &mut Vec<u8>) {
        self.delta(&json!({ "type": "input_json_delta", "partial_json": text }), out);
    }

    fn finish(&mut self, finish: Finish, usage: Option<TokenUsage>, out: &mut Vec<u8>) {
        self.close(out);
        let usage = usage.unwrap_or_default();
        let event = json!({
            "type": "message_delta",
            "delta": { "stop_reason": finish.stop_reason(self.has_calls), "stop_sequence": null },
            "usage": { "input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens },
        });
        write_event(out, "message_delta", &event);
        write_event(out, "message_stop", &json!({ "type": "message_stop" }));
    }

    fn fail(&mut self, failure: &ApiFailure, out: &mut Vec<u8>) {
        out.extend_from_slice(Wire::Messages.error_event(failure).as_bytes());
    }
}
