//! `tidegate check`: checks the model servers in files with the engine of the webhooks.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use k8s_openapi::jiff::Timestamp;

use super::files::{add_objects, add_policies, exit_code, print};
use super::selector::{DEFAULT_SELECTOR, Selector, scope};
use crate::manifests::{Manifests, evaluation};
use crate::report::Format;
use crate::report::check::{Results, Tally};
use tidegate_engine::kind;
use tidegate_engine::policy::{PolicyConflicts, PolicySet};
use tidegate_engine::workload::Workload;

/// The arguments of `tidegate check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// YAML or JSON files or folders; `-` is standard input. Namespaces, HorizontalPodAutoscalers, ServingExceptions
    /// and ServingPolicies among the objects are taken into account.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Policies: a file, a folder, or the name of a shipped one. Default: those among the objects, else `serving`.
    #[arg(long, value_name = "POLICY")]
    policy: Vec<String>,
    /// The namespace of objects that do not set one.
    #[arg(long, short, default_value = "default", value_name = "NAME")]
    namespace: String,
    /// The environment of namespaces that do not set one.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// The labels that make a workload a model server; may be repeated.
    #[arg(long, default_value = DEFAULT_SELECTOR, value_delimiter = ';', value_name = "KEY=VALUE")]
    selector: Vec<Selector>,
    /// Exits with 1 on warnings too.
    #[arg(long)]
    strict: bool,
    /// The format of the results.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

/// Checks files. Exits with 0 if nothing is invalid or would be refused, with 1 otherwise.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { files, policy, namespace, environment, selector, strict, format } = args;
    let mut input = Manifests::new();
    let errors = add_objects(&mut input, &files, &namespace)?;
    for name in &policy {
        add_policies(&mut input, name, Path::new("."))?;
    }
    if input.policies.is_empty() {
        add_policies(&mut input, "serving", Path::new("."))?;
    }
    if input.workloads.is_empty() && errors.is_empty() {
        bail!("no {} found in the input ({} other objects)", kind::any_name(), input.others);
    }
    if let Some(environment) = &environment {
        input.set_environment(environment);
    }
    let policies = input.policy_set(scope(selector));
    let mut results = Results { conflicts: conflicts(&policies), ..Results::default() };
    results.add_invalid(errors.iter().map(ToString::to_string));
    for found in &input.workloads {
        let evaluation = evaluation(&found.object, None, Timestamp::now(), &policies, &input.facts);
        results.add(&found.file, &Workload::view(&found.object)?, &evaluation);
    }
    print(&format.render(&results))?;
    let Tally { refused, invalid, warned, .. } = results.summary;
    Ok(exit_code(refused + invalid > 0 || strict && warned > 0))
}

/// Returns the conflicts between policies, each once.
fn conflicts(policies: &PolicySet) -> Vec<String> {
    let mut found = Vec::new();
    for policy in policies.policies() {
        let PolicyConflicts { conflicts, contradictions } = policies.beside(policy);
        for conflict in conflicts.into_iter().chain(contradictions) {
            if !found.contains(&conflict) {
                found.push(conflict);
            }
        }
    }
    found
}
