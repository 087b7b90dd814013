//! Waits for input that does not come: names it after a second, and gives up after a timeout.

use std::time::{Duration, Instant};

use crate::cli::error::Failure;
use crate::cli::exit::Exit;

/// How long input may be silent before stderr names it.
const NOTICE_AFTER: Duration = Duration::from_secs(1);

/// Longest wait of one attempt: the system's calls do not accept every duration.
const MAX_ATTEMPT: Duration = Duration::from_secs(3600);

/// A wait for input: names the input after a second, and fails after an idle timeout.
pub(super) struct InputWait<'a> {
    /// The name of the input in messages.
    pub name: &'a str,
    /// Idle timeout.
    pub timeout: Option<Duration>,
    /// Prints what is being waited for.
    pub notice: &'a dyn Fn(),
}

impl InputWait<'_> {
    /// Calls `attempt`, which waits up to the given time, until it returns a value. Prints the notice unless `is_named`
    /// is set, and fails after the timeout.
    pub(super) fn wait<T>(
        &self,
        is_named: &mut bool,
        mut attempt: impl FnMut(Duration) -> Option<T>,
    ) -> Result<T, Failure> {
        let begin = Instant::now();
        loop {
            let notice_after = (!*is_named).then_some(NOTICE_AFTER);
            let next = [notice_after, self.timeout].into_iter().flatten().min().unwrap_or(MAX_ATTEMPT);
            if let Some(value) = attempt(next.saturating_sub(begin.elapsed()).min(MAX_ATTEMPT)) {
                return Ok(value);
            }
            let silent = begin.elapsed();
            if !*is_named && silent >= NOTICE_AFTER {
                (self.notice)();
                *is_named = true;
            }
            if let Some(timeout) = self.timeout.filter(|timeout| silent >= *timeout) {
                let (name, seconds) = (self.name, timeout.as_secs_f64());
                return Err(Failure::new(
                    Exit::TimedOut,
                    format!("timed out: no data from {name} for {seconds} s"),
                ));
            }
        }
    }
}
