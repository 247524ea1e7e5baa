//! Turns findings into a verdict: refused, warned of, recorded or exempted. An update is not refused for a violation
//! that existed before, or that an earlier revision of the template was admitted with; it is only warned of.

use std::fmt;

use k8s_openapi::jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::subject::Subject;
use crate::api::Enforcement;
use crate::kind;
use crate::policy::{ActiveRule, Context, Exception, Finding, Rule};
use crate::runtimes::Recognition;
use crate::workload::Workload;

/// A finding of a rule, with its enforcement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The rule's id.
    pub rule: String,
    /// The policy with the strictest enforcement of the rule.
    pub policy: String,
    /// The enforcement.
    pub enforcement: Enforcement,
    /// The finding.
    #[serde(flatten)]
    pub finding: Finding,
}

/// The result of the rules for a workload.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Violations that the workload is refused for.
    pub violations: Vec<Violation>,
    /// Violations that are only warned of: by their enforcement, or because they existed before the update.
    pub warned: Vec<Violation>,
    /// Violations that are only recorded: their enforcement is `audit`.
    pub recorded: Vec<Violation>,
    /// Violations that an exception exempts the workload from.
    pub exempted: Vec<Exempted>,
    /// Violations of the template to which the update rolls back; they are warned of, too.
    pub rolled_back: Vec<Violation>,
    /// Warnings for the user, in the order of the rules.
    pub warnings: Vec<Warning>,
}

/// A violation that an exception exempts the workload from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exempted {
    /// The violation.
    #[serde(flatten)]
    pub violation: Violation,
    /// The exception's name, in the workload's namespace.
    pub exception: String,
    /// The reason of the exception.
    pub reason: String,
    /// When the exception ends.
    #[serde(serialize_with = "serialize_time")]
    pub until: Timestamp,
}

fn serialize_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// A warning for the user who applies a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A violation of a rule that only warns.
    Violation(Violation),
    /// A violation that existed before the update.
    Existing(Violation),
    /// A violation of the template to which the update rolls back, and the name of its revision.
    RolledBack(Violation, String),
    /// A violation that an exception exempts the workload from.
    Exempted(Exempted),
}

impl Verdict {
    /// Returns whether the workload is allowed.
    #[must_use]
    pub fn allows(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Checks a workload; `old` is its stored state, for an update, and `rollback` the name of the admitted revision whose
/// template it has.
pub(super) fn check(context: &Context, old: Option<&Subject>, rollback: Option<&str>) -> Verdict {
    let mut verdict = Verdict::default();
    let found = violations(context, |_| true);
    if found.is_empty() {
        return verdict;
    }
    let before = old.map(|old| violations_before(context, old, &found)).unwrap_or_default();
    let exceptions: Vec<&Exception> = context.policies.exceptions_for(&context.workload).collect();
    for violation in found {
        if let Some(exempted) = exempted(&violation, &exceptions, context) {
            // Users are not warned of violations that are only recorded.
            if violation.enforcement > Enforcement::Audit {
                verdict.warnings.push(Warning::Exempted(exempted.clone()));
            }
            verdict.exempted.push(exempted);
            continue;
        }
        let existing = !violation.finding.not_evaluated && before.iter().any(|old| old.is_same(&violation));
        match violation.enforcement {
            Enforcement::Enforce if existing => {
                verdict.warnings.push(Warning::Existing(violation.clone()));
                verdict.warned.push(violation);
            }
            Enforcement::Enforce => match rollback.filter(|_| is_in_template(&violation, context)) {
                Some(revision) => {
                    verdict.warnings.push(Warning::RolledBack(violation.clone(), revision.to_owned()));
                    verdict.rolled_back.push(violation.clone());
                    verdict.warned.push(violation);
                }
                None => verdict.violations.push(violation),
            },
            Enforcement::Warn => {
                verdict.warnings.push(Warning::Violation(violation.clone()));
                verdict.warned.push(violation);
            }
            Enforcement::Audit => verdict.recorded.push(violation),
            Enforcement::Off => {}
        }
    }
    verdict
}

/// Returns whether a violation is in a pod template.
fn is_in_template(violation: &Violation, context: &Context) -> bool {
    let mut templates = context.workload.known_kind().templates.iter().map(|template| kind::place(template));
    templates.any(|template| violation.finding.place.starts_with(&template))
}

/// Returns the violations of the stored workload. Only rules with a finding are run, to save the cost of the
/// expressions of the others.
fn violations_before(context: &Context, old: &Subject, found: &[Violation]) -> Vec<Violation> {
    let workload = old.workload;
    let before = Context {
        is_new: false,
        workload,
        old: None,
        recognised: &old.recognition(context.effective).view(&workload),
        prior: old.prior(),
        ownership: &old.ownership,
        expressions: &context.expressions.before(),
        ..*context
    };
    violations(&before, |rule| found.iter().any(|violation| violation.rule == rule))
}

/// Returns the exemption from a violation, if an exception grants one.
fn exempted(violation: &Violation, exceptions: &[&Exception], context: &Context) -> Option<Exempted> {
    let limits = context.effective.exceptions();
    let exception = exceptions.iter().find(|exception| exception.exempts(&violation.rule, context.now, limits))?;
    Some(Exempted {
        violation: violation.clone(),
        exception: exception.name.clone(),
        reason: exception.reason.clone(),
        until: exception.until(limits),
    })
}

/// Returns the violations of the selected rules. If several policies find the same, the strictest enforcement counts.
fn violations(context: &Context, is_selected: impl Fn(&str) -> bool) -> Vec<Violation> {
    let mut violations: Vec<Violation> = Vec::new();
    let applies = |active: &&ActiveRule| active.rule.concerns() == context.membership && is_selected(active.rule.id());
    let others: Vec<(Workload, Recognition)> = context
        .workload
        .other_templates()
        .map(|other| (other, context.effective.runtimes().recognise(&other)))
        .collect();
    let of_others = |rule: &dyn Rule| -> Vec<Finding> {
        let check = |(workload, recognition): &(Workload, Recognition)| {
            rule.check(&Context { workload: *workload, recognised: &recognition.view(workload), ..*context })
        };
        others.iter().filter(|_| rule.is_about_pods()).flat_map(check).collect()
    };
    for ActiveRule { rule, enforcement, policy } in context.effective.rules().iter().filter(applies) {
        for finding in rule.check(context).into_iter().chain(of_others(&**rule)) {
            let (rule, policy) = (rule.id().to_owned(), policy.to_string());
            let violation = Violation { rule, policy, enforcement: *enforcement, finding };
            match violations.iter_mut().find(|known| known.is_same(&violation)) {
                Some(known) if known.enforcement < violation.enforcement => *known = violation,
                Some(_) => {}
                None => violations.push(violation),
            }
        }
    }
    violations
}

impl Violation {
    /// Returns whether both are the same finding in the same field of the same container, wherever that is in its list,
    /// of the same pod template.
    fn is_same(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }

    fn parts(&self) -> [&str; 5] {
        let Finding { container, field, found, place, .. } = &self.finding;
        let template = place.split_once(".spec.").map_or("", |(template, _)| template);
        [&self.rule, container, field, found, template]
    }
}

/// Writes the violation in one line.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { place, found, expected, .. } = &self.finding;
        write!(f, "{}: {place}: {found}; expected {expected}", self.rule)
    }
}

/// Writes the violation and its exception in one line.
impl fmt::Display for Exempted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { violation, exception, reason, until } = self;
        write!(f, "{violation} (exempted by ServingException {exception} until {until}: {reason})")
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(violation) => write!(f, "{violation}"),
            Self::Existing(violation) => write!(f, "{violation} (existed before this update, so it is allowed)"),
            Self::RolledBack(violation, revision) => {
                write!(f, "{violation} (revision {revision} was admitted with it, so the rollback is allowed)")
            }
            Self::Exempted(exempted) => write!(f, "{exempted}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::decision::{Decision, Evaluation, Operation, Request, User, decide};
    use crate::testing::{self, deployment, facts, policies};
    use crate::workload::Workload;

    fn decided(spec: &Value, old: &Value, new: &Value) -> Decision {
        let (workload, old) = (Workload::view(new).unwrap(), Workload::view(old).unwrap());
        let request = Request {
            operation: Operation::Update,
            workload,
            old: Some(old),
            user: User::named("jane"),
            now: Timestamp::UNIX_EPOCH,
        };
        decide(&request, &policies(&[("serving", spec.clone())]), &facts())
    }

    /// Returns the numbers of violations and warnings of an update of containers.
    fn counts(old: &Value, new: &Value) -> (usize, usize) {
        let spec = json!({"rules": {"missing-memory-limit": {"enforcement": "off"}}});
        let decision = decided(&spec, &deployment(old), &deployment(new));
        (decision.verdict.violations.len(), decision.verdict.warnings.len())
    }

    fn container(name: &str, image: &str) -> Value {
        json!({"name": name, "image": image})
    }

    #[test]
    fn marks_existing_violations_in_warnings() {
        let spec = json!({"rules": {"missing-memory-limit": {"enforcement": "off"}}});
        let object = deployment(&json!([container("a", "x:latest")]));
        let warnings =
            decided(&spec, &object, &object).verdict.warnings.iter().map(ToString::to_string).collect::<Vec<_>>();
        let place = "spec.template.spec.containers[0].image";
        let expected = "a tag that is never moved, or a digest (existed before this update, so it is allowed)";
        assert_eq!(warnings, [format!("floating-tag: {place}: `x:latest`; expected {expected}")]);
    }

    #[test]
    fn warns_of_existing_violations() {
        let old = json!([container("a", "x:latest")]);
        assert_eq!(counts(&old, &old), (0, 1));
        let moved = json!([container("b", "y:1"), container("a", "x:latest")]);
        assert_eq!(counts(&old, &moved), (0, 1), "at another index");
    }

    #[test]
    fn refuses_new_violations() {
        let old = json!([container("a", "x:latest")]);
        let refused = (1, 0);
        assert_eq!(counts(&json!([container("a", "x:1")]), &old), refused);
        assert_eq!(counts(&old, &json!([container("a", "x:main")])), refused, "another value");
        assert_eq!(counts(&old, &json!([container("b", "x:latest")])), refused, "another container");
        let both = json!([container("a", "x:latest"), container("b", "x:latest")]);
        assert_eq!(counts(&old, &both), (1, 1));
    }

    #[test]
    fn reports_a_finding_of_several_policies_once_with_the_strictest_enforcement() {
        let object = deployment(&json!([container("a", "x:blue")]));
        let workload = Workload::view(&object).unwrap();
        let request = Request::new(Operation::Create, workload, Timestamp::UNIX_EPOCH);
        let found = |of_a: &str, of_b: &str| {
            let spec = |enforcement: &str| {
                json!({"rules": {
                    "floating-tag": {"enforcement": enforcement, "params": {"tags": ["blue"]}},
                    "missing-memory-limit": {"enforcement": "off"}
                }})
            };
            let verdict = decide(&request, &policies(&[("a", spec(of_a)), ("b", spec(of_b))]), &facts()).verdict;
            let all = verdict.violations.into_iter().chain(verdict.warned);
            all.map(|found| (found.policy, found.enforcement)).collect::<Vec<_>>()
        };
        let by = |policy: &str, enforcement: Enforcement| vec![(policy.to_owned(), enforcement)];
        assert_eq!(found("warn", "enforce"), by("b", Enforcement::Enforce));
        assert_eq!(found("enforce", "warn"), by("a", Enforcement::Enforce));
        assert_eq!(found("warn", "warn"), by("a", Enforcement::Warn));
    }

    #[test]
    fn the_same_value_in_another_field_is_another_violation() {
        let spec = json!({
            "rules": {"missing-memory-limit": {"enforcement": "off"}},
            "resources": {"bounds": {"memory": {"max": "1Gi"}, "ephemeral-storage": {"max": "1Gi"}}}
        });
        let limited = |limits: &Value| {
            deployment(&json!([{"name": "a", "image": "x:1", "resources": {"limits": limits, "requests": limits}}]))
        };
        let (one, two) =
            (limited(&json!({"memory": "2Gi"})), limited(&json!({"memory": "2Gi", "ephemeral-storage": "2Gi"})));
        let verdict = decided(&spec, &one, &two).verdict;
        assert_eq!((verdict.violations.len(), verdict.warnings.len()), (2, 2));
        assert!(verdict.violations.iter().all(|new| new.finding.place.contains("ephemeral-storage")));
    }

    #[test]
    fn a_rollback_is_allowed_with_violations_of_its_template_only() {
        let spec = json!({"rules": {"missing-memory-limit": {"enforcement": "off"}}});
        let old = deployment(&json!([container("a", "x:1")]));
        let mut new = deployment(&json!([container("a", "x:latest")]));
        let verdict = |new: &Value, rollback: Option<&str>| {
            let old = Some(Workload::view(&old).unwrap());
            let workload = Workload::view(new).unwrap();
            let request = Request { old, ..Request::new(Operation::Update, workload, Timestamp::UNIX_EPOCH) };
            let (policies, facts) = (policies(&[("serving", spec.clone())]), facts());
            let evaluation = Evaluation::new(request, &policies, &facts).rolling_back_to(rollback);
            let verdict = evaluation.verdict();
            (verdict.violations.clone(), verdict.rolled_back.len(), verdict.warnings.clone())
        };
        assert_eq!(verdict(&new, None).0.len(), 1);
        let (refused, recorded, warnings) = verdict(&new, Some("api-1"));
        assert_eq!((refused.len(), recorded), (0, 1));
        let text = warnings[0].to_string();
        assert!(text.ends_with("(revision api-1 was admitted with it, so the rollback is allowed)"), "{text}");
        new["metadata"]["labels"] = json!({});
        let (refused, ..) = verdict(&new, Some("api-1"));
        assert_eq!(
            refused.iter().map(|violation| violation.rule.as_str()).collect::<Vec<_>>(),
            ["model-server-label-removed"]
        );
    }

    #[test]
    fn another_rule_is_another_violation() {
        let violation = |rule: &str| Violation {
            rule: rule.into(),
            policy: "serving".into(),
            enforcement: Enforcement::Enforce,
            finding: Finding { found: "nothing".into(), ..Finding::default() },
        };
        assert!(violation("a").is_same(&violation("a")) && !violation("a").is_same(&violation("b")));
    }

    #[test]
    fn checks_the_old_object_with_the_current_policies() {
        let (old, new) =
            (json!([container("a", "x:latest")]), json!([container("a", "x:latest"), container("b", "y:1")]));
        let warn = json!({"enforcement": "warn"});
        let decision = decided(&warn, &deployment(&old), &deployment(&new));
        assert!(
            decision.verdict.violations.is_empty()
                && !decision.verdict.warnings.iter().any(|text| matches!(text, Warning::Existing(_)))
        );
        let off = json!({"rules": {"floating-tag": {"enforcement": "off"}, "missing-memory-limit": {"enforcement": "audit"}}});
        let decision = decided(&off, &deployment(&old), &deployment(&new));
        assert_eq!(
            (decision.verdict.violations.len(), decision.verdict.warnings.len(), decision.verdict.recorded.len()),
            (0, 0, 2)
        );
    }

    #[test]
    fn allows_existing_violations_of_a_stricter_policy() {
        let object = deployment(&json!([container("a", "x:latest")]));
        let decision = decided(&json!({"resources": {"bounds": {"cpu": {"max": "1"}}}}), &object, &object);
        assert!(decision.verdict.allows());
    }

    #[test]
    fn each_policy_has_its_own_parameters_and_enforcement_of_a_rule() {
        let tags = |enforcement: &str, tag: &str| {
            let own = json!({"enforcement": "off"});
            json!({"enforcement": enforcement, "rules": {"floating-tag": {"params": {"tags": [tag]}}, "missing-memory-limit": own}})
        };
        let set = policies(&[("a", tags("warn", "blue")), ("b", tags("enforce", "green"))]);
        let verdict = |image: &str| {
            let object = deployment(&json!([container("a", image)]));
            let (workload, now) = (Workload::view(&object).unwrap(), Timestamp::UNIX_EPOCH);
            decide(
                &Request { user: User::named("jane"), ..Request::new(Operation::Create, workload, now) },
                &set,
                &facts(),
            )
            .verdict
        };
        let counts = |image: &str| (verdict(image).violations.len(), verdict(image).warnings.len());
        assert_eq!(
            [counts("x:blue"), counts("x:green"), counts("x:latest"), counts("x:1")],
            [(0, 1), (1, 0), (1, 0), (0, 0)]
        );
        assert_eq!(verdict("x:latest").violations[0].policy, "b");
    }

    /// Checks a new Deployment with a floating tag, with a policy and an exception, on a day of January 1970.
    fn verdict(policy: &Value, exception: &Value, day: i64) -> Verdict {
        let mut object = deployment(&json!([container("a", "x:latest")]));
        object["metadata"]["labels"]["team"] = "search".into();
        let mut spec = json!({"rules": {"missing-memory-limit": {"enforcement": "off"}}});
        json_patch::merge(&mut spec, policy);
        let mut whole = json!({"workloads": {"names": ["api"]}, "rules": ["floating-tag"], "reason": "a pilot",
            "expires": "1970-01-10T00:00:00Z"});
        json_patch::merge(&mut whole, exception);
        let set = policies(&[("serving", spec)]).with_exceptions([testing::exception("pilot", &whole)]);
        let now = Timestamp::from_second((day - 1) * 86_400).unwrap();
        let workload = Workload::view(&object).unwrap();
        decide(&Request { user: User::named("jane"), ..Request::new(Operation::Create, workload, now) }, &set, &facts())
            .verdict
    }

    #[expect(clippy::needless_pass_by_value, reason = "the tests read better")]
    fn is_exempted(policy: Value, exception: Value, day: i64) -> bool {
        let verdict = verdict(&policy, &exception, day);
        assert_eq!(verdict.exempted.len() + verdict.violations.len(), 1);
        verdict.allows()
    }

    #[test]
    fn an_exception_ends_when_it_expires() {
        assert!(is_exempted(json!({}), json!({}), 1) && is_exempted(json!({}), json!({}), 9));
        assert!(!is_exempted(json!({}), json!({}), 10) && !is_exempted(json!({}), json!({}), 11));
        let warnings: Vec<String> =
            verdict(&json!({}), &json!({}), 1).warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "floating-tag: spec.template.spec.containers[0].image: `x:latest`; expected a tag that is never moved, or \
             a digest (exempted by ServingException pilot until 1970-01-10T00:00:00Z: a pilot)"
            ]
        );
    }

    #[test]
    fn exempts_from_recorded_violations_without_a_warning() {
        for policy in [json!({"enforcement": "audit"}), json!({"rules": {"floating-tag": {"enforcement": "audit"}}})] {
            let verdict = verdict(&policy, &json!({}), 1);
            assert_eq!((verdict.warnings, verdict.recorded.len(), verdict.exempted.len()), (vec![], 0, 1), "{policy}");
        }
    }

    #[test]
    fn an_exception_applies_to_its_workloads_and_rules_only() {
        let named = |names: Value| json!({"workloads": {"names": names}});
        let labelled = |team: &str| json!({"workloads": {"names": [], "selector": {"matchLabels": {"team": team}}}});
        assert!(!is_exempted(json!({}), named(json!(["web"])), 1));
        assert!(is_exempted(json!({}), labelled("search"), 1) && !is_exempted(json!({}), labelled("maps"), 1));
        assert!(!is_exempted(json!({}), json!({"rules": ["privileged-container"]}), 1));
    }

    #[test]
    fn a_policy_limits_exceptions() {
        let never = json!({"exceptions": {"never": ["floating-tag"]}});
        assert!(!is_exempted(never, json!({}), 1));
        let short = json!({"exceptions": {"maxDuration": "48h"}});
        assert!(is_exempted(short.clone(), json!({}), 2) && !is_exempted(short, json!({}), 3));
        let long = json!({"exceptions": {"maxDuration": "4800h"}});
        assert!(is_exempted(long.clone(), json!({}), 9) && !is_exempted(long, json!({}), 10));
    }
}
