//! Keeps the machine awake while requests are answered whose service asks for it.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::app::App;
use crate::core::awake::Vigil;
use crate::core::config::KeepAwake;
use crate::core::services::ManagedService;
use crate::gateway::task;

/// How long the machine stays awake after an answer: until then, the next request needs no new tool.
const LINGER: Duration = Duration::from_secs(5);

/// One vigil for all requests, which ends with the last of them.
#[derive(Default)]
pub(super) struct Wakefulness(Mutex<SharedVigil>);

#[derive(Default)]
struct SharedVigil {
    vigil: Weak<Vigil>,
    /// Whether none could begin, which is told once.
    is_impossible: bool,
}

/// What keeps the machine awake for one request, if anything does.
#[derive(Default)]
pub(super) struct Waking(Option<Arc<Vigil>>);

impl Wakefulness {
    /// Keeps the machine awake while the result lives, if the service asks for that.
    pub(super) fn wake(&self, app: &App, service: &str) -> Waking {
        let asks = |service: &&ManagedService| service.server().keep_awake == KeepAwake::Requests;
        let Some(service) = app.service(service).filter(asks) else { return Waking(None) };
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.is_impossible {
            return Waking(None);
        }
        let vigil = shared.vigil.upgrade().or_else(|| app.keep_awake(service).map(Arc::new));
        shared.vigil = vigil.as_ref().map(Arc::downgrade).unwrap_or_default();
        shared.is_impossible = vigil.is_none();
        Waking(vigil)
    }
}

impl Drop for Waking {
    fn drop(&mut self) {
        let Some(vigil) = self.0.take() else { return };
        // Without a runtime the gateway has ended, and nobody asks again.
        if tokio::runtime::Handle::try_current().is_ok() {
            task::start(async move {
                tokio::time::sleep(LINGER).await;
                drop(vigil);
            });
        }
    }
}
