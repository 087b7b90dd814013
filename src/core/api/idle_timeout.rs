//! The idle timeout of a request, and the observer that is called while no data arrives.
//!
//! ureq has one fixed timeout for each phase of a request. A prompt needs other rules: each byte restarts the
//! timeout, the user sees that fusion is waiting, and the timeout shrinks after the end of an answer. This transport
//! therefore waits in short steps.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Error, Timeout};

use crate::core::cancel::CancelToken;

/// The observer ended the wait. Its kind is not `Interrupted`, because readers retry on that kind.
#[derive(Debug, thiserror::Error)]
#[error("the wait was cancelled")]
struct WaitCancelled;

/// Returns whether the observer of an [`IdleTimeout`] ended the wait.
pub(super) fn was_cancelled(error: &io::Error) -> bool {
    error.get_ref().is_some_and(
        <dyn std::error::Error + std::marker::Send + std::marker::Sync + 'static>::is::<WaitCancelled>,
    )
}

/// How often cancellation is checked.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// The timeout and its observer, shared with the transport, so they can change during a request.
#[derive(Clone)]
pub struct IdleTimeout(Arc<TimeoutState>);

struct TimeoutState {
    timeout_ms: AtomicU64,
    step: Duration,
    /// Number of reads that brought data.
    reads: AtomicU64,
    observer: Box<dyn Fn() -> ControlFlow<()> + Send + Sync>,
}

impl IdleTimeout {
    /// Returns a timeout that fails after `timeout` without a byte. Calls `observer` after every `step`, and fails
    /// when that returns false.
    pub fn new(
        timeout: Duration,
        step: Duration,
        observer: impl Fn() -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Self {
        let rules = TimeoutState {
            timeout_ms: AtomicU64::new(0),
            step,
            reads: AtomicU64::new(0),
            observer: Box::new(observer),
        };
        let idle_timeout = Self(Arc::new(rules));
        idle_timeout.set_timeout(timeout);
        idle_timeout
    }

    /// Returns a timeout that fails after `timeout` without a byte, or soon after `cancel` is cancelled.
    pub fn cancellable(timeout: Duration, cancel: &CancelToken) -> Self {
        let cancel = cancel.clone();
        Self::new(timeout, CANCEL_INTERVAL, move || {
            if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.0.timeout_ms.load(Ordering::Relaxed))
    }

    /// Returns the number of reads so far that brought data.
    pub(super) fn reads(&self) -> u64 {
        self.0.reads.load(Ordering::Relaxed)
    }

    /// Changes the timeout, from the next wait on.
    pub(super) fn set_timeout(&self, timeout: Duration) {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.0.timeout_ms.store(timeout_ms, Ordering::Relaxed);
    }
}

impl fmt::Debug for IdleTimeout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("IdleTimeout").field(&self.timeout()).finish()
    }
}

impl<In: Transport> Connector<In> for IdleTimeout {
    type Out = IdleTransport<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<IdleTransport<In>>, Error> {
        Ok(chained.map(|inner| IdleTransport { inner, idle_timeout: self.clone() }))
    }
}

/// A transport that waits as an [`IdleTimeout`] says.
#[derive(Debug)]
pub struct IdleTransport<In> {
    inner: In,
    idle_timeout: IdleTimeout,
}

impl<In: Transport> Transport for IdleTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    /// Applies the timeout to writes too: a server may stop reading a long prompt.
    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        // The system does not accept a timeout of zero.
        let after = self.idle_timeout.timeout().max(Duration::from_millis(1)).into();
        self.inner
            .transmit_output(amount, NextTimeout { after, reason: Timeout::PerRead, ..Default::default() })
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let timeout = self.idle_timeout.timeout();
        // Counts steps rather than time: while fusion was suspended, the server was not idle.
        let mut elapsed = Duration::ZERO;
        while elapsed < timeout {
            let step = self.idle_timeout.0.step.min(timeout.saturating_sub(elapsed));
            match self.inner.await_input(NextTimeout {
                after: step.into(),
                reason: Timeout::PerRead,
                ..Default::default()
            }) {
                Err(Error::Timeout(_)) => {
                    elapsed += step;
                    if (self.idle_timeout.0.observer)().is_break() {
                        return Err(io::Error::other(WaitCancelled).into());
                    }
                }
                Ok(has_arrived) => {
                    self.idle_timeout.0.reads.fetch_add(1, Ordering::Relaxed);
                    return Ok(has_arrived);
                }
                failed => return failed,
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
