//! What fusion can do, for every front end: use cases that return values and emit events, and never print.

pub mod ability;
mod admission;
#[expect(clippy::module_inception, reason = "the type gives the layer its name")]
mod app;
mod awake;
pub mod chat;
mod diagnosis;
mod ensure;
mod error;
mod flight;
pub mod gateway;
mod gpu;
mod install;
mod instances;
pub mod launch;
mod logs;
pub mod metrics;
mod models;
mod notices;
pub mod pick;
mod prompt;
mod request;
pub mod search;
mod selection;
mod serve;
pub mod services;
mod several;
pub mod templates;
pub mod top;
mod up;
pub mod views;

pub use self::app::App;
pub use self::diagnosis::Diagnosis;
pub use self::error::AppError;
pub use self::install::homebrew_formula;
pub use self::instances::RemoveError;
pub use self::logs::ServiceLog;
pub use self::models::{LoadOptions, Models, Named, Unload};
pub use self::notices::Notice;
pub use self::prompt::{Permissions, Server};
pub use self::request::{Overrides, Question, RESERVED_FIELDS, Request};
pub use self::selection::{Selection, SelectionError};
pub use self::serve::{Serve, ServeError};
pub use self::up::UpRequest;
