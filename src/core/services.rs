//! Services: managed servers, their states, and the use cases that change them.
//!
//! Every use case reads the record, asks the kernel and probes the address; [`classify`](state::classify) derives the
//! state from that. `up`, `down` and `restart` hold the service's lock meanwhile; `ps` takes no lock and writes
//! nothing.

mod endpoint;
mod error;
mod facets;
#[cfg(all(test, feature = "test-fakes"))]
mod faults;
mod health;
mod kept_port;
pub mod lock;
mod manager;
mod observe;
mod others;
mod plan;
mod port;
mod ports;
mod presets;
pub mod probe;
pub mod record;
mod restart;
mod scope;
mod service;
mod start;
mod state;
mod status;
mod stop;
mod stop_command;
mod variables;
mod wait;

pub use self::endpoint::{Footprint, ServerEnd};
pub use self::error::{ServiceError, StartFailure, StartFailureKind};
pub use self::manager::ServiceManager;
pub use self::ports::{first_usable, next_ports};
pub use self::presets::is_preset;
pub use self::record::Elsewhere;
pub use self::service::{
    Down, DownOptions, Endpoint, Health, ManagedService, Origin, OtherService, StartedBy, Up, UpKind,
    UpOptions,
};
pub use self::state::State;
pub use self::status::{Exited, Status};
