//! Philox4x32-10: four 32-bit words from a 128-bit counter and a 64-bit key.

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Applies the ten rounds of Philox to `counter` under `key`.
///
/// ```
/// // A known answer, published with Random123.
/// let words = invaspread_random::philox4x32_10([0; 4], [0; 2]);
/// assert_eq!(words, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
/// ```
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut counter, mut key) = (counter, key);
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let product = [
            u64::from(MULTIPLIER[0]) * u64::from(counter[0]),
            u64::from(MULTIPLIER[1]) * u64::from(counter[2]),
        ];
        let (high, low) = (product.map(|p| (p >> 32) as u32), product.map(|p| p as u32));
        counter = [high[1] ^ counter[1] ^ key[0], low[1], high[0] ^ counter[3] ^ key[1], low[0]];
    }
    counter
}

/// Counters that are worked on together: the compiler makes vector instructions of them.
pub(crate) const LANES: usize = 8;

/// Writes the words of [`LANES`] counters, which begin at `counter` and rise in its first word, in order.
///
/// # Panics
/// If `words` does not hold four words for each counter.
pub(crate) fn philox4x32_10_lanes(counter: [u32; 4], key: [u32; 2], words: &mut [u32]) {
    let mut lanes = counter.map(|word| [word; LANES]);
    for (lane, word) in (0..).zip(&mut lanes[0]) {
        *word = word.wrapping_add(lane);
    }
    let mut key = key;
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let before = lanes;
        for lane in 0..LANES {
            let first = u64::from(MULTIPLIER[0]) * u64::from(before[0][lane]);
            let second = u64::from(MULTIPLIER[1]) * u64::from(before[2][lane]);
            lanes[0][lane] = (second >> 32) as u32 ^ before[1][lane] ^ key[0];
            lanes[1][lane] = second as u32;
            lanes[2][lane] = (first >> 32) as u32 ^ before[3][lane] ^ key[1];
            lanes[3][lane] = first as u32;
        }
    }
    assert_eq!(words.len(), 4 * LANES, "four words for each counter");
    for (lane, words) in words.chunks_exact_mut(4).enumerate() {
        words.copy_from_slice(&lanes.map(|word| word[lane]));
    }
}

#[cfg(test)]
mod tests {
    use super::philox4x32_10;

    /// Compares with the known-answer vectors published with Random123 (kat_vectors, philox4x32 10).
    #[test]
    fn matches_the_published_vectors() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }
}
