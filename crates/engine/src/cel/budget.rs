//! Bounds what an expression may cost. The evaluator knows no bounds of its own, so what could grow is counted: each round
//! of a loop by what is in it, each text and list by its length.

use std::cell::Cell;

use kube_cel::cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};
use kube_cel::cel::{Context, ExecutionError, Value};

use super::CelError;
use super::check::{NAMESPACES, parts, parts_mut};

/// How many steps an evaluation may take: about a tenth of a second.
const STEPS: i64 = 500_000;

/// How deep loops may stand in each other.
const MAX_LOOPS: usize = 3;

/// The longest text, and the most items of a list, that an expression may make.
const MAX_SIZE: usize = 1 << 20;

/// The longest text that goes into a function whose result may be much longer.
const MAX_PART: usize = 1 << 12;

/// The name of the function that counts; no user can write it.
pub(super) const NAME: &str = "@step";
const SIZED: &str = "@sized";
const SMALL: &str = "@small";

/// Functions that make one text of many, or many of one.
const GROWING: [&str; 5] = ["join", "format", "replace", "split", "flatten"];

/// Operators that take next to no time whatever they are given.
const CHEAP: [&str; 8] = ["_&&_", "_||_", "_?_:_", "!_", "_[_]", "_[?_]", "@not_strictly_false", SIZED];

/// Functions with a price of their own: they compile a regular expression.
const REGULAR: [&str; 3] = ["matches", "find", "findAll"];
const PRICE_OF_REGULAR: i64 = 100;

thread_local! {
    /// How many steps the evaluation on this thread may still take.
    static LEFT: Cell<i64> = const { Cell::new(0) };
}

/// Begins an evaluation.
pub(super) fn begin() {
    LEFT.set(STEPS);
}

/// Returns an error where the evaluation took too many steps, whatever became of that in it.
pub(super) fn kept() -> Result<(), ExecutionError> {
    step(0)
}

/// Adds the functions that count.
pub(super) fn register(context: &mut Context) {
    context.add_function(NAME, |goes_on: bool, price: i64| step(price).map(|()| Value::Bool(goes_on)));
    context.add_function(SIZED, |value: Value| sized(value, MAX_SIZE));
    context.add_function(SMALL, |value: Value| sized(value, MAX_PART));
}

fn step(price: i64) -> Result<(), ExecutionError> {
    LEFT.set(LEFT.get() - price);
    if LEFT.get() > 0 { Ok(()) } else { Err(too_much(format!("it takes more than {STEPS} steps"))) }
}

fn sized(value: Value, most: usize) -> Result<Value, ExecutionError> {
    let size = size(&value);
    step(i64::try_from(size / 64).unwrap_or(i64::MAX))?;
    if size <= most { Ok(value) } else { Err(too_much(format!("it makes a text or list of more than {most}"))) }
}

fn too_much(message: String) -> ExecutionError {
    ExecutionError::FunctionError { function: NAME.to_owned(), message }
}

/// How much there is in a value.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(map) => map.map.values().map(size).sum(),
        _ => 0,
    }
}

/// Makes an expression count what it costs.
pub(super) fn limit(tree: &mut IdedExpr) -> Result<(), CelError> {
    limited(tree, 0)
}

/// `loops` is how many loops are around.
fn limited(tree: &mut IdedExpr, loops: usize) -> Result<(), CelError> {
    if matches!(tree.expr, Expr::Unspecified | Expr::Struct(_)) {
        return Err(CelError::NotTaken("objects cannot be made: write a map, or compare fields".to_owned()));
    }
    let Expr::Comprehension(found) = &mut tree.expr else {
        parts_mut(tree).into_iter().try_for_each(|part| limited(part, loops))?;
        count(tree, loops > 0);
        return Ok(());
    };
    // A list that is written out has few items: such a loop only names a value.
    let is_short = matches!(&found.iter_range.expr, Expr::List(list) if list.elements.len() <= 1);
    let inside = if is_short { loops } else { loops + 1 };
    if inside > MAX_LOOPS {
        return Err(CelError::NotTaken(format!("loops stand in each other more than {MAX_LOOPS} deep")));
    }
    limited(&mut found.iter_range, loops)?;
    limited(&mut found.accu_init, loops)?;
    for part in [&mut found.loop_cond, &mut found.loop_step, &mut found.result] {
        limited(part, inside)?;
    }
    let price = price(&found.loop_step) + price(&found.loop_cond);
    if !is_short {
        wrap(&mut found.iter_range, SIZED, None);
    }
    wrap(&mut found.loop_cond, NAME, Some(price));
    Ok(())
}

/// Makes a call count what it is given and what it makes: the evaluator copies and reads through all of it.
fn count(tree: &mut IdedExpr, in_loop: bool) {
    let Expr::Call(call) = &mut tree.expr else { return };
    let name = call.func_name.as_str();
    let (is_growing, is_cheap) = (GROWING.contains(&name), CHEAP.contains(&name));
    let is_namespace = |part: &IdedExpr| matches!(&part.expr, Expr::Ident(name) if NAMESPACES.contains(&name.as_str()));
    if is_growing || in_loop && !is_cheap {
        if let Some(target) = call.target.as_deref_mut().filter(|target| !is_namespace(target)) {
            wrap(target, SIZED, None);
        }
        for argument in &mut call.args {
            wrap(argument, if is_growing { SMALL } else { SIZED }, None);
        }
    }
    if call.func_name == "_+_" {
        wrap(tree, SIZED, None);
    }
}

/// Puts an expression into a call of one of the functions that count; what is written out is as long as it is.
fn wrap(tree: &mut IdedExpr, function: &str, price: Option<i64>) {
    if price.is_none() && matches!(tree.expr, Expr::Literal(_)) {
        return;
    }
    let id = tree.id;
    let inner = std::mem::take(tree);
    let price = price.map(|price| IdedExpr { id, expr: Expr::Literal(LiteralValue::Int(price.into())) });
    let args = std::iter::once(inner).chain(price).collect();
    tree.id = id;
    tree.expr = Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args });
}

/// How many steps it takes to evaluate an expression once.
fn price(tree: &IdedExpr) -> i64 {
    let own = match &tree.expr {
        Expr::Call(call) if REGULAR.contains(&call.func_name.as_str()) => PRICE_OF_REGULAR,
        _ => 1,
    };
    own + parts(tree).into_iter().map(price).sum::<i64>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cel::{Expression, Outcome, Variables, Wanted};

    fn evaluated(text: &str) -> Result<Outcome, String> {
        let mut variables = Variables::default();
        let many: Vec<u32> = (0..2000).collect();
        variables.add("many", &json!(many));
        variables.add("text", &json!("0123456789".repeat(20_000)));
        Expression::parse(text, Wanted::Any, &[variables.clone()])
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .evaluate(&variables)
    }

    #[test]
    fn what_is_cheap_enough_is_evaluated() {
        assert_eq!(evaluated("many.all(a, a >= 0)"), Ok(Outcome::Bool(true)));
        assert_eq!(evaluated("many.map(a, a * 2).filter(a, a > 100).size() == 1949"), Ok(Outcome::Bool(true)));
        assert_eq!(evaluated("many.map(a, string(a)).join(',').size() == 8889"), Ok(Outcome::Bool(true)));
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
        ] {
            let told = evaluated(text).map(|_| text).unwrap_err();
            assert!(told.contains("steps"), "{text}: {told}");
        }
        let doubled = "text".to_owned() + &" + text".repeat(3);
        let grown = format!("[{doubled}].map(a, a + a).map(a, a + a).map(a, a + a).size() == 1");
        assert!(evaluated(&grown).unwrap_err().contains("more than 1048576"));
        assert!(evaluated("text.replace('0', text).size() > 0").unwrap_err().contains("more than 4096"));
        assert!(evaluated("many.map(a, text).join('').size() > 0").unwrap_err().contains("more than"));
    }

    #[test]
    fn loops_may_not_stand_too_deep_in_each_other() {
        let text = "[1, 2].all(a, [1, 2].all(b, [1, 2].all(c, [1, 2].all(d, true))))";
        let told = Expression::parse(text, Wanted::Any, &[]).unwrap_err().to_string();
        assert_eq!(told, "loops stand in each other more than 3 deep");
    }
}
