//! Results of comparisons.

use tallybus_verify::compare::CompareResult;

use super::super::reports::{Found, Listed, Report};
use super::super::routes::Page;
use super::audits::{NO_DIRECTORY, others, second};
use super::shell::whole;
use crate::commands::compare;
use crate::page::Html;
use crate::text::{count_of, grouped};

/// The results of comparisons; `None` without a directory.
pub(in super::super) fn comparisons(listed: Option<&Listed>) -> String {
    let mut html = Html::new();
    html.leaf("h1", &[], "Comparisons");
    let Some(listed) = listed else {
        html.leaf("p", &[], NO_DIRECTORY);
        how_to_write(&mut html);
        return whole(&Page::Comparisons, "Comparisons", html);
    };
    let results: Vec<(&Found, &CompareResult)> = listed
        .found
        .iter()
        .filter_map(|found| match &found.report {
            Report::Comparison(result) => Some((found, &**result)),
            Report::Audit(_) => None,
        })
        .collect();
    if results.is_empty() {
        html.leaf("p", &[], "The directory holds no result of a comparison.");
        how_to_write(&mut html);
    } else {
        html.add(table(&results));
    }
    others(&mut html, listed);
    whole(&Page::Comparisons, "Comparisons", html)
}

fn how_to_write(html: &mut Html) {
    html.open("p", &[]).text("To write one: ");
    html.leaf("code", &[], "tallybus compare run --out DIRECTORY/compare-$(date +%Y%m%dT%H%M%S).json").close("p");
}

fn table(results: &[(&Found, &CompareResult)]) -> Html {
    let mut html = Html::new();
    html.open("div", &[("class", &"wide"), ("tabindex", &0), ("role", &"region"), ("aria-label", &"Comparisons")]);
    html.open("table", &[]).leaf("caption", &[], "Comparisons, the newest first").open("thead", &[]).open("tr", &[]);
    for title in ["began", "verdict", "sinks"] {
        html.leaf("th", &[("scope", &"col"), ("class", &"text")], title);
    }
    html.leaf("th", &[("scope", &"col")], "events").leaf("th", &[("scope", &"col"), ("class", &"text")], "file");
    html.close("tr").close("thead").open("tbody", &[]);
    for (found, result) in results {
        html.open("tr", &[]).open("th", &[("scope", &"row")]);
        html.leaf("a", &[("href", &Page::Comparison(found.name.clone()).path())], &second(&found.time)).close("th");
        let (class, word) = match result.all_equal() {
            true => ("text state good", "all equal"),
            false => ("text state bad", "not all equal"),
        };
        html.leaf("td", &[("class", &class)], word);
        let contenders = result.sinks.iter().filter(|sink| sink.control_of.is_none());
        let names: Vec<&str> = contenders.map(|sink| sink.name.as_str()).collect();
        html.leaf("td", &[("class", &"text")], &names.join(", "));
        html.leaf("td", &[], &grouped(result.workload.events)).leaf("td", &[("class", &"text")], &found.name);
        html.close("tr");
    }
    html.close("tbody").close("table").close("div");
    html
}

/// One result, drawn as `tallybus compare show --page` draws it.
pub(in super::super) fn comparison(found: &Found, result: &CompareResult) -> String {
    let mut html = Html::new();
    let rounds = count_of(result.method.rounds, "round");
    html.leaf("p", &[("class", &"soft")], &format!("File {}, begun at {}, {rounds}.", found.name, second(&found.time)));
    html.add(compare::page::content(result, &[]));
    whole(&Page::Comparison(found.name.clone()), "Comparison", html)
}
