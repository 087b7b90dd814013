//! Decides which services are started, stopped and made to wait: one pure function over the facts of all of them.

use crate::core::order;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long requests for a loaded model may delay another model, from its first waiting request on.
pub(super) const TURN: Duration = Duration::from_secs(5);

/// The phase of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its record and address must be observed first.
    Unknown,
    Down,
    Starting,
    Up(Owner),
    Stopping,
}

/// Who started a running service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The gateway, now or before its restart: the idle stop applies.
    Gateway,
    /// Another command of fusion.
    Fusion,
    /// Another program: the gateway uses it, and never stops it.
    Other,
}

/// The facts about one service.
#[derive(Debug, Clone)]
pub(super) struct SeatFacts {
    pub(super) name: Arc<str>,
    pub(super) phase: Phase,
    /// Whether it holds a model in memory: such services start one after the other, within the limit of memory.
    pub(super) is_heavy: bool,
    /// The group of which at most one service runs.
    pub(super) group: Option<Arc<str>>,
    /// Whether a request may start it.
    pub(super) on_demand: bool,
    /// Requests that it answers now, or another user of it.
    pub(super) is_busy: bool,
    /// When the first of the requests that wait for it came.
    pub(super) waiting_since: Option<Instant>,
    /// The end of its last request.
    pub(super) last_used: Instant,
    /// How long it may be idle; `None` without end.
    pub(super) idle_timeout: Option<Duration>,
    /// The memory that it holds, or will hold once it is started, in bytes.
    pub(super) memory: u64,
}

/// Why a service is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    Idle,
    /// Another service needs its place.
    Room,
}

/// An obstacle to a start that does not go away by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// No request may start it.
    NotOnDemand,
    /// A service of the same group runs, and fusion did not start it.
    Exclusive { group: Arc<str>, by: Arc<str> },
    /// The memory is held by services that the gateway did not start, or suffices for no other.
    Memory { needed: u64, limit: u64, by: Vec<Arc<str>> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Start(Arc<str>),
    Stop(Arc<str>, StopReason),
    /// No request waits for this start any more, and another service needs its place.
    CancelStart(Arc<str>),
    Refuse(Arc<str>, Obstacle),
}

/// What to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// The services whose new requests wait because it is another service's turn.
    pub(super) draining: Vec<Arc<str>>,
    /// When to decide again, even if nothing happens.
    pub(super) next: Option<Instant>,
}

impl Plan {
    fn stops(&self, service: &SeatFacts) -> bool {
        self.steps.iter().any(|action| matches!(action, Step::Stop(name, _) if *name == service.name))
    }

    fn check_again(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

/// Decides for all services. `limit` is the memory that those with a model may hold together, in bytes.
pub(super) fn plan(services: &[SeatFacts], limit: u64, now: Instant) -> Plan {
    let mut plan = Plan::default();
    for service in services {
        plan_idle_stop(service, now, &mut plan);
    }
    plan_overflow(services, limit, &mut plan);
    let mut waiting: Vec<&SeatFacts> = services
        .iter()
        .filter(|service| service.phase == Phase::Down && service.waiting_since.is_some())
        .collect();
    for service in waiting.iter().filter(|service| !service.on_demand) {
        plan.steps.push(Step::Refuse(Arc::clone(&service.name), Obstacle::NotOnDemand));
    }
    waiting.retain(|service| service.on_demand);
    order::sort_by_key(&mut waiting, |service| service.waiting_since);
    for service in waiting.iter().filter(|service| !is_contended(service)) {
        plan.steps.push(Step::Start(Arc::clone(&service.name)));
    }
    // In the order in which they came: a later one never overtakes the first.
    for service in waiting.into_iter().filter(|service| is_contended(service)) {
        match plan_start(service, services, limit, now, &mut plan) {
            // The next start may need other stops.
            Err(obstacle) => plan.steps.push(Step::Refuse(Arc::clone(&service.name), obstacle)),
            Ok(()) => break,
        }
    }
    plan
}

/// Returns whether the service may need the place of another one.
fn is_contended(service: &SeatFacts) -> bool {
    service.is_heavy || service.group.is_some()
}

fn plan_idle_stop(service: &SeatFacts, now: Instant, plan: &mut Plan) {
    let is_ours = service.phase == Phase::Up(Owner::Gateway);
    let Some(timeout) = service.idle_timeout.filter(|_| is_ours) else { return };
    let is_idle = !service.is_busy && service.waiting_since.is_none();
    // The end of a request does not wake the keeper, which notices it at the earliest end of an idle time.
    let since = if is_idle { service.last_used } else { now };
    match since.checked_add(timeout) {
        Some(at) if is_idle && at <= now => {
            plan.steps.push(Step::Stop(Arc::clone(&service.name), StopReason::Idle));
        }
        Some(at) => plan.check_again(at),
        None => {}
    }
}

/// Stops what the gateway started, least recently used first, while the memory that was measured is above the limit.
/// The last one stays: it would only be started again.
fn plan_overflow(services: &[SeatFacts], limit: u64, plan: &mut Plan) {
    let mut held: Vec<&SeatFacts> =
        services.iter().filter(|service| service.is_heavy && matches!(service.phase, Phase::Up(_))).collect();
    order::sort_by_key(&mut held, |service| service.last_used);
    let mut total = held.iter().fold(0_u64, |sum, service| sum.saturating_add(service.memory));
    held.pop();
    for service in held {
        let may_stop = service.phase == Phase::Up(Owner::Gateway) && !service.is_busy && !plan.stops(service);
        if total > limit && may_stop {
            plan.steps.push(Step::Stop(Arc::clone(&service.name), StopReason::Room));
            total = total.saturating_sub(service.memory);
        }
    }
}

/// Starts `service`, or makes room for it.
fn plan_start(
    service: &SeatFacts,
    all: &[SeatFacts],
    limit: u64,
    now: Instant,
    plan: &mut Plan,
) -> Result<(), Obstacle> {
    let others = || all.iter().filter(|other| other.name != service.name);
    let in_the_way = in_the_way(service, &others().collect::<Vec<_>>(), limit)?;
    let mut must_wait = others().any(|other| {
        is_contended(other) && matches!(other.phase, Phase::Starting | Phase::Stopping | Phase::Unknown)
    });
    for other in in_the_way {
        must_wait = true;
        match other.phase {
            _ if plan.stops(other) => {}
            Phase::Starting if other.waiting_since.is_none() => {
                plan.steps.push(Step::CancelStart(Arc::clone(&other.name)));
            }
            Phase::Up(_) if !other.is_busy => {
                plan.steps.push(Step::Stop(Arc::clone(&other.name), StopReason::Room));
            }
            Phase::Up(_) => match service.waiting_since.map_or(now, |since| since + TURN) {
                turn if turn <= now => plan.draining.push(Arc::clone(&other.name)),
                turn => plan.check_again(turn),
            },
            Phase::Starting | Phase::Stopping | Phase::Unknown | Phase::Down => {}
        }
    }
    if !must_wait {
        plan.steps.push(Step::Start(Arc::clone(&service.name)));
    }
    Ok(())
}

/// Returns the services that must go before `service` can start.
fn in_the_way<'a>(
    service: &SeatFacts,
    others: &[&'a SeatFacts],
    limit: u64,
) -> Result<Vec<&'a SeatFacts>, Obstacle> {
    let holds = |other: &SeatFacts| matches!(other.phase, Phase::Up(_) | Phase::Starting | Phase::Stopping);
    let running: Vec<&SeatFacts> = others.iter().copied().filter(|other| holds(other)).collect();
    let mut victims: Vec<&SeatFacts> = Vec::new();
    if let Some(group) = &service.group {
        for other in running.iter().filter(|other| other.group.as_ref() == Some(group)) {
            if other.phase == Phase::Up(Owner::Other) {
                return Err(Obstacle::Exclusive { group: Arc::clone(group), by: Arc::clone(&other.name) });
            }
            victims.push(other);
        }
    }
    if !service.is_heavy {
        return Ok(victims);
    }
    let is_victim =
        |victims: &[&SeatFacts], other: &SeatFacts| victims.iter().any(|one| one.name == other.name);
    let mut held: Vec<&SeatFacts> =
        running.into_iter().filter(|other| other.is_heavy && !is_victim(&victims, other)).collect();
    // Idle ones first, and of these the least recently used.
    order::sort_by_key(&mut held, |other| (other.is_busy, other.last_used));
    let mut needed = held.iter().fold(service.memory, |sum: u64, other| sum.saturating_add(other.memory));
    for other in &held {
        if needed <= limit {
            break;
        }
        if matches!(other.phase, Phase::Up(Owner::Gateway) | Phase::Starting | Phase::Stopping) {
            needed = needed.saturating_sub(other.memory);
            victims.push(other);
        }
    }
    if needed > limit {
        let stays = held.iter().filter(|other| !is_victim(&victims, other));
        let by = stays.map(|other| Arc::clone(&other.name)).collect();
        return Err(Obstacle::Memory { needed: service.memory, limit, by });
    }
    // `others` outlives what was collected from it.
    Ok(others.iter().copied().filter(|other| is_victim(&victims, other)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u64 = 1000;
    const SECOND: Duration = Duration::from_secs(1);

    fn before(now: Instant, time: Duration) -> Instant {
        now.checked_sub(time).expect("the clock is older than that")
    }

    fn facts(name: &str, phase: Phase, now: Instant) -> SeatFacts {
        SeatFacts {
            name: name.into(),
            phase,
            is_heavy: true,
            group: None,
            on_demand: true,
            is_busy: false,
            waiting_since: None,
            last_used: now,
            idle_timeout: None,
            memory: 400,
        }
    }

    fn waiting(name: &str, since: Instant) -> SeatFacts {
        SeatFacts { waiting_since: Some(since), ..facts(name, Phase::Down, since) }
    }

    fn up(name: &str, now: Instant) -> SeatFacts {
        facts(name, Phase::Up(Owner::Gateway), now)
    }

    fn start(name: &str) -> Step {
        Step::Start(name.into())
    }

    fn stop(name: &str) -> Step {
        Step::Stop(name.into(), StopReason::Room)
    }

    #[test]
    fn idle_time_counts_from_the_last_use() {
        let now = Instant::now() + 100 * SECOND;
        let idle = |owner, ago, is_busy| SeatFacts {
            idle_timeout: Some(10 * SECOND),
            last_used: before(now, ago),
            is_busy,
            ..facts("a", Phase::Up(owner), now)
        };
        let stopped = plan(&[idle(Owner::Gateway, 10 * SECOND, false)], MANY, now);
        assert_eq!(stopped.steps, [Step::Stop("a".into(), StopReason::Idle)]);
        let later = plan(&[idle(Owner::Gateway, 4 * SECOND, false)], MANY, now);
        assert_eq!((later.steps, later.next), (vec![], Some(now + 6 * SECOND)));
        let busy = plan(&[idle(Owner::Gateway, 50 * SECOND, true)], MANY, now);
        assert_eq!((busy.steps, busy.next), (vec![], Some(now + 10 * SECOND)));
        for owner in [Owner::Fusion, Owner::Other] {
            assert_eq!(plan(&[idle(owner, 50 * SECOND, false)], MANY, now), Plan::default());
        }
    }

    #[test]
    fn heavy_services_start_one_after_the_other() {
        let now = Instant::now() + SECOND;
        let two = [waiting("b", now), waiting("a", before(now, SECOND))];
        assert_eq!(plan(&two, MANY, now).steps, [start("a")]);
        let starting = [two[0].clone(), SeatFacts { phase: Phase::Starting, ..two[1].clone() }];
        assert_eq!(plan(&starting, MANY, now).steps, []);
        let light = SeatFacts { is_heavy: false, ..two[0].clone() };
        assert_eq!(plan(&[light, starting[1].clone()], MANY, now).steps, [start("b")]);
    }

    #[test]
    fn least_recently_used_makes_room() {
        let now = Instant::now() + 10 * SECOND;
        let old = SeatFacts { last_used: before(now, 5 * SECOND), ..up("old", now) };
        let new = up("new", now);
        let next = waiting("next", now);
        assert_eq!(plan(&[new.clone(), old.clone(), next.clone()], MANY, now).steps, [stop("old")]);
        let busy = SeatFacts { is_busy: true, ..old.clone() };
        assert_eq!(plan(&[new.clone(), busy, next.clone()], MANY, now).steps, [stop("new")]);
        // The next one starts when the memory of the last is free.
        let stopping = SeatFacts { phase: Phase::Stopping, ..old };
        assert_eq!(plan(&[new.clone(), stopping, next.clone()], MANY, now).steps, []);
        assert_eq!(plan(&[new, next], MANY, now).steps, [start("next")]);
    }

    #[test]
    fn memory_is_checked_again_when_ready() {
        let now = Instant::now() + 10 * SECOND;
        let old = SeatFacts { last_used: before(now, SECOND), memory: 600, ..up("old", now) };
        let new = SeatFacts { memory: 600, ..up("new", now) };
        assert_eq!(plan(&[new.clone(), old.clone()], MANY, now).steps, [stop("old")]);
        let busy = SeatFacts { is_busy: true, ..old };
        assert_eq!(plan(&[new.clone(), busy], MANY, now).steps, []);
        let large = SeatFacts { memory: 2 * MANY, ..new };
        assert_eq!(plan(&[large], MANY, now).steps, [], "it would only be started again");
    }

    #[test]
    fn memory_of_others_is_named() {
        let now = Instant::now();
        let foreign = SeatFacts { memory: 700, ..facts("mine", Phase::Up(Owner::Fusion), now) };
        let refused = plan(&[foreign.clone(), waiting("a", now)], MANY, now);
        let obstacle = Obstacle::Memory { needed: 400, limit: MANY, by: vec!["mine".into()] };
        assert_eq!(refused.steps, [Step::Refuse("a".into(), obstacle)]);
        // One that cannot start does not keep the next one from starting.
        let small = SeatFacts { memory: 300, ..waiting("b", now + SECOND) };
        let steps = plan(&[foreign, waiting("a", now), small], MANY, now).steps;
        assert_eq!(steps[1..], [start("b")]);
        let large = SeatFacts { memory: 1001, ..waiting("a", now) };
        let obstacle = Obstacle::Memory { needed: 1001, limit: MANY, by: vec![] };
        assert_eq!(plan(&[large], MANY, now).steps, [Step::Refuse("a".into(), obstacle)]);
    }

    #[test]
    fn one_of_a_group_runs() {
        let now = Instant::now();
        let of_group = |facts: SeatFacts| SeatFacts { group: Some("gpu".into()), is_heavy: false, ..facts };
        let next = of_group(waiting("b", now));
        for owner in [Owner::Gateway, Owner::Fusion] {
            let running = of_group(facts("a", Phase::Up(owner), now));
            assert_eq!(plan(&[running, next.clone()], MANY, now).steps, [stop("a")]);
        }
        let external = of_group(facts("a", Phase::Up(Owner::Other), now));
        let obstacle = Obstacle::Exclusive { group: "gpu".into(), by: "a".into() };
        assert_eq!(plan(&[external, next.clone()], MANY, now).steps, [Step::Refuse("b".into(), obstacle)]);
        assert_eq!(plan(&[up("a", now), next], MANY, now).steps, [start("b")]);
    }

    #[test]
    fn service_that_is_not_on_demand_is_refused() {
        let now = Instant::now();
        let never = SeatFacts { on_demand: false, ..waiting("a", now) };
        let steps = plan(&[never, waiting("b", now)], MANY, now).steps;
        assert_eq!(steps, [Step::Refuse("a".into(), Obstacle::NotOnDemand), start("b")]);
    }

    /// Two models asked for in turn: requests for the loaded one are collected, within a bound.
    #[test]
    fn a_busy_model_yields_after_its_turn() {
        let now = Instant::now() + 10 * SECOND;
        let busy = SeatFacts { is_busy: true, memory: 900, ..up("a", now) };
        let early = plan(&[busy.clone(), waiting("b", before(now, SECOND))], MANY, now);
        assert_eq!((early.steps, early.draining), (vec![], vec![]));
        assert_eq!(early.next, Some(before(now, SECOND) + TURN));
        let late = plan(&[busy.clone(), waiting("b", before(now, TURN))], MANY, now);
        assert_eq!((late.steps, late.draining), (vec![], vec!["a".into()]));
        let free = SeatFacts { is_busy: false, waiting_since: Some(now), ..busy };
        assert_eq!(plan(&[free, waiting("b", before(now, TURN))], MANY, now).steps, [stop("a")]);
    }

    #[test]
    fn an_abandoned_start_yields_its_room() {
        let now = Instant::now();
        let abandoned = SeatFacts { memory: 900, ..facts("a", Phase::Starting, now) };
        let next = waiting("b", now);
        let steps = plan(&[abandoned.clone(), next.clone()], MANY, now).steps;
        assert_eq!(steps, [Step::CancelStart("a".into())]);
        assert_eq!(plan(std::slice::from_ref(&abandoned), MANY, now).steps, []);
        let small = SeatFacts { memory: 100, ..abandoned.clone() };
        assert_eq!(plan(&[small, next.clone()], MANY, now).steps, [], "there is room for both");
        let wanted = SeatFacts { waiting_since: Some(now), ..abandoned };
        assert_eq!(plan(&[wanted, next], MANY, now).steps, []);
    }
}
