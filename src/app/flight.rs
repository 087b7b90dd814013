//! Single flight: concurrent requests for the same work run it once and share the result.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::core::cancel::{CancelToken, Cancelled};
use crate::core::sorted_map::SortedMap;

/// How often a waiter checks its own token.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The running work, by the name of its service.
pub(super) struct Flights<T>(Mutex<SortedMap<Arc<str>, Arc<Flight<T>>>>);

struct Flight<T> {
    /// Cancelled when the tokens of all callers are.
    cancel: CancelToken,
    result: Mutex<Option<T>>,
    changed: Condvar,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Clone> Flights<T> {
    /// Runs `work` for `name`, or waits for its result if it is running already. The work is cancelled when the
    /// tokens of all callers are. A waiter whose own token is cancelled returns at once. Returns with the result
    /// whether it is that of this caller's `work`.
    pub(super) fn run(
        &self,
        name: &Arc<str>,
        cancel: &CancelToken,
        work: impl FnOnce(&CancelToken) -> T,
    ) -> Result<(T, bool), Cancelled> {
        let (flight, is_first) = self.board(name, cancel);
        if !is_first {
            return Ok((flight.wait(cancel)?, false));
        }
        let landing = Landing { flights: self, name };
        let result = work(&flight.cancel);
        *lock(&flight.result) = Some(result.clone());
        drop(landing);
        flight.changed.notify_all();
        Ok((result, true))
    }

    /// Returns whether work for `name` is running.
    pub(super) fn is_running(&self, name: &str) -> bool {
        lock(&self.0).contains_key(name)
    }

    /// Returns the flight, and whether the caller has started it.
    fn board(&self, name: &Arc<str>, cancel: &CancelToken) -> (Arc<Flight<T>>, bool) {
        let mut flights = lock(&self.0);
        if let Some(flight) = flights.get(name)
            && flight.cancel.join(cancel)
        {
            return (Arc::clone(flight), false);
        }
        let flight = Arc::new(Flight {
            cancel: CancelToken::group(cancel),
            result: Mutex::new(None),
            changed: Condvar::new(),
        });
        flights.insert(Arc::clone(name), Arc::clone(&flight));
        (flight, true)
    }
}

/// Removes the flight when the work has ended, even by a panic.
struct Landing<'a, T> {
    flights: &'a Flights<T>,
    name: &'a Arc<str>,
}

impl<T> Drop for Landing<'_, T> {
    fn drop(&mut self) {
        lock(&self.flights.0).remove(self.name);
    }
}

impl<T: Clone> Flight<T> {
    fn wait(&self, cancel: &CancelToken) -> Result<T, Cancelled> {
        let mut result = lock(&self.result);
        loop {
            if let Some(result) = &*result {
                return Ok(result.clone());
            }
            cancel.check()?;
            let waited = self.changed.wait_timeout(result, POLL_INTERVAL);
            (result, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn name() -> Arc<str> {
        "some".into()
    }

    #[test]
    fn concurrent_callers_share_one_flight() {
        let (flights, done) = (Flights::default(), AtomicUsize::new(0));
        let all_wait = std::sync::Barrier::new(21);
        std::thread::scope(|scope| {
            let (started, start) = mpsc::channel::<()>();
            let first = scope.spawn({
                let (flights, done) = (&flights, &done);
                move || {
                    flights.run(&name(), &CancelToken::new(), |_| {
                        start.recv().unwrap();
                        done.fetch_add(1, Ordering::SeqCst)
                    })
                }
            });
            while lock(&flights.0).is_empty() {
                std::thread::yield_now();
            }
            let others: Vec<_> = (0..20)
                .map(|_| {
                    scope.spawn(|| {
                        let cancel = CancelToken::new();
                        let (flight, is_first) = flights.board(&name(), &cancel);
                        all_wait.wait();
                        assert!(!is_first);
                        flight.wait(&cancel)
                    })
                })
                .collect();
            all_wait.wait();
            started.send(()).unwrap();
            assert_eq!(first.join().unwrap(), Ok((0, true)));
            for other in others {
                assert_eq!(other.join().unwrap(), Ok(0));
            }
        });
        assert_eq!(done.load(Ordering::SeqCst), 1);
        assert!(lock(&flights.0).is_empty());
    }

    #[test]
    fn a_cancelled_waiter_does_not_cancel_the_others() {
        let flights: Flights<()> = Flights::default();
        let (one, other) = (CancelToken::new(), CancelToken::new());
        let (flight, _) = flights.board(&name(), &one);
        assert!(!flights.board(&name(), &other).1);
        one.cancel(Cancelled::Abandoned);
        assert_eq!(flight.wait(&one), Err(Cancelled::Abandoned));
        assert!(!flight.cancel.is_cancelled());
        other.cancel(Cancelled::Signal(2));
        assert!(flight.cancel.is_cancelled());
        // A cancelled flight is not joined.
        assert!(flights.board(&name(), &CancelToken::new()).1);
    }
}
