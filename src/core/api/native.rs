//! Requests beyond chat completions: long replies, `DELETE`, and replies that are lines of JSON.

use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::ControlFlow;

use serde_json::Value;

use super::{ApiError, Client, Reply};

/// How much of a long reply is read: a list of thousands of models, or a licence of many pages.
const LONG_REPLY_LIMIT: usize = 16 * 1024 * 1024;

/// How long one line may be.
const LINE_LIMIT: u64 = 1024 * 1024;

impl Client {
    /// This client, reading replies of 16 MiB.
    #[must_use]
    pub fn with_long_replies(self) -> Self {
        Self { reply_limit: LONG_REPLY_LIMIT, ..self }
    }

    /// `DELETE path` with a JSON body.
    pub fn delete(&self, path: &str, body: &Value) -> Result<Reply, ApiError> {
        let request = self.agent.delete(self.url(path)).force_send_body().content_type("application/json");
        self.reply(request.send(body.to_string()).map_err(|error| self.error(error))?)
    }

    /// `POST path` with a JSON body; hands over every line of the reply as soon as it is there, until `receive` breaks
    /// off, which closes the connection. A reply that is an error (by its status) is given back instead.
    pub fn post_for_lines(
        &self,
        path: &str,
        body: &Value,
        receive: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Option<Reply>, ApiError> {
        let response = self.send(path, body)?;
        if !response.status().is_success() {
            return self.reply(response).map(Some);
        }
        let mut reader = BufReader::new(response.into_body().into_reader());
        loop {
            let mut line = Vec::new();
            let read = reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line);
            read.map_err(|error| self.error(ureq::Error::from(error)))?;
            let line = line.trim_ascii();
            if line.is_empty() && reader.fill_buf().is_ok_and(<[u8]>::is_empty) {
                return Ok(None);
            }
            if !line.is_empty() && receive(line).is_break() {
                return Ok(None);
            }
        }
    }
}
