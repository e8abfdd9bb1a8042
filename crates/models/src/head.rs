//! The paper's embedding head: average pool, linear layer with bias, division by the length.

use crate::initial::Source;
use crate::onnx::OnnxOutput;
use crate::onnx::graph::{Edge, Graph};
use crate::output::{Mode, Output};
use candle_core::{Device, Result, Var, bail};
use invaspread_tensor::{PoolConfig, Tape, Value};

pub(crate) struct Head {
    /// PyTorch's name of the linear layer.
    name: &'static str,
    /// Side of the average pool; 0 stands for the whole map.
    pool: usize,
    /// The weight, (E, C).
    weight: Var,
    bias: Var,
}

impl Head {
    /// Returns a head of `embedding` values for maps of `channels`.
    pub(crate) fn new(
        name: &'static str,
        pool: usize,
        channels: usize,
        embedding: usize,
        source: &mut Source<'_>,
    ) -> Result<Self> {
        let weight = source.uniform_fan_in((embedding, channels), channels)?;
        Ok(Self::with(name, pool, weight, source.uniform_fan_in(embedding, channels)?))
    }

    /// Returns a head with the given initial weight (E, C) and bias (E).
    pub(crate) fn with(name: &'static str, pool: usize, weight: Var, bias: Var) -> Self {
        Self { name, pool, weight, bias }
    }

    /// Runs on the map (N, H, W, C), of which pooling must leave one value for each channel. In training the
    /// outputs are leaves of the tape.
    pub(crate) fn forward(&self, mut tape: Tape, map: &Value, mode: Mode) -> Result<Output> {
        let (_, h, w, _) = map.tensor().dims4()?;
        let side = self.pool_side(h, w)?;
        let pooled = tape.avg_pool2d(map, PoolConfig::square(side))?;
        let pooled = tape.flatten(&pooled)?;
        self.embed(tape, &pooled, mode)
    }

    /// Returns the side of the pool of an `h` x `w` map.
    fn pool_side(&self, h: usize, w: usize) -> Result<usize> {
        let side = if self.pool == 0 { h.max(w) } else { self.pool };
        let left = [h, w].map(|len| PoolConfig::square(side).out_len(len));
        if left != [Some(1), Some(1)] {
            bail!(
                "model.pool: found {}, a {side}x{side} pool, which does not leave 1x1 of the {h}x{w} map; set model.pool to {h}, \
                or to 0 for the whole of a square map; where images should go into the network at another size, set augment.size, \
                which the map's size follows",
                self.pool
            )
        }
        Ok(side)
    }

    /// Adds what [`Head::forward`] does to a graph, as far as `output` needs it. The map has `side` x `side` pixels.
    pub(crate) fn describe(
        &self,
        graph: &mut Graph,
        map: &Edge,
        side: usize,
        output: OnnxOutput,
    ) -> Result<()> {
        let pooled = graph.average("pool", map, self.pool_side(side, side)?);
        self.describe_embed(graph, &pooled, output)
    }

    /// Adds what [`Head::embed`] does to a graph, as far as `output` needs it.
    pub(crate) fn describe_embed(&self, graph: &mut Graph, pooled: &Edge, output: OnnxOutput) -> Result<()> {
        if output == OnnxOutput::Pooled {
            return Ok(());
        }
        let [weight, bias] = self.parameters();
        let weights = [graph.weight(&weight.0, &weight.1)?, graph.weight(&bias.0, &bias.1)?];
        let projection = graph.linear(self.name, pooled, &weights);
        if output == OnnxOutput::Embedding {
            graph.unit_rows("unit", &projection);
        }
        Ok(())
    }

    /// Runs on pooled features (N, C). In training the outputs are leaves of the tape.
    pub(crate) fn embed(&self, mut tape: Tape, pooled: &Value, mode: Mode) -> Result<Output> {
        let projection = tape.linear(pooled, &self.weight, &self.bias)?;
        let embedding = tape.l2_normalize(&projection)?;
        if mode != Mode::Train {
            let [pooled, projection, embedding] =
                [pooled, &projection, &embedding].map(|v| v.tensor().clone());
            return Ok(Output { pooled, projection, embedding, tapes: Vec::new() });
        }
        Ok(Output {
            pooled: tape.leaf(pooled)?,
            projection: tape.leaf(&projection)?,
            embedding: tape.leaf(&embedding)?,
            tapes: vec![tape],
        })
    }

    pub(crate) fn device(&self) -> &Device {
        self.bias.device()
    }

    /// Returns the number of multiply-adds for one image.
    pub(crate) fn multiply_adds(&self) -> usize {
        self.weight.elem_count()
    }

    /// Returns the trained parameters under PyTorch's names.
    pub(crate) fn parameters(&self) -> [(String, Var); 2] {
        [
            (format!("{}.weight", self.name), self.weight.clone()),
            (format!("{}.bias", self.name), self.bias.clone()),
        ]
    }
}
