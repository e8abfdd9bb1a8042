//! Measures on the device's own clock how long something takes.

use super::super::failed;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream};
use candle_core::{CudaDevice, Result};
use std::sync::Arc;

/// The milliseconds that a measurement should last: a single launch may be shorter than what events can tell.
const LASTING: f32 = 0.3;

/// The most launches in a row, and how often a row is repeated.
const LAUNCHES: f32 = 20.0;
const ROWS: usize = 2;

pub(super) struct Clock {
    begin: CudaEvent,
    end: CudaEvent,
    stream: Arc<CudaStream>,
}

impl Clock {
    pub(super) fn new(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream();
        let event = || {
            let event = stream.context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
            event.map_err(|e| failed("make an event", e))
        };
        Ok(Self { begin: event()?, end: event()?, stream })
    }

    /// Returns the milliseconds of one launch: the best of some rows of launches. A launch that takes more
    /// than twice `best` is measured once.
    ///
    /// # Errors
    /// The error of a launch, or the driver's.
    pub(super) fn measure(&self, best: f32, mut launch: impl FnMut() -> Result<()>) -> Result<f32> {
        // The first launch of a kernel loads it.
        launch()?;
        let mut milliseconds = self.row(1, &mut launch)?;
        if milliseconds < LASTING && milliseconds < 2.0 * best {
            let launches = (LASTING / milliseconds.max(1e-3)).ceil().clamp(1.0, LAUNCHES) as usize;
            for _ in 0..ROWS {
                milliseconds = milliseconds.min(self.row(launches, &mut launch)?);
            }
        }
        Ok(milliseconds)
    }

    fn row(&self, launches: usize, launch: &mut impl FnMut() -> Result<()>) -> Result<f32> {
        let timed = |e| failed("time a convolution", e);
        self.begin.record(&self.stream).map_err(timed)?;
        for _ in 0..launches {
            launch()?;
        }
        self.end.record(&self.stream).map_err(timed)?;
        Ok(self.begin.elapsed_ms(&self.end).map_err(timed)? / launches as f32)
    }
}
