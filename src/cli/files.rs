//! Input and output of commands: files, standard input, standard output and exit codes.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::manifests::{ManifestError, Manifests, decode};
use tidegate_engine::policy::{SHIPPED, shipped};

/// Adds policies: the shipped one with this name, a file, or every YAML file of a folder.
pub(super) fn add_policies(input: &mut Manifests, name: &str, folder: &Path) -> anyhow::Result<()> {
    if let Some(text) = shipped(name) {
        return Ok(input.add_text(name, text, "")?);
    }
    let path = folder.join(name);
    if !path.exists() {
        let known: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
        bail!("policy {name} not found: must be a file, a folder, or one of {}", known.join(", "));
    }
    let before = input.policies.len();
    for file in files(&path)? {
        input.add_text(&file.display().to_string(), &read(&file)?, "")?;
    }
    if input.policies.len() == before {
        bail!("no ServingPolicy found in {}", path.display());
    }
    Ok(())
}

/// Adds the objects of files and folders, as far as they are valid, and returns what is wrong with the others; `-` is
/// standard input.
pub(super) fn add_objects(
    input: &mut Manifests,
    paths: &[PathBuf],
    namespace: &str,
) -> anyhow::Result<Vec<ManifestError>> {
    let mut errors = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
            errors.extend(input.add_all("-", &bytes, namespace));
            continue;
        }
        for file in files(path)? {
            errors.extend(input.add_all(&file.display().to_string(), &bytes(&file)?, namespace));
        }
    }
    Ok(errors)
}

/// Returns the file, or the YAML and JSON files of the folder and its subfolders, sorted by name.
pub(super) fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = || format!("cannot read {}", path.display());
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path).with_context(failed)? {
        entries.push(entry.with_context(failed)?.path());
    }
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let is_object =
            entry.extension().is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known));
        if entry.is_dir() {
            found.extend(files(&entry)?);
        } else if is_object {
            found.push(entry);
        }
    }
    Ok(found)
}

/// Reads a text file.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    let bytes = bytes(path)?;
    let text = decode(&bytes).map_err(anyhow::Error::msg).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.into_owned())
}

fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes to standard output; ignores a closed pipe, such as to `head`.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write the result"),
        _ => Ok(()),
    }
}

/// Returns 1 if a command has findings, else 0.
pub(super) fn exit_code(has_findings: bool) -> ExitCode {
    if has_findings { ExitCode::from(1) } else { ExitCode::SUCCESS }
}
