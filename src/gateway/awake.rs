//! Keeps the machine awake while services with `keep_awake` answer requests.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::app::App;
use crate::core::awake::SleepInhibitor;
use crate::core::config::KeepAwake;
use crate::core::services::ManagedService;
use crate::gateway::task;

/// How long the machine stays awake after an answer: until then, the next request needs no new tool.
const LINGER: Duration = Duration::from_secs(5);

/// One helper process for all requests, which ends with the last of them.
#[derive(Default)]
pub(super) struct Wakefulness(Mutex<SharedVigil>);

#[derive(Default)]
struct SharedVigil {
    inhibitor: Weak<SleepInhibitor>,
    /// Whether the helper failed, which is reported once.
    is_impossible: bool,
}

/// The share of one request in the helper, if there is one.
#[derive(Default)]
pub(super) struct Awake(Option<Arc<SleepInhibitor>>);

impl Wakefulness {
    /// Keeps the machine awake while the result lives, if the service has `keep_awake`.
    pub(super) fn wake(&self, app: &App, service: &str) -> Awake {
        let asks = |service: &&ManagedService| service.server().keep_awake == KeepAwake::Requests;
        let Some(service) = app.service(service).filter(asks) else { return Awake(None) };
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.is_impossible {
            return Awake(None);
        }
        let inhibitor = shared.inhibitor.upgrade().or_else(|| app.keep_awake(service).map(Arc::new));
        shared.inhibitor = inhibitor.as_ref().map(Arc::downgrade).unwrap_or_default();
        shared.is_impossible = inhibitor.is_none();
        Awake(inhibitor)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        let Some(inhibitor) = self.0.take() else { return };
        // Without an async runtime, the gateway has ended.
        if tokio::runtime::Handle::try_current().is_ok() {
            task::start(async move {
                tokio::time::sleep(LINGER).await;
                drop(inhibitor);
            });
        }
    }
}
