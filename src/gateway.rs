//! One API in front of every service: starts the service that a request needs, and stops idle ones.
//!
//! Only this module knows that async code exists; the lifecycle of services is blocking and runs on threads of its own.

mod admin;
mod awake;
mod backoff;
mod body;
pub mod end_mark;
mod events;
mod exchange;
pub mod feed;
mod forward;
pub mod framing;
pub mod guard;
mod headers;
mod keeper;
mod listing;
mod meter;
mod metrics;
pub mod multipart;
mod names;
mod observer;
mod page;
mod plan;
mod pool;
mod prometheus;
mod query;
mod rejection;
mod relay;
mod reload;
mod respond;
mod restarts;
mod router;
mod seats;
mod server;
mod socket;
pub mod splice;
mod state;
mod supervise;
mod task;
pub mod translate;
pub mod wire;

pub use self::server::{GatewayServer, serve};
