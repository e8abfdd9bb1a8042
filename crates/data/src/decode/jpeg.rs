//! Decodes JPEG, and refuses files of which a part is missing.
//!
//! If a file was cut, the decoder fills the missing part with gray and reports nothing. So the markers of the
//! file are read first: each segment must lie within the file, and the last marker must be the end of the
//! image. Pillow also refuses a file without that marker, except for some gray files in which only the marker
//! is missing; this code refuses all of them. Then the decoder runs in its strict mode, in which an unknown
//! Huffman code is an error. A file whose scan was cut and closed again with a new end marker cannot be
//! recognized.

use invaspread_augment::Image;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{broken, within_limits};

/// Decodes the JPEG in `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Result<Image, String> {
    reaches_its_end(bytes)?;
    let mut decoder = decoder(bytes, true);
    if decoder.decode_headers().is_err() {
        // Bytes between headers, or a color space that does not fit, do not damage the picture; other
        // programs read it too.
        decoder = self::decoder(bytes, false);
        decoder.decode_headers().map_err(|error| broken(&said(error)))?;
    }
    let (width, height) = decoder.dimensions().ok_or("a JPEG without a size")?;
    let gray = decoder.input_colorspace() == Some(ColorSpace::Luma);
    within_limits(width as u64, height as u64, (width * height) as u64 * if gray { 1 } else { 3 })?;
    let colors = if gray { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(colors));
    let pixels = decoder.decode().map_err(|error| broken(&said(error)))?;
    let pixels = if gray { pixels.into_iter().flat_map(|value| [value; 3]).collect() } else { pixels };
    if pixels.len() != width * height * 3 {
        return Err(format!("a JPEG of {width} x {height} pixels whose data has {} bytes", pixels.len()));
    }
    Ok(Image::new(width, height, pixels))
}

fn decoder(bytes: &[u8], strict: bool) -> JpegDecoder<ZCursor<&[u8]>> {
    let options = DecoderOptions::default()
        .set_strict_mode(strict)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    JpegDecoder::new_with_options(ZCursor::new(bytes), options)
}

/// Returns the message of the decoder without the names of its types.
fn said(error: DecodeErrors) -> String {
    match error {
        DecodeErrors::Format(message)
        | DecodeErrors::HuffmanDecode(message)
        | DecodeErrors::MCUError(message)
        | DecodeErrors::SosError(message)
        | DecodeErrors::SofError(message)
        | DecodeErrors::DqtError(message) => message,
        DecodeErrors::FormatStatic(message) => message.to_owned(),
        other => other.to_string(),
    }
}

/// Markers without a segment (others are followed by the length of their segment), and the start of a scan.
const START: u8 = 0xD8;
const END: u8 = 0xD9;
const SCAN: u8 = 0xDA;
const TEMPORARY: u8 = 0x01;

/// Returns an error unless every segment lies within `bytes` and there is a scan and an end marker.
fn reaches_its_end(bytes: &[u8]) -> Result<(), String> {
    let mut scans = 0;
    let mut at = 0;
    while let Some((marker, after)) = next_marker(bytes, at) {
        at = match marker {
            END if scans == 0 => return Err(broken(&"a JPEG without image data")),
            END => return Ok(()),
            START | TEMPORARY => after,
            _ => {
                scans += usize::from(marker == SCAN);
                let Some(&[high, low]) = bytes.get(after..after + 2) else { break };
                let (length, held) = (usize::from(u16::from_be_bytes([high, low])), bytes.len() - after);
                if length > held {
                    // The file may still end with an end marker: the program that cut it may have added one.
                    return Err(broken(&format!(
                        "a JPEG cut after {} bytes: its segment at byte {after} claims {length} bytes, of which {held} are there",
                        bytes.len()
                    )));
                }
                after + length
            }
        };
    }
    Err(broken(&format!("a JPEG cut after {} bytes: no end marker follows its last segment", bytes.len())))
}

/// Finds the first marker from byte `at` on that is neither a restart marker nor part of the data of a scan,
/// and where it ends.
fn next_marker(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xFF)?;
        // Any number of 0xFF may come before the marker's own byte.
        at += bytes[at..].iter().position(|byte| *byte != 0xFF)?;
        match bytes[at] {
            0x00 | 0xD0..=0xD7 => at += 1,
            marker => return Some((marker, at + 1)),
        }
    }
}
