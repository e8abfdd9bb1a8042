//! A suite: the runs behind a table or figure of the paper, from one TOML file.

use super::groups::{Files, available, choose};
use super::labels::Asked;
use super::overrides::Combinations;
use super::scoped::of_chosen_method;
use super::sweep::{Gathering, Planner, Room, Sweep, varied};
use super::{Config, ConfigError, Override};
use crate::launch::Planned;
use serde::{Deserialize, Serialize};

/// A suite's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The suite's name: that of its file, without the ending.
    #[serde(skip)]
    pub name: String,
    /// A line that says what the suite reproduces.
    pub title: String,
    /// The suite whose runs it shows, if it has no runs of its own.
    #[serde(default)]
    pub runs_of: Option<String>,
    /// Seeds of every row.
    pub seeds: Vec<u64>,
    /// Arguments at the start of every row, as a person would type them.
    #[serde(default)]
    pub overrides: Vec<String>,
    /// Groupings of the classes, for each of which the report draws the distributions of similarity.
    #[serde(default)]
    pub similarity: Vec<String>,
    /// The picture of retrieved neighbors to draw.
    #[serde(default)]
    pub gallery: Option<GalleryFigure>,
    /// What the report shows beside the metrics of each row.
    #[serde(default)]
    pub beside: Vec<Beside>,
    /// The rows, in the order in which they are run and shown.
    #[serde(rename = "row")]
    pub rows: Vec<Row>,
}

/// A group of columns of a suite's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beside {
    /// The time and the memory of the runs.
    Cost,
    /// The shape of the embedding after the last epoch.
    Shape,
    /// What other libraries print for the same method and data set.
    Peers,
}

/// A picture of retrieved neighbors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GalleryFigure {
    /// The rows whose networks search, side by side.
    pub rows: Vec<String>,
    /// Number of test images that are queries.
    pub queries: usize,
    /// Number of neighbors shown for each query.
    pub neighbors: usize,
}

/// A row of a suite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The row's key in the paper's tables.
    pub key: String,
    /// The row's name in tables. If it is not set, the paper's name of the key, or the label of the method of
    /// that name, is used.
    #[serde(default)]
    pub label: Option<String>,
    /// The arguments that define the row, as a person would type them.
    pub overrides: Vec<String>,
}

impl Suite {
    /// Returns the suite called `name`, built in or under `./experiments/suite`.
    ///
    /// # Errors
    /// Returns an error if there is none (the error names the suites that exist), or if its file is wrong.
    pub fn open(name: &str) -> Result<Self, ConfigError> {
        let file = choose("suite", name, Files::Own)?;
        let suite: Self = toml::from_str(&file.text).map_err(|error| ConfigError::File {
            reason: super::toml_error::reason(&error, &file.text),
            file: file.origin,
        })?;
        Ok(Self { name: name.to_owned(), ..suite })
    }

    /// Returns the names of all suites.
    pub fn names() -> Vec<String> {
        available("suite")
    }

    /// Returns the suite whose folder holds its runs.
    pub fn runs_name(&self) -> &str {
        self.runs_of.as_deref().unwrap_or(&self.name)
    }

    /// Returns the runs that `arguments` make; lists of values make every combination. The runs of all rows
    /// with the first seed come first, so that a first whole table is ready early. `arguments` come after the
    /// suite's own and win; a `seed` among them replaces the suite's seeds.
    ///
    /// # Errors
    /// Returns the errors of [`Suite::plan`], and one if a run needs more memory than `room` says.
    pub fn plan_all(&self, arguments: &[Override], room: Room<'_>) -> Result<Sweep, ConfigError> {
        let combinations = Combinations::of_suite(arguments)?;
        let mut planner = Planner::new(Some(room));
        let mut gathering = Gathering::default();
        for typed in &combinations.runs {
            let varied = varied(typed, &combinations.varied);
            self.each(typed, &varied, &mut planner, |run, config| gathering.take(run, config, typed))?;
        }
        Ok(gathering.into_sweep())
    }

    /// Returns the runs for arguments with one value each, with the config of each run.
    ///
    /// # Errors
    /// Returns an error if an argument of the suite or of `arguments` is wrong, or if one of `arguments` sets
    /// what defines a row.
    pub fn plan(&self, arguments: &[Override]) -> Result<Vec<(Planned, Config)>, ConfigError> {
        let mut planned = Vec::new();
        self.each(arguments, &[], &mut Planner::new(None), |run, config| {
            let config = Config { seed: run.recipe.seed, ..config.clone() };
            planned.push((run, config));
        })?;
        Ok(planned)
    }

    fn each(
        &self,
        typed: &[Override],
        varied: &[String],
        planner: &mut Planner<'_>,
        mut take: impl FnMut(Planned, &Config),
    ) -> Result<(), ConfigError> {
        self.check(typed)?;
        let seeds = if typed.iter().any(|one| one.key == "seed") {
            vec![None]
        } else {
            self.seeds.iter().copied().map(Some).collect()
        };
        for seed in seeds {
            for row in &self.rows {
                let mut own = Vec::new();
                for text in self.overrides.iter().chain(&row.overrides) {
                    own.push(Override::parse(text)?);
                }
                if let Some(seed) = seed {
                    own.push(Override::parse(&format!("seed={seed}"))?);
                }
                let suite = Some(self.runs_name());
                let label = row.label.as_deref();
                let asked = Asked { suite, row: Some(&row.key), label, own: &own, typed, varied };
                let (run, config) = planner.plan(&asked)?;
                take(run, config);
            }
        }
        Ok(())
    }

    /// Checks that no argument sets what defines a row: the row's numbers would otherwise have the name of
    /// another method.
    fn check(&self, arguments: &[Override]) -> Result<(), ConfigError> {
        for row in &self.rows {
            for text in &row.overrides {
                let own = Override::parse(text)?;
                // A setting for one method applies to the rows of that method.
                let sets_it =
                    |argument: &&Override| of_chosen_method(&argument.key) == of_chosen_method(&own.key);
                if let Some(argument) = arguments.iter().find(sets_it) {
                    return Err(ConfigError::Value {
                        key: own.key,
                        origin: format!("argument {}", argument.argument()),
                        found: argument.text.clone(),
                        expected: format!(
                            "no such argument: {text} defines row {} of {}; `invaspread train` takes any settings",
                            row.key, self.name
                        ),
                    });
                }
            }
        }
        Ok(())
    }
}
