use super::frame::{Frame, HEIGHT, line_class, mark};
use super::scale::Scale;
use super::unit::{Unit, known};
use super::{Chart, Key};
use crate::page::{Html, Table};

/// The most rows of a table beside a chart: those of a long run are too many to be read.
const ROWS: usize = 16;
/// The number of markers of a line.
const MARKS: usize = 5;

/// Figures over time, or over anything else that has an order; stretches of time may be shaded.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) title: String,
    pub(crate) about: String,
    /// What goes to the right, and where the values stand, in order.
    pub(crate) x: (Unit, Vec<f64>),
    pub(crate) y: Unit,
    pub(crate) lines: Vec<Line>,
    pub(crate) outages: Vec<Outage>,
}

/// One line.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// A value for each place; `None` where it is not known.
    pub(crate) values: Vec<Option<f64>>,
}

/// A stretch of time that is shaded.
#[derive(Debug)]
pub(crate) struct Outage {
    pub(crate) name: String,
    pub(crate) from: f64,
    /// `None` when it had not ended.
    pub(crate) to: Option<f64>,
}

impl Lines {
    /// The points of a line; `None` where the value is not known.
    fn points<'l>(&'l self, line: &'l Line) -> impl Iterator<Item = Option<(f64, f64)>> + 'l {
        let values = line.values.iter().map(|value| known(*value)).chain(std::iter::repeat(None));
        self.x.1.iter().zip(values).map(|(x, y)| Some((known(Some(*x))?, y?)))
    }

    fn frame(&self) -> Frame {
        let known = |line| self.points(line).flatten();
        let places = self.x.1.iter().copied();
        let values = self.lines.iter().flat_map(known).map(|(_, y)| y);
        Frame::new((Scale::between(places), self.x.0), (Scale::from_zero(values), self.y))
    }

    fn described(&self, line: &Line) -> String {
        let points: Vec<(f64, f64)> = self.points(line).flatten().collect();
        let highest = points.iter().copied().reduce(|best, point| if point.1 > best.1 { point } else { best });
        match (highest, points.last()) {
            (Some(highest), Some(last)) => format!(
                "{}: highest {} at {}, {} at the end.",
                line.name,
                self.y.exact(Some(highest.1)),
                self.x.0.short(highest.0),
                self.y.exact(Some(last.1))
            ),
            _ => format!("{}: not known.", line.name),
        }
    }

    fn draw_line(&self, svg: &mut Html, frame: &Frame, number: usize, line: &Line) {
        let path = frame.path(self.points(line));
        if !path.is_empty() {
            svg.shape("path", &[("class", &line_class(number)), ("d", &path)]);
        }
        // Not at the same places for all, so that markers of lines that meet do not hide each other.
        let points: Vec<(f64, f64)> = self.points(line).flatten().collect();
        let every = (points.len() / MARKS).max(1);
        let first = number * every / self.lines.len().max(1);
        for (x, y) in points.iter().skip(first.min(points.len().saturating_sub(1))).step_by(every) {
            mark(svg, number, frame.x(*x), frame.y(*y));
        }
    }
}

impl Chart for Lines {
    fn title(&self) -> &str {
        &self.title
    }

    fn about(&self) -> &str {
        &self.about
    }

    fn key(&self) -> Vec<Key> {
        let is_known = |line| self.points(line).flatten().next().is_some();
        let lines = self.lines.iter().enumerate();
        let lines = lines.map(|(number, line)| Key::line(number, &line.name, is_known(line)));
        lines.chain(self.outages.iter().map(|outage| Key::Shade(outage.name.clone()))).collect()
    }

    fn description(&self) -> String {
        let lines = self.lines.iter().map(|line| self.described(line));
        let outages = self.outages.iter().map(|outage| {
            let to = outage.to.map_or("the end".to_owned(), |to| self.x.0.short(to));
            format!("Shaded, {}: from {} to {to}.", outage.name, self.x.0.short(outage.from))
        });
        lines.chain(outages).collect::<Vec<_>>().join(" ")
    }

    fn height(&self) -> f64 {
        HEIGHT
    }

    fn draw(&self, svg: &mut Html) {
        let frame = self.frame();
        frame.draw(svg);
        for outage in &self.outages {
            let (from, to) = (frame.x(outage.from), outage.to.map_or(frame.right, |to| frame.x(to)));
            let (x, y) = (format!("{from:.1}"), frame.top);
            let (width, height) = (format!("{:.1}", (to - from).max(1.0)), frame.bottom - frame.top);
            svg.open("rect", &[("class", &"outage"), ("x", &x), ("y", &y), ("width", &width), ("height", &height)]);
            svg.leaf("title", &[], &outage.name).close("rect");
        }
        for (number, line) in self.lines.iter().enumerate() {
            self.draw_line(svg, &frame, number, line);
        }
    }

    fn table(&self) -> Table {
        let places = self.x.1.len();
        let rows = chosen(places, ROWS);
        let caption = match rows.len() {
            all if all == places => format!("{}, in {}", self.title, self.y.title()),
            some => format!("{}, in {}: {some} of {places} points", self.title, self.y.title()),
        };
        let names = self.lines.iter().map(|line| line.name.clone());
        let mut table = Table::new(&caption, std::iter::once(self.x.0.title()).chain(names));
        for row in rows {
            let place = self.x.1.get(row).map(|place| self.x.0.short(*place));
            let values = self.lines.iter().map(|line| self.y.exact(line.values.get(row).copied().flatten()));
            table.row(place.into_iter().chain(values).collect());
        }
        table
    }
}

/// At most this many of so many numbers, the first and the last among them.
fn chosen(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    (0..most).map(|number| number * (count - 1) / (most - 1)).collect()
}
