//! The settings of a local response norm.

/// The window of channels around a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalResponseWindow {
    /// As many channels before it as after it: the window of the equation, of Caffe, and of PyTorch on GPUs
    /// when the paper was written.
    #[default]
    Centered,
    /// The window of PyTorch's `CrossMapLRN2d` today, for comparison with numbers that were computed with it.
    /// Channel 0 is never removed from the moving sum, so it is in every window; and the gradient adds up the
    /// terms c from j - n/2 - 1 to j + n/2 - 1, one channel too far back. Only for windows of an odd number
    /// of channels.
    CrossMapLrn2d,
}

/// Settings of the normalization; the default is GoogLeNet's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalResponseNormConfig {
    /// Channels of a window.
    pub size: usize,
    /// Factor of the mean square.
    pub alpha: f64,
    /// Exponent.
    pub beta: f64,
    /// Number that is added to the mean square.
    pub k: f64,
    /// The channels of a window.
    pub window: LocalResponseWindow,
}

impl Default for LocalResponseNormConfig {
    fn default() -> Self {
        Self { size: 5, alpha: 1e-4, beta: 0.75, k: 1.0, window: LocalResponseWindow::default() }
    }
}
