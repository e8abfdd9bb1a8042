//! The colors of a table's rows.

use std::collections::BTreeMap;

use plotters::style::RGBColor;

use crate::canvas::INK;
use crate::color::Color;
use crate::rows;

/// The colors for rows without a fixed color, in this order.
const SPARE: [Color; 8] = [
    Color::Blue,
    Color::Green,
    Color::Sky,
    Color::Wine,
    Color::Pink,
    Color::Orange,
    Color::Black,
    Color::Gray,
];

/// The colors of rows. All rows have different colors until the palette is used up.
pub(crate) struct Palette(BTreeMap<String, RGBColor>);

impl Palette {
    /// Assigns colors to all rows of a table, so that all its figures use the same ones.
    pub(crate) fn of(rows: &[&str]) -> Self {
        let taken: Vec<Color> = rows.iter().filter_map(|row| fixed(row)).collect();
        let mut spare = SPARE.iter().filter(|color| !taken.contains(color)).chain(SPARE.iter().cycle());
        let color = |row: &&str| {
            let color = fixed(row).or_else(|| spare.next().copied());
            (row.to_string(), color.map_or(INK, Color::rgb))
        };
        Self(rows.iter().map(color).collect())
    }

    pub(crate) fn color(&self, row: &str) -> RGBColor {
        self.0.get(row).copied().or_else(|| fixed(row).map(Color::rgb)).unwrap_or(INK)
    }
}

/// Returns a color for each of `count` classes of images; more classes than colors begin again.
pub(crate) fn of_classes(count: usize) -> impl Iterator<Item = RGBColor> {
    SPARE.iter().chain([&Color::Vermilion]).cycle().take(count).map(|color| color.rgb())
}

/// Returns the color that a row has in every table, if it has a fixed one.
fn fixed(row: &str) -> Option<Color> {
    rows::known(row)?.color
}

#[cfg(test)]
mod tests {
    use super::{Palette, SPARE};

    #[test]
    fn rows_of_one_table_differ_in_color() {
        let ablation =
            ["full", "without_resized_crop", "without_grayscale", "without_color_jitter", "without_flip"];
        let methods = ["random", "exemplar", "nce", "deepcluster_100", "invaspread"];
        for rows in [&ablation, &methods] {
            let palette = Palette::of(rows);
            for (place, row) in rows.iter().enumerate() {
                assert!(
                    rows[..place].iter().all(|other| palette.color(other) != palette.color(row)),
                    "{row}"
                );
            }
        }
        assert_eq!(Palette::of(&methods).color("nce"), Palette::of(&["nce"]).color("nce"));
    }

    #[test]
    fn more_rows_than_colors_begin_again() {
        let rows: Vec<String> = (0..2 * SPARE.len()).map(|row| row.to_string()).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let palette = Palette::of(&rows);
        assert_eq!(palette.color("1"), palette.color(rows[1 + SPARE.len()]));
    }
}
