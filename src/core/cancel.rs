//! Stopping early: a token that is handed down, asked often, and cancelled by a signal or by the last client that left.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Why work is to stop early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// A signal, by its number, asked the program to end.
    Signal(i32),
    /// Nobody waits for the result any more.
    Abandoned,
}

/// Shared by those who work and those who may want them to stop. A token is cancelled once and stays so, unless its
/// owner [renews](Self::renew) it.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// 0 while not cancelled, [`ABANDONED`], or the number of a signal.
    reason: AtomicI32,
    /// Of a group: the tokens that must all be cancelled.
    members: Option<Mutex<Vec<CancelToken>>>,
    #[cfg(test)]
    checks: test_checks::Checks,
}

const ABANDONED: i32 = -1;

impl CancelToken {
    /// Returns a token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a token for work that several want: it is cancelled once all who want it are. `first` is the first of
    /// them; others [`join`](Self::join).
    pub fn group(first: &Self) -> Self {
        let members = Some(Mutex::new(vec![first.clone()]));
        Self(Arc::new(Shared { members, ..Shared::default() }))
    }

    /// Adds one more to a group, unless the group is cancelled already; returns whether it did.
    pub fn join(&self, member: &Self) -> bool {
        let Some(members) = &self.0.members else { return false };
        let mut members = members.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = self.0.reason().is_none() && !members.iter().all(Self::is_cancelled);
        if is_open {
            members.push(member.clone());
        }
        is_open
    }

    /// Asks the work to stop; the first reason counts. Async-signal-safe: one atomic exchange.
    pub fn cancel(&self, reason: Cancelled) {
        let number = match reason {
            Cancelled::Signal(number) => number,
            Cancelled::Abandoned => ABANDONED,
        };
        // A failed exchange means that there is an earlier reason.
        let _ = self.0.reason.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Makes the token as new. Only for the owner, when the work that was asked to stop has ended: for the next
    /// answer of a conversation.
    pub fn renew(&self) {
        self.0.reason.store(0, Ordering::Relaxed);
    }

    /// Returns why the work is to stop, once it is.
    pub fn reason(&self) -> Option<Cancelled> {
        let (mut tokens, mut first) = (vec![self.clone()], None);
        while let Some(token) = tokens.pop() {
            #[cfg(test)]
            token.0.checks.count(&token);
            match (token.0.reason(), &token.0.members) {
                (Some(reason), _) => first = first.or(Some(reason)),
                (None, None) => return None,
                // A group is cancelled with its members.
                (None, Some(members)) => {
                    let members = members.lock().unwrap_or_else(PoisonError::into_inner);
                    tokens.extend(members.iter().rev().cloned());
                }
            }
        }
        let reason = first?;
        // Once all have left, one who comes later needs another group.
        self.cancel(reason);
        Some(reason)
    }

    /// Returns whether the work is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// Fails once the work is to stop.
    pub fn check(&self) -> Result<(), Cancelled> {
        self.reason().map_or(Ok(()), Err)
    }
}

impl Shared {
    fn reason(&self) -> Option<Cancelled> {
        match self.reason.load(Ordering::Relaxed) {
            0 => None,
            ABANDONED => Some(Cancelled::Abandoned),
            number => Some(Cancelled::Signal(number)),
        }
    }
}

/// A token that is cancelled at its nth check, so a test can interrupt at every moment.
#[cfg(test)]
mod test_checks {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{CancelToken, Cancelled, Shared};

    /// How many checks are left, plus one; 0 where they are not counted.
    #[derive(Debug, Default)]
    pub(super) struct Checks(AtomicUsize);

    impl Checks {
        pub(super) fn count(&self, token: &CancelToken) {
            let left = self.0.load(Ordering::Relaxed);
            if left == 1 {
                token.cancel(Cancelled::Signal(2));
            } else if left > 1 {
                self.0.store(left - 1, Ordering::Relaxed);
            }
        }
    }

    impl CancelToken {
        /// Returns a token that SIGINT cancels after `checks` checks.
        pub(crate) fn after_checks(checks: usize) -> Self {
            let checks = Checks(AtomicUsize::new(checks + 1));
            Self(std::sync::Arc::new(Shared { checks, ..Shared::default() }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts() {
        let token = CancelToken::new();
        assert_eq!(token.check(), Ok(()));
        token.clone().cancel(Cancelled::Signal(15));
        token.cancel(Cancelled::Abandoned);
        assert_eq!(token.check(), Err(Cancelled::Signal(15)));
        assert!(token.is_cancelled());
    }

    #[test]
    fn a_renewed_token_can_be_cancelled_again() {
        let token = CancelToken::new();
        token.cancel(Cancelled::Signal(2));
        token.renew();
        assert_eq!(token.check(), Ok(()));
        token.cancel(Cancelled::Signal(15));
        assert_eq!(token.check(), Err(Cancelled::Signal(15)));
    }

    #[test]
    fn a_group_is_cancelled_with_its_last_member() {
        let (one, other, late) = (CancelToken::new(), CancelToken::new(), CancelToken::new());
        let group = CancelToken::group(&one);
        assert!(group.join(&other));
        one.cancel(Cancelled::Abandoned);
        assert!(!group.is_cancelled());
        other.cancel(Cancelled::Signal(2));
        assert!(group.is_cancelled());
        assert!(!group.join(&late));
        assert!(group.is_cancelled() && !late.is_cancelled());
    }

    #[test]
    fn counted_checks_cancel_at_the_chosen_one() {
        let token = CancelToken::after_checks(2);
        let seen = [0; 4].map(|_| token.is_cancelled());
        assert_eq!(seen, [false, false, true, true]);
    }
}
