//! Convolutions by cuDNN: activations (N, H, W, C) in bf16 or f32, sums in f32. What computes a product is
//! chosen by measurement, once for each shape: an algorithm of cuDNN's older API (`legacy`) or a plan of its
//! graph API (`operation_graph`, `plan`); `library` chooses.
//!
//! Weights stay (K, K, C_in, C_out) in f32, as on the CPU, so that checkpoints, optimizer and weight files
//! know one layout. cuDNN's is (C_out, K, K, C_in) in the activations' precision; the optimizer's step keeps
//! it (`kept_weights`), and where there is no optimizer, kernels of ours convert weights and gradients.
//! Channels are padded to a multiple of sixteen bytes, without which tensor cores cannot be used and some
//! gradients have no deterministic algorithm; of the usual networks only the first layer needs this.
//!
//! Only what cuDNN calls deterministic is used. What a search chose can be read and set (`algorithms`).

mod clock;
mod descriptor;
mod legacy;
mod library;
mod operation_graph;
mod plan;

use super::algorithms::{Direction, Key, Product};
use super::device_of;
use super::input::Input;
use super::kept_weights::{packed, takes_packed_gradients};
use super::kernel::{Argument, launch};

use super::memory::{cast_channels, check_type, uninitialized};
use super::switches::Switches;
use crate::conv2d::Geometry;
use candle_core::{DType, Result, Tensor};

/// Convolves `x` with `w`: returns (N, H', W', C_out) in the type of `x`.
pub(crate) fn forward(g: &Geometry, x: &Tensor, w: &Tensor, tf32: bool) -> Result<Tensor> {
    let device = device_of(x)?;
    let key = key(g, x.dtype(), tf32)?;
    let x = with_channels(x, key.channels)?;
    let packed = pack(w, key)?;
    let y = uninitialized((g.n, g.out_h(), g.out_w(), key.out_channels), key.dtype, device)?;
    let addresses = addresses([&x, &packed, &y])?;
    library::run(device, Product { direction: Direction::Forward, key, add: false }, addresses)?;
    with_channels(&y, g.co)
}

/// Returns the gradients of the input (in its type) and of the weight (in f32, or as cuDNN writes it where
/// the optimizer takes that), each if needed. If the input's gradient could be added to `sum`, that was done,
/// and there is none to return.
pub(crate) fn gradients(
    g: &Geometry,
    x: &Tensor,
    w: &Tensor,
    gy: &Tensor,
    tf32: bool,
    [need_gx, need_gw]: [bool; 2],
    sum: Option<&Tensor>,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let device = device_of(x)?;
    let given_channels = x.dim(3)?;
    let key = key(g, x.dtype(), tf32)?;
    let gy = with_channels(gy, key.out_channels)?;
    let gw = if need_gw {
        let x = with_channels(x, key.channels)?;
        let packed = uninitialized((key.out_channels, g.kh, g.kw, key.channels), key.dtype, device)?;
        let addresses = addresses([&x, &packed, &gy])?;
        library::run(device, Product { direction: Direction::Weight, key, add: false }, addresses)?;
        Some(if takes_packed_gradients(Input::of(w)?.address) {
            packed.narrow(0, 0, g.co)?.narrow(3, 0, g.ci)?.permute((1, 2, 3, 0))?
        } else {
            unpack(&packed, key)?
        })
    } else {
        None
    };
    if !need_gx {
        return Ok((None, gw));
    }
    let packed = pack(w, key)?;
    let fits = |sum: &&Tensor| {
        sum.dims() == [g.n, g.h, g.w, key.channels]
            && given_channels == key.channels
            && sum.dtype() == key.dtype
            && sum.is_contiguous()
    };
    if let Some(sum) = sum.filter(fits)
        && Switches::taken()?.sums_in_convolution
    {
        let addresses = addresses([sum, &packed, &gy])?;
        library::run(device, Product { direction: Direction::Input, key, add: true }, addresses)?;
        return Ok((None, gw));
    }
    let gx = uninitialized((g.n, g.h, g.w, key.channels), key.dtype, device)?;
    let addresses = addresses([&gx, &packed, &gy])?;
    library::run(device, Product { direction: Direction::Input, key, add: false }, addresses)?;
    Ok((Some(with_channels(&gx, given_channels)?), gw))
}

/// Returns the key of a convolution: with as many channels as the hardware needs.
pub(super) fn key(g: &Geometry, dtype: DType, tf32: bool) -> Result<Key> {
    check_type("conv2d", dtype)?;
    // Sixteen bytes of channels. With fewer, tensor cores cannot be used in bf16, and for some gradients
    // cuDNN has no deterministic algorithm in either type.
    let pack = 16 / dtype.size_in_bytes();
    let [channels, out_channels] = [g.ci, g.co].map(|channels| channels.next_multiple_of(pack));
    // A flag that makes no difference to the type would give two convolutions one entry in a checkpoint.
    Ok(Key { geometry: *g, channels, out_channels, dtype, tf32: tf32 && dtype == DType::F32 })
}

/// Returns a contiguous map with so many channels: the last ones are cut, or zeros are added.
fn with_channels(x: &Tensor, channels: usize) -> Result<Tensor> {
    if x.dim(3)? == channels { x.contiguous() } else { cast_channels(x, x.dtype(), channels) }
}

fn addresses(tensors: [&Tensor; 3]) -> Result<[u64; 3]> {
    let [x, w, y] = tensors.map(|tensor| Input::of(tensor).map(|input| input.address));
    Ok([x?, w?, y?])
}

const TILE: u32 = 32;

/// Runs a kernel that converts a weight's layout.
fn convert(name: &str, from: &Tensor, to: &Tensor, key: Key) -> Result<()> {
    let Key { geometry: g, channels, out_channels, dtype, .. } = key;
    let kernel = g.kh * g.kw;
    let grid = [(out_channels as u32).div_ceil(TILE), ((kernel * channels) as u32).div_ceil(TILE), 1];
    let mut arguments = vec![Argument::address(from)?, Argument::address(to)?];
    arguments.extend([kernel, g.ci, channels, g.co, out_channels].map(|size| Argument::Int(size as i32)));
    let name = format!("{name}_{}", check_type("conv2d", dtype)?);
    launch(device_of(from)?, "layout", &name, grid, [TILE, 8, 1], 0, &arguments)
}

/// Returns the weight in cuDNN's layout and precision: as it is kept, or converted.
fn pack(w: &Tensor, key: Key) -> Result<Tensor> {
    match packed(Input::of(w)?.address, key, || convert_weight(w, key))? {
        Some(kept) => Ok(kept),
        None => convert_weight(w, key),
    }
}

fn convert_weight(w: &Tensor, key: Key) -> Result<Tensor> {
    let Key { geometry: g, channels, out_channels, dtype, .. } = key;
    let packed = uninitialized((out_channels, g.kh, g.kw, channels), dtype, device_of(w)?)?;
    convert("pack_weight", w, &packed, key)?;
    Ok(packed)
}

/// Converts a weight's gradient from cuDNN's layout and precision to ours.
fn unpack(packed: &Tensor, key: Key) -> Result<Tensor> {
    let g = key.geometry;
    let gw = uninitialized((g.kh, g.kw, g.ci, g.co), DType::F32, device_of(packed)?)?;
    convert("unpack_weight", packed, &gw, key)?;
    Ok(gw)
}
