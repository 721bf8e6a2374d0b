//! Where callbacks may go.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// The longest URL, in bytes.
const MAX_URL: usize = 2_000;

/// The origins that callbacks may go to, and the networks that are allowed though they are not public.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList {
    origins: Vec<Origin>,
    networks: Vec<Network>,
}

/// Scheme, host and port, compared exactly.
#[derive(Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

/// The addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// An entry of an allow-list is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowError {
    /// It is no origin.
    #[error(
        "`{0}` is no origin for callbacks: write https://HOST or https://HOST:PORT without a path (http:// for a loopback \
         address only)"
    )]
    Origin(String),
    /// It is no network.
    #[error("`{0}` is no network: write an address and a number of bits, such as 10.0.0.0/8 or fd00::/8")]
    Network(String),
}

/// Why a URL is refused, before anything is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum UrlRefusal {
    /// It is no URL, or it is too long, or it has a user name or a password in it.
    #[error("the callback is no URL of at most {MAX_URL} bytes without a user name")]
    Malformed,
    /// Its origin is not on the list.
    #[error(
        "callbacks may not go to this scheme, host and port: they are not on this addressee's list of allowed origins"
    )]
    NotAllowed,
}

impl AllowList {
    /// Allows `https://HOST[:PORT]`, or `http://` before a loopback address.
    ///
    /// # Errors
    /// The text is something else.
    pub fn allow_origin(mut self, text: &str) -> Result<Self, AllowError> {
        let wrong = || AllowError::Origin(shown(text));
        let url = Url::parse(text).map_err(|_| wrong())?;
        let has_more =
            !url.path().trim_start_matches('/').is_empty() || url.query().is_some() || url.fragment().is_some();
        if has_more || text.ends_with('/') {
            return Err(wrong());
        }
        let origin = Origin::of(&url).ok_or_else(wrong)?;
        let is_allowed_scheme = match (origin.scheme.as_str(), literal(&url)) {
            ("https", _) => true,
            // What stays on this machine needs no encryption.
            ("http", Some(address)) => address.is_loopback(),
            _ => false,
        };
        if !is_allowed_scheme {
            return Err(wrong());
        }
        self.origins.push(origin);
        Ok(self)
    }

    /// Allows addresses of a network that are not public, such as `10.0.0.0/8`, `127.0.0.1` or `fd00::/8`. IPv4 addresses that are
    /// mapped into IPv6 are allowed by `::ffff:0:0/96` only.
    ///
    /// # Errors
    /// The text is something else.
    pub fn allow_network(mut self, text: &str) -> Result<Self, AllowError> {
        self.networks.push(Network::parse(text).ok_or_else(|| AllowError::Network(shown(text)))?);
        Ok(self)
    }

    /// Whether no origin is allowed.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// The URL that a text names.
    ///
    /// # Errors
    /// It is none, or its origin is not listed.
    pub(crate) fn check(&self, text: &str) -> Result<Url, UrlRefusal> {
        if text.len() > MAX_URL {
            return Err(UrlRefusal::Malformed);
        }
        let url = Url::parse(text).map_err(|_| UrlRefusal::Malformed)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlRefusal::Malformed);
        }
        let origin = Origin::of(&url).ok_or(UrlRefusal::Malformed)?;
        if self.origins.contains(&origin) { Ok(url) } else { Err(UrlRefusal::NotAllowed) }
    }

    /// Whether an address may be connected to: it is public, or of a network that is listed.
    pub(crate) fn permits(&self, address: IpAddr) -> bool {
        is_public(address) || self.networks.iter().any(|network| network.contains(address))
    }
}

impl Origin {
    fn of(url: &Url) -> Option<Self> {
        if !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        let host = url.host_str().filter(|host| !host.is_empty())?;
        Some(Self { scheme: url.scheme().to_owned(), host: host.to_owned(), port: url.port_or_known_default()? })
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most)?,
            None => most,
        };
        Some(Self { address, bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let same = (network.to_bits() ^ address.to_bits()).leading_zeros();
                same >= u32::from(self.bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let same = (network.to_bits() ^ address.to_bits()).leading_zeros();
                same >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

/// The address that a URL names without a name.
pub(crate) fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(IpAddr::V4(address)),
        Host::Ipv6(address) => Some(IpAddr::V6(address)),
        Host::Domain(_) => None,
    }
}

fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

/// Whether an address is reachable from everywhere: of no network that is set aside for another purpose (IANA's registries of
/// special-purpose addresses).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    const SET_ASIDE: &[(Ipv4Addr, u8)] = &[
        (Ipv4Addr::new(0, 0, 0, 0), 8),
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
        (Ipv4Addr::new(127, 0, 0, 0), 8),
        (Ipv4Addr::new(169, 254, 0, 0), 16),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 0, 0, 0), 24),
        (Ipv4Addr::new(192, 0, 2, 0), 24),
        (Ipv4Addr::new(192, 88, 99, 0), 24),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(198, 18, 0, 0), 15),
        (Ipv4Addr::new(198, 51, 100, 0), 24),
        (Ipv4Addr::new(203, 0, 113, 0), 24),
        // Multicast, and everything above it.
        (Ipv4Addr::new(224, 0, 0, 0), 3),
    ];
    let is_in = |(network, bits): &(Ipv4Addr, u8)| {
        Network { address: IpAddr::V4(*network), bits: *bits }.contains(IpAddr::V4(address))
    };
    !SET_ASIDE.iter().any(is_in)
}

/// Only 2000::/3 is given to the public; of it, addresses that embed others, and those for examples, are left out.
fn is_public_v6(address: Ipv6Addr) -> bool {
    const SET_ASIDE: &[(Ipv6Addr, u8)] = &[
        // Teredo and other assignments of the protocol.
        (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
        // 6to4: an IPv4 address in it.
        (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
        (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    ];
    let is_in = |(network, bits): &(Ipv6Addr, u8)| {
        Network { address: IpAddr::V6(*network), bits: *bits }.contains(IpAddr::V6(address))
    };
    is_in(&(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3)) && !SET_ASIDE.iter().any(is_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(origins: &[&str]) -> AllowList {
        origins.iter().fold(AllowList::default(), |list, origin| list.allow_origin(origin).unwrap())
    }

    #[test]
    fn an_origin_is_https_with_a_host_and_nothing_else_or_http_to_loopback() {
        for origin in
            ["https://a.example", "https://a.example:8443", "https://10.0.0.1", "http://127.0.0.1:80", "http://[::1]"]
        {
            assert!(AllowList::default().allow_origin(origin).is_ok(), "{origin}");
        }
        for origin in [
            "",
            "a.example",
            "http://a.example",
            "http://10.0.0.1",
            "https://a.example/",
            "https://a.example/hook",
            "https://a.example?x",
            "https://me@a.example",
            "ftp://a.example",
            "file:///etc",
        ] {
            assert!(AllowList::default().allow_origin(origin).is_err(), "{origin}");
        }
    }

    #[test]
    fn a_url_is_allowed_by_its_exact_scheme_host_and_port() {
        let list = list(&["https://a.example", "https://b.example:8443", "http://127.0.0.1:80"]);
        for url in
            ["https://a.example/hook?x=1", "https://A.Example:443/", "https://b.example:8443/x", "http://2130706433/"]
        {
            assert!(list.check(url).is_ok(), "{url}");
        }
        for url in [
            "http://a.example/",
            "https://a.example:8443/",
            "https://b.example/",
            "https://x.a.example/",
            "https://a.example.evil.example/",
            "https://a.example@evil.example/",
            "https://evil.example/#https://a.example",
            "https://a.example./",
            "http://127.0.0.2/",
            "http://localhost/",
            "javascript:alert(1)",
            "",
        ] {
            assert!(list.check(url).is_err(), "{url}");
        }
        assert_eq!(list.check("https://me:secret@a.example/"), Err(UrlRefusal::Malformed));
        assert_eq!(list.check(&format!("https://a.example/{}", "x".repeat(MAX_URL))), Err(UrlRefusal::Malformed));
        assert_eq!(AllowList::default().check("https://a.example/"), Err(UrlRefusal::NotAllowed));
    }

    #[test]
    fn an_address_that_is_not_public_is_permitted_only_where_its_network_is_listed() {
        let none = AllowList::default();
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!none.permits(address.parse().unwrap()), "{address}");
        }
        for address in ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2a00::1"] {
            assert!(none.permits(address.parse().unwrap()), "{address}");
        }
        let some = none.allow_network("10.0.0.0/8").unwrap().allow_network("fd00::/8").unwrap();
        let some = some.allow_network("127.0.0.1").unwrap();
        for (address, permitted) in [
            ("10.255.0.1", true),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("192.168.0.1", false),
            ("fd12::1", true),
            ("fc00::1", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(some.permits(address.parse().unwrap()), permitted, "{address}");
        }
    }

    #[test]
    fn a_network_that_is_none_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "a.example", "10.0.0.0/-1", "10.0.0.0/"] {
            assert!(AllowList::default().allow_network(text).is_err(), "{text}");
        }
    }
}
