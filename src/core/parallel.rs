//! Threads: the same work for several things at once, and a value that another thread makes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How many threads begin. More would keep each other from the processor, unless what they do is to wait.
const FEW: usize = 4;

/// How long a thread may need for a lane. When they need longer, there are twice as many, and so on.
const LANE_TIME: Duration = Duration::from_millis(1);

/// A value that another thread makes. The thread goes on if this is dropped.
pub struct PendingValue<T>(Arc<(Mutex<Option<T>>, Condvar)>);

impl<T: Send + 'static> PendingValue<T> {
    /// Begins `work` on a thread of its own. Where the system has no thread for it, the value never comes.
    pub fn begin(work: impl FnOnce() -> T + Send + 'static) -> Self {
        let made = Arc::new((Mutex::new(None), Condvar::new()));
        let pending = Self(Arc::clone(&made));
        let thread: Box<dyn FnOnce() + Send> = Box::new(move || {
            let value = work();
            *lock(&made.0) = Some(value);
            made.1.notify_all();
        });
        // Fails where the system has no thread.
        let _ = thread::Builder::new().spawn(thread);
        pending
    }

    /// Returns the value if it is there within `timeout`.
    pub fn wait(&self, timeout: Duration) -> Option<T> {
        let (value, made) = &*self.0;
        let waited = made.wait_timeout_while(lock(value), timeout, |value| value.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.take()
    }
}

/// Does both at once, and returns what each returned. Where the system has no thread, the first is done first.
pub fn both<A: Send, B>(first: impl Fn() -> A + Sync, second: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let Ok(thread) = thread::Builder::new().spawn_scoped(scope, &first) else {
            return (first(), second());
        };
        let other = second();
        (thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), other)
    })
}

/// Does `work` for each item and returns the results in the order of the items. Items that are `in_turn` are done one
/// after the other, all others at once: a few threads take most of them, and when these wait for something, there
/// is soon one for each item. What the system has no thread for is done by this one.
pub fn each<I: Sync, T: Send>(
    items: &[I],
    in_turn: impl Fn(&I) -> bool,
    work: impl Fn(&I) -> T + Sync,
) -> Vec<T> {
    let in_turn: Vec<bool> = items.iter().map(in_turn).collect();
    let results = Mutex::new(Vec::new());
    lock(&results).resize_with(items.len(), || None);
    do_each(&in_turn, &|index| {
        let result = work(&items[index]);
        lock(&results)[index] = Some(result);
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
}

/// Calls `work` with each index, on a few threads, and on more where these wait. The first index that is `in_turn`
/// stands for all of them.
fn do_each(in_turn: &[bool], work: &(dyn Fn(usize) + Sync)) {
    let first = in_turn.iter().position(|in_turn| *in_turn);
    let next = AtomicUsize::new(0);
    let (finished, progress) = (Mutex::new(0), Condvar::new());
    // Goes on until all are taken. Only that is told: most of the work costs less than to wake the thread that waits.
    let take = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            match in_turn.get(index) {
                Some(false) => work(index),
                Some(true) if first == Some(index) => {
                    (index..in_turn.len()).filter(|index| in_turn.get(*index) == Some(&true)).for_each(work);
                }
                Some(true) => {}
                None => break,
            }
            *lock(&finished) += 1;
        }
        let _told = lock(&finished);
        progress.notify_all();
    };
    thread::scope(|scope| {
        let take = &take;
        let spawn =
            |count: usize| (0..count).all(|_| thread::Builder::new().spawn_scoped(scope, take).is_ok());
        let lanes = in_turn.iter().filter(|in_turn| !**in_turn).count() + usize::from(first.is_some());
        // One lane needs no thread.
        let mut threads = lanes.min(FEW);
        if lanes <= 1 || !spawn(threads) {
            take();
        }
        let untaken = || in_turn.len().saturating_sub(next.load(Ordering::Relaxed));
        while untaken() > 0 {
            let before = *lock(&finished);
            let waited = progress.wait_timeout_while(lock(&finished), LANE_TIME, |_| untaken() > 0);
            let since = *waited.unwrap_or_else(PoisonError::into_inner).0 - before;
            if since < threads {
                let more = threads.min(lanes - threads);
                if !spawn(more) {
                    take();
                }
                threads += more;
            }
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread::{self, ThreadId};

    use super::*;

    #[test]
    fn value_of_another_thread_is_awaited() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let pending = PendingValue::begin(move || (ended.recv().is_err(), thread::current().id()));
        assert_eq!(pending.wait(Duration::ZERO), None);
        drop(end);
        let (is_ended, thread) = pending.wait(Duration::from_secs(60)).unwrap();
        assert!(is_ended);
        assert_ne!(thread, thread::current().id());
    }

    #[test]
    fn both_are_done_at_once() {
        let together = Barrier::new(2);
        let wait = |value: &'static str| (together.wait(), value).1;
        assert_eq!(both(|| wait("first"), || wait("second")), ("first", "second"));
    }

    #[test]
    fn items_that_wait_each_have_a_thread() {
        let items: Vec<usize> = (0..3 * FEW).collect();
        let all = Barrier::new(items.len());
        let waited = each(&items, |_| false, |item| (*item, all.wait()).0);
        assert_eq!(waited, items);
    }

    #[test]
    fn results_are_in_the_order_of_items() {
        // Every lane waits for the others, so they run at once.
        let all = Barrier::new(3);
        let threads: Vec<(i32, ThreadId)> = each(
            &[-1, 2, 3, -4],
            |item| *item < 0,
            |item| {
                if *item != -4 {
                    all.wait();
                }
                (*item, thread::current().id())
            },
        );
        assert_eq!(threads.iter().map(|(item, _)| *item).collect::<Vec<_>>(), [-1, 2, 3, -4]);
        assert_eq!(threads[0].1, threads[3].1);
        assert_ne!(threads[1].1, threads[2].1);
        assert_eq!(each(&[1, 2], |_| true, |item| *item), [1, 2]);
        assert_eq!(each(&[], |_: &i32| false, |item| *item), Vec::<i32>::new());
    }
}
