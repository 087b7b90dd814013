//! How a request's body is delimited: refuses what two programs could read in two ways (RFC 9112, section 6.3).

use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode, Version};

/// Why the headers of a request do not define the end of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingFault {
    #[error("`Content-Length` is not a number of bytes")]
    BadLength,
    #[error("the request has more than one `Content-Length`")]
    TwoLengths,
    #[error("the request has both `Content-Length` and `Transfer-Encoding`")]
    LengthAndCoding,
    #[error("the only `Transfer-Encoding` of a request is `chunked`, over HTTP/1.1")]
    BadCoding,
    #[error("the only expectation that is met is `100-continue`")]
    BadExpectation,
}

impl FramingFault {
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadExpectation => StatusCode::EXPECTATION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Checks the headers of a request. hyper refuses malformed header lines.
pub fn check(version: Version, headers: &HeaderMap) -> Result<(), FramingFault> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(FramingFault::TwoLengths);
    }
    if let Some(length) = length {
        let length = length.as_bytes();
        if length.contains(&b',') {
            return Err(FramingFault::TwoLengths);
        }
        // No sign and no white space, which `parse` alone would accept.
        let is_number = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
        let fits = str::from_utf8(length).is_ok_and(|length| length.parse::<u64>().is_ok());
        if !is_number || !fits {
            return Err(FramingFault::BadLength);
        }
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next(), length) {
        (None, ..) => {}
        (Some(_), _, Some(_)) => return Err(FramingFault::LengthAndCoding),
        (Some(coding), None, None)
            if coding.as_bytes().eq_ignore_ascii_case(b"chunked") && version == Version::HTTP_11 => {}
        _ => return Err(FramingFault::BadCoding),
    }
    let meets = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(EXPECT).iter().all(meets) { Ok(()) } else { Err(FramingFault::BadExpectation) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn checked(version: Version, lines: &[(&str, &str)]) -> Result<(), FramingFault> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        check(version, &headers)
    }

    #[test]
    fn ambiguous_bodies_are_refused() {
        for (lines, result) in [
            (&[][..], Ok(())),
            (&[("content-length", "10")], Ok(())),
            (&[("transfer-encoding", "Chunked")], Ok(())),
            (&[("content-length", "10"), ("content-length", "10")], Err(FramingFault::TwoLengths)),
            (&[("content-length", "10, 10")], Err(FramingFault::TwoLengths)),
            (&[("content-length", "1 0")], Err(FramingFault::BadLength)),
            (&[("content-length", "99999999999999999999")], Err(FramingFault::BadLength)),
            (
                &[("transfer-encoding", "chunked"), ("content-length", "5")],
                Err(FramingFault::LengthAndCoding),
            ),
            (
                &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                Err(FramingFault::BadCoding),
            ),
            (&[("expect", "200-ok")], Err(FramingFault::BadExpectation)),
        ] {
            assert_eq!(checked(Version::HTTP_11, lines), result, "{lines:?}");
        }
        let chunked = &[("transfer-encoding", "chunked")];
        assert_eq!(checked(Version::HTTP_10, chunked), Err(FramingFault::BadCoding));
    }
}
