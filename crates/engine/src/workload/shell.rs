//! The commands of a shell script, as far as they can be told without running it.
//!
//! A script is parsed by `rable`, and followed from its beginning as a shell would: what is known of its variables is put into
//! its words, and what a branch decides is not known. Nothing is guessed: words that cannot be told are said to be unknown.
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

/// The stack on which a script is parsed and followed: each bracket and operator may take some of it.
const STACK: usize = 256 << 20;

/// The longest script that is parsed.
const LONGEST: usize = 64 << 10;

/// How many substitutions and sums a script may have: parsing them within each other takes ever longer.
const MOST_SUBSTITUTIONS: usize = 64;

/// How much is done for the scripts of a container: some time of a second.
const FUEL: usize = 1 << 18;

/// The kinds of shells that do not do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shell {
    /// `sh`, which may be any of them.
    Sh,
    /// Those that know what POSIX says and little else.
    Dash,
    /// Bash.
    Bash,
    /// The Z shell, which splits no variables.
    Zsh,
}

impl Shell {
    /// Returns the shell that a program is.
    pub(super) fn of(program: &str) -> Option<Self> {
        match bare(program) {
            "sh" => Some(Self::Sh),
            "dash" | "ash" => Some(Self::Dash),
            "bash" => Some(Self::Bash),
            "zsh" => Some(Self::Zsh),
            _ => None,
        }
    }
}

/// How much may still be done.
struct Fuel(usize);

impl Fuel {
    fn spend(&mut self, much: usize) {
        self.0 = self.0.saturating_sub(much.saturating_add(1));
    }

    fn is_left(&self) -> bool {
        self.0 > 0
    }
}

/// Returns the commands of the script that a shell is called with, in their order.
pub(super) fn commands(words: &[Word], invocation: &Invocation, environment: &Environment) -> Vec<CommandLine> {
    stacker::grow(STACK, || {
        let mut walk = walk::Walk::new(environment);
        walk.shell(words, invocation);
        walk.commands()
    })
}

/// Parses a script, where that takes no longer than it may.
fn parse(script: &str) -> Option<Vec<Node>> {
    let begins = ["$(", "<(", ">(", "((", "`"];
    let substitutions: usize = begins.iter().map(|begin| script.matches(begin).count()).sum();
    if script.len() > LONGEST || substitutions > MOST_SUBSTITUTIONS {
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

    fn told(script: &str) -> Vec<CommandLine> {
        let words: Vec<Word> = ["sh", "-c", script].map(|word| Word::of(Text::known(word))).into();
        let invocation = Invocation::of(&words).unwrap();
        commands(&words, &invocation, &Environment::default())
    }

    /// Repeats a text until it is as long as any script that is parsed.
    fn long(text: &str) -> String {
        text.repeat(LONGEST / text.len())
    }

    /// Sets as many variables, each with this behind its name.
    fn numbered(variables: usize, behind: &str) -> String {
        (0..variables).flat_map(|number| ["A".to_owned(), number.to_string(), behind.to_owned()]).collect()
    }

    #[test]
    fn no_script_takes_for_ever() {
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
            // What took for ever would never come here; what is made of a script is bounded as well.
            assert!(told(&script).len() <= FUEL, "{}", &script[..script.len().min(80)]);
        }
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        for script in ["a '", "if a", "a $(", ")", &(long("a") + "a")] {
            let told = told(script);
            assert_eq!((told.len(), told[0].known()), (1, None), "{}", &script[..script.len().min(80)]);
        }
    }
}
