//! The webhook's serving certificate and the CA by which the API server trusts it, in one folder.
//!
//! | file      | contents                                             | mode |
//! |-----------|------------------------------------------------------|------|
//! | `ca.crt`  | the CA certificate, which goes to `caBundle`          | 0644 |
//! | `ca.key`  | its private key                                       | 0600 |
//! | `tls.crt` | the served certificate, then any intermediates        | 0644 |
//! | `tls.key` | its private key                                       | 0600 |
//!
//! An empty folder is filled at the first start. A folder with everything but `ca.key`, such as a mounted Secret, is
//! managed externally: it is used as it is and never written to.

mod authority;
mod error;
mod folder;
mod leaf;
mod x509;

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use time::{Duration, OffsetDateTime};

pub use self::error::{CertsError, Remedy};

use self::authority::Authority;
use self::folder::{Contents, Folder, PemFile, PemPair};
use self::leaf::Leaf;

/// The tolerated clock skew: certificates are valid from this long ago, and a CA with no more than this left counts as
/// expired.
const CLOCK_SKEW: Duration = Duration::HOUR;

/// The certificates to serve with and to publish.
#[derive(Debug)]
pub struct Certificates {
    /// The served certificate, then any intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the served certificate.
    pub key: PrivateKeyDer<'static>,
    /// The contents of `ca.crt`: the value for `caBundle` before base64.
    pub ca_pem: String,
    /// When the served certificate expires.
    pub not_after: OffsetDateTime,
    /// When a third of the served certificate's lifetime is left; from then on [`load_or_create`] issues another one,
    /// unless the folder is managed externally.
    pub renew_at: OffsetDateTime,
    /// Where they come from.
    pub origin: Origin,
}

/// How [`load_or_create`] obtained the certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Found in the folder, complete and valid.
    Reused,
    /// The CA was found in the folder; the served certificate is new.
    LeafIssued,
    /// The CA and the served certificate are new, so `caBundle` must be updated.
    Created,
    /// The folder is managed externally; Tidegate renews nothing in it.
    Provided,
}

/// Loads the certificates in `dir`, issuing those that are missing or not valid for `names` at `now`.
///
/// Call it again to renew certificates: nothing is written while everything is valid. Names are DNS names or IP
/// addresses. Two processes must not write to the same folder.
///
/// # Errors
///
/// If a file is damaged, half of a pair is missing, or externally managed certificates are not valid. The key of a CA
/// is overwritten only once that CA has expired; otherwise the error says what to delete.
pub fn load_or_create(dir: &Path, names: &[String], now: OffsetDateTime) -> Result<Certificates, CertsError> {
    let names = parse_names(names)?;
    let folder = Folder::new(dir);
    match folder.contents()? {
        Contents::Empty => create(&folder, &names, now),
        Contents::LeafOnly(leaf) => replace_orphan(&folder, &leaf, &names, now),
        Contents::Provided { ca, leaf } => provided(ca, &leaf, &names, now),
        Contents::Own { ca, leaf } => own(&folder, &ca, leaf.as_ref(), &names, now),
    }
}

/// The cryptography provider for keys, signatures and TLS.
pub(crate) fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn parse_names(names: &[String]) -> Result<Vec<ServerName<'static>>, CertsError> {
    if names.is_empty() {
        return Err(CertsError::NoNames);
    }
    names.iter().map(|name| parse_name(name)).collect()
}

/// Parses a name, without the final dot that a DNS name may have: certificates do not include it.
fn parse_name(name: &str) -> Result<ServerName<'static>, CertsError> {
    let plain = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    ServerName::try_from(plain).map_err(|source| CertsError::Name { name: name.to_owned(), source })
}

fn create(folder: &Folder, names: &[ServerName<'static>], now: OffsetDateTime) -> Result<Certificates, CertsError> {
    let ca_files = Authority::create(folder, now)?;
    let ca = Authority::load(&ca_files)?;
    let leaf_files = ca.issue(folder, names, now)?;
    folder.write(&[&leaf_files.key, &leaf_files.cert, &ca_files.key, &ca_files.cert])?;
    let leaf = Leaf::load(&leaf_files, Remedy::RemakeLeaf)?;
    Ok(leaf.into_certificates(ca_files.cert, Origin::Created))
}

/// Replaces a certificate that Tidegate issued and whose CA was deleted; refuses to replace one from another issuer.
fn replace_orphan(
    folder: &Folder,
    leaf: &PemPair,
    names: &[ServerName<'static>],
    now: OffsetDateTime,
) -> Result<Certificates, CertsError> {
    if Leaf::load(leaf, Remedy::RemakeLeaf)?.issuer_name() == Some(authority::NAME) {
        return create(folder, names, now);
    }
    Err(CertsError::ForeignLeaf { path: leaf.cert.path.clone() })
}

fn provided(
    ca: PemFile,
    leaf_files: &PemPair,
    names: &[ServerName<'static>],
    now: OffsetDateTime,
) -> Result<Certificates, CertsError> {
    let roots = x509::roots_valid_at(&ca, now)?;
    let leaf = Leaf::load(leaf_files, Remedy::AskIssuer)?;
    leaf.lifetime.require(&leaf_files.cert.path, Remedy::AskIssuer, now)?;
    leaf.verify(&roots, names, now).map_err(|source| CertsError::Unfit {
        path: leaf_files.cert.path.clone(),
        remedy: Remedy::AskIssuer,
        source,
    })?;
    Ok(leaf.into_certificates(ca, Origin::Provided))
}

fn own(
    folder: &Folder,
    ca_files: &PemPair,
    leaf_files: Option<&PemPair>,
    names: &[ServerName<'static>],
    now: OffsetDateTime,
) -> Result<Certificates, CertsError> {
    let ca = Authority::load(ca_files)?;
    if ca.lifetime.not_after - CLOCK_SKEW <= now {
        return create(folder, names, now);
    }
    ca.lifetime.require(&ca_files.cert.path, Remedy::RemakeAuthority, now)?;
    let found = leaf_files.map(|files| Leaf::load(files, Remedy::RemakeLeaf)).transpose()?;
    match found.filter(|leaf| now < leaf.renew_at() && leaf.verify(&ca.roots, names, now).is_ok()) {
        Some(leaf) => Ok(leaf.into_certificates(ca_files.cert.clone(), Origin::Reused)),
        None => reissue(folder, &ca, &ca_files.cert, names, now),
    }
}

fn reissue(
    folder: &Folder,
    ca: &Authority,
    ca_file: &PemFile,
    names: &[ServerName<'static>],
    now: OffsetDateTime,
) -> Result<Certificates, CertsError> {
    let files = ca.issue(folder, names, now)?;
    folder.write(&[&files.key, &files.cert])?;
    let leaf = Leaf::load(&files, Remedy::RemakeLeaf)?;
    Ok(leaf.into_certificates(ca_file.clone(), Origin::LeafIssued))
}

#[cfg(test)]
mod tests;
