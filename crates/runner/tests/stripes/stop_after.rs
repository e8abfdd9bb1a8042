//! An observer that stops a run.

use invaspread_runner::engine::{Observer, StepTaken, Stop};

/// Raises the flag after some steps.
pub(crate) struct StopAfter {
    pub(crate) steps: usize,
    pub(crate) stop: Stop,
}

impl Observer for StopAfter {
    fn step(&mut self, _event: &StepTaken) {
        self.steps = self.steps.saturating_sub(1);
        if self.steps == 0 {
            self.stop.raise();
        }
    }
}
