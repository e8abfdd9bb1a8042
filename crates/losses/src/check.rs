//! Checks of shapes, index ranges and temperatures, made before a loss is computed. An error names the loss
//! and the input that is wrong.

use candle_core::{Result, Tensor, bail};

/// Returns the two sizes of a matrix with at least one row and one column.
pub(crate) fn matrix(loss: &str, what: &str, x: &Tensor) -> Result<(usize, usize)> {
    match x.dims() {
        &[rows, columns] if rows > 0 && columns > 0 => Ok((rows, columns)),
        other => bail!(
            "{loss}: {what} must be a matrix of at least one row and one column, its shape is {other:?}"
        ),
    }
}

/// Returns the two sizes of the features of two views: an even number of rows, view 1 of all images above
/// view 2.
pub(crate) fn two_views(loss: &str, features: &Tensor) -> Result<(usize, usize)> {
    let (rows, dim) = matrix(loss, "features", features)?;
    if rows % 2 != 0 {
        bail!(
            "{loss}: features have {rows} rows; an even number is needed, view 1 of all images above view 2"
        )
    }
    Ok((rows, dim))
}

/// Returns an error unless two inputs have one shape.
pub(crate) fn same_shape(loss: &str, names: [&str; 2], inputs: [&Tensor; 2]) -> Result<()> {
    let [found, expected] = inputs.map(Tensor::dims);
    if found != expected {
        bail!("{loss}: {} have the shape {found:?}, {} {expected:?}; they must agree", names[0], names[1])
    }
    Ok(())
}

/// Returns an error unless there are `rows` indices, each below `below`.
pub(crate) fn check_index(loss: &str, what: &str, index: &[u32], rows: usize, below: usize) -> Result<()> {
    if index.len() != rows {
        bail!("{loss}: {} {what} for {rows} rows of features; give one for each row", index.len())
    }
    if let Some((row, &found)) = index.iter().enumerate().find(|&(_, &i)| i as usize >= below) {
        bail!("{loss}: {what} {found} (row {row}) is out of range, there are {below}")
    }
    Ok(())
}

/// Returns an error unless a temperature is a positive number.
pub(crate) fn check_temperature(loss: &str, temperature: f64) -> Result<()> {
    if !(temperature > 0.0 && temperature.is_finite()) {
        bail!("{loss}: temperature must be a positive number, it is {temperature}")
    }
    Ok(())
}
