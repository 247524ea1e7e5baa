//! What became of the model servers of a namespace, as one report that policy dashboards read: of `openreports.io`, else of
//! `wgpolicyk8s.io`, whichever is served. Only where it is asked for.
//!
//! <https://github.com/openreports/reports-api>

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::api::{Api, DynamicObject};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tracing::warn;

use super::apply::{Writer, apply, read};
use super::informer::{self, Handler, Key, follow};
use super::kinds::is_established;
use super::{Parts, resource};
use crate::report;
use tidegate_engine::companions::plan::Action;
use tidegate_engine::companions::{MANAGED_BY_LABEL, MANAGER, contains};
use tidegate_engine::decision::{Decision, Violation};
use tidegate_engine::workload::{Workload, WorkloadRef};

/// How often reports are written that have changed: a namespace's changes at most so often.
const TICK: Duration = Duration::from_secs(5);

/// The most results of a report, some 400 bytes each: etcd takes no object of more than 1.5 MiB. The summary counts all.
const MOST_RESULTS: usize = 500;

/// The longest message of a result, in characters.
const MAX_MESSAGE: usize = 512;

/// A kind of report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    OpenReports,
    PolicyReport,
}

impl Kind {
    /// The name of its definition.
    fn definition(self) -> &'static str {
        match self {
            Self::OpenReports => "reports.openreports.io",
            Self::PolicyReport => "policyreports.wgpolicyk8s.io",
        }
    }

    fn of_definition(name: &str) -> Option<Self> {
        [Self::OpenReports, Self::PolicyReport].into_iter().find(|kind| kind.definition() == name)
    }

    /// Begins a report of a namespace.
    fn report(self, namespace: &str) -> Value {
        let metadata = json!({"name": MANAGER, "namespace": namespace, "labels": {MANAGED_BY_LABEL: MANAGER}});
        match self {
            Self::OpenReports => json!({
                "apiVersion": "openreports.io/v1alpha1", "kind": "Report", "metadata": metadata, "source": MANAGER,
                "configuration": {"limits": {"maxResults": MOST_RESULTS}}
            }),
            Self::PolicyReport => {
                json!({"apiVersion": "wgpolicyk8s.io/v1alpha2", "kind": "PolicyReport", "metadata": metadata})
            }
        }
    }
}

/// What became of one workload.
#[derive(Clone, Debug, Default, PartialEq)]
struct Judged {
    /// Everything that was found, each with the workload that it is about.
    results: Vec<Value>,
    /// How many rules found nothing.
    passed: usize,
}

impl Judged {
    fn of(workload: &Workload, decision: &Decision) -> Self {
        let about = json!([{
            "apiVersion": workload.known_kind().api_version(), "kind": workload.kind(), "namespace": workload.namespace(), "name": workload.name(),
            "uid": workload.uid()
        }]);
        let result = |violation: &Violation, outcome: &str, severity: &str| {
            let message: String = violation.to_string().chars().take(MAX_MESSAGE).collect();
            json!({
                "source": MANAGER, "policy": violation.policy, "rule": violation.rule, "result": outcome,
                "severity": severity, "message": message, "resources": about
            })
        };
        let verdict = &decision.verdict;
        let refused = verdict.violations.iter().map(|found| result(found, "fail", "high"));
        let warned = verdict.warned.iter().map(|found| result(found, "warn", "medium"));
        let recorded = verdict.recorded.iter().map(|found| result(found, "warn", "info"));
        let excused = verdict.excused.iter().map(|found| result(&found.violation, "skip", "info"));
        let results: Vec<Value> = refused.chain(warned).chain(recorded).chain(excused).collect();
        let found: BTreeSet<&str> = results.iter().filter_map(|result| result["rule"].as_str()).collect();
        let passed = decision.rules.saturating_sub(found.len());
        Self { results, passed }
    }
}

/// Writes the report of a namespace.
fn written(kind: Kind, namespace: &str, judged: &BTreeMap<WorkloadRef, Judged>) -> Value {
    let results = || judged.values().flat_map(|judged| &judged.results);
    let count = |outcome: &str| results().filter(|result| result["result"] == outcome).count();
    let mut report = kind.report(namespace);
    report["summary"] = json!({
        "pass": judged.values().map(|judged| judged.passed).sum::<usize>(),
        "fail": count("fail"), "warn": count("warn"), "error": 0, "skip": count("skip")
    });
    // What is refused comes first, where not everything has room.
    let mut sorted: Vec<&Value> = results().collect();
    sorted.sort_by_key(|result| ["fail", "warn", "skip"].iter().position(|outcome| result["result"] == *outcome));
    sorted.truncate(MOST_RESULTS);
    report["results"] = sorted.into_iter().cloned().collect();
    report
}

/// The reports of all namespaces.
pub(super) struct Reports {
    writer: Writer,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    served: BTreeSet<Kind>,
    judged: BTreeMap<String, BTreeMap<WorkloadRef, Judged>>,
    /// The namespaces whose reports may be out of date.
    changed: BTreeSet<String>,
}

impl Reports {
    /// Begins without any.
    pub(super) fn new(writer: Writer) -> Arc<Self> {
        Arc::new(Self { writer, pages: Mutex::default() })
    }

    /// Notes what became of a workload.
    pub(super) fn judged(&self, workload: &Workload, decision: &Decision) {
        let (reference, judged) = (workload.reference(), Judged::of(workload, decision));
        let mut pages = self.pages();
        let inside = pages.judged.entry(reference.namespace.clone()).or_default();
        if inside.get(&reference) != Some(&judged) {
            let namespace = reference.namespace.clone();
            inside.insert(reference, judged);
            pages.changed.insert(namespace);
        }
    }

    /// Forgets a workload.
    pub(super) fn forget(&self, workload: &WorkloadRef) {
        let mut pages = self.pages();
        let Some(inside) = pages.judged.get_mut(&workload.namespace) else { return };
        if inside.remove(workload).is_some() {
            pages.changed.insert(workload.namespace.clone());
        }
    }

    /// Starts to follow which kinds of reports are served, and to write them.
    pub(super) fn start(self: &Arc<Self>, parts: &mut Parts) {
        for definition in Self::definitions() {
            parts.spawn("reports", self.kinds(parts.client, definition));
        }
        parts.spawn_writing("reports", Arc::clone(self).write());
    }

    /// Follows which kinds of reports are served.
    fn kinds(self: &Arc<Self>, client: &Client, kind: &str) -> impl Future<Output = ()> + use<> {
        let definitions = resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &definitions);
        let only = informer::config().fields(&format!("metadata.name={kind}"));
        follow(watcher(api, only).default_backoff(), Definitions(Arc::clone(self)))
    }

    /// The definitions to be followed.
    pub(super) fn definitions() -> [&'static str; 2] {
        [Kind::OpenReports, Kind::PolicyReport].map(Kind::definition)
    }

    /// Writes what has changed, for as long as it is polled.
    async fn write(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            if !self.writer.leads() {
                // Whoever becomes the leader writes what has changed by then.
                continue;
            }
            for namespace in self.due() {
                if let Some(report) = self.report_of(&namespace) {
                    self.put(&report).await;
                }
            }
        }
    }

    /// Returns the namespaces whose reports are to be looked at.
    fn due(&self) -> BTreeSet<String> {
        let mut pages = self.pages();
        if pages.served.is_empty() { BTreeSet::new() } else { std::mem::take(&mut pages.changed) }
    }

    /// Returns the report of a namespace; one without results or passes is of a namespace without model servers. Each is put
    /// together alone, so that whoever judges need not wait for all of them.
    fn report_of(&self, namespace: &str) -> Option<Value> {
        let mut pages = self.pages();
        let kind = pages.served.first().copied()?;
        let none = BTreeMap::new();
        let report = written(kind, namespace, pages.judged.get(namespace).unwrap_or(&none));
        pages.judged.retain(|_, inside| !inside.is_empty());
        Some(report)
    }

    async fn put(&self, report: &Value) {
        let found = read(&self.writer, report).await.and_then(|found| serde_json::to_value(found).ok());
        let is_empty = report["results"].as_array().is_none_or(Vec::is_empty) && report["summary"]["pass"] == 0;
        let action = match found {
            Some(_) if is_empty => Action::Delete(report.clone()),
            None if is_empty => return,
            Some(found) if contains(&found, report) => return,
            _ => Action::Apply(report.clone()),
        };
        if let Err(error) = apply(&self.writer, &action).await {
            let namespace = report["metadata"]["namespace"].as_str().unwrap_or_default();
            warn!(namespace, error = report::chain(&error), "a report was not written; trying again");
            self.pages().changed.insert(namespace.to_owned());
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Definitions(Arc<Reports>);

impl Definitions {
    /// Another kind, other reports.
    fn note(&self, name: &str, is_served: bool) {
        let Some(kind) = Kind::of_definition(name) else { return };
        let mut pages = self.0.pages();
        if is_served {
            pages.served.insert(kind)
        } else {
            pages.served.remove(&kind)
        };
        pages.changed = pages.judged.keys().cloned().collect();
    }
}

impl Handler<DynamicObject> for Definitions {
    fn put(&mut self, _: Key, definition: DynamicObject) {
        self.note(&definition.name_any(), is_established(&definition.data));
    }

    fn remove(&mut self, key: &Key) {
        self.note(&key.1, false);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use tidegate_engine::decision::{Operation, Request, User, decide};
    use tidegate_engine::testing::{facts, policies, with_container};

    fn judged(name: &str, fields: &Value) -> (WorkloadRef, Judged) {
        let mut object = with_container(fields);
        object["metadata"]["name"] = name.into();
        let workload = Workload::view(&object).unwrap();
        let (operation, now) = (Operation::Observe, Timestamp::UNIX_EPOCH);
        let request = Request { operation, workload, old: None, user: User::default(), now };
        let spec = json!({"rules": {"missing-memory-limit": {"enforcement": "warn"}}});
        let decision = decide(&request, &policies(&[("serving", spec)]), &facts());
        (workload.reference(), Judged::of(&workload, &decision))
    }

    #[test]
    fn a_report_names_what_was_found_and_counts_the_rest() {
        let all = [judged("wrong", &json!({"image": "api:latest"})), judged("warned", &json!({}))].into();
        insta::assert_json_snapshot!(written(Kind::OpenReports, "ml", &all));
        let other = written(Kind::PolicyReport, "ml", &all);
        assert_eq!((&other["source"], &other["configuration"]), (&Value::Null, &Value::Null), "its schema has neither");
    }

    #[test]
    fn a_report_is_bounded_and_has_what_is_refused_first() {
        let many = |index: usize| judged(&format!("api-{index:04}"), &json!({"image": "api:latest"}));
        let all: BTreeMap<_, _> = (0..MOST_RESULTS).map(many).collect();
        let report = written(Kind::PolicyReport, "ml", &all);
        let results = report["results"].as_array().unwrap();
        assert!(results.len() == MOST_RESULTS && results.iter().all(|result| result["result"] == "fail"));
        assert_eq!(report["summary"]["warn"], MOST_RESULTS);
        assert!(report.to_string().len() < 500_000);
    }
}
