//! Text in the two languages of a job script: bash, and the lines that begin with `#SBATCH`.

/// Characters that mean only themselves in both languages.
fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "_-./:=,%@+".contains(letter)
}

/// Returns `text` as one word of bash and other POSIX shells.
pub fn shell_word(text: &str) -> String {
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    // Within single quotes everything but a single quote means itself.
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Returns `text` as one word of a line `#SBATCH`, where a backslash before any character, also a quote, a
/// space or `#`, makes it mean itself. Line breaks cannot be expressed.
pub(super) fn sbatch_word(text: &str) -> String {
    let mut word = String::with_capacity(text.len());
    for letter in text.chars() {
        // Slurm reads bytes; those of other letters mean nothing to it.
        if letter.is_ascii() && !is_plain(letter) {
            word.push('\\');
        }
        word.push(letter);
    }
    word
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::process::Command;

    use proptest::prelude::*;

    use super::{sbatch_word, shell_word};

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in
            ["", "a b", "it's", "\"$HOME\"", "`id`", "a\\b", "#x", "~", "ä ö", "-n", "a\nb", "!!", "*"]
        {
            let script = format!("printf '[%s]' {}", shell_word(text));
            let said = Command::new("sh").args(["-c", &script]).output().unwrap().stdout;
            assert_eq!(String::from_utf8(said).unwrap(), format!("[{text}]"));
        }
        assert_eq!(shell_word("/runs/table1"), "/runs/table1");
    }

    /// What Slurm does to a line, from the source of `_get_argument` in sbatch's `opt.c` of version 22.05.
    fn as_slurm_reads(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
        let mut letters = line.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => {
                    word.extend(letters.next());
                    begun = true;
                }
                _ if quote == Some(letter) => quote = None,
                '\'' | '"' if quote.is_none() => (quote, begun) = (Some(letter), true),
                ' ' | '\t' if quote.is_none() => {
                    if begun {
                        words.push(std::mem::take(&mut word));
                    }
                    begun = false;
                }
                '#' if quote.is_none() => break,
                _ => {
                    word.push(letter);
                    begun = true;
                }
            }
        }
        words.extend(begun.then_some(word));
        words
    }

    proptest! {
        #[test]
        fn slurm_reads_back_what_was_quoted(text in "[ -~äß]{1,30}") {
            prop_assert_eq!(as_slurm_reads(&format!("--chdir={}", sbatch_word(&text))), [format!("--chdir={text}")]);
        }
    }
}
