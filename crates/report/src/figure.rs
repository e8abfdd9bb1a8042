//! A figure in its two formats, SVG and PNG.

use crate::canvas::{png, rasterize};
use crate::error::ReportError;

/// A figure in both formats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// The SVG text. It names its font, but does not embed it.
    pub svg: String,
    /// The bytes of the PNG, which has twice the SVG's pixels in each direction.
    pub png: Vec<u8>,
}

impl Figure {
    /// Rasterizes a drawing, which is called `name` in errors.
    ///
    /// # Errors
    /// If the rasterizer or the PNG encoder fails.
    pub(crate) fn of_svg(name: &'static str, svg: String) -> Result<Self, ReportError> {
        let png = png(name, &rasterize(name, &svg)?)?;
        Ok(Self { svg, png })
    }
}
