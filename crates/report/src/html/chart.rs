//! A chart of a page: an inline SVG of lines or histograms, with its axes, its legend and the table of its values.
//!
//! The lines are drawn into a square of [`SIDE`] units, which the page stretches to the width it has; widths of strokes do
//! not stretch (`non-scaling-stroke`). Ticks and labels are text of the page beside it, so they have one size on a phone
//! and on a wide screen. `templates/report.js` reads the values from the table and zooms by another view box.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use askama::Template;
use plotters::style::RGBColor;

use super::theme::Shades;
use crate::canvas::round_step;

/// The side of the drawing, in units of its view box.
const SIDE: f64 = 1000.0;
/// A line of more points than this has no dots.
const MOST_DOTS: usize = 40;

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Form {
    /// A line through the points, with a dot on each.
    Line,
    /// A line without dots: a value that holds everywhere.
    Level,
    /// A line of dots: the paper's.
    Dotted,
    /// A histogram with bins of this width, whose centers are the points.
    Steps(f64),
}

/// A series of a chart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) label: String,
    pub(crate) color: RGBColor,
    pub(crate) form: Form,
    /// (x, y, standard deviation of y), ordered by x.
    pub(crate) points: Vec<(f64, f64, f64)>,
}

/// What a chart is about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// The id of the chart, one of its own on the page.
    pub(crate) id: String,
    pub(crate) title: String,
    /// The name of the horizontal axis.
    pub(crate) x_label: String,
    /// The name and unit of the vertical axis.
    pub(crate) y_label: String,
    /// The text below.
    pub(crate) caption: String,
    /// The lowest and the highest value that the vertical axis may show; without them the values decide.
    pub(crate) limits: (Option<f64>, Option<f64>),
    /// Whether the vertical axis begins at 0.
    pub(crate) from_zero: bool,
    /// The digits behind the point of values on the horizontal and the vertical axis.
    pub(crate) digits: (usize, usize),
    /// The range of the horizontal axis.
    pub(crate) x_range: (f64, f64),
    /// Whether the chart is one of many, and small.
    pub(crate) is_small: bool,
}

/// A tick: its place in percent of the axis, and its text.
struct Tick {
    place: String,
    label: String,
}

/// A series as drawn.
struct Drawn {
    label: String,
    shades: Shades,
    kind: &'static str,
    /// The value at the last point, for the legend.
    last: String,
    path: String,
    band: String,
    dots: String,
}

/// A line of the table: the place on the horizontal axis, and the value of each series there.
struct Row {
    at: String,
    values: Vec<String>,
}

/// A chart, ready for the page.
#[derive(Template)]
#[template(path = "chart.html")]
pub(crate) struct Chart {
    plan: Plan,
    drawn: Vec<Drawn>,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    y_range: (f64, f64),
    rows: Vec<Row>,
    side: f64,
}

impl askama::filters::HtmlSafe for Chart {}

impl Chart {
    /// Draws `series`; `None` if they have no finite value.
    pub(crate) fn new(plan: Plan, series: &[Series]) -> Option<Self> {
        let finite = || series.iter().flat_map(|series| &series.points).filter(|point| point.1.is_finite());
        let low = finite().map(|(_, y, std)| y - std).reduce(f64::min)?;
        let high = finite().map(|(_, y, std)| y + std).reduce(f64::max)?;
        let low = if plan.from_zero { low.min(0.0) } else { low };
        let step = round_step(if high > low { high - low } else { low.abs().max(1.0) }, 5.0);
        let bounded = |value: f64| {
            value.max(plan.limits.0.unwrap_or(f64::NEG_INFINITY)).min(plan.limits.1.unwrap_or(f64::INFINITY))
        };
        let y_range = (bounded((low / step).floor() * step), bounded((high / step).ceil() * step));
        // Equal values fill no range.
        let y_range = if y_range.0 < y_range.1 { y_range } else { (y_range.0 - step, y_range.1 + step) };
        let x_step = round_step(plan.x_range.1 - plan.x_range.0, if plan.is_small { 4.0 } else { 8.0 });
        let x_step = if plan.digits.0 == 0 { x_step.max(1.0) } else { x_step };
        let axes = Axes { x: plan.x_range, y: y_range };
        let drawn = series.iter().map(|series| axes.draw(series, plan.digits.1)).collect();
        Some(Self {
            drawn,
            x_ticks: ticks(plan.x_range, x_step),
            y_ticks: ticks(y_range, step),
            y_range,
            rows: rows(series, plan.digits),
            side: SIDE,
            plan,
        })
    }
}

/// The ranges that the square shows.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
}

impl Axes {
    /// Returns a place in the square as "x y".
    fn place(&self, x: f64, y: f64) -> String {
        let across = SIDE * share(x, self.x);
        let down = SIDE * (1.0 - share(y, self.y));
        format!("{across:.1} {down:.1}")
    }

    fn draw(&self, series: &Series, digits: usize) -> Drawn {
        let Series { label, color, form, points } = series;
        let mut drawn = Drawn {
            label: label.clone(),
            shades: Shades::of(*color),
            kind: match form {
                Form::Line | Form::Level => "line",
                Form::Dotted => "dotted",
                Form::Steps(_) => "steps",
            },
            last: points.last().map_or_else(String::new, |point| number(point.1, digits)),
            path: String::new(),
            band: String::new(),
            dots: String::new(),
        };
        if let Form::Steps(width) = form {
            drawn.path = self.steps(points, width / 2.0);
            return drawn;
        }
        // A value that is not finite has no place, so the line breaks there.
        for piece in points.split(|point| !point.1.is_finite()).filter(|piece| !piece.is_empty()) {
            let line: Vec<String> = piece.iter().map(|&(x, y, _)| self.place(x, y)).collect();
            put(&mut drawn.path, &format!("M{}", line.join("L")));
            if piece.len() == 1 {
                drawn.path.push_str("h0");
            }
            if piece.iter().any(|point| point.2 > 0.0) {
                let above = piece.iter().map(|&(x, y, std)| self.place(x, y + std));
                let below = piece.iter().rev().map(|&(x, y, std)| self.place(x, y - std));
                put(&mut drawn.band, &format!("M{}Z", above.chain(below).collect::<Vec<_>>().join("L")));
            }
            if *form == Form::Line && points.len() <= MOST_DOTS {
                for place in &line {
                    put(&mut drawn.dots, &format!("M{place}h0"));
                }
            }
        }
        drawn
    }

    /// Returns the outline of a histogram, from and to its base.
    fn steps(&self, points: &[(f64, f64, f64)], half: f64) -> String {
        let inside = |point: &&(f64, f64, f64)| point.0 >= self.x.0 && point.0 <= self.x.1;
        let shown: Vec<&(f64, f64, f64)> = points.iter().filter(inside).collect();
        let (Some(first), Some(last)) = (shown.first(), shown.last()) else { return String::new() };
        let mut path = format!("M{}", self.place(first.0 - half, 0.0));
        for (x, y, _) in &shown {
            put(&mut path, &format!("L{}L{}", self.place(x - half, *y), self.place(x + half, *y)));
        }
        put(&mut path, &format!("L{}", self.place(last.0 + half, 0.0)));
        path
    }
}

fn put(text: &mut String, more: &str) {
    // Writing to a string cannot fail.
    let _ = write!(text, "{more}");
}

/// Returns where `value` lies in a range, 0 to 1.
fn share(value: f64, (low, high): (f64, f64)) -> f64 {
    (value - low) / (high - low)
}

fn ticks((low, high): (f64, f64), step: f64) -> Vec<Tick> {
    let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last)
        .map(|place| {
            let value = place as f64 * step;
            Tick { place: format!("{:.3}", 100.0 * share(value, (low, high))), label: number(value, digits) }
        })
        .collect()
}

/// Returns the lines of the table: every place at which a series has a value.
fn rows(series: &[Series], (x_digits, y_digits): (usize, usize)) -> Vec<Row> {
    let mut places: BTreeMap<u64, f64> = BTreeMap::new();
    // Places are finite and ordered; equal ones have equal bits. The sign is flipped so that bits order as numbers do.
    let key = |x: f64| {
        let bits = x.to_bits();
        if x.is_sign_negative() { !bits } else { bits | 1 << 63 }
    };
    for (x, ..) in series.iter().flat_map(|series| &series.points) {
        // There is one zero.
        places.insert(key(x + 0.0), x + 0.0);
    }
    let value = |series: &Series, x: f64| {
        let found = series.points.iter().find(|point| key(point.0 + 0.0) == key(x));
        found.map_or_else(
            || "–".to_owned(),
            |&(_, y, std)| {
                let std = if std > 0.0 { format!(" ± {}", number(std, y_digits)) } else { String::new() };
                number(y, y_digits) + &std
            },
        )
    };
    places
        .into_values()
        .map(|x| Row {
            at: number(x, x_digits),
            values: series.iter().map(|series| value(series, x)).collect(),
        })
        .collect()
}

/// Returns a number as readers see it, with the minus sign of typography; NaN and infinities by name.
fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    // "-0.0" is zero.
    let is_zero = text.trim_start_matches('-').chars().all(|letter| matches!(letter, '0' | '.'));
    if is_zero { text.trim_start_matches('-').to_owned() } else { text.replace('-', "−") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn plan() -> Plan {
        Plan {
            id: "c".into(),
            title: "A <title>".into(),
            x_label: "Epoch".into(),
            y_label: "kNN (%)".into(),
            caption: "What was run.".into(),
            limits: (Some(0.0), Some(100.0)),
            from_zero: false,
            digits: (0, 1),
            x_range: (0.0, 10.0),
            is_small: false,
        }
    }

    fn series(points: &[(f64, f64, f64)]) -> Series {
        Series {
            label: "a & b".into(),
            color: RGBColor(0, 0x72, 0xB2),
            form: Form::Line,
            points: points.to_vec(),
        }
    }

    #[test]
    fn points_lie_where_their_values_are() {
        let chart =
            Chart::new(plan(), &[series(&[(0.0, 20.0, 0.0), (5.0, 30.0, 0.0), (10.0, 40.0, 0.0)])]).unwrap();
        assert_eq!(chart.y_range, (20.0, 40.0));
        assert_eq!(chart.drawn[0].path, "M0.0 1000.0L500.0 500.0L1000.0 0.0");
        let places: Vec<(&str, &str)> =
            chart.y_ticks.iter().map(|tick| (tick.label.as_str(), tick.place.as_str())).collect();
        assert_eq!(
            places,
            [("20", "0.000"), ("25", "25.000"), ("30", "50.000"), ("35", "75.000"), ("40", "100.000")]
        );
        let html = chart.render().unwrap();
        assert!(html.contains("A &#60;title&#62;") && html.contains("a &#38; b"), "{html}");
    }

    #[test]
    fn a_value_that_is_not_finite_is_named_and_breaks_the_line() {
        let chart =
            Chart::new(plan(), &[series(&[(0.0, 20.0, 0.0), (1.0, f64::NAN, 0.0), (2.0, 30.0, 0.0)])])
                .unwrap();
        assert_eq!(chart.drawn[0].path.matches('M').count(), 2);
        assert!(!chart.drawn[0].path.contains("NaN"), "{}", chart.drawn[0].path);
        assert!(chart.render().unwrap().contains("NaN"), "the table names it");
        assert!(Chart::new(plan(), &[series(&[(0.0, f64::NAN, 0.0)])]).is_none());
    }

    #[test]
    fn equal_values_have_a_range_around_them_and_negative_places_an_order() {
        let chart = Chart::new(plan(), &[series(&[(0.0, 50.0, 0.0), (1.0, 50.0, 0.0)])]).unwrap();
        assert!(chart.y_range.0 < 50.0 && chart.y_range.1 > 50.0, "{:?}", chart.y_range);
        let rows =
            rows(&[series(&[(0.5, 1.0, 0.0), (-0.5, 2.0, 0.1), (-1.0, 3.0, 0.0), (0.0, 4.0, 0.0)])], (1, 1));
        let texts: Vec<(&str, &str)> =
            rows.iter().map(|row| (row.at.as_str(), row.values[0].as_str())).collect();
        assert_eq!(texts, [("−1.0", "3.0"), ("−0.5", "2.0 ± 0.1"), ("0.0", "4.0"), ("0.5", "1.0")]);
    }

    #[test]
    fn numbers_are_written_as_in_print() {
        assert_eq!(number(-1.25, 1), "−1.2");
        assert_eq!(number(-0.01, 1), "0.0");
        assert_eq!(number(f64::NAN, 1), "NaN");
    }
}
