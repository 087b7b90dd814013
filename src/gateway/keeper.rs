//! Keeps the services as the requests need them: one task observes, decides with [`plan`], starts and stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;

use super::backoff::FailedStart;
use super::names::Route;
use super::plan::{self, Obstacle, Owner, Phase, SeatFacts, Step, StopReason};
use super::rejection::Rejection;
use super::seats::{Entrance, Upstream};
use super::state::{Gateway, Setup};
use super::task::{self, blocking};
use crate::app::{AppError, UpRequest};
use crate::core::api::Client;
use crate::core::cancel::{CancelToken, Cancelled};
use crate::core::config::IdleStop;
use crate::core::runtimes::Recognition;
use crate::core::services::{
    DownOptions, Endpoint, Footprint, ManagedService, ServiceError, StartFailureKind, StartedBy, Up,
};

/// How soon a service that a command uses is checked again.
const HELD_INTERVAL: Duration = Duration::from_secs(1);

/// Timeout for the version of a server.
const VERSION_TIMEOUT: Duration = Duration::from_secs(2);

/// Counts a request in for the service of its model. A process that was not seen lately is looked up first.
pub(super) async fn enter(gateway: &Arc<Gateway>, setup: &Arc<Setup>, route: &Route) -> Entrance {
    loop {
        match gateway.seats.enter(route, Instant::now()) {
            Entrance::Stale => check_again(gateway, setup, &route.service, None).await,
            entry => return entry,
        }
    }
}

/// Checks whether the process of a running service still lives. One that has `refused` a connection is not trusted: a
/// server closes its port before it ends. A command that stops it is waited for.
pub(super) async fn check_again(
    gateway: &Arc<Gateway>,
    setup: &Arc<Setup>,
    service: &Arc<str>,
    refused: Option<Arc<Upstream>>,
) {
    let (own, name) = (Arc::clone(setup), Arc::clone(service));
    let seen = blocking(move || {
        let service = own.app.service(&name)?;
        let never = CancelToken::new();
        let manager = own.app.manager(&never);
        if let Some(upstream) = refused {
            manager.end_of(service, &upstream.endpoint);
            return None;
        }
        manager.running(service).ok().flatten()
    });
    match seen.await {
        Ok(Some(_)) => gateway.seats.was_seen(service),
        _ => gateway.seats.distrust(service),
    }
}

/// Finds the running services that an earlier gateway started: their idle time begins again. Finishes a start that it
/// left unfinished.
pub(super) async fn adopt(gateway: &Arc<Gateway>) {
    let setup = gateway.setup();
    let own = Arc::clone(&setup);
    let footprints = blocking(move || {
        let never = CancelToken::new();
        let manager = own.app.manager(&never);
        let of = |service: &ManagedService| Some((Arc::clone(&service.name), manager.footprint(service)?));
        own.app.services().iter().filter_map(of).collect::<Vec<_>>()
    });
    for (name, footprint) in footprints.await.unwrap_or_default() {
        if footprint.on_demand && footprint.is_ready {
            observe(Arc::clone(gateway), Arc::clone(&setup), name).await;
        } else if footprint.on_demand {
            act(gateway, &setup, Step::Start(name));
        }
    }
}

/// Runs until the gateway ends.
pub(super) async fn keep(gateway: Arc<Gateway>) {
    loop {
        let setup = gateway.setup();
        let facts = facts(&gateway, &setup);
        // What is no longer in the file is not decided about.
        for name in gateway.seats.waited_for().iter().filter(|name| setup.app.service(name).is_none()) {
            gateway.seats.refuse_waiting(name, &gone(name));
        }
        observe_unknown(&gateway, &setup, &facts);
        let plan = plan::plan(&facts, setup.max_memory, Instant::now());
        for step in plan.steps {
            act(&gateway, &setup, step);
        }
        for service in &facts {
            let is_draining = plan.draining.contains(&service.name);
            let was_draining = gateway
                .seats
                .with(&service.name, |seat| std::mem::replace(&mut seat.is_draining, is_draining));
            if was_draining && !is_draining {
                gateway.seats.admit_waiting(&service.name);
            }
        }
        match plan.next {
            // A timeout loses nothing: the next round decides again.
            Some(at) => drop(tokio::time::timeout_at(at.into(), gateway.seats.changed()).await),
            None => gateway.seats.changed().await,
        }
    }
}

fn facts(gateway: &Gateway, setup: &Setup) -> Vec<SeatFacts> {
    let now = Instant::now();
    let of = |service: &ManagedService| {
        let policy = policy(setup, service, now);
        gateway.seats.with(&service.name, |seat| seat.facts(policy, now))
    };
    setup.app.services().iter().map(of).collect()
}

/// Returns how long after its last request the service is stopped; `None`: never.
pub(super) fn idle_timeout(setup: &Setup, service: &ManagedService) -> Option<Duration> {
    match service.server().idle_timeout.unwrap_or(setup.app.config.gateway.idle_timeout) {
        IdleStop::Never => None,
        IdleStop::After(time) => Some(time),
    }
}

/// Returns whether the service holds a model in memory.
fn is_heavy(service: &ManagedService) -> bool {
    service.runtime().is_some() || service.server().model.is_some()
}

/// Returns the facts from the configuration.
fn policy(setup: &Setup, service: &ManagedService, now: Instant) -> SeatFacts {
    let server = service.server();
    SeatFacts {
        name: Arc::clone(&service.name),
        phase: Phase::Unknown,
        is_heavy: is_heavy(service),
        group: server.exclusive.as_deref().map(Arc::from),
        on_demand: server.on_demand,
        is_busy: false,
        waiting_since: None,
        last_used: now,
        idle_timeout: idle_timeout(setup, service),
        memory: 0,
    }
}

/// Observes the services that are wanted and unknown, and those that may be in the way of a start.
fn observe_unknown(gateway: &Arc<Gateway>, setup: &Arc<Setup>, facts: &[SeatFacts]) {
    let is_contended = |facts: &&SeatFacts| facts.is_heavy || facts.group.is_some();
    let any_waits = facts.iter().filter(is_contended).any(|facts| facts.waiting_since.is_some());
    let wanted = |facts: &&SeatFacts| facts.waiting_since.is_some() || (any_waits && is_contended(facts));
    for unknown in facts.iter().filter(|facts| facts.phase == Phase::Unknown).filter(wanted) {
        let is_new =
            gateway.seats.with(&unknown.name, |seat| !std::mem::replace(&mut seat.is_observed, true));
        if is_new {
            task::start(observe(Arc::clone(gateway), Arc::clone(setup), Arc::clone(&unknown.name)));
        }
    }
}

/// The observation of a service, without starting it.
struct Seen {
    upstream: Upstream,
    owner: Owner,
    memory: Option<u64>,
}

/// What a start must take into account.
#[derive(Default)]
struct Needs {
    /// The memory of the service itself, as far as the files of its model tell.
    estimate: Option<u64>,
    /// What each model server holds; `None` of one that does not run.
    held: Vec<(Arc<str>, Option<Footprint>)>,
}

/// Observes the record of a service and its address. If it does not run, returns what its start with the model
/// `asked` needs beside what holds memory, also in the servers of other programs.
fn observation(
    setup: &Setup,
    service: &ManagedService,
    asked: Option<&str>,
    external: &[Arc<str>],
) -> Result<Result<Seen, Needs>, ServiceError> {
    let never = CancelToken::new();
    let manager = setup.app.manager(&never);
    if let Some(endpoint) = manager.find_endpoint(service)? {
        return Ok(Ok(seen(setup, service, endpoint)));
    }
    if !is_heavy(service) {
        return Ok(Err(Needs::default()));
    }
    let model = service.server().model.as_deref().or(asked);
    let estimate = model.and_then(|model| setup.app.memory_estimate(service, model, &never));
    let heavy = setup.app.services().iter().filter(|service| is_heavy(service));
    let held = heavy.map(|service| {
        let is_external = external.contains(&service.name);
        let memory = if is_external { manager.memory_of_external(service) } else { None };
        let measured =
            memory.map(|bytes| Footprint { on_demand: false, is_ready: true, memory_bytes: Some(bytes) });
        (Arc::clone(&service.name), manager.footprint(service).or(measured))
    });
    Ok(Err(Needs { estimate, held: held.collect() }))
}

fn seen(setup: &Setup, service: &ManagedService, endpoint: Endpoint) -> Seen {
    let never = CancelToken::new();
    let manager = setup.app.manager(&never);
    let footprint = manager.footprint(service);
    let owner = match endpoint.started_by {
        StartedBy::Other => Owner::Other,
        StartedBy::Fusion if footprint.is_some_and(|footprint| footprint.on_demand) => Owner::Gateway,
        StartedBy::Fusion => Owner::Fusion,
    };
    let has_other_wires = has_other_wires(service, &endpoint);
    let memory = match owner {
        Owner::Other if is_heavy(service) => manager.memory_of_external(service),
        _ => footprint.and_then(|footprint| footprint.memory_bytes),
    };
    Seen { upstream: Upstream::new(endpoint, has_other_wires), owner, memory }
}

/// Returns whether the server has the APIs beyond chat completions, which may depend on its version.
fn has_other_wires(service: &ManagedService, endpoint: &Endpoint) -> Option<bool> {
    let runtime = service.runtime()?;
    runtime.has_other_wires(None).or_else(|| {
        let probe = runtime.status_probe();
        let response = Client::with_timeout(&endpoint.address, VERSION_TIMEOUT).get(probe.path).ok()?;
        match (probe.read)(&response) {
            Recognition::Ready(facts) => runtime.has_other_wires(facts.version.as_deref()),
            _ => None,
        }
    })
}

async fn observe(gateway: Arc<Gateway>, setup: Arc<Setup>, name: Arc<str>) {
    let (own, service) = (Arc::clone(&setup), Arc::clone(&name));
    let asked = gateway.seats.with(&name, |seat| seat.asked.clone());
    let external = gateway.seats.external();
    let found = blocking(move || {
        let service = own.app.service(&service)?;
        Some(observation(&own, service, asked.as_deref(), &external))
    });
    let found = found.await;
    gateway.seats.with(&name, |seat| seat.is_observed = false);
    match found {
        Ok(Some(Ok(Ok(seen)))) => is_up(&gateway, &setup, &name, seen),
        Ok(Some(Ok(Err(needs)))) => {
            for (service, footprint) in needs.held {
                gateway.seats.is_measured(&service, footprint);
            }
            gateway.seats.with(&name, |seat| seat.estimate = needs.estimate);
            gateway.seats.leaves(&name, Phase::Down);
        }
        // The start reports what cannot be observed.
        Ok(_) => gateway.seats.leaves(&name, Phase::Down),
        Err(rejection) => {
            gateway.seats.refuse_waiting(&name, &rejection);
            gateway.seats.leaves(&name, Phase::Down);
        }
    }
}

fn is_up(gateway: &Gateway, setup: &Setup, name: &Arc<str>, seen: Seen) {
    gateway.seats.with(name, |seat| seat.memory = seen.memory.or(seat.memory));
    setup.forget_names(name);
    gateway.seats.is_up(name, Phase::Up(seen.owner), seen.upstream);
    gateway.seats.wake_keeper();
}

/// Carries out one step.
pub(super) fn act(gateway: &Arc<Gateway>, setup: &Arc<Setup>, step: Step) {
    match step {
        Step::Start(name) => {
            let cancel = CancelToken::new();
            gateway.seats.with(&name, |seat| {
                seat.phase = Phase::Starting;
                seat.cancel = Some(cancel.clone());
            });
            task::start(start(Arc::clone(gateway), Arc::clone(setup), name, cancel));
        }
        Step::CancelStart(name) => {
            let cancel = gateway.seats.with(&name, |seat| seat.cancel.take());
            if let Some(cancel) = cancel {
                cancel.cancel(Cancelled::Abandoned);
            }
        }
        Step::Stop(name, reason) => {
            let before = gateway.seats.with(&name, |seat| seat.phase);
            gateway.seats.leaves(&name, Phase::Stopping);
            task::start(stop(Arc::clone(gateway), Arc::clone(setup), name, before, reason));
        }
        Step::Refuse(name, obstacle) => gateway.seats.refuse_waiting(&name, &in_the_way(&name, &obstacle)),
    }
}

fn in_the_way(service: &str, obstacle: &Obstacle) -> Rejection {
    let message = match obstacle {
        Obstacle::NotOnDemand => {
            format!("{service} does not run, and no request starts it (`on_demand`): fusion {service} up")
        }
        Obstacle::Exclusive { group, by } => {
            format!(
                "{service} cannot start: {by} runs, of the exclusive group {group}, and fusion did not start it"
            )
        }
        Obstacle::Memory { needed, limit, by } if by.is_empty() => {
            format!("{service} needs {needed} bytes of memory, and `gateway.max_memory` allows {limit}")
        }
        Obstacle::Memory { needed, limit, by } => format!(
            "{service} needs {needed} bytes of memory; {} would exceed `gateway.max_memory` ({limit} bytes) with it, \
             and the gateway did not start what runs",
            by.join(", ")
        ),
    };
    Rejection::unavailable(message).retry_after(10)
}

async fn start(gateway: Arc<Gateway>, setup: Arc<Setup>, name: Arc<str>, cancel: CancelToken) {
    let (own, asked) = (Arc::clone(&setup), Arc::clone(&name));
    gateway.counts.count(&name, |counters| counters.starts += 1);
    let started = blocking(move || {
        let service = own.app.service(&asked)?;
        let options = own.app.manager(&cancel).options_of_gateway(service);
        let up = own.app.up(service, &UpRequest { options, ..UpRequest::default() }, &cancel);
        Some(up.map(|Up { endpoint, .. }| seen(&own, service, endpoint)))
    })
    .await;
    gateway.seats.with(&name, |seat| seat.cancel = None);
    let rejection = match started {
        Ok(Some(Ok(seen))) => return is_up(&gateway, &setup, &name, seen),
        Ok(Some(Err(error))) if is_cancelled(&error) => return gateway.seats.leaves(&name, Phase::Down),
        Ok(Some(Err(error))) => start_failed(&error),
        Ok(None) => gone(&name),
        Err(rejection) => rejection,
    };
    let answer = gateway.seats.with(&name, |seat| {
        let failure = FailedStart::after(seat.failure.as_ref(), rejection, Instant::now());
        let answer = failure.first_answer();
        seat.failure = Some(failure);
        answer
    });
    gateway.seats.refuse_waiting(&name, &answer);
    gateway.seats.leaves(&name, Phase::Down);
}

fn gone(service: &str) -> Rejection {
    Rejection::unavailable(format!("{service} is not in the configuration any longer"))
}

fn is_cancelled(error: &AppError) -> bool {
    matches!(error, AppError::Service(error) if matches!(**error, ServiceError::Cancelled(Cancelled::Abandoned)))
}

/// Returns the error for requests that waited for a failed start: its cause, and the last line of the log.
pub(super) fn start_failed(error: &AppError) -> Rejection {
    let mut message = crate::core::events::chain(error);
    // What has not run is not to be started.
    let mut status = StatusCode::SERVICE_UNAVAILABLE;
    if let AppError::Service(error) = error
        && let ServiceError::Failed(failure) = &**error
    {
        status = match failure.kind {
            StartFailureKind::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        };
        let cause = failure.cause.as_deref().map(|cause| format!(": {cause}"));
        let last = failure.tail.lines().rev().find(|line| !line.trim().is_empty());
        message += &cause.unwrap_or_default();
        message += &last.map(|line| format!("; the last line of its log: {line}")).unwrap_or_default();
    }
    Rejection::new(status, crate::core::api::error::clean(&message))
}

/// The result of an attempt to stop a service.
enum Stopped {
    Done {
        /// The memory that it held until then.
        memory: Option<u64>,
    },
    /// A command uses it.
    InUse,
}

async fn stop(gateway: Arc<Gateway>, setup: Arc<Setup>, name: Arc<str>, before: Phase, reason: StopReason) {
    let (own, asked) = (Arc::clone(&setup), Arc::clone(&name));
    let stopped = blocking(move || {
        let Some(service) = own.app.service(&asked) else { return Ok(Stopped::Done { memory: None }) };
        let Some(_in_use) = service.try_to_claim()? else { return Ok(Stopped::InUse) };
        let never = CancelToken::new();
        let manager = own.app.manager(&never);
        let memory = manager.footprint(service).and_then(|footprint| footprint.memory_bytes);
        // The record of a service that died by itself says how.
        if manager.running(service)?.is_some() {
            manager.down(service, &DownOptions::default())?;
        }
        Ok::<_, ServiceError>(Stopped::Done { memory })
    })
    .await;
    match stopped {
        Ok(Ok(Stopped::Done { memory })) => {
            gateway.seats.with(&name, |seat| seat.memory = memory.or(seat.memory));
            if reason == StopReason::Idle {
                gateway.counts.count(&name, |counters| counters.idle_stops += 1);
            }
            setup.forget_names(&name);
            gateway.seats.leaves(&name, Phase::Down);
        }
        Ok(Ok(Stopped::InUse)) => {
            let again = Instant::now() + HELD_INTERVAL;
            gateway.seats.with(&name, |seat| {
                seat.held_until = Some(again);
                seat.phase = before;
            });
            gateway.seats.admit_waiting(&name);
            tokio::time::sleep_until(again.into()).await;
            gateway.seats.wake_keeper();
        }
        Ok(Err(_)) | Err(_) => {
            // It may still run.
            gateway.seats.leaves(&name, Phase::Unknown);
            tokio::time::sleep(HELD_INTERVAL).await;
            observe(gateway, setup, name).await;
        }
    }
}
