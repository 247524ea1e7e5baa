//! Makes an expression count what it costs while it is evaluated: it is rewritten so that it calls the functions of
//! [`super::budget`], which no user can name.

use std::collections::BTreeMap;
use std::mem;

use kube_cel::cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue};

use super::budget::{COPIED, NAME, PAIRED, PATTERN, SIZED, SMALL};
use super::check::{NAMESPACES, TYPES, parts, parts_mut};
use super::{CelError, SHARED};

/// How deep loops may stand in each other.
const MAX_LOOPS: usize = 3;

/// Functions that make one text of many, or many of one.
const GROWING: [&str; 5] = ["join", "format", "replace", "split", "flatten"];

/// Operators that take next to no time, but for what is copied.
const CHEAP: [&str; 7] = ["_&&_", "_||_", "_?_:_", "!_", "_[_]", "_[?_]", "@not_strictly_false"];

/// Functions that look again at what they have seen for each item: `sum` copies the texts that it has put together.
const PAIRING: [&str; 5] = ["distinct", "sum", "contains", "equivalent", "intersects"];

/// Functions that compile a regular expression.
const REGULAR: [&str; 3] = ["matches", "find", "findAll"];
const PRICE_OF_REGULAR: i64 = 500;

/// What an evaluation costs at least.
pub(super) struct Price {
    /// The steps for what is written.
    pub(super) steps: i64,
    /// How often variables are copied outside of loops.
    pub(super) copies: Copies,
}

/// By variable, `variables.<name>` for one that an expression gave: how often it is copied, or something that is in it. The
/// evaluator copies whatever it takes out of something else.
pub(super) type Copies = BTreeMap<String, i64>;

/// Makes an expression count what it costs.
pub(super) fn limit(tree: &mut IdedExpr) -> Result<Price, CelError> {
    let mut price = Price { steps: steps(tree), copies: Copies::new() };
    copies(tree, 1, &mut price.copies);
    limited(tree, 0, &mut Vec::new())?;
    Ok(price)
}

/// `loops` is how many loops are around, `local` the names that they give.
fn limited(tree: &mut IdedExpr, loops: usize, local: &mut Vec<String>) -> Result<(), CelError> {
    if matches!(tree.expr, Expr::Unspecified | Expr::Struct(_)) {
        return Err(CelError::NotTaken("objects cannot be made: write a map, or compare fields".to_owned()));
    }
    let Expr::Comprehension(found) = &mut tree.expr else {
        parts_mut(tree).into_iter().try_for_each(|part| limited(part, loops, local))?;
        count(tree);
        return Ok(());
    };
    // A list that is written out has few items: such a loop only names a value.
    let is_short = matches!(&found.iter_range.expr, Expr::List(list) if list.elements.len() <= 1);
    let inside = if is_short { loops } else { loops + 1 };
    if inside > MAX_LOOPS {
        return Err(CelError::NotTaken(format!("loops stand in each other more than {MAX_LOOPS} deep")));
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

/// What one round of a loop costs.
struct Round {
    steps: i64,
    /// What is copied and how often, as arguments of the function that counts it.
    copied: Vec<IdedExpr>,
}

impl Round {
    fn of(found: &ComprehensionExpr, local: &[String]) -> Self {
        let mut copies = Copies::new();
        for part in [&found.loop_cond, &found.loop_step] {
            self::copies(part, 1, &mut copies);
        }
        // What tells whether a loop goes on is next to nothing; what gathers its results is copied in each round.
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

    /// Makes each round of a loop cost this: its items are known no earlier than in its step.
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

/// Adds how often what is copied by an expression, loops in it aside, that is itself taken out of this many times.
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

/// Makes a call count what it is given or what it makes: the evaluator copies and reads through all of it.
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
        // The text may be its first argument, rather than what it is called on.
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

/// Makes an expression count the size of what it gives; what is written out is as long as it is.
fn size(tree: &mut IdedExpr, function: &str) {
    if !matches!(tree.expr, Expr::Literal(_)) {
        wrap(tree, function, []);
    }
}

/// Puts an expression into a call of one of the functions that count.
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

/// How many steps it takes to evaluate an expression once, what is counted while it is evaluated aside.
fn steps(tree: &IdedExpr) -> i64 {
    let own = match &tree.expr {
        Expr::Call(call) if REGULAR.contains(&call.func_name.as_str()) => PRICE_OF_REGULAR,
        _ => 1,
    };
    own + parts(tree).into_iter().map(steps).sum::<i64>()
}
