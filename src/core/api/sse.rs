//! The event stream format: bytes in, events out (WHATWG HTML, section 9.2.6).
