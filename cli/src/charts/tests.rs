//! Golden files: what each chart looks like as text. UPDATE_EXPECT=1 writes them.

use expect_test::{ExpectFile, expect_file};

use super::*;
use crate::page::page;

const HOSTILE: &str = "<script>alert('1')</script>\" onload=\"x\u{1b}[2J";

fn check(chart: &dyn Chart, golden: &ExpectFile) {
    golden.assert_eq(&figure("c1", chart).into_string());
}

fn line(name: &str, values: &[Option<f64>]) -> Line {
    Line { name: name.to_owned(), values: values.to_vec() }
}

fn lines(x: Vec<f64>, lines: Vec<Line>) -> Lines {
    let (title, about) = ("Behind the bus".to_owned(), "Messages that a sink has not settled.".to_owned());
    Lines { title, about, x: (Unit::Seconds, x), y: Unit::Count("messages"), lines, outages: Vec::new() }
}

fn bars(bars: Vec<Bar>) -> Bars {
    Bars { title: "Catching up".to_owned(), about: String::new(), unit: Unit::Count("events/s"), bars }
}

fn bar(name: &str, value: Option<f64>, interval: Option<(f64, f64)>) -> Bar {
    Bar { name: name.to_owned(), series: name.len() % 7, value, interval }
}

fn distribution(curves: Vec<Curve>) -> Distribution {
    let title = "From counted to queryable".to_owned();
    Distribution { title, about: String::new(), unit: Unit::Seconds, of: "probes", curves }
}

#[test]
fn lines_have_gaps_where_a_value_is_not_known_and_outages_are_shaded() {
    let mut chart = lines(
        vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        vec![
            line("sqlite", &[Some(0.0), Some(120.0), None, Some(480.0), Some(2_400.0), Some(0.0)]),
            line("parquet", &[Some(0.0), Some(40.0), Some(f64::NAN), Some(35.0), Some(60.0), Some(10.0)]),
        ],
    );
    chart.outages = vec![
        Outage { name: "no worker of sqlite".to_owned(), from: 1.5, to: Some(3.5) },
        Outage { name: "slow".to_owned(), from: 4.5, to: None },
    ];
    check(&chart, &expect_file!["golden/lines.html"]);
}

#[test]
fn bars_have_whiskers_and_say_what_is_not_known() {
    let chart = bars(vec![
        bar("sqlite", Some(1_200_000.0), Some((1_100_000.0, 1_250_000.0))),
        bar("parquet", Some(640_000.0), Some((600_000.0, 700_000.0))),
        bar("http", None, None),
        bar("none", Some(0.0), Some((0.0, 0.0))),
    ]);
    check(&chart, &expect_file!["golden/bars.html"]);
}

#[test]
fn a_distribution_is_on_a_log_axis() {
    let curve = |name: &str, points: &[(f64, f64)]| Curve { name: name.to_owned(), points: points.to_vec() };
    let chart = distribution(vec![
        curve("sqlite", &[(0.02, 0.25), (0.05, 0.5), (0.1, 0.9), (0.4, 0.99), (3.2, 1.0)]),
        curve("parquet", &[(0.2, 0.5), (0.3, 1.0)]),
        curve("http", &[]),
    ]);
    check(&chart, &expect_file!["golden/distribution.html"]);
}

#[test]
fn extreme_figures_and_hostile_names_are_drawn_and_stay_text() {
    let long = "a name that is far longer than what fits above a bar, twice ".repeat(2);
    let chart = bars(vec![
        bar(HOSTILE, Some(1e18), Some((9e17, f64::INFINITY))),
        bar(&long, Some(1.0), None),
        bar("", Some(f64::NAN), Some((f64::NAN, 1.0))),
    ]);
    check(&chart, &expect_file!["golden/extreme.html"]);
}

/// Charts of every kind, with nothing, one figure, and figures of every size.
fn all() -> Vec<Box<dyn Chart>> {
    let values = [None, Some(f64::NAN), Some(f64::NEG_INFINITY), Some(0.0), Some(-5.0), Some(1e18), Some(f64::MAX)];
    let mut charts: Vec<Box<dyn Chart>> = vec![
        Box::new(lines(Vec::new(), Vec::new())),
        Box::new(lines(Vec::new(), vec![line("none", &[])])),
        Box::new(lines(vec![f64::NAN, 1.0], vec![line("more places than values", &[Some(1.0)])])),
        Box::new(bars(Vec::new())),
        Box::new(distribution(Vec::new())),
        Box::new(lines((0..9).map(f64::from).collect(), (0..9).map(|_| line(HOSTILE, &[Some(1.0); 9])).collect())),
    ];
    for value in values {
        let number = value.unwrap_or(f64::NAN);
        charts.push(Box::new(lines(vec![number.abs()], vec![line(HOSTILE, &[value])])));
        charts.push(Box::new(bars(vec![bar(HOSTILE, value, Some((number, number)))])));
        let points = vec![(number, 0.5), (number, number), (1.0, 1.0)];
        charts.push(Box::new(distribution(vec![Curve { name: HOSTILE.to_owned(), points }])));
    }
    charts
}

#[test]
fn no_chart_has_a_figure_that_is_no_number_or_lies_outside_of_it() {
    for chart in all() {
        let html = figure("c", chart.as_ref()).into_string();
        assert!(!html.contains("NaN") && !html.contains("inf") && !html.contains("<script"), "{html}");
        // Every coordinate: in an attribute of a shape, or in a path before its marker's shape.
        let attributes = html.split('"').collect::<Vec<_>>();
        for pair in attributes.chunks_exact(2) {
            let is_place =
                [" x", " y", " x1", " x2", " y1", " y2"].iter().any(|name| pair[0].ends_with(&format!("{name}=")));
            if is_place {
                let place: f64 = pair[1].parse().unwrap_or_else(|error| panic!("{error}: {pair:?} in {html}"));
                assert!((0.0..=440.0).contains(&place), "{pair:?} in {html}");
            }
        }
    }
}

#[test]
fn elements_are_closed_in_order_and_ids_are_named() {
    for chart in all() {
        let html = figure("c", chart.as_ref()).into_string();
        let mut open = Vec::new();
        for piece in html.split('<').skip(1) {
            let element = piece.split(['>', ' ']).next().unwrap();
            match element.strip_prefix('/') {
                Some(element) => assert_eq!(open.pop(), Some(element), "{html}"),
                None => open.push(element),
            }
        }
        assert!(open.is_empty(), "{open:?}: {html}");
        for needed in ["role=\"img\"", "aria-labelledby=\"c-title c-description\"", "id=\"c-title\"", "<table>"] {
            assert!(html.contains(needed), "{needed}: {html}");
        }
    }
}

#[test]
fn lines_are_told_apart_without_colour() {
    let chart = lines(vec![0.0, 1.0], (0..7).map(|n| line(&n.to_string(), &[Some(1.0), Some(2.0)])).collect());
    let html = figure("c", &chart).into_string();
    let key = html.split("<ul").nth(1).unwrap().split("</ul>").next().unwrap();
    let marks: std::collections::BTreeSet<&str> =
        key.split("class=\"mark").skip(1).map(|mark| mark.split("</path>").next().unwrap()).collect();
    assert_eq!(marks.len(), 7, "{key}");
}

#[test]
fn a_page_holds_its_charts() {
    let html = page("Charts", figure("c", &bars(vec![bar("a", Some(1.0), None)])));
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"), "{html}");
    assert!(html.contains("Content-Security-Policy") && html.contains("<figure id=\"c\">"), "{html}");
}

/// The relative luminance of `#rrggbb`, as WCAG defines it.
fn luminance(colour: &str) -> f64 {
    let parts = [1, 3, 5].map(|start| {
        let part = f64::from(u8::from_str_radix(&colour[start..start + 2], 16).unwrap()) / 255.0;
        if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    });
    0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
}

#[test]
fn every_colour_can_be_seen_on_the_light_and_on_the_dark_page() {
    let style = include_str!("../page/style.css");
    let (light, dark) = style.split_once("@media").unwrap();
    for theme in [light, dark.split_once("* {").unwrap().0] {
        let colour = |name: &str| theme.split(&format!("--{name}: ")).nth(1).unwrap().split(';').next().unwrap();
        let paper = luminance(colour("paper"));
        let contrast = |name: &str| {
            let ink = luminance(colour(name));
            (paper.max(ink) + 0.05) / (paper.min(ink) + 0.05)
        };
        for series in ["c0", "c1", "c2", "c3", "c4", "c5"] {
            assert!(contrast(series) >= 3.0, "{series}: {}", contrast(series));
        }
        for text in ["ink", "soft", "good", "bad"] {
            assert!(contrast(text) >= 4.5, "{text}: {}", contrast(text));
        }
    }
}
