//! What becomes of findings: refused, warned of or recorded; and what an update did not make worse only warns.

use std::fmt;

use k8s_openapi::jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::subject::Subject;
use crate::api::Enforcement;
use crate::policy::{ActiveRule, Context, Exception, Finding};

/// A finding of a rule, as strict as the policies make it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The rule's id.
    pub rule: String,
    /// The policy that is strictest about the rule.
    pub policy: String,
    /// How strict it is.
    pub enforcement: Enforcement,
    /// What was found, and where.
    #[serde(flatten)]
    pub finding: Finding,
}

/// What the rules say of a workload.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What the workload is refused for.
    pub violations: Vec<Violation>,
    /// Violations that are only warned of: by their enforcement, or for an update did not make them.
    pub warned: Vec<Violation>,
    /// Violations that are only recorded: their policy is in audit.
    pub recorded: Vec<Violation>,
    /// Violations that an exception excuses.
    pub excused: Vec<Excused>,
    /// What the author is warned of, in the order of the rules.
    pub warnings: Vec<Warning>,
}

/// A violation that an exception excuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excused {
    /// The violation.
    #[serde(flatten)]
    pub violation: Violation,
    /// The exception's name, in the workload's namespace.
    pub exception: String,
    /// Why it was made.
    pub reason: String,
    /// When it counts no more.
    #[serde(serialize_with = "serialize_time")]
    pub until: Timestamp,
}

fn serialize_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// What the author of a workload is warned of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A rule is violated that only warns.
    Violation(Violation),
    /// A rule is violated as it was before the update.
    Existing(Violation),
    /// A rule is violated, and an exception excuses that.
    Excused(Excused),
}

impl Verdict {
    /// Tells whether the workload may be stored.
    #[must_use]
    pub fn allows(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Runs the rules over a workload, which may have been stored before in another state.
pub(super) fn check(context: &Context, old: Option<&Subject>) -> Verdict {
    let mut judged = Verdict::default();
    let found = violations(context, |_| true);
    if found.is_empty() {
        return judged;
    }
    let before = old.map(|old| violations_before(context, old, &found)).unwrap_or_default();
    let exceptions: Vec<&Exception> = context.policies.exceptions_for(&context.workload).collect();
    for violation in found {
        if let Some(excused) = excused(&violation, &exceptions, context) {
            // What is only recorded is no business of its author's, excused or not.
            if violation.enforcement > Enforcement::Audit {
                judged.warnings.push(Warning::Excused(excused.clone()));
            }
            judged.excused.push(excused);
            continue;
        }
        let existing = !violation.finding.not_evaluated && before.iter().any(|old| old.is_same(&violation));
        match violation.enforcement {
            Enforcement::Enforce if existing => {
                judged.warnings.push(Warning::Existing(violation.clone()));
                judged.warned.push(violation);
            }
            Enforcement::Enforce => judged.violations.push(violation),
            Enforcement::Warn => {
                judged.warnings.push(Warning::Violation(violation.clone()));
                judged.warned.push(violation);
            }
            Enforcement::Audit => judged.recorded.push(violation),
            Enforcement::Off => {}
        }
    }
    judged
}

/// Returns what the rules that found something find in the workload as it is stored. Others are not asked: what their
/// expressions would cost is saved.
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

/// Returns a violation as excused, where an exception does so.
fn excused(violation: &Violation, exceptions: &[&Exception], context: &Context) -> Option<Excused> {
    let limits = context.effective.exceptions();
    let excusing = exceptions.iter().find(|exception| exception.excuses(&violation.rule, context.now, limits))?;
    Some(Excused {
        violation: violation.clone(),
        exception: excusing.name.clone(),
        reason: excusing.reason.clone(),
        until: excusing.until(limits),
    })
}

/// Returns what the rules find that are asked, each thing once, as strictly as any rule has it.
fn violations(context: &Context, is_asked: impl Fn(&str) -> bool) -> Vec<Violation> {
    let mut violations: Vec<Violation> = Vec::new();
    let judging = |active: &&ActiveRule| active.rule.concerns() == context.membership && is_asked(active.rule.id());
    for ActiveRule { rule, enforcement, policy } in context.effective.rules().iter().filter(judging) {
        for finding in rule.check(context) {
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
    /// Tells whether both say the same of the same field of the same container, wherever that stands in its list.
    fn is_same(&self, other: &Self) -> bool {
        let parts = |of: &Self| {
            let Finding { container, field, found, .. } = &of.finding;
            [&of.rule, container, field, found].map(Clone::clone)
        };
        parts(self) == parts(other)
    }
}

/// Writes in one line what was found, and where.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { place, found, expected, .. } = &self.finding;
        write!(f, "{}: {place}: {found}; expected {expected}", self.rule)
    }
}

/// Writes in one line what was found, and what excuses it.
impl fmt::Display for Excused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { violation, exception, reason, until } = self;
        write!(f, "{violation} (excused by ServingException {exception} until {until}: {reason})")
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(violation) => write!(f, "{violation}"),
            Self::Existing(violation) => write!(f, "{violation} (as before this update, so it is admitted)"),
            Self::Excused(excused) => write!(f, "{excused}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::decision::{Decision, Operation, Request, User, decide};
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

    /// How many violations are refused, and how many only warned of, in an update of containers.
    fn counts(old: &Value, new: &Value) -> (usize, usize) {
        let spec = json!({"rules": {"missing-memory-limit": {"enforcement": "off"}}});
        let decision = decided(&spec, &deployment(old), &deployment(new));
        (decision.verdict.violations.len(), decision.verdict.warnings.len())
    }

    fn container(name: &str, image: &str) -> Value {
        json!({"name": name, "image": image})
    }

    #[test]
    fn what_was_violated_before_is_told_to_have_been() {
        let spec = json!({"rules": {"missing-memory-limit": {"enforcement": "off"}}});
        let object = deployment(&json!([container("a", "x:latest")]));
        let told =
            decided(&spec, &object, &object).verdict.warnings.iter().map(ToString::to_string).collect::<Vec<_>>();
        let place = "spec.template.spec.containers[0].image";
        let expected = "a tag that is never moved, or a digest (as before this update, so it is admitted)";
        assert_eq!(told, [format!("floating-tag: {place}: `x:latest`; expected {expected}")]);
    }

    #[test]
    fn what_was_violated_before_is_warned_of() {
        let old = json!([container("a", "x:latest")]);
        assert_eq!(counts(&old, &old), (0, 1));
        let moved = json!([container("b", "y:1"), container("a", "x:latest")]);
        assert_eq!(counts(&old, &moved), (0, 1), "wherever it stands");
    }

    #[test]
    fn what_gets_worse_is_refused() {
        let old = json!([container("a", "x:latest")]);
        let refused = (1, 0);
        assert_eq!(counts(&json!([container("a", "x:1")]), &old), refused);
        assert_eq!(counts(&old, &json!([container("a", "x:main")])), refused, "another value");
        assert_eq!(counts(&old, &json!([container("b", "x:latest")])), refused, "another container");
        let both = json!([container("a", "x:latest"), container("b", "x:latest")]);
        assert_eq!(counts(&old, &both), (1, 1));
    }

    #[test]
    fn what_several_policies_find_is_told_once_as_the_strictest_has_it() {
        let object = deployment(&json!([container("a", "x:blue")]));
        let workload = Workload::view(&object).unwrap();
        let request = Request {
            operation: Operation::Create,
            workload,
            old: None,
            user: User::default(),
            now: Timestamp::UNIX_EPOCH,
        };
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
    fn the_old_object_is_judged_by_todays_policies() {
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
    fn more_strictness_does_not_refuse_what_is_there() {
        let object = deployment(&json!([container("a", "x:latest")]));
        let decision = decided(&json!({"resources": {"bounds": {"cpu": {"max": "1"}}}}), &object, &object);
        assert!(decision.verdict.allows());
    }

    #[test]
    fn each_policy_gives_a_rule_its_own_parameters_and_strictness() {
        let tags = |enforcement: &str, tag: &str| {
            let own = json!({"enforcement": "off"});
            json!({"enforcement": enforcement, "rules": {"floating-tag": {"params": {"tags": [tag]}}, "missing-memory-limit": own}})
        };
        let set = policies(&[("a", tags("warn", "blue")), ("b", tags("enforce", "green"))]);
        let judged = |image: &str| {
            let object = deployment(&json!([container("a", image)]));
            let (workload, now) = (Workload::view(&object).unwrap(), Timestamp::UNIX_EPOCH);
            decide(
                &Request { operation: Operation::Create, workload, old: None, user: User::named("jane"), now },
                &set,
                &facts(),
            )
            .verdict
        };
        let counts = |image: &str| (judged(image).violations.len(), judged(image).warnings.len());
        assert_eq!(
            [counts("x:blue"), counts("x:green"), counts("x:latest"), counts("x:1")],
            [(0, 1), (1, 0), (1, 0), (0, 0)]
        );
        assert_eq!(judged("x:latest").violations[0].policy, "b");
    }

    /// Judges a new Deployment with a floating tag, under a policy and an exception, on a day of January 1970.
    fn excused(policy: &Value, exception: &Value, day: i64) -> Verdict {
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
        decide(
            &Request { operation: Operation::Create, workload, old: None, user: User::named("jane"), now },
            &set,
            &facts(),
        )
        .verdict
    }

    #[expect(clippy::needless_pass_by_value, reason = "the tests read better")]
    fn is_excused(policy: Value, exception: Value, day: i64) -> bool {
        let verdict = excused(&policy, &exception, day);
        assert_eq!(verdict.excused.len() + verdict.violations.len(), 1);
        verdict.allows()
    }

    #[test]
    fn an_exception_excuses_until_it_expires() {
        assert!(is_excused(json!({}), json!({}), 1) && is_excused(json!({}), json!({}), 9));
        assert!(!is_excused(json!({}), json!({}), 10) && !is_excused(json!({}), json!({}), 11));
        let told: Vec<String> = excused(&json!({}), &json!({}), 1).warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "floating-tag: spec.template.spec.containers[0].image: `x:latest`; expected a tag that is never moved, or a \
             digest (excused by ServingException pilot until 1970-01-10T00:00:00Z: a pilot)"
            ]
        );
    }

    #[test]
    fn what_is_only_recorded_is_excused_without_a_word() {
        for policy in [json!({"enforcement": "audit"}), json!({"rules": {"floating-tag": {"enforcement": "audit"}}})] {
            let verdict = excused(&policy, &json!({}), 1);
            assert_eq!((verdict.warnings, verdict.recorded.len(), verdict.excused.len()), (vec![], 0, 1), "{policy}");
        }
    }

    #[test]
    fn an_exception_is_for_its_workloads_and_rules_alone() {
        let named = |names: Value| json!({"workloads": {"names": names}});
        let labelled = |team: &str| json!({"workloads": {"names": [], "selector": {"matchLabels": {"team": team}}}});
        assert!(!is_excused(json!({}), named(json!(["web"])), 1));
        assert!(is_excused(json!({}), labelled("search"), 1) && !is_excused(json!({}), labelled("maps"), 1));
        assert!(!is_excused(json!({}), json!({"rules": ["privileged-container"]}), 1));
    }

    #[test]
    fn a_policy_bounds_what_exceptions_may_do() {
        let never = json!({"exceptions": {"never": ["floating-tag"]}});
        assert!(!is_excused(never, json!({}), 1));
        let short = json!({"exceptions": {"maxDuration": "48h"}});
        assert!(is_excused(short.clone(), json!({}), 2) && !is_excused(short, json!({}), 3));
        let long = json!({"exceptions": {"maxDuration": "4800h"}});
        assert!(is_excused(long.clone(), json!({}), 9) && !is_excused(long, json!({}), 10));
    }
}
