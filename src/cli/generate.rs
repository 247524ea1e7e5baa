//! `tidegate generate`: the parts of the repository that follow from the code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::Value;
use tracing::{error, info};

use super::serve::DEFAULT_SELECTOR;
use crate::rbac;
use crate::report::docs;
use crate::webhooks::{self, Endpoint};
use tidegate_engine::api;

/// The arguments of `tidegate generate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to write.
    #[arg(value_enum)]
    what: What,
    /// Only checks that the files are up to date; exits with 1 where one is not.
    #[arg(long)]
    check: bool,
    /// The folder that holds `manifests` and `docs`.
    #[arg(long, default_value = ".", value_name = "DIR")]
    root: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// The CustomResourceDefinitions, in `manifests/base/crds.yaml`.
    Crds,
    /// The webhook configurations, in `manifests/base/webhooks.yaml`.
    Webhooks,
    /// What Tidegate may do in a cluster, in `manifests/base/rbac.yaml`.
    Rbac,
    /// The page of all rules, `docs/rules.md`.
    Rules,
    /// The page of all runtimes, `docs/runtimes.md`.
    Runtimes,
}

impl What {
    fn file(self) -> &'static str {
        match self {
            Self::Crds => "manifests/base/crds.yaml",
            Self::Webhooks => "manifests/base/webhooks.yaml",
            Self::Rbac => "manifests/base/rbac.yaml",
            Self::Rules => "docs/rules.md",
            Self::Runtimes => "docs/runtimes.md",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::Crds => "tidegate generate crds",
            Self::Webhooks => "tidegate generate webhooks",
            Self::Rbac => "tidegate generate rbac",
            Self::Rules => "tidegate generate rules",
            Self::Runtimes => "tidegate generate runtimes",
        }
    }

    fn text(self) -> anyhow::Result<String> {
        let command = self.command();
        match self {
            Self::Crds => manifest(command, &api::crds()),
            Self::Webhooks => {
                let (key, value) = DEFAULT_SELECTOR.split_once('=').expect("the default selector is one label");
                let scope = BTreeMap::from([(key.to_owned(), value.to_owned())]);
                manifest(command, &webhooks::configurations(&scope, &Endpoint::Service))
            }
            Self::Rbac => Ok(format!("{}{}", head(command), rbac::manifest())),
            Self::Rules => Ok(page(command, &docs::rules())),
            Self::Runtimes => Ok(page(command, &docs::runtimes())),
        }
    }
}

fn head(command: &str) -> String {
    format!("# Written by `{command}`. Do not edit.\n")
}

fn manifest(command: &str, objects: &[Value]) -> anyhow::Result<String> {
    let mut text = head(command);
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(object)?);
    }
    Ok(text)
}

fn page(command: &str, text: &str) -> String {
    format!("<!-- Written by `{command}`. Do not edit. -->\n{text}")
}

/// Writes or checks a file.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { what, check, root } = args;
    let path = root.join(what.file());
    let text = what.text()?;
    if !check {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        info!(path = %path.display(), "written");
        return Ok(ExitCode::SUCCESS);
    }
    if is_up_to_date(&path, &text)? {
        return Ok(ExitCode::SUCCESS);
    }
    error!(path = %path.display(), "out of date: run `{}`", what.command());
    Ok(ExitCode::from(1))
}

fn is_up_to_date(path: &Path, text: &str) -> anyhow::Result<bool> {
    let found = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(found == text)
}
