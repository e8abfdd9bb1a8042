//! The colors of a table's rows: Okabe and Ito's palette, which stays distinct under all common forms of
//! color blindness. Its yellow is too faint for a line on white and is replaced by Tol's wine.

use std::collections::BTreeMap;

use plotters::style::RGBColor;
use serde::Deserialize;

use crate::canvas::INK;
use crate::rows;

const GREY: RGBColor = RGBColor(0x77, 0x77, 0x77);
const BLACK: RGBColor = RGBColor(0x00, 0x00, 0x00);
const ORANGE: RGBColor = RGBColor(0xE6, 0x9F, 0x00);
const GREEN: RGBColor = RGBColor(0x00, 0x9E, 0x73);
const SKY: RGBColor = RGBColor(0x56, 0xB4, 0xE9);
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xB2);
const WINE: RGBColor = RGBColor(0x88, 0x22, 0x55);
const PINK: RGBColor = RGBColor(0xCC, 0x79, 0xA7);
const VERMILION: RGBColor = RGBColor(0xD5, 0x5E, 0x00);

/// A color of the palette by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Color {
    Grey,
    Black,
    Orange,
    Green,
    Sky,
    Blue,
    Wine,
    Pink,
    Vermilion,
}

/// The colors for rows without a fixed color, in this order.
const SPARE: [RGBColor; 8] = [BLUE, GREEN, SKY, WINE, PINK, ORANGE, BLACK, GREY];

/// The colors of rows. Rows differ in color until the palette is used up.
pub(crate) struct Palette(BTreeMap<String, RGBColor>);

impl Palette {
    /// Assigns colors to all rows of a table, so that its figures agree.
    pub(crate) fn of(rows: &[&str]) -> Self {
        let taken: Vec<RGBColor> = rows.iter().filter_map(|row| own(row)).collect();
        let mut spare = SPARE.iter().filter(|color| !taken.contains(color)).chain(SPARE.iter().cycle());
        let color = |row: &&str| (row.to_string(), own(row).or_else(|| spare.next().copied()).unwrap_or(INK));
        Self(rows.iter().map(color).collect())
    }

    pub(crate) fn color(&self, row: &str) -> RGBColor {
        self.0.get(row).copied().or_else(|| own(row)).unwrap_or(INK)
    }
}

/// Returns the color that a row has in every table, if it has a fixed one.
fn own(row: &str) -> Option<RGBColor> {
    Some(match rows::known(row)?.color? {
        Color::Grey => GREY,
        Color::Black => BLACK,
        Color::Orange => ORANGE,
        Color::Green => GREEN,
        Color::Sky => SKY,
        Color::Blue => BLUE,
        Color::Wine => WINE,
        Color::Pink => PINK,
        Color::Vermilion => VERMILION,
    })
}

#[cfg(test)]
mod tests {
    use super::{Palette, SPARE};

    #[test]
    fn rows_of_one_table_differ_in_colour() {
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
    fn more_rows_than_colours_begin_again() {
        let rows: Vec<String> = (0..2 * SPARE.len()).map(|row| row.to_string()).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let palette = Palette::of(&rows);
        assert_eq!(palette.color("1"), palette.color(rows[1 + SPARE.len()]));
    }
}
