//! Requests beyond chat completions: long responses, `DELETE`, and responses that are lines of JSON.

use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::ControlFlow;

use serde_json::Value;

use super::{ApiError, Client, Response};

/// Maximum size of a long response: a list of thousands of models, or a licence of many pages.
const MAX_LONG_RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// Maximum length of one line in bytes.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

impl Client {
    /// Returns this client with responses of up to 16 MiB.
    #[must_use]
    pub fn with_long_responses(self) -> Self {
        Self { max_response_bytes: MAX_LONG_RESPONSE_BYTES, ..self }
    }

    /// Sends `DELETE path` with a JSON body.
    pub fn delete(&self, path: &str, body: &Value) -> Result<Response, ApiError> {
        let request = self.agent.delete(self.url(path)).force_send_body().content_type("application/json");
        self.whole(request.send(body.to_string()).map_err(|error| self.error(error))?)
    }

    /// Sends `POST path` with a JSON body, and passes each line of the response to `receive` as it arrives. Closes
    /// the connection when `receive` breaks. Returns the response if its status is an error.
    pub fn post_for_lines(
        &self,
        path: &str,
        body: &Value,
        receive: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Option<Response>, ApiError> {
        let response = self.send(path, body)?;
        if !response.status().is_success() {
            return self.whole(response).map(Some);
        }
        let mut reader = BufReader::new(response.into_body().into_reader());
        loop {
            let mut line = Vec::new();
            let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
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
