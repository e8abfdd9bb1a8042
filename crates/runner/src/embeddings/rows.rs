//! Rows of embeddings in single precision, in which the search works. They are scaled before, in double
//! precision, because a row whose numbers are too small or too large for single precision still has a
//! direction.

use super::array::{Array, Shape};
use super::problem::Problem;
use crate::methods::Features;

/// How rows are scaled before they are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaling {
    /// Each row is divided by its length, so that inner products are cosines. A row of zeros stays a row of
    /// zeros.
    UnitLength,
    /// Rows are not changed.
    Unscaled,
}

/// Facts about the rows that were read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowFacts {
    /// The number of rows of zeros, which have no direction.
    pub zero_rows: usize,
    /// The first row of zeros.
    pub first_zero_row: Option<usize>,
    /// The root mean square distance of the rows from their mean, divided by the root mean square of their
    /// lengths: 0 if all rows are equal, 1 if they point in all directions.
    pub spread: f64,
    /// Whether the file's numbers have more digits than single precision keeps.
    pub narrowed: bool,
}

/// Returns the rows of an array of shape (n, D), or with further axes of length 1, in single precision.
///
/// # Errors
/// Returns a problem that names the other shape, the elements that are not numbers, the number that is not
/// finite, or the number that single precision does not hold.
pub(super) fn rows(array: &Array, scaling: Scaling) -> Result<(Features, RowFacts), Problem> {
    let shape = &array.header.shape;
    let (rows, dim) = match shape[..] {
        [rows, dim, ref ones @ ..] if ones.iter().all(|&length| length == 1) => (rows, dim),
        _ => {
            return Err(Problem::new(
                format!("embeddings of the shape {}", Shape(shape)),
                "(n, D), a row for each image, as embeddings.reshape(len(embeddings), -1) makes",
            ));
        }
    };
    if !array.header.element.is_number() {
        let found = format!("embeddings of the type {}", array.header.element);
        return Err(Problem::new(found, "numbers"));
    }
    if rows == 0 || dim == 0 {
        return Err(Problem::new(
            format!("embeddings of the shape {}", Shape(shape)),
            "at least one row of one number",
        ));
    }
    let mut row = vec![0.0; dim];
    check_finite(array, rows, &mut row)?;

    let mut values = Vec::with_capacity(rows * dim);
    let mut facts = RowFacts {
        zero_rows: 0,
        first_zero_row: None,
        spread: 0.0,
        narrowed: array.header.element.size > size_of::<f32>(),
    };
    let mut spread = Spread::default();
    for index in 0..rows {
        read_row(array, index, rows, &mut row);
        match scaling {
            Scaling::UnitLength => {
                if !scale_to_unit_length(&mut row) {
                    facts.zero_rows += 1;
                    facts.first_zero_row = facts.first_zero_row.or(Some(index));
                }
            }
            Scaling::Unscaled => check_range(index, &row)?,
        }
        spread.add(&row);
        values.extend(row.iter().map(|&value| value as f32));
    }
    facts.spread = spread.relative();
    Ok((Features { values, dim }, facts))
}

fn read_row(array: &Array, index: usize, rows: usize, row: &mut [f64]) {
    let dim = row.len();
    for (column, value) in row.iter_mut().enumerate() {
        *value = array.number(index, column, rows, dim);
    }
}

/// Checks that all numbers are finite. The problem names the first that is not, and how many rows hold one.
fn check_finite(array: &Array, rows: usize, row: &mut [f64]) -> Result<(), Problem> {
    let (mut first, mut bad) = (None, 0);
    for index in 0..rows {
        read_row(array, index, rows, row);
        if let Some(column) = row.iter().position(|value| !value.is_finite()) {
            first = first.or(Some((index, column, row[column])));
            bad += 1;
        }
    }
    let Some((index, column, value)) = first else { return Ok(()) };
    let found = format!(
        "{} in row {index}, column {column} of the embeddings, both counted from 0 ({bad} of {rows} rows hold NaN or an infinity)",
        in_words(value)
    );
    Err(Problem::new(found, "finite numbers: the network has diverged, or the file is damaged"))
}

/// Returns a number as text; infinities and NaN as words.
pub(super) fn in_words(value: f64) -> String {
    match value {
        f64::INFINITY => "infinity".to_owned(),
        f64::NEG_INFINITY => "-infinity".to_owned(),
        _ if value.is_nan() => "NaN".to_owned(),
        _ => value.to_string(),
    }
}

/// Checks that single precision holds a row that is not scaled.
fn check_range(index: usize, row: &[f64]) -> Result<(), Problem> {
    let column = (0..row.len()).max_by(|&a, &b| row[a].abs().total_cmp(&row[b].abs())).unwrap_or(0);
    let largest = row[column];
    let bound = match largest.abs() {
        0.0 => return Ok(()),
        size if size > f64::from(f32::MAX) => format!("at most {:e}", f32::MAX),
        size if size < f64::from(f32::MIN_POSITIVE) => format!("{:e} and more", f32::MIN_POSITIVE),
        _ => return Ok(()),
    };
    let found =
        format!("{largest:e} as the largest number of row {index} (column {column}, both counted from 0)");
    Err(Problem::new(
        found,
        format!(
            "numbers that single precision holds, {bound}: divide all rows by one number, or scale them to length 1"
        ),
    ))
}

/// Divides a row by its length. Returns false and changes nothing if the row is all zeros.
fn scale_to_unit_length(row: &mut [f64]) -> bool {
    let largest = row.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    if largest == 0.0 {
        return false;
    }
    // Multiplying by a power of two changes no digit, and after it no square overflows. The power is applied
    // in two parts, because a single factor may overflow.
    let exponent = -largest.log2().floor() as i32;
    let (first, second) = (2.0_f64.powi(exponent / 2), 2.0_f64.powi(exponent - exponent / 2));
    let mut squares = 0.0;
    for value in row.iter_mut() {
        *value *= first;
        *value *= second;
        squares += *value * *value;
    }
    let length = squares.sqrt();
    for value in row {
        *value /= length;
    }
    true
}

/// Sums that give the spread of the rows. They are taken about the first row, so that nearly equal rows lose
/// no digits by cancellation.
#[derive(Default)]
struct Spread {
    rows: f64,
    origin: Vec<f64>,
    shifted: Vec<f64>,
    squares_shifted: f64,
    squares: f64,
}

impl Spread {
    fn add(&mut self, row: &[f64]) {
        if self.origin.is_empty() {
            self.origin = row.to_vec();
            self.shifted = vec![0.0; row.len()];
        }
        self.rows += 1.0;
        for ((value, origin), shifted) in row.iter().zip(&self.origin).zip(&mut self.shifted) {
            let difference = value - origin;
            *shifted += difference;
            self.squares_shifted += difference * difference;
            self.squares += value * value;
        }
    }

    fn relative(&self) -> f64 {
        let of_mean: f64 = self.shifted.iter().map(|sum| (sum / self.rows).powi(2)).sum();
        let about_mean = (self.squares_shifted / self.rows - of_mean).max(0.0);
        if self.squares == 0.0 { 0.0 } else { (about_mean * self.rows / self.squares).sqrt() }
    }
}
