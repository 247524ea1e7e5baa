//! Limits the cost of one expression and of several together. The evaluator has no limits, so costs are counted here:
//! each iteration of a loop by its steps, each string and list by its length.
//!
//! As in Kubernetes, all expressions of a request together may cost ten times as much as one.
//!
//! <https://kubernetes.io/docs/reference/using-api/cel/#resource-constraints>

use std::cell::{Cell, RefCell};

use kube_cel::cel::common::ast::{Expr, IdedExpr, LiteralValue};
use kube_cel::cel::common::types::{CelBytes, CelList, CelMap, CelOptional, CelString};
use kube_cel::cel::common::value::Val;
use kube_cel::cel::objects::Key;
use kube_cel::cel::{Context, ExecutionError, FunctionContext, Value};

use super::pattern;

/// The maximum number of steps of an evaluation: about a tenth of a second.
const STEPS: i64 = 500_000;

/// The maximum number of steps of all evaluations for one request, or of the trials of all expressions of a policy:
/// about a second.
const STEPS_TOGETHER: i64 = 10 * STEPS;

/// The steps to parse one byte.
const PRICE_OF_BYTE: i64 = 8;

/// The maximum size of a string or list that an expression may create.
const MAX_SIZE: usize = 1 << 20;

/// The maximum size of an argument of a function whose result may be much longer.
const MAX_PART: usize = 1 << 12;

/// The names of the functions that count costs; users cannot write them.
pub(super) const NAME: &str = "@step";
pub(super) const COPIED: &str = "@copied";
pub(super) const SIZED: &str = "@sized";
pub(super) const SMALL: &str = "@small";
pub(super) const PAIRED: &str = "@paired";
pub(super) const PATTERN: &str = "@pattern";

thread_local! {
    /// The steps left to the evaluation on this thread.
    static LEFT: Cell<i64> = const { Cell::new(0) };

    /// The steps to copy the value of each variable.
    static VARIABLES: RefCell<Vec<(String, i64)>> = const { RefCell::new(Vec::new()) };
}

/// The steps that several evaluations may take together.
#[derive(Debug)]
pub struct Budget {
    left: Cell<i64>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: Cell::new(STEPS_TOGETHER) }
    }
}

impl Budget {
    /// The initial number of steps.
    pub const STEPS: i64 = STEPS_TOGETHER;

    /// Returns the number of steps taken.
    #[must_use]
    pub fn spent(&self) -> i64 {
        STEPS_TOGETHER - self.left.get()
    }

    /// Returns whether no steps are left: later evaluations fail.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.left.get() <= 0
    }

    /// Runs an evaluation and counts its steps on this thread. Too many steps are an error, even if the evaluation
    /// ignores it.
    pub(super) fn charge<T>(&self, evaluate: impl FnOnce() -> T) -> Result<T, ExecutionError> {
        let most = STEPS.min(self.left.get());
        LEFT.set(most);
        VARIABLES.with_borrow_mut(Vec::clear);
        step(0)?;
        let result = evaluate();
        self.left.set(self.left.get() - (most - LEFT.get()));
        step(0).map(|()| result)
    }

    /// Takes the steps to parse a text; returns whether enough were left.
    pub(super) fn parse(&self, text: &str) -> bool {
        let price = i64::try_from(text.len()).unwrap_or(i64::MAX).saturating_mul(PRICE_OF_BYTE);
        self.left.set(self.left.get().saturating_sub(price));
        !self.is_spent()
    }
}

/// Adds the functions that count costs.
pub(super) fn register(context: &mut Context) {
    context.add_function(NAME, |goes_on: bool, price: i64| step(price).map(|()| Value::Bool(goes_on)));
    context.add_function(SIZED, |value: Value| sized(value, MAX_SIZE));
    context.add_function(SMALL, |value: Value| sized(value, MAX_PART));
    context.add_function(PAIRED, paired);
    context.add_function(PATTERN, regular);
    context.add_function(COPIED, copied);
}

/// Records the steps to copy a variable.
pub(super) fn note(variable: String, steps: i64) {
    VARIABLES.with_borrow_mut(|known| known.push((variable, steps)));
}

/// Returns the steps to copy a variable.
pub(super) fn noted(variable: &str) -> i64 {
    let find = |known: &Vec<(String, i64)>| known.iter().find(|(name, _)| name == variable).map(|(_, steps)| *steps);
    VARIABLES.with_borrow(find).unwrap_or_default()
}

/// Takes steps.
pub(super) fn step(price: i64) -> Result<(), ExecutionError> {
    LEFT.set(LEFT.get().saturating_sub(price));
    if LEFT.get() > 0 { Ok(()) } else { Err(too_much(format!("takes more than {STEPS} steps"))) }
}

/// Counts the steps to read all of a value.
fn sized(value: Value, most: usize) -> Result<Value, ExecutionError> {
    let size = Size::of(&value);
    step(size.to_read())?;
    check_length(size.length, most).map(|()| value)
}

/// Counts the steps to read all of a list for each of its items.
fn paired(value: Value) -> Result<Value, ExecutionError> {
    let items = if let Value::List(items) = &value { items.len() } else { 1 };
    step(Size::of(&value).to_read().saturating_mul(steps(items)))?;
    Ok(value)
}

/// Counts the steps to compile a regular expression.
fn regular(value: Value) -> Result<Value, ExecutionError> {
    if let Value::String(text) = &value {
        check_length(text.len(), MAX_PART)?;
        step(steps(pattern::states(text)))?;
    }
    Ok(value)
}

/// Counts the steps to copy values, each with the number of copies; a string instead of a value names a variable.
fn copied(call: &FunctionContext) -> Result<Value, ExecutionError> {
    for pair in call.args.chunks_exact(2) {
        let [value, IdedExpr { expr: Expr::Literal(LiteralValue::Int(times)), .. }] = pair else { continue };
        let once = match &value.expr {
            Expr::Literal(LiteralValue::String(name)) => noted(name.inner()),
            _ => Size::of_val(Value::resolve_val(value, call.ptx)?.as_ref()).to_copy(),
        };
        step(once.saturating_mul(*times.inner()))?;
    }
    Ok(Value::Bool(true))
}

fn steps(steps: usize) -> i64 {
    i64::try_from(steps).unwrap_or(i64::MAX)
}

fn check_length(length: usize, most: usize) -> Result<(), ExecutionError> {
    if length <= most { Ok(()) } else { Err(too_much(format!("creates a string or list of size more than {most}"))) }
}

fn too_much(message: String) -> ExecutionError {
    ExecutionError::FunctionError { function: NAME.to_owned(), message }
}

/// The size of a value.
#[derive(Default)]
pub(super) struct Size {
    /// The length of all strings, and one for each value.
    length: usize,
    /// The number of values.
    values: usize,
}

impl Size {
    pub(super) fn of(value: &Value) -> Self {
        let mut size = Self::default();
        size.add(value);
        size
    }

    /// Returns the size of a value of the evaluator.
    fn of_val(value: &dyn Val) -> Self {
        let mut size = Self::default();
        size.add_val(value);
        size
    }

    fn add(&mut self, value: &Value) {
        self.values += 1;
        self.length += 1;
        match value {
            Value::String(text) => self.length += text.len(),
            Value::Bytes(bytes) => self.length += bytes.len(),
            Value::List(items) => items.iter().for_each(|item| self.add(item)),
            Value::Map(map) => map.map.iter().for_each(|(key, value)| {
                self.length += if let Key::String(text) = key { text.len() } else { 1 };
                self.add(value);
            }),
            _ => {}
        }
    }

    fn add_val(&mut self, value: &dyn Val) {
        self.values += 1;
        self.length += 1;
        if let Some(text) = value.downcast_ref::<CelString>() {
            self.length += text.inner().len();
        } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
            self.length += bytes.inner().len();
        } else if let Some(list) = value.downcast_ref::<CelList>() {
            list.inner().iter().for_each(|item| self.add_val(item.as_ref()));
        } else if let Some(map) = value.downcast_ref::<CelMap>() {
            map.inner().iter().for_each(|(key, value)| {
                self.add_val(key.inner());
                self.add_val(value.as_ref());
            });
        } else if let Some(inner) = value.downcast_ref::<CelOptional>().and_then(CelOptional::inner) {
            self.add_val(inner);
        }
    }

    /// Returns the steps to read it: one for four values or 64 bytes.
    fn to_read(&self) -> i64 {
        steps(self.length / 64 + self.values / 4)
    }

    /// Returns the steps to copy it: one for four values or 1,024 bytes.
    pub(super) fn to_copy(&self) -> i64 {
        steps(self.length / 1024 + self.values / 4)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cel::{Budget, Expression, Outcome, Variables, Wanted};

    /// Returns variables with a list and a string of these lengths.
    fn variables(items: u32, letters: usize) -> Variables {
        let mut variables = Variables::default();
        variables.add("many", &json!((0..items).collect::<Vec<_>>()));
        variables.add("text", &json!("0123456789".repeat(letters / 10)));
        variables
    }

    fn parsed(text: &str) -> Expression {
        Expression::parse(text, Wanted::Any, &[variables(2, 10)], &Budget::default())
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn evaluated(text: &str) -> Result<Outcome, String> {
        parsed(text).evaluate(&variables(2000, 200_000), &Budget::default())
    }

    #[test]
    fn cost_depends_on_the_size_of_variables() {
        let cost = |text: &str, variables: &Variables| {
            let budget = Budget::default();
            parsed(text).evaluate(variables, &budget).unwrap();
            budget.spent()
        };
        let texts = [
            "many.size() > 0",
            "many.all(a, a >= 0)",
            "many.map(a, a + 1).size() > 0",
            "[1, 2].all(a, many[0] < a + 10)",
            "[many, many].size() == 2",
            "text.contains('x')",
            "text == 'x'",
            "text + text == 'x'",
            "{'a': {'b': text}}.a.b == 'x'",
        ];
        let (small, large) = (variables(20, 10), variables(500, 200_000));
        for text in texts {
            let costs = [cost(text, &small), cost(text, &large)];
            assert!(costs[0] > 0 && costs[1] >= costs[0] + 100, "{text}: {costs:?}");
        }
        assert!(cost("1 < 2", &small) > 0, "every evaluation has a cost");
    }

    #[test]
    fn evaluations_share_a_budget() {
        let (expression, variables, budget) = (parsed("many.all(a, a >= 0)"), variables(2000, 10), Budget::default());
        let mut rounds = 0;
        while expression.evaluate(&variables, &budget) == Ok(Outcome::Bool(true)) {
            rounds += 1;
        }
        let cost = budget.spent() / rounds;
        assert!(budget.is_spent() && cost < super::STEPS, "{cost}");
        assert!((rounds * cost - Budget::STEPS).abs() <= cost, "{rounds} rounds of {cost}");
        let spent = budget.spent();
        assert!(parsed("true").evaluate(&variables, &budget).is_err() && budget.spent() == spent);
    }

    #[test]
    fn rejects_expressions_that_always_cost_too_much() {
        let list = format!("[{}]", (0..90).map(|item| item.to_string()).collect::<Vec<_>>().join(","));
        let text = format!("{list}.all(a, {list}.all(b, {list}.all(c, a + b + c >= 0)))");
        let error = |budget: &Budget| Expression::parse(&text, Wanted::Bool, &[variables(1, 10)], budget).unwrap_err();
        let budget = Budget::default();
        let costly = "the expression costs too much even for a small workload: takes more than 500000 steps";
        assert_eq!(error(&budget).to_string(), costly);
        while !budget.is_spent() {
            error(&budget);
        }
        let together =
            "the policy's expressions together take more than 5000000 steps to parse and to try on a small workload";
        assert_eq!(error(&budget).to_string(), together);
    }

    #[test]
    fn evaluates_cheap_expressions() {
        assert_eq!(evaluated("many.all(a, a >= 0)"), Ok(Outcome::Bool(true)));
        let gathered = |text: &str| parsed(text).evaluate(&variables(500, 10), &Budget::default());
        assert_eq!(gathered("many.map(a, a * 2).filter(a, a > 100).size() == 449"), Ok(Outcome::Bool(true)));
        assert_eq!(gathered("many.map(a, string(a)).join(',').size() == 1889"), Ok(Outcome::Bool(true)));
        assert_eq!(evaluated("[1, 2].all(a, [3, 4].all(b, [5].all(c, a < b && b < c)))"), Ok(Outcome::Bool(true)));
    }

    #[test]
    fn stops_expressions_that_cost_too_much() {
        for text in [
            "many.all(a, many.all(b, a + b >= 0))",
            "many.map(a, many.map(b, many.filter(c, c > b))).size() > 0",
            "many.all(a, text.matches('[0-9]+' + string(a)) || true)",
            "many.all(a, many.all(b, many.size() > 0))",
            "many.all(a, text == text + '' || true)",
            "many.all(a, !(string(a) in [text]))",
            "many.sum() > 0",
            "many.all(a, sets.contains(many, many))",
            "many.distinct().size() > 0",
            "many.all(a, string(a).matches('(a{30}){30}') || true)",
        ] {
            let error = evaluated(text).map(|_| text).unwrap_err();
            assert!(error.contains("steps"), "{text}: {error}");
        }
        let doubled = "text".to_owned() + &" + text".repeat(3);
        let grown = format!("[{doubled}].map(a, a + a).map(a, a + a).map(a, a + a).size() == 1");
        assert!(evaluated(&grown).unwrap_err().contains("more than 1048576"));
        assert!(evaluated("text.replace('0', text).size() > 0").unwrap_err().contains("more than 4096"));
        assert!(evaluated("many.map(a, text).join('').size() > 0").unwrap_err().contains("more than"));
        assert!(evaluated("many.map(a, text).sum().size() > 0").unwrap_err().contains("more than 1048576"));
    }

    #[test]
    fn rejects_deeply_nested_loops() {
        let text = "[1, 2].all(a, [1, 2].all(b, [1, 2].all(c, [1, 2].all(d, true))))";
        let error = Expression::parse(text, Wanted::Any, &[], &Budget::default()).unwrap_err().to_string();
        assert_eq!(error, "loops are nested more than 3 deep");
    }
}
