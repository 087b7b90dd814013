//! When a service that ended by itself is started again: after a growing pause, and with a limit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::core::sorted_map::SortedMap;

/// How often a service is started again within [`WINDOW`].
const LIMIT: usize = 5;
const WINDOW: Duration = Duration::from_secs(600);

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The ends of services, and the starts that followed.
#[derive(Debug, Default)]
pub(super) struct Restarts(Mutex<SortedMap<Arc<str>, History>>);

#[derive(Debug, Default)]
struct History {
    /// When the present end was seen.
    ended: Option<Instant>,
    /// The starts within [`WINDOW`].
    restarts: Vec<Instant>,
}

impl Restarts {
    /// Records whether a service has ended, and returns whether to start it now; `may_start` says whether it can
    /// start.
    pub(super) fn is_due(&self, service: &Arc<str>, has_ended: bool, may_start: bool) -> bool {
        let mut histories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let history = histories.get_or_default(Arc::clone(service));
        if !has_ended {
            history.ended = None;
        }
        has_ended && may_start && history.is_due(Instant::now())
    }
}

impl History {
    /// Records the end of the service, and returns whether to start it now.
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
