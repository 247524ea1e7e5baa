//! `tidegate test`: runs the tests of policies.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::files::{add_policies, exit_code, files, print, read};
use super::selector::{DEFAULT_SELECTOR, Selector, scope};
use crate::manifests::Manifests;
use crate::policy_tests::Suite;
use crate::report::policy_tests::Summary;
use tidegate_engine::policy::Scope;

/// The arguments of `tidegate test`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Test files, or folders of them.
    #[arg(required = true, value_name = "DIR")]
    paths: Vec<PathBuf>,
    /// The labels that make a workload a model server; may be repeated.
    #[arg(long, default_value = DEFAULT_SELECTOR, value_delimiter = ';', value_name = "KEY=VALUE")]
    selector: Vec<Selector>,
}

/// Runs tests. Exits with 0 if all pass, with 1 otherwise.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { paths, selector } = args;
    let scope = scope(selector);
    let (mut summary, mut text) = (Summary::default(), String::new());
    for path in &paths {
        for file in files(path)? {
            text.push_str(&suite(&file, &scope, &mut summary).with_context(|| file.display().to_string())?);
        }
    }
    if summary.passed + summary.failed == 0 {
        bail!("no tests found in the input");
    }
    print(&format!("{text}\n{}", summary.text()))?;
    Ok(exit_code(summary.failed > 0))
}

fn suite(file: &Path, scope: &Scope, summary: &mut Summary) -> anyhow::Result<String> {
    let suite: Suite = serde_saphyr::from_str(&read(file)?)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut text = format!("{}\n", file.display());
    for test in &suite.tests {
        let mut input = Manifests::new();
        for policy in &suite.policies {
            add_policies(&mut input, policy, folder)?;
        }
        let outcome = test.run(input, scope.clone(), |resource| text_of(resource, folder));
        text.push_str(&summary.add(&test.name, &outcome.with_context(|| test.name.clone())?));
    }
    Ok(text)
}

/// Returns the text of an object: reads a file, or serializes an inline object.
fn text_of(resource: &Value, folder: &Path) -> anyhow::Result<String> {
    match resource {
        Value::String(file) => read(&folder.join(file)),
        object => Ok(object.to_string()),
    }
}
