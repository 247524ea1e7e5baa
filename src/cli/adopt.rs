//! `tidegate adopt`: adopts workloads that were created before Tidegate. Their companions are created; no pod restarts.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::cluster::{connect, read_around, workload_kind, workloads};
use super::files::print;
use super::selector::{DEFAULT_SELECTOR, Selector, scope};
use crate::controller::resource_of;
use crate::manifests::Manifests;
use crate::report::{changes, check, plain, plural};
use tidegate_engine::api::ADOPTED_ANNOTATION;
use tidegate_engine::decision::{Evaluation, Operation, Receipt, Request, User};
use tidegate_engine::facts::Facts;
use tidegate_engine::kind;
use tidegate_engine::policy::PolicySet;
use tidegate_engine::workload::Workload;

/// The arguments of `tidegate adopt`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The workloads, such as `deployment/api`.
    #[arg(required_unless_present = "all", value_name = "KIND/NAME")]
    workloads: Vec<String>,
    /// All model servers in the namespace that were created before Tidegate.
    #[arg(long, conflicts_with = "workloads")]
    all: bool,
    /// The namespace of the workloads.
    #[arg(long, short, default_value = "default", value_name = "NAME")]
    namespace: String,
    /// Adopts the workloads. Without this, only shows what would change.
    #[arg(long)]
    yes: bool,
    /// The labels that make a workload a model server; may be repeated.
    #[arg(long, default_value = DEFAULT_SELECTOR, value_delimiter = ';', value_name = "KEY=VALUE")]
    selector: Vec<Selector>,
    /// The kubeconfig to use instead of $KUBECONFIG or ~/.kube/config.
    #[arg(long, env = "TIDEGATE_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Adopts workloads, or shows what that would change.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(adopt(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn adopt(args: Args) -> anyhow::Result<()> {
    let Args { workloads, all, namespace, yes, selector, kubeconfig } = args;
    let named = named(&workloads)?;
    let client = connect(kubeconfig).await?;
    let input = from_cluster(&client, &namespace).await?;
    let policies = input.policy_set(scope(selector));
    let mut adopted = 0;
    for (kind, name) in &named {
        let is_meant = |object: &Value| object["kind"] == *kind && object["metadata"]["name"] == **name;
        if !input.workloads.iter().any(|found| is_meant(&found.object)) {
            bail!("{kind} {name} not found in namespace {namespace}");
        }
    }
    for found in &input.workloads {
        let workload = Workload::view(&found.object)?;
        let is_named = named.contains(&(workload.kind(), workload.name()));
        let outcome = Adoption::of(&found.object, &policies, &input.facts)?;
        let is_selected = is_named || all && matches!(outcome, Adoption::Adopt(_));
        if !is_selected {
            continue;
        }
        print(&outcome.summary(&workload, yes))?;
        if matches!(outcome, Adoption::Adopt(_)) {
            adopted += 1;
            if yes {
                mark(&client, &workload).await?;
            }
        }
    }
    print(&match (adopted, yes) {
        (0, _) => "nothing to adopt\n".to_owned(),
        (count, true) => format!("adopted {}\n", plural(count, "workload")),
        (count, false) => format!("{} would be adopted; pass --yes to adopt\n", plural(count, "workload")),
    })
}

/// The outcome of adopting a workload.
enum Adoption {
    /// The workload is adopted, with these consequences, one per line.
    Adopt(String),
    /// The workload is skipped, for this reason.
    Skip(&'static str),
}

impl Adoption {
    fn of(object: &Value, policies: &PolicySet, facts: &Facts) -> anyhow::Result<Self> {
        let now = evaluation(object, policies, facts)?;
        if !now.is_unmanaged() {
            return Ok(Self::Skip(why_not(&now)));
        }
        let mut marked = object.clone();
        marked["metadata"]["annotations"][ADOPTED_ANNOTATION] = "true".into();
        let then = evaluation(&marked, policies, facts)?;
        let workload = Workload::view(object)?;
        let mut text = String::from("  pod template: unchanged, no pod restarts\n");
        text.push_str(&changes(check::injected(&then).len(), &check::companions(&then)));
        for found in facts.autoscalers_of(&workload.reference()) {
            let _ = writeln!(text, "  autoscaler: {} exists and is used", found.reference());
        }
        let labels = &workload.template()["metadata"]["labels"];
        for budget in facts.budgets_for(workload.namespace(), labels) {
            let _ = writeln!(text, "  budget: PodDisruptionBudget/{budget} exists and is used");
        }
        let verdict = then.verdict();
        for violation in verdict.violations.iter().chain(&verdict.warned) {
            let _ = writeln!(text, "  does not conform: {violation}");
        }
        text.push_str(&next_update(&marked, &check::companions(&then), policies, facts)?);
        Ok(Self::Adopt(text))
    }

    fn summary(&self, workload: &Workload, yes: bool) -> String {
        let head = format!("{} {}/{}", workload.kind(), workload.namespace(), workload.name());
        match self {
            Self::Adopt(changes) if yes => format!("{head}: adopted\n{changes}"),
            Self::Adopt(changes) => format!("{head}: would be adopted\n{changes}"),
            Self::Skip(reason) => format!("{head}: skipped: {reason}\n"),
        }
    }
}

/// Returns what the next change of the pod template will inject, and which companions it will create that are not among
/// `created`.
fn next_update(adopted: &Value, created: &[String], policies: &PolicySet, facts: &Facts) -> anyhow::Result<String> {
    let mut changed = adopted.clone();
    let old = Workload::view(adopted)?;
    let template = kind::fields(old.template_pointer()).fold(&mut changed, |place, field| &mut place[field]);
    template["metadata"]["annotations"][RESTARTED_ANNOTATION] = "soon".into();
    let (workload, old) = (Workload::view(&changed)?, Some(old));
    let (user, now) = (User::default(), Timestamp::now());
    let next = Evaluation::new(Request { operation: Operation::Update, workload, old, user, now }, policies, facts);
    let stored = next.to_json();
    let pod = Workload::view(&stored)?.pod_spec();
    let injected = next
        .receipt()
        .into_iter()
        .flat_map(Receipt::entries)
        .map(|entry| format!("injected: {}: {}", entry.path, entry.path.get(pod).map(plain).unwrap_or_default()));
    let warnings = next.notes().into_iter().map(|note| format!("warning: {note}"));
    let companions = check::companions(&next).into_iter().filter(|line| !created.contains(line));
    let refused = next.verdict().violations.iter().map(|violation| format!("refused: {violation}"));
    let lines: Vec<String> = injected.chain(warnings).chain(companions).chain(refused).collect();
    let head = "  with the next change of the pod template:\n";
    let text = |line: String| format!("    {line}\n");
    Ok(if lines.is_empty() {
        String::new()
    } else {
        head.to_owned() + &lines.into_iter().map(text).collect::<String>()
    })
}

/// The annotation that `kubectl rollout restart` sets in a pod template.
const RESTARTED_ANNOTATION: &str = "kubectl.kubernetes.io/restartedAt";

fn why_not(evaluation: &Evaluation) -> &'static str {
    if evaluation.receipt().is_some() {
        return "already managed by tidegate";
    }
    if evaluation.policies().is_empty() {
        return "not a model server, or no policy matches it";
    }
    "no policy in `warn` or `enforce` matches it, or another controller owns it"
}

fn evaluation<'a>(object: &'a Value, policies: &'a PolicySet, facts: &'a Facts) -> anyhow::Result<Evaluation<'a>> {
    let workload = Workload::view(object)?;
    Ok(Evaluation::new(Request::new(Operation::Observe, workload, Timestamp::now()), policies, facts))
}

fn named(workloads: &[String]) -> anyhow::Result<BTreeSet<(&'static str, &str)>> {
    let named = workloads.iter().map(|workload| {
        let invalid = || format!("invalid workload `{workload}`: must be KIND/NAME");
        let (kind, name) = workload.split_once('/').with_context(invalid)?;
        Ok((workload_kind(kind)?.kind, name))
    });
    named.collect()
}

/// Marks a workload as adopted. The webhook writes its receipt, and the controller creates its companions.
async fn mark(client: &Client, workload: &Workload<'_>) -> anyhow::Result<()> {
    let kind = resource_of(workload.known_kind());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), workload.namespace(), &kind);
    let parameters = PatchParams { field_manager: Some("tidegate-adopt".to_owned()), ..PatchParams::default() };
    // With the UID, a workload that was recreated in the meantime is not adopted.
    let metadata = json!({"uid": workload.uid(), "annotations": {ADOPTED_ANNOTATION: "true"}});
    let patched = api.patch(workload.name(), &parameters, &Patch::Merge(json!({"metadata": metadata}))).await;
    patched.with_context(|| format!("cannot adopt {} {}", workload.kind(), workload.name()))?;
    Ok(())
}

/// Reads the workloads of a namespace and everything that decisions about them depend on.
async fn from_cluster(client: &Client, namespace: &str) -> anyhow::Result<Manifests> {
    let mut input = Manifests::new();
    read_around(client, namespace, &mut input).await?;
    for object in workloads(client, Some(namespace)).await? {
        input.add_text("the cluster", &object.to_string(), namespace)?;
    }
    Ok(input)
}
