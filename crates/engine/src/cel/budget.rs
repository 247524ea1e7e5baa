//! Bounds what an expression may cost, and what several may cost together. The evaluator knows no bounds of its own, so what
//! could grow is counted: each round of a loop by what is in it, each text and list by its length.
//!
//! The bounds stand to each other as those of Kubernetes do: ten times what one expression may cost is what all those of a
//! request may.
//!
//! <https://kubernetes.io/docs/reference/using-api/cel/#resource-constraints>

use std::cell::{Cell, RefCell};

use kube_cel::cel::common::ast::{Expr, IdedExpr, LiteralValue};
use kube_cel::cel::common::types::{CelBytes, CelList, CelMap, CelOptional, CelString};
use kube_cel::cel::common::value::Val;
use kube_cel::cel::objects::Key;
use kube_cel::cel::{Context, ExecutionError, FunctionContext, Value};

use super::pattern;

/// How many steps an evaluation may take: about a tenth of a second.
const STEPS: i64 = 500_000;

/// How many steps all evaluations for one request may take together, and all that try the expressions of one policy: about a
/// second.
const STEPS_TOGETHER: i64 = 10 * STEPS;

/// How many steps it takes to parse one byte.
const PRICE_OF_BYTE: i64 = 8;

/// The longest text, and the most items of a list, that an expression may make.
const MAX_SIZE: usize = 1 << 20;

/// The longest text that goes into a function whose result may be much longer.
const MAX_PART: usize = 1 << 12;

/// The names of the functions that count; no user can write them.
pub(super) const NAME: &str = "@step";
pub(super) const COPIED: &str = "@copied";
pub(super) const SIZED: &str = "@sized";
pub(super) const SMALL: &str = "@small";
pub(super) const PAIRED: &str = "@paired";
pub(super) const PATTERN: &str = "@pattern";

thread_local! {
    /// How many steps the evaluation on this thread may still take.
    static LEFT: Cell<i64> = const { Cell::new(0) };

    /// By variable: how many steps it takes to copy its value.
    static VARIABLES: RefCell<Vec<(String, i64)>> = const { RefCell::new(Vec::new()) };
}

/// What several evaluations may cost together.
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
    /// How many steps there are at first.
    pub const STEPS: i64 = STEPS_TOGETHER;

    /// Returns how many steps have been taken.
    #[must_use]
    pub fn spent(&self) -> i64 {
        STEPS_TOGETHER - self.left.get()
    }

    /// Tells whether nothing is left: whatever would have been evaluated since has not been.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.left.get() <= 0
    }

    /// Evaluates something, whose steps are counted on this thread. It is an error if it takes too many, whatever became of
    /// that in it.
    pub(super) fn charge<T>(&self, evaluate: impl FnOnce() -> T) -> Result<T, ExecutionError> {
        let most = STEPS.min(self.left.get());
        LEFT.set(most);
        VARIABLES.with_borrow_mut(Vec::clear);
        step(0)?;
        let result = evaluate();
        self.left.set(self.left.get() - (most - LEFT.get()));
        step(0).map(|()| result)
    }

    /// Takes what it costs to parse a text; tells whether there was enough left.
    pub(super) fn parse(&self, text: &str) -> bool {
        let price = i64::try_from(text.len()).unwrap_or(i64::MAX).saturating_mul(PRICE_OF_BYTE);
        self.left.set(self.left.get().saturating_sub(price));
        !self.is_spent()
    }
}

/// Adds the functions that count.
pub(super) fn register(context: &mut Context) {
    context.add_function(NAME, |goes_on: bool, price: i64| step(price).map(|()| Value::Bool(goes_on)));
    context.add_function(SIZED, |value: Value| sized(value, MAX_SIZE));
    context.add_function(SMALL, |value: Value| sized(value, MAX_PART));
    context.add_function(PAIRED, paired);
    context.add_function(PATTERN, regular);
    context.add_function(COPIED, copied);
}

/// Notes how many steps it takes to copy a variable.
pub(super) fn note(variable: String, steps: i64) {
    VARIABLES.with_borrow_mut(|known| known.push((variable, steps)));
}

/// Returns how many steps it takes to copy a variable.
pub(super) fn noted(variable: &str) -> i64 {
    let find = |known: &Vec<(String, i64)>| known.iter().find(|(name, _)| name == variable).map(|(_, steps)| *steps);
    VARIABLES.with_borrow(find).unwrap_or_default()
}

/// Takes steps.
pub(super) fn step(price: i64) -> Result<(), ExecutionError> {
    LEFT.set(LEFT.get().saturating_sub(price));
    if LEFT.get() > 0 { Ok(()) } else { Err(too_much(format!("it takes more than {STEPS} steps"))) }
}

/// Counts what it takes to look through all of a value.
fn sized(value: Value, most: usize) -> Result<Value, ExecutionError> {
    let size = Size::of(&value);
    step(size.to_read())?;
    is_kept(size.length, most).map(|()| value)
}

/// Counts what it takes to look through all of a list for each of its items.
fn paired(value: Value) -> Result<Value, ExecutionError> {
    let items = if let Value::List(items) = &value { items.len() } else { 1 };
    step(Size::of(&value).to_read().saturating_mul(steps(items)))?;
    Ok(value)
}

/// Counts what it takes to compile a regular expression.
fn regular(value: Value) -> Result<Value, ExecutionError> {
    if let Value::String(text) = &value {
        is_kept(text.len(), MAX_PART)?;
        step(steps(pattern::states(text)))?;
    }
    Ok(value)
}

/// Counts what it takes to copy values, each so many times; a text in place of a value names a variable.
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

fn is_kept(length: usize, most: usize) -> Result<(), ExecutionError> {
    if length <= most { Ok(()) } else { Err(too_much(format!("it makes a text or list of more than {most}"))) }
}

fn too_much(message: String) -> ExecutionError {
    ExecutionError::FunctionError { function: NAME.to_owned(), message }
}

/// How much there is in a value.
#[derive(Default)]
pub(super) struct Size {
    /// All its texts, and one for each value.
    length: usize,
    /// How many values there are.
    values: usize,
}

impl Size {
    pub(super) fn of(value: &Value) -> Self {
        let mut size = Self::default();
        size.add(value);
        size
    }

    /// The same of a value as the evaluator has it.
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

    /// How many steps it takes to look through it: one for four values or 64 bytes.
    fn to_read(&self) -> i64 {
        steps(self.length / 64 + self.values / 4)
    }

    /// How many steps it takes to copy it: one for four values or 1,024 bytes.
    pub(super) fn to_copy(&self) -> i64 {
        steps(self.length / 1024 + self.values / 4)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cel::{Budget, Expression, Outcome, Variables, Wanted};

    /// Variables of so many items and letters.
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
    fn expressions_cost_what_they_are_given() {
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
        assert!(cost("1 < 2", &small) > 0, "nothing is for nothing");
    }

    #[test]
    fn expressions_that_are_evaluated_together_share_a_budget() {
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
    fn what_costs_too_much_whatever_it_is_given_is_told_when_it_is_read() {
        let list = format!("[{}]", (0..90).map(|item| item.to_string()).collect::<Vec<_>>().join(","));
        let text = format!("{list}.all(a, {list}.all(b, {list}.all(c, a + b + c >= 0)))");
        let told = |budget: &Budget| Expression::parse(&text, Wanted::Bool, &[variables(1, 10)], budget).unwrap_err();
        let budget = Budget::default();
        assert_eq!(told(&budget).to_string(), "it costs too much on a small workload: it takes more than 500000 steps");
        while !budget.is_spent() {
            told(&budget);
        }
        let together =
            "the policy's expressions take more than 5000000 steps together to read, and to try on a small workload";
        assert_eq!(told(&budget).to_string(), together);
    }

    #[test]
    fn what_is_cheap_enough_is_evaluated() {
        assert_eq!(evaluated("many.all(a, a >= 0)"), Ok(Outcome::Bool(true)));
        let gathered = |text: &str| parsed(text).evaluate(&variables(500, 10), &Budget::default());
        assert_eq!(gathered("many.map(a, a * 2).filter(a, a > 100).size() == 449"), Ok(Outcome::Bool(true)));
        assert_eq!(gathered("many.map(a, string(a)).join(',').size() == 1889"), Ok(Outcome::Bool(true)));
        assert_eq!(evaluated("[1, 2].all(a, [3, 4].all(b, [5].all(c, a < b && b < c)))"), Ok(Outcome::Bool(true)));
    }

    #[test]
    fn what_costs_too_much_is_given_up() {
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
            let told = evaluated(text).map(|_| text).unwrap_err();
            assert!(told.contains("steps"), "{text}: {told}");
        }
        let doubled = "text".to_owned() + &" + text".repeat(3);
        let grown = format!("[{doubled}].map(a, a + a).map(a, a + a).map(a, a + a).size() == 1");
        assert!(evaluated(&grown).unwrap_err().contains("more than 1048576"));
        assert!(evaluated("text.replace('0', text).size() > 0").unwrap_err().contains("more than 4096"));
        assert!(evaluated("many.map(a, text).join('').size() > 0").unwrap_err().contains("more than"));
        assert!(evaluated("many.map(a, text).sum().size() > 0").unwrap_err().contains("more than 1048576"));
    }

    #[test]
    fn loops_may_not_stand_too_deep_in_each_other() {
        let text = "[1, 2].all(a, [1, 2].all(b, [1, 2].all(c, [1, 2].all(d, true))))";
        let told = Expression::parse(text, Wanted::Any, &[], &Budget::default()).unwrap_err().to_string();
        assert_eq!(told, "loops stand in each other more than 3 deep");
    }
}
