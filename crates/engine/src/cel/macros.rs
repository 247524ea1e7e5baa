//! Expands macros of Kubernetes' CEL that the parser does not know.

use std::mem;

use kube_cel::cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue};

use super::check::{parts, parts_mut};

/// The name of the result of a loop; users cannot write it.
const RESULT: &str = "@result";

/// The maximum size of an optional that a macro maps: the expansion contains it twice, and it may contain macros
/// itself.
const MAX_SIZE: usize = 256;

/// Expands the macros in an expression.
pub(super) fn expand(tree: &mut IdedExpr) {
    parts_mut(tree).into_iter().for_each(expand);
    let Expr::Call(call) = &mut tree.expr else { return };
    let expanded = match (call.func_name.as_str(), call.target.as_deref_mut(), &mut call.args[..]) {
        // `a.?b` is `a[?"b"]`.
        ("_?._", None, [of, field]) => Some(operator("_[?_]", [mem::take(of), mem::take(field)])),
        // All types are dynamic.
        ("dyn", None, [value]) => Some(mem::take(value)),
        ("optMap", Some(optional), [name, body]) if size(optional) <= MAX_SIZE => variable(name).map(|name| {
            let mapped = bind(name, method(optional.clone(), "value"), mem::take(body));
            let has_value = method(mem::take(optional), "hasValue");
            operator("_?_:_", [has_value, of_optional("of", [mapped]), of_optional("none", [])])
        }),
        _ => None,
    };
    if let Some(expanded) = expanded {
        *tree = expanded;
    }
}

fn size(tree: &IdedExpr) -> usize {
    1 + parts(tree).into_iter().map(size).sum::<usize>()
}

fn variable(tree: &IdedExpr) -> Option<String> {
    let Expr::Ident(name) = &tree.expr else { return None };
    Some(name.clone())
}

/// Returns `body` with a name for a value: a loop of one iteration.
fn bind(name: String, value: IdedExpr, body: IdedExpr) -> IdedExpr {
    plain(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: plain(Expr::List(ListExpr::new(vec![value]))),
        iter_var: name,
        iter_var2: None,
        accu_var: RESULT.to_owned(),
        accu_init: plain(Expr::Literal(LiteralValue::Null)),
        loop_cond: plain(Expr::Literal(LiteralValue::Boolean(true.into()))),
        loop_step: body,
        result: ident(RESULT),
    })))
}

fn ident(name: &str) -> IdedExpr {
    plain(Expr::Ident(name.to_owned()))
}

fn operator<const N: usize>(name: &str, args: [IdedExpr; N]) -> IdedExpr {
    plain(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args: args.into() }))
}

fn method(target: IdedExpr, name: &str) -> IdedExpr {
    plain(Expr::Call(CallExpr { func_name: name.to_owned(), target: Some(Box::new(target)), args: Vec::new() }))
}

fn of_optional<const N: usize>(name: &str, args: [IdedExpr; N]) -> IdedExpr {
    let target = Some(Box::new(ident("optional")));
    plain(Expr::Call(CallExpr { func_name: name.to_owned(), target, args: args.into() }))
}

fn plain(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}
