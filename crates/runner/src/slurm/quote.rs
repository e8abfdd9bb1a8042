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

/// Returns `text` as one word, or a part of one, of a line `#SBATCH`. Line breaks cannot be expressed.
pub(super) fn sbatch_word(text: &str) -> String {
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    // Between double quotes a backslash makes the next character mean itself, and nothing is replaced. Outside of
    // them Slurm 22.05 ends a word at a space even behind a backslash.
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', r#"\""#))
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

    /// What sbatch 22.05.8 does to the words behind `#SBATCH`, as it was seen to: a space ends a word unless it is
    /// between quotes.
    fn as_slurm_reads(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote, mut escaped, mut begun) =
            (Vec::new(), String::new(), None, false, false);
        for letter in line.chars() {
            if letter.is_ascii_whitespace() && quote.is_none() {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                (begun, escaped) = (false, false);
                continue;
            }
            match letter {
                _ if escaped => {
                    word.push(letter);
                    escaped = false;
                }
                '\\' => escaped = true,
                _ if quote == Some(letter) => quote = None,
                '\'' | '"' if quote.is_none() => quote = Some(letter),
                '#' if quote.is_none() => break,
                _ => word.push(letter),
            }
            begun = true;
        }
        words.extend(begun.then_some(word));
        words
    }

    #[test]
    fn the_model_reads_what_sbatch_was_seen_to_read() {
        assert_eq!(as_slurm_reads(r"--comment=a\ b"), ["--comment=a", "b"]);
        assert_eq!(as_slurm_reads(r#"--comment="a b""#), ["--comment=a b"]);
        assert_eq!(
            as_slurm_reads(r#"--comment="a b'\"\\ \$HOME #1 `x`;""#),
            [r#"--comment=a b'"\ $HOME #1 `x`;"#]
        );
        assert_eq!(as_slurm_reads(r#"--comment=a\'b\"c\$d\#e\\f"#), [r#"--comment=a'b"c$d#e\f"#]);
    }

    proptest! {
        #[test]
        fn slurm_reads_back_what_was_quoted(text in "[ -~äß]{1,30}") {
            prop_assert_eq!(as_slurm_reads(&format!("--chdir={} -n1", sbatch_word(&text))), [format!("--chdir={text}"), "-n1".to_owned()]);
        }
    }
}
