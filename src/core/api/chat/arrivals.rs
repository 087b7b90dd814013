//! When the parts of an answer arrived, and the speed that follows from it.

use std::time::{Duration, Instant};

/// More tokens than this with each arrival are not sent as they are generated: some server or proxy has held them back.
/// Servers that predict several tokens at once send up to 5 together.
const MAX_TOKENS_PER_ARRIVAL: u64 = 8;

/// Fewer arrivals show the chances of the network and of the scheduler, not the speed of the model.
const MIN_ARRIVALS: u64 = 16;

/// When the text and reasoning of an answer arrived.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrivals {
    /// Number of separate reads from the connection that brought some.
    count: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    /// The number of the last such read.
    last_read: Option<u64>,
}

impl Arrivals {
    /// Counts a part of the answer that read number `read` brought.
    pub fn add(&mut self, read: u64) {
        if self.last_read == Some(read) {
            return;
        }
        let now = Instant::now();
        self.count += 1;
        self.last_read = Some(read);
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the tokens per second of an answer of `tokens`, if it arrived while it was generated. The first arrival
    /// is left out: its time was that of the prompt.
    pub fn tokens_per_second(&self, tokens: u64) -> Option<f64> {
        speed(tokens, self.count, self.last?.duration_since(self.first?))
    }
}

fn speed(tokens: u64, arrivals: u64, span: Duration) -> Option<f64> {
    if arrivals < MIN_ARRIVALS || tokens == 0 || tokens > arrivals.saturating_mul(MAX_TOKENS_PER_ARRIVAL) {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "no answer has 2^52 tokens")]
    let later = tokens as f64 * (arrivals - 1) as f64 / arrivals as f64;
    Some(later / span.as_secs_f64()).filter(|speed| speed.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_needs_separate_arrivals() {
        let second = Duration::from_secs(1);
        for (tokens, arrivals, span, expected) in [
            (101, 101, second, Some(100.0)),
            (200, 100, second, Some(198.0)),
            // A burst, whatever its time.
            (200, 1, second, None),
            (15, 15, second, None),
            (16, 16, second, Some(15.0)),
            (200, 24, second, None),
            (200, 25, second, Some(192.0)),
            (1, 1, Duration::ZERO, None),
            (0, 20, second, None),
            (20, 20, Duration::ZERO, None),
            (u64::MAX, u64::MAX, Duration::ZERO, None),
        ] {
            assert_eq!(speed(tokens, arrivals, span), expected, "{tokens} {arrivals} {span:?}");
        }
    }

    #[test]
    fn parts_of_one_read_arrive_together() {
        let mut arrivals = Arrivals::default();
        for read in [1, 1, 4, 4, 5] {
            arrivals.add(read);
        }
        assert_eq!(arrivals.count, 3);
    }
}
