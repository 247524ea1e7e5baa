//! The commands that a shell script runs, as far as they are known without running it.
//!
//! A script is parsed by `rable` and interpreted from its beginning: known variables are expanded, and what depends on
//! a branch is unknown. Nothing is guessed: words that depend on unknown values are marked as unknown.
//!
//! <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html>

mod builtins;
mod expand;
mod extent;
mod fields;
mod invocation;
mod marks;
mod state;
mod walk;

use std::panic::catch_unwind;

pub(super) use invocation::{Invocation, bare};
use rable::Node;

use super::command_line::CommandLine;
use super::environment::Environment;
use super::text::Word;

/// The size of the stack for parsing and interpreting a script, which are recursive.
const STACK: usize = 256 << 20;

/// The maximum length of a script.
const MAX_LENGTH: usize = 64 << 10;

/// The maximum number of substitutions and arithmetic expansions in a script: the time to parse nested ones grows
/// fast.
const MAX_SUBSTITUTIONS: usize = 64;

/// The maximum number of steps for the scripts of a container, which take less than a second.
const FUEL: usize = 1 << 18;

/// The kinds of shells whose behavior differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shell {
    /// `sh`, which may be any of the others.
    Sh,
    /// Shells with little more than POSIX requires: `dash`, `ash`.
    Dash,
    /// Bash.
    Bash,
    /// Zsh, which does not split variables.
    Zsh,
}

impl Shell {
    /// Returns the kind of shell of a program.
    pub(super) fn from_program(program: &str) -> Option<Self> {
        match bare(program) {
            "sh" => Some(Self::Sh),
            "dash" | "ash" => Some(Self::Dash),
            "bash" => Some(Self::Bash),
            "zsh" => Some(Self::Zsh),
            _ => None,
        }
    }
}

/// The number of remaining steps.
struct Fuel(usize);

impl Fuel {
    fn spend(&mut self, much: usize) {
        self.0 = self.0.saturating_sub(much.saturating_add(1));
    }

    fn is_left(&self) -> bool {
        self.0 > 0
    }
}

/// Returns the commands of the script that a shell is called with, in order.
pub(super) fn commands(words: &[Word], invocation: &Invocation, environment: &Environment) -> Vec<CommandLine> {
    stacker::grow(STACK, || {
        let mut walk = walk::Walk::new(environment);
        walk.shell(words, invocation);
        walk.commands()
    })
}

/// Parses a script; none if it is too long, has too many substitutions, or is invalid.
fn parse(script: &str) -> Option<Vec<Node>> {
    let begins = ["$(", "<(", ">(", "((", "`"];
    let substitutions: usize = begins.iter().map(|begin| script.matches(begin).count()).sum();
    if script.len() > MAX_LENGTH || substitutions > MAX_SUBSTITUTIONS {
        return None;
    }
    catch_unwind(|| rable::parse(script, false)).ok()?.ok()
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_name(text: &str) -> bool {
    text.chars().all(is_part) && text.starts_with(|c: char| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::text::Text;

    fn commands_of(script: &str) -> Vec<CommandLine> {
        let words: Vec<Word> = ["sh", "-c", script].map(|word| Word::new(Text::known(word))).into();
        let invocation = Invocation::find(&words).unwrap();
        commands(&words, &invocation, &Environment::default())
    }

    /// Repeats a text up to the maximum length of a script.
    fn long(text: &str) -> String {
        text.repeat(MAX_LENGTH / text.len())
    }

    /// Returns assignments of numbered variables, each with `behind` after its name.
    fn numbered(variables: usize, behind: &str) -> String {
        (0..variables).flat_map(|number| ["A".to_owned(), number.to_string(), behind.to_owned()]).collect()
    }

    #[test]
    fn limits_the_time_for_any_script() {
        let nested = |begin: &str, end: &str, times: usize| format!("{}a{}", begin.repeat(times), end.repeat(times));
        for script in [
            nested("(", ")", 400),
            nested("{ ", ";}", 400),
            nested("if a; then ", "; fi", 300),
            nested("while a; do A=$A$A; ", "; done", 300),
            nested("for A in $A $A; do ", "; done", 300),
            nested("case $A in a) ", ";; esac", 300),
            nested("\"${A:-", "}\"", 8000),
            nested("a $(", ")", 60),
            nested("f() { f; ", "; f; }", 300),
            format!("{} f() {{ {} }}; f", "A=a;", "A=$A$A; f;".repeat(1000)),
            format!("A={}; {}", "a ".repeat(1000), "b $A$A$A$A;".repeat(1000)),
            format!("set -- {}; {}", "a ".repeat(1000), "set -- \"$@\" \"$@\";".repeat(1000)),
            format!("A={}; while a; do A=\"$A;$A\"; eval \"$A\"; done", "eval a;".repeat(100)),
            long("("),
            long("{ "),
            long("a && "),
            long("a | "),
            long("a;"),
            long("a && b || c\n"),
            long("$a"),
            long("${a:-"),
            long("`"),
            long("$("),
            long("<<E\n"),
            long("if a; then b; else "),
            long("A$i=$A;"),
            long("\"$@\""),
            long("export A=1;"),
            numbered(4000, "=1;a;"),
            numbered(2000, "=1; a && b || c;"),
            long("'\"\\"),
            long("a") + "a",
        ] {
            // The number of commands is limited as well as the time.
            assert!(commands_of(&script).len() <= FUEL, "{}", &script[..script.len().min(80)]);
        }
    }

    #[test]
    fn the_commands_of_an_invalid_script_are_unknown() {
        for script in ["a '", "if a", "a $(", ")", &(long("a") + "a")] {
            let commands = commands_of(script);
            assert_eq!((commands.len(), commands[0].known()), (1, None), "{}", &script[..script.len().min(80)]);
        }
    }
}
