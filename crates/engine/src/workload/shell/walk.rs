//! Interprets a script from its beginning.

use std::rc::Rc;

use rable::{ListOperator, Node, NodeKind};

use super::expand::Reader;
use super::marks::Marks;
use super::state::{End, State};
use super::{FUEL, Fuel, Invocation, Shell, parse};
use crate::workload::command_line::CommandLine;
use crate::workload::environment::Environment;
use crate::workload::text::{Kind, Text, Word};

/// What is unknown of a command in a branch.
const BRANCH: &str = "which branch of its script is taken";

/// What is unknown of a script that cannot be interpreted.
const SCRIPT: &str = "what its script runs";

/// The maximum depth of calls of functions and shells.
const MAX_CALLS: usize = 16;

/// Commands that test a condition: a command after `&&` is then a branch.
const TESTS: [&str; 9] = ["[", "test", "command", "egrep", "false", "grep", "hash", "type", "which"];

/// A script that is being interpreted.
pub(super) struct Walk {
    pub(super) shell: Shell,
    pub(super) state: State,
    pub(super) fuel: Fuel,
    marks: Marks,
    found: Vec<CommandLine>,
    /// The number of enclosing branches.
    branches: usize,
    calls: usize,
    /// The number of enclosing functions.
    pub(super) functions: usize,
    /// The state at each `break` and `continue`, with the number of loops that it leaves or continues.
    pub(super) breaks: Vec<(usize, State)>,
}

impl Walk {
    pub(super) fn new(environment: &Environment) -> Self {
        Self {
            shell: Shell::Sh,
            state: State::new(environment, Text::default(), Vec::new()),
            fuel: Fuel(FUEL),
            marks: Marks::default(),
            found: Vec::new(),
            branches: 0,
            calls: 0,
            functions: 0,
            breaks: Vec::new(),
        }
    }

    /// Returns the commands that were found; if it took too long, only an unknown one.
    pub(super) fn commands(mut self) -> Vec<CommandLine> {
        if !self.fuel.is_left() {
            self.found.clear();
            self.unreadable();
        }
        self.found
    }

    /// Interprets the script that a shell is called with, in the current environment.
    pub(super) fn shell(&mut self, words: &[Word], invocation: &Invocation) {
        let behind = &words[invocation.script + 1..];
        let name = behind.first().unwrap_or(&words[invocation.at]).text.clone();
        let parameters = behind.get(1..).unwrap_or_default().to_vec();
        let state = State::new(&self.state.environment(), name, parameters);
        let outer = (self.shell, self.functions, std::mem::replace(&mut self.state, state));
        (self.shell, self.functions) = (invocation.shell, 0);
        self.script(&words[invocation.script].text);
        (self.shell, self.functions, self.state) = outer;
    }

    /// Interprets a script in the current state.
    pub(super) fn script(&mut self, text: &Text) {
        self.fuel.spend(text.len());
        let script = self.marks.script(text).filter(|_| self.calls < MAX_CALLS && self.fuel.is_left());
        match script.as_deref().and_then(parse) {
            Some(nodes) => self.called(|walk| nodes.iter().for_each(|node| walk.node(node))),
            None => self.unreadable(),
        }
    }

    fn called(&mut self, run: impl FnOnce(&mut Self)) {
        self.calls += 1;
        run(self);
        self.calls -= 1;
    }

    /// Records that it is unknown what is run.
    pub(super) fn unreadable(&mut self) {
        self.found(vec![Word::doubt(SCRIPT)], None);
        self.state.forget_all();
    }

    /// Records a command.
    pub(super) fn found(&mut self, mut words: Vec<Word>, environment: Option<Environment>) {
        self.fuel.spend(words.iter().map(|word| word.text.len() + 1).sum::<usize>() + self.state.size());
        if self.branches > 0 || self.state.is_doubtful {
            words.push(Word::doubt(BRANCH));
        }
        let environment = environment.unwrap_or_else(|| self.state.environment());
        self.found.push(CommandLine::new(words, environment));
    }

    /// Returns the words that a word expands to.
    pub(super) fn words(&mut self, node: &Node) -> Vec<Word> {
        let NodeKind::Word { value, parts, .. } = &node.kind else { return Vec::new() };
        let has_braces = parts.iter().any(|part| matches!(part.kind, NodeKind::BraceExpansion { .. }));
        if has_braces && self.shell != Shell::Dash {
            return vec![Word { kind: Kind::Several, text: Text::unknown(value) }];
        }
        self.reader().words(value)
    }

    /// Returns a reader of words in the current state.
    pub(super) fn reader(&mut self) -> Reader<'_> {
        Reader { shell: self.shell, state: &mut self.state, marks: &self.marks, fuel: &mut self.fuel }
    }

    pub(super) fn node(&mut self, node: &Node) {
        self.fuel.spend(1);
        if !self.fuel.is_left() || self.state.end != End::No {
            return;
        }
        match &node.kind {
            NodeKind::Command { assignments, words, .. } => self.simple(assignments, words),
            NodeKind::List { .. } => self.list(node),
            NodeKind::Pipeline { commands, .. } => commands.iter().for_each(|command| self.subshell(command)),
            NodeKind::Subshell { body, .. } | NodeKind::Coproc { command: body, .. } => self.subshell(body),
            NodeKind::BraceGroup { body, .. } => self.node(body),
            NodeKind::Negation { pipeline } | NodeKind::Time { pipeline, .. } => self.node(pipeline),
            NodeKind::If { condition, then_body, else_body, .. } => {
                self.node(condition);
                self.either(&[Some(&**then_body), else_body.as_deref()]);
            }
            NodeKind::Case { word, patterns, .. } => {
                self.words(word);
                let bodies = patterns.iter().map(|pattern| pattern.body.as_ref());
                self.either(&bodies.chain([None]).collect::<Vec<_>>());
            }
            NodeKind::While { condition, body, .. } => self.repeated(condition, body, &["true", ":"]),
            NodeKind::Until { condition, body, .. } => self.repeated(condition, body, &["false"]),
            NodeKind::For { var, words, body, .. } => self.for_each(var, words.as_deref(), body),
            NodeKind::Select { var, body, .. } => self.any_times(|walk| {
                walk.state.forget(var);
                walk.state.forget("REPLY");
                walk.branch(body);
            }),
            NodeKind::ForArith { init, cond, incr, body, .. } => self.any_times(|walk| {
                for sum in [init, cond, incr] {
                    walk.reader().sum(sum);
                }
                walk.branch(body);
            }),
            NodeKind::ArithmeticCommand { raw_content, .. } => self.reader().sum(raw_content),
            NodeKind::Function { name, body } => {
                self.fuel.spend(1);
                self.state.functions.insert(name.clone(), Some(Rc::new((**body).clone())));
            }
            NodeKind::ConditionalExpr { .. } => self.state.forget("BASH_REMATCH"),
            NodeKind::Empty | NodeKind::Comment { .. } => {}
            _ => self.unreadable(),
        }
    }

    /// Interprets a node in a subshell, whose changes of the state are lost.
    fn subshell(&mut self, node: &Node) {
        let state = self.copied();
        self.node(node);
        self.state = state;
    }

    fn copied(&mut self) -> State {
        self.fuel.spend(self.state.size());
        self.state.clone()
    }

    fn branch(&mut self, node: &Node) {
        self.branches += 1;
        self.node(node);
        self.branches -= 1;
    }

    /// Interprets each of several branches, one of which is taken; `None` is a branch that does nothing.
    fn either(&mut self, branches: &[Option<&Node>]) {
        let before = self.copied();
        let mut after: Option<State> = None;
        for branch in branches {
            self.fuel.spend(before.size());
            self.state = before.clone();
            if let Some(branch) = branch {
                self.branch(branch);
            }
            let state = self.state.clone();
            after = Some(match after {
                Some(other) => other.or(state),
                None => state,
            });
        }
        self.state = after.unwrap_or(before);
    }

    fn list(&mut self, node: &Node) {
        let parts = flattened(node);
        for group in parts.split_inclusive(|(_, after)| !matches!(after, Some(ListOperator::And | ListOperator::Or))) {
            let is_background = group.last().is_some_and(|(_, after)| *after == Some(ListOperator::Background));
            let outer = is_background.then(|| self.copied());
            self.and_or(group);
            if let Some(outer) = outer {
                self.state = outer;
            }
        }
    }

    /// Interprets a list of commands that are joined by `&&` and `||`.
    fn and_or(&mut self, group: &[(&Node, Option<ListOperator>)]) {
        let (mut otherwise, mut is_conditional): (Option<State>, bool) = (None, false);
        let mut before: Option<(&Node, ListOperator)> = None;
        for (node, after) in group {
            match before {
                Some((left, ListOperator::And)) if !always_succeeds(left) => {
                    let state = self.copied();
                    otherwise = Some(match otherwise {
                        Some(other) => other.or(state),
                        None => state,
                    });
                    is_conditional |= is_test(left);
                    if is_conditional { self.branch(node) } else { self.node(node) }
                }
                Some((_, ListOperator::Or)) => self.either(&[Some(node), None]),
                _ => self.node(node),
            }
            before = after.map(|after| (*node, after));
        }
        if let Some(other) = otherwise {
            self.merge(other);
        }
    }

    /// Interprets a loop; its body is not a branch if the condition is one of the `always` commands.
    fn repeated(&mut self, condition: &Node, body: &Node, always: &[&str]) {
        let is_always = first_word(condition).is_some_and(|word| always.contains(&word));
        self.any_times(|walk| {
            walk.node(condition);
            if is_always { walk.node(body) } else { walk.branch(body) }
        });
    }

    fn for_each(&mut self, name: &str, words: Option<&[Node]>, body: &Node) {
        let items: Vec<Word> = match words {
            Some(words) => words.iter().flat_map(|word| self.words(word)).collect(),
            None => self.state.parameters.clone(),
        };
        let is_sure = items.iter().any(|item| !item.is_open());
        self.any_times(|walk| {
            match items.as_slice() {
                [only] if !only.is_open() => walk.state.set(name, only.text.clone()),
                _ => walk.state.forget(name),
            }
            if is_sure { walk.node(body) } else { walk.branch(body) }
        });
    }

    /// Interprets what is run any number of times: the variables that it changes are unknown from its beginning.
    fn any_times(&mut self, run: impl Fn(&mut Self)) {
        loop {
            let (before, found) = (self.copied(), self.found.len());
            self.once(&run);
            self.found.truncate(found);
            let after = before.clone().or(self.state.clone());
            let is_settled = after.is_like(&before);
            self.state = after;
            if is_settled || !self.fuel.is_left() {
                break;
            }
        }
        let before = self.copied();
        self.once(&run);
        self.state = before.or(self.state.clone());
    }

    /// Interprets the body of a loop once, including early exits.
    fn once(&mut self, run: &impl Fn(&mut Self)) {
        let outer = std::mem::take(&mut self.breaks);
        run(self);
        for (loops, state) in std::mem::replace(&mut self.breaks, outer) {
            self.fuel.spend(state.size());
            if loops > 1 {
                self.breaks.push((loops - 1, state.clone()));
            }
            self.merge(state);
        }
    }

    /// Merges the current state with the state of another branch.
    fn merge(&mut self, other: State) {
        let state = self.copied();
        self.state = state.or(other);
    }

    /// Calls a function.
    pub(super) fn call(&mut self, function: Option<Rc<Node>>, words: Vec<Word>) {
        let Some(body) = function.filter(|_| self.calls < MAX_CALLS) else { return self.unreadable() };
        let outer = std::mem::replace(&mut self.state.parameters, words);
        let locals = std::mem::take(&mut self.state.locals);
        self.functions += 1;
        self.called(|walk| walk.node(&body));
        self.functions -= 1;
        self.state.parameters = outer;
        for (name, saved) in std::mem::replace(&mut self.state.locals, locals) {
            self.state.put_back(&name, saved);
        }
        if self.state.end == End::Return {
            self.state.end = End::No;
        }
    }
}

/// Returns the commands of a list in order, each with the operator after it.
fn flattened(node: &Node) -> Vec<(&Node, Option<ListOperator>)> {
    let (mut found, mut rest, mut after) = (Vec::new(), node, None);
    while let NodeKind::List { items } = &rest.kind {
        let Some((first, others)) = items.split_first() else { break };
        for (index, item) in others.iter().enumerate().rev() {
            found
                .push((&item.command, if index + 1 == others.len() { item.operator.or(after) } else { item.operator }));
        }
        after = if others.is_empty() { first.operator.or(after) } else { first.operator };
        rest = &first.command;
    }
    found.push((rest, after));
    found.reverse();
    found
}

/// Returns whether a command always succeeds: it only sets variables, or is one such as `true`.
fn always_succeeds(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Command { words, assignments, .. } if words.is_empty() => {
            let runs_nothing =
                |node: &Node| matches!(&node.kind, NodeKind::Word { value, .. } if !value.contains(['`', '(']));
            assignments.iter().all(runs_nothing)
        }
        _ => first_word(node).is_some_and(|word| matches!(word, ":" | "true" | "export")),
    }
}

/// Returns whether a command tests a condition.
fn is_test(node: &Node) -> bool {
    match &node.kind {
        NodeKind::ConditionalExpr { .. } | NodeKind::ArithmeticCommand { .. } | NodeKind::Negation { .. } => true,
        _ => first_word(node).is_some_and(|word| TESTS.contains(&word)),
    }
}

/// Returns the first word of a simple command, as it is written.
fn first_word(node: &Node) -> Option<&str> {
    let NodeKind::Command { words, .. } = &node.kind else { return None };
    match &words.first()?.kind {
        NodeKind::Word { value, .. } => Some(value),
        _ => None,
    }
}
