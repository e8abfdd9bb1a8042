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

    /// Returns the group of small views, by the transforms of `augment`. The numbers that `augment` gives for
    /// the first and the second view are those of the large views: as in the code of SwAV
    /// (`multicropdataset.py`) and of DINO (`main_dino.py`), each small view is blurred with probability 0.5,
    /// if there is a blur, and none is solarized.
    pub(super) fn more_views(self, augment: &AugmentConfig) -> Vec<MoreViews> {
        if self.views == 0 {
            return Vec::new();
        }
        let mut crops = augment.small_crops(self.size, self.scale);
        crops.solarize = None;
        if let Some(blur) = &mut crops.blur {
            blur.probability = vec![0.5];
        }
        vec![MoreViews { views: self.views, augment: crops }]
    }
}

#[cfg(test)]
mod tests {
    use super::SmallViews;
    use invaspread_augment::{AugmentConfig, RandomBlur, RandomSolarize};

    #[test]
    fn small_views_have_their_own_size_scale_blur_and_no_solarization() {
        let small = SmallViews { views: 4, size: 24, scale: [0.05, 0.14] };
        // BYOL's, for two large views.
        let blur = RandomBlur { probability: vec![1.0, 0.1], ..RandomBlur::default() };
        let solarize = Some(RandomSolarize::default());
        let own = AugmentConfig { blur: Some(blur.clone()), solarize, ..AugmentConfig::default() };
        let groups = small.more_views(&own);
        let [group] = &groups[..] else { panic!("{groups:?}") };
        assert_eq!((group.views, group.augment.size, group.augment.solarize.as_ref()), (4, 24, None));
        assert_eq!(group.augment.blur, Some(RandomBlur { probability: vec![0.5], ..blur }));
        assert_eq!(group.augment.resized_crop.scale.map(f64::to_bits), [0.05, 0.14].map(f64::to_bits));
        assert_eq!(small.more_views(&AugmentConfig::default())[0].augment.blur, None, "no blur is added");
        assert!(SmallViews { views: 0, ..small }.more_views(&own).is_empty());
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
