//! The shell of every page that a command writes: one file that loads nothing, runs no script, and can be read in light and dark, on a
//! phone and on paper.

mod html;
mod table;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

pub(crate) use self::html::Html;
pub(crate) use self::table::Table;

/// The only style sheet; charts take their colours from its variables.
pub(crate) const STYLE: &str = include_str!("style.css");

/// A whole page around its content.
///
/// Its content security policy lets a browser apply this style sheet, recognised by its hash, and nothing else: no script, no
/// request, no form, whatever the content holds.
pub(crate) fn page(title: &str, content: Html) -> String {
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'");
    let mut html = Html::new();
    html.fixed("<!doctype html>\n<html lang=\"en\"><head>\n<meta charset=\"utf-8\">\n");
    html.open("meta", &[("http-equiv", &"Content-Security-Policy"), ("content", &policy)]).fixed("\n");
    html.fixed("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.fixed("<meta name=\"color-scheme\" content=\"light dark\">\n");
    html.leaf("title", &[], title);
    html.fixed("<style>").fixed(STYLE).fixed("</style>\n</head><body><main>\n");
    html.add(content).fixed("</main></body></html>\n");
    html.into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_hash_of_exactly_what_the_style_element_holds() {
        let html = page("<title>", Html::new());
        let style = html.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
        let hash = STANDARD.encode(Sha256::digest(style.as_bytes()));
        assert!(html.contains(&format!("style-src &#39;sha256-{hash}&#39;;")), "{html}");
        assert!(html.contains("<title>&lt;title&gt;</title>"), "{html}");
    }

    #[test]
    fn a_page_names_nothing_to_load() {
        let html = page("t", Html::new());
        for loading in ["http:", "https:", "src=", "url(", "@import", "<script", "<link", "style="] {
            assert!(!html.contains(loading), "{loading}: {html}");
        }
        // A carriage return would be read as a line feed, and the hash would not match.
        assert!(!STYLE.contains('\r') && STYLE.is_ascii());
    }
}
