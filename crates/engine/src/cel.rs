//! Expressions in CEL, the language of Kubernetes' `ValidatingAdmissionPolicy`. Only this module uses the crates that
//! evaluate it.
//!
//! <https://kubernetes.io/docs/reference/using-api/cel/>

mod budget;
mod check;
mod count;
mod macros;
mod pattern;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::common::ast::IdedExpr;
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::parser::{ParseErrors, Parser};
use kube_cel::cel::{self, Context, ExecutionError};
use serde_json::Value;

pub use budget::Budget;

use budget::Size;
use count::Price;

/// The maximum length of an expression, in bytes.
const MAX_LENGTH: usize = 4096;

/// The maximum depth of an expression.
const MAX_DEPTH: usize = 64;

/// The size of the parser's stack: it recurses through the whole expression before the depth can be checked.
const PARSER_STACK: usize = 256 << 20;

/// An expression that can be evaluated.
pub struct Expression {
    text: String,
    tree: IdedExpr,
    price: Price,
}

/// The result of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A condition.
    Bool(bool),
    /// A string.
    String(String),
    /// Another type, for other expressions to use.
    Other(Given),
}

/// A value for expressions.
#[derive(Clone, Debug, PartialEq)]
pub struct Given(cel::Value);

/// Why an expression is invalid.
#[derive(Debug, thiserror::Error)]
pub enum CelError {
    /// It is too long.
    #[error("the expression has {0} bytes: must be at most {MAX_LENGTH}")]
    TooLong(usize),
    /// It is nested too deeply.
    #[error("the expression is nested {0} deep: must be at most {MAX_DEPTH}")]
    TooDeep(usize),
    /// It is not CEL.
    #[error("cannot be parsed: {0}")]
    Syntax(String),
    /// It has something that is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// It costs too much even for a small workload.
    #[error("the expression costs too much even for a small workload: {0}")]
    Costly(String),
    /// It and the expressions before it together cost too much.
    #[error(
        "the policy's expressions together take more than {} steps to parse and to try on a small workload",
        Budget::STEPS
    )]
    CostlyTogether,
    /// It uses an unknown name.
    #[error("unknown {what} `{name}`; {known}")]
    Unknown {
        /// `variable` or `function`.
        what: &'static str,
        /// The name.
        name: String,
        /// The known names.
        known: String,
    },
    /// Its types do not match.
    #[error("type error: {0}")]
    Types(String),
    /// It returns another type than required.
    #[error("must return a {wanted}, not {given}")]
    Gives {
        /// The type that it returns.
        given: &'static str,
        /// The type that it must return.
        wanted: &'static str,
    },
}

/// The type that an expression must return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A condition.
    Bool,
    /// A string.
    String,
    /// Any type.
    Any,
}

/// Named values for expressions, each with the steps that a copy takes.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    values: Vec<(String, cel::Value, i64)>,
    shared: BTreeMap<String, Option<(cel::Value, i64)>>,
}

/// The variable whose fields are the results of other expressions.
const SHARED: &str = "variables";

impl Variables {
    /// Adds a JSON value.
    pub fn add(&mut self, name: &str, value: &Value) {
        let value = from_json(value);
        let steps = Size::of(&value).to_copy();
        self.values.push((name.to_owned(), value, steps));
    }

    /// Adds the result of an expression, as `variables.<name>`; none if it failed, which is an error only in
    /// expressions that use it.
    pub fn share(&mut self, name: &str, given: Option<Given>) {
        let sized = |Given(value): Given| {
            let steps = Size::of(&value).to_copy();
            (value, steps)
        };
        self.shared.insert(name.to_owned(), given.map(sized));
    }

    /// Moves the value of another variable to a variable; the other is then null.
    pub fn take(&mut self, name: &str, other: &str) {
        let taken = self.values.iter_mut().find(|(known, ..)| known == other).map(|(_, value, steps)| {
            let null = cel::Value::Null;
            (std::mem::replace(value, null), std::mem::take(steps))
        });
        let place = self.values.iter_mut().find(|(known, ..)| known == name);
        if let (Some((value, steps)), Some((_, to, to_steps))) = (taken, place) {
            (*to, *to_steps) = (value, steps);
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(|(name, ..)| name.as_str()).chain([SHARED])
    }

    fn shares(&self, name: &str) -> bool {
        self.shared.contains_key(name)
    }

    /// Returns every value with its name and the steps that a copy takes.
    fn all(&self) -> impl Iterator<Item = (&str, cel::Value, i64)> {
        let values = self.values.iter().map(|(name, value, steps)| (name.as_str(), value.clone(), *steps));
        values.chain(std::iter::once_with(|| self.as_one()))
    }

    /// Returns the results of other expressions, as one value.
    fn as_one(&self) -> (&str, cel::Value, i64) {
        let given = self.given().map(|(name, value, _)| (Key::from(name), value.clone()));
        let value = cel::Value::Map(Map { map: Arc::new(given.collect()) });
        (SHARED, value, self.given().map(|(.., steps)| steps).sum())
    }

    fn given(&self) -> impl Iterator<Item = (&str, &cel::Value, i64)> {
        self.shared
            .iter()
            .filter_map(|(name, given)| given.as_ref().map(|(value, steps)| (name.as_str(), value, *steps)))
    }
}

impl Expression {
    /// Parses an expression that may use these variables. It is evaluated on each of the samples, to find type errors
    /// as far as this is possible without a schema.
    ///
    /// # Errors
    /// Returns an error if the expression is invalid.
    pub fn parse(text: &str, wanted: Wanted, samples: &[Variables], budget: &Budget) -> Result<Self, CelError> {
        if text.len() > MAX_LENGTH {
            return Err(CelError::TooLong(text.len()));
        }
        if !budget.parse(text) {
            return Err(CelError::CostlyTogether);
        }
        let mut tree = parse(text)?;
        macros::expand(&mut tree);
        check::names(&tree, samples)?;
        let price = count::limit(&mut tree)?;
        let expression = Self { text: text.to_owned(), tree, price };
        check::types(&expression, wanted, samples, budget)?;
        Ok(expression)
    }

    /// Evaluates the expression. This stops after a maximum number of steps, or when the budget is spent.
    ///
    /// # Errors
    /// Returns why the expression has no result.
    pub fn evaluate(&self, variables: &Variables, budget: &Budget) -> Result<Outcome, String> {
        let failure = |error: Option<_>| error.map_or_else(|| "the evaluator failed".to_owned(), describe);
        let value = self.value(variables, budget).map_err(failure)?;
        Ok(match value {
            cel::Value::Bool(value) => Outcome::Bool(value),
            cel::Value::String(text) => Outcome::String(text.to_string()),
            other => Outcome::Other(Given(other)),
        })
    }

    /// Evaluates the expression; the error `None` is a panic in the evaluator.
    fn value(&self, variables: &Variables, budget: &Budget) -> Result<cel::Value, Option<ExecutionError>> {
        budget.charge(|| {
            self.pay(variables)?;
            catch_unwind(AssertUnwindSafe(|| self.resolve(variables))).map_err(|_| None)?.map_err(Some)
        })?
    }

    /// Takes the minimum cost of the evaluation from the budget.
    fn pay(&self, variables: &Variables) -> Result<(), ExecutionError> {
        variables.values.iter().for_each(|(name, _, steps)| budget::note(name.clone(), *steps));
        variables.given().for_each(|(name, _, steps)| budget::note(format!("{SHARED}.{name}"), steps));
        budget::note(SHARED.to_owned(), variables.given().map(|(.., steps)| steps).sum());
        let copies = self.price.copies.iter().map(|(name, times)| times.saturating_mul(budget::noted(name)));
        budget::step(copies.fold(self.price.steps, i64::saturating_add))
    }

    fn resolve(&self, variables: &Variables) -> Result<cel::Value, ExecutionError> {
        FUNCTIONS.with(|functions| {
            let mut scope = functions.new_inner_scope();
            let used = self.tree.references();
            for (name, value, steps) in variables.all().filter(|(name, ..)| used.has_variable(name)) {
                budget::step(steps)?;
                scope.add_variable_from_value(name, value);
            }
            cel::Value::resolve(&self.tree, &scope)
        })
    }
}

impl Outcome {
    /// Returns the result as a value for other expressions.
    #[must_use]
    pub fn into_given(self) -> Given {
        match self {
            Self::Bool(value) => Given(cel::Value::Bool(value)),
            Self::String(text) => Given(cel::Value::from(text)),
            Self::Other(given) => given,
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({})", self.text)
    }
}

thread_local! {
    /// The functions for expressions: those of CEL and those that Kubernetes adds.
    static FUNCTIONS: Context<'static> = {
        let mut context = Context::default().with_all();
        budget::register(&mut context);
        context
    };
}

fn from_json(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(value) => cel::Value::Bool(*value),
        // In CEL, a number in an object is an `int`, or a `double` if it has a fraction.
        Value::Number(number) => match number.as_i64() {
            Some(integer) => cel::Value::Int(integer),
            None => cel::Value::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => cel::Value::from(text.as_str()),
        Value::Array(items) => cel::Value::from(items.iter().map(from_json).collect::<Vec<_>>()),
        Value::Object(fields) => {
            let map = fields.iter().map(|(name, value)| (Key::from(name.as_str()), from_json(value))).collect();
            cel::Value::Map(Map { map: Arc::new(map) })
        }
    }
}

/// Formats an error for users, without values, which may be long or secret.
fn describe(error: ExecutionError) -> String {
    match error {
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            format!("`{operator}` cannot be applied to {} and {}", type_of(&left), type_of(&right))
        }
        ExecutionError::UnsupportedUnaryOperator(operator, value) => {
            format!("`{operator}` cannot be applied to {}", type_of(&value))
        }
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("{} cannot be compared with {}", type_of(&left), type_of(&right))
        }
        ExecutionError::NoSuchKey(name) | ExecutionError::UndeclaredReference(name) => {
            format!("`{name}` not found")
        }
        ExecutionError::NoSuchOverload => "no matching overload of an operator or function".to_owned(),
        ExecutionError::FunctionError { function, message } if function == budget::NAME => message,
        ExecutionError::FunctionError { function, message } => format!("{function}: {message}"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "division by zero".to_owned(),
        ExecutionError::Overflow(..) => "number out of range".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "list index out of range".to_owned(),
        other => {
            let text = other.to_string();
            text.split([':', '{']).next().unwrap_or_default().to_owned()
        }
    }
}

fn type_of(value: &cel::Value) -> &'static str {
    match value {
        cel::Value::List(_) => "a list",
        cel::Value::Map(_) => "a map",
        cel::Value::Int(_) => "an int",
        cel::Value::UInt(_) => "a uint",
        cel::Value::Float(_) => "a double",
        cel::Value::String(_) => "a string",
        cel::Value::Bytes(_) => "bytes",
        cel::Value::Bool(_) => "a bool",
        cel::Value::Null => "null",
        _ => "another type",
    }
}

/// Parses an expression, on its own stack.
fn parse(text: &str) -> Result<IdedExpr, CelError> {
    let parse = || {
        let tree = Parser::new().enable_optional_syntax(true).parse(text);
        let tree = tree.map_err(|errors| syntax(&errors))?;
        let depth = check::depth(&tree);
        if depth <= MAX_DEPTH { Ok(tree) } else { Err(CelError::TooDeep(depth)) }
    };
    let parsed = stacker::grow(PARSER_STACK, || catch_unwind(parse));
    parsed.unwrap_or_else(|_| Err(CelError::Syntax("the parser failed".to_owned())))
}

/// Returns the first of several errors, with its position: the others are consequences of it.
fn syntax(errors: &ParseErrors) -> CelError {
    let Some(first) = errors.errors.first() else { return CelError::Syntax("the parser failed".to_owned()) };
    let message = if first.msg.contains("Recursion limit") { "nested too deeply" } else { first.msg.as_str() };
    let message = message.split(" expecting ").next().unwrap_or_default();
    CelError::Syntax(format!("{message}, at line {} column {}", first.pos.0, first.pos.1.max(1)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn samples() -> Vec<Variables> {
        let mut variables = Variables::default();
        let labels = json!({"team": "search"});
        let containers = json!([{"name": "a", "image": "a:1", "ports": [{"containerPort": 8080}]}]);
        variables.add(
            "object",
            &json!({
                "metadata": {"name": "api", "labels": labels},
                "spec": {"replicas": 3, "template": {"spec": {"containers": containers}}}
            }),
        );
        variables.add("oldObject", &Value::Null);
        vec![variables]
    }

    fn parsed(text: &str, wanted: Wanted) -> Result<Expression, CelError> {
        Expression::parse(text, wanted, &samples(), &Budget::default())
    }

    fn given(text: &str) -> Result<Outcome, String> {
        let expression = parsed(text, Wanted::Any).unwrap_or_else(|error| panic!("{text}: {error}"));
        expression.evaluate(&samples()[0], &Budget::default())
    }

    #[test]
    fn conditions_are_evaluated() {
        for (text, expected) in [
            ("object.spec.replicas == 3", true),
            ("object.spec.replicas > 3", false),
            ("has(object.metadata.labels.team)", true),
            ("has(object.metadata.annotations)", false),
            ("object.spec.template.spec.containers.all(c, c.image.startsWith('a:'))", true),
            ("object.?metadata.?annotations[?'x'].orValue('none') == 'none'", true),
            ("object.?spec.?replicas.orValue(1) == 3 && object.?spec.?paused.hasValue() == false", true),
            ("object.metadata.?labels.?team.optMap(t, t + '!').orValue('') == 'search!'", true),
            ("object.metadata.?labels.?owner.optMap(t, t + '!').orValue('none') == 'none'", true),
            ("oldObject == null || object.spec.replicas >= oldObject.spec.replicas", true),
            ("quantity('1Gi').isGreaterThan(quantity('1G'))", true),
            ("sets.contains(['a', 'b'], ['a'])", true),
            ("url('https://example.com:8443/x').getPort() == '8443'", true),
            ("ip('10.0.0.1').family() == 4", true),
            ("cidr('10.0.0.0/8').containsIP('10.1.2.3')", true),
            ("semver('1.2.3').isLessThan(semver('1.10.0'))", true),
            ("'%s has %d'.format(['a', 2]) == 'a has 2'", true),
            ("'ABC'.lowerAscii() == 'abc'", true),
            ("['b', 'a'].isSorted()", false),
            ("'a-1'.matches('^[a-z]-[0-9]$')", true),
            ("'a1b22'.findAll('[0-9]+') == ['1', '22']", true),
            ("math.greatest(1, 2) == 2", true),
            ("object.metadata.labels.exists(k, k == 'team')", true),
            ("duration('1h') > duration('59m')", true),
            ("dyn(object.spec.replicas) == 3", true),
        ] {
            assert_eq!(given(text), Ok(Outcome::Bool(expected)), "{text}");
        }
    }

    #[test]
    fn rejects_invalid_expressions() {
        let error = |text: &str| parsed(text, Wanted::Bool).map(drop).unwrap_err().to_string();
        let deep = format!("{}true{}", "(".repeat(200), ")".repeat(200));
        let texts = [
            "",
            "object.spec.replicas >",
            "objet.spec.replicas > 1",
            "object.spec.replicas.isBig()",
            "object.spec.replicas + 'a' == 'b'",
            "object.spec.replicas",
            "object.metadata.name == 'a' ? 1 : 2",
            "object.metadata.name.size() + 1",
            "Object{a: 1} == null",
            &deep,
        ];
        insta::assert_snapshot!(
            texts.map(|text| { format!("{}: {}", text.chars().take(50).collect::<String>(), error(text)) }).join("\n")
        );
        assert!(error(&"1 + ".repeat(2000)).contains("must be at most 4096"));
    }

    #[test]
    fn errors_contain_no_values() {
        let mut variables = Variables::default();
        variables.add("object", &json!({"metadata": {"name": "secret", "labels": {}}}));
        let error = |text: &str| {
            let expression = parsed(text, Wanted::Any).unwrap();
            expression.evaluate(&variables, &Budget::default()).unwrap_err()
        };
        assert_eq!(error("object.metadata.labels.team == 'a'"), "`team` not found");
        assert_eq!(error("object.metadata.labels.team + 'a' == 'b'"), "`team` not found");
        assert_eq!(error("1 / (object.metadata.name.size() - 6) == 1"), "division by zero");
        assert_eq!(error("object.metadata.name.split('')[9] == 'a'"), "list index out of range");
    }
}
