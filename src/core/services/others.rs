//! The other services of fusion, as their records show them: what runs at which address.

use std::sync::Arc;

use super::manager::ServiceManager;
use super::record::Record;
use super::service::ManagedService;
use super::{lock, service::OtherService};
use crate::core::address::Address;
use crate::core::files;

impl ServiceManager<'_> {
    /// Returns the other service that fusion runs at an address, whether or not it is ready.
    pub(super) fn other_service_at(
        &self,
        service: &ManagedService,
        address: &Address,
    ) -> Option<OtherService> {
        self.other_records(service).find_map(|(name, record)| {
            let is_there = record.address.conflicts_with(address);
            let process = if is_there { self.living_process(&record).ok()?? } else { return None };
            Some(OtherService { name, pid: process.pid })
        })
    }

    /// Returns the addresses at which other services run, or are being started.
    pub(super) fn addresses_of_others(&self, service: &ManagedService) -> Vec<Address> {
        let is_in_use = |name: &str, record: &Record| match &record.process {
            Some(_) => self.living_process(record).is_ok_and(|process| process.is_some()),
            None => lock::is_held(&self.paths.service(name)).unwrap_or(true),
        };
        self.other_records(service)
            .filter(|(name, record)| is_in_use(name, record))
            .map(|(_, record)| record.address)
            .collect()
    }

    fn other_records(&self, service: &ManagedService) -> impl Iterator<Item = (Arc<str>, Record)> {
        let mut names = files::names(self.paths.directory());
        names.retain(|name| **name != *service.name);
        names.into_iter().filter_map(|name| {
            let record = Record::read(&self.paths.service(&name).state).ok()??;
            Some((Arc::from(name), record))
        })
    }
}
