//! How long a silent server is borne, and who is told meanwhile.
//!
//! ureq gives every phase of a request one limit. A prompt needs other rules: any byte starts the count anew, a
//! user wants to see that the program is still waiting, and after an answer's end nothing worth a long wait can
//! come. So the transport is wrapped, and waits in short steps.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Error, Timeout};

use crate::core::cancel::CancelToken;

/// The observer ended the wait. Not of the kind `Interrupted`, which readers take for a reason to read again.
#[derive(Debug, thiserror::Error)]
#[error("the wait was cancelled")]
struct WaitCancelled;

/// Returns whether the observer of a [`Silence`] ended the wait.
pub(super) fn was_cancelled(error: &io::Error) -> bool {
    error.get_ref().is_some_and(
        <dyn std::error::Error + std::marker::Send + std::marker::Sync + 'static>::is::<WaitCancelled>,
    )
}

/// How soon a cancellation is noticed.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// The rules for waiting; shared with the transport, so that they can change during a request.
#[derive(Clone)]
pub struct Silence(Arc<Rules>);

struct Rules {
    limit_ms: AtomicU64,
    step: Duration,
    observer: Box<dyn Fn() -> ControlFlow<()> + Send + Sync>,
}

impl Silence {
    /// Gives up after `limit` without a byte; until then asks `observer` after every `step`, and gives up when that says
    /// so.
    pub fn new(
        limit: Duration,
        step: Duration,
        observer: impl Fn() -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Self {
        let rules = Rules { limit_ms: AtomicU64::new(0), step, observer: Box::new(observer) };
        let silence = Self(Arc::new(rules));
        silence.set_limit(limit);
        silence
    }

    /// Gives up after `limit` without a byte, or soon after `cancel` says so.
    pub fn until(limit: Duration, cancel: &CancelToken) -> Self {
        let cancel = cancel.clone();
        Self::new(limit, CANCEL_INTERVAL, move || {
            if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }

    /// The limit in force.
    pub fn limit(&self) -> Duration {
        Duration::from_millis(self.0.limit_ms.load(Ordering::Relaxed))
    }

    /// Another limit from the next wait on.
    pub(super) fn set_limit(&self, limit: Duration) {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.0.limit_ms.store(limit_ms, Ordering::Relaxed);
    }
}

impl fmt::Debug for Silence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Silence").field(&self.limit()).finish()
    }
}

impl<In: Transport> Connector<In> for Silence {
    type Out = Patient<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Patient<In>>, Error> {
        Ok(chained.map(|inner| Patient { inner, silence: self.clone() }))
    }
}

/// A transport that waits by the rules of a [`Silence`].
#[derive(Debug)]
pub struct Patient<In> {
    inner: In,
    silence: Silence,
}

impl<In: Transport> Transport for Patient<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    /// A server that stops reading a long prompt is as silent as one that stops answering.
    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        // A limit of nothing at all is none that the system knows.
        let after = self.silence.limit().max(Duration::from_millis(1)).into();
        self.inner
            .transmit_output(amount, NextTimeout { after, reason: Timeout::PerRead, ..Default::default() })
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let limit = self.silence.limit();
        // Counted in steps, not by the clock: while this program was stopped, the server was not silent.
        let mut elapsed = Duration::ZERO;
        while elapsed < limit {
            let step = self.silence.0.step.min(limit.saturating_sub(elapsed));
            match self.inner.await_input(NextTimeout {
                after: step.into(),
                reason: Timeout::PerRead,
                ..Default::default()
            }) {
                Err(Error::Timeout(_)) => {
                    elapsed += step;
                    if (self.silence.0.observer)().is_break() {
                        return Err(io::Error::other(WaitCancelled).into());
                    }
                }
                other => return other,
            }
        }
        Err(Error::Timeout(Timeout::PerRead))
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
