//! A drawn figure in its two forms.

use crate::canvas::{png, rasterise};
use crate::error::ReportError;

/// A figure in both forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// SVG text. It names its font and embeds none.
    pub svg: String,
    /// PNG bytes, at twice the pixels of the SVG.
    pub png: Vec<u8>,
}

impl Figure {
    /// Rasterises a drawing; errors call it `name`.
    ///
    /// # Errors
    /// Returns an error if the rasteriser or the PNG encoder fails.
    pub(crate) fn of_svg(name: &'static str, svg: String) -> Result<Self, ReportError> {
        let png = png(name, &rasterise(name, &svg)?)?;
        Ok(Self { svg, png })
    }
}
