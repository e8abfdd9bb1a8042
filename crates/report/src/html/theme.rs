//! The colors of lines on a page that is light or dark. A color of the palette keeps its hue and is mixed with black or
//! white until it stands out from the page by the contrast that WCAG 2.2 asks of graphics (1.4.11), 3 to 1, or more.

use plotters::style::RGBColor;

/// The background of charts in the light theme, as in `templates/style.css`.
const LIGHT: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
/// The background of charts in the dark theme, as in `templates/style.css`.
const DARK: RGBColor = RGBColor(0x1A, 0x1D, 0x22);
/// The least contrast on a light page, with a margin for rounding.
const LEAST: f64 = 3.1;
/// The least contrast on a dark page, where thin lines look fainter.
const LEAST_ON_DARK: f64 = 4.5;

/// A color in both themes, as CSS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shades {
    pub(crate) light: String,
    pub(crate) dark: String,
}

impl Shades {
    /// Returns the shades of a color of the palette.
    pub(crate) fn of(color: RGBColor) -> Self {
        // Black is the farthest from a light page, and so becomes the farthest from a dark one.
        let on_dark = if color == RGBColor(0, 0, 0) { RGBColor(0xF0, 0xF0, 0xF0) } else { color };
        Self {
            light: css(until_visible(color, RGBColor(0, 0, 0), LIGHT, LEAST)),
            dark: css(until_visible(on_dark, RGBColor(255, 255, 255), DARK, LEAST_ON_DARK)),
        }
    }
}

/// Mixes `color` with more and more of `other` until its contrast with `page` is at least `least`.
fn until_visible(color: RGBColor, other: RGBColor, page: RGBColor, least: f64) -> RGBColor {
    let mixed = |share: f64| {
        let mix = |a: u8, b: u8| (f64::from(a) * (1.0 - share) + f64::from(b) * share).round() as u8;
        RGBColor(mix(color.0, other.0), mix(color.1, other.1), mix(color.2, other.2))
    };
    let steps = (0..=100).map(|step| mixed(f64::from(step) / 100.0));
    let mut visible = steps.filter(|mixed| contrast(*mixed, page) >= least);
    visible.next().unwrap_or(other)
}

/// Returns the contrast of two colors by WCAG 2.2: 1 for equal ones, 21 for black on white.
fn contrast(a: RGBColor, b: RGBColor) -> f64 {
    let [a, b] = [a, b].map(luminance);
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// Returns the relative luminance of a color of sRGB.
fn luminance(RGBColor(red, green, blue): RGBColor) -> f64 {
    let linear = |channel: u8| {
        let value = f64::from(channel) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
}

fn css(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

#[cfg(test)]
mod tests {
    use super::{DARK, LEAST, LEAST_ON_DARK, LIGHT, Shades, contrast, css, until_visible};
    use crate::color::Color;
    use crate::separation::{OTHER, SAME};
    use plotters::style::RGBColor;

    const COLORS: [Color; 9] = [
        Color::Gray,
        Color::Black,
        Color::Orange,
        Color::Green,
        Color::Sky,
        Color::Blue,
        Color::Wine,
        Color::Pink,
        Color::Vermilion,
    ];

    #[test]
    fn contrast_is_that_of_wcag() {
        let gray = RGBColor(0x77, 0x77, 0x77);
        assert!((contrast(RGBColor(0, 0, 0), RGBColor(255, 255, 255)) - 21.0).abs() < 1e-9);
        assert!((contrast(gray, RGBColor(255, 255, 255)) - 4.48).abs() < 0.01);
        assert!((contrast(gray, gray) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn every_color_is_visible_in_both_themes_and_no_two_are_equal() {
        let colors: Vec<RGBColor> = COLORS.iter().map(|color| color.rgb()).chain([SAME, OTHER]).collect();
        for &color in &colors {
            for (other, page, least) in
                [(RGBColor(0, 0, 0), LIGHT, LEAST), (RGBColor(255, 255, 255), DARK, LEAST_ON_DARK)]
            {
                let found = contrast(until_visible(color, other, page, least), page);
                assert!(found >= least, "{} on {}: {found}", css(color), css(page));
            }
        }
        let shades: Vec<Shades> = COLORS.iter().map(|color| Shades::of(color.rgb())).collect();
        for (place, a) in shades.iter().enumerate() {
            for b in &shades[..place] {
                assert!(a.light != b.light && a.dark != b.dark, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn the_style_sheet_has_the_backgrounds_that_were_checked() {
        let style = include_str!("../../templates/style.css");
        assert!(style.contains(&format!("--panel: light-dark({}, {})", css(LIGHT), css(DARK))), "{style}");
    }
}
