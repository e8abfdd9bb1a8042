//! `key=value` arguments, and flags that set a key: their form, how their text is read, and lists of values
//! that make several runs.

use std::borrow::Cow;
use std::path::Path;

use super::groups::GROUPS;
use super::schema::{OUTSIDE_IDENTITY, SHARDS, Schema, of_method};
use super::scoped::scoped;
use super::value::{Reading, Unfit, pieces, unquoted};
use super::{ConfigError, first_format};
use crate::methods::Registry;
use crate::settings::Kind;

/// The most runs that one command may ask for.
const MOST_RUNS: usize = 1_000_000;

/// One setting, as typed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Override {
    /// A group (`dataset`) or a dotted key (`optim.lr`).
    pub key: String,
    /// The text right of the equals sign.
    pub text: String,
    given: Given,
}

/// How a setting was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Given {
    /// As `key=value`.
    Argument,
    /// By a flag whose text is read like that of an argument, lists included.
    Flag(&'static str),
    /// By a flag whose text is always one path.
    Path(&'static str),
}

/// Checks that no shell has expanded a range of shards: `data.webdataset.train=s-{0..4}.tar` without quotes is five arguments, of which
/// only the last would count.
///
/// # Errors
/// Returns an error if two arguments in a row set the same key to shards that differ only in their numbers.
pub(super) fn check_ranges(overrides: &[Override]) -> Result<(), ConfigError> {
    let without_digits = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    let is_expanded = |pair: &&[Override]| {
        let [one, other] = pair else { return false };
        one.key == other.key
            && SHARDS.contains(&one.key.as_str())
            && one.text != other.text
            && without_digits(&one.text) == without_digits(&other.text)
    };
    match overrides.windows(2).find(is_expanded) {
        Some([one, other]) => Err(ConfigError::Value {
            key: one.key.clone(),
            origin: other.origin(),
            found: format!("the key twice in a row, with {} before", one.text),
            expected: format!(
                "it once; a range of shards stands in quotes, or the shell makes several arguments of it: '{}=s-{{000..004}}.tar'",
                one.key
            ),
        }),
        _ => Ok(()),
    }
}

/// What a comma between values means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commas {
    /// A list of values is an error.
    One,
    /// A list of values is an error, except for the flag that takes several seeds.
    Seeds,
    /// It separates the values of several runs. In a path it is an ordinary character, unless all paths are
    /// quoted.
    Suite,
    /// It separates the values of several runs, also of paths.
    Multirun,
}

impl Override {
    /// Parses an argument. An empty text after the equals sign unsets the key, as `null` does.
    ///
    /// # Errors
    /// Returns an error if there is no equals sign, or the key is empty or holds anything but letters,
    /// digits, `_`, `-` and dots between names.
    pub fn parse(argument: &str) -> Result<Self, ConfigError> {
        let form = || ConfigError::Form { found: argument.to_owned() };
        let (key, text) = argument.split_once('=').ok_or_else(form)?;
        let name = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        };
        if !key.split('.').all(name) {
            return Err(form());
        }
        Ok(Self { key: key.to_owned(), text: text.to_owned(), given: Given::Argument })
    }

    /// Returns the setting of `key` by `flag`. The text may be several values, separated by commas, each of
    /// which is run.
    pub fn flag(flag: &'static str, key: &str, text: &str) -> Self {
        Self { key: key.to_owned(), text: text.to_owned(), given: Given::Flag(flag) }
    }

    /// Returns the setting of `key` to the path of `flag`, unchanged.
    ///
    /// # Errors
    /// Returns an error if the path is not UTF-8, because a config is stored as UTF-8.
    pub fn path(flag: &'static str, key: &str, path: &Path) -> Result<Self, ConfigError> {
        let text = path.to_str().ok_or_else(|| ConfigError::Value {
            key: key.to_owned(),
            origin: flag.to_owned(),
            found: path.to_string_lossy().into_owned(),
            expected: "a path in UTF-8, which a run's config can hold".to_owned(),
        })?;
        Ok(Self { key: key.to_owned(), text: text.to_owned(), given: Given::Path(flag) })
    }

    /// Returns the same setting for another key.
    pub(super) fn renamed(&self, key: String) -> Self {
        Self { key, ..self.clone() }
    }

    /// Returns the setting as an argument.
    pub fn argument(&self) -> String {
        format!("{}={}", self.key, self.text)
    }

    /// Returns the setting as one argument of the command line that sets it to the same value.
    pub(super) fn on_command_line(&self) -> String {
        match self.given {
            Given::Argument | Given::Flag(_) => self.argument(),
            Given::Path(flag) => format!("{flag}={}", self.text),
        }
    }

    /// The beginning of the name of a setting that was typed, or that a suite gives.
    pub(super) const TYPED: &'static str = "argument ";

    /// Returns the setting's name in messages.
    pub(super) fn origin(&self) -> String {
        match self.given {
            Given::Argument => format!("{}{}", Self::TYPED, self.argument()),
            Given::Flag(flag) | Given::Path(flag) => format!("{flag} {}", self.text),
        }
    }

    /// Returns the text as a word, without its quotes.
    pub(super) fn word(&self) -> String {
        unquoted(self.text.trim()).unwrap_or_else(|| self.text.trim().to_owned())
    }

    /// Returns the value for a key of the given kind.
    ///
    /// # Errors
    /// Returns an error if the text is not a value of that kind.
    pub(super) fn read(&self, kind: &Kind) -> Result<Reading, Unfit> {
        match self.given {
            Given::Path(_) => Ok(Reading::Value(self.text.as_str().into())),
            Given::Argument | Given::Flag(_) => kind.read(&self.text),
        }
    }

    /// Returns the texts of the setting's values.
    fn values(&self, kind: &Kind, commas: Commas) -> Vec<&str> {
        if matches!(self.given, Given::Path(_)) {
            return vec![&self.text];
        }
        let pieces = pieces(&self.text);
        if *kind == Kind::Path {
            let quoted = pieces.iter().all(|piece| unquoted(piece.trim()).is_some());
            return if quoted || commas == Commas::Multirun { pieces } else { vec![&self.text] };
        }
        if pieces.len() > 1 { pieces.into_iter().map(str::trim).collect() } else { pieces }
    }
}

/// Returns every combination of listed values (`seed=0,1`), the last argument varying fastest. Without
/// `multirun`, one value is expected of each argument.
///
/// # Errors
/// Returns an error if there is a list and `multirun` is false, a key is unknown, or the listed values make
/// no difference between runs.
pub fn expand(overrides: &[Override], multirun: bool) -> Result<Vec<Vec<Override>>, ConfigError> {
    Ok(Combinations::new(overrides, if multirun { Commas::Multirun } else { Commas::One })?.runs)
}

/// The runs that result from lists of values.
pub(super) struct Combinations {
    /// The runs, each with one value of every argument.
    pub(super) runs: Vec<Vec<Override>>,
    /// The keys whose values differ from run to run.
    pub(super) varied: Vec<String>,
}

impl Combinations {
    /// Returns the runs of the arguments of `train`. Without `multirun`, only the flag for seeds may have
    /// several values.
    ///
    /// # Errors
    /// Returns the errors of [`expand`].
    pub(super) fn of_runs(overrides: &[Override], multirun: bool) -> Result<Self, ConfigError> {
        Self::new(overrides, if multirun { Commas::Multirun } else { Commas::Seeds })
    }

    /// Returns the runs of arguments for all rows of a suite, where lists need no `--multirun`.
    ///
    /// # Errors
    /// Returns the errors of [`expand`].
    pub(super) fn of_suite(overrides: &[Override]) -> Result<Self, ConfigError> {
        Self::new(overrides, Commas::Suite)
    }

    fn new(overrides: &[Override], commas: Commas) -> Result<Self, ConfigError> {
        let mut lists = Vec::new();
        for item in overrides {
            lists.push(values(item, commas)?);
        }
        for (at, (item, values)) in overrides.iter().zip(&lists).enumerate() {
            // A later value of a key wins. If it replaced a list, runs that were asked for would be missing.
            let later = overrides[at + 1..].iter().find(|later| later.key == item.key);
            if let Some(later) = later.filter(|_| values.len() > 1) {
                return Err(ConfigError::Value {
                    key: item.key.clone(),
                    origin: item.origin(),
                    found: format!("{}, and after it {}", values.join(", "), later.text),
                    expected: "one list of all values".to_owned(),
                });
            }
        }
        let listed = |(item, values): &(&Override, &Vec<_>)| (values.len() > 1).then(|| item.key.clone());
        let varied: Vec<String> = overrides.iter().zip(&lists).filter_map(|pair| listed(&pair)).collect();
        let count = lists.iter().fold(1_u128, |count, values| count.saturating_mul(values.len() as u128));
        if count > MOST_RUNS as u128 {
            return Err(ConfigError::TooManyRuns {
                keys: varied.join(", "),
                runs: count.to_string(),
                most: MOST_RUNS,
            });
        }
        let mut runs = vec![Vec::with_capacity(overrides.len())];
        for (item, values) in overrides.iter().zip(&lists) {
            let longer = |run: Vec<Override>| {
                let with = move |value: &Cow<'_, str>| {
                    let mut run = run.clone();
                    run.push(Override { text: value.clone().into_owned(), ..item.clone() });
                    run
                };
                values.iter().map(with)
            };
            runs = runs.into_iter().flat_map(longer).collect();
        }
        Ok(Self { runs, varied })
    }
}

/// Returns the kind of a setting's key before it is known which method is chosen. The kind decides what a
/// comma means, because paths may hold commas. Whether the chosen method has the key is checked when the
/// config is resolved.
fn kind_for_any_method(item: &Override) -> Result<Kind, ConfigError> {
    let schema = Schema::without_method();
    if let Some(kind) = schema.kind(&item.key) {
        return Ok(kind.clone());
    }
    let entries = Registry::installed().entries().iter();
    let mut kinds: Vec<&Kind> = match (scoped(&item.key), of_method(&item.key)) {
        (Some((method, key)), _) => entries
            .filter(|entry| entry.name() == method)
            .filter_map(|entry| entry.key(of_method(&key)?))
            .map(|key| &key.kind)
            .collect(),
        (None, Some(name)) => entries.filter_map(|entry| entry.key(name)).map(|key| &key.kind).collect(),
        (None, None) if first_format::is_gone(&item.key) => Vec::new(),
        (None, None) => {
            return Err(ConfigError::UnknownKey {
                key: item.key.clone(),
                origin: item.origin(),
                nearest: schema.nearest(&item.key),
            });
        }
    };
    kinds.sort_by_key(|kind| **kind != Kind::Path);
    Ok(kinds.first().map_or(Kind::Word, |kind| (*kind).clone()))
}

fn values(item: &Override, commas: Commas) -> Result<Vec<Cow<'_, str>>, ConfigError> {
    let kind = &kind_for_any_method(item)?;
    let mut values = Vec::new();
    for piece in item.values(kind, commas) {
        match Range::of(piece).filter(|_| *kind == Kind::Whole) {
            Some(range) => values.extend(range.numbers(item)?.map(|number| Cow::Owned(number.to_string()))),
            None => values.push(Cow::Borrowed(piece)),
        }
    }
    if values.len() < 2 {
        return Ok(values);
    }
    let (key, told) = (item.key.clone(), values.join(", "));
    if OUTSIDE_IDENTITY.contains(&item.key.as_str()) {
        return Err(ConfigError::NoAxis { path: *kind == Kind::Path, key, values: told });
    }
    let allowed = match commas {
        Commas::One => false,
        Commas::Seeds => matches!(item.given, Given::Flag(_)) && item.key == "seed",
        Commas::Suite | Commas::Multirun => true,
    };
    if !allowed {
        let list = matches!(kind, Kind::List(_)) && !GROUPS.contains(&item.key.as_str());
        return Err(ConfigError::Sweep { key, values: told, list });
    }
    if values.iter().any(|value| value.trim().is_empty()) {
        return Err(ConfigError::Value {
            key,
            origin: item.origin(),
            found: "nothing between two commas, or after the last".into(),
            expected: "a value, or null for none".into(),
        });
    }
    Ok(values)
}

/// A range of whole numbers as in a shell's braces: `FIRST..LAST` with both ends, or `FIRST..LAST..STEP`, which ends with
/// the last number at or before LAST.
struct Range {
    first: u64,
    last: u64,
    step: u64,
}

impl Range {
    /// Parses a range; `None` if the text is none.
    fn of(text: &str) -> Option<Self> {
        let parts: Option<Vec<u64>> = text.trim().split("..").map(|part| part.parse().ok()).collect();
        match parts?[..] {
            [first, last] => Some(Self { first, last, step: 1 }),
            [first, last, step] => Some(Self { first, last, step }),
            _ => None,
        }
    }

    /// Returns its numbers.
    ///
    /// # Errors
    /// Returns an error that names the setting `item` if there are none or too many.
    fn numbers(&self, item: &Override) -> Result<impl Iterator<Item = u64> + use<>, ConfigError> {
        let Self { first, last, step } = *self;
        if step < 1 || last < first {
            return Err(ConfigError::Value {
                key: item.key.clone(),
                origin: item.origin(),
                found: item.text.clone(),
                expected: "a range FIRST..LAST with both ends, or FIRST..LAST..STEP, which ends at or before LAST, with FIRST at most LAST and STEP at least 1"
                    .to_owned(),
            });
        }
        let count = u128::from((last - first) / step) + 1;
        if count > MOST_RUNS as u128 {
            let (keys, runs) = (item.key.clone(), count.to_string());
            return Err(ConfigError::TooManyRuns { keys, runs, most: MOST_RUNS });
        }
        Ok((0..count as u64).map(move |place| first + place * step))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::{Combinations, Override, expand};
    use crate::config::ConfigError;
    use proptest::prelude::*;
    use std::path::Path;

    fn parse(argument: &str) -> Override {
        Override::parse(argument).unwrap()
    }

    fn told(runs: &[Vec<Override>]) -> Vec<String> {
        runs.iter().map(|run| run.iter().map(Override::argument).collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn anything_else_is_an_error_that_shows_the_form() {
        for argument in ["lr", "=1", "optim.=1", ".lr=1", "a b=1", ""] {
            let error = Override::parse(argument).unwrap_err().to_string();
            assert!(error.contains("key=value") && error.contains(argument), "{error}");
        }
        assert_eq!(parse("data.root=a=b").text, "a=b");
        assert_eq!(parse("data.subset=").text, "");
    }

    #[test]
    fn lists_are_multiplied_out() {
        let list = [parse("method=nce,invaspread"), parse("seed=0, 1"), parse("optim.lr=0.03")];
        assert_eq!(
            told(&expand(&list, true).unwrap()),
            [
                "method=nce seed=0 optim.lr=0.03",
                "method=nce seed=1 optim.lr=0.03",
                "method=invaspread seed=0 optim.lr=0.03",
                "method=invaspread seed=1 optim.lr=0.03"
            ]
        );
        assert_eq!(Combinations::of_suite(&list).unwrap().varied, ["method", "seed"]);
        let error = expand(&list, false).unwrap_err();
        assert!(
            matches!(error, ConfigError::Sweep { .. }) && error.to_string().contains("train --multirun"),
            "{error}"
        );
        // A list that is one value is not a list of several values.
        for one in [
            "augment.without=[flip,grayscale]",
            "data.name=\"a,b\"",
            "eval.retrieval={clustering='last',kmeans_restarts=2}",
        ] {
            assert_eq!(told(&expand(&[parse(one)], false).unwrap()), [one]);
        }
        let lists = told(&expand(&[parse("augment.without=[flip,grayscale],[]")], true).unwrap());
        assert_eq!(lists, ["augment.without=[flip,grayscale]", "augment.without=[]"]);
        let error = expand(&[parse("augment.without=flip,grayscale")], false).unwrap_err().to_string();
        assert!(error.contains("augment.without=[flip, grayscale] is one list"), "{error}");
        let error = expand(&[parse("optim.lr=0.1,")], true).unwrap_err().to_string();
        assert!(error.contains("optim.lr") && error.contains("null for none"), "{error}");
        let keys =
            ["seed", "eval.k", "eval.every", "model.width", "model.pool", "optim.epochs", "optim.batch_size"];
        let huge: Vec<Override> =
            keys.iter().map(|key| parse(&format!("{key}=0,1,2,3,4,5,6,7,8,9"))).collect();
        assert!(matches!(expand(&huge, true), Err(ConfigError::TooManyRuns { .. })));
    }

    #[test]
    fn ranges_are_lists_with_both_ends() {
        let runs = |argument: &str| told(&expand(&[parse(argument)], true).unwrap());
        assert_eq!(runs("seed=3..5"), ["seed=3", "seed=4", "seed=5"]);
        assert_eq!(runs("eval.k=10..30..10,200"), ["eval.k=10", "eval.k=20", "eval.k=30", "eval.k=200"]);
        assert_eq!(runs("seed=7..7"), ["seed=7"]);
        // Only a whole number has ranges; a word or a path may hold dots.
        assert_eq!(runs("data.root=../a"), ["data.root=../a"]);
        let flag = Override::flag("--seeds", "seed", "0..2");
        assert_eq!(Combinations::of_runs(&[flag], false).unwrap().runs.len(), 3);
        for argument in ["seed=5..3", "seed=0..9..0"] {
            let told = expand(&[parse(argument)], true).unwrap_err().to_string();
            assert!(told.contains("FIRST..LAST with both ends") && told.contains(argument), "{told}");
        }
        for argument in ["seed=0..9000000", "seed=0..18446744073709551615"] {
            assert!(matches!(expand(&[parse(argument)], true), Err(ConfigError::TooManyRuns { .. })));
        }
        assert!(matches!(expand(&[parse("seed=0..1")], false), Err(ConfigError::Sweep { .. })));
    }

    #[test]
    fn the_flag_of_seeds_lists_them_without_another() {
        let seeds = [Override::flag("--seeds", "seed", "0,1"), parse("optim.lr=0.1")];
        let runs = |list: &[Override]| Combinations::of_runs(list, false).map(|found| told(&found.runs));
        assert_eq!(runs(&seeds).unwrap(), ["seed=0 optim.lr=0.1", "seed=1 optim.lr=0.1"]);
        let more = [Override::flag("--seeds", "seed", "0,1"), parse("optim.lr=0.1,0.2")];
        assert!(matches!(runs(&more), Err(ConfigError::Sweep { .. })), "only the flag lists values");
        assert!(
            matches!(expand(&seeds, false), Err(ConfigError::Sweep { .. })),
            "where nothing is run, one is expected"
        );
    }

    #[test]
    fn paths_hold_commas_and_sweep_only_when_asked_to() {
        let path = "data.folder.path=/x, y";
        assert_eq!(told(&expand(&[parse(path)], false).unwrap()), [path]);
        assert_eq!(told(&Combinations::of_suite(&[parse(path)]).unwrap().runs), [path]);
        assert_eq!(expand(&[parse("data.folder.path=a,b")], true).unwrap().len(), 2);
        let quoted = parse("data.folder.path=\"a,b\",'c'");
        assert_eq!(Combinations::of_suite(std::slice::from_ref(&quoted)).unwrap().runs.len(), 2);
        assert!(matches!(expand(&[quoted], false), Err(ConfigError::Sweep { .. })));
        // The text of a flag for a path is always one path.
        for text in ["/x, y", "20240105", "null", "\"a\",\"b\"", "[a]", "a=b"] {
            let flag = Override::path("--runs", "runs.root", Path::new(text)).unwrap();
            assert_eq!(told(&expand(&[flag], true).unwrap()), [format!("runs.root={text}")]);
        }
    }

    #[test]
    fn what_changes_no_result_is_no_axis() {
        for argument in ["runs.root=a,b", "data.root=a,b", "data.cache=a,b", "profile.reduced=true,false"] {
            let error = expand(&[parse(argument)], true).unwrap_err();
            assert!(matches!(error, ConfigError::NoAxis { .. }), "{error}");
            assert!(error.to_string().contains(argument.split('=').next().unwrap()), "{error}");
        }
        assert!(Combinations::of_suite(&[parse("runs.root='a','b'")]).is_err());
        // A list that a later setting would replace is refused: runs that were asked for would be missing.
        let error = expand(&[parse("seed=0,1"), parse("seed=2")], true).err().unwrap().to_string();
        assert!(error.contains("seed") && error.contains("0, 1, and after it 2"), "{error}");
        assert_eq!(expand(&[parse("seed=2"), parse("seed=0,1")], true).unwrap().len(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_no_text_is_refused_by_the_flags_name() {
        use std::os::unix::ffi::OsStrExt as _;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/x\xff"));
        let error = Override::path("--runs", "runs.root", path).unwrap_err().to_string();
        assert!(error.contains("--runs") && error.contains("UTF-8"), "{error}");
    }

    proptest! {
        #[test]
        fn no_argument_panics(text in ".{0,40}", key in "(seed|optim.lr|data.root|augment.without|model|augment.crop)") {
            for argument in [text.clone(), format!("{key}={text}")] {
                if let Ok(parsed) = Override::parse(&argument) {
                    prop_assert_eq!(parsed.argument(), argument);
                    let _ = expand(std::slice::from_ref(&parsed), true);
                    let _ = expand(&[parsed], false);
                }
            }
        }
    }
}
