//! The drawing tools of every figure: a pen with fractional pixels over plotters' SVG backend, one typeface,
//! and the rasterizer from SVG to PNG.
//!
//! plotters rounds positions to whole pixels, so figures are drawn with [`UNITS`] units for each pixel and
//! scaled down by the view box. Text is in DejaVu Sans, which is embedded here for the PNG; an SVG only names
//! it. Fonts of the system are not used, so a PNG is the same everywhere.

use plotters::prelude::{DrawingBackend, IntoFont, RGBAColor, RGBColor, SVGBackend, ShapeStyle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, FontTransform, TextStyle};
use resvg::{tiny_skia, usvg};

use crate::error::ReportError;
use crate::quote::one_line;

const UNITS: f64 = 10.0;
const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";
const REGULAR: &[u8] = include_bytes!("../assets/fonts/DejaVuSans.ttf");
const BOLD: &[u8] = include_bytes!("../assets/fonts/DejaVuSans-Bold.ttf");
/// The pixels of the PNG for each pixel of the SVG.
const PNG_SCALE: f32 = 2.0;

pub(crate) const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
pub(crate) const MUTED: RGBColor = RGBColor(0x66, 0x66, 0x66);
pub(crate) const GRID: RGBColor = RGBColor(0xE4, 0xE4, 0xE4);
pub(crate) const AXIS: RGBColor = RGBColor(0x88, 0x88, 0x88);

/// The horizontal position of a text relative to its given point. Vertically, the point is always the middle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// The style of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Face {
    /// The font size, pixels.
    pub(crate) size: f64,
    pub(crate) color: RGBColor,
    pub(crate) anchor: Anchor,
    pub(crate) bold: bool,
    /// Whether the text runs upwards, for a vertical axis.
    pub(crate) upwards: bool,
}

impl Face {
    pub(crate) fn new(size: f64, anchor: Anchor) -> Self {
        Self { size, color: INK, anchor, bold: false, upwards: false }
    }

    pub(crate) fn color(self, color: RGBColor) -> Self {
        Self { color, ..self }
    }

    pub(crate) fn bold(self, bold: bool) -> Self {
        Self { bold, ..self }
    }

    pub(crate) fn upwards(self) -> Self {
        Self { upwards: true, ..self }
    }
}

/// A drawing in progress. All coordinates are pixels from the top left.
pub(crate) struct Pen<'a> {
    backend: SVGBackend<'a>,
    failure: Option<String>,
}

/// Draws a figure of this size on white and returns its SVG text.
pub(crate) fn draw(
    figure: &'static str,
    title: &str,
    (width, height): (f64, f64),
    paint: impl FnOnce(&mut Pen<'_>),
) -> Result<String, ReportError> {
    let mut svg = String::new();
    let (wide, high) = ((width * UNITS) as u32, (height * UNITS) as u32);
    let failure = {
        let mut pen = Pen { backend: SVGBackend::with_string(&mut svg, (wide, high)), failure: None };
        pen.rectangle((0.0, 0.0), (width, height), RGBColor(255, 255, 255));
        paint(&mut pen);
        let finished = pen.backend.present();
        pen.note(finished);
        pen.failure
    };
    if let Some(reason) = failure {
        return Err(ReportError::Draw { figure, reason });
    }
    // The view box is `UNITS` times the displayed size; screen readers read the title.
    let fine = format!("width=\"{wide}\" height=\"{high}\"");
    let shown = format!("width=\"{width}\" height=\"{height}\" role=\"img\"");
    let svg = svg.replacen(&fine, &shown, 1);
    let escaped = one_line(title).replace('&', "&amp;").replace('<', "&lt;");
    let mark = "xmlns=\"http://www.w3.org/2000/svg\">";
    Ok(svg.replacen(mark, &format!("{mark}\n<title>{escaped}</title>"), 1))
}

impl Pen<'_> {
    pub(crate) fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), color: RGBColor) {
        let result = self.backend.draw_rect(at((x, y)), at((x + width, y + height)), &color, true);
        self.note(result);
    }

    pub(crate) fn line(&mut self, points: &[(f64, f64)], color: RGBColor, width: f64) {
        let style = stroke(color.to_rgba(), width);
        let result = self.backend.draw_path(points.iter().map(|&point| at(point)), &style);
        self.note(result);
    }

    /// Draws round dots along a path, at equal distances.
    pub(crate) fn dotted(&mut self, points: &[(f64, f64)], color: RGBColor, width: f64) {
        let spacing = width * 2.4;
        let mut until_next = 0.0;
        for pair in points.windows(2) {
            let (dx, dy) = (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
            let length = dx.hypot(dy);
            while until_next <= length && length > 0.0 {
                let share = until_next / length;
                self.dot((pair[0].0 + dx * share, pair[0].1 + dy * share), width / 2.0, color);
                until_next += spacing;
            }
            until_next -= length;
        }
    }

    pub(crate) fn band(&mut self, outline: &[(f64, f64)], color: RGBColor) {
        let faint: RGBAColor = color.mix(0.16);
        let result = self.backend.fill_polygon(outline.iter().map(|&point| at(point)), &faint);
        self.note(result);
    }

    pub(crate) fn dot(&mut self, center: (f64, f64), radius: f64, color: RGBColor) {
        let result = self.backend.draw_circle(at(center), (radius * UNITS).round() as u32, &color, true);
        self.note(result);
    }

    /// Draws a diamond with a white inside.
    pub(crate) fn hollow_diamond(&mut self, (x, y): (f64, f64), radius: f64, color: RGBColor, width: f64) {
        let corners = [(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)];
        let result =
            self.backend.fill_polygon(corners.iter().map(|&point| at(point)), &RGBColor(255, 255, 255));
        self.note(result);
        let tip = (x + radius * 0.01, y - radius);
        self.line(&[corners[0], corners[1], corners[2], corners[3], tip], color, width);
    }

    pub(crate) fn text(&mut self, position: (f64, f64), text: &str, face: Face) {
        let style = if face.bold { FontStyle::Bold } else { FontStyle::Normal };
        // plotters divides sizes by 1.24 on the way to SVG.
        let font = (FAMILY, face.size * UNITS * 1.24, style).into_font();
        let font = if face.upwards { font.transform(FontTransform::Rotate270) } else { font };
        let h_pos = match face.anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let style = TextStyle::from(font).color(&face.color).pos(Pos::new(h_pos, VPos::Center));
        let result = self.backend.draw_text(&one_line(text), &style, at(position));
        self.note(result);
    }

    fn note<E: std::fmt::Display>(&mut self, result: Result<(), E>) {
        if let (Err(error), None) = (result, &self.failure) {
            self.failure = Some(error.to_string());
        }
    }
}

fn at((x, y): (f64, f64)) -> (i32, i32) {
    ((x * UNITS).round() as i32, (y * UNITS).round() as i32)
}

fn stroke(color: RGBAColor, width: f64) -> ShapeStyle {
    ShapeStyle { color, filled: false, stroke_width: (width * UNITS).round().max(1.0) as u32 }
}

/// Renders SVG text at twice its size, on white.
pub(crate) fn rasterize(figure: &'static str, svg: &str) -> Result<image::RgbImage, ReportError> {
    let failed = |reason: String| ReportError::Draw { figure, reason };
    let mut options = usvg::Options { font_family: "DejaVu Sans".to_owned(), ..usvg::Options::default() };
    options.fontdb_mut().load_font_data(REGULAR.to_vec());
    options.fontdb_mut().load_font_data(BOLD.to_vec());
    let tree = usvg::Tree::from_str(svg, &options).map_err(|error| failed(error.to_string()))?;
    let size = tree.size();
    let (width, height) =
        ((size.width() * PNG_SCALE).round() as u32, (size.height() * PNG_SCALE).round() as u32);
    let mut pixmap = tiny_skia::Pixmap::new(width, height)
        .ok_or_else(|| failed(format!("{width} x {height} pixels is not a valid size")))?;
    pixmap.fill(tiny_skia::Color::WHITE);
    resvg::render(&tree, tiny_skia::Transform::from_scale(PNG_SCALE, PNG_SCALE), &mut pixmap.as_mut());
    // The background is opaque, so premultiplied colors equal the colors.
    let pixels = pixmap.data().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    image::RgbImage::from_raw(width, height, pixels)
        .ok_or_else(|| failed("the raster lost pixels".to_owned()))
}

/// Encodes a picture as PNG.
pub(crate) fn png(figure: &'static str, picture: &image::RgbImage) -> Result<Vec<u8>, ReportError> {
    let mut bytes = Vec::new();
    picture
        .write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png)
        .map_err(|error| ReportError::Draw { figure, reason: error.to_string() })?;
    Ok(bytes)
}

/// Estimates the width of a text in pixels: a letter of DejaVu Sans is on average a little under 0.6 of the
/// font size wide.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.59
}

/// Moves positions as little as possible (least squares) so that neighbors keep the distance `gap` and all
/// stay within `low..=high`. Returns them in the given order. If they do not fit, they are spread evenly.
pub(crate) fn spread(wanted: &[f64], gap: f64, (low, high): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]).then(a.cmp(&b)));
    let gap = gap.min((high - low) / (wanted.len().max(2) - 1) as f64);
    // Neighbors that would overlap form a pool. A pool starts at the mean of the positions that its members
    // want.
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for &index in &order {
        let mut pool = (wanted[index], 1);
        let bounded =
            |(start, count): (f64, usize)| start.clamp(low, (high - gap * (count - 1) as f64).max(low));
        while let Some(&before) = pools.last() {
            let end = bounded(before) + gap * before.1 as f64;
            if end <= bounded(pool) + 1e-9 {
                break;
            }
            let shifted = pool.0 - gap * before.1 as f64;
            let count = before.1 + pool.1;
            pool = ((before.0 * before.1 as f64 + shifted * pool.1 as f64) / count as f64, count);
            pools.pop();
        }
        pools.push(pool);
    }
    let mut placed = vec![0.0; wanted.len()];
    let mut members = order.into_iter();
    for (start, count) in pools {
        let start = start.clamp(low, (high - gap * (count - 1) as f64).max(low));
        for (place, index) in members.by_ref().take(count).enumerate() {
            placed[index] = start + gap * place as f64;
        }
    }
    placed
}

/// Returns a round step (1, 2 or 5 times a power of ten) that divides `range` into at most `most` parts.
pub(crate) fn round_step(range: f64, most: f64) -> f64 {
    let rough = (range / most).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough - 1e-9)
        .unwrap_or(rough)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn spread_keeps_the_gap_the_order_and_the_bounds() {
        let wanted = [50.0, 10.0, 51.0, 52.0, 99.0, 98.0, 0.0];
        let placed = spread(&wanted, 10.0, (0.0, 100.0));
        let mut sorted: Vec<(f64, f64)> = wanted.iter().copied().zip(placed.iter().copied()).collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        for pair in sorted.windows(2) {
            assert!(pair[1].1 - pair[0].1 >= 10.0 - 1e-6, "{sorted:?}");
        }
        assert!(placed.iter().all(|y| (0.0..=100.0).contains(y)), "{placed:?}");
        // Alone, the three around 51 would be centered on it.
        assert!((placed[2] - 51.0).abs() < 1e-9, "{placed:?}");
    }

    #[test]
    fn spread_leaves_alone_what_does_not_collide() {
        assert_eq!(spread(&[5.0, 80.0, 40.0], 10.0, (0.0, 100.0)), [5.0, 80.0, 40.0]);
        assert_eq!(spread(&[], 10.0, (0.0, 100.0)), Vec::<f64>::new());
        let crowded = spread(&[1.0; 11], 30.0, (0.0, 100.0));
        assert!((crowded[10] - 100.0).abs() < 1e-9 && crowded[0].abs() < 1e-9, "{crowded:?}");
    }

    #[test]
    fn steps_are_round() {
        for (range, most, step) in
            [(10.0, 10.0, 1.0), (200.0, 10.0, 20.0), (70.0, 8.0, 10.0), (30.0, 8.0, 5.0)]
        {
            assert!((round_step(range, most) - step).abs() < 1e-9, "{range} {most}");
        }
    }

    #[test]
    fn text_is_drawn_with_the_embedded_font() {
        let picture = |text: &str, bold| {
            let face = Face::new(20.0, Anchor::Start).bold(bold);
            let svg =
                draw("test", "a < b & c", (120.0, 40.0), |pen| pen.text((5.0, 20.0), text, face)).unwrap();
            assert!(svg.contains("<title>a &lt; b &amp; c</title>"), "{svg}");
            let picture = rasterize("test", &svg).unwrap();
            assert_eq!(picture.dimensions(), (240, 80));
            picture.pixels().filter(|pixel| pixel[0] < 128).count()
        };
        assert_eq!(picture("", false), 0);
        assert!(picture("Epoch", false) > 100, "no system font is needed");
        assert!(picture("Epoch", true) > picture("Epoch", false), "bold is heavier");
    }
}
