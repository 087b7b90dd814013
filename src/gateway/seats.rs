//! The seats of the services: the requests that use each, those that wait for it, and its phase.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use tokio::sync::{Notify, oneshot};

use super::awake::Awake;
use super::backoff::FailedStart;
use super::names::Route;
use super::plan::{Owner, Phase, SeatFacts};
use super::rejection::Rejection;
use crate::core::cancel::CancelToken;
use crate::core::services::{Endpoint, Footprint};
use crate::core::sorted_map::SortedMap;

/// Maximum age of the last check of a service's process before its next request.
const MAX_AGE: Duration = Duration::from_millis(250);

/// All seats, shared by the requests and the keeper.
#[derive(Default)]
pub(super) struct Seats {
    by_service: Mutex<SortedMap<Arc<str>, Seat>>,
    /// Wakes the keeper.
    changed: Notify,
}

/// The result of a request for a service.
pub(super) type Admission = Result<Lease, Rejection>;

/// One service, as the gateway knows it.
pub(super) struct Seat {
    pub(super) phase: Phase,
    /// Its address, while it is up.
    upstream: Option<Arc<Upstream>>,
    /// When its process was last seen.
    checked: Instant,
    pub(super) in_flight: usize,
    waiting: Vec<Waiter>,
    pub(super) last_used: Instant,
    /// Whether its new requests wait, because it is another service's turn.
    pub(super) is_draining: bool,
    /// Its last start, if that failed.
    pub(super) failure: Option<FailedStart>,
    /// The memory that it held when it was last measured, in bytes.
    pub(super) memory: Option<u64>,
    /// The memory that its next start needs, as far as the files of its model tell.
    pub(super) estimate: Option<u64>,
    /// The model that the first of those who wait asks for.
    pub(super) asked: Option<String>,
    /// Until when it is not stopped, because a command uses it.
    pub(super) held_until: Option<Instant>,
    /// Whether its record and address are being observed.
    pub(super) is_observed: bool,
    /// Cancels its start.
    pub(super) cancel: Option<CancelToken>,
}

struct Waiter {
    since: Instant,
    admission: oneshot::Sender<Admission>,
}

/// The immediate result of a request for a service.
pub(super) enum Entrance {
    Admitted(Lease),
    Waits(Ticket),
    Refused(Rejection),
    /// Its process must be checked again first.
    Stale,
}

/// A place in the queue. Dropping it leaves the queue.
pub(super) struct Ticket {
    admission: oneshot::Receiver<Admission>,
    seats: Arc<Seats>,
}

/// The right to send one request to a service, which is not stopped meanwhile. Dropping it is the end of the request.
pub(super) struct Lease {
    seats: Arc<Seats>,
    pub(super) service: Arc<str>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) awake: Awake,
}

/// A running server.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) endpoint: Endpoint,
    /// Where it is dialled, as the `Host` of its requests.
    pub(super) host: HeaderValue,
    /// Whether it has the APIs beyond chat completions; `None` if only a request shows it.
    pub(super) has_other_wires: Option<bool>,
}

impl Default for Seat {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            phase: Phase::Unknown,
            upstream: None,
            checked: now,
            in_flight: 0,
            waiting: Vec::new(),
            last_used: now,
            is_draining: false,
            failure: None,
            memory: None,
            estimate: None,
            asked: None,
            held_until: None,
            is_observed: false,
            cancel: None,
        }
    }
}

impl Seat {
    /// Returns the facts for the decision about it; `policy` has those of the configuration.
    pub(super) fn facts(&mut self, policy: SeatFacts, now: Instant) -> SeatFacts {
        self.waiting.retain(|waiter| !waiter.admission.is_closed());
        SeatFacts {
            phase: self.phase,
            is_busy: self.in_flight > 0 || self.held_until.is_some_and(|until| until > now),
            waiting_since: self.waiting_since(),
            last_used: self.last_used,
            memory: self.memory.or(self.estimate).unwrap_or(policy.memory),
            ..policy
        }
    }

    /// Returns when the first of those who still wait came.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.waiting.iter().filter(|waiter| !waiter.admission.is_closed()).map(|waiter| waiter.since).min()
    }
}

impl Upstream {
    pub(super) fn new(endpoint: Endpoint, has_other_wires: Option<bool>) -> Self {
        let host = HeaderValue::try_from(endpoint.address.dial().to_string());
        // No server has another address: the configuration takes none.
        let host = host.unwrap_or_else(|_| HeaderValue::from_static(""));
        Self { endpoint, host, has_other_wires }
    }
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, SortedMap<Arc<str>, Seat>> {
        self.by_service.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads or changes the seat of a service.
    pub(super) fn with<T>(&self, service: &Arc<str>, change: impl FnOnce(&mut Seat) -> T) -> T {
        let mut seats = self.lock();
        change(seats.get_or_default(Arc::clone(service)))
    }

    /// Wakes the keeper, which decides anew.
    pub(super) fn wake_keeper(&self) {
        self.changed.notify_one();
    }

    /// Waits until the keeper is woken.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Counts a request in, then checks whether its service runs: in the other order the service could be stopped in
    /// between.
    pub(super) fn enter(self: &Arc<Self>, route: &Route, now: Instant) -> Entrance {
        let service = &route.service;
        let mut seats = self.lock();
        let seat = seats.get_or_default(Arc::clone(service));
        if let (Phase::Up(owner), Some(upstream), false) = (seat.phase, &seat.upstream, seat.is_draining) {
            // Whether an external one still runs, its connection shows.
            if owner != Owner::Other && now.saturating_duration_since(seat.checked) > MAX_AGE {
                return Entrance::Stale;
            }
            let upstream = Arc::clone(upstream);
            seat.in_flight += 1;
            return Entrance::Admitted(Lease {
                seats: Arc::clone(self),
                service: Arc::clone(service),
                upstream: Arc::clone(&upstream),
                awake: Awake::default(),
            });
        }
        if let Some(rejection) = seat.failure.as_ref().and_then(|failure| failure.rejection(now)) {
            return Entrance::Refused(rejection);
        }
        let is_first = seat.waiting_since().is_none();
        if is_first {
            seat.asked = Some(route.model.clone());
        }
        let may_be_seen = is_first && matches!(seat.phase, Phase::Down | Phase::Unknown);
        let (sender, receiver) = oneshot::channel();
        seat.waiting.push(Waiter { since: now, admission: sender });
        if may_be_seen {
            // What was seen before nobody waited may not hold any more, also of those that may be in its way.
            let stale = |seat: &&mut Seat| seat.phase == Phase::Down;
            seats.values_mut().filter(stale).for_each(|seat| seat.phase = Phase::Unknown);
        }
        drop(seats);
        self.wake_keeper();
        Entrance::Waits(Ticket { admission: receiver, seats: Arc::clone(self) })
    }

    /// Records that the process of a running service was seen now.
    pub(super) fn was_seen(&self, service: &Arc<str>) {
        self.with(service, |seat| seat.checked = Instant::now());
    }

    /// Notes what a service holds; `None`: nothing that fusion started runs.
    pub(super) fn is_measured(&self, service: &Arc<str>, footprint: Option<Footprint>) {
        self.with(service, |seat| match (footprint, seat.phase) {
            (Some(footprint), _) => seat.memory = footprint.memory_bytes.or(seat.memory),
            // Another command has stopped it.
            (None, Phase::Up(Owner::Gateway | Owner::Fusion)) => {
                (seat.phase, seat.upstream) = (Phase::Unknown, None);
            }
            (None, _) => {}
        });
    }

    /// Forgets that a service is up: its process is gone, or does not take connections.
    pub(super) fn distrust(&self, service: &Arc<str>) {
        self.with(service, |seat| {
            if matches!(seat.phase, Phase::Up(_)) {
                seat.phase = Phase::Unknown;
                seat.upstream = None;
            }
        });
    }

    /// Marks a service as up, and admits the waiting requests, unless it is another service's turn.
    pub(super) fn is_up(self: &Arc<Self>, service: &Arc<str>, phase: Phase, upstream: Upstream) {
        self.with(service, |seat| {
            let now = Instant::now();
            if !matches!(seat.phase, Phase::Up(_)) {
                seat.last_used = now;
            }
            (seat.phase, seat.upstream, seat.checked) = (phase, Some(Arc::new(upstream)), now);
            seat.failure = None;
        });
        self.admit_waiting(service);
    }

    /// Admits the requests that wait for a service that is up.
    pub(super) fn admit_waiting(self: &Arc<Self>, service: &Arc<str>) {
        let admitted = self.with(service, |seat| {
            let upstream = seat.upstream.clone().filter(|_| matches!(seat.phase, Phase::Up(_)))?;
            let waiting = std::mem::take(&mut seat.waiting);
            seat.in_flight += waiting.len();
            Some((upstream, waiting))
        });
        let Some((upstream, waiting)) = admitted else { return };
        for waiter in waiting {
            let (seats, service, upstream) = (Arc::clone(self), Arc::clone(service), Arc::clone(&upstream));
            // A lease without a receiver ends at once.
            let _ = waiter.admission.send(Ok(Lease { seats, service, upstream, awake: Awake::default() }));
        }
    }

    /// Takes a service out of use: new requests wait.
    pub(super) fn leaves(&self, service: &Arc<str>, phase: Phase) {
        self.with(service, |seat| {
            seat.phase = phase;
            if phase != Phase::Stopping {
                seat.upstream = None;
            }
        });
        self.wake_keeper();
    }

    /// Fails the requests that wait for a service.
    pub(super) fn refuse_waiting(&self, service: &Arc<str>, rejection: &Rejection) {
        let waiting = self.with(service, |seat| std::mem::take(&mut seat.waiting));
        for waiter in waiting {
            // Clients that have left need no answer.
            let _ = waiter.admission.send(Err(rejection.clone()));
        }
    }

    /// Returns how many requests a service answers now.
    pub(super) fn in_flight(&self, service: &Arc<str>) -> usize {
        self.lock().get(service).map_or(0, |seat| seat.in_flight)
    }

    /// Returns since when a service that the gateway started is idle; `None` for any other, and while it is in use.
    pub(super) fn idle_since(&self, service: &Arc<str>) -> Option<Instant> {
        let seats = self.lock();
        let seat = seats.get(service).filter(|seat| seat.phase == Phase::Up(Owner::Gateway))?;
        (seat.in_flight == 0).then_some(seat.last_used)
    }

    pub(super) fn phase(&self, service: &Arc<str>) -> Phase {
        self.lock().get(service).map_or(Phase::Unknown, |seat| seat.phase)
    }

    /// Returns the running services that fusion did not start.
    pub(super) fn external(&self) -> Vec<Arc<str>> {
        let seats = self.lock();
        let external = seats.iter().filter(|(_, seat)| seat.phase == Phase::Up(Owner::Other));
        external.map(|(service, _)| Arc::clone(service)).collect()
    }

    /// Returns the services for which requests wait.
    pub(super) fn waited_for(&self) -> Vec<Arc<str>> {
        let seats = self.lock();
        let waited_for = seats.iter().filter(|(_, seat)| !seat.waiting.is_empty());
        waited_for.map(|(service, _)| Arc::clone(service)).collect()
    }
}

impl Ticket {
    /// Waits until the service is ready or cannot be.
    pub(super) async fn admission(mut self) -> Option<Admission> {
        // It is dropped without a word only when the gateway ends.
        (&mut self.admission).await.ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // The start that it waited for may make room for another one.
        self.admission.close();
        self.seats.wake_keeper();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let is_last = self.seats.with(&self.service, |seat| {
            seat.in_flight = seat.in_flight.saturating_sub(1);
            seat.last_used = Instant::now();
            seat.in_flight == 0
        });
        if is_last && !self.seats.waited_for().is_empty() {
            self.seats.wake_keeper();
        }
    }
}
