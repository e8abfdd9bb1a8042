//! The memory that a workload of `invaspread bench` needs, computed from its flags before it begins.

use crate::bench_arguments::{BenchArguments, BenchCommand};
use invaspread_models::{NetworkConfig, NetworkSize, ResNetConfig};
use invaspread_runner::memory::{Memory, Need, TooLittleMemory, check};

/// Side of the images of every workload with a network.
const SIDE: usize = 32;
/// Largest number of images whose bytes are held; further images repeat them.
const DISTINCT: usize = 2048;
/// Number of views whose memory `augment` writes again and again.
const AUGMENTED_TOGETHER: usize = 128;
/// Number of images that are embedded together.
const EMBEDDED_TOGETHER: usize = 250;
/// Bytes of a number, and of an index and a similarity.
const FLOAT: usize = 4;
const NEIGHBOR: usize = 8;
/// Bytes that hold the time of one repetition.
const TIME: usize = 8;

/// Checks that the workload fits into the memory of its device.
///
/// # Errors
/// Returns an error if it does not; the error says how much it needs, because of which flags, and how much
/// there is.
pub(crate) fn fits(arguments: &BenchArguments) -> Result<(), TooLittleMemory> {
    match Memory::of(arguments.compute().device) {
        Some(memory) => check(needs(&arguments.command), memory),
        None => Ok(()),
    }
}

fn need(what: String, factors: &[usize]) -> Need {
    let bytes = factors.iter().fold(1, |bytes: u128, &factor| bytes.saturating_mul(factor as u128));
    Need { what, bytes }
}

fn size(width: usize, depth: usize) -> NetworkSize {
    NetworkConfig::from(ResNetConfig { width, depth, ..ResNetConfig::default() }).size(SIDE)
}

/// Returns a count as a factor. A count beyond the address space becomes the largest `usize`.
fn factor(count: u128) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn trained(width: usize, depth: usize, batch: usize) -> [Need; 2] {
    let size = size(width, depth);
    let weights = format!("weights, gradients and momentum (--width {width}, --depth {depth})");
    let activations = format!("activations of a batch (--batch {batch}, --width {width})");
    [
        need(weights, &[3, factor(size.parameters), FLOAT]),
        need(activations, &[2, batch, factor(size.activations), FLOAT]),
    ]
}

fn needs(command: &BenchCommand) -> Vec<Need> {
    let times = |flag: &str, count: usize| need(format!("times ({flag} {count})"), &[count, TIME]);
    let numbers =
        |flag: &str, images: usize| need(format!("images in order ({flag} {images})"), &[images, FLOAT]);
    match command {
        BenchCommand::Train(sizes) => {
            let mut needs = Vec::from(trained(sizes.width, sizes.depth, sizes.batch));
            needs.push(times("--steps", sizes.steps));
            needs
        }
        BenchCommand::Epoch(sizes) => {
            let mut needs = Vec::from(trained(sizes.width, sizes.depth, sizes.batch));
            needs.extend([numbers("--images", sizes.images), times("--repeats", sizes.repeats)]);
            needs
        }
        BenchCommand::Evaluate(sizes) => {
            let (width, depth, images) = (sizes.width, sizes.depth, sizes.images);
            let (size, together) = (size(width, depth), images.min(EMBEDDED_TOGETHER));
            let dim = ResNetConfig::default().embedding;
            vec![
                need(
                    format!("weights (--width {width}, --depth {depth})"),
                    &[factor(size.parameters), FLOAT],
                ),
                need(format!("activations (--width {width})"), &[together, factor(size.largest), FLOAT]),
                need(format!("embeddings (--images {images})"), &[images, dim, FLOAT]),
                times("--repeats", sizes.repeats),
            ]
        }
        BenchCommand::Augment(sizes) => {
            let (images, side) = (sizes.images.min(DISTINCT), sizes.size);
            let keys = format!("--images {}, --size {side}", sizes.images);
            vec![
                need(format!("images ({keys})"), &[images, side, side, 3]),
                need(format!("views (--size {side})"), &[AUGMENTED_TOGETHER, side, side, 3, FLOAT]),
                times("--repeats", sizes.repeats),
            ]
        }
        BenchCommand::Knn(sizes) => {
            let (train, test, dim, k) = (sizes.train, sizes.test, sizes.dim, sizes.k);
            vec![
                need(format!("rows to search (--train {train}, --dim {dim})"), &[train, dim, FLOAT]),
                need(format!("rows that search (--test {test}, --dim {dim})"), &[test, dim, FLOAT]),
                need(format!("neighbors (--test {test}, --k {k})"), &[test, k, NEIGHBOR]),
                times("--repeats", sizes.repeats),
            ]
        }
        BenchCommand::Kmeans(sizes) => {
            let (points, clusters, dim) = (sizes.points, sizes.clusters, sizes.dim);
            vec![
                need(format!("points (--points {points}, --dim {dim})"), &[points, dim, FLOAT]),
                need(format!("centroids (--clusters {clusters}, --dim {dim})"), &[clusters, dim, FLOAT]),
                times("--repeats", sizes.repeats),
            ]
        }
    }
}
