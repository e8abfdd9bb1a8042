//! The vision transformer ViT with the paper's embedding head (Dosovitskiy et al., "An Image is Worth 16x16
//! Words", ICLR 2021), in the sizes Tiny and Small (Touvron et al., "Training data-efficient image
//! transformers", ICML 2021).
//!
//! Images (N, H, W, C) -> patches, by a convolution whose kernel and stride are `patch` -> a token for each
//! patch and a class token, plus the embeddings of their positions -> `depth` blocks -> layer norm of the
//! class token -> linear layer with bias to `embedding` values -> division by their length. A block is
//!
//! ```text
//! x ← x + proj(attention(qkv(norm1(x))))        x ← x + fc2(gelu(fc1(norm2(x))))
//! ```
//!
//! | size | width | depth | heads | parameters without the head |
//! |---|---:|---:|---:|---:|
//! | Tiny | 192 | 12 | 3 | 5.4 million |
//! | Small | 384 | 12 | 6 | 21.4 million |
//!
//! It is timm's `vit_tiny_patch16_224` and `vit_small_patch16_224`, with any patch size: the epsilon of layer
//! norms is 1e-6, GELU is the exact one, and there is no dropout. Names are those of timm's state dict:
//! `cls_token`, `pos_embed`, `patch_embed.proj`, `blocks.0.norm1`, ..., `norm`, `head`.
//!
//! Images of another size than `image` get resized position embeddings
//! ([`invaspread_tensor::token_offsets`]), as with timm's `dynamic_img_size`.
//!
//! Initial weights are timm's: those of linear layers and positions are normal with standard deviation 0.02
//! (timm cuts them off at ±2, a hundred deviations away), their biases 0, gains 1, the class token normal
//! with 1e-6; the convolution has PyTorch's defaults. The embedding layer is one of the linear layers.

use crate::head::Head;
use crate::initial::{ConvSize, Source, Start};
use crate::layout::to_pytorch_layout;
use crate::onnx::OnnxOutput;
use crate::onnx::graph::{Edge, Graph};
use crate::output::{Mode, Output};
use candle_core::{DType, Device, Result, Tensor, Var, bail};
use invaspread_tensor::initialize::Defaults;
use invaspread_tensor::{Conv2dConfig, Tape, Value, with_team};

/// The settings of a vision transformer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VitConfig {
    /// Length of a token.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Heads of an attention; they divide the width.
    pub heads: usize,
    /// Side of the images that the position embeddings are for; a multiple of `patch`.
    pub image: usize,
    /// Side of a patch.
    pub patch: usize,
    /// Channels of an image.
    pub channels: usize,
    /// Length of the embedding.
    pub embedding: usize,
    /// Type of the parameters: f32, or f64 for checks.
    pub dtype: DType,
}

impl VitConfig {
    /// Returns ViT-Tiny for images of 32 pixels with patches of 4.
    pub fn tiny() -> Self {
        let (image, patch, channels, embedding) = (32, 4, 3, 128);
        Self { width: 192, depth: 12, heads: 3, image, patch, channels, embedding, dtype: DType::F32 }
    }

    /// Returns ViT-Small for images of 32 pixels with patches of 4.
    pub fn small() -> Self {
        Self { width: 384, heads: 6, ..Self::tiny() }
    }

    /// Returns the usual name of the size.
    fn size_name(&self) -> String {
        match (self.width, self.depth, self.heads) {
            (192, 12, 3) => "ViT-Tiny".to_owned(),
            (384, 12, 6) => "ViT-Small".to_owned(),
            (width, depth, heads) => format!("ViT of width {width}, depth {depth} and {heads} heads"),
        }
    }
}

impl std::fmt::Display for VitConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { image, patch, .. } = self;
        write!(f, "{} with patches of {patch} pixels for {image} x {image} pixels", self.size_name())
    }
}

/// The hidden columns of a block's perceptron, for each column of a token.
pub(crate) const HIDDEN: usize = 4;

/// Added to a variance by every layer norm.
const EPSILON: f64 = 1e-6;

/// A vision transformer with its weights.
///
/// ```
/// use invaspread_models::{Vit, VitConfig};
///
/// let network = Vit::new(VitConfig::tiny(), 0)?;
/// assert_eq!(network.parameters()[0].0, "cls_token");
/// # Ok::<(), candle_core::Error>(())
/// ```
pub struct Vit {
    config: VitConfig,
    /// (1, 1, D).
    class: Var,
    /// (1, 1 + patches, D).
    position: Var,
    patches: Affine,
    blocks: Vec<Block>,
    norm: Affine,
    head: Head,
}

/// A weight and a bias: of a convolution, a linear layer or a layer norm.
struct Affine {
    /// timm's name of the layer.
    name: String,
    weight: Var,
    bias: Var,
}

impl Affine {
    /// Returns a linear layer with timm's initial weights.
    fn linear(name: String, from: usize, to: usize, source: &mut Source<'_>) -> Result<Self> {
        Ok(Self { name, weight: source.normal((to, from), DEVIATION)?, bias: source.zeros(to)? })
    }

    fn norm(name: String, width: usize, source: &mut Source<'_>) -> Result<Self> {
        Ok(Self { name, weight: source.ones(width)?, bias: source.zeros(width)? })
    }

    fn run_linear(&self, tape: &mut Tape, x: &Value) -> Result<Value> {
        tape.linear(x, &self.weight, &self.bias)
    }

    fn run_norm(&self, tape: &mut Tape, x: &Value) -> Result<Value> {
        tape.layer_norm(x, [&self.weight, &self.bias], EPSILON)
    }

    /// Adds the weight, in PyTorch's layout, and the bias to a graph.
    fn describe(&self, graph: &mut Graph) -> Result<[Edge; 2]> {
        let [(weight_name, weight), (bias_name, bias)] = self.parameters();
        Ok([graph.weight(&weight_name, &to_pytorch_layout(&weight)?)?, graph.weight(&bias_name, &bias)?])
    }

    fn describe_linear(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        let weights = self.describe(graph)?;
        Ok(graph.linear(&self.name, x, &weights))
    }

    fn describe_norm(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        let weights = self.describe(graph)?;
        Ok(graph.layer_norm(&self.name, x, &weights, EPSILON))
    }

    fn parameters(&self) -> [(String, Var); 2] {
        [
            (format!("{}.weight", self.name), self.weight.clone()),
            (format!("{}.bias", self.name), self.bias.clone()),
        ]
    }
}

/// The standard deviation of initial weights, and that of the class token.
const DEVIATION: f64 = 0.02;
const CLASS_DEVIATION: f64 = 1e-6;

struct Block {
    attention_norm: Affine,
    qkv: Affine,
    projection: Affine,
    perceptron_norm: Affine,
    hidden: Affine,
    output: Affine,
}

impl Block {
    fn new(number: usize, width: usize, source: &mut Source<'_>) -> Result<Self> {
        let name = |layer: &str| format!("blocks.{number}.{layer}");
        Ok(Self {
            attention_norm: Affine::norm(name("norm1"), width, source)?,
            qkv: Affine::linear(name("attn.qkv"), width, 3 * width, source)?,
            projection: Affine::linear(name("attn.proj"), width, width, source)?,
            perceptron_norm: Affine::norm(name("norm2"), width, source)?,
            hidden: Affine::linear(name("mlp.fc1"), width, HIDDEN * width, source)?,
            output: Affine::linear(name("mlp.fc2"), HIDDEN * width, width, source)?,
        })
    }

    /// Runs on rows of tokens, of which every `tokens` are one image's.
    fn forward(&self, tape: &mut Tape, x: &Value, tokens: usize, heads: usize) -> Result<Value> {
        // An assignment frees what the value before it held, unless the tape holds it.
        let mut y = self.attention_norm.run_norm(tape, x)?;
        y = self.qkv.run_linear(tape, &y)?;
        y = tape.attention(&y, tokens, heads)?;
        y = self.projection.run_linear(tape, &y)?;
        let x = tape.add(x, &y)?;
        y = self.perceptron_norm.run_norm(tape, &x)?;
        y = self.hidden.run_linear(tape, &y)?;
        y = tape.gelu(&y)?;
        y = self.output.run_linear(tape, &y)?;
        tape.add(&x, &y)
    }

    /// Adds what [`Block::forward`] does to a graph.
    fn describe(&self, graph: &mut Graph, x: &Edge, tokens: usize, heads: usize) -> Result<Edge> {
        let dim = self.projection.bias.elem_count() / heads;
        let mut y = self.attention_norm.describe_norm(graph, x)?;
        y = self.qkv.describe_linear(graph, &y)?;
        y = graph.attention(&format!("{}.attention", self.qkv.name), &y, [tokens, heads, dim]);
        y = self.projection.describe_linear(graph, &y)?;
        let x = graph.add(format!("{}.sum", self.projection.name), x, &y);
        y = self.perceptron_norm.describe_norm(graph, &x)?;
        y = self.hidden.describe_linear(graph, &y)?;
        y = graph.gelu(&format!("{}.gelu", self.hidden.name), &y);
        y = self.output.describe_linear(graph, &y)?;
        Ok(graph.add(format!("{}.sum", self.output.name), &x, &y))
    }

    /// Returns the layers in the order of the state dict.
    fn layers(&self) -> [&Affine; 6] {
        let Self { attention_norm, qkv, projection, perceptron_norm, hidden, output } = self;
        [attention_norm, qkv, projection, perceptron_norm, hidden, output]
    }
}

impl Vit {
    /// Returns a network on the CPU, with initial weights drawn from `seed`.
    ///
    /// # Errors
    /// If a size is zero, the heads do not divide the width, or the patch does not divide the image.
    pub fn new(config: VitConfig, seed: u64) -> Result<Self> {
        Self::on(&Device::Cpu, config, seed)
    }

    /// Returns a network on `device`. The initial weights are the same on every device.
    ///
    /// # Errors
    /// Returns the errors of [`Vit::new`], and one if the device cannot hold the network.
    pub fn on(device: &Device, config: VitConfig, seed: u64) -> Result<Self> {
        let VitConfig { width, depth, heads, image, patch, channels, embedding, dtype } = config;
        if [width, depth, heads, image, patch, channels, embedding].contains(&0) {
            bail!("a vision transformer of {config:?}: expected sizes of at least 1")
        }
        if !width.is_multiple_of(heads) {
            bail!(
                "a vision transformer of width {width} and {heads} heads: expected heads that divide the width"
            )
        }
        if !image.is_multiple_of(patch) {
            bail!(
                "model.patch: found {patch}, which does not divide images of {image} x {image} pixels; set model.patch \
                to a divisor of {image}, or augment.size to a multiple of {patch}"
            )
        }
        let mut source = Source::new(seed, Start::Defaults(Defaults::Current), dtype, device);
        let class = source.normal((1, 1, width), CLASS_DEVIATION)?;
        let position = source.normal((1, 1 + (image / patch).pow(2), width), DEVIATION)?;
        let size = ConvSize { from: channels, to: width, kernel: patch, stride: patch };
        let patches = Affine {
            name: "patch_embed.proj".to_owned(),
            weight: source.convolution(size)?,
            bias: source.uniform_fan_in(width, patch * patch * channels)?,
        };
        let blocks =
            (0..depth).map(|number| Block::new(number, width, &mut source)).collect::<Result<_>>()?;
        let norm = Affine::norm("norm".to_owned(), width, &mut source)?;
        let Affine { weight, bias, .. } = Affine::linear(String::new(), width, embedding, &mut source)?;
        let head = Head::with("head", 0, weight, bias);
        Ok(Self { config, class, position, patches, blocks, norm, head })
    }

    /// Returns the config that the network was built from.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Returns the device that holds the network.
    pub fn device(&self) -> &Device {
        self.head.device()
    }

    /// Embeds a batch of images (N, H, W, C). The modes differ only in whether gradients are recorded.
    ///
    /// # Errors
    /// If the channels are not those of the config, or the patch does not divide the images.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Output> {
        // On a GPU there is no work for the team's workers.
        if x.device().is_cpu() { with_team(|| self.pass(x, mode)) } else { self.pass(x, mode) }
    }

    fn pass(&self, x: &Tensor, mode: Mode) -> Result<Output> {
        let VitConfig { patch, channels, heads, .. } = self.config;
        let (_, height, width, found) = x.dims4()?;
        if found != channels {
            bail!("the images have {found} channels, and the network takes {channels}")
        }
        if !height.is_multiple_of(patch) || !width.is_multiple_of(patch) {
            bail!(
                "model.patch: found {patch}, which does not divide images of {width} x {height} pixels; set the size of \
                the views to a multiple of {patch}"
            )
        }
        let mut tape = mode.tape();
        let config = Conv2dConfig { stride: patch, padding: 0, ..Conv2dConfig::default() };
        let map = tape.conv2d(&Value::constant(x), &self.patches.weight, config)?;
        let mut x = tape.tokens(&map, [&self.patches.bias, &self.class, &self.position])?;
        let tokens = 1 + (height / patch) * (width / patch);
        for block in &self.blocks {
            x = block.forward(&mut tape, &x, tokens, heads)?;
        }
        // timm normalizes all tokens and then takes the first, which gives the same numbers.
        let class = tape.every_row(&x, tokens)?;
        let pooled = self.norm.run_norm(&mut tape, &class)?;
        self.head.embed(tape, &pooled, mode)
    }

    /// Adds the network to a graph, for images of `side` x `side` pixels.
    pub(crate) fn describe(
        &self,
        graph: &mut Graph,
        images: &Edge,
        side: usize,
        output: OnnxOutput,
    ) -> Result<()> {
        let VitConfig { image, patch, width, heads, .. } = self.config;
        if side != image {
            bail!("the position embeddings are for images of {image} x {image} pixels, found {side} x {side}")
        }
        let patches = (side / patch).pow(2);
        let weights = self.patches.describe(graph)?;
        let mut x = graph.convolution(&self.patches.name, images, &weights, [patch, patch, 0]);
        let d = width as i64;
        x = graph.reshape("patches", &x, &[-1, d, patches as i64]);
        x = graph.transpose("patches.rows".to_owned(), &x, [0, 2, 1]);
        // The class token takes the place of a row of zeros, so that its number of copies follows that of the images.
        x = graph.pad_rows("tokens.room", &x, [1, 0]);
        let class = graph.weight("cls_token", self.class.as_tensor())?;
        let class = graph.pad_rows("tokens.class", &class, [0, patches]);
        x = graph.add("tokens.with_class".to_owned(), &x, &class);
        let position = graph.weight("pos_embed", self.position.as_tensor())?;
        x = graph.add("tokens.with_position".to_owned(), &x, &position);
        // Linear layers run on rows of tokens, as here, and so keep the layout of their weights.
        x = graph.reshape("tokens", &x, &[-1, d]);
        let tokens = 1 + patches;
        for block in &self.blocks {
            x = block.describe(graph, &x, tokens, heads)?;
        }
        x = graph.reshape("last", &x, &[-1, tokens as i64, d]);
        x = graph.pick("class", &x, 1, 0);
        let pooled = self.norm.describe_norm(graph, &x)?;
        self.head.describe_embed(graph, &pooled, output)
    }

    /// Returns the number of multiply-adds of the convolution, the linear layers and the attentions for one
    /// image of `side` x `side` pixels.
    pub fn multiply_adds(&self, side: usize) -> u64 {
        let patches = (side / self.config.patch).pow(2);
        let tokens = 1 + patches;
        let linear = |block: &Block| {
            block
                .layers()
                .iter()
                .filter(|layer| layer.weight.rank() == 2)
                .map(|layer| layer.weight.elem_count())
                .sum::<usize>()
        };
        let of_blocks: usize = self
            .blocks
            .iter()
            .map(|block| tokens * linear(block) + 2 * tokens * tokens * self.config.width)
            .sum();
        (patches * self.patches.weight.elem_count() + of_blocks + self.head.multiply_adds()) as u64
    }

    /// Returns the trained parameters under timm's names, in the order of its state dict; the convolution is
    /// (K, K, C_in, C_out).
    pub fn parameters(&self) -> Vec<(String, Var)> {
        let own =
            [("cls_token".to_owned(), self.class.clone()), ("pos_embed".to_owned(), self.position.clone())];
        let blocks = self.blocks.iter().flat_map(Block::layers);
        let layers = std::iter::once(&self.patches).chain(blocks).chain([&self.norm]);
        own.into_iter().chain(layers.flat_map(Affine::parameters)).chain(self.head.parameters()).collect()
    }

    /// Returns the parameters under timm's names, in its order and layouts.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn state_dict(&self) -> Result<Vec<(String, Tensor)>> {
        self.parameters()
            .into_iter()
            .map(|(name, parameter)| Ok((name, to_pytorch_layout(&parameter)?)))
            .collect()
    }

    /// Returns the embedding layer.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }
}
