//! Observes the services while there are listeners, and publishes the changes.

use std::sync::Arc;
use std::time::Duration;

use super::feed::{Feed, News};
use super::metrics;
use super::state::Gateway;
use super::task::blocking;
use crate::core::services::State;
use crate::core::sorted_map::SortedMap;

/// How often the services are observed.
const INTERVAL: Duration = Duration::from_secs(1);

/// Observes until the gateway ends. An observation starts nothing, and does not count as use of a service.
pub(super) async fn observe(gateway: Arc<Gateway>) {
    let mut known = SortedMap::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        if gateway.feed().listeners() == 0 {
            continue;
        }
        let own = Arc::clone(&gateway);
        let looked = blocking(move || {
            let setup = own.setup();
            let statuses = setup.statuses()?;
            let states = statuses.iter().map(|(service, status)| {
                let line = status.exited.as_ref().and_then(|exited| exited.last_line.clone());
                (Arc::clone(&service.name), (status.state, status.pid.map(i64::from), line))
            });
            Ok::<_, super::rejection::Rejection>((
                states.collect::<SortedMap<_, _>>(),
                metrics::rows(&own, &setup, &statuses),
            ))
        });
        // The next observation may succeed.
        let Ok(Ok((states, rows))) = looked.await else { continue };
        for (name, (state, pid, line)) in &states {
            let before = known.insert(Arc::clone(name), *state);
            if let Some(previous) = before.filter(|previous| previous != state) {
                publish_change(gateway.feed(), name, *state, previous, *pid, line.as_deref());
            }
        }
        known.retain(|name, _| states.contains_key(name));
        for row in rows {
            gateway.feed().publish(Some(&Arc::clone(&row.name)), News::MetricsUpdated(Box::new(row)));
        }
    }
}

fn publish_change(
    feed: &Feed,
    service: &Arc<str>,
    state: State,
    previous: State,
    pid: Option<i64>,
    last_line: Option<&str>,
) {
    let message = last_line.map(str::to_owned);
    feed.publish(Some(service), News::StatusChanged { state, previous, pid, message });
    let healthy = match (previous, state) {
        (State::Unhealthy, State::Ready | State::External) => true,
        (State::Ready | State::External, State::Unhealthy) => false,
        _ => return,
    };
    feed.publish(Some(service), News::HealthChanged { healthy });
}
