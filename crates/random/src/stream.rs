//! A stream of draws keyed by seed, purpose, epoch and index.

use crate::philox::{philox4x32_10, philox4x32_10_fill};

/// The purpose of a draw. Two purposes never share numbers, so a new draw in one place changes nothing
/// elsewhere.
///
/// The discriminants decide the numbers of every run: append new ones, never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum Purpose {
    /// Initial weights; the index is the number of the parameter.
    Initialize = 0,
    /// The order of the training images within an epoch.
    Shuffle = 1,
    /// Augmentation parameters; the index is `(view / 2) * 2^33 + 2 * image + view % 2`, which is
    /// `2 * image + view` for the first two views of an image.
    Augment = 2,
    /// The choice of the images that a stratified subset keeps; the index is the class.
    Subset = 3,
    /// NCE's noise instances; the index is the step within the epoch.
    NegativeNoise = 4,
    /// Initial entries of a memory bank; the index is the row.
    MemoryBank = 5,
    /// k-means seeding; the index is the restart.
    KMeans = 6,
    /// Balanced sampling over clusters; the index is the cluster or, for the order of all, the number of
    /// clusters.
    ClusterSampling = 7,
    /// The weights of a new classifier head.
    ClassifierHead = 8,
    /// The random negative of a triplet; the index is the step within the epoch.
    TripletNegative = 9,
    /// Pixels of a generated image; the index is the image.
    Synthetic = 10,
    /// Random projections.
    Projection = 11,
    /// Resampling for confidence intervals.
    Bootstrap = 12,
    /// Whether the second view of an image shows a neighbor; the index is the image.
    Positive = 13,
    /// The order in which a linear SVM visits its points; the epoch is the sweep, the index is the class.
    LinearSvm = 14,
    /// Initial weights of a projector or a predictor; the epoch is the head's number, the index is the
    /// parameter's.
    Head = 15,
    /// Initial entries of a queue of embeddings; the index is the row.
    Queue = 16,
    /// The order in which a momentum encoder's batch norms see the images of a batch; the index is the step
    /// within the epoch.
    KeyOrder = 17,
}

/// A sequence of draws; equal keys give equal sequences.
///
/// ```
/// use invaspread_random::{Purpose, Stream};
/// let mut a = Stream::new(0, Purpose::Augment, 3, 17);
/// let mut b = Stream::new(0, Purpose::Augment, 3, 17);
/// assert_eq!(a.uniform().to_bits(), b.uniform().to_bits());
/// ```
#[derive(Debug, Clone)]
pub struct Stream {
    key: [u32; 2],
    /// Four words: the number of the block, the epoch, the low word of the index, and the high bits of the
    /// index with the purpose.
    counter: [u32; 4],
    words: [u32; 4],
    used: usize,
}

impl Stream {
    /// Begins the stream of `(seed, purpose, epoch, index)`.
    ///
    /// # Panics
    /// If `epoch` needs more than 32 bits or `index` more than 48.
    pub fn new(seed: u64, purpose: Purpose, epoch: u64, index: u64) -> Self {
        assert!(index < 1 << 48, "stream index {index} needs more than 48 bits");
        let epoch = u32::try_from(epoch).expect("an epoch needs no more than 32 bits");
        let high = ((index >> 32) as u32) << 16 | u32::from(purpose as u16);
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            counter: [0, epoch, index as u32, high],
            words: [0; 4],
            used: 4,
        }
    }

    /// Draws 32 uniformly random bits.
    ///
    /// # Panics
    /// After 2^34 words, far more than a stream is used for.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.words = philox4x32_10(self.counter, self.key);
            self.counter[0] = self.counter[0].checked_add(1).expect("a stream holds 2^34 words");
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Fills `words` with the numbers that [`Stream::next_u32`] would return one after the other, several times as
    /// fast.
    ///
    /// # Panics
    /// If the stream has given 2^34 words.
    pub fn fill(&mut self, words: &mut [u32]) {
        // The rest of a block that was begun.
        let begun = words.len().min(4 - self.used);
        let (first, words) = words.split_at_mut(begun);
        for word in first {
            *word = self.next_u32();
        }
        let blocks = words.len() / 4;
        let (whole, rest) = words.split_at_mut(4 * blocks);
        let after = u32::try_from(blocks).ok().and_then(|blocks| self.counter[0].checked_add(blocks));
        philox4x32_10_fill(self.counter, self.key, whole);
        self.counter[0] = after.expect("a stream holds 2^34 words");
        for word in rest {
            *word = self.next_u32();
        }
    }

    /// Draws 64 uniformly random bits.
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | u64::from(self.next_u32()) << 32
    }

    /// Draws a number uniformly in `[0, 1)`, with all 53 bits of an f64.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Draws a number uniformly in `[low, high)`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Returns true with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Draws a number uniformly in `0..n`, without bias (Lemire's method of multiplication and rejection).
    ///
    /// # Panics
    /// If `n` is zero or above 2^32.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0 && n as u64 <= 1 << 32, "cannot draw below {n}");
        let n = n as u64;
        let reject_under = (1u64 << 32) % n;
        loop {
            let product = u64::from(self.next_u32()) * n;
            if product & 0xffff_ffff >= reject_under {
                return (product >> 32) as usize;
            }
        }
    }

    /// Draws a standard normal number by the method of Box and Muller. Only its cosine is used, so each draw
    /// takes exactly four words.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Puts `items` into a uniformly random order (Fisher and Yates).
    ///
    /// ```
    /// use invaspread_random::{Purpose, Stream};
    ///
    /// let mut order = [1, 2, 3, 4, 5];
    /// Stream::new(0, Purpose::Shuffle, 1, 0).shuffle(&mut order);
    /// order.sort();
    /// assert_eq!(order, [1, 2, 3, 4, 5]);
    /// ```
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// Draws a uniformly random order of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        self.shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::{Purpose, Stream};
    use proptest::prelude::*;

    #[test]
    fn keys_do_not_share_numbers() {
        let first = |seed, purpose, epoch, index| Stream::new(seed, purpose, epoch, index).next_u64();
        let base = first(1, Purpose::Augment, 2, 3);
        assert_ne!(base, first(2, Purpose::Augment, 2, 3));
        assert_ne!(base, first(1, Purpose::Shuffle, 2, 3));
        assert_ne!(base, first(1, Purpose::Augment, 3, 3));
        assert_ne!(base, first(1, Purpose::Augment, 2, 3 + (1 << 32)));
    }

    proptest! {
        #[test]
        fn filled_words_are_those_drawn_one_by_one(before in 0usize..9, counts in prop::collection::vec(0usize..150, 1..4), seed: u64) {
            let [mut one, mut other] = [(); 2].map(|()| Stream::new(seed, Purpose::Bootstrap, 1, 2));
            for _ in 0..before {
                prop_assert_eq!(one.next_u32(), other.next_u32());
            }
            for count in counts {
                let mut words = vec![0; count];
                one.fill(&mut words);
                prop_assert!(words.iter().all(|&word| word == other.next_u32()));
                prop_assert_eq!(one.next_u32(), other.next_u32());
            }
        }
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut stream = Stream::new(7, Purpose::Bootstrap, 0, 0);
        let n = 200_000;
        let (mut mean, mut square, mut normal_mean, mut normal_square) = (0.0, 0.0, 0.0, 0.0);
        for _ in 0..n {
            let (u, z) = (stream.uniform(), stream.normal());
            assert!((0.0..1.0).contains(&u));
            mean += u;
            square += u * u;
            normal_mean += z;
            normal_square += z * z;
        }
        let n = f64::from(n);
        assert!((mean / n - 0.5).abs() < 0.004, "{}", mean / n);
        assert!((square / n - 1.0 / 3.0).abs() < 0.004);
        assert!((normal_mean / n).abs() < 0.01);
        assert!((normal_square / n - 1.0).abs() < 0.02);
    }

    #[test]
    fn below_is_even() {
        let mut stream = Stream::new(11, Purpose::Bootstrap, 0, 1);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[stream.below(7)] += 1;
        }
        assert!(counts.iter().all(|c| c.abs_diff(10_000) < 500), "{counts:?}");
    }

    proptest! {
        #[test]
        fn a_permutation_holds_every_number_once(seed: u64, n in 0usize..300) {
            let mut order = Stream::new(seed, Purpose::Shuffle, 0, 0).permutation(n);
            order.sort_unstable();
            prop_assert_eq!(order, (0..n as u32).collect::<Vec<_>>());
        }
    }
}
