//! Writes a PNG with one row for each picture: first the whole picture, then random views of it.
//!
//!     cargo run -p invaspread-augment --example contact_sheet -- OUT.png [PICTURE ...]
//!
//! The views are the paper's for CIFAR-10, at 64 x 64 pixels. Without a PICTURE, a few are drawn.

use invaspread_augment::{AugmentConfig, Filter, Image, Normalize, Pipeline, Scratch, resize};
use invaspread_random::{Purpose, Stream};
use std::error::Error;
use std::process::ExitCode;

/// Width and height of a view, views in a row, and the white gap between them.
const SIDE: usize = 64;
const VIEWS: usize = 7;
const GAP: usize = 4;

fn write_sheet(out: &str, pictures: &[Image]) -> Result<(), Box<dyn Error>> {
    // A mean of 0, a deviation of 1 and a scale of 255 leave the bytes of a view as they are.
    let bytes = Normalize { mean: vec![0.0; 3], std: vec![1.0; 3], scale: 255.0, ..Normalize::default() };
    let config = AugmentConfig { size: SIDE, normalize: bytes, ..AugmentConfig::default() };
    let pipeline = Pipeline::train(&config)?;
    let (mut scratch, mut view) = (Scratch::default(), vec![0.0; pipeline.view_len()]);

    let step = SIDE + GAP;
    let (width, height) = ((VIEWS + 1) * step + GAP, pictures.len() * step + GAP);
    let mut sheet = vec![255; width * height * 3];
    let mut put = |row: usize, column: usize, pixels: &[u8]| {
        for (y, line) in pixels.chunks_exact(SIDE * 3).enumerate() {
            let at = ((row * step + GAP + y) * width + column * step + GAP) * 3;
            sheet[at..at + line.len()].copy_from_slice(line);
        }
    };
    for (row, picture) in pictures.iter().enumerate() {
        put(row, 0, &resize(picture.as_ref(), SIDE, SIDE, Filter::Bilinear).pixels);
        for number in 0..VIEWS {
            let mut stream = Stream::new(0, Purpose::Augment, 1, (row * VIEWS + number) as u64);
            pipeline.apply(picture.as_ref(), &mut stream, &mut scratch, &mut view);
            let pixels: Vec<u8> = view.iter().map(|value| value.round() as u8).collect();
            put(row, number + 1, &pixels);
        }
    }
    image::save_buffer(out, &sheet, width as u32, height as u32, image::ColorType::Rgb8)?;
    Ok(())
}

/// Draws a striped disc in front of a gradient, in colors that depend on `number`.
fn drawn(number: u64) -> Image {
    let mut stream = Stream::new(number, Purpose::Synthetic, 0, 0);
    let mut color = || [0; 3].map(|_: u8| stream.uniform());
    let [from, to, ink] = [color(), color(), color()];
    let (x0, y0, radius, pitch) = (
        stream.between(40.0, 88.0),
        stream.between(36.0, 60.0),
        stream.between(20.0, 36.0),
        stream.between(4.0, 12.0),
    );
    let mut pixels = Vec::new();
    for y in 0..96 {
        for x in 0..128 {
            let (dx, dy) = (f64::from(x) - x0, f64::from(y) - y0);
            let stripe = ((dx + dy) / pitch).sin() > -0.3;
            let inside = dx.hypot(dy) < radius && stripe;
            let share = f64::from(x + y) / 224.0;
            let rgb: [f64; 3] = if inside {
                ink
            } else {
                [0, 1, 2].map(|channel| from[channel] * (1.0 - share) + to[channel] * share)
            };
            pixels.extend(rgb.map(|value| (255.0 * value) as u8));
        }
    }
    Image::new(128, 96, pixels)
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [out, files @ ..] = arguments else { return Err("expected OUT.png [PICTURE ...]".into()) };
    let mut pictures = Vec::new();
    for file in files {
        let picture = image::open(file).map_err(|e| format!("{file}: {e}"))?.to_rgb8();
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        pictures.push(Image::new(width, height, picture.into_raw()));
    }
    if pictures.is_empty() {
        pictures.extend((0..6).map(drawn));
    }
    write_sheet(out, &pictures)?;
    println!("{out}: {} pictures, {VIEWS} views of each", pictures.len());
    Ok(())
}

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
