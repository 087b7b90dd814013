//! Does the same work for several things at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How many threads begin.
const FEW: usize = 8;

/// How long the threads may finish nothing until each lane that waits gets its own.
const STALL_TIME: Duration = Duration::from_millis(3);

/// Does `work` for each item and returns the results in the order of the items. Items that are `in_turn` are done one
/// after the other, all others at once: a few threads take most of them, and when these wait for something, each has
/// its own. What the system has no thread for is done by this one.
pub fn each<I: Sync, T: Send>(
    items: &[I],
    in_turn: impl Fn(&I) -> bool,
    work: impl Fn(&I) -> T + Sync,
) -> Vec<T> {
    let in_turn: Vec<bool> = items.iter().map(in_turn).collect();
    let lanes = lanes(&in_turn);
    let next = AtomicUsize::new(0);
    let (sender, results) = mpsc::channel();
    // Takes lanes until none is left.
    let take = |sender: mpsc::Sender<(usize, T)>| {
        while let Some(lane) = lanes.get(next.fetch_add(1, Ordering::Relaxed)) {
            for index in lane {
                let Some(item) = items.get(*index) else { continue };
                // The receiver lives until all are done.
                let _ = sender.send((*index, work(item)));
            }
        }
    };
    let mut done: Vec<(usize, T)> = Vec::new();
    thread::scope(|scope| {
        let take = &take;
        let spawn = |count: usize| {
            (0..count).all(|_| {
                let sender = sender.clone();
                thread::Builder::new().spawn_scoped(scope, move || take(sender)).is_ok()
            })
        };
        // One lane needs no thread.
        if lanes.len() <= 1 || !spawn(lanes.len().min(FEW)) {
            take(sender.clone());
        }
        let untaken = || lanes.len().saturating_sub(next.load(Ordering::Relaxed));
        while untaken() > 0 {
            match results.recv_timeout(STALL_TIME) {
                Ok(result) => done.push(result),
                Err(_) if !spawn(untaken()) => take(sender.clone()),
                Err(_) => break,
            }
        }
        drop(sender);
        done.extend(results);
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Returns the indices of the items of each lane, which one thread does in their order.
fn lanes(in_turn: &[bool]) -> Vec<Vec<usize>> {
    let (turns, others): (Vec<usize>, Vec<usize>) =
        (0..in_turn.len()).partition(|index| in_turn.get(*index) == Some(&true));
    let others = others.into_iter().map(|index| vec![index]);
    [turns].into_iter().chain(others).filter(|lane| !lane.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread::{self, ThreadId};

    use super::*;

    #[test]
    fn items_in_turn_share_one_lane() {
        let none: [Vec<usize>; 0] = [];
        assert_eq!(lanes(&[]), none);
        assert_eq!(lanes(&[true, true]), [vec![0, 1]]);
        assert_eq!(lanes(&[false, false]), [vec![0], vec![1]]);
        assert_eq!(lanes(&[false, true, false, true]), [vec![1, 3], vec![0], vec![2]]);
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
        assert_eq!(each(&[], |_: &i32| false, |item| *item), Vec::<i32>::new());
    }
}
