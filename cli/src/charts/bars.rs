use super::frame::{CHARACTER, WIDTH, elided, fill_class, ticks_below};
use super::scale::Scale;
use super::unit::{Unit, known};
use super::{Chart, Key};
use crate::page::{Html, Table};

const TOP: f64 = 4.0;
/// The height of a bar with its label above it.
const ROW: f64 = 46.0;
const THICK: f64 = 16.0;
const LEFT: f64 = 2.0;
const RIGHT: f64 = WIDTH - 16.0;

/// One figure each for several things, with an interval where there is one.
#[derive(Debug)]
pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) about: String,
    pub(crate) unit: Unit,
    pub(crate) bars: Vec<Bar>,
}

/// One bar.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    /// Which colour it has: that of the line of this number in other charts.
    pub(crate) series: usize,
    /// `None` when it is not known.
    pub(crate) value: Option<f64>,
    /// The interval, drawn as a whisker.
    pub(crate) interval: Option<(f64, f64)>,
}

impl Bar {
    fn interval(&self) -> Option<(f64, f64)> {
        let (low, high) = self.interval?;
        Some((known(Some(low))?, known(Some(high))?))
    }

    /// `12 (10 to 14)`; without an interval that is no longer than what is shown of the figure.
    fn text(&self, unit: Unit) -> String {
        let value = known(self.value).map_or(super::unit::NOT_KNOWN.to_owned(), |value| unit.short(value));
        match self.interval() {
            Some((low, high)) if unit.short(low) != unit.short(high) => {
                format!("{value} ({} to {})", unit.short(low), unit.short(high))
            }
            _ => value,
        }
    }
}

impl Bars {
    fn bottom(&self) -> f64 {
        TOP + ROW * self.bars.len().max(1) as f64
    }

    fn has_intervals(&self) -> bool {
        self.bars.iter().any(|bar| bar.interval().is_some())
    }
}

impl Chart for Bars {
    fn title(&self) -> &str {
        &self.title
    }

    fn about(&self) -> &str {
        &self.about
    }

    /// Each bar has its name above it.
    fn key(&self) -> Vec<Key> {
        Vec::new()
    }

    fn description(&self) -> String {
        let bars = self.bars.iter().map(|bar| format!("{}: {}.", bar.name, bar.text(self.unit)));
        bars.collect::<Vec<_>>().join(" ")
    }

    fn height(&self) -> f64 {
        self.bottom() + 44.0
    }

    fn draw(&self, svg: &mut Html) {
        let ends = self.bars.iter().flat_map(|bar| {
            let (low, high) = bar.interval().unzip();
            [known(bar.value), low, high]
        });
        let scale = Scale::from_zero(ends.flatten());
        let x = |value: f64| LEFT + scale.place(value) * (RIGHT - LEFT);
        let bottom = self.bottom();
        for tick in scale.ticks() {
            let at = format!("{:.1}", x(tick));
            svg.shape("line", &[("class", &"grid"), ("x1", &at), ("x2", &at), ("y1", &TOP), ("y2", &bottom)]);
        }
        for (number, bar) in self.bars.iter().enumerate() {
            let top = TOP + ROW * number as f64;
            let text = bar.text(self.unit);
            let room = (RIGHT - LEFT) / CHARACTER - text.chars().count() as f64 - 2.0;
            let baseline = top + 16.0;
            svg.leaf("text", &[("class", &"name"), ("x", &LEFT), ("y", &baseline)], &elided(&bar.name, room));
            let figure: [(&'static str, &dyn std::fmt::Display); 3] =
                [("x", &RIGHT), ("y", &baseline), ("text-anchor", &"end")];
            svg.leaf("text", &figure, &text);
            let (y, middle) = (top + 22.0, top + 22.0 + THICK / 2.0);
            if let Some(value) = known(bar.value).filter(|value| *value != 0.0) {
                let (from, to) = (x(value.min(0.0)), x(value.max(0.0)));
                let class = fill_class(bar.series);
                let (left, width) = (format!("{from:.1}"), format!("{:.1}", (to - from).max(1.0)));
                svg.open("rect", &[("class", &class), ("x", &left), ("y", &y), ("width", &width), ("height", &THICK)]);
                svg.leaf("title", &[], &format!("{}: {text}", bar.name)).close("rect");
            }
            if let Some((low, high)) = bar.interval() {
                let (low, high, up, down) = (x(low), x(high), middle - 5.0, middle + 5.0);
                let path = format!("M{low:.1} {up}V{down}M{low:.1} {middle}H{high:.1}M{high:.1} {up}V{down}");
                svg.shape("path", &[("class", &"whisker"), ("d", &path)]);
            }
        }
        svg.shape("line", &[("class", &"axis"), ("x1", &LEFT), ("x2", &RIGHT), ("y1", &bottom), ("y2", &bottom)]);
        ticks_below(svg, (scale, self.unit), (LEFT, RIGHT), bottom);
        let title: [(&'static str, &dyn std::fmt::Display); 4] =
            [("x", &(WIDTH / 2.0)), ("y", &(bottom + 38.0)), ("text-anchor", &"middle"), ("class", &"name")];
        svg.leaf("text", &title, &self.unit.title());
    }

    fn table(&self) -> Table {
        let caption = format!("{}, in {}", self.title, self.unit.title());
        let interval = if self.has_intervals() { &["from", "to"][..] } else { &[] };
        let titles = [&["", "value"], interval].concat();
        let mut table = Table::new(&caption, titles.into_iter().map(str::to_owned));
        for bar in &self.bars {
            let mut cells = vec![bar.name.clone(), self.unit.exact(bar.value)];
            if self.has_intervals() {
                let (low, high) = bar.interval().unzip();
                cells.extend([self.unit.exact(low), self.unit.exact(high)]);
            }
            table.row(cells);
        }
        table
    }
}
