//! Simple commands and shell builtins.
//!
//! <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html#tag_19_15>

use rable::{Node, NodeKind};

use super::state::End;
use super::walk::Walk;
use super::{Invocation, Shell, bare, is_name};
use crate::workload::command_line::{KEYWORDS, WRAPPERS};
use crate::workload::environment::Variable;
use crate::workload::text::{Text, Word};

impl Walk {
    /// Interprets a simple command.
    pub(super) fn simple(&mut self, assignments: &[Node], words: &[Node]) {
        let expanded: Vec<Word> = words.iter().flat_map(|word| self.words(word)).collect();
        if expanded.is_empty() {
            assignments.iter().filter_map(raw).for_each(|raw| self.assign(raw));
            return;
        }
        let given: Vec<(String, Text)> = assignments.iter().filter_map(|node| self.assignment(raw(node)?)).collect();
        self.run(&expanded, words, &given);
    }

    fn run(&mut self, words: &[Word], raw: &[Node], given: &[(String, Text)]) {
        let (program, rest) = (words[0].as_known().unwrap_or_default().to_owned(), words[1..].to_vec());
        if let Some(function) = self.state.functions.get(&program).cloned() {
            return self.with(given, |walk| walk.call(function, rest));
        }
        if let Some(invocation) = invocation(words) {
            return self.with(given, |walk| walk.shell(words, &invocation));
        }
        self.record(words, given);
        match &*program {
            "export" | "readonly" | "declare" | "typeset" | "local" => self.declare(&program, raw, &rest),
            "exec" if rest.iter().any(|word| !is_option(word)) => self.state.end = End::Exec,
            "exit" => self.state.end = End::Exit,
            "return" => self.returns(),
            "break" | "continue" => self.breaks(&rest),
            "set" => self.options(&rest),
            "shift" => self.shift(&rest),
            "unset" => self.each_name(&rest, |walk, name| walk.state.unset(name)),
            "read" | "mapfile" | "readarray" | "getopts" | "printf" | "let" | "wait" => self.input(&program, &rest),
            "eval" => self.eval(&rest),
            "." | "source" => self.state.forget_all(),
            _ => {}
        }
    }

    /// Interprets `return`. Outside of functions some shells exit, and others continue.
    fn returns(&mut self) {
        match self.shell {
            _ if self.functions > 0 => self.state.end = End::Return,
            Shell::Dash => self.state.end = End::Exit,
            Shell::Bash => {}
            Shell::Sh | Shell::Zsh => self.state.is_doubtful = true,
        }
    }

    /// Records the state at a `break` or `continue`. What follows is interpreted nevertheless.
    fn breaks(&mut self, words: &[Word]) {
        let loops = words.first().map_or(Some(1), |word| word.as_known()?.parse().ok());
        self.fuel.spend(self.state.size());
        self.breaks.push((loops.unwrap_or(usize::MAX), self.state.clone()));
    }

    /// Records a command with the variables that are set for it only.
    fn record(&mut self, words: &[Word], given: &[(String, Text)]) {
        let mut environment = self.state.environment();
        for (name, value) in given {
            std::sync::Arc::make_mut(&mut environment.variables)
                .insert(name.clone(), Variable::exported(value.clone()));
        }
        self.found(words.to_vec(), Some(environment));
    }

    /// Runs a function with variables that are set for it only.
    fn with(&mut self, given: &[(String, Text)], run: impl FnOnce(&mut Self)) {
        let saved: Vec<_> = given.iter().map(|(name, _)| (name, self.state.saved(name))).collect();
        for (name, value) in given {
            self.state.set(name, value.clone());
            self.state.export(name);
        }
        run(self);
        for (name, saved) in saved {
            self.state.put_back(name, saved);
        }
    }

    fn assign(&mut self, raw: &str) {
        if let Some((name, value)) = self.assignment(raw) {
            self.state.set(&name, value);
        }
    }

    /// Parses `name=value`, or `name+=value`, which only some shells support.
    fn assignment(&mut self, raw: &str) -> Option<(String, Text)> {
        let (name, value) = raw.split_once('=')?;
        if let Some(name) = name.strip_suffix('+').filter(|name| is_name(name)) {
            let added = self.reader().value(value);
            let before = match self.state.variable(name) {
                super::state::Known::Set(before) => Some(before),
                super::state::Known::Unset => Some(Text::default()),
                _ => None,
            };
            let known = before.filter(|_| matches!(self.shell, Shell::Bash | Shell::Zsh));
            let value = known.map_or_else(
                || Text::unknown(format!("${name}")),
                |mut before| {
                    before.append(&added);
                    before
                },
            );
            self.fuel.spend(value.len());
            return Some((name.to_owned(), value));
        }
        if let Some((list, _)) = name.split_once('[').filter(|(list, _)| is_name(list)) {
            return Some((list.to_owned(), Text::unknown(format!("${list}"))));
        }
        is_name(name).then(|| (name.to_owned(), self.reader().value(value)))
    }

    /// Interprets `export name=value` and the like. Some shells split the value, so one with blanks is unknown there.
    fn declare(&mut self, how: &str, raw_words: &[Node], words: &[Word]) {
        let is_plain = |word: &Word| {
            word.as_known().is_some_and(|option| matches!(option, "-p" | "-x" | "-r" | "-g" | "-f" | "--"))
        };
        let is_known = words.iter().filter(|word| is_option(word)).all(is_plain);
        let raws: Vec<&str> = raw_words.iter().skip(1).filter_map(raw).collect();
        if raws.len() != raw_words.len() - 1
            || words.iter().any(|word| word.as_known().is_none() && !word.text.known_start().contains('='))
        {
            return self.state.forget_all();
        }
        // `local` fails outside of functions.
        let is_known = is_known && (how != "local" || self.functions > 0);
        let is_exported = how == "export" || words.iter().any(|word| word.as_known() == Some("-x"));
        for raw in raws.into_iter().filter(|raw| !raw.starts_with('-')) {
            let name = raw.split(['=', '+', '[']).next().unwrap_or_default().to_owned();
            if !is_name(&name) {
                self.state.forget_all();
                continue;
            }
            if how == "local" {
                let saved = self.state.saved(&name);
                self.state.locals.entry(name.clone()).or_insert(saved);
            }
            if raw.contains('=') {
                self.assign_declared(raw, &name);
            } else if how != "export" && how != "readonly" {
                self.state.unset(&name);
            }
            if !is_known {
                self.state.forget(&name);
            }
            if is_exported {
                self.state.export(&name);
            }
            if how == "readonly" || words.iter().any(|word| word.as_known() == Some("-r")) {
                self.state.constants.insert(name);
            }
        }
    }

    fn assign_declared(&mut self, raw: &str, name: &str) {
        let is_split = !matches!(self.shell, Shell::Bash | Shell::Zsh) && self.reader().words(raw).len() != 1;
        self.assign(raw);
        if is_split {
            self.state.forget(name);
        }
    }

    /// Interprets `set -- a b`, `set -e`.
    fn options(&mut self, words: &[Word]) {
        let mut rest = words;
        while let [word, behind @ ..] = rest {
            match word.as_known() {
                None => return self.state.forget_parameters(),
                Some("-") if behind.is_empty() => return,
                Some("--" | "-") => return self.state.parameters = behind.to_vec(),
                Some(letters) if letters.starts_with(['-', '+']) => {
                    self.option(letters, behind.first());
                    rest = if letters.ends_with('o') { behind.get(1..).unwrap_or_default() } else { behind };
                }
                Some(_) => return self.state.parameters = rest.to_vec(),
            }
        }
    }

    /// Interprets `-a`, `-o allexport`.
    fn option(&mut self, letters: &str, name: Option<&Word>) {
        let is_named = letters.ends_with('o') && name.is_some_and(|name| name.as_known() == Some("allexport"));
        if letters.contains('a') || is_named {
            self.state.exports_all = letters.starts_with('-');
        }
    }

    fn shift(&mut self, words: &[Word]) {
        let by = words.first().map_or(Some(1), |word| word.as_known()?.parse().ok());
        let parameters = &self.state.parameters;
        match by.filter(|by| !parameters.iter().take(*by).any(Word::is_open)) {
            Some(by) if by <= parameters.len() => drop(self.state.parameters.drain(..by)),
            Some(_) => {}
            None => self.state.forget_parameters(),
        }
    }

    /// Interprets commands that set variables to unknown values.
    fn input(&mut self, how: &str, words: &[Word]) {
        match how {
            "printf" | "wait"
                if !words.first().is_some_and(|word| word.as_known().is_none_or(|word| word.starts_with('-'))) => {}
            "let" => {
                let sums: Vec<String> = words.iter().map(|word| word.text.written()).collect();
                for sum in sums {
                    self.reader().sum(&sum);
                }
            }
            _ => {
                for name in ["REPLY", "MAPFILE", "OPTARG", "OPTIND"] {
                    self.state.forget(name);
                }
                self.each_name(words, |walk, name| walk.state.forget(name));
            }
        }
    }

    /// Runs a function for each name in the words; if one is unknown, everything becomes unknown.
    fn each_name(&mut self, words: &[Word], with: impl Fn(&mut Self, &str)) {
        for word in words {
            match word.as_known() {
                Some(name) => {
                    if is_name(name) {
                        with(self, name);
                    }
                }
                None => self.state.forget_all(),
            }
        }
    }

    /// Interprets `eval`, whose arguments are a script.
    fn eval(&mut self, words: &[Word]) {
        let mut script = Text::default();
        for word in words {
            script.append(&word.text);
            script.push(' ');
        }
        if words.iter().all(|word| word.as_known().is_some()) { self.script(&script) } else { self.unreadable() }
    }
}

/// Returns a word as it is written.
fn raw(node: &Node) -> Option<&str> {
    match &node.kind {
        NodeKind::Word { value, .. } => Some(value),
        _ => None,
    }
}

fn is_option(word: &Word) -> bool {
    word.text.known_start().starts_with(['-', '+'])
}

/// Finds the shell that a command calls, directly or by a wrapper.
fn invocation(words: &[Word]) -> Option<Invocation> {
    let known = |word: &Word| word.as_known().map(str::to_owned);
    let program = words.iter().map_while(known).find(|word| !KEYWORDS.contains(&word.as_str()))?;
    let is_one = Shell::from_program(&program).is_some() || WRAPPERS.contains(&bare(&program));
    Invocation::find(words).filter(|_| is_one)
}
