//! Reads TIFF with a palette, which the decoder does not support: the decoder gets the indices as gray
//! values, and this code looks up the colors.
//!
//! A TIFF begins with its byte order and the place of its first directory, a list of tags of 12 bytes each
//! (TIFF 6.0, section 2). The color map holds all reds, then all greens, then all blues, 16 bits each, of
//! which Pillow takes the upper byte.

/// The tag for the meaning of samples, and its values for indices and for gray.
const PHOTOMETRIC: u16 = 262;
const PALETTE: u16 = 3;
const GRAY: u16 = 1;

/// The tag of the color map.
const COLOR_MAP: u16 = 320;

/// The tag for the number of bits of a sample.
const BITS: u16 = 258;

/// A TIFF of indices, and the colors of the indices.
pub(super) struct Indexed {
    /// The file with its indices declared as gray.
    pub(super) gray: Vec<u8>,
    /// The color of each gray value.
    pub(super) colors: [[u8; 3]; 256],
}

/// Returns the TIFF in `bytes` if it has a palette of 2 or 256 colors. Returns `None` if it has none, or if
/// it is damaged; the decoder then reports the damage.
pub(super) fn indexed(bytes: &[u8]) -> Option<Indexed> {
    let file = Reader { bytes, big: bytes.starts_with(b"MM\0*") };
    let directory = file.long(4)?;
    let tags = usize::from(file.short(directory)?);
    let tag = |wanted: u16| {
        (0..tags).map(|tag| directory + 2 + tag * 12).find(|at| file.short(*at) == Some(wanted))
    };
    let photometric = tag(PHOTOMETRIC)? + 8;
    if file.short(photometric)? != PALETTE {
        return None;
    }
    let bits = tag(BITS).map_or(Some(1), |at| file.short(at + 8))?;
    let count: usize = match bits {
        1 => 2,
        8 => 256,
        _ => return None,
    };
    let map = tag(COLOR_MAP)?;
    if file.long(map + 4)? != count * 3 {
        return None;
    }
    let map = file.long(map + 8)?;
    let mut colors = [[0; 3]; 256];
    for index in 0..count {
        // The decoder gives one bit as a gray of 0 or 255.
        let color = &mut colors[index * 255 / (count - 1)];
        for (channel, value) in color.iter_mut().enumerate() {
            *value = (file.short(map + (channel * count + index) * 2)? >> 8) as u8;
        }
    }
    let mut gray = bytes.to_vec();
    let value = if file.big { GRAY.to_be_bytes() } else { GRAY.to_le_bytes() };
    gray[photometric..photometric + 2].copy_from_slice(&value);
    Some(Indexed { gray, colors })
}

/// Reads numbers in the byte order of the file.
struct Reader<'a> {
    bytes: &'a [u8],
    big: bool,
}

impl Reader<'_> {
    fn short(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..)?.first_chunk::<2>()?;
        Some(if self.big { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) })
    }

    fn long(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..)?.first_chunk::<4>()?;
        Some(if self.big { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) } as usize)
    }
}
