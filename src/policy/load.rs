//! Policies from files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Policy, PolicyError};
use crate::api::ServingPolicy;

/// Why policies cannot be read from files.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or folder cannot be read.
    #[error("cannot read policies from {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not a policy.
    #[error("{path} is not a ServingPolicy")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<serde_saphyr::Error>,
    },
    /// A document is of another kind.
    #[error("{path} has a {found}, but policies are of kind ServingPolicy, apiVersion tidegate.dev/v1alpha1")]
    Kind {
        /// The file.
        path: PathBuf,
        /// Kind and version of the document.
        found: String,
    },
    /// A policy does not make sense.
    #[error("policy `{policy}` in {path} cannot be put in force")]
    Compile {
        /// The file.
        path: PathBuf,
        /// The policy's name.
        policy: String,
        /// Why.
        source: Box<PolicyError>,
    },
    /// There is nothing to read.
    #[error("{path} holds no .yaml or .yml file")]
    Empty {
        /// The folder.
        path: PathBuf,
    },
}

/// Loads the policies of a file, or of every `.yaml` and `.yml` file of a folder, in the order of their names.
///
/// # Errors
/// Says which file cannot be read, is no policy, or holds one that does not make sense.
pub fn load(path: &Path) -> Result<Vec<Policy>, LoadError> {
    let mut policies = Vec::new();
    for file in files(path)? {
        let text = fs::read_to_string(&file).map_err(|source| LoadError::Read { path: file.clone(), source })?;
        for policy in parse(&file, &text)? {
            let compiled = Policy::compile(&policy).map_err(|source| LoadError::Compile {
                path: file.clone(),
                policy: policy.metadata.name.clone().unwrap_or_default(),
                source: Box::new(source),
            })?;
            policies.push(compiled);
        }
    }
    Ok(policies)
}

/// Parses the policies of one YAML text; `path` is for messages.
///
/// # Errors
/// Says what is not a policy, and where.
pub fn parse(path: &Path, text: &str) -> Result<Vec<ServingPolicy>, LoadError> {
    let failed = |source| LoadError::Parse { path: path.to_owned(), source: Box::new(source) };
    let kinds: Vec<TypeMeta> = serde_saphyr::from_multiple(text).map_err(failed)?;
    if let Some(other) = kinds.iter().find(|found| !found.is_policy()) {
        return Err(LoadError::Kind { path: path.to_owned(), found: format!("{} {}", other.kind, other.api_version) });
    }
    serde_saphyr::from_multiple(text).map_err(failed)
}

/// What a document says that it is.
#[derive(serde::Deserialize)]
struct TypeMeta {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    #[serde(default)]
    kind: String,
}

impl TypeMeta {
    fn is_policy(&self) -> bool {
        self.api_version == "tidegate.dev/v1alpha1" && self.kind == "ServingPolicy"
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed)?;
    let is_yaml = |file: &PathBuf| file.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(is_yaml).collect();
    files.sort();
    if files.is_empty() { Err(LoadError::Empty { path: path.to_owned() }) } else { Ok(files) }
}
