//! The blocking client for OpenAI-compatible servers.

pub mod chat;
pub mod error;
pub mod idle_timeout;
pub mod native;
mod resolver;
pub mod sse;

use std::io::{self, Read};
use std::time::Duration;

use serde_json::{Value, json};
use ureq::config::ConfigBuilder;
use ureq::http;
use ureq::typestate::AgentScope;
#[cfg(feature = "tls")]
use ureq::unversioned::transport::DefaultConnector;
#[cfg(not(feature = "tls"))]
use ureq::unversioned::transport::TcpConnector;
use ureq::unversioned::transport::{Connector, Transport};
use ureq::{Agent, Timeout};

use self::idle_timeout::IdleTimeout;
use self::resolver::HostResolver;
use crate::core::address::Address;
use crate::core::json_object;

/// Maximum size of a response body that a client reads by default: enough for any error message.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Path of the chat completions.
const CHAT_PATH: &str = "/v1/chat/completions";

/// Timeout of a connection. A local server that does not refuse it at once has it in its queue.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one server. It uses no proxy and follows no redirect.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    base: String,
    idle_timeout: Option<IdleTimeout>,
    /// Maximum size of a response body. Further bytes are not read.
    max_response_bytes: usize,
    /// Sent as the bearer token; empty sends none.
    token: String,
}

/// A response, cut at the size that its client reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// The header `Server`; empty if it is missing.
    pub server: String,
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the body as JSON; null if it is not JSON.
    pub fn json(&self) -> Value {
        json_object::parse(&self.body).unwrap_or_default()
    }
}

/// Why a request got no usable response.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No connection: no process listens, or the host does not exist.
    #[error("cannot connect to {address}")]
    Connect { address: String, source: io::Error },
    /// The response, or the rest of it, did not arrive in time.
    #[error("timed out waiting for {address}")]
    TimedOut {
        address: String,
        /// Whether the connection itself was not made in time.
        connecting: bool,
    },
    /// The server closed the connection before it sent a response.
    #[error("the server closed the connection without a response ({address})")]
    Closed { address: String },
    /// The caller cancelled the request.
    #[error("interrupted")]
    Cancelled,
    /// The response is not HTTP.
    #[error("the program at {address} is not an HTTP server")]
    Protocol { address: String, source: ureq::Error },
}

impl Client {
    /// Returns a client for the server at `address`. Connecting, the response's head, and its body each have `limit`.
    pub fn with_timeout(address: &Address, limit: Duration) -> Self {
        let configuration = configuration()
            .timeout_resolve(Some(limit))
            .timeout_connect(Some(limit))
            .timeout_recv_response(Some(limit))
            .timeout_recv_body(Some(limit))
            // ureq fills both buffers with zeros. The head of a request or a response has to fit.
            .input_buffer_size(8 * 1024)
            .output_buffer_size(4 * 1024)
            .build();
        Self::new(Agent::with_parts(configuration, connector(), HostResolver), address, None)
    }

    /// Returns a client for the server at `address` whose every read has `idle_timeout`.
    pub fn with_idle_timeout(address: &Address, idle_timeout: &IdleTimeout) -> Self {
        let limit = CONNECT_TIMEOUT.min(idle_timeout.timeout());
        let configuration = configuration().timeout_resolve(Some(limit)).timeout_connect(Some(limit)).build();
        let agent = Agent::with_parts(configuration, connector().chain(idle_timeout.clone()), HostResolver);
        Self::new(agent, address, Some(idle_timeout.clone()))
    }

    fn new(agent: Agent, address: &Address, idle_timeout: Option<IdleTimeout>) -> Self {
        let base = address.url();
        Self { agent, base, idle_timeout, max_response_bytes: MAX_RESPONSE_BYTES, token: String::new() }
    }

    /// Returns this client with a token for its `GET` requests; an empty one is not sent.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self }
    }

    /// Sends `GET path`.
    pub fn get(&self, path: &str) -> Result<Response, ApiError> {
        let mut request = self.agent.get(self.url(path));
        if !self.token.is_empty() {
            request = request.header("Authorization", format!("Bearer {}", self.token));
        }
        let response = request.call();
        self.whole(response.map_err(|error| self.error(error))?)
    }

    /// Sends `POST path` with a JSON body and a `Content-Length`.
    pub fn post(&self, path: &str, body: &Value) -> Result<Response, ApiError> {
        self.whole(self.send(path, body)?)
    }

    /// Sends the smallest chat: one token generated by `model`.
    pub fn one_token(&self, model: &str) -> Result<Response, ApiError> {
        let messages = [json!({ "role": "user", "content": "Hi" })];
        self.post(
            CHAT_PATH,
            &json!({ "model": model, "messages": messages, "max_tokens": 1, "stream": false }),
        )
    }

    /// Sends a body of known length, because `mlx_lm.server` refuses a chunked one.
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

/// Returns what connects: fusion uses no proxy, so it does without the connectors of ureq that may.
#[cfg(not(feature = "tls"))]
fn connector() -> impl Connector<Out: Transport> {
    TcpConnector::default()
}

#[cfg(feature = "tls")]
fn connector() -> impl Connector<Out: Transport> {
    DefaultConnector::default()
}

fn configuration() -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .accept_encoding("identity")
        // Each client sends one request, so keeping the connection would be wasted work.
        .max_idle_connections(0)
        // ureq fills both buffers with zeros, so larger ones cost time.
        .input_buffer_size(32 * 1024)
        .output_buffer_size(8 * 1024)
        .user_agent(concat!("fusion/", env!("CARGO_PKG_VERSION")))
}

fn is_closing(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}
