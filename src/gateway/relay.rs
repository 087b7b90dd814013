//! Passes events of the core on to the listeners of the gateway.

use std::sync::Arc;

use super::feed::{Feed, News};
use crate::core::events::{Event, EventKind, Subscriber};

/// Publishes what the configuration's reload emits.
pub(super) struct Relay(pub(super) Arc<Feed>);

impl Subscriber for Relay {
    fn event(&self, event: &Event) {
        if let EventKind::ConfigChanged { ok, message } = &event.kind {
            let message = message.clone().unwrap_or_default();
            self.0.publish(None, News::ConfigChanged { ok: *ok, message });
        }
    }
}
