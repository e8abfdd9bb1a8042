//! Draws pictures, makes two views of each picture, embeds the views by one linear layer, and takes gradient
//! steps on the loss until the two views of a picture are nearest to each other.
//!
//!     cargo run -p invaspread-losses --example two_views
//!
//! Prints the loss and how many views are nearest to the other view of their picture. A test runs the same
//! steps.

use candle_core::{Device, Result, Tensor, Var};
use invaspread_augment::{AugmentConfig, Image, Pipeline, Scratch};
use invaspread_losses::InvaSpread;
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::{assign, l2_normalize};

const PICTURES: usize = 16;
const STEPS: usize = 60;

/// Draws a picture: blocks of random colors, 40 x 40 pixels.
fn picture(number: usize) -> Image {
    let mut stream = Stream::new(0, Purpose::Synthetic, 0, number as u64);
    let blocks: Vec<[u8; 3]> = (0..16).map(|_| [0; 3].map(|_: u8| stream.below(256) as u8)).collect();
    let pixels = (0..40)
        .flat_map(|y| (0..40).map(move |x| y / 10 * 4 + x / 10))
        .flat_map(|block: usize| blocks[block]);
    Image::new(40, 40, pixels.collect())
}

/// Makes view `number` of every picture and returns the pixels, (pictures, 16 * 16 * 3).
fn views(pipeline: &Pipeline, number: u64) -> Vec<f32> {
    let mut scratch = Scratch::default();
    let mut all = vec![0.0; PICTURES * pipeline.view_len()];
    for (image, out) in all.chunks_exact_mut(pipeline.view_len()).enumerate() {
        let mut stream = Stream::new(0, Purpose::Augment, 1, 2 * image as u64 + number);
        pipeline.apply(picture(image).as_ref(), &mut stream, &mut scratch, out);
    }
    all
}

/// Counts the rows of `embeddings` (2B, D) whose nearest other row is the other view of their picture.
fn found(embeddings: &Tensor) -> Result<usize> {
    let similarities = embeddings.matmul(&embeddings.t()?)?.to_vec2::<f32>()?;
    let nearest = |row: usize| {
        let others = (0..2 * PICTURES).filter(move |&other| other != row);
        others.max_by(|&a, &b| similarities[row][a].total_cmp(&similarities[row][b]))
    };
    Ok((0..2 * PICTURES).filter(|&row| nearest(row) == Some((row + PICTURES) % (2 * PICTURES))).count())
}

/// Trains the linear layer; returns the loss and the number of views found, before and after.
fn train() -> Result<[(f32, usize); 2]> {
    let config = AugmentConfig { size: 16, ..AugmentConfig::default() };
    let pipeline = Pipeline::train(&config).map_err(candle_core::Error::wrap)?;
    let pixels = [views(&pipeline, 0), views(&pipeline, 1)].concat();
    let x = Tensor::from_vec(pixels, (2 * PICTURES, pipeline.view_len()), &Device::Cpu)?;

    let mut stream = Stream::new(0, Purpose::Initialize, 0, 0);
    let weights: Vec<f32> = (0..pipeline.view_len() * 32).map(|_| 0.02 * stream.normal() as f32).collect();
    let weight = Var::from_vec(weights, (pipeline.view_len(), 32), &Device::Cpu)?;

    let objective = InvaSpread::default();
    let state = || -> Result<(Tensor, usize)> {
        let embeddings = l2_normalize(&x.matmul(&weight)?)?;
        Ok((objective.loss(&embeddings)?, found(&embeddings)?))
    };
    let (before, found_before) = state()?;
    for _ in 0..STEPS {
        let (loss, _) = state()?;
        let gradients = loss.backward()?;
        let Some(gradient) = gradients.get(&weight) else { candle_core::bail!("the loss has no gradient") };
        assign(&weight, &(weight.as_tensor() - gradient.affine(2e-3, 0.0)?)?)?;
    }
    let (after, found_after) = state()?;
    Ok([(before.to_scalar()?, found_before), (after.to_scalar()?, found_after)])
}

fn main() -> Result<()> {
    let [before, after] = train()?;
    for (name, (loss, found)) in [("before", before), ("after", after)] {
        println!(
            "{name:>6}: loss {loss:.3}, {found} of {} views are nearest to the other view of their picture",
            2 * PICTURES
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn views_find_each_other() {
        let [before, after] = super::train().expect("the steps run");
        assert!(after.0 < 0.8 * before.0 && after.1 > before.1, "{before:?} {after:?}");
    }
}
