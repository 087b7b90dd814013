//! Keeps the machine awake while a service answers, where its configuration says so.

use super::app::App;
use crate::core::awake::{AwakeError, SleepInhibitor};
use crate::core::config::KeepAwake;
use crate::core::events::EventKind;
use crate::core::services::ManagedService;

impl App {
    /// Keeps the machine awake for requests to the service while the result lives. That it cannot is an event and no
    /// error: the answer matters more.
    pub fn keep_awake(&self, service: &ManagedService) -> Option<SleepInhibitor> {
        match service.server().keep_awake {
            KeepAwake::Never => None,
            KeepAwake::Requests => match SleepInhibitor::begin(self.environment.path.as_deref()) {
                Ok(inhibitor) => Some(inhibitor),
                Err(error) => {
                    self.may_sleep(service, &error);
                    None
                }
            },
        }
    }

    /// Lets the machine sleep again.
    pub(super) fn let_sleep(&self, service: &ManagedService, inhibitor: Option<SleepInhibitor>) {
        if let Some(Err(error)) = inhibitor.map(SleepInhibitor::end) {
            self.may_sleep(service, &error);
        }
    }

    fn may_sleep(&self, service: &ManagedService, error: &AwakeError) {
        self.events.emit(&service.name, EventKind::NotKeptAwake { error: error.to_string() });
    }
}
