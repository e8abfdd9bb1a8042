//! What a search has chosen to compute convolutions, for a run to keep and to take again: an algorithm of
//! cuDNN's older API, or an engine of its graph API with the engine's knobs, from which the same plan is
//! made.
//!
//! A search measures time, so two searches for one convolution may choose differently, and two algorithms
//! round differently. A run therefore keeps the choices in its checkpoint: a resumed run takes them and
//! repeats itself bit for bit. On another kind of card, or with another cuDNN, the choices may not exist;
//! there they are measured anew.

use super::libraries::Facts;
use super::switches::{ConvolutionApi, Switches};
use super::{facts, graph};
use crate::conv2d::Geometry;
use candle_core::{DType, Device, Result, bail};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most bytes of scratch memory that an algorithm or a plan may use.
pub(crate) const LARGEST_WORKSPACE: usize = 1 << 30;

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

impl Key {
    /// Returns whether no factor may be rounded to TF32.
    pub(super) fn full_f32(&self) -> bool {
        self.dtype == DType::F32 && !self.tf32
    }
}

/// What cuDNN computes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Product {
    pub(super) direction: Direction,
    pub(super) key: Key,
    /// Whether it is added to what is there.
    pub(super) add: bool,
}

/// An algorithm of the older API, by cuDNN's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Algorithm {
    pub(super) number: u32,
    pub(super) math: u32,
    /// Bytes of scratch memory.
    pub(super) workspace: usize,
}

/// An engine of the graph API, by cuDNN's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Engine {
    pub(super) index: i64,
    /// Knobs and their values.
    pub(super) knobs: Vec<(u32, i64)>,
}

/// What computes a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    Legacy(Algorithm),
    Backend(Engine),
}

#[derive(Default)]
struct Choices {
    used: HashMap<Product, Choice>,
    /// Choices of an earlier process, by the text of their product.
    recorded: BTreeMap<String, Choice>,
    /// What a person must know and has not been told.
    notes: Vec<String>,
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

/// Returns the text of a product in a checkpoint.
fn text(product: Product) -> String {
    let Product { direction, key, add } = product;
    let Key { geometry: g, channels, out_channels, dtype, tf32 } = key;
    let precision = if tf32 { "tf32" } else { dtype.as_str() };
    // Channels that were added for the hardware make two convolutions alike that were searched for apart.
    let given = if (g.ci, g.co) == (channels, out_channels) {
        String::new()
    } else {
        format!(" (given {} to {})", g.ci, g.co)
    };
    format!(
        "{} {}x{}x{}x{channels} to {out_channels}{given} kernel {}x{} stride {} padding {} {precision}{}",
        direction.name(),
        g.n,
        g.h,
        g.w,
        g.kh,
        g.kw,
        g.stride,
        g.padding,
        if add { " added" } else { "" }
    )
}

impl Choice {
    fn text(&self) -> String {
        match self {
            Self::Legacy(Algorithm { number, math, workspace }) => {
                format!("algorithm {number} math {math} workspace {workspace}")
            }
            Self::Backend(Engine { index, knobs }) => {
                let mut words = vec![format!("engine {index} knobs")];
                words.extend(knobs.iter().map(|(knob, value)| format!("{knob}={value}")));
                words.join(" ")
            }
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["algorithm", number, "math", math, "workspace", workspace] => Some(Self::Legacy(Algorithm {
                number: number.parse().ok()?,
                math: math.parse().ok()?,
                workspace: workspace.parse().ok()?,
            })),
            ["engine", index, "knobs", ref knobs @ ..] => {
                let knob = |text: &&str| {
                    let (knob, value) = text.split_once('=')?;
                    Some((knob.parse().ok()?, value.parse().ok()?))
                };
                let knobs = knobs.iter().map(knob).collect::<Option<Vec<_>>>()?;
                Some(Self::Backend(Engine { index: index.parse().ok()?, knobs }))
            }
            _ => None,
        }
    }

    /// Returns whether a process with this switch may take it.
    fn allowed(&self, by: ConvolutionApi) -> bool {
        match self {
            Self::Legacy(_) => by != ConvolutionApi::Backend,
            Self::Backend(_) => by != ConvolutionApi::Legacy,
        }
    }
}

impl Choices {
    /// Returns the choice for a product, if there is one.
    fn of(&mut self, product: Product) -> Option<Choice> {
        if let Some(choice) = self.used.get(&product) {
            return Some(choice.clone());
        }
        let plain = || {
            // Checkpoints of earlier versions have one entry for both, of the older API.
            let choice = self.recorded.get(&text(Product { add: false, ..product }));
            choice.filter(|choice| matches!(choice, Choice::Legacy(_)))
        };
        let choice = self.recorded.get(&text(product)).or_else(plain)?.clone();
        self.used.insert(product, choice.clone());
        Some(choice)
    }
}

/// Returns the choice for a product, if there is one.
pub(super) fn known(product: Product) -> Option<Choice> {
    choices().get_or_insert_default().of(product)
}

/// Keeps a choice for a product and returns what is kept. If another thread has chosen meanwhile, that is
/// kept: it may have computed with its choice already.
pub(super) fn keep(product: Product, choice: Choice) -> Choice {
    choices().get_or_insert_default().used.entry(product).or_insert(choice).clone()
}

/// Forgets the choice for a product, which could not be taken, and notes why.
pub(super) fn forget(product: Product, why: &str) {
    let mut choices = choices();
    let Choices { used, recorded, notes } = choices.get_or_insert_default();
    used.remove(&product);
    recorded.remove(&text(product));
    notes.push(format!("the {}: {why}", text(product)));
}

/// Notes something about a product that a person must know.
pub(super) fn note(product: Product, what: &str) {
    choices().get_or_insert_default().notes.push(format!("the {}: {what}", text(product)));
}

/// Returns what a person must know of the convolutions that this process has run, and has not been told yet:
/// plans of an earlier process that could not be made again, and products that cuDNN's graph API did not
/// compute.
pub fn notes() -> Vec<String> {
    choices().as_mut().map(|choices| std::mem::take(&mut choices.notes)).unwrap_or_default()
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
    if let Some(Choices { used, recorded, .. }) = &*choices() {
        all.extend(recorded.iter().map(|(key, choice)| (key.clone(), choice.text())));
        all.extend(used.iter().map(|(key, choice)| (text(*key), choice.text())));
    }
    if !all.is_empty() {
        all.insert(MACHINE.to_owned(), machine(&facts(device)?));
    }
    Ok(all)
}

/// Forgets all choices of this process and takes up those that [`algorithms`] returned, in this process or
/// another. Returns what a person must know if they are of another card or another cuDNN, and so are not
/// taken.
///
/// # Errors
/// If an entry is not one that [`algorithms`] makes, or the driver does not answer.
pub fn take_algorithms(device: &Device, entries: &BTreeMap<String, String>) -> Result<Option<String>> {
    let mut recorded = BTreeMap::new();
    for (key, value) in entries.iter().filter(|(key, _)| *key != MACHINE) {
        let Some(choice) = Choice::parse(value) else {
            bail!(
                "cuda: the algorithm of {key:?} is {value:?}, expected \"algorithm N math N workspace N\" or \
                 \"engine N knobs N=N ...\"; without this entry it is measured anew"
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
    let by = Switches::taken()?.convolution;
    let all = recorded.len();
    recorded.retain(|_, choice| choice.allowed(by));
    if recorded.len() < all {
        said = Some(format!(
            "{} of the {all} algorithms of the convolutions are measured anew, because INVASPREAD_CUDA_SWITCHES asks for \
             another interface of cuDNN than the one that they are of. From here on the run is not the same bit for bit",
            all - recorded.len()
        ));
    }
    *choices() = Some(Choices { used: HashMap::new(), recorded, notes: Vec::new() });
    Ok(said)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::collections::BTreeSet;

    use candle_core::DType;

    use super::super::conv2d::key;
    use super::{Algorithm, Choice, Choices, Direction, Engine, Product, text};
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
                let key = key(&geometry, dtype, tf32).unwrap();
                [Direction::Forward, Direction::Input, Direction::Weight]
                    .into_iter()
                    .flat_map(move |direction| [false, true].map(|add| text(Product { direction, key, add })))
            })
            .collect();
        assert_eq!(texts.len(), 18, "{texts:?}");
    }

    /// Versions that knew the older API alone recorded one algorithm for a product, added or not.
    #[test]
    fn an_entry_of_an_earlier_version_holds_for_what_is_added_too() {
        let geometry = Geometry { n: 2, h: 8, w: 8, ci: 16, co: 32, kh: 3, kw: 3, stride: 1, padding: 1 };
        let key = key(&geometry, DType::F32, false).unwrap();
        let plain = Product { direction: Direction::Input, key, add: false };
        let added = Product { add: true, ..plain };
        let algorithm = Choice::Legacy(Algorithm { number: 1, math: 3, workspace: 1000 });
        let engine = Choice::Backend(Engine { index: 8, knobs: vec![(2, 1)] });
        let with = |entries: &[(Product, &Choice)]| Choices {
            recorded: entries.iter().map(|(product, choice)| (text(*product), (*choice).clone())).collect(),
            ..Choices::default()
        };
        assert_eq!(with(&[(plain, &algorithm)]).of(added), Some(algorithm.clone()));
        assert_eq!(with(&[(plain, &algorithm), (added, &engine)]).of(added), Some(engine.clone()));
        // A plan is of one product.
        assert_eq!(with(&[(plain, &engine)]).of(added), None);
        assert_eq!(with(&[(added, &algorithm)]).of(plain), None);
    }

    /// In bf16 three channels become eight, as many as another convolution may have.
    #[test]
    fn channels_that_were_added_make_no_convolution_another_one() {
        let of = |ci| {
            let geometry = Geometry { n: 2, h: 8, w: 8, ci, co: 8, kh: 3, kw: 3, stride: 1, padding: 1 };
            let key = key(&geometry, DType::BF16, false).unwrap();
            text(Product { direction: Direction::Forward, key, add: false })
        };
        assert_ne!(of(3), of(8));
    }

    #[test]
    fn a_choice_is_read_as_it_is_written() {
        let algorithm = Choice::Legacy(Algorithm { number: 6, math: 3, workspace: 1 << 29 });
        let engine = |knobs| Choice::Backend(Engine { index: 62, knobs });
        for (choice, text) in [
            (algorithm, "algorithm 6 math 3 workspace 536870912"),
            (engine(vec![(2, 4), (27, -1)]), "engine 62 knobs 2=4 27=-1"),
            (engine(Vec::new()), "engine 62 knobs"),
        ] {
            assert_eq!(choice.text(), text);
            assert_eq!(Choice::parse(text), Some(choice));
        }
        for wrong in [
            "",
            "algorithm 1",
            "algorithm 1 math x workspace 3",
            "algorithm -1 math 0 workspace 0",
            "engine 1",
            "engine x knobs",
            "engine 1 knobs 2",
            "engine 1 knobs 2=",
        ] {
            assert_eq!(Choice::parse(wrong), None, "{wrong}");
        }
    }
}
