//! Compares the loss with its closed form.

use super::{AlignUniformSettings, align_uniform};
use invaspread::candle::{Device, Tensor};

/// Two images have orthogonal embeddings, and the two views of each are equal: alignment is 0, and all pairs
/// have a squared distance of 2.
#[test]
fn two_pairs_have_a_closed_form() {
    let rows = Tensor::new(&[[1.0_f64, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
    let settings = AlignUniformSettings { sharpness: 3.0, uniformity: 0.5, queue: 0 };
    let loss = |queue: Option<&Tensor>| {
        align_uniform(&rows, &rows, queue, &settings).unwrap().to_scalar::<f64>().unwrap()
    };
    assert!((loss(None) - 0.5 * -6.0).abs() < 1e-12);
    // With a queue of one embedding, each row has the other row at squared distance 2 and the queue's row at
    // 0 or 2.
    let queue = rows.narrow(0, 0, 1).unwrap();
    let mean = (1.0 + 3.0 * (-6.0_f64).exp()) / 4.0;
    assert!((loss(Some(&queue)) - 0.5 * mean.ln()).abs() < 1e-12);
}
