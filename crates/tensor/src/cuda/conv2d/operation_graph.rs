//! One product of a convolution as an operation graph of cuDNN, and the engines that cuDNN offers for it.
//!
//! An engine has notes. Those that compute otherwise than the older API's algorithms are not taken: engines
//! that are not deterministic, that round factors or sums to fewer digits than their type has, or, where full
//! f32 is asked for, that use tensor cores (which compute f32 in TF32) or Winograd's large tiles. Nor are
//! engines that the library compiles when a plan is made: their code depends on another library's version,
//! which the checkpoint does not name.

use super::super::algorithms::{Direction, Engine, Product};
use super::descriptor::{
    BehaviorNote, ConvolutionMode, DataType, Descriptor, HeuristicMode, Kind, Knob, Name, Numbered,
    NumericalNote, Type,
};
use candle_core::cuda_backend::cudarc::cudnn::sys;
use candle_core::{DType, Result};

/// The most knobs that an engine has; more than cuDNN numbers.
const KNOBS: usize = 64;

/// The most notes of an engine; more than cuDNN numbers.
const NOTES: usize = 32;

/// The numbers by which a variant pack names input, weight and output (or their gradients).
pub(super) const IDS: [i64; 3] = [1, 2, 3];

/// Bytes that an address is a multiple of. Memory begins at a multiple of 256, and a pixel's channels, which
/// are padded, have a multiple of sixteen bytes.
const ALIGNMENT: i64 = 16;

/// A finalized graph.
#[derive(Debug)]
pub(super) struct Graph {
    finalized: Descriptor,
    pub(super) handle: sys::cudnnHandle_t,
    pub(super) full_f32: bool,
}

impl Graph {
    pub(super) fn new(handle: sys::cudnnHandle_t, product: Product) -> Result<Self> {
        let key = product.key;
        let g = key.geometry;
        let tensor = |id, [n, c, h, w]: [usize; 4]| {
            let tensor = Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?;
            let dtype = if key.dtype == DType::BF16 {
                sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16
            } else {
                sys::cudnnDataType_t::CUDNN_DATA_FLOAT
            };
            // Sizes are listed as N, C, H, W; the strides say that channels lie next to each other.
            let [sizes, strides] = [[n, c, h, w], [c * h * w, 1, c * w, c]].map(|all| all.map(|x| x as i64));
            tensor.set::<DataType>(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, &[Numbered(dtype as u32)])?;
            tensor.set(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, &sizes)?;
            tensor.set(Name::CUDNN_ATTR_TENSOR_STRIDES, &strides)?;
            tensor.set(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[id])?;
            tensor.set(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[ALIGNMENT])?;
            tensor.finalize("describe a tensor")
        };
        let x = tensor(IDS[0], [g.n, key.channels, g.h, g.w])?;
        let w = tensor(IDS[1], [key.out_channels, key.channels, g.kh, g.kw])?;
        let y = tensor(IDS[2], [g.n, key.out_channels, g.out_h(), g.out_w()])?;
        let convolution = convolution([g.stride; 2], [g.padding; 2])?;
        let operation = operation(product, [&x, &w, &y], &convolution)?;
        let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?;
        graph.set_handle(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, handle)?;
        graph.set_parts(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, &[&operation])?;
        Ok(Self { finalized: graph.finalize("describe a convolution")?, handle, full_f32: key.full_f32() })
    }

    /// Returns the configurations of engines that cuDNN's heuristics offer in one mode.
    pub(super) fn offers(&self, mode: sys::cudnnBackendHeurMode_t) -> Result<Vec<Descriptor>> {
        let heuristics = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?;
        heuristics.set_parts(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &[&self.finalized])?;
        heuristics.set::<HeuristicMode>(Name::CUDNN_ATTR_ENGINEHEUR_MODE, &[Numbered(mode as u32)])?;
        let heuristics = heuristics.finalize("ask for engines")?;
        let results = Name::CUDNN_ATTR_ENGINEHEUR_RESULTS;
        let most = heuristics.most(results, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR)?;
        if most == 0 {
            return Ok(Vec::new());
        }
        heuristics.get_parts(results, Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, most)
    }

    /// Returns the configuration of an engine with its knobs.
    pub(super) fn configuration(&self, engine: &Engine) -> Result<Descriptor> {
        let chosen = Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
        chosen.set_parts(Name::CUDNN_ATTR_ENGINE_OPERATION_GRAPH, &[&self.finalized])?;
        chosen.set(Name::CUDNN_ATTR_ENGINE_GLOBAL_INDEX, &[engine.index])?;
        let chosen = chosen.finalize("take an engine")?;
        let mut knobs = Vec::new();
        for &(knob, value) in &engine.knobs {
            let choice = Descriptor::new(Kind::CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR)?;
            choice.set::<Knob>(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, &[Numbered(knob)])?;
            choice.set(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, &[value])?;
            knobs.push(choice.finalize("set a knob")?);
        }
        let config = Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)?;
        config.set_parts(Name::CUDNN_ATTR_ENGINECFG_ENGINE, &[&chosen])?;
        if !knobs.is_empty() {
            let knobs: Vec<_> = knobs.iter().collect();
            config.set_parts(Name::CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, &knobs)?;
        }
        config.finalize("set an engine's knobs")
    }
}

/// Describes strides and paddings, which are alike on both sides of a map.
fn convolution(strides: [usize; 2], paddings: [usize; 2]) -> Result<Descriptor> {
    let convolution = Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?;
    let [strides, paddings] = [strides, paddings].map(|sizes| sizes.map(|size| size as i64));
    let f32 = Numbered(sys::cudnnDataType_t::CUDNN_DATA_FLOAT as u32);
    let mode = Numbered(sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION as u32);
    convolution.set(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[strides.len() as i64])?;
    convolution.set::<DataType>(Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, &[f32])?;
    convolution.set::<ConvolutionMode>(Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE, &[mode])?;
    convolution.set(Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &paddings)?;
    convolution.set(Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &paddings)?;
    convolution.set(Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, &[1i64, 1])?;
    convolution.set(Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &strides)?;
    convolution.finalize("describe strides and paddings")
}

/// Describes which of input, weight and output is computed from the others, and whether it is added to what
/// is there.
fn operation(product: Product, [x, w, y]: [&Descriptor; 3], convolution: &Descriptor) -> Result<Descriptor> {
    let (kind, parts, [alpha, beta]) = match product.direction {
        Direction::Forward => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
            ],
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
            ],
        ),
        Direction::Input => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
            ],
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
            ],
        ),
        Direction::Weight => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
            ],
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            ],
        ),
    };
    let operation = Descriptor::new(kind)?;
    for (name, part) in parts.into_iter().zip([x, w, y, convolution]) {
        operation.set_parts(name, &[part])?;
    }
    operation.set(alpha, &[1.0f32])?;
    operation.set(beta, &[if product.add { 1.0f32 } else { 0.0 }])?;
    operation.finalize("describe a product")
}

/// Returns the engine of a configuration and its knobs, if its notes allow it.
pub(super) fn may_be_taken(config: &Descriptor, full_f32: bool) -> Result<Option<Engine>> {
    use sys::cudnnBackendBehaviorNote_t as Behavior;
    use sys::cudnnBackendNumericalNote_t as Numerical;
    let engine_kind = Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR;
    let engines = config.get_parts(Name::CUDNN_ATTR_ENGINECFG_ENGINE, engine_kind, 1)?;
    let Some(engine) = engines.first() else { return Ok(None) };
    let notes: Vec<NumericalNote> = engine.get(Name::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, NOTES)?;
    let has = |all: &[Numerical]| all.iter().any(|&note| notes.contains(&Numbered(note as u32)));
    let refused = has(&[
        Numerical::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC,
        Numerical::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS,
        Numerical::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION,
    ]) || full_f32
        && has(&[
            Numerical::CUDNN_NUMERICAL_NOTE_TENSOR_CORE,
            Numerical::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6,
            Numerical::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13,
        ]);
    let behaviors: Vec<BehaviorNote> = engine.get(Name::CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, NOTES)?;
    let unfit = [
        Behavior::CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION,
        Behavior::CUDNN_BEHAVIOR_NOTE_REQUIRES_FILTER_INT8x32_REORDER,
        Behavior::CUDNN_BEHAVIOR_NOTE_REQUIRES_BIAS_INT8x32_REORDER,
    ]
    .into_iter()
    .any(|note| behaviors.contains(&Numbered(note as u32)));
    if refused || unfit {
        return Ok(None);
    }
    let choice_kind = Kind::CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR;
    let mut knobs = Vec::new();
    for choice in config.get_parts(Name::CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, choice_kind, KNOBS)? {
        let Numbered(knob) = choice.get_one::<Knob>(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE)?;
        knobs.push((knob, choice.get_one(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE)?));
    }
    Ok(Some(Engine { index: engine.get_one(Name::CUDNN_ATTR_ENGINE_GLOBAL_INDEX)?, knobs }))
}
