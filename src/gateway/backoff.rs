//! The back-off between failed starts of a service.

use std::time::{Duration, Instant};

use super::rejection::Rejection;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// A failed start, and until when requests get its error.
#[derive(Debug, Clone)]
pub(super) struct FailedStart {
    rejection: Rejection,
    until: Instant,
    pause: Duration,
}

impl FailedStart {
    /// Returns the failure that follows `earlier`, with twice its pause.
    pub(super) fn after(earlier: Option<&Self>, rejection: Rejection, now: Instant) -> Self {
        let pause = earlier.map_or(FIRST_PAUSE, |earlier| MAX_PAUSE.min(earlier.pause * 2));
        Self { rejection, until: now + pause, pause }
    }

    /// Returns the error for a request that comes now; `None` if the next start may be tried.
    pub(super) fn rejection(&self, now: Instant) -> Option<Rejection> {
        let left = self.until.checked_duration_since(now).filter(|left| !left.is_zero())?;
        let status = hyper::StatusCode::SERVICE_UNAVAILABLE;
        Some(self.rejection.clone().status(status).retry_after(left.as_secs() + 1))
    }

    /// Returns the error for requests that waited for the start.
    pub(super) fn first_answer(&self) -> Rejection {
        self.rejection.clone().retry_after(self.pause.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let now = Instant::now();
        let rejection = Rejection::new(StatusCode::BAD_GATEWAY, "it died");
        let mut failure = FailedStart::after(None, rejection.clone(), now);
        assert_eq!(failure.first_answer().retry_after, Some(1));
        let answer = failure.rejection(now).unwrap();
        assert_eq!((answer.status, answer.message.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "it died"));
        assert_eq!(failure.rejection(now + Duration::from_secs(1)), None);
        let mut pauses = vec![];
        for _ in 0..8 {
            failure = FailedStart::after(Some(&failure), rejection.clone(), now);
            pauses.push(failure.pause.as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
