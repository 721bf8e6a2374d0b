use super::frame::{Frame, HEIGHT, line_class, mark};
use super::scale::Scale;
use super::unit::{Unit, known};
use super::{Chart, Key};
use crate::page::{Html, Table};

/// The shares that the table names; the last one is the highest value.
const SHARES: [(f64, &str); 5] = [(0.5, "50%"), (0.9, "90%"), (0.99, "99%"), (0.999, "99.9%"), (1.0, "all")];

/// Which share of things is at most how large, on a log axis: a stall is seen however rare it is.
#[derive(Debug)]
pub(crate) struct Distribution {
    pub(crate) title: String,
    pub(crate) about: String,
    pub(crate) unit: Unit,
    /// What the shares are of, in the plural.
    pub(crate) of: &'static str,
    pub(crate) curves: Vec<Curve>,
}

/// One curve.
#[derive(Debug)]
pub(crate) struct Curve {
    pub(crate) name: String,
    /// Values in ascending order, each with the share of things that are at most as large, up to 1; empty when nothing is known.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Curve {
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().filter_map(|(value, share)| Some((known(Some(*value))?, known(Some(*share))?)))
    }

    /// The value that this share of things does not exceed.
    fn at(&self, wanted: f64) -> Option<f64> {
        // Shares that were added up miss 1 by what rounding takes.
        self.points().find(|(_, share)| *share >= wanted - 1e-9).map(|(value, _)| value)
    }
}

impl Distribution {
    fn frame(&self) -> Frame {
        let values = self.curves.iter().flat_map(Curve::points).map(|(value, _)| value);
        let shares = Scale::Linear { low: 0.0, high: 1.0, step: 0.25 };
        Frame::new((Scale::log(values), self.unit), (shares, Unit::Share(self.of)))
    }
}

impl Chart for Distribution {
    fn title(&self) -> &str {
        &self.title
    }

    fn about(&self) -> &str {
        &self.about
    }

    fn key(&self) -> Vec<Key> {
        let curves = self.curves.iter().enumerate();
        curves.map(|(number, curve)| Key::line(number, &curve.name, curve.points().next().is_some())).collect()
    }

    fn description(&self) -> String {
        let curves = self.curves.iter().map(|curve| match (curve.at(0.5), curve.at(1.0)) {
            (Some(half), Some(all)) => {
                let (half, all) = (self.unit.short(half), self.unit.short(all));
                format!("{}: half of the {} within {half}, all within {all}.", curve.name, self.of)
            }
            _ => format!("{}: not known.", curve.name),
        });
        curves.collect::<Vec<_>>().join(" ")
    }

    fn height(&self) -> f64 {
        HEIGHT
    }

    fn draw(&self, svg: &mut Html) {
        let frame = self.frame();
        frame.draw(svg);
        for (number, curve) in self.curves.iter().enumerate() {
            let mut steps = Vec::new();
            let mut share = 0.0;
            for (value, next) in curve.points() {
                steps.extend([Some((value, share)), Some((value, next))]);
                share = next;
            }
            if steps.is_empty() {
                continue;
            }
            svg.shape("path", &[("class", &line_class(number)), ("d", &frame.path(steps.into_iter()))]);
            for wanted in [0.5, 0.9, 1.0] {
                if let Some(value) = curve.at(wanted) {
                    mark(svg, number, frame.x(value), frame.y(wanted));
                }
            }
        }
    }

    fn table(&self) -> Table {
        let titles = SHARES.iter().map(|(_, name)| (*name).to_owned());
        let mut table = Table::new(&format!("{}: at most", self.title), std::iter::once(String::new()).chain(titles));
        for curve in &self.curves {
            let values = SHARES.iter().map(|(share, _)| self.unit.exact(curve.at(*share)));
            table.row(std::iter::once(curve.name.clone()).chain(values).collect());
        }
        table
    }
}
