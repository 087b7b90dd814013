//! The blocking client for OpenAI-compatible servers.

pub mod chat;
pub mod error;
pub mod native;
pub mod sse;

use std::io::Read;
use std::time::Duration;

use ureq::Agent;

use crate::core::config::Address;

/// How much of a reply that is no answer is read: enough for any error, little enough for any server.
const REPLY_LIMIT: u64 = 64 * 1024;

/// A client of one server. Never through a proxy, never following a redirect.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    base: String,
}

/// A whole reply, cut at 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Why a request got no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No connection: nobody listens, or the host does not exist.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// No answer, or not the rest of it, in time.
    #[error("timed out waiting for {address}")]
    TimedOut {
        /// Who did not answer.
        address: String,
    },
    /// The exchange failed below HTTP's own error codes.
    #[error("no usable answer from {address}")]
    Protocol {
        /// Who answered.
        address: String,
        /// What was wrong.
        source: ureq::Error,
    },
}

impl Client {
    /// A client for the server at `address`, giving every request `limit` from start to end.
    pub fn with_limit(address: &Address, limit: Duration) -> Self {
        let agent = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(limit))
            .build()
            .new_agent();
        Self { agent, base: address.url() }
    }

    /// `GET path`.
    pub fn get(&self, path: &str) -> Result<Reply, ApiError> {
        self.reply(self.agent.get(format!("{}{path}", self.base)).call())
    }

    /// `POST path` with a JSON body and a `Content-Length`.
    pub fn post(&self, path: &str, body: &serde_json::Value) -> Result<Reply, ApiError> {
        self.reply(self.agent.post(format!("{}{path}", self.base)).send_json(body))
    }

    fn reply(
        &self,
        result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Reply, ApiError> {
        let response = result.map_err(|error| self.error(error))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let read = response.into_body().into_reader().take(REPLY_LIMIT).read_to_end(&mut body);
        read.map_err(|error| self.error(ureq::Error::from(error)))?;
        Ok(Reply { status, body })
    }

    fn error(&self, error: ureq::Error) -> ApiError {
        let address = self.base.trim_start_matches("http://").to_owned();
        match error {
            ureq::Error::Timeout(_) => ApiError::TimedOut { address },
            ureq::Error::Io(source) if is_connect(&source) => ApiError::Connect { address, source },
            source => ApiError::Protocol { address, source },
        }
    }
}

fn is_connect(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | AddrNotAvailable | HostUnreachable | NetworkUnreachable)
}
