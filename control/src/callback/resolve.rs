use std::io;
use std::net::{IpAddr, ToSocketAddrs};

/// Finds the addresses of a name. A seam, so that tests decide what a name resolves to.
pub trait Resolve: Send + Sync {
    /// The addresses of a host's name; may block.
    ///
    /// # Errors
    /// The name has none, or no name server answered.
    fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// Resolves as the system does.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = (host, 0).to_socket_addrs()?;
        Ok(found.map(|address| address.ip()).collect())
    }
}
