//! The class of each row: whole numbers or words, and the numbering that metrics need.

use std::io::Read;

use super::array::{Array, Shape};
use super::problem::Problem;
use super::rows::in_words;

/// The largest float that counts as a whole number.
const LARGEST_FLOAT: f64 = 1e30;

/// The labels of rows, as a file holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// Whole numbers in any numbering. Negative numbers are classes too.
    Numbers(Vec<i128>),
    /// Names.
    Words(Vec<String>),
}

impl Labels {
    /// Returns the number of labels.
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.len(),
            Self::Words(words) => words.len(),
        }
    }

    /// Returns whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of labels below 0.
    pub fn below_zero(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.iter().filter(|&&number| number < 0).count(),
            Self::Words(_) => 0,
        }
    }

    /// Reads labels from an array of whole numbers, booleans, floats without fractions, or words. Only one
    /// axis may be longer than 1.
    ///
    /// # Errors
    /// Returns a problem that names the other shape or type, or the label that is not a whole number.
    pub(super) fn from_array(array: &Array) -> Result<Self, Problem> {
        let shape = &array.header.shape;
        if shape.iter().filter(|&&length| length > 1).count() > 1 {
            return Err(Problem::new(
                format!("labels of the shape {}", Shape(shape)),
                "one label a row; for one-hot rows, use labels.argmax(axis=1)",
            ));
        }
        let (count, element) = (array.count(), &array.header.element);
        if element.is_text() {
            let words = (0..count).map(|row| {
                array.word(row).ok_or_else(|| {
                    let found = format!("a label of row {row} whose bytes are not text");
                    Problem::new(found, "words in UTF-8")
                })
            });
            return Ok(Self::Words(words.collect::<Result<_, _>>()?));
        }
        if !element.is_number() {
            return Err(Problem::new(format!("labels of the type {element}"), WHOLE));
        }
        let number = |row| match array.whole(row) {
            Some(number) => Ok(number),
            None => whole(array.number(row, 0, count, 1), row),
        };
        Ok(Self::Numbers((0..count).map(number).collect::<Result<_, _>>()?))
    }

    /// Reads labels from text with one label a line: numbers if every line is a number (also in the form of
    /// `numpy.savetxt`), else words. Blank lines at the end are ignored. Returns `None` if the file is not
    /// text.
    ///
    /// # Errors
    /// Returns a problem that names the empty line, or the number that is not whole.
    pub(super) fn from_text(mut file: impl Read) -> Result<Option<Self>, Problem> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| Problem::new(error.to_string(), LINES))?;
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) if !text.contains('\0') => text.strip_prefix('\u{feff}').unwrap_or(text),
            _ => return Ok(None),
        };
        // Editors and scripts leave blank lines at the end; anywhere else a label is missing.
        let lines: Vec<&str> = text.trim_end().lines().map(str::trim).collect();
        if let Some(line) = lines.iter().position(|line| line.is_empty()) {
            return Err(Problem::new(format!("nothing in line {}", line + 1), LINES));
        }
        if let Ok(numbers) = lines.iter().map(|line| line.parse()).collect::<Result<Vec<i128>, _>>() {
            return Ok(Some(Self::Numbers(numbers)));
        }
        let number = |line: &&str| {
            line.starts_with(|c: char| "+-.".contains(c) || c.is_ascii_digit()) && line.parse::<f64>().is_ok()
        };
        if lines.iter().all(number) {
            let numbers =
                lines.iter().enumerate().map(|(row, line)| whole(line.parse().unwrap_or(f64::NAN), row));
            return Ok(Some(Self::Numbers(numbers.collect::<Result<_, _>>()?)));
        }
        Ok(Some(Self::Words(lines.into_iter().map(ToOwned::to_owned).collect())))
    }
}

const WHOLE: &str = "whole numbers or words";
const LINES: &str = "text with one label a line";

fn whole(value: f64, row: usize) -> Result<i128, Problem> {
    if value.fract() == 0.0 && value.abs() <= LARGEST_FLOAT {
        return Ok(value as i128);
    }
    Err(Problem::new(format!("the label {} of row {row}, counted from 0", in_words(value)), WHOLE))
}

/// The classes of one or two sets of rows, numbered from 0 in the order of the labels. The same label is the
/// same class in both sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// The class of each test row.
    pub test: Vec<u32>,
    /// The class of each row of the gallery.
    pub gallery: Option<Vec<u32>>,
    /// The label of each class.
    pub labels: Labels,
}

/// Why labels could not be numbered as classes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassesError {
    /// One file has numbers and the other words, which are never equal.
    #[error(
        "the labels of one file are numbers and those of the other are words: save both as one or the other"
    )]
    Unlike,
    /// There are more classes than 32 bits can number.
    #[error("found {found} classes, expected at most {}", u32::MAX)]
    TooMany {
        /// The number of classes.
        found: usize,
    },
}

impl Classes {
    /// Numbers the classes of one or two sets of labels.
    ///
    /// # Errors
    /// Returns `Unlike` if one set has numbers and the other words, and `TooMany` if there are more classes
    /// than 32 bits can number.
    pub fn number(test: &Labels, gallery: Option<&Labels>) -> Result<Self, ClassesError> {
        match (test, gallery) {
            (Labels::Numbers(test), None) => numbered(test, None, Labels::Numbers),
            (Labels::Words(test), None) => numbered(test, None, Labels::Words),
            (Labels::Numbers(test), Some(Labels::Numbers(gallery))) => {
                numbered(test, Some(gallery), Labels::Numbers)
            }
            (Labels::Words(test), Some(Labels::Words(gallery))) => {
                numbered(test, Some(gallery), Labels::Words)
            }
            _ => Err(ClassesError::Unlike),
        }
    }

    /// Returns the number of classes.
    pub fn count(&self) -> usize {
        self.labels.len()
    }

    /// Returns the number of test rows that no search can classify correctly, because no row of the gallery
    /// (or, without a gallery, no other test row) is of their class.
    pub fn without_match(&self) -> usize {
        let (among, needed) = self.gallery.as_ref().map_or((&self.test, 2), |gallery| (gallery, 1));
        let mut rows_of = vec![0_usize; self.count()];
        for &class in among {
            rows_of[class as usize] += 1;
        }
        self.test.iter().filter(|&&class| rows_of[class as usize] < needed).count()
    }
}

fn numbered<T: Ord + Clone>(
    test: &[T],
    gallery: Option<&Vec<T>>,
    labels: impl Fn(Vec<T>) -> Labels,
) -> Result<Classes, ClassesError> {
    let mut distinct: Vec<&T> = test.iter().chain(gallery.into_iter().flatten()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    if u32::try_from(distinct.len()).is_err() {
        return Err(ClassesError::TooMany { found: distinct.len() });
    }
    let class = |label: &T| distinct.partition_point(|other| *other < label) as u32;
    let number = |labels: &[T]| labels.iter().map(class).collect::<Vec<_>>();
    Ok(Classes {
        test: number(test),
        gallery: gallery.map(|gallery| number(gallery)),
        labels: labels(distinct.into_iter().cloned().collect()),
    })
}
