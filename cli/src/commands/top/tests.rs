//! Keys without a terminal, and what is drawn at several sizes.
//!
//! `UPDATE_EXPECT=1 cargo test -p tallybus-cli --lib top` writes `snapshots/` again.

use std::time::Duration;

use expect_test::expect_file;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::{Rect, Size};
use ratatui::style::{Color, Modifier};
use tallybus_verify::live::{
    CatchUp, PICTURE_VERSION, PartitionPicture, Picture, SinkPicture, SinkState, Tick, TopicPicture, TopicRole,
};

use super::columns::place;
use super::draw::{Palette, draw};
use super::keys::Key;
use super::state::{Action, Mode, State, View};

const STATES: [SinkState; 11] = [
    SinkState::Halted,
    SinkState::Unreadable,
    SinkState::Retrying,
    SinkState::Stalled,
    SinkState::NotStarted,
    SinkState::FallingBehind,
    SinkState::CatchingUp,
    SinkState::Measuring,
    SinkState::NoTopic,
    SinkState::KeepingUp,
    SinkState::CaughtUp,
];

fn partition(number: u32) -> PartitionPicture {
    let lag = u64::from(number) * 1_111;
    PartitionPicture {
        topic: "tallybus.counters".to_owned(),
        partition: number,
        first: 0,
        end: 5_000_000,
        settled: (number != 3).then_some(5_000_000 - lag),
        sealed_end: (number != 3).then_some(5_000_000 - lag / 2),
        sealed_batches: 1,
        lag_messages: lag,
        lag_seconds: number.is_multiple_of(2).then_some(f64::from(number) * 1.5),
        arriving_per_second: Some(f64::from(number)),
        settled_per_second: Some(f64::from(number) * 2.0),
        catch_up: CatchUp::WithinSeconds(1_111.0),
        worker: Some(format!("host-{}:4711", number % 3)),
        halted: (number == 5).then(|| "the destination was emptied".to_owned()),
    }
}

fn sink(number: u32) -> SinkPicture {
    let state = STATES[number as usize * STATES.len() / 20];
    let lag = (state != SinkState::Unreadable).then(|| u64::from(20 - number) * 123_456);
    SinkPicture {
        name: format!("sink-{number:02}"),
        kind: Some("influxdb".to_owned()),
        group: format!("tallybus.sink-{number:02}"),
        state,
        why: format!("the reason of sink {number}: 429 Too Many Requests for 14 s"),
        lag_messages: lag,
        lag_seconds: lag.map(|lag| lag as f64 / 1e4),
        arriving_per_second: Some(12_345.6),
        settled_per_second: Some(f64::from(number) * 1_000.0),
        catch_up: if number < 10 { CatchUp::Never } else { CatchUp::WithinSeconds(90.0) },
        sealed_batches: Some(u64::from(number)),
        dead_letters: Some(u64::from(number % 4)),
        dead_letters_per_second: Some(0.0),
        workers: Some(2),
        retries: None,
        partitions: (0..64).rev().map(partition).collect(),
    }
}

fn picture(time_ms: i64) -> Picture {
    let topic = |name: &str, role, partitions| TopicPicture {
        name: name.to_owned(),
        role,
        partitions,
        messages: partitions.map(|count| u64::from(count) * 5_000_000),
        arriving_per_second: partitions.map(|_| 12_345.6),
    };
    Picture {
        version: PICTURE_VERSION,
        time_ms,
        bus: "Kafka at 127.0.0.1:9092".to_owned(),
        sinks: (0..20).map(sink).collect(),
        topics: vec![
            topic("tallybus.counters", TopicRole::Counters, Some(64)),
            topic("tallybus.dead.sink-00", TopicRole::DeadLetters { sink: "sink-00".to_owned() }, Some(1)),
            topic("tallybus.replay.sink-00", TopicRole::Replay { sink: "sink-00".to_owned() }, None),
        ],
        heartbeats_error: None,
    }
}

/// 14 November 2023, 22:13:20.
const TIME_MS: i64 = 1_700_000_000_000;

fn seen(time_ms: i64) -> Tick {
    Tick::Seen(picture(time_ms))
}

fn live() -> State {
    let mut state = State::live();
    state.receive(seen(TIME_MS), Duration::from_secs(1));
    state
}

fn press(state: &mut State, keys: &[Key]) {
    for key in keys {
        assert_eq!(state.press(*key), Action::None, "{key:?}");
    }
}

fn typed(state: &mut State, text: &str) {
    text.chars().for_each(|character| press(state, &[Key::Char(character)]));
}

/// What is drawn, as text.
fn shown(state: &State, now: u64, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let palette = Palette { has_colours: true };
    let draw_it = |frame: &mut ratatui::Frame<'_>| {
        draw(state, Duration::from_secs(now), palette, frame.area(), frame.buffer_mut());
    };
    terminal.draw(draw_it).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(|y| row(y) + "\n").collect()
}

/// Every table, the help, and an error at this size.
fn all_views(width: u16, height: u16) -> String {
    let mut text = String::new();
    let mut add = |name: &str, state: &State, now: u64| {
        text.push_str(&format!("=== {name}\n{}", shown(state, now, width, height)));
    };
    let mut state = live();
    add("sinks", &state, 1);
    press(&mut state, &[Key::Down, Key::Down]);
    add("the third sink selected", &state, 1);
    press(&mut state, &[Key::Char('3'), Key::End]);
    add("by lag, the last one selected", &state, 1);
    state.receive(Tick::failed(TIME_MS, "the bus did not answer: no broker can be reached"), Duration::from_secs(2));
    add("the bus has not answered for 14 s", &state, 15);
    state = live();
    press(&mut state, &[Key::Enter]);
    add("partitions", &state, 1);
    state = live();
    press(&mut state, &[Key::Tab]);
    add("topics", &state, 1);
    press(&mut state, &[Key::Char('/')]);
    typed(&mut state, "dead");
    add("a filter being typed", &state, 1);
    press(&mut state, &[Key::Enter, Key::Char('?')]);
    add("help", &state, 1);
    add("before the first picture", &State::live(), 1);
    text
}

#[test]
fn everything_is_drawn_at_80_by_24() {
    expect_file!["snapshots/80x24.txt"].assert_eq(&all_views(80, 24));
}

#[test]
fn everything_is_drawn_at_200_by_50() {
    expect_file!["snapshots/200x50.txt"].assert_eq(&all_views(200, 50));
}

#[test]
fn everything_is_drawn_at_20_by_5() {
    expect_file!["snapshots/20x5.txt"].assert_eq(&all_views(20, 5));
}

#[test]
fn every_view_is_drawn_at_every_size_without_a_panic() {
    let mut states = vec![State::live(), State::recording(vec![seen(TIME_MS), Tick::failed(TIME_MS, "away")])];
    for keys in [&[][..], &[Key::End], &[Key::Enter], &[Key::Tab], &[Key::Char('?')], &[Key::Char('/'), Key::Char('1')]]
    {
        let mut state = live();
        press(&mut state, keys);
        states.push(state);
    }
    let mut failed = live();
    failed.receive(Tick::failed(TIME_MS, "away"), Duration::from_secs(2));
    states.push(failed);
    for width in (0..=30).chain([79, 80, 81, 120, 199, 300]) {
        for height in (0..=12).chain([24, 50, 100]) {
            for state in &states {
                let area = Rect::new(0, 0, width, height);
                let mut buffer = Buffer::empty(area);
                draw(state, Duration::from_secs(9), Palette { has_colours: false }, area, &mut buffer);
                assert_eq!(buffer.area, area);
            }
        }
    }
}

#[test]
fn nothing_from_the_bus_drives_the_terminal() {
    let mut hostile = picture(TIME_MS);
    hostile.sinks[0].name = "\u{1b}[2Ja\u{9b}31m".to_owned();
    hostile.sinks[0].why = "line\nbreak \u{202e}".to_owned();
    let mut state = State::live();
    state.receive(Tick::Seen(hostile), Duration::ZERO);
    let text = shown(&state, 0, 200, 50);
    assert!(text.contains(r"\u{1b}[2Ja\u{9b}31m"), "{text}");
    assert!(text.contains(r"line\u{a}break \u{202e}"), "{text}");
}

#[test]
fn a_long_name_is_cut_in_its_middle_and_leaves_room_for_the_figures() {
    let mut long = picture(TIME_MS);
    long.sinks[0].name = format!("first{}last", "-".repeat(90));
    let mut state = State::live();
    state.receive(Tick::Seen(long), Duration::ZERO);
    let text = shown(&state, 0, 80, 24);
    let row = text.lines().find(|line| line.starts_with("first")).unwrap();
    assert!(row.contains("…") && row.contains("last  halted"), "{text}");
    assert!(text.contains("STATE") && text.contains("LAG") && text.contains("CATCH UP"), "{text}");
    // Whole where there is room.
    let text = shown(&state, 0, 300, 24);
    assert!(text.contains(&"-".repeat(90)) && text.contains("WHY"), "{text}");
}

#[test]
fn a_sinks_reason_is_shown_whole_beside_its_partitions() {
    let mut long = picture(TIME_MS);
    let words: Vec<String> = (0..60).map(|number| format!("word{number}")).collect();
    long.sinks[0].why = words.join(" ");
    long.sinks[0].partitions[7].halted = Some("it was emptied: name another destination".to_owned());
    let at = place(&long.sinks[0].partitions[7]);
    let mut state = State::live();
    state.receive(Tick::Seen(long), Duration::ZERO);
    assert!(!shown(&state, 0, 80, 24).contains("word59"));
    press(&mut state, &[Key::Enter]);
    let text = shown(&state, 0, 80, 24);
    assert!(words.iter().all(|word| text.contains(word)) && text.contains("PARTITION"), "{text}");
    press(&mut state, &[Key::Down; 7]);
    let text = shown(&state, 0, 80, 24);
    assert!(text.contains(&format!("{at}: it was emptied: name another destination")), "{text}");
}

#[test]
fn all_of_the_help_is_seen_on_the_smallest_screen() {
    let mut state = live();
    state.size = Size::new(20, 5);
    press(&mut state, &[Key::Char('?')]);
    let mut seen = String::new();
    for _ in 0..60 {
        seen.push_str(&shown(&state, 0, 20, 5).replace('\n', " "));
        press(&mut state, &[Key::Down]);
    }
    let last = shown(&state, 0, 20, 5);
    assert!(last.contains("q Ctrl-C: quit"), "{last}");
    press(&mut state, &[Key::Up]);
    assert!(!shown(&state, 0, 20, 5).contains("quit"), "a key beyond the end is not counted");
    for words in ["write what is", "--play", "sort by a column"] {
        assert!(seen.contains(words), "{words}: {seen}");
    }
    press(&mut state, &[Key::Home]);
    assert!(shown(&state, 0, 20, 5).contains("Up Down j k:"));
    press(&mut state, &[Key::Char('x')]);
    assert_eq!(state.mode, Mode::Browse);
}

#[test]
fn colours_are_used_only_where_they_are_wanted() {
    let drawn = |has_colours| {
        let area = Rect::new(0, 0, 80, 24);
        let mut buffer = Buffer::empty(area);
        draw(&live(), Duration::ZERO, Palette { has_colours }, area, &mut buffer);
        buffer
    };
    let coloured = |buffer: &Buffer| buffer.content.iter().filter(|cell| cell.fg != Color::Reset).count();
    assert!(coloured(&drawn(true)) > 0);
    let plain = drawn(false);
    assert_eq!(coloured(&plain), 0);
    assert!(plain.content.iter().any(|cell| cell.modifier.contains(Modifier::REVERSED)), "the selection is seen");
}

#[test]
fn the_selection_stays_with_its_row_when_rows_are_sorted_by_another_column() {
    let mut state = live();
    press(&mut state, &[Key::Down, Key::Down]);
    assert_eq!(state.sinks()[state.selected()].name, "sink-02");
    // By lag, which is unknown of two of them; they come last.
    press(&mut state, &[Key::Char('3')]);
    assert_eq!(state.sinks()[state.selected()].name, "sink-02");
    assert_eq!((state.sorted_by(), state.sinks()[0].name.as_str()), (Some(2), "sink-00"));
    assert_eq!(state.sinks()[19].lag_messages, None);
    press(&mut state, &[Key::Char('3')]);
    assert_eq!(state.sinks()[19].name, "sink-00", "reversed");
    press(&mut state, &[Key::Char('w')]);
    assert_eq!(state.sinks()[0].name, "sink-00");
    press(&mut state, &[Key::Char('>'), Key::Char('>'), Key::Char('<')]);
    assert_eq!(state.sorted_by(), Some(0));
}

#[test]
fn a_filter_narrows_the_rows_and_escape_clears_it_before_it_goes_back() {
    let mut state = live();
    press(&mut state, &[Key::Enter]);
    assert_eq!(state.view, View::Partitions("sink-00".to_owned()));
    assert_eq!(state.partitions().len(), 64);
    press(&mut state, &[Key::Char('/')]);
    typed(&mut state, "HOST-1q");
    assert!(state.partitions().is_empty());
    press(&mut state, &[Key::Backspace, Key::Enter]);
    assert_eq!((state.mode, state.partitions().len()), (Mode::Browse, 21));
    press(&mut state, &[Key::Escape]);
    assert_eq!((state.partitions().len(), &state.view), (64, &View::Partitions("sink-00".to_owned())));
    press(&mut state, &[Key::Escape]);
    assert_eq!(state.view, View::Sinks);
    press(&mut state, &[Key::Escape]);
    assert_eq!(state.view, View::Sinks);
}

#[test]
fn a_paused_picture_stays_until_it_goes_on() {
    let mut state = live();
    press(&mut state, &[Key::Char('p')]);
    state.receive(seen(TIME_MS + 1_000), Duration::from_secs(2));
    assert_eq!(state.picture().map(|picture| picture.time_ms), Some(TIME_MS));
    assert_eq!(state.age(Duration::from_secs(5)), Some(Duration::from_secs(4)));
    assert!(shown(&state, 5, 80, 24).contains("PAUSED at 22:13:20Z"));
    press(&mut state, &[Key::Char('p')]);
    assert_eq!(state.picture().map(|picture| picture.time_ms), Some(TIME_MS + 1_000));
}

#[test]
fn a_bus_that_does_not_answer_leaves_the_last_picture_with_its_age_and_the_error() {
    let mut state = live();
    state.receive(Tick::failed(TIME_MS, "the bus did not answer"), Duration::from_secs(11));
    let text = shown(&state, 21, 80, 24);
    assert!(text.contains("20s old: the bus did not answer") && text.contains("sink-00"), "{text}");
    state.receive(seen(TIME_MS), Duration::from_secs(22));
    assert_eq!(state.error(), None);
}

#[test]
fn a_recording_plays_and_is_stepped_through_in_both_directions() {
    let ticks = vec![seen(1_000), seen(2_000), Tick::failed(3_000, "away"), seen(4_000)];
    let mut state = State::recording(ticks);
    let time = |state: &State| state.picture().map(|picture| picture.time_ms);
    state.play_on();
    assert_eq!(time(&state), Some(2_000));
    press(&mut state, &[Key::Right]);
    assert_eq!((time(&state), state.error()), (Some(2_000), Some("away")));
    // Who steps does not want it to go on by itself.
    state.play_on();
    assert_eq!(state.error(), Some("away"));
    press(&mut state, &[Key::Right, Key::Right, Key::Right]);
    assert_eq!(time(&state), Some(4_000));
    press(&mut state, &[Key::Left, Key::Left, Key::Left, Key::Left, Key::Left]);
    assert_eq!(time(&state), Some(1_000));
    press(&mut state, &[Key::Char('p')]);
    state.play_on();
    assert_eq!(time(&state), Some(2_000));
    assert_eq!(state.age(Duration::from_secs(9)), None);
}

#[test]
fn keys_that_concern_the_terminal_are_passed_on() {
    let mut state = live();
    for (key, action) in [
        (Key::Char('q'), Action::Quit),
        (Key::Interrupt, Action::Quit),
        (Key::Suspend, Action::Suspend),
        (Key::Redraw, Action::Redraw),
        (Key::Char('c'), Action::Copy),
    ] {
        assert_eq!(state.press(key), action);
    }
    // While a filter is typed, letters are text.
    press(&mut state, &[Key::Char('/'), Key::Char('q'), Key::Char('c')]);
    assert_eq!(state.filter, "qc");
    assert_eq!(state.press(Key::Interrupt), Action::Quit);
    press(&mut state, &[Key::Escape, Key::Char('?'), Key::Char('q')]);
    assert_eq!(state.mode, Mode::Browse, "a key closes the help");
}
