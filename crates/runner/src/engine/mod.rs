//! The training engine: from a recipe and images to trained weights, measurements and checkpoints.
//!
//! The engine knows nothing of config files, suites or records (see `launch`) and prints nothing (see
//! [`Observer`]). The process may be killed at any moment: a run that resumes from the checkpoint on disk
//! ends with the same weights, bit for bit.

mod algorithms;
mod class_table;
mod embed;
mod error;
mod estimate;
mod evaluate;
mod feed;
mod images;
mod intervals;
mod journal;
mod keeper;
mod learner;
mod loss_log;
mod measure;
mod more_metrics;
mod observer;
mod place;
mod recipe;
#[cfg(feature = "cuda")]
mod repeated;
mod restore;
mod retrieval_recipe;
mod selection;
mod shape;
mod stop;
mod trained;
mod training;
mod weights;

pub use class_table::ClassScores;
pub use embed::Embeddings;
pub(crate) use embed::{BATCH, chosen, embed, embed_some, on_host};
pub use error::EngineError;
pub use estimate::{Estimate, estimate};
pub use evaluate::{EvaluateError, Evaluated, OtherProtocol, evaluate};
pub(crate) use feed::ImageFeed;
pub use images::{Images, Labeled};
pub use intervals::{Intervals, MoreIntervals, Units};
pub(crate) use learner::Learner;
pub use measure::{Classed, Findings, Measured, QueryScored, measure};
pub use more_metrics::{MoreFindings, ShapeOfRows};
pub use observer::{End, EpochFinished, Observer, RunFinished, RunStarted, Silent, StepTaken};
pub use place::RunPlace;
pub use recipe::{Fall, Recipe, Schedule};
#[cfg(feature = "cuda")]
pub(crate) use repeated::RepeatedSteps;
pub use restore::{KeptState, embed_by, read_state, write_weights};
pub use retrieval_recipe::{KMeansStart, RetrievalRecipe, When};
pub use selection::{Metric, Selection};
pub use stop::Stop;
pub use trained::{Best, Outcome, Trained};
pub use training::train;
pub use weights::open_weights;
