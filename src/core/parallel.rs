//! Does the same work for several things at once.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// Does `work` for each item and returns the results in the order of the items. Items that are `in_turn` share one thread,
/// every other one has its own. What the system has no thread for is done by this one.
pub fn each<I: Sync, T: Send>(
    items: &[I],
    in_turn: impl Fn(&I) -> bool,
    work: impl Fn(&I) -> T + Sync,
) -> Vec<T> {
    let in_turn: Vec<bool> = items.iter().map(in_turn).collect();
    let results: Vec<(&I, Mutex<Option<T>>)> = items.iter().map(|item| (item, Mutex::new(None))).collect();
    each_index(&lanes(&in_turn), &|index| {
        if let Some((item, result)) = results.get(index) {
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(work(item));
        }
    });
    let result = |(_, result): (_, Mutex<_>)| result.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().filter_map(result).collect()
}

fn each_index(lanes: &[Vec<usize>], work: &(dyn Fn(usize) + Sync)) {
    let work = |lane: &[usize]| lane.iter().for_each(|index| work(*index));
    thread::scope(|scope| {
        let work = &work;
        let (mut handles, mut mine) = (Vec::new(), Vec::new());
        for (number, lane) in lanes.iter().enumerate() {
            // This thread takes the first lane, which spares a thread: there is often only one more.
            match (number > 0).then(|| thread::Builder::new().spawn_scoped(scope, move || work(lane))) {
                Some(Ok(handle)) => handles.push(handle),
                Some(Err(_)) | None => mine.push(lane),
            }
        }
        for lane in mine {
            work(lane);
        }
        for handle in handles {
            if let Err(panic) = handle.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// Returns the indices that each thread takes, in their order.
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
