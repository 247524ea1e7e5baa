//! Rewrites an expression so that it counts its cost while it is evaluated: it calls the functions of
//! [`super::budget`], which users cannot name.

use std::collections::BTreeMap;
use std::mem;

use kube_cel::cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue};

use super::budget::{COPIED, NAME, PAIRED, PATTERN, SIZED, SMALL};
use super::check::{NAMESPACES, TYPES, parts, parts_mut};
use super::{CelError, SHARED};

/// The maximum depth of nested loops.
const MAX_LOOPS: usize = 3;

/// Functions that join strings or split them.
const GROWING: [&str; 5] = ["join", "format", "replace", "split", "flatten"];

/// Operators that take almost no time, except for copies.
const CHEAP: [&str; 7] = ["_&&_", "_||_", "_?_:_", "!_", "_[_]", "_[?_]", "@not_strictly_false"];

/// Functions that read all items again for each item: `sum` copies the strings that it has joined.
const PAIRING: [&str; 5] = ["distinct", "sum", "contains", "equivalent", "intersects"];

/// Functions that compile a regular expression.
const REGULAR: [&str; 3] = ["matches", "find", "findAll"];
const PRICE_OF_REGULAR: i64 = 500;

/// The minimum cost of an evaluation.
pub(super) struct Price {
    /// The steps of the expression, without its values.
    pub(super) steps: i64,
    /// The copies of variables outside of loops.
    pub(super) copies: Copies,
}

/// The number of copies of each variable or of values in it; `variables.<name>` for the result of an expression. The
/// evaluator copies every value that it selects from another.
pub(super) type Copies = BTreeMap<String, i64>;

/// Makes an expression count its cost.
pub(super) fn limit(tree: &mut IdedExpr) -> Result<Price, CelError> {
    let mut price = Price { steps: steps(tree), copies: Copies::new() };
    copies(tree, 1, &mut price.copies);
    limited(tree, 0, &mut Vec::new())?;
    Ok(price)
}

/// `loops` is the number of enclosing loops, `local` the variables that they declare.
fn limited(tree: &mut IdedExpr, loops: usize, local: &mut Vec<String>) -> Result<(), CelError> {
    if matches!(tree.expr, Expr::Unspecified | Expr::Struct(_)) {
        return Err(CelError::Unsupported("objects cannot be created: use a map, or compare fields".to_owned()));
    }
    let Expr::Comprehension(found) = &mut tree.expr else {
        parts_mut(tree).into_iter().try_for_each(|part| limited(part, loops, local))?;
        count(tree);
        return Ok(());
    };
    // A loop over a literal list of one item only names a value.
    let is_short = matches!(&found.iter_range.expr, Expr::List(list) if list.elements.len() <= 1);
    let inside = if is_short { loops } else { loops + 1 };
    if inside > MAX_LOOPS {
        return Err(CelError::Unsupported(format!("loops are nested more than {MAX_LOOPS} deep")));
    }
    limited(&mut found.iter_range, loops, local)?;
    limited(&mut found.accu_init, loops, local)?;
    let outer = local.len();
    local.extend([found.iter_var.clone(), found.accu_var.clone()]);
    local.extend(found.iter_var2.clone());
    let round = Round::of(found, local);
    for part in [&mut found.loop_cond, &mut found.loop_step, &mut found.result] {
        limited(part, inside, local)?;
    }
    local.truncate(outer);
    if !is_short {
        wrap(&mut found.iter_range, SIZED, []);
    }
    round.charge(found);
    Ok(())
}

/// The cost of one iteration of a loop.
struct Round {
    steps: i64,
    /// The values and the number of their copies, as arguments of the function that counts copies.
    copied: Vec<IdedExpr>,
}

impl Round {
    fn of(found: &ComprehensionExpr, local: &[String]) -> Self {
        let mut copies = Copies::new();
        for part in [&found.loop_cond, &found.loop_step] {
            self::copies(part, 1, &mut copies);
        }
        // An accumulator that is a literal costs almost nothing; one that collects results is copied in each iteration.
        if matches!(found.accu_init.expr, Expr::Literal(_)) {
            copies.remove(&found.accu_var);
        }
        let copied = copies.into_iter().flat_map(|(name, times)| {
            let is_local = local.contains(&name);
            let text = |name: String| LiteralValue::String(name.into());
            let value = if is_local { Expr::Ident(name) } else { Expr::Literal(text(name)) };
            [plain(value), number(times)]
        });
        Self { steps: steps(&found.loop_step) + steps(&found.loop_cond), copied: copied.collect() }
    }

    /// Makes each iteration of a loop cost this. Copies are counted in the step, the first place where items are known.
    fn charge(self, found: &mut ComprehensionExpr) {
        wrap(&mut found.loop_cond, NAME, [number(self.steps)]);
        if !self.copied.is_empty() {
            let is_paid = call(COPIED, self.copied);
            let nothing = plain(Expr::Literal(LiteralValue::Null));
            let step = mem::take(&mut found.loop_step);
            found.loop_step = call("_?_:_", vec![is_paid, step, nothing]);
        }
    }
}

/// Adds the copies that an expression makes, without those in loops. The expression itself is selected from `times`
/// times.
fn copies(tree: &IdedExpr, times: i64, found: &mut Copies) {
    match &tree.expr {
        Expr::Ident(name) if [&NAMESPACES[..], &TYPES].concat().contains(&name.as_str()) => {}
        Expr::Ident(name) => *found.entry(name.clone()).or_default() += times,
        Expr::Select(select) => match &select.operand.expr {
            Expr::Ident(name) if name == SHARED => {
                *found.entry(format!("{SHARED}.{}", select.field)).or_default() += times;
            }
            _ => copies(&select.operand, times + 1, found),
        },
        Expr::Call(CallExpr { func_name, args, .. }) if ["_[_]", "_[?_]"].contains(&func_name.as_str()) => {
            let mut args = args.iter();
            args.next().into_iter().for_each(|of| copies(of, times + 1, found));
            args.for_each(|index| copies(index, 1, found));
        }
        Expr::Comprehension(inner) => {
            for part in [&inner.iter_range, &inner.accu_init] {
                copies(part, 1, found);
            }
        }
        _ => parts(tree).into_iter().for_each(|part| copies(part, 1, found)),
    }
}

/// Makes a call count its arguments or its result: the evaluator copies and reads all of it.
fn count(tree: &mut IdedExpr) {
    let Expr::Call(call) = &mut tree.expr else { return };
    if call.func_name == "_+_" {
        return wrap(tree, SIZED, []);
    }
    let name = call.func_name.as_str();
    if CHEAP.contains(&name) {
        return;
    }
    if REGULAR.contains(&name) {
        // The text may be the first argument instead of the target.
        let place = usize::from(call.target.is_none());
        call.args.get_mut(place).into_iter().for_each(|pattern| wrap(pattern, PATTERN, []));
    }
    let is_namespace = |part: &IdedExpr| matches!(&part.expr, Expr::Ident(name) if NAMESPACES.contains(&name.as_str()));
    let of_target = if PAIRING.contains(&name) { PAIRED } else { SIZED };
    let of_argument = if GROWING.contains(&name) { SMALL } else { of_target };
    if let Some(target) = call.target.as_deref_mut().filter(|target| !is_namespace(target)) {
        size(target, of_target);
    }
    call.args.iter_mut().for_each(|argument| size(argument, of_argument));
}

/// Makes an expression count the size of its result, unless it is a literal.
fn size(tree: &mut IdedExpr, function: &str) {
    if !matches!(tree.expr, Expr::Literal(_)) {
        wrap(tree, function, []);
    }
}

/// Wraps an expression in a call of one of the functions that count costs.
fn wrap<const N: usize>(tree: &mut IdedExpr, function: &str, more: [IdedExpr; N]) {
    let id = tree.id;
    let args = std::iter::once(mem::take(tree)).chain(more).collect();
    *tree = IdedExpr { id, ..call(function, args) };
}

fn call(function: &str, args: Vec<IdedExpr>) -> IdedExpr {
    plain(Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args }))
}

fn number(number: i64) -> IdedExpr {
    plain(Expr::Literal(LiteralValue::Int(number.into())))
}

fn plain(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

/// Returns the steps to evaluate an expression once, without those that are counted during the evaluation.
fn steps(tree: &IdedExpr) -> i64 {
    let own = match &tree.expr {
        Expr::Call(call) if REGULAR.contains(&call.func_name.as_str()) => PRICE_OF_REGULAR,
        _ => 1,
    };
    own + parts(tree).into_iter().map(steps).sum::<i64>()
}
