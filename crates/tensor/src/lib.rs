//! What candle lacks or does slowly, as candle custom ops.
pub mod gemm;
