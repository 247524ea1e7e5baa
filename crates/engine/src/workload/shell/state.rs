//! The state of a shell at a point of its script.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use rable::Node;

use crate::workload::environment::{Environment, Variable, Variables};
use crate::workload::text::{Kind, Text, Word};

/// Variables that are always set, by the container runtime or by the shell.
///
/// <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html#tag_19_05_03>
const ALWAYS_SET: [&str; 14] = [
    "HOME", "HOSTNAME", "IFS", "LINENO", "OPTIND", "PATH", "PPID", "PS1", "PS4", "PWD", "RANDOM", "SECONDS", "SHLVL",
    "_",
];

/// What is known of the value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It has this value.
    Set(Text),
    /// It is not set.
    Unset,
    /// Neither the container nor the script sets it; the image may.
    Undeclared,
    /// It may have any value.
    Unknown,
}

/// Whether a shell continues with its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It continues.
    No,
    /// It has returned from a function.
    Return,
    /// It has exited.
    Exit,
    /// It has been replaced by another program.
    Exec,
}

impl End {
    /// Returns whether the shell still runs the script.
    fn is_running(self) -> bool {
        matches!(self, Self::No | Self::Return)
    }
}

/// The state of a shell at a point of its script.
#[expect(clippy::struct_excessive_bools, reason = "each is independent of the others")]
#[derive(Clone, Debug)]
pub(super) struct State {
    variables: Arc<Variables>,
    /// Whether other variables may be set as well.
    may_have_more: bool,
    /// `$0`.
    pub(super) name: Text,
    /// `$1` and so on.
    pub(super) parameters: Vec<Word>,
    /// The functions; none if it is unknown which one has the name.
    pub(super) functions: BTreeMap<String, Option<Rc<Node>>>,
    /// The values that `local` has shadowed.
    pub(super) locals: BTreeMap<String, Option<Variable>>,
    /// Read-only variables: assigning to them fails in some shells and exits others.
    pub(super) constants: BTreeSet<String>,
    /// Whether the shell continues.
    pub(super) end: End,
    /// Whether a branch that may have been taken has replaced the shell with another program.
    pub(super) is_doubtful: bool,
    /// Whether all variables that are set are exported (`set -a`).
    pub(super) exports_all: bool,
    /// Whether `IFS` may have been changed.
    pub(super) splits_otherwise: bool,
}

impl State {
    pub(super) fn new(environment: &Environment, name: Text, parameters: Vec<Word>) -> Self {
        Self {
            variables: Arc::clone(&environment.variables),
            may_have_more: environment.may_have_more,
            name,
            parameters,
            functions: BTreeMap::new(),
            locals: BTreeMap::new(),
            constants: BTreeSet::new(),
            end: End::No,
            is_doubtful: false,
            exports_all: false,
            splits_otherwise: false,
        }
    }

    /// Returns the environment of a program that the shell runs.
    pub(super) fn environment(&self) -> Environment {
        let mut variables = Arc::clone(&self.variables);
        if variables.values().any(|variable| variable.is_exported != Some(true)) {
            let variables = Arc::make_mut(&mut variables);
            for (name, variable) in variables.iter_mut() {
                match variable.is_exported {
                    Some(true) => {}
                    Some(false) => variable.value = None,
                    None => *variable = Variable::exported(Text::unknown(format!("${name}"))),
                }
            }
        }
        Environment { variables, may_have_more: self.may_have_more }
    }

    /// Returns the number of entries.
    pub(super) fn size(&self) -> usize {
        self.variables.len() + self.parameters.len() + self.functions.len()
    }

    pub(super) fn variable(&self, name: &str) -> Known {
        match self.variables.get(name) {
            Some(Variable { value: Some(value), .. }) => Known::Set(value.clone()),
            Some(Variable { value: None, .. }) => Known::Unset,
            None if self.may_have_more || ALWAYS_SET.contains(&name) || name.starts_with("BASH") => Known::Unknown,
            None => Known::Undeclared,
        }
    }

    /// Returns the current value of a variable, to be restored later.
    pub(super) fn saved(&self, name: &str) -> Option<Variable> {
        self.variables.get(name).cloned()
    }

    pub(super) fn put_back(&mut self, name: &str, saved: Option<Variable>) {
        let variables = Arc::make_mut(&mut self.variables);
        match saved {
            Some(variable) => variables.insert(name.to_owned(), variable),
            None => variables.remove(name),
        };
    }

    /// Sets a variable. If the image may set it, it may be exported.
    pub(super) fn set(&mut self, name: &str, value: Text) {
        self.splits_otherwise |= name == "IFS";
        let value = if self.constants.contains(name) { Text::unknown(format!("${name}")) } else { value };
        let was_exported = self.variables.get(name).and_then(|variable| variable.is_exported);
        let is_exported = if self.exports_all { Some(true) } else { was_exported };
        let variable = Variable { value: Some(value), is_exported };
        Arc::make_mut(&mut self.variables).insert(name.to_owned(), variable);
    }

    pub(super) fn unset(&mut self, name: &str) {
        self.splits_otherwise |= name == "IFS";
        if self.constants.contains(name) {
            return self.forget(name);
        }
        let variable = Variable { value: None, is_exported: Some(false) };
        Arc::make_mut(&mut self.variables).insert(name.to_owned(), variable);
    }

    /// Exports a variable. One that the image sets is exported already.
    pub(super) fn export(&mut self, name: &str) {
        if let Some(variable) = Arc::make_mut(&mut self.variables).get_mut(name) {
            variable.is_exported = Some(true);
        }
    }

    /// Makes the value of a variable unknown.
    pub(super) fn forget(&mut self, name: &str) {
        self.set(name, Text::unknown(format!("${name}")));
    }

    /// Makes everything unknown that an unknown script could have changed.
    pub(super) fn forget_all(&mut self) {
        for (name, variable) in Arc::make_mut(&mut self.variables) {
            *variable = Variable::exported(Text::unknown(format!("${name}")));
        }
        self.may_have_more = true;
        self.splits_otherwise = true;
        self.forget_parameters();
        self.functions.values_mut().for_each(|function| *function = None);
    }

    pub(super) fn forget_parameters(&mut self) {
        self.parameters = vec![Word { text: Text::unknown("$@"), kind: Kind::Several }];
    }

    /// Returns `$0`, `$1` and so on.
    pub(super) fn parameter(&self, number: usize) -> Known {
        if number == 0 {
            return Known::Set(self.name.clone());
        }
        let before = self.parameters.iter().take(number);
        match self.parameters.get(number - 1) {
            _ if before.clone().any(Word::is_open) => Known::Unknown,
            Some(word) => Known::Set(word.text.clone()),
            None => Known::Unset,
        }
    }

    /// Returns the state after either of two branches.
    pub(super) fn or(self, other: Self) -> Self {
        let is_doubtful = self.is_doubtful || other.is_doubtful;
        match (self.end.is_running(), other.end.is_running()) {
            (true, true) => self.merged(&other),
            (true, false) => Self { is_doubtful: is_doubtful || other.end == End::Exec, ..self },
            (false, true) => Self { is_doubtful: is_doubtful || self.end == End::Exec, ..other },
            (false, false) => Self { is_doubtful, ..self },
        }
    }

    fn merged(mut self, other: &Self) -> Self {
        if !Arc::ptr_eq(&self.variables, &other.variables) {
            self.forget_differing(&other.variables);
        }
        if self.parameters != other.parameters {
            self.forget_parameters();
        }
        for (name, function) in &other.functions {
            self.functions.entry(name.clone()).or_insert_with(|| function.clone());
        }
        for (name, function) in &mut self.functions {
            let same = function.as_ref().zip(other.functions.get(name).and_then(Option::as_ref));
            if !same.is_some_and(|(one, two)| Rc::ptr_eq(one, two)) {
                *function = None;
            }
        }
        for (name, saved) in &other.locals {
            self.locals.entry(name.clone()).or_insert_with(|| saved.clone());
        }
        self.constants.extend(other.constants.iter().cloned());
        self.end = if self.end == other.end { self.end } else { End::No };
        self.may_have_more |= other.may_have_more;
        self.is_doubtful |= other.is_doubtful;
        self.exports_all |= other.exports_all;
        self.splits_otherwise |= other.splits_otherwise;
        self
    }

    fn forget_differing(&mut self, others: &Variables) {
        let names: BTreeSet<&String> = self.variables.keys().chain(others.keys()).collect();
        let differ = |name: &&&String| self.variables.get(**name) != others.get(**name);
        let differing: Vec<String> = names.iter().filter(differ).map(|name| (*name).clone()).collect();
        for name in differing {
            let exported = |variables: &Variables| variables.get(&name).and_then(|variable| variable.is_exported);
            let is_exported = Some(exported(&self.variables)).filter(|one| *one == exported(others)).flatten();
            let variable = Variable { value: Some(Text::unknown(format!("${name}"))), is_exported };
            Arc::make_mut(&mut self.variables).insert(name, variable);
        }
    }

    /// Returns whether the states are equal in all that matters to loops.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.variables == other.variables
            && self.parameters == other.parameters
            && self.constants == other.constants
            && self.may_have_more == other.may_have_more
            && (self.exports_all, self.end) == (other.exports_all, other.end)
            && self.splits_otherwise == other.splits_otherwise
    }
}
