//! The served certificate: reading it, and verifying it as a client would.

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;

use super::folder::{PemFile, PemPair};
use super::x509::{self, Lifetime};
use super::{Certificates, CertsError, Origin, Remedy, crypto_provider};

/// A served certificate with its key, not verified yet.
pub(super) struct Leaf {
    certified: CertifiedKey,
    key: PrivateKeyDer<'static>,
    issuer_name: Option<String>,
    pub(super) lifetime: Lifetime,
}

impl Leaf {
    pub(super) fn load(files: &PemPair, remedy: Remedy) -> Result<Self, CertsError> {
        let chain = x509::certificates(&files.cert, remedy)?;
        let parsed = x509::parse(&chain[0], &files.cert, remedy)?;
        let (issuer_name, lifetime) = (issuer_name(&parsed), Lifetime::of(&parsed));
        let (certified, key) = certify(chain, &files.key, remedy)?;
        Ok(Self { certified, key, issuer_name, lifetime })
    }

    /// The common name of its issuer.
    pub(super) fn issuer_name(&self) -> Option<&str> {
        self.issuer_name.as_deref()
    }

    pub(super) fn renew_at(&self) -> OffsetDateTime {
        self.lifetime.renew_at()
    }

    /// Verifies as a client would: the key, the chain up to `roots`, the dates, the purpose and every name.
    pub(super) fn verify(
        &self,
        roots: &RootCertStore,
        names: &[ServerName<'static>],
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        match self.certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(error) => return Err(error),
        }
        let leaf = ParsedCertificate::try_from(&self.certified.cert[0])?;
        let algorithms = crypto_provider().signature_verification_algorithms.all;
        let intermediates = &self.certified.cert[1..];
        verify_server_cert_signed_by_trust_anchor(&leaf, roots, intermediates, x509::unix_time(now), algorithms)?;
        names.iter().try_for_each(|name| verify_server_name(&leaf, name))
    }

    pub(super) fn into_certificates(self, ca: PemFile, origin: Origin) -> Certificates {
        Certificates {
            not_after: self.lifetime.not_after,
            renew_at: self.renew_at(),
            chain: self.certified.cert,
            key: self.key,
            ca_pem: ca.text,
            origin,
        }
    }
}

fn certify(
    chain: Vec<CertificateDer<'static>>,
    file: &PemFile,
    remedy: Remedy,
) -> Result<(CertifiedKey, PrivateKeyDer<'static>), CertsError> {
    let key =
        PrivateKeyDer::from_pem_slice(file.text.as_bytes()).map_err(|error| x509::damaged(file, remedy, error))?;
    let signing = crypto_provider()
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|error| x509::damaged(file, remedy, error))?;
    Ok((CertifiedKey::new(chain, signing), key))
}

fn issuer_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let name = certificate.issuer().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}
