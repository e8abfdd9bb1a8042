//! Draws retrieved neighbors as a picture. Each row is a query: its image at the left, then the nearest
//! images that each network finds, framed green if they have the query's class and red otherwise.
//!
//! The picture is drawn from pixels and labels and needs no run record, so that a demo and the paper's Figure
//! 4 can be drawn from any data set. Small images are enlarged by whole factors without smoothing, so that
//! they show what the network saw; large ones are reduced with a Lanczos filter.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use plotters::prelude::RGBColor;

use crate::canvas::{Anchor, Face, INK, MUTED, draw, png, rasterize, text_width};
use crate::error::ReportError;

/// The file name of the picture in a report's folder.
pub const FILE: &str = "neighbours.png";

const FIGURE: &str = "the gallery of neighbors";
/// Okabe and Ito's green and a darker red. The marks ✓ and ✗ repeat their meaning for readers who cannot tell
/// the two colors apart.
const RIGHT: RGBColor = RGBColor(0x00, 0x9E, 0x73);
const WRONG: RGBColor = RGBColor(0xC4, 0x1E, 0x1E);
/// The side of an image. All lengths are SVG pixels; the PNG has twice as many.
const IMAGE: f64 = 96.0;
const FRAME: f64 = 3.0;
/// The side of an image with its frame.
const FRAMED: f64 = IMAGE + 2.0 * FRAME;
const GAP: f64 = 8.0;
const MARGIN: f64 = 16.0;
const QUERY_GAP: f64 = 22.0;
const TEXT: f64 = 10.5;
/// The height of a line of text under an image.
const LINE: f64 = 13.0;

/// One image and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The width, pixels.
    pub width: usize,
    /// The height, pixels.
    pub height: usize,
    /// The RGB bytes, (height, width, 3), row by row.
    pub pixels: Vec<u8>,
    /// The class, an index into [`Gallery::classes`].
    pub label: u32,
}

/// Retrieved images with their cosine similarities, nearest first.
pub type Neighbors = Vec<(Picture, f32)>;

/// A query and the images retrieved for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The query's image.
    pub picture: Picture,
    /// The images that each network retrieved, in the order of [`Gallery::networks`].
    pub found: Vec<Neighbors>,
}

/// The content of a gallery.
#[derive(Debug, Clone, PartialEq)]
pub struct Gallery {
    /// The line above the images, such as "InvaSpread, epoch 10, synthetic images".
    pub title: String,
    /// The heading above each network's neighbors, such as "epoch 2".
    pub networks: Vec<String>,
    /// The name of each class; a label without a name is shown as its number.
    pub classes: Vec<String>,
    /// The queries, one row each.
    pub queries: Vec<Query>,
}

/// Draws a gallery and returns it as PNG.
///
/// # Errors
/// If there is no query, or the number of bytes of an image does not match its size.
pub fn draw_gallery(gallery: &Gallery) -> Result<Vec<u8>, ReportError> {
    png(FIGURE, &picture(gallery)?)
}

fn picture(gallery: &Gallery) -> Result<RgbImage, ReportError> {
    if gallery.queries.is_empty() {
        return Err(ReportError::EmptyGallery);
    }
    let top = MARGIN + 44.0;
    let row_height = FRAMED + 2.0 * LINE + GAP;
    // Each network gets as many places as the longest list of neighbors is long.
    let most = gallery.queries.iter().flat_map(|query| &query.found).map(Vec::len).max().unwrap_or(0);
    let networks = if most == 0 { 0 } else { gallery.networks.len() };
    let group_width = most as f64 * (FRAMED + GAP) - GAP;
    let of_query = MARGIN;
    let group = |network: usize| MARGIN + FRAMED + QUERY_GAP + network as f64 * (group_width + QUERY_GAP);
    let column = |network: usize, place: usize| group(network) + place as f64 * (FRAMED + GAP);
    let natural = if networks == 0 { of_query + FRAMED } else { group(networks) - QUERY_GAP } + MARGIN;
    let width = natural.max(text_width(&gallery.title, 13.0) + 2.0 * MARGIN);
    let height = top + gallery.queries.len() as f64 * row_height + MARGIN / 2.0;

    let svg = draw(FIGURE, &gallery.title, (width, height.ceil()), |pen| {
        pen.text((MARGIN, MARGIN + 6.0), &gallery.title, Face::new(13.0, Anchor::Start).bold(true));
        let head = Face::new(TEXT, Anchor::Start).color(MUTED);
        pen.text((of_query, top - 10.0), "query", head);
        for (network, name) in gallery.networks.iter().take(networks).enumerate() {
            pen.text((group(network), top - 10.0), name, head);
        }
        for (row, query) in gallery.queries.iter().enumerate() {
            let y = top + row as f64 * row_height;
            let [under, below] = [0.7, 1.7].map(|lines| y + FRAMED + lines * LINE);
            let middle = |x: f64| x + FRAMED / 2.0;
            let name = Face::new(TEXT, Anchor::Middle);
            pen.rectangle((of_query, y), (FRAMED, FRAMED), INK);
            pen.text(
                (middle(of_query), under),
                &shortened(&gallery.class(query.picture.label)),
                name.bold(true),
            );
            for (network, neighbors) in query.found.iter().enumerate() {
                for (place, (neighbor, similarity)) in neighbors.iter().enumerate() {
                    let right = neighbor.label == query.picture.label;
                    let (color, mark) = if right { (RIGHT, '✓') } else { (WRONG, '✗') };
                    let x = column(network, place);
                    pen.rectangle((x, y), (FRAMED, FRAMED), color);
                    let class = shortened(&gallery.class(neighbor.label));
                    pen.text((middle(x), under), &class, name.color(color));
                    let similarity = format!("{mark} {similarity:.2}").replace('-', "−");
                    pen.text((middle(x), below), &similarity, name.color(color));
                }
            }
        }
    })?;
    let mut canvas = rasterize(FIGURE, &svg)?;
    for (row, query) in gallery.queries.iter().enumerate() {
        let y = top + row as f64 * row_height + FRAME;
        let mut place_picture = |picture: &Picture, x: f64, what: String| -> Result<(), ReportError> {
            let (x, y) = ((x + FRAME) * 2.0, y * 2.0);
            imageops::replace(&mut canvas, &fitted(picture, what)?, x.round() as i64, y.round() as i64);
            Ok(())
        };
        place_picture(&query.picture, of_query, format!("query {row}"))?;
        for (network, neighbors) in query.found.iter().enumerate() {
            for (place, (picture, _)) in neighbors.iter().enumerate() {
                let what = format!("query {row}, neighbor {}", place + 1);
                place_picture(picture, column(network, place), what)?;
            }
        }
    }
    Ok(canvas)
}

impl Gallery {
    fn class(&self, label: u32) -> String {
        self.classes.get(label as usize).cloned().unwrap_or_else(|| format!("class {label}"))
    }
}

/// Shortens a class name so that it does not overlap the name under the next image.
fn shortened(name: &str) -> String {
    let mut name = name.replace('_', " ");
    if text_width(&name, TEXT) > FRAMED + GAP {
        while text_width(&name, TEXT) > FRAMED + GAP - TEXT {
            name.pop();
        }
        name.truncate(name.trim_end().len());
        name.push('…');
    }
    name
}

/// Scales an image to fit a square of `2 * IMAGE` pixels; the rest of the square is white.
fn fitted(picture: &Picture, what: String) -> Result<RgbImage, ReportError> {
    let side = (IMAGE * 2.0) as u32;
    let (width, height) = (picture.width, picture.height);
    let wrong = |expected| ReportError::Pixels { what, found: picture.pixels.len(), width, height, expected };
    let expected = width * height * 3;
    if picture.pixels.len() != expected || expected == 0 {
        return Err(wrong(expected));
    }
    let Some(source) = RgbImage::from_raw(width as u32, height as u32, picture.pixels.clone()) else {
        return Err(wrong(expected));
    };
    let longer = source.width().max(source.height());
    let (scaled_width, scaled_height, filter) = if longer <= side / 2 {
        // Whole factors keep all pixels the same size.
        let factor = side / longer;
        (source.width() * factor, source.height() * factor, FilterType::Nearest)
    } else {
        let scaled =
            |length: u32| (f64::from(length) * f64::from(side) / f64::from(longer)).round().max(1.0) as u32;
        (scaled(source.width()), scaled(source.height()), FilterType::Lanczos3)
    };
    let scaled = imageops::resize(&source, scaled_width, scaled_height, filter);
    let mut square = RgbImage::from_pixel(side, side, Rgb([255; 3]));
    let (x, y) = ((side - scaled_width) / 2, (side - scaled_height) / 2);
    imageops::replace(&mut square, &scaled, i64::from(x), i64::from(y));
    Ok(square)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn plain(color: [u8; 3], label: u32) -> Picture {
        Picture { width: 32, height: 32, pixels: color.repeat(32 * 32), label }
    }

    fn two_neighbors() -> Gallery {
        Gallery {
            title: "Invented colours".into(),
            networks: vec!["nearest neighbors".into()],
            classes: vec!["blue".into(), "a class of a very long name".into()],
            queries: vec![Query {
                picture: plain([0, 0, 250], 0),
                found: vec![vec![(plain([10, 20, 200], 0), 0.97), (plain([200, 200, 0], 1), -0.25)]],
            }],
        }
    }

    fn has(picture: &RgbImage, color: RGBColor) -> usize {
        picture.pixels().filter(|pixel| pixel.0 == [color.0, color.1, color.2]).count()
    }

    #[test]
    fn right_and_wrong_neighbors_are_framed_in_their_colors() {
        let both = picture(&two_neighbors()).unwrap();
        // A frame of 6 pixels around an image of 192 x 192 pixels has 204^2 - 192^2 pixels.
        let frame = 204 * 204 - 192 * 192;
        assert!(has(&both, RIGHT) >= frame && has(&both, WRONG) >= frame);
        let mut gallery = two_neighbors();
        gallery.queries[0].found[0].truncate(1);
        let one = picture(&gallery).unwrap();
        assert_eq!(has(&one, WRONG), 0);
        assert!(has(&one, RIGHT) >= frame);
    }

    #[test]
    fn networks_stand_side_by_side() {
        let one = picture(&two_neighbors()).unwrap();
        let mut gallery = two_neighbors();
        gallery.networks.push("another".into());
        let again = gallery.queries[0].found[0].clone();
        gallery.queries[0].found.push(again);
        let two = picture(&gallery).unwrap();
        assert_eq!(two.width() - one.width(), (2.0 * (2.0 * 102.0 + 8.0 + 22.0)) as u32);
        assert_eq!(two.height(), one.height());
    }

    #[test]
    fn every_pixel_of_a_small_picture_becomes_an_equal_square() {
        let mut query = plain([7, 7, 7], 0);
        query.pixels[..3].copy_from_slice(&[1, 2, 3]);
        let square = fitted(&query, String::new()).unwrap();
        assert_eq!(square.dimensions(), (192, 192));
        assert_eq!(square.pixels().filter(|pixel| pixel.0 == [1, 2, 3]).count(), 36);
        let wide = Picture { width: 400, height: 200, pixels: [9, 9, 9].repeat(80_000), label: 0 };
        let square = fitted(&wide, String::new()).unwrap();
        assert_eq!(square.pixels().filter(|pixel| pixel.0 == [9, 9, 9]).count(), 192 * 96);
    }

    #[test]
    fn wrong_sizes_and_empty_galleries_are_errors() {
        let mut gallery = two_neighbors();
        gallery.queries[0].found[0][1].0.pixels.pop();
        let error = draw_gallery(&gallery).unwrap_err().to_string();
        assert!(
            error.contains("query 0, neighbor 2") && error.contains("3071") && error.contains("3072"),
            "{error}"
        );
        gallery.queries.clear();
        assert!(matches!(draw_gallery(&gallery), Err(ReportError::EmptyGallery)));
    }
}
