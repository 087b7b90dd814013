//! Which requests are allowed: by `Host`, by the web page that sends them, and by token.

use std::borrow::Cow;
use std::net::IpAddr;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use http::header::{AUTHORIZATION, HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::headers::words;
use crate::core::address::Address;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The WebSocket subprotocol without a token.
pub const SUBPROTOCOL: &str = "fusion";

/// The prefix of the subprotocol with the token.
const TOKEN_SUBPROTOCOL: &str = "token.";

/// Paths that are served without a token.
const OPEN_PATHS: [&str; 3] = ["/", "/health", "/api/health"];

/// The rules of one configuration.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Where the gateway listens.
    pub bound: Address,
    /// Further names under which it may be called.
    pub hosts: Vec<String>,
    /// The web pages that may use the `/v1` API.
    pub cors_origins: Vec<String>,
    pub token: Option<String>,
}

/// An allowed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// The configured origin of the request, which gets CORS headers.
    pub cors_origin: Option<String>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the request needs exactly one `Host`")]
    HostMissing,
    #[error("the host `{host}` is not one of this gateway's; to allow it, add it to `gateway.hosts`")]
    Host { host: String },
    #[error(
        "the web page `{origin}` may not use this gateway; to let it use `/v1`, add it to `gateway.cors_origins`"
    )]
    Origin { origin: String },
    #[error("a request from another web page (`Sec-Fetch-Site: {site}`) is refused")]
    FetchSite { site: String },
    #[error("the gateway needs its token, as `Authorization: Bearer TOKEN` or `x-api-key: TOKEN`")]
    TokenMissing,
    #[error("the token is not the one of `gateway.token`")]
    TokenWrong,
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::HostMissing => StatusCode::BAD_REQUEST,
            Self::Host { .. } | Self::Origin { .. } | Self::FetchSite { .. } => StatusCode::FORBIDDEN,
            Self::TokenMissing | Self::TokenWrong => StatusCode::UNAUTHORIZED,
        }
    }
}

impl Guard {
    /// Decides about a request by its host, then its origin, its fetch site and its token.
    pub fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Passed, Refusal> {
        let host = self.host(headers)?;
        let passed = self.origin(path, &host, headers)?;
        self.token(method, path, headers)?;
        Ok(passed)
    }

    /// Returns the `Host`, if it is allowed.
    fn host<'h>(&self, headers: &'h HeaderMap) -> Result<Cow<'h, str>, Refusal> {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Refusal::HostMissing) };
        let text = String::from_utf8_lossy(host.as_bytes());
        match host_name(&text) {
            Some(name) if self.allows_host(name) => Ok(text),
            _ => Err(Refusal::Host { host: shown(&text) }),
        }
    }

    fn allows_host(&self, name: &str) -> bool {
        // Its labels were checked.
        if name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost")) {
            return true;
        }
        let ip = |name: &str| name.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        if let Some(ip) = ip(name) {
            // An IP literal cannot be rebound; beyond loopback the token decides.
            let is_open = !self.bound.is_loopback() && self.token.is_some();
            if ip.is_loopback() || is_open {
                return true;
            }
        }
        let is_same = |other: &String| match (ip(name), ip(other)) {
            (Some(one), Some(other)) => one == other,
            _ => other.eq_ignore_ascii_case(name),
        };
        is_same(&self.bound.host) || self.hosts.iter().any(is_same)
    }

    /// Decides by the web page that sends the request. Programs send no `Origin`.
    fn origin(&self, path: &str, host: &str, headers: &HeaderMap) -> Result<Passed, Refusal> {
        let mut origins =
            headers.get_all(ORIGIN).iter().map(|origin| String::from_utf8_lossy(origin.as_bytes()));
        let origin = origins.next();
        if let Some(second) = origins.next() {
            return Err(Refusal::Origin { origin: shown(&second) });
        }
        if let Some(origin) = origin {
            let is_configured = self.cors_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(&origin));
            if is_configured && is_openai_path(path) {
                return Ok(Passed { cors_origin: Some(origin.into_owned()) });
            }
            let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
                return Err(Refusal::Origin { origin: shown(&origin) });
            }
        }
        let is_own = |site: &http::HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
        match headers.get_all(FETCH_SITE).iter().find(|site| !is_own(site)) {
            Some(site) => Err(Refusal::FetchSite { site: shown(&String::from_utf8_lossy(site.as_bytes())) }),
            None => Ok(Passed { cors_origin: None }),
        }
    }

    fn token(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else { return Ok(()) };
        if method == Method::OPTIONS || OPEN_PATHS.contains(&path) {
            return Ok(());
        }
        let tokens = tokens(headers);
        if tokens.is_empty() {
            return Err(Refusal::TokenMissing);
        }
        // Clients may send a key of their own beside the token.
        let is_ours = |given: &Vec<u8>| is_equal(given, token.as_bytes());
        if tokens.iter().any(is_ours) { Ok(()) } else { Err(Refusal::TokenWrong) }
    }
}

/// Returns every token of a request.
fn tokens(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let mut tokens = Vec::new();
    for value in headers.get_all(AUTHORIZATION) {
        match value.as_bytes().split_at_checked("Bearer ".len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => {
                tokens.push(token.trim_ascii().to_vec());
            }
            _ => {}
        }
    }
    for value in headers.get_all(API_KEY) {
        tokens.push(value.as_bytes().trim_ascii().to_vec());
    }
    for protocol in words(headers, &SEC_WEBSOCKET_PROTOCOL) {
        if let Some(token) = protocol.strip_prefix(TOKEN_SUBPROTOCOL) {
            tokens.extend(BASE64_URL_SAFE_NO_PAD.decode(token).ok());
        }
    }
    tokens.retain(|token| !token.is_empty());
    tokens
}

/// Returns whether the client of a WebSocket offers the subprotocol, which must then be answered.
pub fn offers_subprotocol(headers: &HeaderMap) -> bool {
    words(headers, &SEC_WEBSOCKET_PROTOCOL).contains(&SUBPROTOCOL)
}

/// Returns whether the texts are equal, in a time that depends on their lengths only.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other));
    one.len() == other.len() && std::hint::black_box(difference) == 0
}

fn is_openai_path(path: &str) -> bool {
    path.starts_with("/v1/")
}

/// Returns the host of a `Host` header without its port and without the brackets of IPv6; `None` if it is malformed.
fn host_name(host: &str) -> Option<&str> {
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let (name, port) = rest.split_once(']')?;
        name.parse::<std::net::Ipv6Addr>().ok()?;
        (name, port)
    } else {
        let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
        if name.parse::<IpAddr>().is_err() && !is_host_label_list(name) {
            return None;
        }
        (name, port)
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(name)
}

/// Returns whether the text is `label.label...`.
fn is_host_label_list(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.split('.').all(is_label)
}

/// Returns a client's text, cleaned for a message.
fn shown(text: &str) -> String {
    crate::core::api::error::clean(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(host: &str, token: Option<&str>) -> Guard {
        Guard {
            bound: Address { host: host.to_owned(), port: 8767 },
            hosts: vec!["fusion.example".to_owned()],
            cors_origins: vec!["http://app.example".to_owned()],
            token: token.map(str::to_owned),
        }
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, http::HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        headers
    }

    fn status(guard: &Guard, path: &str, lines: &[(&'static str, &str)]) -> u16 {
        let mut headers = headers(lines);
        if !headers.contains_key(HOST) {
            headers.insert(HOST, "localhost:8767".parse().expect("a value"));
        }
        match guard.check(&Method::GET, path, &headers) {
            Ok(_) => 200,
            Err(refusal) => refusal.status().as_u16(),
        }
    }

    #[test]
    fn bound_and_configured_hosts_pass() {
        let local = guard("127.0.0.1", None);
        let open = guard("0.0.0.0", Some("t"));
        let named = guard("gpu.local", Some("t"));
        for (guard, host, expected) in [
            (&local, "fusion.example", 200),
            (&local, "FUSION.example:80", 200),
            (&local, "192.168.1.9:8767", 403),
            (&local, "fusion.example.", 403),
            (&local, "[::1", 403),
            (&local, "::1", 403),
            (&local, "[::ffff:127.0.0.1]:1", 200),
            (&open, "192.168.1.9:8767", 200),
            (&open, "[fe80::1]:8767", 200),
            (&open, "evil.example", 403),
            (&named, "gpu.local:8767", 200),
            (&named, "10.0.0.1", 200),
        ] {
            assert_eq!(status(guard, "/health", &[("host", host)]), expected, "{host}");
        }
        let two = headers(&[("host", "localhost"), ("host", "localhost")]);
        assert_eq!(local.check(&Method::GET, "/", &two), Err(Refusal::HostMissing));
        assert_eq!(local.check(&Method::GET, "/", &HeaderMap::new()), Err(Refusal::HostMissing));
    }

    #[test]
    fn configured_origin_may_use_only_the_openai_api() {
        let guard = guard("127.0.0.1", None);
        let lines = [("origin", "http://app.example"), ("sec-fetch-site", "cross-site")];
        assert_eq!(status(&guard, "/v1/models", &lines), 200);
        assert_eq!(status(&guard, "/api/instances", &lines), 403);
        assert_eq!(status(&guard, "/ws", &lines), 403);
        let mut asked = headers(&lines);
        asked.insert(HOST, "localhost:8767".parse().expect("a value"));
        let passed = guard.check(&Method::POST, "/v1/models", &asked).expect("it passes");
        assert_eq!(passed.cors_origin.as_deref(), Some("http://app.example"));
        let two = [("origin", "http://localhost:8767"), ("origin", "http://evil.example")];
        assert_eq!(status(&guard, "/v1/models", &two), 403);
    }

    #[test]
    fn token_is_taken_from_three_places() {
        let guard = guard("127.0.0.1", Some("s3cret/ü"));
        let protocol = format!("fusion, token.{}", BASE64_URL_SAFE_NO_PAD.encode("s3cret/ü"));
        for (lines, expected) in [
            (&[][..], 401),
            (&[("authorization", "Bearer s3cret/ü")], 200),
            (&[("authorization", "bearer   s3cret/ü")], 200),
            (&[("x-api-key", "s3cret/ü")], 200),
            (&[("authorization", "Bearer other"), ("x-api-key", "s3cret/ü")], 200),
            (&[("sec-websocket-protocol", protocol.as_str())], 200),
            (&[("sec-websocket-protocol", "fusion, token.!!")], 401),
            (&[("authorization", "Bearer s3cret/")], 401),
            (&[("authorization", "Bearer s3cret/üx")], 401),
            (&[("authorization", "Bearer ")], 401),
            (&[("authorization", "Basic s3cret/ü")], 401),
            (&[("x-api-key", "")], 401),
        ] {
            assert_eq!(status(&guard, "/v1/models", lines), expected, "{lines:?}");
        }
        for path in OPEN_PATHS {
            assert_eq!(status(&guard, path, &[]), 200, "{path}");
        }
        let mut asked = HeaderMap::new();
        asked.insert(HOST, "localhost".parse().expect("a value"));
        assert!(guard.check(&Method::OPTIONS, "/v1/models", &asked).is_ok());
    }

    #[test]
    fn subprotocol_is_answered_if_offered() {
        assert!(offers_subprotocol(&headers(&[("sec-websocket-protocol", "a, fusion")])));
        assert!(!offers_subprotocol(&headers(&[("sec-websocket-protocol", "fusion2")])));
    }
}
