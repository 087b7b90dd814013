//! Resolves the host of a request within its timeout: an IP address without a thread, a name on one.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::core::parallel::PendingValue;

#[derive(Debug)]
pub(super) struct HostResolver;

impl Resolver for HostResolver {
    fn resolve(
        &self,
        uri: &http::Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let authority = uri.authority().ok_or(Error::HostNotFound)?;
        let port = authority.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let host = authority.host().trim_matches(['[', ']']);
        let found = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => look_up(host.to_owned(), port, &timeout)?,
        };
        let mut addresses = self.empty();
        // Those beyond the room of ureq are not tried.
        found.into_iter().map_while(|address| addresses.try_push(address).ok()).for_each(drop);
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

fn look_up(host: String, port: u16, timeout: &NextTimeout) -> Result<Vec<SocketAddr>, Error> {
    let found = PendingValue::begin(move || (host, port).to_socket_addrs().map(Iterator::collect));
    Ok(found.wait(*timeout.after).ok_or(Error::Timeout(timeout.reason))??)
}
