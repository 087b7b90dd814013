//! The page at `/`: one file, with its style and its script inside.

use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
};
use hyper::header::{HeaderMap, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};

use super::body::ResponseBody;
use super::headers::words;

const PAGE: &str = include_str!("page.html");

/// Nothing but the page's own style, its own script, and connections to this gateway.
const POLICY: &str = "default-src 'none'; \
    style-src 'sha256-2NofO9EDpPv9QUkw8uaEFUcMPttISof9Oj4TmgM51ns='; \
    script-src 'sha256-iSB6cHz/BEGm/5ANxVAN8Q5tJJd1H1fJn0x/DIBzias='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns the page, or 304 if the client has it already.
pub(super) fn response(request: &HeaderMap) -> Response<ResponseBody> {
    let tag = format!("\"{:016x}\"", fingerprint(PAGE.as_bytes()));
    let known = words(request, &IF_NONE_MATCH);
    let is_known = known.iter().any(|known| *known == "*" || known.trim_start_matches("W/") == tag);
    let mut response =
        Response::new(if is_known { ResponseBody::empty() } else { ResponseBody::whole(PAGE) });
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        // Browsers revalidate it each time, because another version of fusion has another page.
        (CACHE_CONTROL, "no-cache"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Returns a hash of the bytes (FNV-1a).
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use sha2::{Digest, Sha256};

    use super::*;

    /// Returns the content of the only element of this name.
    fn content(element: &str) -> &'static str {
        let (_, rest) = PAGE.split_once(&format!("<{element}>")).expect("the element");
        let (content, rest) = rest.split_once(&format!("</{element}>")).expect("its end");
        assert!(!rest.contains(&format!("<{element}>")), "there is one {element}");
        content
    }

    #[test]
    fn policy_allows_only_what_the_page_has() {
        for element in ["style", "script"] {
            let hash = BASE64_STANDARD.encode(Sha256::digest(content(element)));
            assert!(POLICY.contains(&format!("{element}-src 'sha256-{hash}'")), "{element}: sha256-{hash}");
        }
        for forbidden in [" style=", " onclick=", "http://", "https://", "innerHTML"] {
            let allowed = if forbidden == "http://" { "http://www.w3.org" } else { "" };
            let places = PAGE
                .match_indices(forbidden)
                .filter(|(at, _)| allowed.is_empty() || !PAGE[*at..].starts_with(allowed));
            assert_eq!(places.count(), 0, "{forbidden}");
        }
    }

    #[test]
    fn page_has_at_most_30_kilobytes() {
        assert!(PAGE.len() <= 30 * 1024, "{} bytes", PAGE.len());
    }

    #[test]
    fn known_page_is_not_sent_again() {
        let first = response(&HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[ETAG].to_str().expect("a tag").to_owned();
        for (known, status) in
            [(tag.clone(), 304), (format!("\"other\", W/{tag}"), 304), ("\"other\"".to_owned(), 200)]
        {
            let mut request = HeaderMap::new();
            request.insert(IF_NONE_MATCH, known.parse().expect("a value"));
            assert_eq!(response(&request).status().as_u16(), status, "{known}");
        }
    }
}
