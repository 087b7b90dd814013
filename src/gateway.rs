//! One API in front of every service: it starts what a request needs, and stops what nobody uses.
//!
//! Only this module knows that async code exists; the lifecycle of services is blocking and runs on threads of its own.

mod backoff;
mod body;
pub mod end_mark;
mod exchange;
mod forward;
pub mod framing;
pub mod guard;
mod headers;
mod keeper;
mod listing;
mod meter;
pub mod multipart;
mod names;
mod plan;
mod pool;
mod rejection;
mod reload;
mod respond;
mod restarts;
mod router;
mod seats;
mod server;
pub mod splice;
mod state;
mod supervise;
pub mod translate;
pub mod wire;

pub use self::server::{GatewayServer, serve};
