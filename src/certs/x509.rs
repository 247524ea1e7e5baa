//! Parses certificates: PEM blocks, dates and trust anchors.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;

use super::folder::PemFile;
use super::{CertsError, Remedy};

/// The dates between which a certificate is valid.
#[derive(Clone, Copy)]
pub(super) struct Lifetime {
    pub(super) not_before: OffsetDateTime,
    pub(super) not_after: OffsetDateTime,
}

impl Lifetime {
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { not_before: validity.not_before.to_datetime(), not_after: validity.not_after.to_datetime() }
    }

    /// When a third of the lifetime is left.
    pub(super) fn renew_at(&self) -> OffsetDateTime {
        self.not_after - (self.not_after - self.not_before) / 3
    }

    /// Requires the certificate in `path` to be valid at `now`.
    pub(super) fn require(&self, path: &Path, remedy: Remedy, now: OffsetDateTime) -> Result<(), CertsError> {
        let Self { not_before, not_after } = *self;
        let path = || path.to_owned();
        if now < not_before {
            return Err(CertsError::NotYetValid { path: path(), not_before, remedy });
        }
        if now > not_after {
            return Err(CertsError::Expired { path: path(), not_after, remedy });
        }
        Ok(())
    }
}

/// Returns the certificates in a PEM file, at least one.
pub(super) fn certificates(file: &PemFile, remedy: Remedy) -> Result<Vec<CertificateDer<'static>>, CertsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(file.text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(file, remedy, error))?;
    if found.is_empty() {
        return Err(damaged(file, remedy, "no CERTIFICATE block found"));
    }
    Ok(found)
}

/// Parses one certificate of a file.
pub(super) fn parse<'a>(
    der: &'a CertificateDer<'_>,
    file: &PemFile,
    remedy: Remedy,
) -> Result<X509Certificate<'a>, CertsError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(damaged(file, remedy, error)),
    }
}

/// Returns a root store with one certificate of a file.
pub(super) fn root(der: &CertificateDer<'static>, file: &PemFile, remedy: Remedy) -> Result<RootCertStore, CertsError> {
    let mut roots = RootCertStore::empty();
    roots.add(der.clone()).map_err(|error| damaged(file, remedy, error))?;
    Ok(roots)
}

/// Returns a root store with the CA certificates of a file that are valid now, at least one.
pub(super) fn roots_valid_at(file: &PemFile, now: OffsetDateTime) -> Result<RootCertStore, CertsError> {
    let mut roots = RootCertStore::empty();
    let mut refused = None;
    for der in certificates(file, Remedy::AskIssuer)? {
        let lifetime = Lifetime::of(&parse(&der, file, Remedy::AskIssuer)?);
        match lifetime.require(&file.path, Remedy::AskIssuer, now) {
            Ok(()) => roots.add(der).map_err(|error| damaged(file, Remedy::AskIssuer, error))?,
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if roots.is_empty() => Err(error),
        _ => Ok(roots),
    }
}

/// Converts a time for the verifier; times before 1970 count as 1970.
pub(super) fn unix_time(now: OffsetDateTime) -> UnixTime {
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

pub(super) fn damaged(
    file: &PemFile,
    remedy: Remedy,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> CertsError {
    CertsError::Damaged { path: file.path.clone(), remedy, source: source.into() }
}
