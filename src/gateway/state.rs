//! [`Gateway`]: the state that all requests share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::Semaphore;

use super::awake::Wakefulness;
use super::feed::Feed;
use super::guard::Guard;
use super::meter::Tallies;
use super::names::{self, Lists, Names, Route, Served};
use super::plan::Phase;
use super::pool::Pool;
use super::rejection::Rejection;
use super::relay::Relay;
use super::restarts::Restarts;
use super::seats::Seats;
use super::task::{self, blocking};
use super::wire::Wire;
use crate::app::App;
use crate::core::address::Address;
use crate::core::cancel::{CancelToken, Cancelled};
use crate::core::config::MemoryLimit;
use crate::core::machine::{self, CpuMeter};
use crate::core::services::{ManagedService, Status};

/// How long a request with an unknown name waits for servers to tell their models: some hang.
const LISTING_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum number of clients that read logs at once: each has a thread, and other work needs threads, too.
const MAX_LOG_READERS: usize = 64;

/// The state that follows from one version of the configuration.
pub(super) struct Setup {
    pub(super) app: App,
    /// The memory that model servers may hold together, in bytes.
    pub(super) max_memory: u64,
    pub(super) guard: Guard,
    names: Mutex<Names>,
    lists: Lists,
    /// Held while the services list their models, so concurrent requests cause one listing.
    listing: tokio::sync::Mutex<()>,
}

/// The gateway.
pub(super) struct Gateway {
    setup: Mutex<Arc<Setup>>,
    pub(super) seats: Arc<Seats>,
    pub(super) pool: Arc<Pool>,
    pub(super) counts: Arc<Tallies>,
    pub(super) restarts: Restarts,
    pub(super) wakefulness: Wakefulness,
    /// A permit for each client that may read a log.
    pub(super) log_readers: Arc<Semaphore>,
    /// The services that lack an API of the clients, as their responses showed.
    translated: Mutex<Vec<(Arc<str>, Wire)>>,
    /// Measures the processors between two requests.
    cpu_meter: Mutex<CpuMeter>,
    /// Held, because the bus of events holds its subscribers weakly.
    _relay: Arc<Relay>,
}

impl Setup {
    /// Returns the setup of a gateway that listens on `bound`.
    pub(super) fn new(app: App, bound: Address) -> Self {
        let settings = &app.config.gateway;
        let guard = Guard {
            bound,
            hosts: settings.hosts.clone(),
            cors_origins: settings.cors_origins.clone(),
            token: Some(settings.token.clone()).filter(|token| !token.is_empty()),
        };
        let max_memory = bytes(settings.max_memory);
        Self {
            app,
            max_memory,
            guard,
            names: Mutex::default(),
            lists: Lists::default(),
            listing: tokio::sync::Mutex::default(),
        }
    }

    /// Returns whether no server of the service has more than chat completions.
    pub(super) fn lacks_other_wires(&self, service: &str) -> bool {
        let runtime = self.app.service(service).and_then(ManagedService::runtime);
        runtime.is_some_and(|runtime| runtime.has_other_wires(None) == Some(false))
    }

    /// Returns the status of every service that can be observed. Fails if that fails for all of them.
    pub(super) fn statuses(&self) -> Result<Vec<(&ManagedService, Status)>, Rejection> {
        let services = self.app.services();
        let statuses = self.app.manager(&CancelToken::new()).status_of_all(services);
        let (mut seen, mut failed) = (Vec::new(), None);
        for (service, status) in services.iter().zip(statuses) {
            match status {
                Ok(status) => seen.push((service, status)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) if seen.is_empty() => Err(Rejection::of_service(&error)),
            _ => Ok(seen),
        }
    }

    /// Returns which models every service has, as far as they say so in time.
    pub(super) fn served(&self) -> Vec<Served> {
        let cancel = CancelToken::new();
        let late = cancel.clone();
        task::start(async move {
            tokio::time::sleep(LISTING_TIMEOUT).await;
            late.cancel(Cancelled::Abandoned);
        });
        names::served(&self.app, &self.lists, &cancel)
    }

    /// Clears the cache of names: the service has started or stopped, perhaps with another model.
    pub(super) fn forget_names(&self, service: &str) {
        self.lists.forget(service);
        self.with_names(|names| *names = Names::default());
    }

    fn with_names<T>(&self, work: impl FnOnce(&mut Names) -> T) -> T {
        work(&mut self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns a limit in bytes: at most what the machine has. No limit where the system does not tell its memory.
fn bytes(limit: MemoryLimit) -> u64 {
    let whole = machine::memory().map_or(u64::MAX, |memory| memory.for_models);
    match limit {
        MemoryLimit::Bytes(bytes) => bytes.min(whole),
        MemoryLimit::Share(_) if whole == u64::MAX => whole,
        MemoryLimit::Share(percent) => whole / 100 * u64::from(percent),
    }
}

impl Gateway {
    pub(super) fn new(setup: Setup) -> Self {
        let counts: Arc<Tallies> = Arc::default();
        let relay = Arc::new(Relay(Arc::clone(&counts.feed)));
        setup.app.events.subscribe(&relay);
        Self {
            setup: Mutex::new(Arc::new(setup)),
            seats: Arc::default(),
            pool: Arc::default(),
            counts,
            restarts: Restarts::default(),
            wakefulness: Wakefulness::default(),
            log_readers: Arc::new(Semaphore::new(MAX_LOG_READERS)),
            translated: Mutex::default(),
            cpu_meter: Mutex::new(CpuMeter::start()),
            _relay: relay,
        }
    }

    pub(super) fn cpu_meter(&self) -> MutexGuard<'_, CpuMeter> {
        self.cpu_meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the feed of events.
    pub(super) fn feed(&self) -> &Arc<Feed> {
        &self.counts.feed
    }

    /// Returns whether requests in `wire` are translated for a service.
    pub(super) fn is_translated(&self, service: &Arc<str>, wire: Wire) -> bool {
        let translated = self.translated.lock().unwrap_or_else(PoisonError::into_inner);
        translated.iter().any(|(name, known)| name == service && *known == wire)
    }

    /// Remembers that requests in `wire` are translated for a service.
    pub(super) fn translates(&self, service: &Arc<str>, wire: Wire) {
        let mut translated = self.translated.lock().unwrap_or_else(PoisonError::into_inner);
        let new = (Arc::clone(service), wire);
        if !translated.contains(&new) {
            translated.push(new);
        }
    }

    /// Returns the present configuration. A request keeps the one with which it began.
    pub(super) fn setup(&self) -> Arc<Setup> {
        Arc::clone(&self.setup.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace_setup(&self, setup: Setup) {
        *self.setup.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(setup);
    }

    /// Returns the service and the model that `name` means.
    pub(super) async fn route(&self, setup: &Arc<Setup>, name: &str) -> Result<Route, Rejection> {
        if let Some(route) = self.known(setup, name) {
            return Ok(route);
        }
        let _one = setup.listing.lock().await;
        if let Some(route) = self.known(setup, name) {
            return Ok(route);
        }
        let (own, asked) = (Arc::clone(setup), name.to_owned());
        let routes = blocking(move || names::resolve(&own.app, &own.served(), &asked)).await??;
        let first = routes.first().cloned();
        setup.with_names(|names| names.learn(name, routes));
        first.ok_or_else(|| Rejection::new(StatusCode::NOT_FOUND, "no such model"))
    }

    /// Returns the route of a name from the cache. If several services have the model and none is known to run or to
    /// start, another command may have started one of them.
    fn known(&self, setup: &Setup, name: &str) -> Option<Route> {
        let in_phase = |routes: &[Route], is_wanted: fn(Phase) -> bool| {
            routes.iter().find(|route| is_wanted(self.seats.phase(&route.service))).cloned()
        };
        setup.with_names(|names| match names.known(name)? {
            [only] => Some(only.clone()),
            several => in_phase(several, |phase| matches!(phase, Phase::Up(_)))
                .or_else(|| in_phase(several, |phase| phase == Phase::Starting)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_at_most_the_machines_memory() {
        let whole = machine::memory().expect("this system tells").for_models;
        assert_eq!(bytes(MemoryLimit::Bytes(u64::MAX)), whole);
        assert_eq!(bytes(MemoryLimit::Bytes(1)), 1);
        assert_eq!(bytes(MemoryLimit::Share(50)), whole / 100 * 50);
    }
}
