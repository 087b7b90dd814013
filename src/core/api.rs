//! The blocking client for OpenAI-compatible servers.

pub mod chat;
pub mod error;
pub mod idle_timeout;
pub mod native;
pub mod sse;

use std::io::{self, Read};
use std::time::Duration;

use serde_json::{Value, json};
use ureq::config::ConfigBuilder;
use ureq::http;
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, DefaultConnector};
use ureq::{Agent, Timeout};

use self::idle_timeout::IdleTimeout;
use crate::core::address::Address;

/// How much of a response is read, unless its client wants more: enough for any error, little enough for any server.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Where chats are asked for.
const CHAT_PATH: &str = "/v1/chat/completions";

/// How long a connection may take; a local one that is not refused at once waits in the server's queue.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one server. Never through a proxy, never following a redirect.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    base: String,
    idle_timeout: Option<IdleTimeout>,
    /// How many bytes of a body are read.
    max_response_bytes: usize,
}

/// A response, cut at what its client reads: 64 KiB, unless it was made to read more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    /// Its header `Server`; empty without one.
    pub server: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the body as JSON; null when it is something else.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
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
        source: io::Error,
    },
    /// No answer, or not the rest of it, in time.
    #[error("timed out waiting for {address}")]
    TimedOut {
        /// Who did not answer.
        address: String,
        /// Not even the connection was made in time.
        connecting: bool,
    },
    /// The connection was closed before an answer came.
    #[error("the server closed the connection without an answer ({address})")]
    Closed {
        /// Who closed it.
        address: String,
    },
    /// The caller did not wait any longer.
    #[error("interrupted")]
    Cancelled,
    /// What came is not HTTP.
    #[error("what answers at {address} is not an HTTP server")]
    Protocol {
        /// Who answered.
        address: String,
        /// What was wrong.
        source: ureq::Error,
    },
}

impl Client {
    /// A client for the server at `address` that gives connecting, the response's head, and its body `limit` each.
    pub fn with_timeout(address: &Address, limit: Duration) -> Self {
        // No global limit: ureq starts a thread to resolve a name within it.
        let agent = configuration()
            .timeout_connect(Some(limit))
            .timeout_recv_response(Some(limit))
            .timeout_recv_body(Some(limit))
            .build()
            .new_agent();
        Self { agent, base: address.url(), idle_timeout: None, max_response_bytes: MAX_RESPONSE_BYTES }
    }

    /// A client for the server at `address` that waits for every byte as long as `idle_timeout` allows.
    pub fn with_idle_timeout(address: &Address, idle_timeout: &IdleTimeout) -> Self {
        let limit = CONNECT_TIMEOUT.min(idle_timeout.timeout());
        let configuration = configuration().timeout_connect(Some(limit)).build();
        let connector = DefaultConnector::default().chain(idle_timeout.clone());
        let agent = Agent::with_parts(configuration, connector, DefaultResolver::default());
        Self {
            agent,
            base: address.url(),
            idle_timeout: Some(idle_timeout.clone()),
            max_response_bytes: MAX_RESPONSE_BYTES,
        }
    }

    /// `GET path`.
    pub fn get(&self, path: &str) -> Result<Response, ApiError> {
        let response = self.agent.get(self.url(path)).call();
        self.whole(response.map_err(|error| self.error(error))?)
    }

    /// `POST path` with a JSON body and a `Content-Length`.
    pub fn post(&self, path: &str, body: &Value) -> Result<Response, ApiError> {
        self.whole(self.send(path, body)?)
    }

    /// The smallest chat there is: one token of an answer by `model`.
    pub fn one_token(&self, model: &str) -> Result<Response, ApiError> {
        let messages = [json!({ "role": "user", "content": "Hi" })];
        self.post(
            CHAT_PATH,
            &json!({ "model": model, "messages": messages, "max_tokens": 1, "stream": false }),
        )
    }

    /// A body of known length, because `mlx_lm.server` refuses a chunked one.
    fn send(&self, path: &str, body: &Value) -> Result<http::Response<ureq::Body>, ApiError> {
        let request = self.agent.post(self.url(path)).content_type("application/json");
        request.send(body.to_string()).map_err(|error| self.error(error))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn whole(&self, response: http::Response<ureq::Body>) -> Result<Response, ApiError> {
        let status = response.status().as_u16();
        let server = response.headers().get("server").map(|value| String::from_utf8_lossy(value.as_bytes()));
        let server = server.unwrap_or_default().into_owned();
        let mut body = Vec::new();
        let read =
            response.into_body().into_reader().take(self.max_response_bytes as u64).read_to_end(&mut body);
        read.map_err(|error| self.error(error.into()))?;
        Ok(Response { status, server, body })
    }

    fn error(&self, error: ureq::Error) -> ApiError {
        let address = self.base.trim_start_matches("http://").to_owned();
        match error {
            ureq::Error::Timeout(phase) => ApiError::TimedOut {
                address,
                connecting: matches!(phase, Timeout::Connect | Timeout::Resolve),
            },
            ureq::Error::HostNotFound => {
                ApiError::Connect { address, source: io::Error::other("there is no such host") }
            }
            ureq::Error::Io(source) if idle_timeout::was_cancelled(&source) => ApiError::Cancelled,
            ureq::Error::Io(source) if is_closing(&source) => ApiError::Closed { address },
            ureq::Error::Io(source) => ApiError::Connect { address, source },
            source => ApiError::Protocol { address, source },
        }
    }
}

fn configuration() -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .accept_encoding("identity")
        // One request for each client: what ureq would do to use a connection again is wasted.
        .max_idle_connections(0)
        // Filled with zeros when they are made, so not larger than it helps.
        .input_buffer_size(32 * 1024)
        .output_buffer_size(8 * 1024)
        .user_agent(concat!("fusion/", env!("CARGO_PKG_VERSION")))
}

fn is_closing(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}
