//! The ops, each with its equation in plain loops.

use super::{Op, Rule, Values};
use candle_core::{Result, Tensor};
use invaspread_random::Stream;
use invaspread_tensor::{
    Algorithm, BatchNormConfig, Conv2dConfig, LocalResponseNormConfig, PoolConfig, avg_pool2d, batch_norm,
    bias_relu, conv2d, l2_normalize, linear, local_response_norm, max_pool2d,
};

fn any_not_finite(values: impl IntoIterator<Item = f64>) -> bool {
    values.into_iter().any(|v| !v.is_finite())
}

/// Passes `gy` through a ReLU whose result is `y`. As in PyTorch, the gradient is zero where y <= 0.
fn through_relu(y: f64, gy: f64) -> f64 {
    if y <= 0.0 { 0.0 } else { gy }
}

/// Returns `max(x, 0)`, but keeps a NaN.
fn relu(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

/// A convolution. Only the first image of the input holds special values, so it is known which results they
/// must not reach.
pub(crate) struct Convolution {
    inputs: [Values; 2],
    config: Conv2dConfig,
}

/// Sizes of a convolution: images, height, width, channels in and out, side of the kernel.
pub(crate) type Sizes = [usize; 6];

impl Convolution {
    pub(crate) fn draw(
        stream: &mut Stream,
        [n, h, w, ci, co, kernel]: Sizes,
        config: Conv2dConfig,
        [in_x, in_w]: [bool; 2],
    ) -> Self {
        let x = Values::draw(stream, &[n, h, w, ci], if in_x { h * w * ci } else { 0 }, 40);
        let weight = Values::sprinkled(stream, &[kernel, kernel, ci, co], in_w, 200);
        Self { inputs: [x, weight], config }
    }

    fn sizes(&self) -> Sizes {
        let [n, h, w, ci] = self.inputs[0].shape[..] else { unreachable!("a map has four axes") };
        [n, h, w, ci, self.inputs[1].shape[3], self.inputs[1].shape[0]]
    }

    fn output(&self) -> [usize; 2] {
        let [_, h, w, _, _, kernel] = self.sizes();
        [h, w].map(|side| (side + 2 * self.config.padding - kernel) / self.config.stride + 1)
    }

    /// Returns whether f32 takes Winograd's path.
    fn is_winograd(&self) -> bool {
        let [.., ci, co, kernel] = self.sizes();
        let Conv2dConfig { stride, padding, algorithm, .. } = self.config;
        algorithm == Algorithm::Fastest
            && (kernel, stride, padding) == (3, 1, 1)
            && ci % 16 == 0
            && co % 16 == 0
    }
}

impl Op for Convolution {
    fn name(&self) -> String {
        format!("conv2d {:?} {:?}", self.sizes(), self.config)
    }

    fn inputs(&self) -> &[Values] {
        &self.inputs
    }

    fn apply(&self, t: &[Tensor]) -> Result<Tensor> {
        conv2d(&t[0], &t[1], self.config)
    }

    /// Computes sums that do not include the padding.
    fn equation(&self, gy: &[f64], _: &[f64]) -> Vec<Vec<f64>> {
        let [n, h, w, ci, co, kernel] = self.sizes();
        let ([oh, ow], Conv2dConfig { stride, padding, .. }) = (self.output(), self.config);
        let [x, weight] = [&self.inputs[0].values, &self.inputs[1].values];
        let (mut y, mut gx, mut gw) = (vec![0.0; gy.len()], vec![0.0; x.len()], vec![0.0; weight.len()]);
        for pixel in 0..n * oh * ow {
            let (image, oy, ox) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
            for tap in 0..kernel * kernel {
                let (iy, ix) = (oy * stride + tap / kernel, ox * stride + tap % kernel);
                if iy < padding || ix < padding || iy - padding >= h || ix - padding >= w {
                    continue;
                }
                let from = ((image * h + iy - padding) * w + ix - padding) * ci;
                for c in 0..ci {
                    for o in 0..co {
                        let (at, to) = ((tap * ci + c) * co + o, pixel * co + o);
                        y[to] += x[from + c] * weight[at];
                        gx[from + c] += gy[to] * weight[at];
                        gw[at] += gy[to] * x[from + c];
                    }
                }
            }
        }
        vec![y, gx, gw]
    }

    /// Products with the zeros of the padding are computed, so a non-finite value in a weight (for the weight
    /// gradient: in the output gradient) may reach every pixel of its channel. Winograd spreads a non-finite
    /// value over its tile: within an image and, for the weight gradient, within a channel.
    fn rule(&self, which: usize, at: usize, gy: &[f64], spreads: bool) -> Rule {
        let [_, h, w, ci, co, _] = self.sizes();
        let [oh, ow] = self.output();
        let [x, weight] = [&self.inputs[0].values, &self.inputs[1].values];
        let winograd = spreads && self.is_winograd();
        let column = |values: &[f64], columns: usize, c: usize| {
            any_not_finite(values.iter().skip(c).step_by(columns).copied())
        };
        let image = |values: &[f64], number: usize, len: usize| {
            any_not_finite(values[number * len..][..len].iter().copied())
        };
        let (of_input, of_output) = (h * w * ci, oh * ow * co);
        let spread = match which {
            0 => column(weight, co, at % co) || (winograd && image(x, at / of_output, of_input)),
            1 => {
                let of_channel = weight.chunks(co).skip(at % ci).step_by(ci).flatten().copied();
                any_not_finite(of_channel) || (winograd && image(gy, at / of_input, of_output))
            }
            _ => column(gy, co, at % co) || (winograd && column(x, ci, at / co % ci)),
        };
        if spread { Rule::Spreads } else { Rule::Same }
    }

    fn tolerance(&self) -> f64 {
        if self.is_winograd() { 1e-4 } else { 1e-5 }
    }
}

/// Batch norm in training mode, over all rows at once.
pub(crate) struct BatchNorm {
    inputs: Vec<Values>,
    config: BatchNormConfig,
}

impl BatchNorm {
    pub(crate) fn draw(
        stream: &mut Stream,
        [rows, channels]: [usize; 2],
        relu: bool,
        with_residual: bool,
        [in_x, in_parameters, in_residual]: [bool; 3],
    ) -> Self {
        let mut inputs = vec![Values::sprinkled(stream, &[rows, channels], in_x, 8 * rows)];
        inputs.extend([(); 2].map(|()| Values::sprinkled(stream, &[channels], in_parameters, 6)));
        if with_residual {
            inputs.push(Values::sprinkled(stream, &[rows, channels], in_residual, 8));
        }
        Self { inputs, config: BatchNormConfig { eps: 0.1, relu, chunk: 0 } }
    }
}

impl Op for BatchNorm {
    fn name(&self) -> String {
        format!("batch_norm {:?} {:?}, {} inputs", self.inputs[0].shape, self.config, self.inputs.len())
    }

    fn inputs(&self) -> &[Values] {
        &self.inputs
    }

    fn apply(&self, t: &[Tensor]) -> Result<Tensor> {
        Ok(batch_norm(&t[0], &t[1], &t[2], t.get(3), self.config)?.0)
    }

    fn equation(&self, gy: &[f64], y: &[f64]) -> Vec<Vec<f64>> {
        let [rows, channels] = self.inputs[0].shape[..] else { unreachable!("rows of channels") };
        let [x, gamma, beta] = [0, 1, 2].map(|i| &self.inputs[i].values);
        let (len, count) = (rows * channels, rows as f64);
        let (mut out, mut gx, mut gr) = (vec![0.0; len], vec![0.0; len], vec![0.0; len]);
        let (mut to_gamma, mut to_beta) = (vec![0.0; channels], vec![0.0; channels]);
        for c in 0..channels {
            let column = || (c..len).step_by(channels);
            let mean = column().map(|i| x[i]).sum::<f64>() / count;
            let variance = column().map(|i| (x[i] - mean).powi(2)).sum::<f64>() / count;
            let rstd = 1.0 / (variance + self.config.eps).sqrt();
            let unit = |i: usize| (x[i] - mean) * rstd;
            for i in column() {
                let sum = gamma[c] * unit(i) + beta[c] + self.inputs.get(3).map_or(0.0, |r| r.values[i]);
                out[i] = if self.config.relu { relu(sum) } else { sum };
                gr[i] = if self.config.relu { through_relu(y[i], gy[i]) } else { gy[i] };
            }
            to_beta[c] = column().map(|i| gr[i]).sum();
            to_gamma[c] = column().map(|i| gr[i] * unit(i)).sum();
            for i in column() {
                gx[i] = gamma[c] * rstd * (gr[i] - to_beta[c] / count - unit(i) * to_gamma[c] / count);
            }
        }
        let mut all = vec![out, gx, to_gamma, to_beta];
        if self.inputs.len() == 4 {
            all.push(gr);
        }
        all
    }

    /// Returns the rule for gradients that the op computes as rearranged sums of products.
    fn rule(&self, which: usize, _: usize, _: &[f64], _: bool) -> Rule {
        if which == 4 { Rule::Same } else { Rule::AsFinite }
    }

    fn tolerance(&self) -> f64 {
        1e-4
    }
}

/// A bias and a ReLU.
pub(crate) struct BiasRelu([Values; 2]);

impl BiasRelu {
    pub(crate) fn draw(
        stream: &mut Stream,
        [rows, channels]: [usize; 2],
        [in_x, in_bias]: [bool; 2],
    ) -> Self {
        let x = Values::sprinkled(stream, &[rows, channels], in_x, 5);
        Self([x, Values::sprinkled(stream, &[channels], in_bias, 5)])
    }
}

impl Op for BiasRelu {
    fn name(&self) -> String {
        format!("bias_relu {:?}", self.0[0].shape)
    }

    fn inputs(&self) -> &[Values] {
        &self.0
    }

    fn apply(&self, t: &[Tensor]) -> Result<Tensor> {
        bias_relu(&t[0], &t[1])
    }

    fn equation(&self, gy: &[f64], y: &[f64]) -> Vec<Vec<f64>> {
        let [x, bias] = [&self.0[0].values, &self.0[1].values];
        let out = x.iter().enumerate().map(|(i, x)| relu(x + bias[i % bias.len()])).collect();
        let gx: Vec<f64> = y.iter().zip(gy).map(|(y, gy)| through_relu(*y, *gy)).collect();
        let gb = (0..bias.len()).map(|c| gx.iter().skip(c).step_by(bias.len()).sum()).collect();
        vec![out, gx, gb]
    }
}

/// Maximum or average pooling.
pub(crate) struct Pooling {
    input: [Values; 1],
    config: PoolConfig,
    maximum: bool,
}

impl Pooling {
    pub(crate) fn draw(stream: &mut Stream, shape: [usize; 4], config: PoolConfig, maximum: bool) -> Self {
        Self { input: [Values::sprinkled(stream, &shape, true, 6)], config, maximum }
    }
}

impl Op for Pooling {
    fn name(&self) -> String {
        format!("pooling {:?} {:?}, maximum: {}", self.input[0].shape, self.config, self.maximum)
    }

    fn inputs(&self) -> &[Values] {
        &self.input
    }

    fn apply(&self, t: &[Tensor]) -> Result<Tensor> {
        if self.maximum { max_pool2d(&t[0], self.config) } else { avg_pool2d(&t[0], self.config) }
    }

    /// Computes the maximum as PyTorch does: a value replaces the best before it if it is greater, or NaN.
    fn equation(&self, gy: &[f64], _: &[f64]) -> Vec<Vec<f64>> {
        let [n, h, w, channels] = self.input[0].shape[..] else { unreachable!("a map has four axes") };
        let PoolConfig { kernel, stride, padding, .. } = self.config;
        let [oh, ow] = [h, w].map(|side| self.config.out_len(side).unwrap());
        let x = &self.input[0].values;
        let (mut y, mut gx) = (vec![0.0; gy.len()], vec![0.0; x.len()]);
        for (to, g) in gy.iter().enumerate() {
            let (c, ox, oy, image) =
                (to % channels, to / channels % ow, to / (channels * ow) % oh, to / (channels * ow * oh));
            assert!(image < n);
            let (mut inside, mut count) = (Vec::new(), 0.0);
            for tap in 0..kernel * kernel {
                let (py, px) = (oy * stride + tap / kernel, ox * stride + tap % kernel);
                if py < h + 2 * padding && px < w + 2 * padding {
                    count += 1.0;
                }
                if py >= padding && px >= padding && py - padding < h && px - padding < w {
                    inside.push(((image * h + py - padding) * w + px - padding) * channels + c);
                }
            }
            if self.maximum {
                let mut best = inside[0];
                for &i in &inside[1..] {
                    if x[i] > x[best] || x[i].is_nan() {
                        best = i;
                    }
                }
                y[to] = x[best];
                gx[best] += g;
            } else {
                y[to] = inside.iter().map(|&i| x[i]).sum::<f64>() / count;
                for &i in &inside {
                    gx[i] += g / count;
                }
            }
        }
        vec![y, gx]
    }
}

/// Local response norm over centered windows.
pub(crate) struct LocalResponse {
    input: [Values; 1],
    config: LocalResponseNormConfig,
}

impl LocalResponse {
    pub(crate) fn draw(stream: &mut Stream, [rows, channels]: [usize; 2], size: usize, usual: bool) -> Self {
        let beta = if usual { 0.75 } else { 0.6 };
        let config = LocalResponseNormConfig { size, alpha: 0.5, beta, ..Default::default() };
        Self { input: [Values::sprinkled(stream, &[rows, channels], true, 12)], config }
    }
}

impl Op for LocalResponse {
    fn name(&self) -> String {
        format!("local_response_norm {:?} {:?}", self.input[0].shape, self.config)
    }

    fn inputs(&self) -> &[Values] {
        &self.input
    }

    fn apply(&self, t: &[Tensor]) -> Result<Tensor> {
        local_response_norm(&t[0], self.config)
    }

    fn equation(&self, gy: &[f64], _: &[f64]) -> Vec<Vec<f64>> {
        let LocalResponseNormConfig { size, alpha, beta, k, .. } = self.config;
        let channels = self.input[0].shape[1];
        let (mut y, mut gx) = (Vec::new(), Vec::new());
        for (x, gy) in self.input[0].values.chunks(channels).zip(gy.chunks(channels)) {
            let window = |c: usize| c.saturating_sub(size / 2)..(c + (size - 1) / 2 + 1).min(channels);
            let s: Vec<f64> = (0..channels)
                .map(|c| k + alpha / size as f64 * x[window(c)].iter().map(|x| x * x).sum::<f64>())
                .collect();
            y.extend((0..channels).map(|c| x[c] / s[c].powf(beta)));
            gx.extend((0..channels).map(|j| {
                let around = (0..channels).filter(|&c| window(c).contains(&j));
                let sum: f64 = around.map(|c| gy[c] * x[c] * s[c].powf(-beta - 1.0)).sum();
                gy[j] * s[j].powf(-beta) - 2.0 * alpha * beta / size as f64 * x[j] * sum
            }));
        }
        vec![y, gx]
    }
}

/// The linear layer.
pub(crate) struct LinearLayer([Values; 3]);

impl LinearLayer {
    pub(crate) fn draw(
        stream: &mut Stream,
        [rows, inputs, outputs]: [usize; 3],
        specials: [bool; 3],
    ) -> Self {
        let shapes: [&[usize]; 3] = [&[rows, inputs], &[outputs, inputs], &[outputs]];
        Self([0, 1, 2].map(|i| Values::sprinkled(stream, shapes[i], specials[i], 2 * inputs)))
    }
}

impl Op for LinearLayer {
    fn name(&self) -> String {
        format!("linear {:?} {:?}", self.0[0].shape, self.0[1].shape)
    }

    fn inputs(&self) -> &[Values] {
        &self.0
    }

    fn apply(&self, t: &[Tensor]) -> Result<Tensor> {
        linear(&t[0], &t[1], &t[2])
    }

    fn equation(&self, gy: &[f64], _: &[f64]) -> Vec<Vec<f64>> {
        let [x, weight, bias] = [0, 1, 2].map(|i| &self.0[i].values);
        let (inputs, outputs) = (self.0[0].shape[1], bias.len());
        let (mut y, mut gx, mut gw) = (Vec::new(), vec![0.0; x.len()], vec![0.0; weight.len()]);
        for (to, g) in gy.iter().enumerate() {
            let (row, o) = (to / outputs, to % outputs);
            let mut sum = bias[o];
            for c in 0..inputs {
                sum += x[row * inputs + c] * weight[o * inputs + c];
                gx[row * inputs + c] += g * weight[o * inputs + c];
                gw[o * inputs + c] += g * x[row * inputs + c];
            }
            y.push(sum);
        }
        let gb = (0..outputs).map(|o| gy.iter().skip(o).step_by(outputs).sum()).collect();
        vec![y, gx, gw, gb]
    }
}

/// Rows divided by their length.
pub(crate) struct UnitRows([Values; 1]);

impl UnitRows {
    pub(crate) fn draw(stream: &mut Stream, [rows, dim]: [usize; 2]) -> Self {
        Self([Values::sprinkled(stream, &[rows, dim], true, 2 * dim)])
    }
}

impl Op for UnitRows {
    fn name(&self) -> String {
        format!("l2_normalize {:?}", self.0[0].shape)
    }

    fn inputs(&self) -> &[Values] {
        &self.0
    }

    fn apply(&self, t: &[Tensor]) -> Result<Tensor> {
        l2_normalize(&t[0])
    }

    /// Takes zero as the reciprocal of the length of a row of zeros, so that the row stays as it is. Its
    /// gradient is zero, or all NaN where a value of the output gradient is NaN or an infinity, as in every
    /// row.
    fn equation(&self, gy: &[f64], _: &[f64]) -> Vec<Vec<f64>> {
        let dim = self.0[0].shape[1];
        let (mut y, mut gx) = (Vec::new(), Vec::new());
        for (x, gy) in self.0[0].values.chunks(dim).zip(gy.chunks(dim)) {
            let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let inverse = if length == 0.0 { 0.0 } else { 1.0 / length };
            let unit: Vec<f64> = x.iter().map(|x| x * inverse).collect();
            let along: f64 = unit.iter().zip(gy).map(|(u, g)| u * g).sum();
            gx.extend(unit.iter().zip(gy).map(|(u, g)| (g - u * along) * inverse));
            y.extend(unit);
        }
        vec![y, gx]
    }

    fn rule(&self, which: usize, _: usize, _: &[f64], _: bool) -> Rule {
        if which == 0 { Rule::Same } else { Rule::AsFinite }
    }

    /// Returns a larger tolerance, because short rows magnify the rounding error of their gradients.
    fn tolerance(&self) -> f64 {
        1e-4
    }
}
