//! The command of a template that asks a server to stop, run before the signals.

use std::time::{Duration, Instant};

use super::error::ServiceError;
use super::manager::ServiceManager;
use super::record::{InstanceId, Record};
use super::service::ManagedService;
use crate::core::command_line;
use crate::core::events::{EventKind, chain};
use crate::core::process::{Child, Ending, Pid, ProcessSpec, StopSignal};
use crate::core::programs::{self, ProgramError};
use crate::core::templates::Template;

/// How often the command is asked for its end.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

impl ServiceManager<'_> {
    /// Runs the `stop_command` of the service's template, if it has one, and waits for it. Its failure is an event: the
    /// signals come in any case.
    pub(super) fn run_stop_command(
        &self,
        service: &ManagedService,
        record: &Record,
        pid: Pid,
        timeout: Duration,
    ) -> Result<(), ServiceError> {
        let Template::Program(template) = &service.template else { return Ok(()) };
        let line = template.settings.stop_command.as_str();
        if line.is_empty() {
            return Ok(());
        }
        let ended = self
            .stop_process(service, record, line, pid)
            .and_then(|spec| Ok(self.driver.spawn(&spec)?))
            .and_then(|child| self.await_stop_command(&*child, timeout));
        let why = match ended {
            Ok(None) => return Ok(()),
            Ok(Some(why)) => why,
            Err(ServiceError::Cancelled(reason)) => return Err(ServiceError::Cancelled(reason)),
            Err(error) => chain(&error),
        };
        self.emit(service, EventKind::StopCommandFailed { command: line.to_owned(), why });
        Ok(())
    }

    /// Returns why the command failed, in words; `None` if it succeeded.
    fn await_stop_command(
        &self,
        child: &dyn Child,
        timeout: Duration,
    ) -> Result<Option<String>, ServiceError> {
        let begin = Instant::now();
        loop {
            match child.try_wait()? {
                Some(Ending::Code(0)) => return Ok(None),
                Some(Ending::Code(code)) => return Ok(Some(format!("it exited with status {code}"))),
                Some(Ending::Signal(signal)) => return Ok(Some(format!("signal {signal} ended it"))),
                None => {}
            }
            let is_cancelled = self.cancel.check();
            if begin.elapsed() >= timeout || is_cancelled.is_err() {
                self.driver.signal_group(child.id(), StopSignal::Kill)?;
                is_cancelled?;
                return Ok(Some(format!("it did not end within {} s", timeout.as_secs_f64())));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn stop_process(
        &self,
        service: &ManagedService,
        record: &Record,
        line: &str,
        pid: Pid,
    ) -> Result<ProcessSpec, ServiceError> {
        let scope = self
            .scope(service, Some(&record.address), record.project_root.as_deref())?
            .of_process(pid, record.working_dir.as_deref());
        let line = command_line::split(line).unwrap_or_default();
        let words = line.words.iter().map(|word| scope.expand(word)).collect::<Result<Vec<_>, _>>()?;
        let mut env = self.variables(&scope, service, &record.address, None)?;
        for (name, value) in line.env {
            env.push((name.into(), scope.expand(&value)?.into()));
        }
        let (program, args) =
            words.split_first().map_or(("", &[][..]), |(first, args)| (first.as_str(), args));
        let search = self.environment.path.as_deref();
        let found = programs::of_template(program, scope.working_dir(), search);
        let program = found.ok_or_else(|| ProgramError::OfTemplate {
            service: service.name.to_string(),
            program: program.to_owned(),
            template: service.template.name().to_owned(),
        })?;
        Ok(ProcessSpec {
            program,
            args: args.iter().map(Into::into).collect(),
            without: self.withheld(),
            home: self.environment.home.clone(),
            env,
            directory: scope.working_dir().unwrap_or(&service.files.directory).to_owned(),
            log: Some(service.files.log.clone()),
            // Not that of the service: it is no part of what is stopped.
            instance: InstanceId::random(&"0".repeat(16))?.as_str().to_owned(),
        })
    }
}
