//! Tidegate's own CA: creating it, loading it, and issuing the served certificate.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SerialNumber,
};
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use time::{Duration, OffsetDateTime};

use super::folder::{self, Folder, PemFile, PemPair};
use super::x509::{self, Lifetime};
use super::{CLOCK_SKEW, CertsError, Remedy, crypto_provider};

/// The common name of the CA, which identifies the certificates that Tidegate issued.
pub(super) const NAME: &str = "Tidegate CA";

const CA_LIFE: Duration = Duration::days(3650);
const LEAF_LIFE: Duration = Duration::days(365);

/// A CA with its private key.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) roots: RootCertStore,
    pub(super) lifetime: Lifetime,
}

impl Authority {
    /// Creates a CA, without writing it.
    pub(super) fn create(folder: &Folder, now: OffsetDateTime) -> Result<PemPair, CertsError> {
        let mut cert = folder.file(folder::CA_CERT, String::new());
        let failed = |source| CertsError::Issue { path: cert.path.clone(), source };
        let params = ca_params(serial(&cert)?, now);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        cert.text = params.self_signed(&key).map_err(failed)?.pem();
        Ok(PemPair { cert, key: folder.file(folder::CA_KEY, key.serialize_pem()) })
    }

    /// Loads a CA; if its file has several certificates, the first is the issuer.
    pub(super) fn load(files: &PemPair) -> Result<Self, CertsError> {
        let remedy = Remedy::RemakeAuthority;
        let der = x509::certificates(&files.cert, remedy)?.swap_remove(0);
        let parsed = x509::parse(&der, &files.cert, remedy)?;
        if !parsed.is_ca() {
            return Err(CertsError::NotAuthority { path: files.cert.path.clone() });
        }
        let key = KeyPair::from_pem(&files.key.text).map_err(|error| x509::damaged(&files.key, remedy, error))?;
        if key.subject_public_key_info() != parsed.public_key().raw {
            return Err(CertsError::KeyMismatch { path: files.key.path.clone() });
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| x509::damaged(&files.cert, remedy, error))?;
        let roots = x509::root(&der, &files.cert, remedy)?;
        Ok(Self { issuer, roots, lifetime: Lifetime::of(&parsed) })
    }

    /// Issues a certificate for `names` with a new key, without writing it.
    pub(super) fn issue(
        &self,
        folder: &Folder,
        names: &[ServerName<'static>],
        now: OffsetDateTime,
    ) -> Result<PemPair, CertsError> {
        let mut cert = folder.file(folder::LEAF_CERT, String::new());
        let failed = |source| CertsError::Issue { path: cert.path.clone(), source };
        let not_after = self.lifetime.not_after.min(now + LEAF_LIFE);
        let params = leaf_params(names, serial(&cert)?, now, not_after).map_err(failed)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        cert.text = params.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        Ok(PemPair { cert, key: folder.file(folder::LEAF_KEY, key.serialize_pem()) })
    }
}

fn ca_params(serial: SerialNumber, now: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(NAME);
    params.serial_number = Some(serial);
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + CA_LIFE;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(
    names: &[ServerName<'static>],
    serial: SerialNumber,
    now: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Result<CertificateParams, rcgen::Error> {
    let names: Vec<String> = names.iter().map(|name| name.to_str().into_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = common_name("Tidegate webhook");
    params.serial_number = Some(serial);
    params.not_before = now - CLOCK_SKEW;
    params.not_after = not_after;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// Returns a random serial number: 126 random bits below a set bit, so a positive number of fixed length.
fn serial(cert: &PemFile) -> Result<SerialNumber, CertsError> {
    let mut bytes = [0; 16];
    let drawn = crypto_provider().secure_random.fill(&mut bytes);
    drawn.map_err(|_| CertsError::Serial { path: cert.path.clone() })?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
