//! The palette of figures. It is that of Okabe and Ito, whose colors stay distinct under all common forms of
//! color blindness. Their yellow is too faint for a line on white and is replaced by Tol's wine.

use plotters::style::RGBColor;
use serde::Deserialize;

/// A color of the palette by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Color {
    Gray,
    Black,
    Orange,
    Green,
    Sky,
    Blue,
    Wine,
    Pink,
    Vermilion,
}

impl Color {
    pub(crate) fn rgb(self) -> RGBColor {
        match self {
            Self::Gray => RGBColor(0x77, 0x77, 0x77),
            Self::Black => RGBColor(0x00, 0x00, 0x00),
            Self::Orange => RGBColor(0xE6, 0x9F, 0x00),
            Self::Green => RGBColor(0x00, 0x9E, 0x73),
            Self::Sky => RGBColor(0x56, 0xB4, 0xE9),
            Self::Blue => RGBColor(0x00, 0x72, 0xB2),
            Self::Wine => RGBColor(0x88, 0x22, 0x55),
            Self::Pink => RGBColor(0xCC, 0x79, 0xA7),
            Self::Vermilion => RGBColor(0xD5, 0x5E, 0x00),
        }
    }
}
