//! The outcomes of requests, counted by service.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::end_mark::TokenCounts;
use super::feed::{Feed, News};
use crate::app::views::{milliseconds, tenths};
use crate::core::api::chat::Arrivals;
use crate::core::sorted_map::SortedMap;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// The server gave a whole answer.
    Ok,
    ClientGone,
    /// The answer of the server broke off.
    Cut,
    /// The gateway refused the request.
    Refused,
    /// The gateway sent an error of its own: 502, 503 or 504.
    Failed,
}

/// The bounds of the histogram of the time to the first byte, in seconds.
pub(super) const FIRST_BYTE_BOUNDS: [f64; 9] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];

/// The counters of one service since the gateway started.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    pub(super) outcomes: SortedMap<Outcome, u64>,
    /// Number of first bytes within each bound, and in total.
    pub(super) first_bytes: [u64; FIRST_BYTE_BOUNDS.len() + 1],
    pub(super) first_byte_seconds: f64,
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    pub(super) starts: u64,
    pub(super) idle_stops: u64,
    /// Of the last answer with usage.
    pub(super) tokens_per_second: Option<f64>,
    /// Of the last answer.
    pub(super) first_token: Option<Duration>,
    /// The tokens of prompt and answer, of the last answer with usage.
    pub(super) context_used: Option<u64>,
}

impl Outcome {
    pub(super) const ALL: [Self; 5] = [Self::Ok, Self::ClientGone, Self::Cut, Self::Refused, Self::Failed];

    /// Returns its name in metrics and events.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientGone => "client_gone",
            Self::Cut => "cut",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// The counters of all services, and the feed that gets each request.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    counters: Mutex<SortedMap<Arc<str>, Counters>>,
    pub(super) feed: Arc<Feed>,
}

impl Tallies {
    pub(super) fn count(&self, service: &Arc<str>, change: impl FnOnce(&mut Counters)) {
        let mut counts = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        change(counts.get_or_default(Arc::clone(service)));
    }

    /// Returns every counted name; requests without a service have an empty one.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Returns the counters of a service.
    pub(super) fn of(&self, service: &Arc<str>) -> Counters {
        let counts = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(service).cloned().unwrap_or_default()
    }
}

/// Measures one request. Dropping it counts the request; the default outcome is that the client is gone.
pub(super) struct Meter {
    counts: Arc<Tallies>,
    service: Arc<str>,
    since: Instant,
    first_byte: Option<Instant>,
    arrivals: Arrivals,
    /// Number of pieces of the body so far.
    pieces: u64,
    outcome: Outcome,
    usage: Option<TokenCounts>,
    error: Option<String>,
}

impl Meter {
    pub(super) fn begin(counts: &Arc<Tallies>, service: &Arc<str>) -> Box<Self> {
        Box::new(Self {
            counts: Arc::clone(counts),
            service: Arc::clone(service),
            since: Instant::now(),
            first_byte: None,
            arrivals: Arrivals::default(),
            pieces: 0,
            outcome: Outcome::ClientGone,
            usage: None,
            error: None,
        })
    }

    /// Measures the request as one of a service.
    pub(super) fn of(mut self: Box<Self>, service: &Arc<str>) -> Box<Self> {
        self.service = Arc::clone(service);
        self.outcome = Outcome::ClientGone;
        self
    }

    /// Records the arrival of the head of the response.
    pub(super) fn receives(&mut self) {
        self.first_byte.get_or_insert_with(Instant::now);
    }

    /// Records the arrival of a piece of the body.
    pub(super) fn receives_piece(&mut self) {
        self.arrivals.add(self.pieces);
        self.pieces += 1;
    }

    pub(super) fn ends(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// Records that the gateway has no answer to pass on, and why.
    pub(super) fn fails(&mut self, message: &str) {
        self.ends(Outcome::Failed);
        self.error = Some(message.to_owned());
    }

    pub(super) fn costs(&mut self, usage: Option<TokenCounts>) {
        self.usage = usage.or(self.usage);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let first = self.first_byte.map(|first| first.saturating_duration_since(self.since));
        let speed = self.usage.and_then(|usage| self.arrivals.tokens_per_second(usage.completion));
        self.counts.count(&self.service, |counters| {
            *counters.outcomes.get_or_default(self.outcome) += 1;
            if let Some(first) = first {
                let seconds = first.as_secs_f64();
                let bucket = FIRST_BYTE_BOUNDS.iter().position(|bound| seconds <= *bound);
                counters.first_bytes[bucket.unwrap_or(FIRST_BYTE_BOUNDS.len())] += 1;
                counters.first_byte_seconds += seconds;
                counters.first_token = Some(first);
            }
            let Some(usage) = self.usage else { return };
            counters.prompt_tokens += usage.prompt;
            counters.completion_tokens += usage.completion;
            counters.context_used = Some(usage.prompt.saturating_add(usage.completion));
            counters.tokens_per_second = speed.or(counters.tokens_per_second);
        });
        let news = News::RequestFinished {
            outcome: self.outcome.name(),
            duration_ms: milliseconds(self.since.elapsed()),
            first_byte_ms: first.map(milliseconds),
            prompt_tokens: self.usage.map(|usage| usage.prompt),
            completion_tokens: self.usage.map(|usage| usage.completion),
            tokens_per_second: speed.map(tenths),
            error: self.error.take(),
        };
        self.counts.feed.publish(Some(&self.service), news);
    }
}
