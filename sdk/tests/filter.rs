//! The language of filters: against a plain evaluator, with every error, and with expressions that are generated at random.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "tests stop at the first surprise"
)]

mod filter_model;

use filter_model::{Condition, Expression, any_event, any_expression, any_series};
use proptest::prelude::*;
use tallybus_sdk::filter::{EventFields, Filter, FilterScope, MOST_BYTES, MOST_CONDITIONS, MOST_NESTED};
use tallybus_sdk::{Rng, Series, SeriesTable};

/// 2026-01-31T12:00:00Z.
const NOW: i64 = 1_769_860_800_000_000_000;

fn compile(expression: &str) -> Filter {
    Filter::compile(expression, FilterScope::Events, NOW).unwrap_or_else(|error| panic!("{error}"))
}

fn event() -> EventFields<'static> {
    EventFields { value: 12, time: NOW - 60_000_000_000, topic: "tallybus.counters", partition: 3, offset: 700 }
}

fn takes(expression: &str, series: &Series) -> bool {
    let filter = compile(expression);
    filter.takes(filter.ask(series), &event())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// A filter and the plain evaluator take the same events, and what is settled for a series is so for each of its events.
    #[test]
    fn it_takes_what_a_plain_evaluator_takes(
        expression in any_expression(),
        spaces in any::<u64>(),
        series in any_series(),
        events in prop::collection::vec(any_event(), 1..4),
    ) {
        let text = expression.write(spaces);
        let filter = Filter::compile(&text, FilterScope::Events, NOW);
        let filter = filter.map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        let answer = filter.ask(&series);
        let table: SeriesTable = [&series].into_iter().collect();
        prop_assert_eq!(filter.ask(&table.get(0)), answer);
        for event in &events {
            let expected = expression.takes(&series, event);
            prop_assert_eq!(filter.takes(answer, &event.fields()), expected, "{} of {} and {:?}", text, series, event);
            if let Some(settled) = answer.settled() {
                prop_assert_eq!(settled, expected);
            }
        }
        if !expression.asks_about_events() {
            prop_assert!(answer.settled().is_some(), "{}", text);
            prop_assert!(Filter::compile(&text, FilterScope::Series, NOW).is_ok(), "{}", text);
        }
    }

    /// The sugar of flags means what it stands for.
    #[test]
    fn names_and_tags_added_to_a_filter_are_conditions_of_it(
        expression in any_expression(),
        series in any_series(),
        event in any_event(),
    ) {
        let text = expression.write(0);
        let tags = [("status".to_owned(), "500".to_owned()), ("route".to_owned(), "/v1".to_owned())];
        let sugar = compile(&text).and_name("http.*").unwrap().and_tags(&tags);
        let plain = compile(&format!("({text}) && name ~ \"http.*\" && status == \"500\" && tag('route') == '/v1'"));
        let fields = event.fields();
        prop_assert_eq!(sugar.takes(sugar.ask(&series), &fields), plain.takes(plain.ask(&series), &fields));
    }
}

#[test]
fn a_missing_tag_meets_no_condition_and_its_negation_does() {
    let series = Series::from_sorted("http.requests", &[("route", "/v1"), ("status", "503")]);
    for (expression, expected) in [
        ("zone == \"a\"", false),
        ("zone != \"a\"", false),
        ("zone ~ \"*\"", false),
        ("zone !~ \"a*\"", false),
        ("zone < 5", false),
        ("zone >= 5", false),
        ("zone in (\"a\", 5)", false),
        ("!(zone == \"a\")", true),
        ("!(zone != \"a\")", true),
        ("has(zone)", false),
        ("!has(zone)", true),
        ("has(zone) && zone != \"a\" || !has(zone)", true),
        ("has(status)", true),
        ("status >= 500 && status < 600", true),
        ("status == 503.0 && status != \"503.0\" && status == \"503\"", true),
        ("route < 5 || route >= 5 || route == 5", false),
        ("route != 5", true),
        ("tag(\"route\") == '/v1'", true),
        ("name ~ \"http.*\" && value > 10", true),
        ("name ~ \"http\"", false),
        ("!!has(route)", true),
        ("!!!has(route)", false),
        ("has(route) || has(zone) && has(zone)", true),
        ("(has(route) || has(zone)) && has(zone)", false),
        ("value in (1, 12) && partition == 3 && offset >= 7e2 && topic ~ 'tallybus.*'", true),
        ("value > 11.5 && value < 12.5 && value != 12.5 && value > -1", true),
        ("time > -5m && time < now && time >= 2026-01-31T11:59:00Z", true),
        ("time == '2026-01-31T12:59:00+01:00'", true),
        ("time < 2026-01-31 || time in (now, -2h)", false),
    ] {
        assert_eq!(takes(expression, &series), expected, "{expression}");
    }
}

#[test]
fn texts_have_escapes_and_odd_names_have_quotes() {
    let series = Series::from_sorted(
        "a\"b",
        &[
            ("glob", "a*z"),
            ("http.status-code", "1"),
            ("letter", "é"),
            ("odd name", "line\nend\\é\u{1f600}"),
            ("value", "x"),
        ],
    );
    for expression in [
        r#"name == "a\"b" && name == 'a"b'"#,
        r#"tag("odd name") == "line\nend\\\u{e9}\u{1F600}""#,
        r#"tag("odd name") ~ "line*""#,
        "http.status-code == 1",
        "tag(value) == \"x\" && has(value) && value == 12",
        "tag(glob) ~ \"a\\\\*?\" && tag(glob) !~ \"ab?\" && tag(glob) ~ \"[!b]*\" && tag(glob) ~ '{x,a\\\\*}[a-z]'",
        "tag(letter) ~ \"??\" && tag(letter) !~ \"?\"",
        "time > '2026-01-31 11:00'",
        "tag('value')!=\"y\"&&!has(\"no\")",
    ] {
        assert!(takes(expression, &series), "{expression}");
    }
}

#[test]
fn an_error_marks_the_place_and_says_what_was_expected() {
    let cases = [
        ("status >=", "expected a text in quotes or a number after `>=`\n  status >=\n           ^"),
        ("status = 500", "`=` compares nothing: write `==`\n  status = 500\n         ^"),
        (
            "region == eu && value > 1",
            "expected a text in quotes or a number after `==`: write \"eu\"\n  region == eu && value > 1\n            ^^",
        ),
        ("value > 10 and has(a)", "expected `&&`, not a word\n  value > 10 and has(a)\n             ^^^"),
        ("hsa(status)", "there is no function `hsa`: did you mean has(…)?\n  hsa(status)\n  ^^^"),
        (
            "count(status)",
            "there is no function `count`: the functions are has(tag) and tag(\"odd name\")\n  count(status)\n  ^^^^^",
        ),
        ("(value > 1 || has(a)", "this parenthesis is not closed: expected `)`\n  (value > 1 || has(a)\n  ^"),
        ("value > 1) && has(a)", "unmatched `)`\n  value > 1) && has(a)\n           ^"),
        ("route ~ \"a", "unterminated text: expected a closing \"\n  route ~ \"a\n          ^"),
        (
            "value ~ \"1*\"",
            "`~` compares a text with a pattern: use == != < <= > >= or in (…) here\n  value ~ \"1*\"\n        ^",
        ),
        ("value > \"10\"", "expected a number such as 10, 1_000 or 1e6 after `>`\n  value > \"10\"\n          ^^^^"),
        (
            "status == 5oo",
            "expected a text in quotes or a number after `==`: for the text write \"5oo\"\n  status == 5oo\n            ^^^",
        ),
        (
            "time > 2026-13-01",
            "expected a time such as 2026-01-31T12:00:00Z, 2026-01-31, -1h, now, or nanoseconds since 1970\n  time > 2026-13-01\n         ^^^^^^^^^^",
        ),
        (
            "status",
            "expected an operator after `status`: == != ~ !~ < <= > >= or in (…); to ask whether the tag is present, write has(status)\n  status\n        ^",
        ),
        ("status in 500", "expected `(` after `in`, as in status in (500, 503)\n  status in 500\n            ^^^"),
        ("status in ()", "expected a text in quotes or a number in the list\n  status in ()\n             ^"),
        (
            "\"a\" == name",
            "expected a name on the left; a tag with an odd name is tag(\"odd name\")\n  \"a\" == name\n  ^^^",
        ),
        (
            "a == \"\\q\"",
            "unknown escape: in quotes write \\\\ for a backslash; others are \\\" \\' \\n \\r \\t \\u{e9}\n  a == \"\\q\"\n        ^^",
        ),
        (
            "a == \"\\u{d800}\"",
            "expected the number of a character in hexadecimal, as in \\u{e9}\n  a == \"\\u{d800}\"\n        ^^",
        ),
        (
            "é == \"\u{1b}\" §",
            "expected a name, a number, a text in quotes, or an operator; a tag with an odd name is tag(\"odd name\")\n  é == \"\\u{1b}\" §\n                ^",
        ),
        ("", "the filter is empty: expected a condition such as status >= 500"),
    ];
    for (expression, expected) in cases {
        let error = Filter::compile(expression, FilterScope::Events, NOW).unwrap_err();
        assert_eq!(error.to_string(), expected, "{expression}");
    }
    let glob = Filter::compile("name ~ \"[\"", FilterScope::Events, NOW).unwrap_err();
    assert!(glob.reason().contains("unclosed character class") && glob.at() == (7..10), "{glob}");
}

#[test]
fn a_filter_of_series_refuses_what_differs_from_event_to_event() {
    let error = Filter::compile("has(a) && value > 1", FilterScope::Series, NOW).unwrap_err();
    assert_eq!(
        error.to_string(),
        "only the name and the tags of a series are known here, not `value`; a tag of that name is tag(\"value\")\n  \
         has(a) && value > 1\n            ^^^^^"
    );
    assert!(Filter::compile("tag(\"value\") > 1 && name ~ \"a*\"", FilterScope::Series, NOW).is_ok());
}

#[test]
fn the_tags_of_a_filter_are_those_that_it_asks_for() {
    let tags = [("z".to_owned(), "1".to_owned())];
    let filter = compile("b == 1 && (has(a) || !(b in (2))) && name ~ \"c\" && value > 1").and_tags(&tags);
    assert_eq!(filter.tags(), ["a", "b", "z"]);
    assert_eq!(Filter::everything().tags(), [""; 0]);
}

#[test]
fn length_nesting_and_the_number_of_conditions_are_bounded() {
    let refused = |text: &str| Filter::compile(text, FilterScope::Events, NOW).unwrap_err().reason().to_owned();
    let nested = |depth: usize| format!("{}has(a){}", "(".repeat(depth), ")".repeat(depth));
    compile(&nested(MOST_NESTED));
    assert!(refused(&nested(MOST_NESTED + 1)).starts_with("more than 60 parentheses"));
    assert!(refused(&"(".repeat(MOST_BYTES)).starts_with("more than 60 parentheses"));
    compile(&format!("{}has(a)", "!".repeat(MOST_BYTES - 10)));
    let several = |count: usize| vec!["has(a)"; count].join(" || ");
    let _accepted =
        compile(&several(MOST_CONDITIONS)).and_name("*").unwrap().and_tags(&[("a".to_owned(), "b".to_owned())]);
    assert!(refused(&several(MOST_CONDITIONS + 1)).starts_with("more than 60 conditions"));
    assert_eq!(refused(&"a".repeat(MOST_BYTES + 1)), "a filter has at most 16,384 bytes, and this one 16,385");
    assert!(refused(&format!("name ~ \"{}\"", "{".repeat(8_000))).contains("nests more than 60"));
    let long = refused(&format!("{} && value > x && {}", several(40), several(3)));
    assert_eq!(long, "expected a number such as 10, 1_000 or 1e6 after `>`");
}

/// Texts of which expressions are made, right and wrong.
const PIECES: [&str; 54] = [
    "name",
    "value",
    "time",
    "topic",
    "partition",
    "offset",
    "status",
    "route",
    "tag",
    "has",
    "in",
    "now",
    "(",
    ")",
    "(",
    ")",
    ",",
    "&&",
    "||",
    "!",
    "==",
    "!=",
    "~",
    "!~",
    "<",
    "<=",
    ">",
    ">=",
    "=",
    "&",
    "|",
    "\"",
    "'",
    "\\",
    "\\u{",
    "\\u{e9}",
    "}",
    "\"http.*\"",
    "'/v1'",
    "\"{a,b}*\"",
    "\"[a-\"",
    "\"**/\"",
    "500",
    "1e6",
    "1e99",
    "-5m",
    "2026-01-31T12:00:00Z",
    "0.5",
    "-",
    "18446744073709551616",
    "é",
    "\u{202e}",
    "\u{1f600}",
    "\0",
];

/// An expression at random: of the language, or nearly, or of its pieces in any order.
fn generated(rng: &mut Rng) -> String {
    let pick = |rng: &mut Rng| PIECES[usize::try_from(rng.below(PIECES.len() as u64)).unwrap()];
    let mut text = match rng.below(2) {
        0 => Expression::at_random(rng, 2).write(rng.number()),
        _ => {
            let pieces = rng.below(24);
            let spaced = rng.below(2) == 0;
            (0..pieces).map(|_| pick(rng)).collect::<Vec<_>>().join(if spaced { " " } else { "" })
        }
    };
    for _ in 0..rng.below(4) {
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let place = |rng: &mut Rng| places[usize::try_from(rng.below(places.len() as u64)).unwrap()];
        let (one, other) = (place(rng), place(rng));
        let range = one.min(other)..one.max(other).min(one.min(other) + 6);
        match rng.below(3) {
            0 if text.is_char_boundary(range.end) => text.replace_range(range, ""),
            1 => text.insert_str(one, pick(rng)),
            _ => text.truncate(one.max(other)),
        }
    }
    text
}

/// `TALLYBUS_FILTER_ROUNDS=1000000` makes more of them; each is compiled on a small stack, shown where it is refused, and asked
/// where it is not.
#[test]
fn expressions_generated_at_random_never_panic() {
    let rounds = std::env::var("TALLYBUS_FILTER_ROUNDS").map_or(100_000, |rounds| rounds.parse().unwrap());
    let run = move || {
        let mut rng = Rng::new(0x7a11_7b05);
        let series = Series::from_sorted("http.requests", &[("route", "/v1"), ("status", "503")]);
        let (mut accepted, mut refused) = (0_u64, 0_u64);
        for _ in 0..rounds {
            let text = generated(&mut rng);
            match Filter::compile(&text, FilterScope::Events, NOW) {
                Ok(filter) => {
                    accepted += 1;
                    let answer = filter.ask(&series);
                    let taken = filter.takes(answer, &event());
                    assert!(answer.settled().is_none_or(|settled| settled == taken), "{text}");
                }
                Err(error) => {
                    refused += 1;
                    let at = error.at();
                    assert!(text.get(at).is_some() && !error.to_string().contains('\u{202e}'), "{text:?}: {error}");
                }
            }
        }
        (accepted, refused)
    };
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(run).unwrap();
    let (accepted, refused) = thread.join().unwrap();
    assert!(accepted > rounds / 10 && refused > rounds / 10, "{accepted} accepted, {refused} refused");
}

#[test]
fn a_pattern_takes_time_that_is_linear_in_the_text() {
    let series = Series::from_sorted(&"a".repeat(20_000), &[]);
    let begin = std::time::Instant::now();
    assert!(!takes(&format!("name ~ \"{}b\"", "a*".repeat(100)), &series));
    assert!(begin.elapsed() < std::time::Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn conditions_of_the_model_are_all_generated() {
    let mut rng = Rng::new(1);
    let mut kinds = std::collections::BTreeSet::new();
    for _ in 0..2_000 {
        kinds.insert(Condition::at_random(&mut rng).kind());
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["has", "number", "one of", "pattern", "text"]);
}
