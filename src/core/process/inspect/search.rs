//! The search for the processes that hold sockets.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::facts::Inspect;
use crate::core::process::driver::ProcessError;
use crate::core::process::socket::Socket;

/// A search through all processes, for several sockets at once. It goes on where it stopped, so each process is asked
/// once, however many holders are wanted; threads that search at the same time share the work.
#[derive(Debug)]
pub(in crate::core::process) struct HolderSearch {
    progress: Mutex<Progress>,
    /// Told after each process that was asked.
    asked: Condvar,
    /// When it ends, whatever was found.
    deadline: Option<Instant>,
}

#[derive(Debug, Default)]
struct Progress {
    /// The sockets without a known holder.
    wanted: Vec<Socket>,
    /// The holders, and what each holds.
    found: Vec<(i32, Vec<Socket>)>,
    /// The processes that are not ranked yet, the oldest first; `None` until one is needed.
    unranked: Option<Vec<i32>>,
    /// What was spent on the oldest and on the newest of them, in processes that were ranked.
    spent: [usize; 2],
    /// Those of the later ranks that are still to be asked.
    later: [Vec<i32>; 2],
    /// How many processes are being asked.
    asking: usize,
}

/// To ask a process for its sockets takes as long as to rank so many.
const COST_OF_ASKING: usize = 10;

impl HolderSearch {
    /// Returns a search for the holders of these sockets, as far as this user may know them.
    pub(in crate::core::process) fn of(inspect: &dyn Inspect, sockets: impl Iterator<Item = Socket>) -> Self {
        let wanted = sockets.filter(|socket| inspect.can_find_holder(socket)).collect();
        let progress = Mutex::new(Progress { wanted, ..Progress::default() });
        Self { progress, asked: Condvar::new(), deadline: None }
    }

    /// Returns the same search, which takes no longer than `limit`.
    pub(in crate::core::process) fn within(self, limit: Duration) -> Self {
        Self { deadline: Instant::now().checked_add(limit), ..self }
    }

    /// Returns whether it has taken too long.
    pub(super) fn has_timed_out(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Returns a process that holds one of the sockets (by their `id`), and those of this search that were found with it;
    /// `None` if no process does, in time, or if the search is for other sockets.
    pub(super) fn holder(
        &self,
        inspect: &dyn Inspect,
        ids: &[u64],
    ) -> Result<Option<(i32, Vec<u64>)>, ProcessError> {
        let mut progress = self.lock();
        let is_one = |socket: &Socket| ids.contains(&socket.id);
        let mut asked = None;
        loop {
            if let Some((pid, held)) = progress.found.iter().find(|(_, held)| held.iter().any(is_one)) {
                let (pid, held): (i32, Vec<u64>) = (*pid, held.iter().map(|socket| socket.id).collect());
                // What was found a while ago may have ended or let go since.
                if asked == Some(pid) || !inspect.sockets_of(pid, &held).is_empty() {
                    return Ok(Some((pid, held)));
                }
                progress.forget(pid);
                continue;
            }
            if self.has_timed_out() || !progress.wanted.iter().any(is_one) {
                return Ok(None);
            }
            match progress.next(inspect)? {
                Some(pid) => {
                    let wanted: Vec<u64> = progress.wanted.iter().map(|socket| socket.id).collect();
                    asked = Some(pid);
                    progress.asking += 1;
                    drop(progress);
                    let held = inspect.sockets_of(pid, &wanted);
                    progress = self.lock();
                    progress.asking -= 1;
                    progress.note(pid, &held);
                    self.asked.notify_all();
                }
                None if progress.asking == 0 => return Ok(None),
                None => progress = self.asked.wait(progress).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for another holder of what the process held. The processes that were asked meanwhile are not asked again.
    pub(super) fn forget(&self, pid: i32) {
        self.lock().forget(pid);
    }
}

impl Progress {
    fn forget(&mut self, pid: i32) {
        while let Some(index) = self.found.iter().position(|(holder, _)| *holder == pid) {
            let (_, held) = self.found.swap_remove(index);
            self.wanted.extend(held);
        }
    }

    /// Returns a process of the first rank, then one of the later ranks. Looks at the oldest and at the newest with equal
    /// effort: a server runs since the user logged in, or was started just now.
    fn next(&mut self, inspect: &dyn Inspect) -> Result<Option<i32>, ProcessError> {
        let unranked = match &mut self.unranked {
            Some(unranked) => unranked,
            none => {
                let ids: Vec<u64> = self.wanted.iter().map(|socket| socket.id).collect();
                none.insert(inspect.possible_holders(&ids)?)
            }
        };
        while !unranked.is_empty() {
            let end = usize::from(self.spent[1] < self.spent[0]);
            let pid = unranked.remove(if end == 0 { 0 } else { unranked.len() - 1 });
            self.spent[end] += 1;
            match inspect.holder_rank(pid, &self.wanted) {
                0 => {
                    self.spent[end] += COST_OF_ASKING;
                    return Ok(Some(pid));
                }
                rank => self.later[rank - 1].push(pid),
            }
        }
        Ok(self.later.iter_mut().find_map(Vec::pop))
    }

    /// Notes which of the sockets (by their `id`) a process holds.
    fn note(&mut self, pid: i32, ids: &[u64]) {
        let held: Vec<Socket> = self.wanted.extract_if(.., |socket| ids.contains(&socket.id)).collect();
        if !held.is_empty() {
            self.found.push((pid, held));
        }
    }
}
