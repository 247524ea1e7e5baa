//! The four files on disk: reading and writing them.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{CertsError, Remedy};

pub(super) const CA_CERT: &str = "ca.crt";
pub(super) const CA_KEY: &str = "ca.key";
pub(super) const LEAF_CERT: &str = "tls.crt";
pub(super) const LEAF_KEY: &str = "tls.key";

/// The folder of the certificates; it need not exist yet.
pub(super) struct Folder<'a> {
    dir: &'a Path,
}

/// The text and path of a PEM file, which need not exist yet.
#[derive(Clone)]
pub(super) struct PemFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// A certificate and its private key.
pub(super) struct PemPair {
    pub(super) cert: PemFile,
    pub(super) key: PemFile,
}

/// Which of the files exist, and so whether the folder is Tidegate's own.
pub(super) enum Contents {
    Empty,
    LeafOnly(PemPair),
    Provided { ca: PemFile, leaf: PemPair },
    Own { ca: PemPair, leaf: Option<PemPair> },
}

impl<'a> Folder<'a> {
    pub(super) fn new(dir: &'a Path) -> Self {
        Self { dir }
    }

    /// Returns a file of this folder with this text, without writing it.
    pub(super) fn file(&self, name: &str, text: String) -> PemFile {
        PemFile { path: self.dir.join(name), text }
    }

    pub(super) fn contents(&self) -> Result<Contents, CertsError> {
        let (ca_cert, ca_key) = (self.read(CA_CERT)?, self.read(CA_KEY)?);
        let is_own = ca_key.is_some() || ca_cert.is_none();
        let leaf = self.leaf(if is_own { Remedy::RemakeLeaf } else { Remedy::AskIssuer })?;
        match (ca_cert, ca_key, leaf) {
            (None, None, None) => Ok(Contents::Empty),
            (None, None, Some(leaf)) => Ok(Contents::LeafOnly(leaf)),
            (Some(ca), None, Some(leaf)) => Ok(Contents::Provided { ca, leaf }),
            (Some(cert), Some(key), leaf) => Ok(Contents::Own { ca: PemPair { cert, key }, leaf }),
            (Some(cert), None, None) => Err(self.missing(CA_KEY, cert, Remedy::RemakeAuthority)),
            (None, Some(key), _) => Err(self.missing(CA_CERT, key, Remedy::RemakeAuthority)),
        }
    }

    /// Replaces the files atomically, one by one.
    pub(super) fn write(&self, files: &[&PemFile]) -> Result<(), CertsError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(self.dir).map_err(write_error(self.dir))?;
        let staged = files.iter().map(|file| Staged::write(file)).collect::<Result<Vec<_>, _>>()?;
        staged.iter().try_for_each(Staged::publish)
    }

    fn leaf(&self, remedy: Remedy) -> Result<Option<PemPair>, CertsError> {
        match (self.read(LEAF_CERT)?, self.read(LEAF_KEY)?) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some(PemPair { cert, key })),
            (Some(cert), None) => Err(self.missing(LEAF_KEY, cert, remedy)),
            (None, Some(key)) => Err(self.missing(LEAF_CERT, key, remedy)),
        }
    }

    fn read(&self, name: &str) -> Result<Option<PemFile>, CertsError> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            // Bytes that are not text contain no PEM block, and are reported as damaged later.
            Ok(bytes) => Ok(Some(PemFile { path, text: String::from_utf8_lossy(&bytes).into_owned() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CertsError::Read { path, source }),
        }
    }

    fn missing(&self, name: &str, present: PemFile, remedy: Remedy) -> CertsError {
        CertsError::MissingHalf { path: self.dir.join(name), present: present.path, remedy }
    }
}

/// A temporary file next to its target, deleted unless it is published.
struct Staged<'a> {
    temporary: PathBuf,
    path: &'a Path,
}

impl<'a> Staged<'a> {
    fn write(file: &'a PemFile) -> Result<Self, CertsError> {
        let staged = Self { temporary: file.path.with_added_extension("tmp"), path: &file.path };
        staged.fill(&file.text).map_err(write_error(&staged.temporary))?;
        Ok(staged)
    }

    /// Writes the temporary file. One left by a killed process is deleted first: opening it would keep its mode.
    fn fill(&self, text: &str) -> io::Result<()> {
        let _ = fs::remove_file(&self.temporary);
        let mode = if self.path.extension().is_some_and(|extension| extension == "key") { 0o600 } else { 0o644 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&self.temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    fn publish(&self) -> Result<(), CertsError> {
        fs::rename(&self.temporary, self.path).map_err(write_error(self.path))
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> CertsError {
    let path = path.to_owned();
    move |source| CertsError::Write { path, source }
}
