//! Who may look: everybody on this machine, or who has the token.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, COOKIE, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use tallybus_sdk::config::Secret;
use tallybus_sdk::text::hex;
use tallybus_worker::http::{bearer, is_equal, is_of_this_machine};

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// See the module.
#[derive(Debug)]
pub(super) struct Guard {
    /// What requests need; `None` where only this machine can ask.
    token: Option<Secret>,
    /// Random, so that a cookie is worth nothing to another process, and nobody can compute one.
    key: [u8; 32],
    /// Distinct for each port: browsers send the cookies of a host to all its ports.
    cookie: String,
}

impl Guard {
    /// `port`: where the console listens.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn new(token: Option<Secret>, port: u16) -> std::io::Result<Self> {
        let mut key = [0; 32];
        let read = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())?;
        if read < key.len() {
            return Err(std::io::Error::other("the system has too few random numbers"));
        }
        Ok(Self { token, key, cookie: format!("tallybus_console_{port}") })
    }

    /// Whether a token is needed.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether the request may have been sent by a web page that had its own name point to this machine. With a token that page
    /// reads nothing: neither it nor the cookie is known to it.
    pub(super) fn is_misled(&self, headers: &HeaderMap) -> bool {
        self.token.is_none() && !is_of_this_machine(headers)
    }

    /// Whether the request may see figures.
    pub(super) fn allows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let token = token.expose();
        let has_token = bearer(headers).is_some_and(|given| is_equal(given, token.as_bytes()));
        has_token || self.sessions(headers).any(|given| is_equal(given.as_bytes(), self.session(token).as_bytes()))
    }

    /// What the request has in the console's cookie: browsers may send several of one name.
    fn sessions<'h>(&'h self, headers: &'h HeaderMap) -> impl Iterator<Item = &'h str> {
        let cookies = headers.get_all(COOKIE).into_iter().filter_map(|cookies| cookies.to_str().ok());
        let pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.filter(|(name, _)| *name == self.cookie).map(|(_, value)| value)
    }

    /// What the cookie holds: it proves the token, as long as that is the same and this process lives, and does not contain it.
    fn session(&self, token: &str) -> String {
        hex(&Sha256::new().chain_update(self.key).chain_update(token.as_bytes()).finalize())
    }

    /// The cookie for who has sent this token with the login form; `None` where it is wrong.
    pub(super) fn login(&self, given: &str, headers: &HeaderMap) -> Option<HeaderValue> {
        let token = self.token.as_ref()?.expose();
        if !is_equal(given.as_bytes(), token.as_bytes()) {
            return None;
        }
        // Behind a proxy with TLS, a browser shall not send it without TLS.
        let is_secure =
            headers.get(FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
        let secure = if is_secure { "; Secure" } else { "" };
        let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Strict{secure}", self.cookie, self.session(token));
        HeaderValue::from_str(&cookie).ok()
    }

    /// Whether a browser says that another site's page has sent the request.
    pub(super) fn is_cross_site(headers: &HeaderMap) -> bool {
        headers.get(FETCH_SITE).is_some_and(|site| site != "same-origin" && site != "none")
    }

    /// Whether a person waits for the answer, and not a program.
    pub(super) fn is_for_a_browser(headers: &HeaderMap) -> bool {
        headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("text/html"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn guard() -> Guard {
        Guard::new(Some(Secret::new("hunter2-hunter2")), 9465).unwrap()
    }

    #[test]
    fn the_cookie_of_a_login_is_let_in_and_does_not_contain_the_token() {
        let guard = guard();
        assert!(guard.login("hunter2", &headers(&[])).is_none());
        let cookie = guard.login("hunter2-hunter2", &headers(&[])).unwrap();
        let cookie = cookie.to_str().unwrap();
        let (pair, rest) = cookie.split_once(';').unwrap();
        assert_eq!(rest, " Path=/; HttpOnly; SameSite=Strict");
        assert!(pair.starts_with("tallybus_console_9465=") && !pair.contains("hunter2"), "{pair}");
        let with = |cookies: &str| headers(&[(COOKIE, cookies)]);
        assert!(guard.allows(&with(pair)) && guard.allows(&with(&format!("a=b; {pair}; c=d"))));
        for wrong in ["", "tallybus_console_9465=", "tallybus_console_9465=hunter2-hunter2", &pair.replace("9465", "1")]
        {
            assert!(!guard.allows(&with(wrong)), "{wrong}");
        }
        // Another process, or the same after a restart.
        assert!(!self::guard().allows(&with(pair)));
    }

    #[test]
    fn behind_a_proxy_with_tls_the_cookie_is_for_tls_alone() {
        let proxied = headers(&[(FORWARDED_PROTO, "https")]);
        let cookie = guard().login("hunter2-hunter2", &proxied).unwrap();
        assert!(cookie.to_str().unwrap().ends_with("; SameSite=Strict; Secure"));
    }

    #[test]
    fn without_a_token_only_requests_to_this_machine_by_its_own_names_are_answered() {
        let open = Guard::new(None, 1).unwrap();
        let to = |host: &str| headers(&[(hyper::header::HOST, host)]);
        assert!(!open.is_misled(&to("127.0.0.1:9465")) && open.is_misled(&to("evil.example:9465")));
        assert!(!guard().is_misled(&to("console.example")));
        assert!(open.allows(&headers(&[])) && !guard().allows(&headers(&[])));
    }
}
