//! One HTTP API in front of every service.

pub mod end_mark;
pub mod framing;
pub mod guard;
pub mod multipart;
pub mod splice;
pub mod translate;
pub mod wire;
