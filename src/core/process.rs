//! The operating system's processes: a checked PID, an identity that PID reuse cannot fool, and the [`ProcessDriver`]
//! trait, behind which everything else lies.

mod children;
mod driver;
mod host;
mod id;
mod inspect;
#[cfg(feature = "test-fakes")]
pub mod mock;
mod socket;
pub mod unix;

pub use driver::{
    Child, Ending, Holdings, INSTANCE_VARIABLE, Instance, Listener, Liveness, ProcessDriver, ProcessError,
    ProcessSpec, StopSignal, Usage,
};
pub use host::{Host, Place};
pub use id::ProcessId;
pub use socket::ListeningSockets;

pub use crate::core::pid::{InvalidPid, Pid};
