//! The `model` of a `multipart/form-data` body, the form of audio and images (RFC 7578).

use std::ops::Range;

use hyper::body::Bytes;
use memchr::memmem;

use super::splice;

/// Returns the boundary that a `Content-Type` names, if it is a form.
pub fn boundary(content_type: &str) -> Option<String> {
    let mut parts = content_type.split(';');
    if !parts.next()?.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim())
    })?;
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    (1..=70).contains(&value.len()).then(|| value.to_owned())
}

/// Returns the model of a form and its place; `None` if the form has no field `model`, or one that is not text.
pub fn model(body: &[u8], boundary: &str) -> Option<(Range<usize>, String)> {
    let delimiter = format!("--{boundary}");
    let finder = memmem::Finder::new(delimiter.as_bytes());
    let mut starts = finder.find_iter(body).filter(|at| *at == 0 || body[..*at].ends_with(b"\r\n"));
    let mut start = starts.next()?;
    for next in starts {
        let part = start + delimiter.len()..next;
        if let Some(value) = model_part(&body[part.clone()]) {
            let value = part.start + value.start..part.start + value.end;
            return Some((value.clone(), str::from_utf8(&body[value]).ok()?.to_owned()));
        }
        start = next;
    }
    None
}

/// Returns the body with another model.
pub fn with_model(body: &Bytes, place: Range<usize>, model: &str) -> Vec<Bytes> {
    splice::replaced(body, [place], &Bytes::copy_from_slice(model.as_bytes()))
}

/// Returns the place of the value in a part named `model`. A part begins and ends with a line end.
fn model_part(part: &[u8]) -> Option<Range<usize>> {
    let end_of_head = memmem::find(part, b"\r\n\r\n")?;
    let head = str::from_utf8(&part[..end_of_head]).ok()?;
    let is_model = head.split("\r\n").filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.trim().eq_ignore_ascii_case("content-disposition")
            && value.split(';').any(|part| matches!(part.trim(), "name=\"model\"" | "name=model"))
    });
    let value = end_of_head + 4..part.len().checked_sub(2)?;
    (is_model && value.start <= value.end).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &[u8] = b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\n\
        a\r\n\r\n--x-\0\xff\r\n--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nfast\r\n--x--\r\n";

    #[test]
    fn model_of_a_form_is_replaced() {
        let (place, name) = model(FORM, "x").expect("a model");
        assert_eq!(name, "fast");
        let changed = with_model(&Bytes::from_static(FORM), place, "org/whisper").concat();
        assert_eq!(model(&changed, "x").map(|(_, name)| name).as_deref(), Some("org/whisper"));
        assert_eq!(changed.len(), FORM.len() + "org/whisper".len() - "fast".len());
    }

    #[test]
    fn form_without_a_model_has_none() {
        for body in [&b""[..], b"--x--\r\n", b"--x\r\n--x--", b"x", &FORM[..FORM.len() - 10]] {
            assert_eq!(model(body, "x"), None, "{:?}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn boundary_is_that_of_a_form() {
        for (content_type, found) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data; charset=utf-8; Boundary=\"a b\"", Some("a b")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/mixed; boundary=abc", None),
            ("application/json", None),
        ] {
            assert_eq!(boundary(content_type).as_deref(), found, "{content_type}");
        }
    }
}
