//! Custom rules of a policy, written as CEL expressions.

use std::cell::{OnceCell, RefCell};
use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value, json};

use super::{Builtin, Context, Finding, Rule};
use crate::api;
use crate::cel::{Budget, CelError, Expression, Outcome, Variables, Wanted};
use crate::facts::User;
use crate::kind::Kind;
use crate::workload::{Workload, completed};

/// The most variables that a rule may have.
const MAX_VARIABLES: usize = 32;

/// A custom rule.
#[derive(Clone, Debug)]
pub struct CustomRule {
    id: String,
    field: String,
    variables: Arc<[(String, Expression)]>,
    expression: Arc<Expression>,
    message: Option<String>,
    message_expression: Option<Arc<Expression>>,
    params: Value,
}

/// Why a custom rule cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CustomRuleError {
    /// A built-in rule has the same id.
    #[error("a built-in rule has the same id")]
    BuiltIn,
    /// The name of a variable is invalid or declared twice.
    #[error("variables: `{0}` is not a valid name or is declared twice")]
    Name(String),
    /// There are too many variables.
    #[error("variables: at most {MAX_VARIABLES} are allowed")]
    TooMany,
    /// The rule has no message.
    #[error("message or messageExpression is required")]
    NoMessage,
    /// An expression is invalid.
    #[error("{field}: {source}")]
    Expression {
        /// Which.
        field: String,
        /// Why.
        source: CelError,
    },
}

impl CustomRule {
    /// Compiles a rule, within a budget that all rules of its policy share.
    ///
    /// # Errors
    /// Returns an error with the invalid field and the reason.
    pub fn compile(written: &api::CustomRule, builtin: &Builtin, budget: &Budget) -> Result<Self, CustomRuleError> {
        if builtin.rule(&written.id).is_some() {
            return Err(CustomRuleError::BuiltIn);
        }
        if written.message.is_none() && written.message_expression.is_none() {
            return Err(CustomRuleError::NoMessage);
        }
        let params = written.params.clone().map_or(Value::Null, Value::Object);
        let mut samples: Vec<Variables> = SAMPLES.iter().map(|sample| with_params(given(sample), &params)).collect();
        let variables = compiled(&written.variables, &mut samples, budget)?;
        let parsed = |field: &str, text: &str, wanted: Wanted| {
            let failed = |source| CustomRuleError::Expression { field: field.to_owned(), source };
            Expression::parse(text, wanted, &samples, budget).map(Arc::new).map_err(failed)
        };
        let of_message = written.message_expression.as_deref();
        Ok(Self {
            id: written.id.clone(),
            field: written.field.clone().unwrap_or_else(|| "spec".to_owned()),
            expression: parsed("expression", &written.expression, Wanted::Bool)?,
            message_expression: of_message.map(|text| parsed("messageExpression", text, Wanted::String)).transpose()?,
            message: written.message.clone(),
            variables: variables.into(),
            params,
        })
    }

    /// Returns a message if the rule is violated. It returns `None` if the budget runs out on the way.
    fn evaluate(&self, mut variables: Variables, budget: &Budget) -> Option<String> {
        let problems = share(&self.variables, &mut variables, budget);
        match self.expression.evaluate(&variables, budget) {
            Ok(Outcome::Bool(true)) => None,
            Ok(Outcome::Bool(false)) => Some(self.message(&variables, budget)),
            Ok(_) => Some("the expression does not return a bool".to_owned()),
            Err(_) if budget.is_spent() => None,
            Err(problem) => {
                let because = problems.first().map(|problem| format!(" ({problem})")).unwrap_or_default();
                Some(format!("the expression cannot be evaluated: {problem}{because}"))
            }
        }
    }

    fn message(&self, variables: &Variables, budget: &Budget) -> String {
        let evaluated = self.message_expression.as_ref().map(|expression| expression.evaluate(variables, budget));
        match evaluated {
            // Kubernetes' own policies ignore an empty message, and one of several lines; here, the lines are joined.
            Some(Ok(Outcome::String(text))) if !text.trim().is_empty() => text.lines().collect::<Vec<_>>().join(" "),
            _ => self.message.clone().unwrap_or_else(|| "the expression is false".to_owned()),
        }
    }
}

/// The budget ran out before a rule was evaluated.
struct Spent;

/// The cost of evaluating the custom rules of all policies for one request.
#[derive(Debug, Default)]
pub struct Costs {
    budget: Budget,
    /// The number of steps that each rule took, in the order of evaluation.
    of_rules: RefCell<Vec<(String, i64)>>,
}

impl Costs {
    /// Evaluates a rule with the remaining budget, and returns a message if it is violated.
    fn charge(&self, rule: &CustomRule, variables: Variables) -> Result<Option<String>, Spent> {
        let before = self.budget.spent();
        let found = rule.evaluate(variables, &self.budget);
        self.of_rules.borrow_mut().push((rule.id.clone(), self.budget.spent() - before));
        if found.is_none() && self.budget.is_spent() { Err(Spent) } else { Ok(found) }
    }

    /// Returns why rules were not evaluated: the limit, and the rule that used most of it.
    fn summary(&self) -> String {
        let of_rules = self.of_rules.borrow();
        let most = Budget::STEPS;
        // The first of several equal ones, so that the result is deterministic.
        let costliest = of_rules.iter().reduce(|costliest, next| if next.1 > costliest.1 { next } else { costliest });
        let costliest = costliest.map(|(rule, steps)| format!(", of which `{rule}` took {steps}")).unwrap_or_default();
        format!("not evaluated: the custom rules used up the {most} steps allowed for one request{costliest}")
    }
}

/// The input of custom rules for one state of a workload, with the cost that they share.
#[derive(Debug)]
pub struct Expressions<'a> {
    costs: &'a Costs,
    /// The variables that they read: created once, and only if there are custom rules.
    given: OnceCell<Variables>,
}

impl<'a> Expressions<'a> {
    /// Creates an empty input that adds to these costs.
    #[must_use]
    pub fn new(costs: &'a Costs) -> Self {
        Self { costs, given: OnceCell::new() }
    }

    /// Returns the same for the state of the workload before an update, at the same costs.
    #[must_use]
    pub fn before(&self) -> Self {
        let before = |given: &Variables| {
            let mut given = given.clone();
            given.take("object", "oldObject");
            given
        };
        Self { costs: self.costs, given: self.given.get().map(before).map(OnceCell::from).unwrap_or_default() }
    }
}

/// Compiles variables in order, and adds their values to the samples.
fn compiled(
    written: &[api::CustomVariable],
    samples: &mut [Variables],
    budget: &Budget,
) -> Result<Vec<(String, Expression)>, CustomRuleError> {
    if written.len() > MAX_VARIABLES {
        return Err(CustomRuleError::TooMany);
    }
    let mut variables: Vec<(String, Expression)> = Vec::new();
    for api::CustomVariable { name, expression } in written {
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name || variables.iter().any(|(known, _)| known == name) {
            return Err(CustomRuleError::Name(name.clone()));
        }
        let failed = |source| CustomRuleError::Expression { field: format!("variables.{name}"), source };
        let parsed = Expression::parse(expression, Wanted::Any, samples, budget).map_err(failed)?;
        let variable = [(name.clone(), parsed)];
        for sample in &mut *samples {
            share(&variable, sample, budget);
        }
        variables.extend(variable);
    }
    Ok(variables)
}

/// Evaluates variables and adds them to those that expressions can use. Returns the errors; they matter only if the
/// variable is used.
fn share(variables: &[(String, Expression)], given: &mut Variables, budget: &Budget) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, expression) in variables {
        let outcome = expression.evaluate(given, budget);
        problems.extend(outcome.as_ref().err().map(|problem| format!("variables.{name}: {problem}")));
        given.share(name, outcome.ok().map(Outcome::into_given));
    }
    problems
}

impl Rule for CustomRule {
    fn id(&self) -> &str {
        &self.id
    }

    fn with_params(&self, params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
        Ok(Arc::new(Self { params: Value::Object(params.clone()), ..self.clone() }))
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Expressions { costs, given } = context.expressions;
        let variables = given.get_or_init(|| self::given(&asked(context))).clone();
        let finding = Finding::at(&self.field);
        match costs.charge(self, with_params(variables, &self.params)) {
            Ok(None) => Vec::new(),
            Ok(Some(found)) => vec![finding.found(found).expected(format!("`{}`", self.expression))],
            Err(Spent) => vec![finding.found(costs.summary()).expected(CHEAPER).not_evaluated()],
        }
    }
}

/// How to fix rules that cost too much.
const CHEAPER: &str = "custom rules that take fewer steps (fewer nested loops), or shorter lists in the workload";

/// The variables of a request that expressions can use.
struct Asked {
    object: Value,
    old_object: Value,
    request: Value,
    namespace: Value,
}

fn asked(context: &Context) -> Asked {
    let workload = &context.workload;
    let namespace = context.facts.namespaces.get(workload.namespace());
    let old_object = context.old.as_ref().map(as_sent);
    Asked {
        object: as_sent(workload),
        request: request(workload, if context.is_new { "CREATE" } else { "UPDATE" }, context.user),
        old_object: old_object.unwrap_or_default(),
        namespace: namespace
            .map_or(Value::Null, |found| json!({"metadata": {"name": workload.namespace(), "labels": found.labels}})),
    }
}

/// Returns a workload as the API server sends it, with default values that a file does not have.
fn as_sent(workload: &Workload) -> Value {
    completed(workload.to_json())
}

fn request(workload: &Workload, operation: &str, user: User) -> Value {
    let Kind { group, version, kind, plural, .. } = workload.known_kind();
    json!({
        "operation": operation,
        "name": workload.name(),
        "namespace": workload.namespace(),
        "kind": {"group": group, "version": version, "kind": kind},
        "resource": {"group": group, "version": version, "resource": plural},
        "userInfo": {"username": user.name, "groups": user.groups}
    })
}

fn given(asked: &Asked) -> Variables {
    let mut variables = Variables::default();
    variables.add("object", &asked.object);
    variables.add("oldObject", &asked.old_object);
    variables.add("request", &asked.request);
    variables.add("namespaceObject", &asked.namespace);
    variables
}

fn with_params(mut variables: Variables, params: &Value) -> Variables {
    variables.add("params", params);
    variables
}

/// Sample workloads that expressions are tried on when they are compiled: one with many fields, one with few. Fields of
/// varying type (a port by number or name) are left out.
static SAMPLES: LazyLock<[Asked; 2]> = LazyLock::new(|| {
    let container = json!({
        "name": "server", "image": "registry.example.com/server:1", "command": ["serve"], "args": ["--port", "8080"],
        "env": [{"name": "LOG", "value": "info"}],
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"cpu": "500m", "memory": "500Mi"}},
        "securityContext": {"privileged": false, "runAsNonRoot": true, "runAsUser": 1000},
        "imagePullPolicy": "IfNotPresent"
    });
    let labels = json!({"app.kubernetes.io/component": "model-server", "app": "sample"});
    let full = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "sample", "namespace": "default", "labels": labels, "annotations": {"sample": "sample"}},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "sample"}}, "progressDeadlineSeconds": 600,
            "template": {
                "metadata": {"labels": labels, "annotations": {"sample": "sample"}},
                "spec": {
                    "containers": [container], "initContainers": [container], "serviceAccountName": "default",
                    "volumes": [{"name": "models", "emptyDir": {}}], "terminationGracePeriodSeconds": 30,
                    "nodeSelector": {"sample": "sample"}, "hostNetwork": false, "restartPolicy": "Always"
                }
            }
        }
    });
    let bare = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "sample", "namespace": "default"},
        "spec": {"template": {"spec": {"containers": [{"name": "server", "image": "server:1"}]}}}
    });
    let sample = |object: &Value, old_object: &Value, operation: &str| {
        let request = Workload::view(object)
            .map(|workload| request(&workload, operation, User { name: "sample", groups: &["sample".into()] }));
        Asked {
            object: object.clone(),
            old_object: old_object.clone(),
            request: request.unwrap_or_default(),
            namespace: json!({"metadata": {"name": "default", "labels": {"sample": "sample"}}}),
        }
    };
    [sample(&full, &full, "UPDATE"), sample(&bare, &Value::Null, "CREATE")]
});

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::BUILTIN;
    use crate::decision::{Operation, Request, Verdict, Violation, decide};
    use crate::testing::{self, facts, policies, with_container};

    fn rule(written: &Value) -> Result<CustomRule, CustomRuleError> {
        CustomRule::compile(&serde_json::from_value(written.clone()).unwrap(), &BUILTIN, &Budget::default())
    }

    /// Returns the violations of custom rules by a Deployment with one container.
    fn refused(rules: &Value, more: &Value) -> Vec<String> {
        let mut spec = json!({"customRules": rules, "resources": {"cpu": {"limits": {"memory": "1Gi"}}}});
        json_patch::merge(&mut spec, more);
        let object = with_container(&json!({}));
        let (workload, now) = (Workload::view(&object).unwrap(), Timestamp::UNIX_EPOCH);
        let request = Request { user: User::named("jane"), ..Request::new(Operation::Create, workload, now) };
        let verdict = decide(&request, &policies(&[("serving", spec)]), &facts()).verdict;
        let violations = verdict.violations.iter().map(ToString::to_string);
        violations.chain(verdict.warnings.iter().map(ToString::to_string)).collect()
    }

    #[test]
    fn reports_the_message_of_a_rule() {
        let team = json!({"id": "missing-team-label", "expression": "has(object.metadata.labels.team)",
            "message": "every model server names its team", "field": "metadata.labels.team"});
        insta::assert_snapshot!(refused(&json!([team]), &json!({})).join("\n"), @"missing-team-label: metadata.labels.team: every model server names its team; expected `has(object.metadata.labels.team)`");
        let off = json!({"rules": {"missing-team-label": {"enforcement": "off"}}});
        assert_eq!(refused(&json!([team]), &off), [""; 0]);
        let warn = json!({"rules": {"missing-team-label": {"enforcement": "warn"}}});
        assert_eq!(refused(&json!([team]), &warn).len(), 1);
    }

    #[test]
    fn exposes_the_injected_workload_and_all_variables() {
        let rules = json!([{"id": "all", "message": "no",
            "variables": [
                {"name": "first", "expression": "object.spec.template.spec.containers[0]"},
                {"name": "memory", "expression": "variables.first.resources.limits.memory"},
                {"name": "missing", "expression": "object.metadata.annotations['a']"}
            ],
            "expression": "quantity(variables.memory).compareTo(quantity(params.most)) == 0 && oldObject == null \
                && request.operation == 'CREATE' && request.userInfo.username == 'jane' && !('admins' in request.userInfo.groups) \
                && request.resource.resource == 'deployments' && namespaceObject.metadata.name == 'ml'",
            "params": {"most": "1024Mi"}}]);
        assert_eq!(refused(&rules, &json!({})), [""; 0]);
        let other = json!({"rules": {"all": {"params": {"most": "2Gi"}}}});
        assert_eq!(refused(&rules, &other).len(), 1);
    }

    #[test]
    fn builds_messages_and_reports_evaluation_errors() {
        let rules = json!([
            {"id": "made", "expression": "object.metadata.name == 'other'",
                "messageExpression": "'%s is not other'.format([object.metadata.name])"},
            {"id": "failing", "expression": "object.metadata.annotations.team == 'a'", "message": "unused"},
            {"id": "of-a-variable", "variables": [{"name": "team", "expression": "object.metadata.annotations.team"}],
                "expression": "variables.team == 'a'", "message": "unused"},
            {"id": "without", "expression": "object.metadata.name == 'other'", "message": "fallback",
                "messageExpression": "object.metadata.annotations.team"}
        ]);
        insta::assert_snapshot!(refused(&rules, &json!({})).join("\n"), @"
        made: spec: api is not other; expected `object.metadata.name == 'other'`
        failing: spec: the expression cannot be evaluated: `annotations` not found; expected `object.metadata.annotations.team == 'a'`
        of-a-variable: spec: the expression cannot be evaluated: `team` not found (variables.team: `annotations` not found); expected `variables.team == 'a'`
        without: spec: fallback; expected `object.metadata.name == 'other'`
        ");
    }

    /// Rules that are always true, at a cost that grows with the number of arguments.
    fn costly(rules: usize) -> Value {
        let expression = "variables.args.all(a, variables.args.all(b, variables.args.all(c, a + b + c != '')))";
        let args = "object.spec.template.spec.containers[0].args";
        let of = |rule: usize| {
            json!({"id": format!("costly-{rule}"), "message": "unused", "expression": expression,
                "variables": [{"name": "args", "expression": args}]})
        };
        (0..rules).map(of).collect()
    }

    /// Evaluates a Deployment with so many arguments, and optionally a team, that had `before` as its state.
    fn evaluated(rules: &Value, (args, team): (usize, bool), before: Option<(usize, bool)>) -> Verdict {
        let off = json!({"enforcement": "off"});
        let object = |(args, team): (usize, bool)| {
            let args: Vec<String> = (0..args).map(|arg| format!("--a{arg}")).collect();
            let mut object = with_container(&json!({"args": args}));
            json_patch::merge(&mut object, &json!({"metadata": {"labels": {"team": team.then_some("search")}}}));
            object
        };
        let (new, old) = (object((args, team)), before.map(object));
        let old = old.as_ref().map(|old| Workload::view(old).unwrap());
        let operation = if old.is_some() { Operation::Update } else { Operation::Create };
        let (workload, now) = (Workload::view(&new).unwrap(), Timestamp::UNIX_EPOCH);
        let request = Request { operation, workload, old, user: User::named("jane"), now };
        let spec =
            json!({"customRules": rules, "rules": {"missing-memory-limit": off, "costly-29": {"enforcement": "warn"}}});
        decide(&request, &policies(&[("serving", spec)]), &facts()).verdict
    }

    #[test]
    fn rules_share_the_budget_of_a_request() {
        let verdict = evaluated(&costly(60), (30, true), None);
        let (refused, warned) = (verdict.violations, verdict.warned);
        let not_evaluated = |found: &Violation| found.finding.found.starts_with("not evaluated: ");
        assert!(refused.iter().chain(&warned).all(not_evaluated));
        assert!((30..59).contains(&refused.len()), "{} of 60 were not evaluated", refused.len());
        assert_eq!(warned.iter().map(|found| &*found.rule).collect::<Vec<_>>(), ["costly-29"], "as strict as the rule");
        let Finding { found, expected, .. } = &refused[0].finding;
        let prefix = "not evaluated: the custom rules used up the 5000000 steps allowed for one request, of which \
                      `costly-0` took ";
        assert!(found.starts_with(prefix), "{found}");
        assert_eq!(expected, CHEAPER);
    }

    #[test]
    fn refuses_rules_that_were_not_evaluated_on_update() {
        let team = json!({"id": "team", "expression": "has(object.metadata.labels.team)", "message": "no team"});
        let mut rules = costly(30);
        rules.as_array_mut().unwrap().push(team);
        let refused = |new: (usize, bool), old: (usize, bool)| {
            let violations = evaluated(&rules, new, Some(old)).violations;
            violations.into_iter().map(|found| found.rule).collect::<Vec<_>>()
        };
        assert_eq!(refused((2, false), (2, true)), ["team"]);
        assert_eq!(refused((2, false), (2, false)), [""; 0], "it was violated before");
        assert_eq!(
            refused((2, false), (30, false)),
            [""; 0],
            "only rules with findings are evaluated on the old state"
        );
        let not_evaluated = refused((30, false), (30, false));
        assert!(
            not_evaluated.contains(&"team".to_owned()) && not_evaluated.contains(&"costly-28".to_owned()),
            "{not_evaluated:?}"
        );
    }

    #[test]
    fn rules_share_the_budget_of_compiling_a_policy() {
        let list = format!("[{}]", (0..30).map(|item| item.to_string()).collect::<Vec<_>>().join(","));
        let expression = format!("{list}.all(a, {list}.all(b, {list}.all(c, a + b + c >= 0)))");
        let rule = |id: usize| json!({"id": format!("r{id}"), "expression": expression, "message": "m"});
        let compiled = |rules: usize| {
            let rules: Vec<Value> = (0..rules).map(rule).collect();
            let policy = testing::policy("serving", &json!({"customRules": rules}));
            crate::policy::Policy::compile(&policy, &BUILTIN).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(compiled(1), Ok(()));
        let error = compiled(100).unwrap_err();
        let problem =
            "the policy's expressions together take more than 5000000 steps to parse and to try on a small workload";
        assert!(error.ends_with(problem), "{error}");
    }

    #[test]
    fn errors_name_the_field() {
        let error = |more: Value| {
            let mut written = json!({"id": "a-rule", "expression": "true", "message": "m"});
            json_patch::merge(&mut written, &more);
            rule(&written).map(drop).unwrap_err().to_string()
        };
        let variable = |name: &str, expression: &str| json!({"variables": [{"name": name, "expression": expression}]});
        let problems = [
            error(json!({"id": "floating-tag"})),
            error(json!({"message": null})),
            error(json!({"expression": "object.metadata.name"})),
            error(json!({"expression": "objects.metadata.name == 'a'"})),
            error(json!({"expression": "variables.a == 1 +"})),
            error(json!({"expression": "object.spec.replicas > '1'"})),
            error(json!({"messageExpression": "object.spec.replicas"})),
            error(variable("a-b", "1")),
            error(variable("a", "variable.b")),
            error(variable("a", "variables.a + 1")),
            error(json!({"expression": "variables.team == 'a'"})),
        ];
        insta::assert_snapshot!(problems.join("\n"), @"
        a built-in rule has the same id
        message or messageExpression is required
        expression: must return a bool, not a string
        expression: unknown variable `objects`; the variables are object, oldObject, request, namespaceObject, params, variables
        expression: cannot be parsed: Syntax error: mismatched input '<EOF>', at line 1 column 19
        expression: type error: no matching overload of an operator or function
        messageExpression: must return a string, not an int
        variables: `a-b` is not a valid name or is declared twice
        variables.a: unknown variable `variable`; the variables are object, oldObject, request, namespaceObject, params, variables
        variables.a: unknown variable `variables.a`; variables must be declared before they are used
        expression: unknown variable `variables.team`; variables must be declared before they are used
        ");
        assert!(rule(&json!({"id": "a", "expression": "true", "message": "m"})).is_ok());
    }
}
