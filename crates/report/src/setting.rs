//! The setting of a run: the properties that runs must share so that their numbers may be averaged.

use invaspread_record::RunRecord;
use serde::Serialize;

/// The properties that runs must share to be shown in one table. Numbers of different settings are never
/// averaged together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Setting {
    /// The profile: `paper`, `quick` or `smoke`.
    pub profile: String,
    /// The device: `cpu` or `cuda`.
    pub device: String,
    /// The precision that was typed for the runs, if it is not f32. A suite's row may have its own precision, which is
    /// then what its rows compare.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// The data set.
    pub dataset: String,
    /// `verified`, `unverified` or `generated`.
    pub data_state: String,
    /// Whether the runs are smaller than the paper's recipe.
    pub reduced: bool,
    /// Whether training images that were held out are measured in place of test images.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub held_out: bool,
}

impl Setting {
    /// Returns the setting of a run.
    pub fn of(record: &RunRecord) -> Self {
        let typed = record.arguments.iter().rev().find_map(|argument| argument.strip_prefix("precision="));
        Self {
            profile: record.profile.clone(),
            device: record.device.clone(),
            precision: typed.filter(|&typed| typed != "f32").map(str::to_owned),
            dataset: record.dataset.clone(),
            data_state: record.data_state.clone(),
            reduced: record.reduced,
            held_out: record.held_out,
        }
    }
}
