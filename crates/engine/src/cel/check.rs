//! Checks an expression before it is used: whether its names exist and its types match.

use kube_cel::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr};
use kube_cel::cel::{self, ExecutionError};

use super::{Budget, CelError, Expression, FUNCTIONS, SHARED, Variables, Wanted, budget, describe, type_of};

/// The namespaces of functions, which are not variables.
pub(super) const NAMESPACES: [&str; 6] = ["sets", "math", "base64", "optional", "format", "ip"];

/// The names of types, which are also values.
pub(super) const TYPES: [&str; 10] =
    ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"];

/// Returns the depth of an expression.
pub(super) fn depth(tree: &IdedExpr) -> usize {
    1 + parts(tree).into_iter().map(depth).max().unwrap_or_default()
}

/// Returns the direct subexpressions of an expression.
pub(super) fn parts(tree: &IdedExpr) -> Vec<&IdedExpr> {
    match &tree.expr {
        Expr::Unspecified | Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Select(select) => vec![&select.operand],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map
            .entries
            .iter()
            .flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            })
            .collect(),
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(of) => vec![&of.iter_range, &of.accu_init, &of.loop_cond, &of.loop_step, &of.result],
    }
}

/// Like [`parts`], but mutable.
pub(super) fn parts_mut(tree: &mut IdedExpr) -> Vec<&mut IdedExpr> {
    match &mut tree.expr {
        Expr::Unspecified | Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Select(select) => vec![&mut select.operand],
        Expr::List(list) => list.elements.iter_mut().collect(),
        Expr::Map(map) => map
            .entries
            .iter_mut()
            .flat_map(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => vec![&mut entry.key, &mut entry.value],
                EntryExpr::StructField(field) => vec![&mut field.value],
            })
            .collect(),
        Expr::Call(call) => call.target.as_deref_mut().into_iter().chain(&mut call.args).collect(),
        Expr::Comprehension(of) => {
            vec![&mut of.iter_range, &mut of.accu_init, &mut of.loop_cond, &mut of.loop_step, &mut of.result]
        }
    }
}

/// Checks that every variable and function exists.
pub(super) fn names(tree: &IdedExpr, samples: &[Variables]) -> Result<(), CelError> {
    let known: Vec<&str> = samples.first().map(|sample| sample.names().collect()).unwrap_or_default();
    let mut scope: Vec<&str> = [&known[..], &NAMESPACES, &TYPES].concat();
    let is_shared = |name: &str| samples.first().is_none_or(|sample| sample.shares(name));
    in_scope(tree, &mut scope, &is_shared).map_err(|unknown| match unknown {
        Unknown::Variable(name) => {
            let known = format!("the variables are {}", known.join(", "));
            CelError::Unknown { what: "variable", name: name.to_owned(), known }
        }
        Unknown::Shared(name) => {
            let known = "variables must be declared before they are used".to_owned();
            CelError::Unknown { what: "variable", name: format!("{SHARED}.{name}"), known }
        }
        Unknown::Function(name) => {
            let known = "the functions are those of CEL in Kubernetes, \
                         https://kubernetes.io/docs/reference/using-api/cel/";
            CelError::Unknown { what: "function", name: name.to_owned(), known: known.to_owned() }
        }
    })
}

enum Unknown<'t> {
    Variable(&'t str),
    Shared(&'t str),
    Function(&'t str),
}

fn in_scope<'t>(
    tree: &'t IdedExpr,
    scope: &mut Vec<&'t str>,
    is_shared: &dyn Fn(&str) -> bool,
) -> Result<(), Unknown<'t>> {
    match &tree.expr {
        Expr::Select(select)
            if matches!(&select.operand.expr, Expr::Ident(name) if name == SHARED) && !is_shared(&select.field) =>
        {
            Err(Unknown::Shared(&select.field))
        }
        Expr::Ident(name) if !scope.contains(&name.trim_start_matches('.')) => Err(Unknown::Variable(name)),
        Expr::Call(call) if is_named(&call.func_name) && !is_function(call) => Err(Unknown::Function(&call.func_name)),
        Expr::Comprehension(found) => {
            in_scope(&found.iter_range, scope, is_shared)?;
            in_scope(&found.accu_init, scope, is_shared)?;
            let outer = scope.len();
            scope.extend([found.iter_var.as_str(), found.accu_var.as_str()]);
            scope.extend(found.iter_var2.as_deref());
            let inner = [&found.loop_cond, &found.loop_step, &found.result];
            inner.into_iter().try_for_each(|part| in_scope(part, scope, is_shared))?;
            scope.truncate(outer);
            Ok(())
        }
        _ => parts(tree).into_iter().try_for_each(|part| in_scope(part, scope, is_shared)),
    }
}

/// Returns whether a function has a name; operators do not.
fn is_named(function: &str) -> bool {
    function.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Returns whether a function exists: called without arguments, it then fails with another error.
fn is_function(call: &CallExpr) -> bool {
    let target = call
        .target
        .as_ref()
        .filter(|target| matches!(&target.expr, Expr::Ident(name) if NAMESPACES.contains(&name.as_str())));
    let bare = CallExpr { func_name: call.func_name.clone(), target: target.cloned(), args: Vec::new() };
    let bare = IdedExpr { id: 0, expr: Expr::Call(bare) };
    let result = FUNCTIONS.with(|functions| cel::Value::resolve(&bare, functions));
    !matches!(result, Err(ExecutionError::UndeclaredReference(_)))
}

/// Evaluates an expression on samples: type errors there, a result of the wrong type, and costs that are too high are
/// errors for every workload. A field that a sample does not have is not an error.
pub(super) fn types(
    expression: &Expression,
    wanted: Wanted,
    samples: &[Variables],
    together: &Budget,
) -> Result<(), CelError> {
    for sample in samples {
        match expression.value(sample, together) {
            Ok(value) => check_result(&value, wanted)?,
            Err(_) if together.is_spent() => return Err(CelError::CostlyTogether),
            Err(Some(ExecutionError::FunctionError { function, message })) if function == budget::NAME => {
                return Err(CelError::Costly(message));
            }
            Err(Some(
                error @ (ExecutionError::UnsupportedBinaryOperator(..)
                | ExecutionError::UnsupportedUnaryOperator(..)
                | ExecutionError::ValuesNotComparable(..)
                | ExecutionError::NoSuchOverload
                | ExecutionError::UnexpectedType { .. }
                | ExecutionError::NotSupportedAsMethod { .. }
                | ExecutionError::InvalidArgumentCount { .. }
                | ExecutionError::UndeclaredReference(_)),
            )) => return Err(CelError::Types(describe(error))),
            Err(_) => {}
        }
    }
    Ok(())
}

fn check_result(value: &cel::Value, wanted: Wanted) -> Result<(), CelError> {
    let (fits, name) = match wanted {
        Wanted::Bool => (matches!(value, cel::Value::Bool(_)), "bool"),
        Wanted::String => (matches!(value, cel::Value::String(_)), "string"),
        Wanted::Any => (true, "value"),
    };
    if fits { Ok(()) } else { Err(CelError::Gives { given: type_of(value), wanted: name }) }
}
