//! Answers requests. Nothing here asks the bus: that is done elsewhere, once for all browsers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use tallybus_worker::http::{Answering, Handler, Reply, page, text};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::dead_letters::DeadLetters;
use super::guard::Guard;
use super::looks::{Figures, Follower, Looks, Snapshot};
use super::reports::{self, Report};
use super::routes::{Page, Route};
use super::{ICON, SCRIPT, pages, style};
use crate::commands::top::recording::line;
use crate::page::Html;

/// The most browsers that follow at a time.
pub(super) const MOST_FOLLOWERS: usize = 32;
/// How long a page waits for the first answer of the bus; the page says then that there is none yet.
const PAGE_WAIT: Duration = Duration::from_secs(3);
/// How long `/json` waits for it.
const JSON_WAIT: Duration = Duration::from_secs(10);
/// A page is sent again after this time also when nothing was looked at: while a look hangs, its figures become old.
const SEND_AFTER: Duration = Duration::from_secs(2);
/// How long a browser may take to read what was sent to it before it is cut off, so that its place is free for another one.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// The most bytes of a login form.
const MAX_FORM: usize = 8 << 10;
/// How long the answer to a wrong token takes: guesses are few then.
const WRONG_TOKEN_WAIT: Duration = Duration::from_millis(500);

const HTML: &str = "text/html; charset=utf-8";

/// Allows this server's own style sheet, script and icon, and nothing else: whatever a page holds.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// The same for the login form, which is sent to this server.
const LOGIN_POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// See the module.
pub(super) struct Console {
    pub(super) guard: Guard,
    pub(super) looks: Looks,
    pub(super) dead_letters: DeadLetters,
    /// Where reports are.
    pub(super) reports: Option<PathBuf>,
    /// A place for each browser that follows.
    pub(super) places: Arc<Semaphore>,
}

impl Handler for Console {
    fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answering {
        Box::pin(async move {
            let policy = match Route::parse(request.uri().path()) {
                Some(Route::Login) => LOGIN_POLICY,
                _ => POLICY,
            };
            match self.reply(request).await {
                Reply::Whole(mut response) => {
                    protect(response.headers_mut(), policy);
                    Reply::Whole(response)
                }
                Reply::Endless(mut response) => {
                    protect(response.headers_mut(), policy);
                    Reply::Endless(response)
                }
            }
        })
    }
}

/// What keeps a browser from being used against the console.
fn protect(headers: &mut HeaderMap, policy: &'static str) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    for (name, value) in [
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

fn html(status: StatusCode, body: String) -> Response<Bytes> {
    page(status, HTML, body)
}

fn redirect(to: &str) -> Response<Bytes> {
    let mut response = text(StatusCode::SEE_OTHER, "");
    // A path of this program's own has only characters that a header may have.
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

impl Console {
    async fn reply(self: Arc<Self>, request: Request<Incoming>) -> Reply {
        if self.guard.is_misled(request.headers()) {
            let why = "the request names another host than an IP address or localhost: a web page may have sent it\n";
            return Reply::Whole(text(StatusCode::FORBIDDEN, why));
        }
        let route = Route::parse(request.uri().path());
        let is_get = *request.method() == Method::GET || *request.method() == Method::HEAD;
        let is_login = *request.method() == Method::POST && route == Some(Route::Login);
        if !is_get && !is_login {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Reply::Whole(response);
        }
        // What holds no figures needs no token.
        match route {
            Some(Route::Health) => return Reply::Whole(text(StatusCode::OK, "ok\n")),
            Some(Route::Style) => return Reply::Whole(page(StatusCode::OK, "text/css; charset=utf-8", style())),
            Some(Route::Script) => return Reply::Whole(page(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT)),
            Some(Route::Icon) => return Reply::Whole(page(StatusCode::OK, "image/svg+xml", ICON)),
            Some(Route::Login) => return Reply::Whole(self.log_in(request, is_get).await),
            _ => {}
        }
        if !self.guard.allows(request.headers()) {
            return Reply::Whole(refuse(&request, route));
        }
        match route {
            Some(Route::Page(page)) => Reply::Whole(self.page(page).await),
            Some(Route::Events(page)) => self.events(page),
            Some(Route::Json) => Reply::Whole(self.json().await),
            _ => Reply::Whole(html(StatusCode::NOT_FOUND, pages::not_found("The console has no such page."))),
        }
    }

    async fn page(&self, of: Page) -> Response<Bytes> {
        if of.is_live() {
            let snapshot = self.looks.last(PAGE_WAIT).await;
            let figures = snapshot.figures(Instant::now(), self.looks.interval());
            let status = match (&of, &figures) {
                (Page::Sink(name), Figures::Current(seen))
                    if !seen.picture.sinks.iter().any(|sink| sink.name == *name) =>
                {
                    StatusCode::NOT_FOUND
                }
                _ => StatusCode::OK,
            };
            let title = if let Page::Sink(name) = &of { name.as_str() } else { "Flow" };
            return html(status, pages::live(&of, title, self.fragment(&of, &snapshot)));
        }
        let Some(directory) = self.reports.clone() else {
            return match of {
                Page::Audits => html(StatusCode::OK, pages::audits(None)),
                Page::Comparisons => html(StatusCode::OK, pages::comparisons(None)),
                _ => html(StatusCode::NOT_FOUND, pages::not_found("The console was started without --reports.")),
            };
        };
        // A file system may hang: the listener's thread does not wait for it.
        match tokio::task::spawn_blocking(move || report(&of, &directory)).await {
            Ok(response) => response,
            Err(error) => html(
                StatusCode::INTERNAL_SERVER_ERROR,
                pages::not_found(&format!("The page could not be made, which is a fault of tallybus: {error}")),
            ),
        }
    }

    /// What a live page shows now.
    fn fragment(&self, of: &Page, snapshot: &Snapshot) -> Html {
        let figures = snapshot.figures(Instant::now(), self.looks.interval());
        match of {
            Page::Sink(name) => pages::sink(name, snapshot, &figures, &self.dead_letters),
            _ => pages::flow(&figures),
        }
    }

    async fn json(&self) -> Response<Bytes> {
        let Some(tick) = self.looks.last(JSON_WAIT).await.tick() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the bus has not answered yet\n");
        };
        match line(&tick) {
            Ok(line) => page(StatusCode::OK, "application/json", format!("{line}\n")),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the figures cannot be written as JSON\n"),
        }
    }

    fn events(self: Arc<Self>, of: Page) -> Reply {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let why = format!("{MOST_FOLLOWERS} browser tabs follow already, and the console serves no more at a time");
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, &why);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
            return Reply::Whole(response);
        };
        // One part at a time: a browser that is slow sees fewer of them, and never old ones.
        let (sender, body) = Channel::new(1);
        tokio::spawn(self.send(of, sender, place));
        let mut response = page(StatusCode::OK, "text/event-stream", "").map(|_: Bytes| body);
        // A proxy that collects an answer before it passes it on would never pass this one on.
        response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        Reply::Endless(response)
    }

    /// Sends a page at every look, until the browser leaves.
    async fn send(self: Arc<Self>, of: Page, mut sender: Sender<Bytes>, _place: OwnedSemaphorePermit) {
        let mut follower: Follower = self.looks.follow();
        loop {
            let snapshot = follower.snapshots.borrow_and_update().clone();
            let event = event(&self.fragment(&of, &snapshot).into_string());
            match timeout(READ_WITHIN, sender.send_data(event)).await {
                Ok(Ok(())) => {}
                // It has left, or does not read.
                Ok(Err(_)) | Err(_) => return,
            }
            match timeout(SEND_AFTER, follower.snapshots.changed()).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(_)) => return,
            }
        }
    }

    async fn log_in(&self, request: Request<Incoming>, is_get: bool) -> Response<Bytes> {
        if !self.guard.has_token() {
            return redirect(&Page::Flow.path());
        }
        if is_get {
            return html(StatusCode::OK, pages::login(&page_of(request.uri().query().unwrap_or_default()), false));
        }
        if Guard::is_cross_site(request.headers()) {
            return text(StatusCode::FORBIDDEN, "the form was sent by a page of another site\n");
        }
        let headers = request.headers().clone();
        let Ok(body) = Limited::new(request.into_body(), MAX_FORM).collect().await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the form is too large, or was not sent whole\n");
        };
        let form = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        let to = page_of(&form);
        let Some(cookie) = field(&form, "token").and_then(|token| self.guard.login(&token, &headers)) else {
            tokio::time::sleep(WRONG_TOKEN_WAIT).await;
            return html(StatusCode::UNAUTHORIZED, pages::login(&to, true));
        };
        let mut response = redirect(&to.path());
        response.headers_mut().insert(SET_COOKIE, cookie);
        response
    }
}

/// To who has no token: a browser gets the form, with the page that it wanted.
fn refuse(request: &Request<Incoming>, route: Option<Route>) -> Response<Bytes> {
    if let Some(Route::Page(page)) = route
        && Guard::is_for_a_browser(request.headers())
    {
        let to = percent_encoding::utf8_percent_encode(&page.path(), percent_encoding::NON_ALPHANUMERIC).to_string();
        return redirect(&format!("/login?to={to}"));
    }
    let mut response =
        text(StatusCode::UNAUTHORIZED, "the token is missing or wrong: log in, or send it as Authorization: Bearer\n");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// A field of a form or a query.
fn field(form: &str, name: &str) -> Option<String> {
    let value = form.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1;
    percent_decode_str(&value.replace('+', " ")).decode_utf8().ok().map(|value| value.into_owned())
}

/// The page that a login leads to: one of this program's own, whatever the form says.
fn page_of(form: &str) -> Page {
    field(form, "to").and_then(|to| Page::parse(&to)).unwrap_or(Page::Flow)
}

/// An event: every line of the text is one of its data.
fn event(text: &str) -> Bytes {
    let mut event = String::with_capacity(text.len() + text.len() / 16 + 64);
    for line in text.lines() {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    Bytes::from(event)
}

/// A page of reports.
fn report(of: &Page, directory: &std::path::Path) -> Response<Bytes> {
    let unreadable = |reason: String| html(StatusCode::INTERNAL_SERVER_ERROR, pages::not_found(&reason));
    let name = match of {
        Page::Audit(name) | Page::Comparison(name) => name,
        _ => {
            return match reports::list(directory) {
                Ok(listed) if *of == Page::Audits => html(StatusCode::OK, pages::audits(Some(&listed))),
                Ok(listed) => html(StatusCode::OK, pages::comparisons(Some(&listed))),
                Err(reason) => unreadable(reason),
            };
        }
    };
    match reports::find(directory, name) {
        Ok(Some(found)) => match (&found.report, of) {
            (Report::Audit(report), Page::Audit(_)) => html(StatusCode::OK, pages::audit(&found, report)),
            (Report::Comparison(result), Page::Comparison(_)) => {
                html(StatusCode::OK, pages::comparison(&found, result))
            }
            _ => html(StatusCode::NOT_FOUND, pages::not_found("The file holds another kind of report.")),
        },
        Ok(None) => html(StatusCode::NOT_FOUND, pages::not_found("The directory has no such report.")),
        Err(reason) => unreadable(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_every_line_of_its_text_and_ends_once() {
        assert_eq!(event("<p>\n\na</p>\n"), "data: <p>\ndata: \ndata: a</p>\n\n");
    }

    #[test]
    fn fields_are_decoded_and_a_login_leads_to_a_page_of_the_console_alone() {
        let form = "to=%2Fsink%2Fa%252Fb&token=a%2Bb+c%26d";
        assert_eq!(field(form, "token").as_deref(), Some("a+b c&d"));
        assert_eq!(page_of(form), Page::Sink("a/b".to_owned()));
        for elsewhere in
            ["", "to=", "to=https%3A%2F%2Fevil.example%2F", "to=%2F%2Fevil.example%2Fx", "to=%2Fjson", "to=x"]
        {
            assert_eq!(page_of(elsewhere), Page::Flow, "{elsewhere}");
        }
    }
}
