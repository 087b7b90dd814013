//! Requests beyond chat completions: whole replies of any length, `DELETE`, and replies that are lines of JSON.

use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::Value;
use ureq::http::Response;

use super::{ApiError, CONNECT_LIMIT, Client, Reply, configuration};
use crate::core::address::Address;

/// How much of a whole reply is read: a list of thousands of models, or a licence of many pages.
const WHOLE_LIMIT: u64 = 16 * 1024 * 1024;

/// How long one line may be.
const LINE_LIMIT: u64 = 1024 * 1024;

impl Client {
    /// A client for the server at `address` that waits for every further byte as long as `idle`.
    pub fn with_idle_limit(address: &Address, idle: Duration) -> Self {
        let limits = configuration().timeout_connect(Some(CONNECT_LIMIT)).timeout_per_read(Some(idle));
        Self { agent: limits.build().new_agent(), base: address.url(), silence: None }
    }

    /// `GET path`, and the whole reply.
    pub fn get_whole(&self, path: &str) -> Result<Reply, ApiError> {
        self.whole(self.agent.get(self.url(path)).call())
    }

    /// `POST path` with a JSON body, and the whole reply.
    pub fn post_whole(&self, path: &str, body: &Value) -> Result<Reply, ApiError> {
        self.whole(self.agent.post(self.url(path)).content_type("application/json").send(body.to_string()))
    }

    /// `DELETE path` with a JSON body, and the whole reply.
    pub fn delete(&self, path: &str, body: &Value) -> Result<Reply, ApiError> {
        let request = self.agent.delete(self.url(path)).force_send_body();
        self.whole(request.content_type("application/json").send(body.to_string()))
    }

    /// `POST path` with a JSON body; hands over every line of the reply as soon as it is there, until `receive` breaks
    /// off, which closes the connection. A reply that is an error (by its status) is given back instead.
    pub fn post_for_lines(
        &self,
        path: &str,
        body: &Value,
        receive: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Option<Reply>, ApiError> {
        let request = self.agent.post(self.url(path)).content_type("application/json");
        let response = request.send(body.to_string());
        if response.as_ref().map_or(true, |response| !response.status().is_success()) {
            return self.whole(response).map(Some);
        }
        let response = response.map_err(|error| self.error(error))?;
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

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn whole(&self, result: Result<Response<ureq::Body>, ureq::Error>) -> Result<Reply, ApiError> {
        let response = result.map_err(|error| self.error(error))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let read = response.into_body().into_reader().take(WHOLE_LIMIT).read_to_end(&mut body);
        read.map_err(|error| self.error(ureq::Error::from(error)))?;
        Ok(Reply { status, body })
    }
}
