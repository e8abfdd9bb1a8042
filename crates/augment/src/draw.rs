//! The random parameters of a view, drawn as in torchvision 0.2, which the paper used, or as in torchvision
//! today.
//!
//! Only the distributions of the resized crop differ. torchvision 0.2: the aspect ratio is uniform in its
//! range, width and height are exchanged half of the time, and if ten windows in a row do not fit, the
//! largest centered square is taken. Today: the ratio is log-uniform, nothing is exchanged, and if ten
//! windows in a row do not fit, the largest centered window whose ratio is in the range is taken. The factors
//! of the jitter and the order of its changes are uniform in both; today the order is drawn before the
//! factors.

use invaspread_random::Stream;

use crate::config::{ColorJitter, ParameterDraw, ResizedCrop};
use crate::geometry::Window;

/// One of the four changes of the color jitter with its factor (for hue, a part of the color circle).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Adjust {
    /// A change by [`crate::brightness`].
    Brightness(f64),
    /// A change by [`crate::contrast`].
    Contrast(f64),
    /// A change by [`crate::saturation`].
    Saturation(f64),
    /// A change by [`crate::hue`].
    Hue(f64),
}

const TRIES: usize = 10;

/// Draws the window of a random resized crop in an image of `width` x `height`.
///
/// ```
/// use invaspread_augment::{ParameterDraw, ResizedCrop, resized_crop_window};
/// use invaspread_random::{Purpose, Stream};
///
/// let mut stream = Stream::new(0, Purpose::Augment, 0, 0);
/// let window = resized_crop_window(&ResizedCrop::default(), ParameterDraw::Current, 32, 32, &mut stream);
/// assert!(window.left + window.width <= 32 && window.top + window.height <= 32);
/// ```
pub fn resized_crop_window(
    config: &ResizedCrop,
    draw: ParameterDraw,
    width: usize,
    height: usize,
    stream: &mut Stream,
) -> Window {
    let area = (width * height) as f64;
    let [low, high] = config.ratio;
    for _ in 0..TRIES {
        let target = stream.between(config.scale[0], config.scale[1]) * area;
        let ratio = match draw {
            ParameterDraw::Torchvision02 => stream.between(low, high),
            ParameterDraw::Current => stream.between(low.ln(), high.ln()).exp(),
        };
        let (mut w, mut h) = (round(target * ratio), round(target / ratio));
        if draw == ParameterDraw::Torchvision02 && stream.chance(0.5) {
            std::mem::swap(&mut w, &mut h);
        }
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = stream.below(height - h + 1);
            let left = stream.below(width - w + 1);
            return Window { top, left, height: h, width: w };
        }
    }
    let (w, h) = match draw {
        ParameterDraw::Torchvision02 => (width.min(height), width.min(height)),
        ParameterDraw::Current => {
            let ratio = width as f64 / height as f64;
            if ratio < low {
                (width, (width as f64 / low).round_ties_even() as usize)
            } else if ratio > high {
                ((height as f64 * high).round_ties_even() as usize, height)
            } else {
                (width, height)
            }
        }
    };
    // If the range of ratios does not contain 1, rounding could exceed the image or give 0.
    let (w, h) = (w.clamp(1, width), h.clamp(1, height));
    Window { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
}

fn round(area: f64) -> usize {
    area.sqrt().round_ties_even() as usize
}

/// Draws the changes of the jitter, in the order in which they are applied, with `None` for those whose
/// strength is zero.
///
/// ```
/// use invaspread_augment::{ColorJitter, ParameterDraw, jitter};
/// use invaspread_random::{Purpose, Stream};
///
/// let [brightness, contrast, saturation, hue] = [0.0; 4];
/// let none = ColorJitter { brightness, contrast, saturation, hue, ..ColorJitter::default() };
/// let mut stream = Stream::new(0, Purpose::Augment, 0, 0);
/// assert!(jitter(&none, ParameterDraw::Current, &mut stream).iter().all(Option::is_none));
/// ```
pub fn jitter(config: &ColorJitter, draw: ParameterDraw, stream: &mut Stream) -> [Option<Adjust>; 4] {
    let mut order = [0, 1, 2, 3];
    if draw == ParameterDraw::Current {
        stream.shuffle(&mut order);
    }
    let mut factor =
        |strength: f64| (strength > 0.0).then(|| stream.between((1.0 - strength).max(0.0), 1.0 + strength));
    let changes = [
        factor(config.brightness).map(Adjust::Brightness),
        factor(config.contrast).map(Adjust::Contrast),
        factor(config.saturation).map(Adjust::Saturation),
        (config.hue > 0.0).then(|| Adjust::Hue(stream.between(-config.hue, config.hue))),
    ];
    if draw == ParameterDraw::Torchvision02 {
        stream.shuffle(&mut order);
    }
    order.map(|at: usize| changes[at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use invaspread_random::Purpose;
    use proptest::prelude::*;

    fn stream(index: u64) -> Stream {
        Stream::new(5, Purpose::Augment, 0, index)
    }

    proptest! {
        #[test]
        fn a_window_lies_within_its_image(w in 1usize..70, h in 1usize..70, index in 0u64..1000, current: bool) {
            let draw = if current { ParameterDraw::Current } else { ParameterDraw::Torchvision02 };
            let window = resized_crop_window(&ResizedCrop::default(), draw, w, h, &mut stream(index));
            prop_assert!(window.width >= 1 && window.left + window.width <= w);
            prop_assert!(window.height >= 1 && window.top + window.height <= h);
        }
    }

    /// Checks the mean area and the mean log ratio of both releases, with large images in which every window
    /// fits. Their mean absolute log ratios differ by 0.001.
    #[test]
    fn windows_have_the_moments_of_their_distribution() {
        let n = 400_000;
        for (draw, spread) in [
            // E|ln r|, with r uniform in (3/4, 4/3) or ln r uniform in ±ln(4/3).
            (ParameterDraw::Torchvision02, 0.144_82),
            (ParameterDraw::Current, (4.0f64 / 3.0).ln() / 2.0),
        ] {
            let config = ResizedCrop { scale: [0.2, 0.6], ..ResizedCrop::default() };
            let (mut area, mut log_ratio, mut log_spread) = (0.0, 0.0, 0.0);
            for index in 0..n {
                let window = resized_crop_window(&config, draw, 2000, 2000, &mut stream(index));
                area += (window.width * window.height) as f64 / 4e6;
                let log = (window.width as f64 / window.height as f64).ln();
                log_ratio += log;
                log_spread += log.abs();
            }
            let n = n as f64;
            assert!((area / n - 0.4).abs() < 0.003, "{draw:?}: mean area {}", area / n);
            assert!((log_ratio / n).abs() < 0.001, "{draw:?}: mean log ratio {}", log_ratio / n);
            assert!(
                (log_spread / n - spread).abs() < 0.0004,
                "{draw:?}: mean |log ratio| {}",
                log_spread / n
            );
        }
    }

    /// No window with a ratio in the range fits into this strip, so every draw takes the centered window.
    #[test]
    fn a_strip_falls_back_as_each_version_does() {
        let config = ResizedCrop::default();
        assert_eq!(
            resized_crop_window(&config, ParameterDraw::Torchvision02, 100, 10, &mut stream(1)),
            Window { top: 0, left: 45, height: 10, width: 10 }
        );
        assert_eq!(
            resized_crop_window(&config, ParameterDraw::Current, 100, 10, &mut stream(1)),
            Window { top: 0, left: 43, height: 10, width: 13 }
        );
    }

    #[test]
    fn every_order_of_the_jitter_is_as_likely() {
        for draw in [ParameterDraw::Torchvision02, ParameterDraw::Current] {
            let mut counts = std::collections::BTreeMap::new();
            let mut brightness = 0.0;
            for index in 0..24_000 {
                let order =
                    jitter(&ColorJitter::default(), draw, &mut stream(index)).map(|change| match change {
                        Some(Adjust::Brightness(factor)) => {
                            assert!((0.6..1.4).contains(&factor));
                            brightness += factor / 24_000.0;
                            0
                        }
                        Some(Adjust::Contrast(_)) => 1,
                        Some(Adjust::Saturation(_)) => 2,
                        Some(Adjust::Hue(factor)) => {
                            assert!((-0.4..0.4).contains(&factor));
                            3
                        }
                        None => unreachable!("no strength is zero"),
                    });
                *counts.entry(order).or_insert(0) += 1;
            }
            assert_eq!(counts.len(), 24);
            assert!(counts.values().all(|&count: &u32| count.abs_diff(1000) < 160), "{counts:?}");
            assert!((brightness - 1.0).abs() < 0.01);
        }
    }

    #[test]
    fn a_strength_of_zero_leaves_its_change_out() {
        let config = ColorJitter { hue: 0.0, contrast: 0.0, ..ColorJitter::default() };
        let changes = jitter(&config, ParameterDraw::Torchvision02, &mut stream(3));
        assert_eq!(changes.iter().flatten().count(), 2);
    }
}
