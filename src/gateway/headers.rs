//! Which headers pass through the gateway, in both directions.

use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    HeaderValue,
};

/// Returns whether a header concerns one connection only (RFC 9110, section 7.6.1), or is an older one that still
/// occurs.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Returns whether a request header ends at the gateway: the client's key is the gateway's, the origin was checked, and
/// the body gets new framing. The gateway could not read a compressed response.
fn is_ours(name: &str) -> bool {
    matches!(
        name,
        "accept-encoding"
            | "authorization"
            | "content-length"
            | "cookie"
            | "expect"
            | "host"
            | "origin"
            | "referer"
            | "x-api-key"
    )
}

/// Returns the headers of the request to a server: a body of `length` bytes for `host`.
pub(super) fn to_server(client: &HeaderMap, host: &HeaderValue, length: usize) -> HeaderMap {
    let mut headers = copied(client, 2, &|name| {
        !is_ours(name) && !name.starts_with("sec-") && !name.starts_with("access-control-")
    });
    headers.insert(HOST, host.clone());
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers
}

/// Returns the headers of the response to the client. The server's CORS headers are dropped: the gateway decides which
/// pages may read it. Its length is that of the body, which a server may have framed in two ways.
pub(super) fn to_client(server: &HeaderMap, is_stream: bool) -> HeaderMap {
    let room = if is_stream { 2 } else { 0 };
    let mut headers =
        copied(server, room, &|name| !name.starts_with("access-control-") && name != "content-length");
    if is_stream {
        mark_as_stream(&mut headers);
    }
    headers
}

/// Copies the headers that `passes` lets through and that do not concern one connection only, with room for so many
/// `more`.
fn copied(all: &HeaderMap, more: usize, passes: &dyn Fn(&str) -> bool) -> HeaderMap {
    let named = words(all, &CONNECTION);
    let mut headers = HeaderMap::with_capacity(all.len() + more);
    for (name, value) in all {
        let text = name.as_str();
        let is_named = || named.iter().any(|named| named.eq_ignore_ascii_case(text));
        if !is_hop_by_hop(text) && passes(text) && !is_named() {
            headers.append(name, value.clone());
        }
    }
    headers
}

/// Keeps proxies from collecting or storing a stream.
pub(super) fn mark_as_stream(headers: &mut HeaderMap) {
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    has_content_type(headers, b"text/event-stream")
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    has_content_type(headers, b"application/json")
}

/// Returns whether the bytes of the body are those of a compressed one.
pub(super) fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn has_content_type(headers: &HeaderMap, wanted: &[u8]) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    content_type.get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted))
}

/// Returns the words of a header whose values are lists.
pub(super) fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let mut words = Vec::new();
    for value in headers.get_all(name) {
        words.extend(value.to_str().unwrap_or_default().split(',').map(str::trim));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn keys_and_hop_by_hop_headers_stay_here() {
        let client = headers(&[
            ("host", "fusion.localhost"),
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("accept-encoding", "gzip"),
            ("authorization", "Bearer secret"),
            ("x-api-key", "secret"),
            ("cookie", "a=b"),
            ("origin", "http://localhost:8767"),
            ("sec-fetch-site", "same-origin"),
            ("content-type", "application/json"),
            ("x-stainless-lang", "python"),
        ]);
        let sent = to_server(&client, &HeaderValue::from_static("127.0.0.1:8080"), 7);
        assert_eq!(names(&sent), ["content-length", "content-type", "host", "x-stainless-lang"]);
        assert!(sent[HOST] == "127.0.0.1:8080" && sent[CONTENT_LENGTH] == "7");
    }

    #[test]
    fn cors_headers_of_the_server_are_dropped() {
        let server = headers(&[
            ("content-type", "Text/Event-Stream; charset=utf-8"),
            ("access-control-allow-origin", "*"),
            ("transfer-encoding", "chunked"),
            ("connection", "keep-alive"),
            ("cache-control", "private"),
            ("x-request-id", "7"),
        ]);
        let passed = to_client(&server, is_event_stream(&server));
        assert_eq!(names(&passed), ["cache-control", "content-type", "x-accel-buffering", "x-request-id"]);
        assert_eq!(passed[CACHE_CONTROL], "no-cache");
        let whole = headers(&[("content-type", "application/json"), ("content-length", "2")]);
        assert_eq!(names(&to_client(&whole, false)), ["content-type"]);
    }
}
