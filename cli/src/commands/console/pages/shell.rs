//! What is around every page.

use super::super::looks::Figures;
use super::super::routes::Page;
use super::{moment, time};
use crate::page::Html;

/// A page whose figures change: what it shows now, and what its script asks for from then on.
pub(in super::super) fn live(page: &Page, title: &str, fragment: Html) -> String {
    let mut html = head(page, title, true);
    html.leaf("p", &[("id", &"link"), ("class", &"notice bad"), ("role", &"status"), ("hidden", &"")], "");
    html.open("main", &[("id", &"main"), ("tabindex", &"-1"), ("data-events", &format!("/events{}", page.path()))]);
    html.add(fragment).close("main").fixed("</body></html>\n");
    html.into_string()
}

/// A page that stays as it is.
pub(in super::super) fn whole(page: &Page, title: &str, content: Html) -> String {
    let mut html = head(page, title, false);
    html.open("main", &[("id", &"main"), ("tabindex", &"-1")]).add(content).close("main").fixed("</body></html>\n");
    html.into_string()
}

fn head(page: &Page, title: &str, is_live: bool) -> Html {
    let mut html = start(title);
    if is_live {
        html.fixed("<script src=\"/console.js\" defer></script>\n");
        html.fixed("<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n");
    }
    html.fixed(
        "</head><body>\n<a class=\"skip\" href=\"#main\">Skip to the page</a>\n<header><nav aria-label=\"Pages\"><ul>",
    );
    for (name, of) in [("Flow", Page::Flow), ("Audits", Page::Audits), ("Comparisons", Page::Comparisons)] {
        html.open("li", &[]);
        let current = match (page, &of) {
            _ if *page == of => Some("page"),
            (Page::Sink(_), Page::Flow) | (Page::Audit(_), Page::Audits) | (Page::Comparison(_), Page::Comparisons) => {
                Some("true")
            }
            _ => None,
        };
        match current {
            Some(current) => html.leaf("a", &[("href", &of.path()), ("aria-current", &current)], name),
            None => html.leaf("a", &[("href", &of.path())], name),
        };
        html.close("li");
    }
    html.fixed("</ul></nav>");
    if is_live {
        html.fixed("<button type=\"button\" id=\"pause\" aria-pressed=\"false\" hidden>Pause</button>");
    }
    html.fixed("</header>\n");
    html
}

fn start(title: &str) -> Html {
    let mut html = Html::new();
    html.fixed("<!doctype html>\n<html lang=\"en\"><head>\n<meta charset=\"utf-8\">\n");
    html.fixed("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.fixed("<meta name=\"color-scheme\" content=\"light dark\">\n");
    html.leaf("title", &[], &format!("{title} · Tallybus"));
    html.fixed("<link rel=\"icon\" href=\"/icon.svg\" type=\"image/svg+xml\">\n");
    html.fixed("<link rel=\"stylesheet\" href=\"/style.css\">\n");
    html
}

/// The form that asks for the token. `to`: where to go then.
pub(in super::super) fn login(to: &Page, was_wrong: bool) -> String {
    let mut html = start("Log in");
    html.fixed("</head><body>\n<main id=\"main\"><h1>Tallybus console</h1>\n");
    if was_wrong {
        html.leaf("p", &[("class", &"notice bad"), ("role", &"alert")], "This is not the token. Nothing was shown.");
    }
    html.fixed("<form method=\"post\" action=\"/login\" class=\"login\">\n<label for=\"token\">Token</label>\n");
    html.fixed(
        "<input type=\"password\" id=\"token\" name=\"token\" autocomplete=\"current-password\" required autofocus>\n",
    );
    html.open("input", &[("type", &"hidden"), ("name", &"to"), ("value", &to.path())]);
    html.fixed("\n<button>Log in</button>\n</form>\n");
    html.leaf("p", &[("class", &"soft")], "The token that the console was started with, as --token names it.");
    html.fixed("</main></body></html>\n");
    html.into_string()
}

/// A page for a path that leads to nothing.
pub(in super::super) fn not_found(what: &str) -> String {
    let mut html = Html::new();
    html.leaf("h1", &[], "Not found").leaf("p", &[], what);
    html.open("p", &[]).leaf("a", &[("href", &"/")], "Back to the flow").close("p");
    whole(&Page::Audit(String::new()), "Not found", html)
}

/// A part of a page that is replaced at every look. `title`: that of the page now. Old figures are marked as such.
pub(super) fn view(title: &str, heading: &str, figures: &Figures<'_>, content: Html) -> Html {
    let mut html = Html::new();
    let class = match figures {
        Figures::Current(_) => "current",
        Figures::Awaited | Figures::Unanswered { .. } | Figures::Old { .. } => "old",
    };
    // Which look the figures are of.
    let time_ms = figures.seen().map_or(String::new(), |seen| seen.picture.time_ms.to_string());
    let title = format!("{title} · Tallybus");
    html.open("div", &[("id", &"view"), ("class", &class), ("data-time", &time_ms), ("data-title", &title)]);
    html.leaf("h1", &[], heading);
    alert(&mut html, figures);
    if let Some(seen) = figures.seen() {
        html.open("p", &[("class", &"soft")]).text(&seen.picture.bus).text(", at ");
        time(&mut html, seen.picture.time_ms);
        html.close("p");
    }
    html.open("div", &[("class", &"figures")]).add(content).close("div").close("div");
    html
}

/// What keeps the figures from being current. Its text stays the same while that lasts, so that a screen reader says it once.
fn alert(html: &mut Html, figures: &Figures<'_>) {
    let text = match figures {
        Figures::Current(_) => String::new(),
        Figures::Awaited => "The bus was asked and has not answered yet.".to_owned(),
        Figures::Unanswered { since_ms, error } => {
            format!("The bus has not answered since {}: {error}. The console goes on asking.", moment(*since_ms))
        }
        Figures::Old { seen, since_ms, error } => format!(
            "The bus has not answered since {}: {error}. The figures below are old, from {}. The console goes on asking.",
            moment(*since_ms),
            moment(seen.picture.time_ms)
        ),
    };
    let class = if text.is_empty() { "notice none" } else { "notice bad" };
    html.leaf("p", &[("id", &"bus"), ("class", &class), ("role", &"status")], &text);
}
