//! How messages name what was asked for: by the flags of the command line, or by the arguments of the Python module.

/// The one who asks, and so knows an argument by this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::commands) enum Names {
    /// The program: `--same-source FILE`.
    Flags,
    /// The Python module: `same_source`.
    Python,
}

impl Names {
    /// Returns the name of an argument, which is given as a flag without its dashes.
    pub(super) fn of(self, flag: &str) -> String {
        match self {
            Self::Flags => format!("--{flag}"),
            // A keyword of Python cannot be a name.
            Self::Python if flag == "as" => "as_".to_owned(),
            Self::Python => flag.replace('-', "_"),
        }
    }

    /// Returns an argument that takes rows or what belongs to them: a file, or an array.
    pub(super) fn of_rows(self, flag: &str) -> String {
        match self {
            Self::Flags => format!("--{flag} FILE"),
            Self::Python => self.of(flag),
        }
    }

    /// Returns an argument with the word that is given to it.
    pub(super) fn with(self, flag: &str, word: &str) -> String {
        match self {
            Self::Flags => format!("--{flag} {word}"),
            Self::Python => format!("{}=\"{word}\"", self.of(flag)),
        }
    }

    /// Returns an argument with the list of words that is given to it.
    pub(super) fn list(self, flag: &str, words: &[&str]) -> String {
        match self {
            Self::Flags => format!("--{flag} {}", words.join(",")),
            Self::Python => format!("{}={words:?}", self.of(flag)),
        }
    }

    /// Returns what is wrong if the labels or sources of the gallery are words and the others are numbers, or the
    /// reverse: they would never be equal.
    pub(super) fn unlike(self, what: &str, flag: &str) -> String {
        match self {
            Self::Flags => format!(
                "the {what} of one file are numbers and those of the other are words: save both as one or the other"
            ),
            Self::Python => {
                let name = self.of(flag);
                format!("{name} and gallery_{name}: found numbers and words, expected one of them in both")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn an_argument_has_its_name_for_the_one_who_asks() {
        let both = [Names::Flags, Names::Python];
        let of = both.map(|names| names.of("same-source-leaves-out"));
        assert_eq!(of, ["--same-source-leaves-out", "same_source_leaves_out"]);
        assert_eq!(
            both.map(|names| names.of_rows("against-gallery")),
            ["--against-gallery FILE", "against_gallery"]
        );
        assert_eq!(both.map(|names| names.with("as", "dino")), ["--as dino", "as_=\"dino\""]);
        let list = both.map(|names| names.list("metrics", &["default", "fnmr"]));
        assert_eq!(list, ["--metrics default,fnmr", "metrics=[\"default\", \"fnmr\"]"]);
    }
}
