//! The algorithms that cuDNN's search has chosen, for a run to keep and to take again.
//!
//! cuDNN's search measures time, so two searches for one convolution may choose differently, and two algorithms
//! round differently. A run therefore keeps the choices in its checkpoint: a resumed run takes them and repeats
//! itself bit for bit. On another kind of card, or with another cuDNN, the choices may not exist; there they are
//! measured anew.

use super::libraries::Facts;
use super::{facts, graph};
use crate::conv2d::Geometry;
use candle_core::{DType, Device, Result, bail};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The entry that names the card and cuDNN's version.
const MACHINE: &str = "machine";

/// One of the three products of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    /// The output.
    Forward,
    /// The gradient of the input.
    Input,
    /// The gradient of the weight.
    Weight,
}

/// A convolution as cuDNN sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) geometry: Geometry,
    /// Channels of the input, with those added for the hardware.
    pub(super) channels: usize,
    /// Channels of the output, with those added for the hardware.
    pub(super) out_channels: usize,
    pub(super) dtype: DType,
    pub(super) tf32: bool,
}

/// An algorithm, by cuDNN's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) algorithm: u32,
    pub(super) math: u32,
    /// Bytes of scratch memory.
    pub(super) workspace: usize,
}

#[derive(Default)]
struct Choices {
    used: HashMap<(Direction, Key), Choice>,
    /// Choices of an earlier process, by the text of their key.
    recorded: BTreeMap<String, Choice>,
}

static CHOICES: Mutex<Option<Choices>> = Mutex::new(None);

fn choices() -> MutexGuard<'static, Option<Choices>> {
    CHOICES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::Forward => "output",
            Self::Input => "input gradient",
            Self::Weight => "weight gradient",
        }
    }
}

/// Returns the text of a key in a checkpoint.
fn text((direction, key): (Direction, Key)) -> String {
    let Key { geometry: g, channels, out_channels, dtype, tf32 } = key;
    let precision = if tf32 { "tf32" } else { dtype.as_str() };
    // Channels that were added for the hardware make two convolutions alike that were searched for apart.
    let given = if (g.ci, g.co) == (channels, out_channels) {
        String::new()
    } else {
        format!(" (given {} to {})", g.ci, g.co)
    };
    format!(
        "{} {}x{}x{}x{channels} to {out_channels}{given} kernel {}x{} stride {} padding {} {precision}",
        direction.name(),
        g.n,
        g.h,
        g.w,
        g.kh,
        g.kw,
        g.stride,
        g.padding
    )
}

impl Choice {
    fn text(self) -> String {
        let Self { algorithm, math, workspace } = self;
        format!("algorithm {algorithm} math {math} workspace {workspace}")
    }

    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let ["algorithm", algorithm, "math", math, "workspace", workspace] = words[..] else { return None };
        Some(Self {
            algorithm: algorithm.parse().ok()?,
            math: math.parse().ok()?,
            workspace: workspace.parse().ok()?,
        })
    }
}

/// Returns the choice for a convolution, if there is one.
pub(super) fn known(direction: Direction, key: Key) -> Option<Choice> {
    let mut choices = choices();
    let Choices { used, recorded } = choices.get_or_insert_default();
    if let Some(choice) = used.get(&(direction, key)) {
        return Some(*choice);
    }
    let choice = *recorded.get(&text((direction, key)))?;
    used.insert((direction, key), choice);
    Some(choice)
}

/// Keeps the choice for a convolution.
pub(super) fn keep(direction: Direction, key: Key, choice: Choice) {
    choices().get_or_insert_default().used.insert((direction, key), choice);
}

fn machine(facts: &Facts) -> String {
    let (major, minor) = facts.capability;
    format!("{}, compute capability {major}.{minor}, cuDNN {}", facts.name, facts.cudnn)
}

/// Returns the algorithms of all convolutions that this process has run or taken up, as text under text: what
/// [`take_algorithms`] takes. Empty on the CPU, and before the first convolution.
///
/// # Errors
/// If the driver does not answer.
pub fn algorithms(device: &Device) -> Result<BTreeMap<String, String>> {
    if !device.is_cuda() {
        return Ok(BTreeMap::new());
    }
    let mut all = BTreeMap::new();
    if let Some(Choices { used, recorded }) = &*choices() {
        all.extend(recorded.iter().map(|(key, choice)| (key.clone(), choice.text())));
        all.extend(used.iter().map(|(key, choice)| (text(*key), choice.text())));
    }
    if !all.is_empty() {
        all.insert(MACHINE.to_owned(), machine(&facts(device)?));
    }
    Ok(all)
}

/// Forgets all choices of this process and takes up those that [`algorithms`] returned, in this process or
/// another. Returns what a person must know if they are of another card or another cuDNN, and so are not taken.
///
/// # Errors
/// If an entry is not one that [`algorithms`] makes, or the driver does not answer.
pub fn take_algorithms(device: &Device, entries: &BTreeMap<String, String>) -> Result<Option<String>> {
    let mut recorded = BTreeMap::new();
    for (key, value) in entries.iter().filter(|(key, _)| *key != MACHINE) {
        let Some(choice) = Choice::parse(value) else {
            bail!(
                "cuda: the algorithm of {key:?} is {value:?}, expected \"algorithm N math N workspace N\"; without this entry it is \
                 measured anew"
            )
        };
        recorded.insert(key.clone(), choice);
    }
    // A recorded step holds the choices that were taken when it was recorded.
    graph::forget_if(true);
    let mut said = None;
    if device.is_cuda() && !recorded.is_empty() {
        let here = machine(&facts(device)?);
        let there = entries.get(MACHINE).map_or("an unknown machine", String::as_str);
        if here != there {
            recorded.clear();
            said = Some(format!(
                "the algorithms of the convolutions were chosen on {there}; this is {here}, where they are measured anew. From here on the \
                 run is not the same bit for bit as on that machine"
            ));
        }
    }
    *choices() = Some(Choices { used: HashMap::new(), recorded });
    Ok(said)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::collections::BTreeSet;

    use candle_core::DType;

    use super::super::conv2d::key;
    use super::{Choice, Direction, text};
    use crate::conv2d::Geometry;

    /// A process may run all three precisions, and its checkpoints hold the choices for all of them.
    #[test]
    fn each_precision_and_direction_has_an_entry_of_its_own() {
        let geometry = Geometry { n: 2, h: 8, w: 8, ci: 16, co: 32, kh: 3, kw: 3, stride: 2, padding: 1 };
        // Networks ask for TF32 wherever full f32 is not asked for, in bf16 too.
        let precisions = [(DType::F32, false), (DType::F32, true), (DType::BF16, true)];
        let texts: BTreeSet<String> = precisions
            .iter()
            .flat_map(|&(dtype, tf32)| {
                [Direction::Forward, Direction::Input, Direction::Weight]
                    .map(|direction| text((direction, key(&geometry, dtype, tf32).unwrap())))
            })
            .collect();
        assert_eq!(texts.len(), 9, "{texts:?}");
    }

    /// In bf16 three channels become eight, as many as another convolution may have.
    #[test]
    fn channels_that_were_added_make_no_convolution_another_one() {
        let of = |ci| {
            let geometry = Geometry { n: 2, h: 8, w: 8, ci, co: 8, kh: 3, kw: 3, stride: 1, padding: 1 };
            text((Direction::Forward, key(&geometry, DType::BF16, false).unwrap()))
        };
        assert_ne!(of(3), of(8));
    }

    #[test]
    fn a_choice_is_read_as_it_is_written() {
        let choice = Choice { algorithm: 6, math: 3, workspace: 1 << 29 };
        assert_eq!(Choice::parse(&choice.text()), Some(choice));
        for wrong in ["", "algorithm 1", "algorithm 1 math x workspace 3", "algorithm -1 math 0 workspace 0"]
        {
            assert_eq!(Choice::parse(wrong), None, "{wrong}");
        }
    }
}
