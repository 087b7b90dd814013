//! Restarts services that failed, if the configuration says so (`restart = "on-failure"`).

use std::sync::Arc;

use super::keeper;
use super::plan::{Phase, Step};
use super::state::{Gateway, Setup};
use super::task::blocking;
use crate::core::cancel::CancelToken;
use crate::core::config::RestartPolicy;
use crate::core::services::ManagedService;

/// Finds services that have failed, and starts those whose pause is over.
pub(super) async fn tend(gateway: &Arc<Gateway>) {
    let setup = gateway.setup();
    let is_kept = |service: &ManagedService| service.server().restart == RestartPolicy::OnFailure;
    if !setup.app.services().iter().any(is_kept) {
        return;
    }
    let own = Arc::clone(&setup);
    let seen = blocking(move || {
        let of = |service: &ManagedService| (Arc::clone(&service.name), has_failed(&own, service));
        own.app.services().iter().filter(|service| is_kept(service)).map(of).collect::<Vec<_>>()
    });
    for (name, has_failed) in seen.await.unwrap_or_default() {
        let is_free = gateway.seats.with(&name, |seat| {
            !matches!(seat.phase, Phase::Starting | Phase::Stopping) && !seat.is_observed
        });
        if gateway.restarts.is_due(&name, has_failed, is_free) {
            gateway.seats.distrust(&name);
            keeper::act(gateway, &setup, Step::Start(name));
        }
    }
}

/// Returns whether the service was ready, and failed. One that was stopped has no record.
fn has_failed(setup: &Setup, service: &ManagedService) -> bool {
    setup.app.manager(&CancelToken::new()).has_failed(service)
}
