//! Divides labeled images into the training and the test images of a data set, as the config asks: all of them, subsets, held-out
//! images, or a share of each class where there is no test split.

use crate::config::DataConfig;
use crate::dataset::Split;
use crate::error::DataError;
use crate::subset;

/// An image that is not read yet.
pub(crate) trait Labeled: Clone {
    /// Returns the number of its class.
    fn label(&self) -> u32;
}

/// The listed images of a set.
pub(crate) struct Listed<'a, T> {
    /// The names of the classes.
    pub(crate) classes: &'a [String],
    /// The training images; all images, if there is no test split.
    pub(crate) train: Vec<T>,
    /// The test images.
    pub(crate) test: Option<Vec<T>>,
    /// The share of each class that becomes the test split if there is none.
    pub(crate) test_fraction: f64,
}

/// Images with their numbers in the whole split.
pub(crate) struct Numbered<T> {
    pub(crate) items: Vec<T>,
    pub(crate) numbers: Vec<u32>,
}

/// The splits, read.
pub(crate) struct Splits {
    pub(crate) train: Split,
    pub(crate) test: Split,
    /// The number of images that were left out because they are broken.
    pub(crate) skipped: usize,
}

impl<T: Clone> Numbered<T> {
    fn some(all: &[T], numbers: Vec<u32>) -> Self {
        Self { items: numbers.iter().map(|&number| all[number as usize].clone()).collect(), numbers }
    }
}

/// Checks the settings of a set whose images are resized and perhaps divided; `keys` name them.
pub(crate) fn check(keys: [&'static str; 2], image_size: usize, test_fraction: f64) -> Result<(), DataError> {
    let within = |key, good, found: String, expected: &str| {
        if good { Ok(()) } else { Err(DataError::Value { key, found, expected: expected.to_owned() }) }
    };
    let [size, fraction] = keys;
    within(size, (4..=1024).contains(&image_size), image_size.to_string(), "between 4 and 1024 pixels")?;
    let good = test_fraction > 0.0 && test_fraction < 1.0;
    within(fraction, good, test_fraction.to_string(), "a part between 0 and 1")
}

/// Chooses the images of both splits and reads them by `read`, which returns the images and the number left out. Subsets are
/// stratified by class.
pub(crate) fn open<T: Labeled>(
    config: &DataConfig,
    listed: Listed<'_, T>,
    notes: &mut Vec<String>,
    read: impl Fn(&Numbered<T>) -> Result<(Split, usize), DataError>,
) -> Result<Splits, DataError> {
    let Listed { classes, train, test, test_fraction } = listed;
    let (train, test) = match test {
        Some(test) => (train, test),
        None => cut(&train, classes, test_fraction, config.seed, notes),
    };
    let kept = subset::training(config, &labels(&train), classes.len(), train.len())?;
    let mut open = |chosen: &Numbered<T>, all: usize, keep: Option<usize>, what| {
        let (split, skipped) = read(chosen)?;
        // Images that were left out do not count.
        let taken_whole = keep.filter(|keep| *keep >= all);
        notes.extend(subset::note(taken_whole, all - skipped, what));
        Ok::<_, DataError>((split, skipped))
    };
    let held_out = kept.held_out.map(|numbers| Numbered::some(&train, numbers));
    let left = train.len() - held_out.as_ref().map_or(0, |held_out| held_out.items.len());
    let (train, skipped_train) = open(&Numbered::some(&train, kept.train), left, config.subset, "training")?;
    let (test, skipped_test) = match held_out {
        Some(held_out) => {
            let read = open(&held_out, held_out.items.len(), None, "test")?;
            notes.push(subset::held_out_note(read.0.len()));
            read
        }
        None => {
            let numbers = match subset::at_most(config.test_subset, test.len()) {
                Some(keep) => {
                    subset::stratified(&labels(&test), classes.len(), keep, config.seed, "test_subset")?
                }
                None => (0..test.len() as u32).collect(),
            };
            open(&Numbered::some(&test, numbers), test.len(), config.test_subset, "test")?
        }
    };
    Ok(Splits { train, test, skipped: skipped_train + skipped_test })
}

fn labels<T: Labeled>(items: &[T]) -> Vec<u32> {
    items.iter().map(Labeled::label).collect()
}

/// Divides every class into training and test images; classes with a single image are noted.
fn cut<T: Labeled>(
    items: &[T],
    classes: &[String],
    fraction: f64,
    seed: u64,
    notes: &mut Vec<String>,
) -> (Vec<T>, Vec<T>) {
    let (train, test) = subset::cut(&labels(items), classes.len(), fraction, seed);
    let pick =
        |side: Vec<u32>| -> Vec<T> { side.into_iter().map(|index| items[index as usize].clone()).collect() };
    let (train, test) = (pick(train), pick(test));
    notes.extend(untested_note(classes, &labels(&test)));
    (train, test)
}

/// Returns a sentence about classes without test images, if there are any; `tested` are the classes of the test images.
pub(crate) fn untested_note(classes: &[String], tested: &[u32]) -> Option<String> {
    const SHOWN: usize = 3;
    let mut is_tested = vec![false; classes.len()];
    for &class in tested {
        is_tested[class as usize] = true;
    }
    let untested: Vec<&str> = classes
        .iter()
        .zip(is_tested)
        .filter(|(_, tested)| !tested)
        .map(|(class, _)| class.as_str())
        .collect();
    let more = if untested.len() > SHOWN { ", ..." } else { "" };
    let shown = untested.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match untested.len() {
        0 => None,
        1 => Some(format!("the class {shown} has no test images")),
        count => Some(format!("{count} classes have no test images: {shown}{more}")),
    }
}

/// Returns the class of `asked` images of which none is `kept`, if there is one. Both are classes of images.
pub(crate) fn lost(classes: usize, asked: impl Iterator<Item = u32>, kept: &[u32]) -> Option<usize> {
    let mut lost = vec![false; classes];
    for class in asked {
        lost[class as usize] = true;
    }
    for &class in kept {
        lost[class as usize] = false;
    }
    lost.iter().position(|lost| *lost)
}
