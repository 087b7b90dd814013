//! A driver without processes: a test plans what they do, and reads what was done to them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::driver::{
    Child, Ending, Instance, Listener, ProcessDriver, ProcessError, ProcessSpec, StopSignal, Usage,
};
use super::host::Host;
use super::id::ProcessId;
use crate::core::address::Address;
use crate::core::pid::Pid;

/// The PID of the first process; the next one has the next PID.
const FIRST_PID: i64 = 1000;

/// The driver. Clones are the same driver.
#[derive(Debug, Clone, Default)]
pub struct MockDriver {
    world: Arc<Mutex<MockSystem>>,
}

/// What a process does.
#[derive(Debug, Clone, Default)]
pub struct MockPlan {
    listens: Vec<Address>,
    dies_after: Option<(u32, Ending)>,
    ignores_terminate: bool,
    own_session: bool,
    forbidden: bool,
    usage: Usage,
    program: Option<String>,
}

#[derive(Debug)]
struct MockSystem {
    processes: Vec<Mock>,
    spawns: VecDeque<Result<MockPlan, ProcessError>>,
    spawned: Vec<ProcessSpec>,
    signals: Vec<(Pid, StopSignal)>,
    host: Host,
    hosts: u32,
}

impl Default for MockSystem {
    fn default() -> Self {
        Self {
            processes: Vec::new(),
            spawns: VecDeque::new(),
            spawned: Vec::new(),
            signals: Vec::new(),
            host: Host {
                boot_id: "boot 0".to_owned(),
                pid_namespace: Some(0),
                machine_id: Some("machine 0".to_owned()),
                name: "machine".to_owned(),
            },
            hosts: 0,
        }
    }
}

#[derive(Debug)]
struct Mock {
    id: ProcessId,
    /// The instance of the spawned process and its descendants.
    instance: Option<String>,
    /// The leader of the process group.
    group: Pid,
    plan: MockPlan,
    ending: Option<Ending>,
}

impl MockPlan {
    /// Returns a plan of a process that runs until a signal ends it, and listens nowhere.
    pub fn runs() -> Self {
        Self::default()
    }

    /// Listens at an address.
    #[must_use]
    pub fn listens(mut self, address: &Address) -> Self {
        self.listens.push(address.clone());
        self
    }

    /// Is alive for the next `probes` by any method, and dead at the one after.
    #[must_use]
    pub fn dies_after(mut self, probes: u32, ending: Ending) -> Self {
        self.dies_after = Some((probes, ending));
        self
    }

    /// Survives everything but [`StopSignal::Kill`].
    #[must_use]
    pub fn ignores_terminate(mut self) -> Self {
        self.ignores_terminate = true;
        self
    }

    /// Does not receive signals to the leader's group.
    #[must_use]
    pub fn own_session(mut self) -> Self {
        self.own_session = true;
        self
    }

    /// Belongs to another user: signals are refused, and its listener is unknown.
    #[must_use]
    pub fn of_another_user(mut self) -> Self {
        self.forbidden = true;
        self
    }

    /// Uses these resources.
    #[must_use]
    pub fn uses(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// Runs a program of this name.
    #[must_use]
    pub fn program(mut self, name: &str) -> Self {
        self.program = Some(name.to_owned());
        self
    }
}

impl MockDriver {
    /// Returns a driver without processes, whose spawns make processes that run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plans the next spawn that has no plan yet.
    pub fn plan_spawn(&self, plan: MockPlan) {
        self.world().spawns.push_back(Ok(plan));
    }

    /// Plans the failure of the next spawn that has no plan yet.
    pub fn plan_failure(&self, error: ProcessError) {
        self.world().spawns.push_back(Err(error));
    }

    /// Adds a process that fusion did not start.
    pub fn unrelated(&self, plan: MockPlan) -> ProcessId {
        self.world().add(None, None, plan)
    }

    /// Adds a process of an instance, in the group of `leader` if given.
    pub fn member(&self, instance: &str, leader: Option<&ProcessId>, plan: MockPlan) -> ProcessId {
        let group = leader.filter(|_| !plan.own_session).map(|leader| leader.pid);
        self.world().add(Some(instance.to_owned()), group, plan)
    }

    /// Gives the PID of a process that ended to one that fusion did not start.
    pub fn reuse(&self, ended: &ProcessId) -> ProcessId {
        let mut world = self.world();
        let id = ProcessId { pid: ended.pid, start_time: ended.start_time + 1, host: world.host.clone() };
        world.processes.retain(|process| process.id.pid != ended.pid);
        let group = id.pid;
        world.processes.push(Mock {
            id: id.clone(),
            instance: None,
            group,
            plan: MockPlan::runs(),
            ending: None,
        });
        id
    }

    /// Ends a process, as if by itself.
    pub fn end(&self, process: &ProcessId, ending: Ending) {
        if let Some(found) = self.world().find(process) {
            found.ending = found.ending.or(Some(ending));
        }
    }

    /// Ends every process, and begins another boot.
    pub fn reboot(&self) {
        let mut world = self.world();
        world.processes.clear();
        let number = world.next_number();
        world.host.boot_id = format!("boot {number}");
    }

    /// Moves the driver into another container of this machine, where it sees none of the processes.
    pub fn enter_container(&self) {
        let mut world = self.world();
        world.processes.clear();
        let number = world.next_number();
        world.host.pid_namespace = Some(number.into());
    }

    /// Moves the driver to another machine, where it sees none of the processes.
    pub fn move_to_another_machine(&self) {
        self.reboot();
        let mut world = self.world();
        let number = world.next_number();
        world.host.machine_id = Some(format!("machine {number}"));
    }

    /// Gives the machine another name.
    pub fn rename_host(&self) {
        "renamed".clone_into(&mut self.world().host.name);
    }

    /// Returns what was spawned, in order.
    pub fn spawned(&self) -> Vec<ProcessSpec> {
        self.world().spawned.clone()
    }

    /// Returns the signals that were sent, in order.
    pub fn signals(&self) -> Vec<(Pid, StopSignal)> {
        self.world().signals.clone()
    }

    /// Returns the living processes.
    pub fn living(&self) -> Vec<ProcessId> {
        let world = self.world();
        let living = world.processes.iter().filter(|process| process.ending.is_none());
        living.map(|process| process.id.clone()).collect()
    }

    fn world(&self) -> MutexGuard<'_, MockSystem> {
        // A test that panicked has failed already.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MockSystem {
    fn next_number(&mut self) -> u32 {
        self.hosts += 1;
        self.hosts
    }

    fn add(&mut self, instance: Option<String>, group: Option<Pid>, plan: MockPlan) -> ProcessId {
        let used = self.processes.iter().map(|process| i64::from(process.id.pid)).max();
        let number = used.map_or(FIRST_PID, |pid| pid + 1);
        let pid = Pid::try_from(number).expect("tests make fewer than 2^31 processes");
        let id = ProcessId { pid, start_time: number.unsigned_abs() * 10, host: self.host.clone() };
        let group = group.unwrap_or(pid);
        self.processes.push(Mock { id: id.clone(), instance, group, plan, ending: None });
        id
    }

    fn find(&mut self, process: &ProcessId) -> Option<&mut Mock> {
        self.processes.iter_mut().find(|found| found.id == *process)
    }

    fn send(&mut self, signal: StopSignal, to: impl Fn(&Mock) -> bool) -> Result<(), ProcessError> {
        for process in self.processes.iter_mut().filter(|process| process.ending.is_none() && to(process)) {
            let pid = process.id.pid;
            if process.plan.forbidden {
                return Err(ProcessError::Signal {
                    pid,
                    source: std::io::ErrorKind::PermissionDenied.into(),
                });
            }
            self.signals.push((pid, signal));
            process.ending = match signal {
                StopSignal::Kill => Some(Ending::Signal(9)),
                StopSignal::Hold => None,
                StopSignal::Terminate if process.plan.ignores_terminate => None,
                StopSignal::Terminate => Some(Ending::Signal(15)),
                StopSignal::Interrupt => Some(Ending::Signal(2)),
            };
        }
        Ok(())
    }
}

impl Mock {
    /// Counts one probe, and returns how the process has ended.
    fn probe(&mut self) -> Option<Ending> {
        if self.ending.is_none()
            && let Some((probes, ending)) = &mut self.plan.dies_after
        {
            match probes.checked_sub(1) {
                Some(fewer) => *probes = fewer,
                None => self.ending = Some(*ending),
            }
        }
        self.ending
    }
}

struct MockChild {
    id: ProcessId,
    driver: MockDriver,
}

impl Child for MockChild {
    fn id(&self) -> &ProcessId {
        &self.id
    }

    fn try_wait(&self) -> Result<Option<Ending>, ProcessError> {
        Ok(self.driver.world().find(&self.id).and_then(Mock::probe))
    }
}

impl ProcessDriver for MockDriver {
    fn spawn(&self, spec: &ProcessSpec) -> Result<Box<dyn Child>, ProcessError> {
        let mut world = self.world();
        let plan = world.spawns.pop_front().unwrap_or_else(|| Ok(MockPlan::runs()))?;
        world.spawned.push(spec.clone());
        let id = world.add(Some(spec.instance.clone()), None, plan);
        Ok(Box::new(MockChild { id, driver: self.clone() }))
    }

    fn ending(&self, child: &ProcessId) -> Option<Ending> {
        self.world().find(child)?.ending
    }

    fn host(&self) -> Result<Host, ProcessError> {
        Ok(self.world().host.clone())
    }

    fn identify(&self, pid: Pid) -> Result<Option<ProcessId>, ProcessError> {
        let mut world = self.world();
        let found = world.processes.iter_mut().find(|process| process.id.pid == pid);
        Ok(found.and_then(|process| process.probe().is_none().then(|| process.id.clone())))
    }

    fn members(&self, instance: Instance<'_>) -> Result<Vec<ProcessId>, ProcessError> {
        let mut world = self.world();
        let members = world.processes.iter_mut().filter(|process| {
            process.instance.as_deref() == Some(instance.id) || Some(&process.id) == instance.leader
        });
        Ok(members.filter_map(|process| process.probe().is_none().then(|| process.id.clone())).collect())
    }

    fn instance_id(&self, pid: Pid) -> Option<String> {
        self.world().processes.iter().find(|process| process.id.pid == pid)?.instance.clone()
    }

    fn signal(&self, process: &ProcessId, signal: StopSignal) -> Result<(), ProcessError> {
        self.world().send(signal, |found| found.id == *process)
    }

    fn signal_group(&self, leader: &ProcessId, signal: StopSignal) -> Result<bool, ProcessError> {
        let mut world = self.world();
        if world.find(leader).is_none() {
            return Ok(false);
        }
        world.send(signal, |found| found.group == leader.pid).map(|()| true)
    }

    fn is_in_group(&self, process: &ProcessId, leader: &ProcessId) -> bool {
        self.world().find(process).is_some_and(|found| found.group == leader.pid)
    }

    fn usage(&self, process: &ProcessId) -> Option<Usage> {
        let mut world = self.world();
        let found = world.find(process)?;
        found.probe().is_none().then_some(found.plan.usage)
    }

    fn listener(&self, address: &Address, ours: Option<Instance<'_>>) -> Result<Listener, ProcessError> {
        let mut world = self.world();
        let is_ours = |process: &Mock| ours.is_some_and(|ours| process.instance.as_deref() == Some(ours.id));
        let mut listening: Vec<&mut Mock> =
            world.processes.iter_mut().filter(|process| process.plan.listens.contains(address)).collect();
        listening.retain_mut(|process| process.probe().is_none());
        // One that is not ours is reported first.
        let Some(process) = listening.into_iter().min_by_key(|process| is_ours(process)) else {
            return Ok(Listener::None);
        };
        let pid = process.id.pid;
        Ok(if is_ours(process) {
            Listener::Ours { pid }
        } else if process.plan.forbidden {
            Listener::Unknown
        } else {
            Listener::Other { pid, program: process.plan.program.clone() }
        })
    }
}
