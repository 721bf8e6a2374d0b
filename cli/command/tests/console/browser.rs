//! The pages in a real browser.

use tallybus_bus::BusAddress;
use tallybus_tests::Browser;

use crate::client::Console;
use crate::common::Place;

/// The pages of a broker that goes away and comes back, in a browser, with the keyboard alone.
#[test]
fn in_a_browser_figures_are_those_of_json_follow_the_bus_over_a_restart_and_need_no_mouse() {
    let Some(mut kafka) = tallybus_tests::kafka() else { return };
    let Some(mut browser) = tallybus_tests::browser() else { return };
    let place = Place::with_settings("");
    let settings = format!(
        "[bus]\nkind = \"kafka\"\nbrokers = \"{}\"\n[sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\n",
        kafka.bootstrap()
    );
    place.write("tallybus.toml", &settings);
    place.run(&["topic", "create", "--partitions", "3"]).expect(0);
    place.run(&["emit", "hits", "4"]).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place.run(&["emit", "hits", "5"]).expect(0);
    let address = BusAddress::parse(&format!("kafka://{}", kafka.bootstrap())).unwrap();
    let groups = || {
        let bus = address.open().unwrap();
        bus.observer().unwrap().groups().unwrap()
    };
    let before = groups();
    let console = Console::start(&place, &["--interval", "500ms"], &[]);
    browser.show_as((1_280, 900), false);
    browser.open(&console.url);
    let lag = |lag: u64| {
        format!(
            "document.querySelector('tr[data-key=local] td[data-column=LAG] data').value === '{lag}' && view.className === 'current'"
        )
    };
    browser.wait(&lag(1));
    // Every figure of the page is that of one look, as /json has it.
    equals_json(&mut browser);
    let marked = "document.querySelector('tr[data-key=local]').marked = true; main.marked = true";
    browser.evaluate(marked);
    place.run(&["emit", "hits", "6"]).expect(0);
    browser.wait(&lag(2));
    assert_eq!(
        browser.evaluate("document.querySelector('tr[data-key=local]').marked && main.marked"),
        true,
        "the same elements"
    );

    // With the keyboard: past the link that skips the menu and the menu to the button, which pauses, and to the sink.
    let focused =
        |browser: &mut Browser| browser.evaluate("document.activeElement.textContent").as_str().unwrap().to_owned();
    let tab_to = |browser: &mut Browser, text: &str| {
        for _ in 0..30 {
            browser.press("Tab");
            if focused(browser) == text {
                return;
            }
        }
        panic!("{text} is not reached with Tab");
    };
    browser.press("Tab");
    assert_eq!(focused(&mut browser), "Skip to the page");
    tab_to(&mut browser, "Pause");
    browser.press("Enter");
    browser.wait(
        "main.classList.contains('cut') && document.getElementById('link').textContent.startsWith('Paused since')",
    );
    browser.press("Enter");
    browser.wait("!main.classList.contains('cut')");
    tab_to(&mut browser, "local");
    let look = browser.evaluate("view.dataset.time");
    browser.wait(&format!("view.dataset.time !== '{}'", look.as_str().unwrap()));
    assert_eq!(focused(&mut browser), "local", "it keeps the focus over a look");
    browser.press("Enter");
    browser.wait("location.pathname === '/sink/local' && document.querySelectorAll('tr[data-key^=\"tallybus.counters/\"]').length === 3");

    // Old figures are never shown as current, and what was opened stays open.
    browser.wait("document.querySelector('#lag svg.drawing')");
    browser.evaluate("document.querySelector('#lag details').open = true");
    kafka.kill();
    browser.wait("view.className === 'old' && bus.textContent.includes('has not answered since') && bus.textContent.includes('are old, from')");
    let since = browser.evaluate("bus.textContent.split(': ')[0]");
    kafka.restart().unwrap();
    browser.wait("view.className === 'current' && bus.textContent === ''");
    assert!(since.as_str().unwrap().contains("UTC"), "{since}");
    assert_eq!(browser.evaluate("document.querySelector('#lag details').open"), true);
    place.run(&["emit", "hits", "7"]).expect(0);
    browser.wait("document.querySelector('dd[data-column=LAG] data').value === '3'");

    for (size, is_dark) in [((375, 800), false), ((375, 800), true), ((1_280, 900), true)] {
        browser.show_as(size, is_dark);
        for path in ["/", "/sink/local", "/audits", "/comparisons"] {
            browser.open(&format!("{}{path}", console.url));
            browser.wait(&format!("location.pathname === '{path}' && document.readyState === 'complete'"));
            let fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
            assert_eq!(browser.evaluate(fits), true, "{path} at {size:?}");
        }
    }
    assert_eq!(browser.complaints(), [""; 0]);
    let requests = browser.requests();
    assert!(requests.len() > 20 && requests.iter().all(|url| url.starts_with(&console.url)), "{requests:?}");
    console.end();
    assert_eq!(groups(), before, "no group was made");
}

/// Every exact figure of the sinks' table against /json, of the same look.
fn equals_json(browser: &mut Browser) {
    let compare = "(async () => {
        for (let tries = 0; tries < 100; tries++) {
            const json = await (await fetch('/json')).json();
            await new Promise((done) => setTimeout(done, 20));
            if (view.dataset.time !== String(json.time_ms)) continue;
            const cell = (column) => document.querySelector(`tr[data-key=local] td[data-column='${column}'] data`)?.value ?? null;
            const sink = json.sinks[0];
            const pairs = [['LAG', sink.lag_messages], ['IN/S', sink.arriving_per_second], ['OUT/S', sink.settled_per_second],
                ['DEAD', sink.dead_letters], ['SEALED', sink.sealed_batches], ['WORKERS', sink.workers]];
            return pairs.map(([column, value]) => [column, value === null ? null : String(value), cell(column)]);
        }
        return 'no look was on the page and in /json';
    })()";
    let pairs = browser.evaluate(compare);
    let pairs = pairs.as_array().unwrap_or_else(|| panic!("{pairs}"));
    assert_eq!(pairs.len(), 6);
    assert!(pairs.iter().all(|pair| pair[1] == pair[2]), "{pairs:?}");
}
