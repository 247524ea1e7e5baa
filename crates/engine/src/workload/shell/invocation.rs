//! Finds the script that a shell is called with.

use super::Shell;
use crate::workload::text::{Kind, Word};

/// Options that are followed by a value.
///
/// <https://www.gnu.org/software/bash/manual/html_node/Invoking-Bash.html>
const WITH_VALUE: [&str; 2] = ["--init-file", "--rcfile"];

/// A shell that is called with a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::workload) struct Invocation {
    /// The kind of shell.
    pub(super) shell: Shell,
    /// The index of its name.
    pub(super) at: usize,
    /// The index of the script.
    pub(super) script: usize,
}

impl Invocation {
    /// Finds the shell that is called with a script, also after a wrapper such as `tini --`.
    pub(in crate::workload) fn find(words: &[Word]) -> Option<Self> {
        let shell = |(at, word): (usize, &Word)| Some((at, Shell::from_program(word.as_known()?)?));
        let (at, shell) = words.iter().enumerate().find_map(shell)?;
        let script = at + 1 + script(&words[at + 1..])?;
        Some(Self { shell, at, script })
    }
}

/// Returns the index of the script in the arguments of a shell: the first operand, if `-c` is among the options.
///
/// <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/sh.html>
fn script(words: &[Word]) -> Option<usize> {
    let (mut has_script, mut at) = (false, 0);
    while let Some(word) = words.get(at) {
        let option = match word.as_known() {
            None if word.kind == Kind::One => return has_script.then_some(at),
            known => known?,
        };
        at += 1;
        if matches!(option, "-" | "--") {
            return words.get(at).filter(|_| has_script).map(|_| at);
        }
        let Some(letters) = option.strip_prefix(['-', '+']).filter(|letters| !letters.is_empty()) else {
            return has_script.then_some(at - 1);
        };
        if letters.starts_with('-') {
            at += usize::from(WITH_VALUE.contains(&option));
        } else {
            has_script |= option.starts_with('-') && letters.contains('c');
            // `-o pipefail`, `-O extglob`.
            at += letters.chars().filter(|letter| matches!(letter, 'o' | 'O')).count();
        }
    }
    None
}

/// Returns the file name of a path.
pub(in crate::workload) fn bare(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::text::Text;

    fn found(words: &str) -> Option<String> {
        let words: Vec<Word> = words.split(' ').map(|word| Word::new(Text::known(word))).collect();
        Some(words[Invocation::find(&words)?.script].text.written())
    }

    #[test]
    fn finds_the_script_after_all_options() {
        for words in [
            "sh -c SCRIPT",
            "sh -ce SCRIPT",
            "sh -ec SCRIPT name",
            "sh -exc SCRIPT",
            "sh -c -e SCRIPT",
            "sh -c -- SCRIPT",
            "/bin/bash -lc -- SCRIPT",
            "bash --login -c SCRIPT a b",
            "bash -o pipefail -c SCRIPT",
            "bash -euxo pipefail -c SCRIPT",
            "bash -c -eo pipefail SCRIPT",
            "bash +x -c SCRIPT",
            "bash -O extglob +O nullglob -c SCRIPT",
            "bash --rcfile /etc/rc -c SCRIPT",
            "tini -- dash -c SCRIPT",
            "busybox ash -c SCRIPT -c b",
        ] {
            assert_eq!(found(words).as_deref(), Some("SCRIPT"), "{words}");
        }
    }

    #[test]
    fn a_script_file_is_not_an_inline_script() {
        for words in ["bash start.sh -c a", "bash -c", "bash -- -c a", "bash -x start.sh", "bash -o -c a", "run -c a"] {
            assert_eq!(found(words), None, "{words}");
        }
    }

    #[test]
    fn finds_an_unknown_script() {
        let unknown = || Word::new(Text::unknown("$(SCRIPT)"));
        let sh = |option: &str| vec![Word::new(Text::known("sh")), Word::new(Text::known(option)), unknown()];
        assert_eq!(Invocation::find(&sh("-c")).map(|found| found.script), Some(2));
        assert_eq!(Invocation::find(&sh("-e")), None);
    }
}
