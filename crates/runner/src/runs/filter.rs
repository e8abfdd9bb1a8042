//! Conditions by which runs are chosen: `method=nce,npsoftmax`, `seed!=0`, `knn_top1>=40`, `optim.lr<0.1`.

use std::str::FromStr;

use super::FoundRun;

/// A condition on a value of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    text: String,
    key: String,
    relation: Relation,
    /// What the value is compared with; several for [`Relation::Equal`] and [`Relation::NotEqual`].
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// One of the values.
    Equal,
    /// None of the values.
    NotEqual,
    AtLeast,
    AtMost,
    Above,
    Below,
}

/// The signs, the longer ones first.
const SIGNS: [(&str, Relation); 6] = [
    (">=", Relation::AtLeast),
    ("<=", Relation::AtMost),
    ("!=", Relation::NotEqual),
    ("=", Relation::Equal),
    (">", Relation::Above),
    ("<", Relation::Below),
];

/// Why runs cannot be chosen so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It is no condition.
    #[error(
        "found `{0}`, expected KEY=VALUE, KEY!=VALUE, or a number after >=, <=, > or < (in quotes: 'knn_top1>=40')"
    )]
    Form(String),
    /// No run has the key.
    #[error(
        "found the key `{key}`, which no run has; expected one of {own}, a metric ({metrics}), or a setting such as optim.lr"
    )]
    UnknownKey {
        /// The key.
        key: String,
        /// The keys of runs.
        own: String,
        /// The metrics that runs have.
        metrics: String,
    },
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let wrong = || FilterError::Form(text.to_owned());
        // The sign that begins first; of two that begin together the longer.
        let found = SIGNS.iter().filter_map(|(sign, relation)| Some((text.find(sign)?, *sign, *relation)));
        let (at, sign, relation) =
            found.min_by_key(|(at, sign, _)| (*at, 2 - sign.len())).ok_or_else(wrong)?;
        let (key, value) = (text[..at].trim(), text[at + sign.len()..].trim());
        let is_list = matches!(relation, Relation::Equal | Relation::NotEqual);
        let values: Vec<String> = if is_list {
            value.split(',').map(|value| value.trim().to_owned()).collect()
        } else {
            vec![value.to_owned()]
        };
        let is_number = |value: &String| value.parse::<f64>().is_ok_and(|number| !number.is_nan());
        if key.is_empty() || values.iter().any(String::is_empty) || !(is_list || values.iter().all(is_number))
        {
            return Err(wrong());
        }
        Ok(Self { text: text.to_owned(), key: key.to_owned(), relation, values })
    }
}

impl Filter {
    /// Checks that each key is one that some run has, so that a typing error does not look like an empty folder.
    ///
    /// # Errors
    /// Returns an error that names the key.
    pub fn check_all<'a>(keys: impl Iterator<Item = &'a str>, runs: &[FoundRun]) -> Result<(), FilterError> {
        for key in keys {
            if !runs.is_empty() && !runs.iter().any(|run| run.knows(key)) {
                let metrics: std::collections::BTreeSet<&str> =
                    runs.iter().flat_map(FoundRun::metrics).collect();
                return Err(FilterError::UnknownKey {
                    key: key.to_owned(),
                    own: FoundRun::OWN_KEYS.join(", "),
                    metrics: metrics.into_iter().collect::<Vec<_>>().join(", "),
                });
            }
        }
        Ok(())
    }

    /// Returns the key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns whether it holds for a run. A run without a value for the key has none of the values.
    pub fn holds(&self, run: &FoundRun) -> bool {
        let Some(found) = run.value(&self.key) else { return self.relation == Relation::NotEqual };
        let number = found.parse::<f64>().ok();
        let compared = |value: &String| number.zip(value.parse::<f64>().ok());
        let equals = |value: &String| match compared(value) {
            Some((found, value)) => found.total_cmp(&value).is_eq(),
            None => found == *value,
        };
        let ordered = |holds: fn(f64, f64) -> bool| {
            self.values.iter().filter_map(compared).any(|(found, value)| holds(found, value))
        };
        match self.relation {
            Relation::Equal => self.values.iter().any(equals),
            Relation::NotEqual => !self.values.iter().any(equals),
            Relation::AtLeast => ordered(|found, value| found >= value),
            Relation::AtMost => ordered(|found, value| found <= value),
            Relation::Above => ordered(|found, value| found > value),
            Relation::Below => ordered(|found, value| found < value),
        }
    }
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
