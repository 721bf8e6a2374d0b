use super::scale::Scale;
use super::unit::Unit;
use crate::page::Html;

/// The width of every chart, in the units of its drawing: those of a phone's screen, so that its text can be read there.
pub(super) const WIDTH: f64 = 440.0;
/// The height of a chart with two axes.
pub(super) const HEIGHT: f64 = 260.0;
/// What a character of a tick takes, at most.
pub(super) const CHARACTER: f64 = 8.5;
/// The number of colours, dashes and markers.
const STYLES: usize = 6;

/// The class of the line of this number.
pub(super) fn line_class(series: usize) -> String {
    format!("line s{}", series % STYLES)
}

/// The class of an area in the colour of the line of this number.
pub(super) fn fill_class(series: usize) -> String {
    format!("f{}", series % STYLES)
}

/// The marker of the line of this number; from the seventh on they are filled.
pub(super) fn mark(svg: &mut Html, series: usize, x: f64, y: f64) {
    let style = series % STYLES;
    let fill = if series >= STYLES { format!(" f{style}") } else { String::new() };
    let shape = match style {
        0 => "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
        1 => "m-3 -3h6v6h-6z",
        2 => "m0 -4l3.8 6.8h-7.6z",
        3 => "m0 -4.2l4.2 4.2l-4.2 4.2l-4.2 -4.2z",
        4 => "m-3.2 -3.2l6.4 6.4m0 -6.4l-6.4 6.4",
        _ => "m-4 0h8m-4 -4v8",
    };
    let class = format!("mark s{style}{fill}");
    svg.shape("path", &[("class", &class), ("d", &format!("M{x:.1} {y:.1}{shape}"))]);
}

/// A text in this much room, measured in characters; the middle of a longer one is left out.
pub(super) fn elided(text: &str, room: f64) -> String {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() as f64 <= room {
        return text.to_owned();
    }
    let mut kept = 0;
    while ((2 * kept + 3) as f64) < room {
        kept += 1;
    }
    characters[..kept].iter().chain(&['…']).chain(&characters[characters.len() - kept..]).collect()
}

/// Two axes, and the area between them.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    x: (Scale, Unit),
    y: (Scale, Unit),
}

impl Frame {
    pub(super) fn new(x: (Scale, Unit), y: (Scale, Unit)) -> Self {
        let widest = y.0.ticks().iter().map(|tick| y.1.short(*tick).chars().count()).max().unwrap_or(1);
        Self { left: widest as f64 * CHARACTER + 10.0, right: WIDTH - 16.0, top: 26.0, bottom: HEIGHT - 42.0, x, y }
    }

    pub(super) fn x(&self, value: f64) -> f64 {
        self.left + self.x.0.place(value) * (self.right - self.left)
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        self.bottom - self.y.0.place(value) * (self.bottom - self.top)
    }

    /// Draws grid, ticks and titles.
    pub(super) fn draw(&self, svg: &mut Html) {
        svg.leaf("text", &[("x", &2), ("y", &14), ("class", &"name")], &self.y.1.title());
        for tick in self.y.0.ticks() {
            let y = format!("{:.1}", self.y(tick));
            let left = format!("{:.1}", self.left);
            svg.shape("line", &[("class", &"grid"), ("x1", &left), ("x2", &self.right), ("y1", &y), ("y2", &y)]);
            let (x, y) = (format!("{:.1}", self.left - 6.0), format!("{:.1}", self.y(tick) + 4.5));
            svg.leaf("text", &[("x", &x), ("y", &y), ("text-anchor", &"end")], &self.y.1.short(tick));
        }
        let middle = format!("{:.1}", f64::midpoint(self.left, self.right));
        let title = [("x", &middle as &dyn std::fmt::Display), ("y", &(HEIGHT - 6.0)), ("text-anchor", &"middle")];
        ticks_below(svg, self.x, (self.left, self.right), self.bottom);
        svg.leaf("text", &[&title[..], &[("class", &"name")]].concat(), &self.x.1.title());
        let (left, bottom) = (format!("{:.1}", self.left), self.bottom);
        svg.shape("line", &[("class", &"axis"), ("x1", &left), ("x2", &self.right), ("y1", &bottom), ("y2", &bottom)]);
    }

    /// A path along these points, with a gap where one is not known.
    pub(super) fn path(&self, points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
        let mut path = String::new();
        let mut is_drawing = false;
        for point in points {
            match point {
                Some((x, y)) => {
                    let command = if is_drawing { 'L' } else { 'M' };
                    path.push_str(&format!("{command}{:.1} {:.1}", self.x(x), self.y(y)));
                    is_drawing = true;
                }
                None => is_drawing = false,
            }
        }
        path
    }
}

/// The ticks of an axis from left to right, with a text where there is room for it.
pub(super) fn ticks_below(svg: &mut Html, (scale, unit): (Scale, Unit), (left, right): (f64, f64), bottom: f64) {
    let mut free_from = 0.0;
    for tick in scale.ticks() {
        let text = unit.short(tick);
        let width = text.chars().count() as f64 * CHARACTER;
        let x = left + scale.place(tick) * (right - left);
        let end = bottom + 5.0;
        let at = format!("{x:.1}");
        svg.shape("line", &[("class", &"axis"), ("x1", &at), ("x2", &at), ("y1", &bottom), ("y2", &end)]);
        // A text at the edge stays inside the drawing.
        let middle = x.clamp(width / 2.0, WIDTH - width / 2.0);
        if middle - width / 2.0 >= free_from {
            let (x, y) = (format!("{middle:.1}"), bottom + 19.0);
            svg.leaf("text", &[("x", &x), ("y", &y), ("text-anchor", &"middle")], &text);
            free_from = middle + width / 2.0 + CHARACTER;
        }
    }
}
