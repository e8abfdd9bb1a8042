//! Multi-crop: two large views of each image by the run's own transforms, and any number of small views,
//! which show a small part of the image in fewer pixels (Caron et al., `NeurIPS` 2020, section 3.2).
//!
//! Views of one size pass through the network together, so that a batch norm takes the statistics of all of
//! them, as in the authors' code; a projector's batch norms take those of all rows.

use invaspread_augment::AugmentConfig;

use super::MoreViews;
use crate::settings::{Refusal, at_least_one};

/// Number of large views of each image.
pub(super) const LARGE: usize = 2;

/// The small views: a method's keys `small_views`, `small_size` and `small_scale`.
#[derive(Debug, Clone, Copy)]
pub(super) struct SmallViews {
    /// Small views of each image.
    pub(super) views: usize,
    /// Width and height, in pixels.
    pub(super) size: usize,
    /// Least and greatest share of the image's area that a small view shows.
    pub(super) scale: [f64; 2],
}

impl SmallViews {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Returns a refusal that names the key that is out of range.
    pub(super) fn check(self) -> std::result::Result<(), Refusal> {
        let [low, high] = self.scale;
        let ok = 0.0 < low && low <= high && high <= 1.0;
        let expected = "two parts of the area, the smaller first, above 0 and at most 1";
        Refusal::unless(ok, "small_scale", format!("{low}, {high}"), expected)?;
        at_least_one("small_size", self.size)
    }

    /// Returns the group of small views, by the transforms that `augment` and `change` give.
    pub(super) fn more_views(
        self,
        augment: &AugmentConfig,
        change: impl FnOnce(&mut AugmentConfig),
    ) -> Vec<MoreViews> {
        if self.views == 0 {
            return Vec::new();
        }
        let mut crops = augment.small_crops(self.size, self.scale);
        change(&mut crops);
        vec![MoreViews { views: self.views, augment: crops }]
    }
}

#[cfg(test)]
mod tests {
    use super::SmallViews;
    use invaspread_augment::{AugmentConfig, RandomBlur};

    #[test]
    fn small_views_have_their_own_size_scale_and_change() {
        let small = SmallViews { views: 4, size: 24, scale: [0.05, 0.14] };
        let own = AugmentConfig { blur: Some(RandomBlur::default()), ..AugmentConfig::default() };
        let groups = small.more_views(&own, |augment| augment.blur = None);
        let [group] = &groups[..] else { panic!("{groups:?}") };
        assert_eq!((group.views, group.augment.size, group.augment.blur.as_ref()), (4, 24, None));
        assert_eq!(group.augment.resized_crop.scale.map(f64::to_bits), [0.05, 0.14].map(f64::to_bits));
        assert!(SmallViews { views: 0, ..small }.more_views(&own, |_| ()).is_empty());
    }

    #[test]
    fn values_out_of_range_name_their_key() {
        let small = SmallViews { views: 4, size: 24, scale: [0.05, 0.14] };
        assert_eq!(small.check(), Ok(()));
        for (bad, key) in [
            (SmallViews { size: 0, ..small }, "small_size"),
            (SmallViews { scale: [0.0, 0.1], ..small }, "small_scale"),
            (SmallViews { scale: [0.2, 0.1], ..small }, "small_scale"),
            (SmallViews { scale: [0.2, f64::NAN], ..small }, "small_scale"),
        ] {
            assert_eq!(bad.check().err().map(|refusal| refusal.key), Some(key.into()), "{bad:?}");
        }
    }
}
