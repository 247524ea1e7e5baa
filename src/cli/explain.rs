//! `tidegate explain`: explains a rule, merged policies, or the result for a workload.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DynamicObject};
use serde_json::Value;

use super::cluster::{connect, json, read_around, workload_kind};
use super::files::{add_objects, add_policies, print};
use super::selector::{DEFAULT_SELECTOR, Selector, scope};
use crate::controller::resource_of;
use crate::manifests::Manifests;
use crate::report::explain;
use tidegate_engine::BUILTIN;
use tidegate_engine::decision::{Evaluation, Operation, Request};
use tidegate_engine::kind::Kind;
use tidegate_engine::policy::PolicySet;
use tidegate_engine::workload::Workload;

/// The arguments of `tidegate explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A rule, such as `floating-tag`, or a workload, such as `deployment/api`. Default: lists the rules, or explains
    /// the policies of `--policy`.
    what: Option<String>,
    /// Policies: a file, a folder, or the name of a shipped one. Default: those of the cluster.
    #[arg(long, value_name = "POLICY")]
    policy: Vec<String>,
    /// The environment for which the policies are explained.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Files to read the workload from, instead of the cluster.
    #[arg(long, short, value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// The workload's namespace.
    #[arg(long, short, default_value = "default", value_name = "NAME")]
    namespace: String,
    /// The labels that make a workload a model server; may be repeated.
    #[arg(long, default_value = DEFAULT_SELECTOR, value_delimiter = ';', value_name = "KEY=VALUE")]
    selector: Vec<Selector>,
    /// The kubeconfig to use instead of $KUBECONFIG or ~/.kube/config.
    #[arg(long, env = "TIDEGATE_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let text = match args.what.as_deref() {
        None if args.policy.is_empty() => explain::all_rules(),
        None => policies(args)?,
        Some(what) => match what.split_once('/') {
            Some((kind, name)) => workload(args, kind, name)?,
            None => rule(what)?,
        },
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn rule(id: &str) -> anyhow::Result<String> {
    let Some(rule) = BUILTIN.rule(id) else {
        bail!("unknown rule `{id}`; run `tidegate explain` for a list; a workload is written as deployment/NAME");
    };
    Ok(explain::rule(rule))
}

fn policies(args: &Args) -> anyhow::Result<String> {
    let mut input = Manifests::new();
    for name in &args.policy {
        add_policies(&mut input, name, Path::new("."))?;
    }
    let set = input.policy_set(scope(args.selector.clone()));
    let names: Vec<&str> = set.policies().iter().map(|policy| &*policy.reference().name).collect();
    let effective = set.named(&names, args.environment.as_deref());
    let effective = effective.map_err(|name| anyhow::anyhow!("policy {name} not found"))?;
    Ok(explain::policies(&effective))
}

fn workload(args: &Args, kind: &str, name: &str) -> anyhow::Result<String> {
    let kind = workload_kind(kind)?;
    let mut input = Manifests::new();
    for policy in &args.policy {
        add_policies(&mut input, policy, Path::new("."))?;
    }
    if args.filename.is_empty() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(from_cluster(args, kind, name, &mut input))?;
    } else {
        let errors = add_objects(&mut input, &args.filename, &args.namespace)?;
        errors.into_iter().next().map_or(Ok(()), Err)?;
    }
    if let Some(environment) = &args.environment {
        input.set_environment(environment);
    }
    let is_meant = |object: &Value| {
        object["kind"] == kind.kind
            && object["metadata"]["name"] == name
            && object["metadata"]["namespace"] == *args.namespace
    };
    let found = input.workloads.iter().find(|found| is_meant(&found.object));
    let found = found.with_context(|| format!("{} {name} not found in namespace {}", kind.kind, args.namespace))?;
    Ok(explained(&found.object, &input.policy_set(scope(args.selector.clone())), &input))
}

fn explained(object: &Value, policies: &PolicySet, input: &Manifests) -> String {
    let workload = Workload::view(object).expect("it was validated when it was read");
    let request = Request::new(Operation::Observe, workload, Timestamp::now());
    explain::workload(&workload, &Evaluation::new(request, policies, &input.facts))
}

/// Reads the workload and everything that decisions about it depend on from the cluster.
async fn from_cluster(args: &Args, kind: &Kind, name: &str, input: &mut Manifests) -> anyhow::Result<()> {
    let client = connect(args.kubeconfig.clone()).await?;
    let workloads: Api<DynamicObject> = Api::namespaced_with(client.clone(), &args.namespace, &resource_of(kind));
    let found = workloads.get(name).await.with_context(|| format!("cannot read {} {name}", kind.kind))?;
    read_around(&client, &args.namespace, input).await?;
    input.add_text("the cluster", &json(found, &kind.api_version(), kind.kind)?.to_string(), &args.namespace)?;
    Ok(())
}
