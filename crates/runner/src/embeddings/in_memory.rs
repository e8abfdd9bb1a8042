//! Arrays in the memory of another program, such as numpy's.

use super::array::{Array, Header};
use super::numpy::element_type;
use super::problem::Problem;

/// An array, row after row.
#[derive(Debug, Clone)]
pub struct InMemory<'a> {
    /// The name that errors give it.
    pub name: &'a str,
    /// The type of the elements as numpy writes it: `<f4`, `|b1`, `<U3`.
    pub element: String,
    /// The lengths of the axes.
    pub shape: Vec<usize>,
    /// The bytes of the elements.
    pub bytes: Vec<u8>,
}

impl InMemory<'_> {
    /// Returns the array as a file would hold it.
    ///
    /// # Errors
    /// Returns a problem if the number of bytes is not that of the type and the shape.
    pub(super) fn array(self) -> Result<Array, Problem> {
        let Self { element, shape, bytes, .. } = self;
        let header = Header { element: element_type(&element), columns_first: false, shape };
        // Elements that are never read, such as objects, have no size here.
        if header.element.size > 0 && header.bytes() != Some(bytes.len()) {
            return Err(Problem::new(
                format!("{} bytes of an array of {header}", bytes.len()),
                "as many as its elements have",
            ));
        }
        Ok(Array { header, bytes })
    }
}
