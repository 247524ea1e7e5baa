//! `tidegate discover`: lists the model servers that no selector selects, in a cluster or in files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

use super::cluster::{connect, list, policies_if_served, workloads};
use super::files::{add_objects, add_policies, exit_code, print};
use super::selector::{DEFAULT_SELECTOR, Selector, scope};
use crate::manifests::{Found, ManifestError, Manifests};
use crate::report::plural;
use crate::webhooks::is_excluded;
use crate::webhooks::projects::{PROJECTS, Project};
use tidegate_engine::api::RUNTIME_ANNOTATION;
use tidegate_engine::facts::Facts;
use tidegate_engine::policy::{Labels, PolicySet, Scope};
use tidegate_engine::runtimes::{NO_RUNTIME, Provenance, Runtimes};
use tidegate_engine::workload::Workload;

/// The arguments of `tidegate discover`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// YAML or JSON files or folders to search instead of the cluster; `-` is standard input.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Policies whose runtimes are recognised too: a file, a folder, or the name of a shipped one. Default: those of the
    /// cluster.
    #[arg(long, value_name = "POLICY")]
    policy: Vec<String>,
    /// The namespace to search. Default: all; in files, `default` is that of objects that do not set one.
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// The labels that make a workload a model server; may be repeated.
    #[arg(long, default_value = DEFAULT_SELECTOR, value_delimiter = ';', value_name = "KEY=VALUE")]
    selector: Vec<Selector>,
    /// The kubeconfig to use instead of $KUBECONFIG or ~/.kube/config.
    #[arg(long, env = "TIDEGATE_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Lists model servers. Exits with 0 if every one is selected, with 1 otherwise.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { files, policy, namespace, selector, kubeconfig } = args;
    let mut input = Manifests::new();
    for name in &policy {
        add_policies(&mut input, name, Path::new("."))?;
    }
    let is_cluster = files.is_empty();
    let errors = if is_cluster {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(from_cluster(kubeconfig, namespace.as_deref(), &mut input))?
    } else {
        add_objects(&mut input, &files, namespace.as_deref().unwrap_or("default"))?
    };
    let policies = input.policy_set(scope(selector));
    let mut text = String::new();
    for error in &errors {
        let _ = writeln!(text, "{error}");
    }
    let mut count = 0;
    for found in &input.workloads {
        let workload = Workload::view(&found.object)?;
        if let Some(evidence) = unselected(&workload, &policies, &input.facts) {
            count += 1;
            text.push_str(&paragraph(found, &workload, &evidence, policies.scope(), is_cluster));
        }
    }
    print(&match count {
        0 if errors.is_empty() => "every model server is selected\n".to_owned(),
        0 => format!("{text}\nevery other model server is selected\n"),
        _ => format!("{text}\n{} not selected\n", plural(count, "model server")),
    })?;
    Ok(exit_code(count + errors.len() > 0))
}

/// Returns why a workload is a model server, if it is one that nothing selects and that Tidegate would manage.
fn unselected(workload: &Workload, policies: &PolicySet, facts: &Facts) -> Option<String> {
    let is_other = workload.annotation(RUNTIME_ANNOTATION) == Some(NO_RUNTIME)
        || workload.left_alone().is_some()
        || workload.is_being_deleted()
        || is_excluded(workload.namespace());
    if is_other || policies.covers(workload, facts) {
        return None;
    }
    let effective = policies.resolve(workload, facts);
    let runtimes = effective.as_ref().map_or_else(|| Runtimes::shipped(), |effective| effective.runtimes());
    let recognition = runtimes.recognise(workload);
    let recognised = recognition.view(workload);
    let container = recognised.container.map(|container| (container.name(), container.image().text()));
    match (recognition.name(), recognition.provenance(), container) {
        (Some(name), Provenance::Declared, _) => Some(format!("{name}, by the annotation {RUNTIME_ANNOTATION}")),
        (Some(name), Provenance::Command(command), Some((container, _))) => {
            Some(format!("{name}, by the command `{command}` of container {container}"))
        }
        (Some(name), Provenance::Image, Some((container, image))) => {
            Some(format!("{name}, by the image {image} of container {container}"))
        }
        _ => PROJECTS.iter().find_map(|project| marked(workload, project)),
    }
}

/// Returns by which label of a project a workload or its pods are model servers.
fn marked(workload: &Workload, project: &Project) -> Option<String> {
    let (name, pods) = (project.name, &workload.template()["metadata"]["labels"]);
    project.labels.iter().find_map(|(key, value)| match workload.label(key) {
        Some(found) if found == *value => Some(format!("a server of {name}, by its label {key}={value}")),
        _ if pods[*key] == *value => Some(format!("a server of {name}, by the label {key}={value} of its pods")),
        _ => None,
    })
}

fn paragraph(found: &Found, workload: &Workload, evidence: &str, scope: &Scope, is_cluster: bool) -> String {
    let (kind, namespace, name) = (workload.kind(), workload.namespace(), workload.shown_name());
    let labels = best(workload, scope);
    let is_set = labels.keys().any(|key| workload.label(key).is_some());
    let mut text = if is_cluster { String::new() } else { format!("{}: ", found.file) };
    let _ = writeln!(text, "{kind} {namespace}/{name}: {evidence}");
    let _ = if is_cluster {
        let resource = kind.to_lowercase();
        let overwrite = if is_set { " --overwrite" } else { "" };
        let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        writeln!(text, "  kubectl label {resource} {name} --namespace {namespace}{overwrite} {}", pairs.join(" "))
    } else {
        let fields: Vec<String> = labels.iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
        writeln!(text, "  set in metadata.labels: {{{}}}", fields.join(", "))
    };
    for project in PROJECTS.iter().filter(|project| has_own_label(workload, project)) {
        let _ = writeln!(text, "  or install manifests/selectors/{0}, which selects what {0} labels", project.name);
    }
    text
}

fn has_own_label(workload: &Workload, project: &Project) -> bool {
    project.labels.iter().any(|(key, value)| workload.label(key) == Some(value))
}

/// Returns the labels to set: those that the pods have already, else the first that need no other value to be replaced.
fn best(workload: &Workload, scope: &Scope) -> Labels {
    let pods = &workload.template()["metadata"]["labels"];
    let of_pods = |labels: &&Labels| labels.iter().all(|(key, value)| pods[key.as_str()] == value.as_str());
    let is_free = |labels: &&Labels| labels.keys().all(|key| workload.label(key).is_none());
    let selectors = || scope.selectors().iter();
    let best = selectors().find(of_pods).or_else(|| selectors().find(is_free)).or_else(|| selectors().next());
    best.cloned().unwrap_or_default()
}

/// Reads the workloads of a namespace or of all, the namespaces, and the policies if there are any.
async fn from_cluster(
    kubeconfig: Option<PathBuf>,
    namespace: Option<&str>,
    input: &mut Manifests,
) -> anyhow::Result<Vec<ManifestError>> {
    let client = connect(kubeconfig).await?;
    let mut objects: Vec<Value> = list(&client, ("", "v1", "Namespace"), None).await?;
    if input.policies.is_empty() {
        objects.extend(policies_if_served(&client).await?);
    }
    objects.extend(workloads(&client, namespace).await?);
    let add = |object: Value| input.add_all("the cluster", object.to_string().as_bytes(), "");
    Ok(objects.into_iter().flat_map(add).collect())
}
