//! What becomes of the variables that the makers of a runtime document: handed on, refused, misspelled.

use std::ffi::OsString;

use super::manager::ServiceManager;
use super::service::ManagedService;
use crate::core::events::VariableNotice;
use crate::core::logs;
use crate::core::nearest::nearest;
use crate::core::runtimes;

impl ServiceManager<'_> {
    /// Returns what the server refused at its last start, and what the configuration sets in vain.
    pub fn variable_notices(&self, service: &ManagedService) -> Vec<VariableNotice> {
        let Some(runtime) = service.runtime() else { return Vec::new() };
        let log = logs::beginning(&service.files.log).unwrap_or_default();
        let refused = runtime.refused_variables(&log).into_iter();
        let known = runtime.variables().map(|variables| variables.known).unwrap_or_default();
        let is_unknown = |name: &&String| is_of(runtime, name.as_ref()) && !known.contains(&name.as_str());
        let unknown = service.server().env.keys().filter(is_unknown).map(|name| VariableNotice::Unknown {
            name: name.clone(),
            nearest: nearest(name, &mut known.iter().copied()).map(str::to_owned),
        });
        refused.map(|(name, value)| VariableNotice::Refused { name, value }).chain(unknown).collect()
    }

    /// Returns the variables of the caller's shell that do not count for fusion and name another server.
    pub fn shell_notices(&self, service: &ManagedService) -> Vec<VariableNotice> {
        let Some(runtime) = service.runtime().filter(|_| service.is_built_in()) else { return Vec::new() };
        let own = service.address().map(|address| address.to_string());
        let named = runtime.withheld_variables().iter().filter_map(|name| {
            let value = self.environment.variable(name)?.to_string_lossy().into_owned();
            let is_other = !value.is_empty() && own.as_ref() != Some(&value);
            is_other.then(|| VariableNotice::Shell { name: (*name).to_owned(), value })
        });
        named.collect()
    }

    /// Returns the variables of the caller that the makers of the runtime document, and that its server inherits.
    pub fn handed_on(&self, service: &ManagedService) -> Vec<(OsString, OsString)> {
        let Some(runtime) = service.runtime() else { return Vec::new() };
        let variables = self.environment.variables.iter();
        let is_inherited = |(name, _): &&(OsString, OsString)| {
            is_of(runtime, name) && !runtimes::is_withheld(self.table, name)
        };
        variables.filter(is_inherited).cloned().collect()
    }
}

fn is_of(runtime: &dyn runtimes::Runtime, name: &std::ffi::OsStr) -> bool {
    let prefix = runtime.variables().map(|variables| variables.prefix);
    prefix.is_some_and(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
}
