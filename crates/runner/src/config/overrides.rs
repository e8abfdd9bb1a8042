//! `key=value` arguments: their form, their TOML values, and lists of values that make several runs.

use super::ConfigError;

/// One `key=value` argument.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// A group (`dataset`) or a dotted key (`optim.lr`).
    pub key: String,
    /// The text right of the equals sign.
    pub text: String,
}

impl Override {
    /// Takes an argument apart.
    ///
    /// # Errors
    /// If there is no equals sign, or the key is empty or holds anything but letters, digits, `_`, `-` and dots between names.
    pub fn parse(argument: &str) -> Result<Self, ConfigError> {
        let form = || ConfigError::Form { found: argument.to_owned() };
        let (key, text) = argument.split_once('=').ok_or_else(form)?;
        let name = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        };
        if !key.split('.').all(name) || text.is_empty() {
            return Err(form());
        }
        Ok(Self { key: key.to_owned(), text: text.to_owned() })
    }

    /// The value: TOML if it reads as such, otherwise the text itself, so that words need no quotes.
    pub fn value(&self) -> toml::Value {
        let document = format!("value = {}", self.text);
        match toml::from_str::<toml::Table>(&document) {
            Ok(mut table) if table.len() == 1 => {
                table.remove("value").unwrap_or_else(|| self.text.clone().into())
            }
            _ => toml::Value::String(self.text.clone()),
        }
    }

    /// The argument as it was typed.
    pub fn argument(&self) -> String {
        format!("{}={}", self.key, self.text)
    }

    /// The values of a list like `0,1,2`; a TOML list or string is one value.
    fn values(&self) -> Vec<&str> {
        if self.text.starts_with(['[', '{', '"', '\'']) {
            vec![&self.text]
        } else {
            self.text.split(',').collect()
        }
    }
}

/// Every combination of listed values, the last argument varying fastest.
///
/// # Errors
/// If there is a list and `multirun` is false.
pub fn expand(overrides: &[Override], multirun: bool) -> Result<Vec<Vec<Override>>, ConfigError> {
    let mut combinations = vec![Vec::new()];
    for item in overrides {
        let values = item.values();
        if values.len() > 1 && !multirun {
            return Err(ConfigError::Sweep { key: item.key.clone(), values: values.join(", ") });
        }
        combinations = combinations
            .into_iter()
            .flat_map(|combination| {
                values.iter().map(move |value| {
                    let mut longer: Vec<Override> = combination.clone();
                    longer.push(Override { key: item.key.clone(), text: (*value).to_owned() });
                    longer
                })
            })
            .collect();
    }
    Ok(combinations)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::{Override, expand};
    use crate::config::ConfigError;
    use proptest::prelude::*;

    fn parse(argument: &str) -> Override {
        Override::parse(argument).unwrap()
    }

    #[test]
    fn values_are_toml_and_bare_words_are_strings() {
        assert_eq!(parse("optim.lr=0.03").value(), toml::Value::Float(0.03));
        assert_eq!(parse("seed=7").value(), toml::Value::Integer(7));
        assert_eq!(parse("dataset=cifar10").value(), toml::Value::String("cifar10".into()));
        assert_eq!(parse("data.root=/a b/c").value(), toml::Value::String("/a b/c".into()));
        assert_eq!(parse("augment.without=[\"flip\"]").value(), toml::Value::Array(vec!["flip".into()]));
        assert_eq!(parse("x=1\ny = 2").value(), toml::Value::String("1\ny = 2".into()));
    }

    #[test]
    fn anything_else_is_an_error_that_shows_the_form() {
        for argument in ["lr", "=1", "optim.=1", ".lr=1", "lr=", "a b=1"] {
            let error = Override::parse(argument).unwrap_err().to_string();
            assert!(error.contains("key=value") && error.contains(argument), "{error}");
        }
    }

    #[test]
    fn lists_are_multiplied_out() {
        let list = [parse("method=nce,invaspread"), parse("seed=0,1"), parse("optim.lr=0.03")];
        let runs: Vec<String> = expand(&list, true)
            .unwrap()
            .iter()
            .map(|run| run.iter().map(Override::argument).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            runs,
            [
                "method=nce seed=0 optim.lr=0.03",
                "method=nce seed=1 optim.lr=0.03",
                "method=invaspread seed=0 optim.lr=0.03",
                "method=invaspread seed=1 optim.lr=0.03"
            ]
        );
        assert!(matches!(expand(&list, false), Err(ConfigError::Sweep { .. })));
    }

    proptest! {
        #[test]
        fn numbers_come_back(x in any::<f64>().prop_filter("finite", |x| x.is_finite()), n in any::<i64>()) {
            prop_assert_eq!(parse(&format!("a.b={x:?}")).value(), toml::Value::Float(x));
            prop_assert_eq!(parse(&format!("a.b={n}")).value(), toml::Value::Integer(n));
        }

        #[test]
        fn no_argument_panics(text in ".{0,40}") {
            if let Ok(parsed) = Override::parse(&text) {
                prop_assert_eq!(parsed.argument(), text);
                parsed.value();
            }
        }
    }
}
