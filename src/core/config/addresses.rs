//! Services that are configured on one address.

use std::sync::Arc;

use super::schema::{GATEWAY, INSTANCES, TableKind};
use super::settings::{Config, ServiceSettings};
use crate::core::address::Address;

/// A service whose address the file configures, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    pub service: Arc<str>,
    /// The table that holds `host` and `port`.
    pub table: String,
    pub address: Address,
    pub auto_start: bool,
}

impl Located {
    pub(super) fn shares_address_with(&self, other: &Self) -> bool {
        self.service != other.service && self.address.conflicts_with(&other.address)
    }
}

/// Returns every service with a configured port: the built-in ones, the instances, then the gateway.
pub(super) fn located(config: &Config) -> Vec<Located> {
    let built_in = config
        .services
        .iter()
        .filter_map(|(name, settings)| located_at(name, TableKind::Server.table_of(name), settings));
    let instances = config
        .instances
        .iter()
        .filter_map(|(name, settings)| located_at(name, format!("{INSTANCES}.{name}"), settings));
    let gateway = Located {
        service: GATEWAY.into(),
        table: GATEWAY.to_owned(),
        address: config.gateway.address(),
        auto_start: false,
    };
    built_in.chain(instances).chain([gateway]).collect()
}

fn located_at(service: &Arc<str>, table: String, settings: &ServiceSettings) -> Option<Located> {
    let (address, auto_start) = (settings.server.address()?, settings.server.auto_start);
    Some(Located { service: Arc::clone(service), table, address, auto_start })
}

impl Config {
    /// Returns every pair of services on one address. Only one of each pair can run.
    pub fn shared_addresses(&self) -> Vec<(Located, Located)> {
        let all = located(self);
        let pairs = all.iter().enumerate().flat_map(|(index, later)| {
            let earlier = all[..index].iter().filter(|earlier| earlier.shares_address_with(later));
            earlier.map(|earlier| (earlier.clone(), later.clone()))
        });
        pairs.collect()
    }

    /// Returns the other services that are configured at the address of `service`.
    pub fn sharing_address_of(&self, service: &str) -> Vec<Located> {
        let all = located(self);
        let own = all.iter().find(|located| *located.service == *service).cloned();
        own.map_or_else(Vec::new, |own| {
            all.into_iter().filter(|other| other.shares_address_with(&own)).collect()
        })
    }

    /// Returns the configured addresses that a service called `service` may not choose: those of the other services.
    pub fn reserved_addresses(&self, service: &str) -> Vec<Address> {
        let others = located(self).into_iter().filter(|other| *other.service != *service);
        others.map(|other| other.address).collect()
    }
}
