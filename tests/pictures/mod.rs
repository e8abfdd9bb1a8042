//! Makes pictures for the tests.

/// A picture that no other number gives, as PPM.
pub(crate) fn picture((width, height): (usize, usize), number: usize) -> Vec<u8> {
    let mut bytes = format!("P6 {width} {height} 255\n").into_bytes();
    for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
        bytes.extend(
            [x * 12 + number * 31, y * 17 + number * 7, (x * y + number) * 5].map(|value| value as u8),
        );
    }
    bytes
}
