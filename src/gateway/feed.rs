//! The events for listeners: the last 256, each with an increasing id.
//!
//! Every listener has its own position in one ring, so a slow one costs nothing and misses the oldest events.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::watch;

use crate::app::metrics::ServiceMetrics;
use crate::core::services::State;
use crate::core::timestamp::Timestamp;

/// Number of events that are kept.
const KEPT_EVENTS: usize = 256;

/// The kind of an event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum News {
    StatusChanged {
        state: State,
        previous: State,
        pid: Option<i64>,
        /// The last line of the log of one that ended.
        message: Option<String>,
    },
    HealthChanged {
        healthy: bool,
    },
    MetricsUpdated(Box<ServiceMetrics>),
    RequestFinished {
        outcome: &'static str,
        duration_ms: f64,
        first_byte_ms: Option<f64>,
        prompt_tokens: Option<u64>,
        completion_tokens: Option<u64>,
        tokens_per_second: Option<f64>,
        /// Why the gateway sent no answer.
        error: Option<String>,
    },
    ConfigChanged {
        ok: bool,
        message: String,
    },
    /// Events were missed: the listener must request the whole state again.
    Resync,
}

impl News {
    /// Returns its name on the wire.
    fn name(&self) -> &'static str {
        match self {
            Self::StatusChanged { .. } => "status_changed",
            Self::HealthChanged { .. } => "health_changed",
            Self::MetricsUpdated(_) => "metrics_updated",
            Self::RequestFinished { .. } => "request_finished",
            Self::ConfigChanged { .. } => "config_changed",
            Self::Resync => "resync",
        }
    }
}

/// An event as every listener gets it.
#[derive(Debug)]
pub struct FeedEvent {
    pub id: u64,
    at: SystemTime,
    service: Option<Arc<str>>,
    news: News,
    /// Made for the first listener: most events have none.
    json: OnceLock<String>,
}

impl FeedEvent {
    fn new(id: u64, service: Option<Arc<str>>, news: News) -> Self {
        Self { id, at: SystemTime::now(), service, news, json: OnceLock::new() }
    }

    /// Returns the JSON object, on one line.
    pub fn json(&self) -> &str {
        #[derive(Serialize)]
        struct EventLine<'a> {
            id: u64,
            at: Timestamp,
            service: Option<&'a str>,
            #[serde(flatten)]
            news: &'a News,
        }
        self.json.get_or_init(|| {
            let (at, service) = (Timestamp::from(self.at), self.service.as_deref());
            let line = EventLine { id: self.id, at, service, news: &self.news };
            // A map of strings and numbers has a JSON form.
            serde_json::to_string(&line).unwrap_or_default()
        })
    }

    /// Returns it as a server-sent event.
    pub fn as_sse(&self) -> String {
        format!("id: {}\nevent: {}\ndata: {}\n\n", self.id, self.news.name(), self.json())
    }
}

/// The last events.
#[derive(Debug)]
pub struct Feed {
    ring: Mutex<Ring>,
    /// Wakes the listeners.
    published: watch::Sender<()>,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Arc<FeedEvent>>,
    newest: u64,
}

impl Default for Feed {
    /// Returns a feed whose ids begin at the present time in microseconds, so they are greater than those of any
    /// earlier gateway, and below 2^53.
    fn default() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let start = u64::try_from(now).unwrap_or_default();
        Self {
            ring: Mutex::new(Ring { events: VecDeque::new(), newest: start }),
            published: watch::Sender::default(),
        }
    }
}

impl Feed {
    /// Adds an event.
    pub fn publish(&self, service: Option<&Arc<str>>, news: News) {
        let mut ring = self.ring();
        ring.newest += 1;
        let event = FeedEvent::new(ring.newest, service.cloned(), news);
        if ring.events.len() == KEPT_EVENTS {
            ring.events.pop_front();
        }
        ring.events.push_back(Arc::new(event));
        // Waking nobody has its price, too, and most requests have no listener.
        if self.listeners() > 0 {
            self.published.send_replace(());
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to listen after the event `last`; without one, now.
    pub fn listen(self: &Arc<Self>, last: Option<u64>) -> FeedListener {
        let watch = self.published.subscribe();
        let after = last.unwrap_or_else(|| self.ring().newest);
        FeedListener { feed: Arc::clone(self), watch, after }
    }

    /// Returns the number of listeners.
    pub fn listeners(&self) -> usize {
        self.published.receiver_count()
    }

    /// Returns the events after the one with the id `after`: a resync alone, if some of them are gone or there was no
    /// such event.
    fn after(&self, after: u64) -> Vec<Arc<FeedEvent>> {
        let ring = self.ring();
        let missed = ring.newest.checked_sub(after).and_then(|missed| usize::try_from(missed).ok());
        match missed.filter(|missed| *missed <= ring.events.len()) {
            Some(missed) => ring.events.range(ring.events.len() - missed..).cloned().collect(),
            None => vec![Arc::new(FeedEvent::new(ring.newest, None, News::Resync))],
        }
    }
}

/// One that listens.
#[derive(Debug)]
pub struct FeedListener {
    feed: Arc<Feed>,
    watch: watch::Receiver<()>,
    /// The id of the last event that was delivered.
    after: u64,
}

impl FeedListener {
    /// Returns the next events, once there are some; `None` when the gateway ends. May be cancelled without a loss.
    pub async fn next(&mut self) -> Option<Vec<Arc<FeedEvent>>> {
        loop {
            self.watch.borrow_and_update();
            let events = self.feed.after(self.after);
            if let Some(last) = events.last() {
                self.after = last.id;
                return Some(events);
            }
            self.watch.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(message: &dyn ToString) -> News {
        News::ConfigChanged { ok: true, message: message.to_string() }
    }

    fn feed(events: usize) -> Arc<Feed> {
        let feed = Arc::new(Feed::default());
        (0..events).for_each(|number| feed.publish(Some(&"mlx".into()), news(&number)));
        feed
    }

    /// The names of the events that are there, which must be some.
    fn heard(listener: &mut FeedListener) -> Vec<&'static str> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let events = runtime.block_on(listener.next()).expect("events");
        events.iter().map(|event| event.news.name()).collect()
    }

    #[test]
    fn listener_hears_what_comes_after_it() {
        let feed = feed(3);
        let mut listener = feed.listen(None);
        feed.publish(None, news(&"a"));
        feed.publish(None, news(&"b"));
        assert_eq!(heard(&mut listener), ["config_changed"; 2]);
        let last = listener.after;
        assert_eq!(heard(&mut feed.listen(Some(last - 1))), ["config_changed"]);
        assert_eq!(heard(&mut feed.listen(Some(last - 5))).len(), 5);
        assert_eq!(feed.listeners(), 1);
    }

    #[test]
    fn lost_or_unknown_events_are_a_resync() {
        let feed = feed(KEPT_EVENTS + 10);
        let newest = feed.ring.lock().expect("not poisoned").newest;
        let kept = KEPT_EVENTS as u64;
        assert_eq!(heard(&mut feed.listen(Some(newest - kept))).len(), KEPT_EVENTS);
        for unknown in [0, newest - kept - 1, newest + 1000, u64::MAX] {
            let mut listener = feed.listen(Some(unknown));
            assert_eq!(heard(&mut listener), ["resync"], "{unknown}");
            feed.publish(None, news(&"x"));
            assert_eq!(heard(&mut listener), ["config_changed"], "{unknown}");
        }
    }

    #[test]
    fn slow_listener_gets_a_resync() {
        let feed = feed(0);
        let mut listener = feed.listen(None);
        (0..=KEPT_EVENTS).for_each(|number| feed.publish(None, news(&number)));
        assert_eq!(heard(&mut listener), ["resync"]);
    }

    #[test]
    fn event_is_one_line_of_json() {
        let feed = feed(0);
        let state = News::StatusChanged {
            state: State::Ready,
            previous: State::Starting,
            pid: Some(7),
            message: None,
        };
        feed.publish(Some(&"mlx".into()), state);
        let newest = feed.ring.lock().expect("not poisoned").newest;
        let event = feed.after(newest - 1).remove(0);
        let json: serde_json::Value = serde_json::from_str(event.json()).expect("JSON");
        assert!(json["id"].as_u64().is_some_and(|id| id < 1 << 53));
        assert!(json["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{json}");
        assert_eq!((&json["type"], &json["service"]), (&"status_changed".into(), &"mlx".into()));
        assert_eq!(
            (&json["state"], &json["previous"], &json["pid"]),
            (&"ready".into(), &"starting".into(), &7.into())
        );
        let sse = event.as_sse();
        assert_eq!(sse, format!("id: {}\nevent: status_changed\ndata: {}\n\n", event.id, event.json()));
        feed.publish(None, news(&"a\nb"));
        assert_eq!(feed.after(event.id)[0].json().lines().count(), 1);
    }
}
