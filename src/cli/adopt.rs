//! `tidegate adopt`: takes workloads over that ran before Tidegate, as they are. Their companions are made, and no pod
//! restarts.

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
use super::files::say;
use super::serve::{DEFAULT_SELECTOR, Scope};
use crate::controller::resource_of;
use crate::manifests::Manifests;
use crate::report::{check, plural};
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
    /// All model servers of the namespace that ran before Tidegate.
    #[arg(long, conflicts_with = "workloads")]
    all: bool,
    /// The namespace of the workloads.
    #[arg(long, short, default_value = "default", value_name = "NAME")]
    namespace: String,
    /// Adopts them, rather than show what that would do.
    #[arg(long)]
    yes: bool,
    /// The labels that make a workload a model server.
    #[arg(long, default_value = DEFAULT_SELECTOR, value_name = "KEY=VALUE")]
    selector: Scope,
    /// The kubeconfig to use, rather than $KUBECONFIG or ~/.kube/config.
    #[arg(long, env = "TIDEGATE_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Adopts workloads, or shows what that would do.
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
    let policies = input.policy_set(selector.0);
    let mut adopted = 0;
    for (kind, name) in &named {
        let is_meant = |object: &Value| object["kind"] == *kind && object["metadata"]["name"] == **name;
        if !input.workloads.iter().any(|found| is_meant(&found.object)) {
            bail!("there is no {kind} {name} in namespace {namespace}");
        }
    }
    for found in &input.workloads {
        let workload = Workload::view(&found.object)?;
        let is_named = named.contains(&(workload.kind(), workload.name()));
        let would = Would::of(&found.object, &policies, &input.facts)?;
        let is_asked_for = is_named || all && matches!(would, Would::Adopt(_));
        if !is_asked_for {
            continue;
        }
        say(&would.told(&workload, yes))?;
        if matches!(would, Would::Adopt(_)) {
            adopted += 1;
            if yes {
                mark(&client, &workload).await?;
            }
        }
    }
    say(&match (adopted, yes) {
        (0, _) => "nothing to adopt\n".to_owned(),
        (count, true) => format!("adopted {}\n", plural(count, "workload")),
        (count, false) => format!("{} would be adopted; --yes does it\n", plural(count, "workload")),
    })
}

/// What adopting a workload would come to.
enum Would {
    /// It would be adopted, and this follows, a line each.
    Adopt(String),
    /// It would not, for this.
    Leave(&'static str),
}

impl Would {
    fn of(object: &Value, policies: &PolicySet, facts: &Facts) -> anyhow::Result<Self> {
        let now = evaluation(object, policies, facts)?;
        if !now.is_unmanaged() {
            return Ok(Self::Leave(why_not(&now)));
        }
        let mut marked = object.clone();
        marked["metadata"]["annotations"][ADOPTED_ANNOTATION] = "true".into();
        let then = evaluation(&marked, policies, facts)?;
        let workload = Workload::view(object)?;
        let mut text = String::from("  pod template: as it is, no pod restarts\n");
        text.push_str(&check::made(&then));
        for found in facts.autoscalers_of(&workload.reference()) {
            let _ = writeln!(text, "  autoscaler: {} is there, and is the one that counts", found.reference());
        }
        let labels = &workload.template()["metadata"]["labels"];
        for budget in facts.budgets_for(workload.namespace(), labels) {
            let _ = writeln!(text, "  budget: PodDisruptionBudget/{budget} is there, and is the one that counts");
        }
        let verdict = then.verdict();
        for broken in verdict.violations.iter().chain(&verdict.warned) {
            let _ = writeln!(text, "  does not conform: {broken}");
        }
        text.push_str(&after_a_change(&marked, &check::companions(&then), policies, facts)?);
        Ok(Self::Adopt(text))
    }

    fn told(&self, workload: &Workload, yes: bool) -> String {
        let head = format!("{} {}/{}", workload.kind(), workload.namespace(), workload.name());
        match self {
            Self::Adopt(follows) if yes => format!("{head}: adopted\n{follows}"),
            Self::Adopt(follows) => format!("{head}: would be adopted\n{follows}"),
            Self::Leave(why) => format!("{head}: left alone: {why}\n"),
        }
    }
}

/// Tells what the next change of the pod template will bring: what is injected into it, and what is made then that is not made
/// now.
fn after_a_change(adopted: &Value, made: &[String], policies: &PolicySet, facts: &Facts) -> anyhow::Result<String> {
    let mut changed = adopted.clone();
    let old = Workload::view(adopted)?;
    let template = kind::fields(old.known_kind().template()).fold(&mut changed, |place, field| &mut place[field]);
    template["metadata"]["annotations"][RESTARTED_ANNOTATION] = "soon".into();
    let (workload, old) = (Workload::view(&changed)?, Some(old));
    let (user, now) = (User::default(), Timestamp::now());
    let next = Evaluation::new(Request { operation: Operation::Update, workload, old, user, now }, policies, facts);
    let stored = next.to_json();
    let pod = Workload::view(&stored)?.pod_spec();
    let injected = next.receipt().into_iter().flat_map(Receipt::entries).map(|entry| {
        let value = entry.path.get(pod).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        format!("injected: {}: {}", entry.path, value.unwrap_or_default())
    });
    let told = next.notes().into_iter().map(|note| format!("warning: {note}"));
    let made_then = check::companions(&next).into_iter().filter(|line| !made.contains(line));
    let refused = next.verdict().violations.iter().map(|broken| format!("refused: {broken}"));
    let lines: Vec<String> = injected.chain(told).chain(made_then).chain(refused).collect();
    let head = "  with the next change of its pod template:\n";
    let text = |line: String| format!("    {line}\n");
    Ok(if lines.is_empty() {
        String::new()
    } else {
        head.to_owned() + &lines.into_iter().map(text).collect::<String>()
    })
}

/// What `kubectl rollout restart` changes in a pod template.
const RESTARTED_ANNOTATION: &str = "kubectl.kubernetes.io/restartedAt";

fn why_not(evaluation: &Evaluation) -> &'static str {
    if evaluation.receipt().is_some() {
        return "tidegate keeps it already";
    }
    if evaluation.policies().is_empty() {
        return "it is no model server, or no policy is for it";
    }
    "no policy in `warn` or `enforce` is for it, or another controller owns it"
}

fn evaluation<'a>(object: &'a Value, policies: &'a PolicySet, facts: &'a Facts) -> anyhow::Result<Evaluation<'a>> {
    let workload = Workload::view(object)?;
    let (user, now) = (User::default(), Timestamp::now());
    Ok(Evaluation::new(Request { operation: Operation::Observe, workload, old: None, user, now }, policies, facts))
}

fn named(workloads: &[String]) -> anyhow::Result<BTreeSet<(&'static str, &str)>> {
    let named = workloads.iter().map(|workload| {
        let (kind, name) = workload.split_once('/').with_context(|| format!("`{workload}` is written as KIND/NAME"))?;
        Ok((workload_kind(kind)?.kind, name))
    });
    named.collect()
}

/// Marks a workload as adopted. The webhook writes its receipt, and the controller makes its companions.
async fn mark(client: &Client, workload: &Workload<'_>) -> anyhow::Result<()> {
    let kind = resource_of(workload.known_kind());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), workload.namespace(), &kind);
    let parameters = PatchParams { field_manager: Some("tidegate-adopt".to_owned()), ..PatchParams::default() };
    // Whoever was deleted and made anew meanwhile is another one.
    let metadata = json!({"uid": workload.uid(), "annotations": {ADOPTED_ANNOTATION: "true"}});
    let patched = api.patch(workload.name(), &parameters, &Patch::Merge(json!({"metadata": metadata}))).await;
    patched.with_context(|| format!("cannot adopt {} {}", workload.kind(), workload.name()))?;
    Ok(())
}

/// Reads the workloads of a namespace, and what decides about them.
async fn from_cluster(client: &Client, namespace: &str) -> anyhow::Result<Manifests> {
    let mut input = Manifests::new();
    read_around(client, namespace, &mut input).await?;
    for object in workloads(client, namespace).await? {
        input.add_text("the cluster", &object.to_string(), namespace)?;
    }
    Ok(input)
}
