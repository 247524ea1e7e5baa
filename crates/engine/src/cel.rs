//! Expressions in CEL, the language of Kubernetes' own `ValidatingAdmissionPolicy`. All that is known of the crates that
//! evaluate it stays in here.
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

/// The longest text of an expression, in bytes.
const MAX_LENGTH: usize = 4096;

/// How deep an expression may be nested.
const MAX_DEPTH: usize = 64;

/// The stack that the parser gets: it goes deep into what is nested before it can be told how deep that is.
const PARSER_STACK: usize = 256 << 20;

/// An expression that can be evaluated.
pub struct Expression {
    text: String,
    tree: IdedExpr,
    price: Price,
}

/// What an expression gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A condition.
    Bool(bool),
    /// A text.
    String(String),
    /// Something else, for other expressions to use.
    Other(Given),
}

/// A value that expressions use.
#[derive(Clone, Debug, PartialEq)]
pub struct Given(cel::Value);

/// Why an expression cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CelError {
    /// It is longer than is taken.
    #[error("the expression has {0} characters; the most is {MAX_LENGTH}")]
    TooLong(usize),
    /// It is nested deeper than is taken.
    #[error("the expression is nested {0} deep; the most is {MAX_DEPTH}")]
    TooDeep(usize),
    /// It is not CEL.
    #[error("it cannot be read: {0}")]
    Syntax(String),
    /// It has something that is not taken.
    #[error("{0}")]
    NotTaken(String),
    /// It costs too much, however little there is in a workload.
    #[error("it costs too much on a small workload: {0}")]
    Costly(String),
    /// It and those before it cost too much together.
    #[error(
        "the policy's expressions take more than {} steps together to read, and to try on a small workload",
        Budget::STEPS
    )]
    CostlyTogether,
    /// It names something that is not there.
    #[error("there is no {what} `{name}`; {known}")]
    Unknown {
        /// `variable` or `function`.
        what: &'static str,
        /// What was written.
        name: String,
        /// What there is.
        known: String,
    },
    /// Its parts do not go together.
    #[error("its types do not go together: {0}")]
    Types(String),
    /// It gives something else than is asked for.
    #[error("it gives {given}, not a {wanted}")]
    Gives {
        /// What it gives.
        given: &'static str,
        /// What it should.
        wanted: &'static str,
    },
}

/// What an expression is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A condition.
    Bool,
    /// A text.
    String,
    /// Anything.
    Any,
}

/// Named values that expressions can use, each with the steps that it takes to copy it.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    values: Vec<(String, cel::Value, i64)>,
    shared: BTreeMap<String, Option<(cel::Value, i64)>>,
}

/// The variable whose fields are what other expressions gave.
const SHARED: &str = "variables";

impl Variables {
    /// Adds a value as JSON has it.
    pub fn add(&mut self, name: &str, value: &Value) {
        let value = from_json(value);
        let steps = Size::of(&value).to_copy();
        self.values.push((name.to_owned(), value, steps));
    }

    /// Adds what an expression gave, as `variables.<name>`; none where it gave nothing, which is an error only for whom it
    /// matters to.
    pub fn share(&mut self, name: &str, given: Option<Given>) {
        let sized = |Given(value): Given| {
            let steps = Size::of(&value).to_copy();
            (value, steps)
        };
        self.shared.insert(name.to_owned(), given.map(sized));
    }

    /// Gives a variable the value of another one, which is null from then on.
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

    /// Returns every value with its name, and what it costs to copy it.
    fn all(&self) -> impl Iterator<Item = (&str, cel::Value, i64)> {
        let values = self.values.iter().map(|(name, value, steps)| (name.as_str(), value.clone(), *steps));
        values.chain(std::iter::once_with(|| self.as_one()))
    }

    /// Returns what other expressions gave, as one value.
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
    /// Reads an expression that may use these variables. It is tried on each of the samples, so that types that do not go
    /// together are found as far as they can be without a schema.
    ///
    /// # Errors
    /// Says what is wrong with it.
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

    /// Evaluates the expression. It is given up after a bounded number of steps, and when there is none left in the budget.
    ///
    /// # Errors
    /// Says why it gives nothing.
    pub fn evaluate(&self, variables: &Variables, budget: &Budget) -> Result<Outcome, String> {
        let value =
            self.value(variables, budget).map_err(|error| error.map_or_else(|| "it failed".to_owned(), told))?;
        Ok(match value {
            cel::Value::Bool(value) => Outcome::Bool(value),
            cel::Value::String(text) => Outcome::String(text.to_string()),
            other => Outcome::Other(Given(other)),
        })
    }

    /// Evaluates the expression; an error of none is a fault in the evaluator.
    fn value(&self, variables: &Variables, budget: &Budget) -> Result<cel::Value, Option<ExecutionError>> {
        budget.charge(|| {
            self.pay(variables)?;
            catch_unwind(AssertUnwindSafe(|| self.resolve(variables))).map_err(|_| None)?.map_err(Some)
        })?
    }

    /// Takes what the evaluation costs at least.
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
    /// Returns the outcome as a value for other expressions.
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
    /// The functions that expressions can use: those of CEL and those that Kubernetes adds.
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
        // CEL's numbers in objects are `int`, or `double` where they have a fraction.
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

/// Writes an error for people: without the values, which may be long or secret.
fn told(error: ExecutionError) -> String {
    match error {
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            format!("`{operator}` does not go with {} and {}", type_of(&left), type_of(&right))
        }
        ExecutionError::UnsupportedUnaryOperator(operator, value) => {
            format!("`{operator}` does not go with {}", type_of(&value))
        }
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("{} cannot be compared with {}", type_of(&left), type_of(&right))
        }
        ExecutionError::NoSuchKey(name) | ExecutionError::UndeclaredReference(name) => {
            format!("there is no `{name}`")
        }
        ExecutionError::NoSuchOverload => "an operator or function does not go with what it is given".to_owned(),
        ExecutionError::FunctionError { function, message } if function == budget::NAME => message,
        ExecutionError::FunctionError { function, message } => format!("{function}: {message}"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "a division by zero".to_owned(),
        ExecutionError::Overflow(..) => "a number is too large".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "a list has no such place".to_owned(),
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

/// Parses an expression, on a stack of its own.
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

/// Tells the first of several errors, and where it is: the others follow from it.
fn syntax(errors: &ParseErrors) -> CelError {
    let Some(first) = errors.errors.first() else { return CelError::Syntax("the parser failed".to_owned()) };
    let message = if first.msg.contains("Recursion limit") { "it is nested too deep" } else { first.msg.as_str() };
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
    fn what_makes_no_sense_is_told_before_it_is_used() {
        let told = |text: &str| parsed(text, Wanted::Bool).map(drop).unwrap_err().to_string();
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
            texts.map(|text| { format!("{}: {}", text.chars().take(50).collect::<String>(), told(text)) }).join("\n")
        );
        assert!(told(&"1 + ".repeat(2000)).contains("the most is 4096"));
    }

    #[test]
    fn what_cannot_be_evaluated_is_told_without_its_values() {
        let mut variables = Variables::default();
        variables.add("object", &json!({"metadata": {"name": "secret", "labels": {}}}));
        let told = |text: &str| {
            let expression = parsed(text, Wanted::Any).unwrap();
            expression.evaluate(&variables, &Budget::default()).unwrap_err()
        };
        assert_eq!(told("object.metadata.labels.team == 'a'"), "there is no `team`");
        assert_eq!(told("object.metadata.labels.team + 'a' == 'b'"), "there is no `team`");
        assert_eq!(told("1 / (object.metadata.name.size() - 6) == 1"), "a division by zero");
        assert_eq!(told("object.metadata.name.split('')[9] == 'a'"), "a list has no such place");
    }
}
