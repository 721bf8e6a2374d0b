//! The paths of the console.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Page(Page),
    /// What a page shows, again at every look.
    Events(Page),
    Json,
    Login,
    Health,
    Style,
    Script,
    Icon,
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    Flow,
    Sink(String),
    Audits,
    /// The report in this file.
    Audit(String),
    Comparisons,
    /// The result in this file.
    Comparison(String),
}

impl Route {
    /// `None` for a path that leads to nothing.
    pub(super) fn parse(path: &str) -> Option<Self> {
        Some(match path {
            "/json" => Self::Json,
            "/login" => Self::Login,
            "/healthz" => Self::Health,
            "/style.css" => Self::Style,
            "/console.js" => Self::Script,
            "/icon.svg" => Self::Icon,
            _ => match path.strip_prefix("/events") {
                Some(of) => Self::Events(Page::parse(of).filter(Page::is_live)?),
                None => Self::Page(Page::parse(path)?),
            },
        })
    }
}

impl Page {
    pub(super) fn parse(path: &str) -> Option<Self> {
        match path {
            "/" => return Some(Self::Flow),
            "/audits" => return Some(Self::Audits),
            "/comparisons" => return Some(Self::Comparisons),
            _ => {}
        }
        let (kind, name) = path.strip_prefix('/')?.split_once('/')?;
        if name.is_empty() || name.contains('/') {
            return None;
        }
        let name = percent_decode_str(name).decode_utf8().ok()?.into_owned();
        match kind {
            "sink" => Some(Self::Sink(name)),
            "audits" => Some(Self::Audit(name)),
            "comparisons" => Some(Self::Comparison(name)),
            _ => None,
        }
    }

    pub(super) fn path(&self) -> String {
        let named = |kind: &str, name: &str| format!("/{kind}/{}", utf8_percent_encode(name, NON_ALPHANUMERIC));
        match self {
            Self::Flow => "/".to_owned(),
            Self::Sink(name) => named("sink", name),
            Self::Audits => "/audits".to_owned(),
            Self::Audit(name) => named("audits", name),
            Self::Comparisons => "/comparisons".to_owned(),
            Self::Comparison(name) => named("comparisons", name),
        }
    }

    /// Whether it shows figures of the bus, which change by themselves.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Flow | Self::Sink(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_found_by_its_own_path_whatever_its_name() {
        let hostile = "a/../b?c#d <script>%2f ä\u{1b}\"";
        for page in [
            Page::Flow,
            Page::Sink("influx".to_owned()),
            Page::Sink(hostile.to_owned()),
            Page::Audits,
            Page::Audit(hostile.to_owned()),
            Page::Comparisons,
            Page::Comparison("x.json".to_owned()),
        ] {
            let path = page.path();
            assert!(path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/%".contains(&byte)), "{path}");
            assert_eq!(Route::parse(&path), Some(Route::Page(page.clone())), "{path}");
            let events = Route::parse(&format!("/events{path}"));
            assert_eq!(events, page.is_live().then_some(Route::Events(page)), "{path}");
        }
    }

    #[test]
    fn other_paths_lead_to_nothing() {
        for path in ["", "//", "/sink", "/sink/", "/sink/a/b", "/sink/%ff", "/audits/../x", "/events", "/json/", "*"] {
            assert_eq!(Route::parse(path), None, "{path}");
        }
    }
}
