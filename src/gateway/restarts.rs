//! Starts services again that ended by themselves, where the configuration says so (`restart = "on-failure"`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::keeper;
use super::plan::{Phase, Step};
use super::state::{Gateway, Setup, blocking};
use crate::core::cancel::CancelToken;
use crate::core::config::RestartPolicy;
use crate::core::services::ManagedService;

/// How often a service is started again within [`WINDOW`].
const LIMIT: usize = 5;
const WINDOW: Duration = Duration::from_secs(600);

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The ends of services, and the starts that followed.
#[derive(Debug, Default)]
pub(super) struct Restarts(Mutex<HashMap<Arc<str>, History>>);

#[derive(Debug, Default)]
struct History {
    /// When the present end was seen.
    ended: Option<Instant>,
    /// The starts within [`WINDOW`].
    restarts: Vec<Instant>,
}

impl History {
    /// Notes that the service has ended, and returns whether it is to be started now.
    fn is_due(&mut self, now: Instant) -> bool {
        self.restarts.retain(|start| now.saturating_duration_since(*start) < WINDOW);
        let ended = *self.ended.get_or_insert(now);
        let count = self.restarts.len();
        let pause = FIRST_PAUSE.saturating_mul(1 << count.min(LIMIT)).min(MAX_PAUSE);
        if count >= LIMIT || now.saturating_duration_since(ended) < pause {
            return false;
        }
        self.restarts.push(now);
        self.ended = None;
        true
    }
}

/// Looks for services that have ended by themselves, and starts those whose time has come.
pub(super) async fn tend(gateway: &Arc<Gateway>) {
    let setup = gateway.setup();
    let is_kept = |service: &ManagedService| service.server().restart == RestartPolicy::OnFailure;
    if !setup.app.services().iter().any(is_kept) {
        return;
    }
    let own = Arc::clone(&setup);
    let seen = blocking(move || {
        let of = |service: &ManagedService| (Arc::clone(&service.name), has_ended(&own, service));
        own.app.services().iter().filter(|service| is_kept(service)).map(of).collect::<Vec<_>>()
    });
    for (name, has_ended) in seen.await.unwrap_or_default() {
        let is_free = gateway.seats.with(&name, |seat| {
            !matches!(seat.phase, Phase::Starting | Phase::Stopping) && !seat.is_observed
        });
        let mut histories = gateway.restarts.0.lock().unwrap_or_else(PoisonError::into_inner);
        let history = histories.entry(Arc::clone(&name)).or_default();
        if !has_ended {
            history.ended = None;
        } else if is_free && history.is_due(Instant::now()) {
            drop(histories);
            gateway.seats.distrust(&name);
            keeper::act(gateway, &setup, Step::Start(name));
        }
    }
}

/// Returns whether the service was ready and is gone. One that was stopped has no record.
fn has_ended(setup: &Setup, service: &ManagedService) -> bool {
    setup.app.manager(&CancelToken::new()).has_ended(service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_pause_longer_and_end() {
        let (mut history, mut now) = (History::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..LIMIT {
            let ended = now;
            while !history.is_due(now) {
                now += Duration::from_secs(1);
            }
            pauses.push((now - ended).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16]);
        assert!(!history.is_due(now + MAX_PAUSE * 2));
        assert!(history.is_due(now + WINDOW));
    }
}
