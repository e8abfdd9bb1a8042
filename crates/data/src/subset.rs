//! Chooses subsets: training images at random by the seed, stratified by class, and test images from the
//! beginning, or training images that are held out in their place.

use invaspread_random::{Purpose, Stream};

use crate::config::DataConfig;
use crate::error::DataError;

/// Chooses `keep` of the images with `labels` (below `classes`), from each class in proportion to its size,
/// and returns ascending indices.
///
/// The numbers are rounded by the method of the largest remainder; ties go to the lower class. Within a
/// class, images are taken in a random order that depends only on `seed` and the class. So if classes have
/// equal sizes, a larger subset contains every smaller one with the same seed.
///
/// ```
/// use invaspread_data::subset::stratified;
///
/// let labels = [0, 1, 0, 1, 0, 1, 0, 1];
/// let kept = stratified(&labels, 2, 4, 0, "subset")?;
/// assert_eq!(kept.iter().filter(|&&index| labels[index as usize] == 0).count(), 2);
/// # Ok::<(), invaspread_data::DataError>(())
/// ```
///
/// # Errors
/// If `keep` is 0 or more than there are.
pub fn stratified(
    labels: &[u32],
    classes: usize,
    keep: usize,
    seed: u64,
    key: &'static str,
) -> Result<Vec<u32>, DataError> {
    check(keep, labels.len(), key)?;
    Ok(shares(labels, classes, keep, seed, |own, quota| &own[..quota]))
}

/// Returns the ascending indices of `keep` of the images with `labels`: from each class what `part` takes of
/// its images in their random order and of its share of `keep`.
fn shares(
    labels: &[u32],
    classes: usize,
    keep: usize,
    seed: u64,
    part: impl Fn(&[u32], usize) -> &[u32],
) -> Vec<u32> {
    let members = by_class(labels, classes);
    let mut quotas: Vec<usize> = members.iter().map(|own| own.len() * keep / labels.len()).collect();
    let mut order: Vec<usize> = (0..classes).collect();
    order.sort_by_key(|&class| std::cmp::Reverse(members[class].len() * keep % labels.len()));
    let missing = keep - quotas.iter().sum::<usize>();
    for &class in &order[..missing] {
        quotas[class] += 1;
    }
    let mut kept = Vec::with_capacity(keep);
    for (class, (mut own, quota)) in members.into_iter().zip(quotas).enumerate() {
        Stream::new(seed, Purpose::Subset, 0, class as u64).shuffle(&mut own);
        kept.extend_from_slice(part(&own, quota));
    }
    kept.sort_unstable();
    kept
}

/// The training images of a data set that are used, by their ascending indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Training {
    /// The images that are trained on.
    pub train: Vec<u32>,
    /// The images that are measured in place of the test images, if `data.held_out` is set. None of them is
    /// trained on.
    pub held_out: Option<Vec<u32>>,
}

/// Chooses, of the training images with `labels` (below `classes`), those that are trained on and, of the first
/// `labeled` ones, those that are held out.
///
/// The images held out are the last of each class in the random order whose first [`stratified`] takes. So a
/// run that holds images out trains on the images that it would train on without that, as long as enough
/// images are left.
///
/// # Errors
/// If images are to be held out and `test_subset` does not give their number, or gives all that there are.
pub(crate) fn training(
    config: &DataConfig,
    labels: &[u32],
    classes: usize,
    labeled: usize,
) -> Result<Training, DataError> {
    let mut held_out = None;
    if config.held_out == Some(true) {
        let wrong =
            |found: String, expected: String| DataError::Value { key: "test_subset", found, expected };
        let keep = config.test_subset.ok_or_else(|| {
            let expected = "the number of training images to hold out, as data.held_out is true";
            wrong("nothing".to_owned(), expected.to_owned())
        })?;
        if !(1..labeled).contains(&keep) {
            let most = labeled.max(1) - 1;
            let expected = format!("from 1 to {most} of the {labeled} labeled training images to hold out");
            return Err(wrong(keep.to_string(), expected));
        }
        held_out = Some(shares(&labels[..labeled], classes, keep, config.seed, |own, quota| {
            &own[own.len() - quota..]
        }));
    }
    let is_left =
        |index: &u32| held_out.as_ref().is_none_or(|held_out| held_out.binary_search(index).is_err());
    let left: Vec<u32> = (0..labels.len() as u32).filter(is_left).collect();
    let train = match at_most(config.subset, left.len()) {
        Some(keep) => {
            let chosen = stratified(labels, classes, keep, config.seed, "subset")?;
            if chosen.iter().all(is_left) {
                chosen
            } else {
                let of_left: Vec<u32> = left.iter().map(|&index| labels[index as usize]).collect();
                let chosen = stratified(&of_left, classes, keep, config.seed, "subset")?;
                chosen.into_iter().map(|place| left[place as usize]).collect()
            }
        }
        None => left,
    };
    Ok(Training { train, held_out })
}

/// Returns the indices of the first `keep` of `found` test images, or of all if `keep` is not given.
///
/// CIFAR-10 and `synthetic` come in mixed order, so their first images hold every class. Other sets may list
/// class after class; their test subset is [`stratified`] too.
///
/// # Errors
/// If `keep` is 0 or more than there are.
pub fn test(keep: Option<usize>, found: usize) -> Result<Vec<u32>, DataError> {
    let keep = keep.unwrap_or(found);
    check(keep, found, "test_subset")?;
    Ok((0..keep as u32).collect())
}

/// Divides every class: returns ascending indices of training images, and ascending indices of test images.
/// The test images are the share `fraction` of each class; if the class has at least two images, each side
/// gets at least one.
pub(crate) fn cut(labels: &[u32], classes: usize, fraction: f64, seed: u64) -> (Vec<u32>, Vec<u32>) {
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (class, mut own) in by_class(labels, classes).into_iter().enumerate() {
        Stream::new(seed, Purpose::Subset, 1, class as u64).shuffle(&mut own);
        let most = own.len().saturating_sub(1);
        let taken = ((own.len() as f64 * fraction).round() as usize).clamp(1.min(most), most);
        test.extend_from_slice(&own[..taken]);
        train.extend_from_slice(&own[taken..]);
    }
    train.sort_unstable();
    test.sort_unstable();
    (train, test)
}

fn by_class(labels: &[u32], classes: usize) -> Vec<Vec<u32>> {
    let mut members = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        members[label as usize].push(index as u32);
    }
    members
}

/// Returns `keep`, or `None` for all images if there are fewer than `keep`, since a profile's subset is meant
/// for large sets. [`notes`] then says so.
pub(crate) fn at_most(keep: Option<usize>, found: usize) -> Option<usize> {
    keep.map(|keep| keep.min(found))
}

/// Returns sentences for subsets of `config` that are larger than the numbers of `train` and `test` images,
/// and for images that are held out.
pub(crate) fn notes(config: &DataConfig, train: usize, test: usize) -> Vec<String> {
    if let Some(held_out) = config.test_subset.filter(|_| config.held_out == Some(true)) {
        let left = note(config.subset, train.saturating_sub(held_out), "training");
        return left.into_iter().chain([held_out_note(held_out)]).collect();
    }
    let asked = [(config.subset, train, "training"), (config.test_subset, test, "test")];
    asked.into_iter().filter_map(|(keep, found, what)| note(keep, found, what)).collect()
}

/// Returns the sentence for a number of training images that are held out.
pub(crate) fn held_out_note(number: usize) -> String {
    format!("{number} training images are held out and measured; no test image is (data.held_out)")
}

/// Returns a sentence if there are fewer than `keep` images (`what`: training or test).
pub(crate) fn note(keep: Option<usize>, found: usize, what: &str) -> Option<String> {
    let keep = keep.filter(|keep| *keep > found)?;
    Some(format!("all {found} {what} images are taken, as there are fewer than the {keep} asked for"))
}

fn check(keep: usize, found: usize, key: &'static str) -> Result<(), DataError> {
    if (1..=found).contains(&keep) {
        return Ok(());
    }
    Err(DataError::Value {
        key,
        found: keep.to_string(),
        expected: format!("between 1 and the {found} images there are"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn more_than_there_are_names_the_key() {
        let message = stratified(&[0, 1], 2, 3, 0, "subset").unwrap_err().to_string();
        assert_eq!(message, "data.subset: found 3, expected between 1 and the 2 images there are");
        assert!(stratified(&[0, 1], 2, 0, 0, "subset").is_err());
        assert!(test(Some(3), 2).unwrap_err().to_string().starts_with("data.test_subset: found 3"));
        assert_eq!(test(Some(2), 5).unwrap(), [0, 1]);
    }

    #[test]
    fn equal_classes_give_nested_subsets_and_another_seed_another_choice() {
        let labels: Vec<u32> = (0..1000).map(|i| i % 10).collect();
        let small = stratified(&labels, 10, 100, 5, "subset").unwrap();
        let large = stratified(&labels, 10, 500, 5, "subset").unwrap();
        assert!(small.iter().all(|index| large.contains(index)));
        assert_ne!(small, stratified(&labels, 10, 100, 6, "subset").unwrap());
    }

    #[test]
    fn images_are_held_out_of_what_is_not_trained_on() {
        let labels: Vec<u32> = (0..1000).map(|i| i % 10).collect();
        let plain = DataConfig { subset: Some(300), test_subset: Some(200), ..DataConfig::default() };
        let without = training(&plain, &labels, 10, 1000).unwrap();
        assert_eq!(without.held_out, None);
        let config = DataConfig { held_out: Some(true), ..plain };
        let with = training(&config, &labels, 10, 1000).unwrap();
        assert_eq!(with.train, without.train);
        let held_out = with.held_out.unwrap();
        assert_eq!(held_out.len(), 200);
        assert!(held_out.iter().all(|index| !with.train.contains(index)));
        // All that is left is trained on.
        let all = training(&DataConfig { subset: None, ..config.clone() }, &labels, 10, 1000).unwrap();
        assert_eq!((all.held_out, all.train.len()), (Some(held_out), 800));
        let many = training(&DataConfig { subset: Some(900), ..config.clone() }, &labels, 10, 1000).unwrap();
        assert_eq!(many.train, all.train);
        assert_eq!(
            notes(&DataConfig { subset: Some(900), ..config.clone() }, 1000, 50),
            [
                "all 800 training images are taken, as there are fewer than the 900 asked for",
                "200 training images are held out and measured; no test image is (data.held_out)"
            ]
        );
        for (number, found) in [(None, "found nothing"), (Some(0), "found 0"), (Some(1000), "found 1000")] {
            let config = DataConfig { test_subset: number, ..config.clone() };
            let message = training(&config, &labels, 10, 1000).unwrap_err().to_string();
            assert!(message.starts_with(&format!("data.test_subset: {found}, expected")), "{message}");
        }
    }

    proptest! {
        #[test]
        fn every_class_keeps_its_share(labels in prop::collection::vec(0u32..5, 1..200), part in 0.0f64..1.0, seed: u64) {
            let keep = 1 + ((labels.len() - 1) as f64 * part) as usize;
            let kept = stratified(&labels, 5, keep, seed, "subset").unwrap();
            prop_assert_eq!(kept.len(), keep);
            prop_assert!(kept.windows(2).all(|pair| pair[0] < pair[1]), "ascending, none twice");
            for class in 0..5 {
                let whole = labels.iter().filter(|&&label| label == class).count();
                let own = kept.iter().filter(|&&index| labels[index as usize] == class).count();
                let share = (whole * keep) as f64 / labels.len() as f64;
                prop_assert!((own as f64 - share).abs() < 1.0, "class {} keeps {} of {}, share {}", class, own, whole, share);
            }
        }

        #[test]
        fn no_image_is_both_trained_on_and_held_out(
            labels in prop::collection::vec(0u32..5, 2..200), subset in 1usize..250, part in 0.0f64..1.0, seed: u64
        ) {
            let keep = 1 + ((labels.len() - 2) as f64 * part) as usize;
            let base = DataConfig { held_out: Some(true), test_subset: Some(keep), seed, ..DataConfig::default() };
            for subset in [None, Some(subset)] {
                let chosen = training(&DataConfig { subset, ..base.clone() }, &labels, 5, labels.len()).unwrap();
                let held_out = chosen.held_out.unwrap();
                prop_assert_eq!(held_out.len(), keep);
                prop_assert!(chosen.train.iter().all(|index| !held_out.contains(index)));
                let left = labels.len() - keep;
                let asked = subset.unwrap_or(left).min(left);
                prop_assert_eq!(chosen.train.len(), asked);
            }
        }

        #[test]
        fn a_cut_uses_each_image_once(labels in prop::collection::vec(0u32..4, 1..100), fraction in 0.0f64..1.0, seed: u64) {
            let (train, test) = cut(&labels, 4, fraction, seed);
            for class in 0..4 {
                let of = |side: &[u32]| side.iter().filter(|&&index| labels[index as usize] == class).count();
                let whole = labels.iter().filter(|&&label| label == class).count();
                prop_assert!(whole < 2 || (of(&train) > 0 && of(&test) > 0));
            }
            let mut all = [train, test].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..labels.len() as u32).collect::<Vec<_>>());
        }
    }
}
