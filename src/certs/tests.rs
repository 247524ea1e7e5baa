//! Tests of every state of the folder, with time as a parameter.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};

use super::*;

mod provided;

const FILES: [&str; 4] = ["ca.crt", "ca.key", "tls.crt", "tls.key"];
const SERVICE: &str = "tidegate.tidegate-system.svc";

fn start() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_795_000_000).unwrap()
}

fn days(days: i64) -> OffsetDateTime {
    start() + Duration::days(days)
}

/// A temporary folder for certificates.
struct Fixture {
    root: TempDir,
}

impl Fixture {
    fn empty() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn filled() -> Self {
        let fixture = Self::empty();
        fixture.load(&[SERVICE], start()).unwrap();
        fixture
    }

    fn provided() -> Self {
        Self::filled().without(&["ca.key"])
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("certs")
    }

    fn load(&self, names: &[&str], now: OffsetDateTime) -> Result<Certificates, CertsError> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        load_or_create(&self.dir(), &names, now)
    }

    fn load_error(&self, now: OffsetDateTime) -> CertsError {
        let before = self.bytes();
        let error = self.load(&[SERVICE], now).unwrap_err();
        assert_eq!(self.bytes(), before, "an error must not change the folder");
        error
    }

    fn bytes(&self) -> [Option<Vec<u8>>; 4] {
        FILES.map(|name| fs::read(self.dir().join(name)).ok())
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join(name)).unwrap()
    }

    fn without(self, names: &[&str]) -> Self {
        for name in names {
            fs::remove_file(self.dir().join(name)).unwrap();
        }
        self
    }

    fn with(self, name: &str, text: &str) -> Self {
        fs::write(self.dir().join(name), text).unwrap();
        self
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.dir().join(name)).unwrap().permissions().mode() & 0o777
    }
}

fn leaf(certificates: &Certificates) -> X509Certificate<'_> {
    X509Certificate::from_der(&certificates.chain[0]).unwrap().1
}

#[test]
fn fills_an_empty_folder() {
    let fixture = Fixture::empty();
    let created = fixture.load(&[SERVICE], start()).unwrap();
    assert_eq!(created.origin, Origin::Created);
    assert_eq!(created.ca_pem, fixture.text("ca.crt"));
    assert!(fixture.bytes().iter().all(Option::is_some));
}

#[test]
fn keys_and_folder_are_private_and_no_temporary_file_is_left() {
    let fixture = Fixture::filled();
    assert_eq!((fixture.mode("ca.key"), fixture.mode("tls.key")), (0o600, 0o600));
    assert_eq!((fixture.mode("ca.crt"), fixture.mode("")), (0o644, 0o700));
    assert_eq!(fs::read_dir(fixture.dir()).unwrap().count(), FILES.len());
}

#[test]
fn leaf_has_the_requested_lifetime_usages_and_names() {
    let created = Fixture::empty().load(&[SERVICE, "10.0.0.1", "::1"], start()).unwrap();
    let leaf = leaf(&created);
    assert_eq!(created.not_after, days(365));
    assert_eq!(leaf.validity().not_before.to_datetime(), start() - Duration::HOUR);
    assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 3);
    assert!(leaf.extended_key_usage().unwrap().unwrap().value.server_auth);
    assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
    assert!(leaf.raw_serial().len() == 16 && !leaf.is_ca());
}

#[test]
fn leaf_refers_to_the_ca_by_key_identifier() {
    let fixture = Fixture::filled();
    let created = fixture.load(&[SERVICE], start()).unwrap();
    let ca = x509_parser::pem::parse_x509_pem(created.ca_pem.as_bytes()).unwrap().1;
    let ca = ca.parse_x509().unwrap();
    let own = ca.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(own) => Some(own.0),
        _ => None,
    });
    let leaf = leaf(&created);
    let referred = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(issuer) => issuer.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    });
    assert!(own.is_some() && own == referred);
    assert!(ca.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert_eq!(ca.validity().not_after.to_datetime(), days(3650));
}

#[test]
fn reuses_valid_files_unchanged() {
    let fixture = Fixture::filled();
    let before = fixture.bytes();
    let found = fixture.load(&[SERVICE], days(200)).unwrap();
    assert_eq!(found.origin, Origin::Reused);
    assert_eq!(fixture.bytes(), before);
}

#[test]
fn accepts_a_subset_of_the_names_and_another_spelling() {
    let fixture = Fixture::empty();
    fixture.load(&[SERVICE, "localhost"], start()).unwrap();
    let found = fixture.load(&["Tidegate.tidegate-system.SVC."], start()).unwrap();
    assert_eq!(found.origin, Origin::Reused);
}

#[test]
fn leaf_is_reissued_exactly_when_a_third_of_its_life_is_left() {
    let fixture = Fixture::filled();
    let created = fixture.load(&[SERVICE], start()).unwrap();
    let just_before = fixture.load(&[SERVICE], created.renew_at - Duration::SECOND).unwrap();
    assert_eq!(just_before.origin, Origin::Reused);
    let renewed = fixture.load(&[SERVICE], created.renew_at).unwrap();
    assert_eq!(renewed.origin, Origin::LeafIssued);
    assert_eq!(renewed.ca_pem, created.ca_pem);
    assert_ne!(leaf(&renewed).raw_serial(), leaf(&created).raw_serial());
}

#[test]
fn leaf_is_reissued_for_a_further_name() {
    let fixture = Fixture::filled();
    let found = fixture.load(&[SERVICE, "127.0.0.1"], start()).unwrap();
    assert_eq!(found.origin, Origin::LeafIssued);
    assert_eq!(fixture.load(&[SERVICE, "127.0.0.1"], start()).unwrap().origin, Origin::Reused);
}

#[test]
fn leaf_is_issued_if_only_the_ca_exists() {
    let fixture = Fixture::filled().without(&["tls.crt", "tls.key"]);
    assert_eq!(fixture.load(&[SERVICE], start()).unwrap().origin, Origin::LeafIssued);
}

#[test]
fn leaf_of_another_ca_is_reissued() {
    let other = Fixture::filled();
    let fixture = Fixture::filled().with("tls.crt", &other.text("tls.crt")).with("tls.key", &other.text("tls.key"));
    assert_eq!(fixture.load(&[SERVICE], start()).unwrap().origin, Origin::LeafIssued);
}

#[test]
fn leaf_with_the_key_of_another_is_reissued() {
    let fixture = Fixture::filled().with("tls.key", &Fixture::filled().text("tls.key"));
    assert_eq!(fixture.load(&[SERVICE], start()).unwrap().origin, Origin::LeafIssued);
}

#[test]
fn leaf_does_not_outlive_its_ca() {
    let fixture = Fixture::filled();
    let late = fixture.load(&[SERVICE], days(3600)).unwrap();
    assert_eq!(late.origin, Origin::LeafIssued);
    assert_eq!(late.not_after, days(3650));
}

#[test]
fn expired_ca_is_replaced_along_with_its_leaf() {
    let fixture = Fixture::filled();
    let old = fixture.text("ca.crt");
    let created = fixture.load(&[SERVICE], days(3650) - CLOCK_SKEW).unwrap();
    assert_eq!(created.origin, Origin::Created);
    assert_ne!(created.ca_pem, old);
}

#[test]
fn a_new_leaf_is_not_due_for_renewal_at_once() {
    let fixture = Fixture::filled();
    let last_moment = days(3650) - CLOCK_SKEW - Duration::SECOND;
    let created = fixture.load(&[SERVICE], last_moment).unwrap();
    assert_eq!(created.origin, Origin::LeafIssued);
    assert!(created.renew_at > last_moment);
}

#[test]
fn recreates_everything_after_the_ca_is_deleted() {
    let fixture = Fixture::filled().without(&["ca.crt", "ca.key"]);
    assert_eq!(fixture.load(&[SERVICE], start()).unwrap().origin, Origin::Created);
}

#[test]
fn keeps_a_leaf_of_another_issuer_without_its_ca() {
    let key = KeyPair::generate().unwrap();
    let foreign = CertificateParams::new([SERVICE.to_owned()]).unwrap().self_signed(&key).unwrap();
    let fixture = Fixture::filled()
        .without(&["ca.crt", "ca.key"])
        .with("tls.crt", &foreign.pem())
        .with("tls.key", &key.serialize_pem());
    assert!(matches!(fixture.load_error(start()), CertsError::ForeignLeaf { .. }));
}

#[test]
fn names_the_missing_file_of_a_pair() {
    for missing in ["ca.crt", "tls.crt", "tls.key"] {
        let error = Fixture::filled().without(&[missing]).load_error(start());
        assert!(
            matches!(&error, CertsError::MissingHalf { path, .. } if path.ends_with(missing)),
            "{missing}: {error}"
        );
    }
}

#[test]
fn rejects_a_ca_certificate_alone() {
    let error = Fixture::filled().without(&["ca.key", "tls.crt", "tls.key"]).load_error(start());
    assert!(matches!(&error, CertsError::MissingHalf { path, .. } if path.ends_with("ca.key")), "{error}");
}

#[test]
fn names_a_damaged_file_and_a_remedy() {
    for name in FILES {
        let error = Fixture::filled().with(name, "-----BEGIN NOTHING-----\n").load_error(start());
        assert!(matches!(&error, CertsError::Damaged { path, .. } if path.ends_with(name)), "{name}: {error}");
        assert!(error.to_string().contains("delete both"), "{error}");
    }
}

#[test]
fn truncated_blocks_count_as_damaged() {
    let block = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    for name in ["ca.crt", "tls.crt"] {
        assert!(matches!(Fixture::filled().with(name, block).load_error(start()), CertsError::Damaged { .. }));
    }
    let block = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    for name in ["ca.key", "tls.key"] {
        assert!(matches!(Fixture::filled().with(name, block).load_error(start()), CertsError::Damaged { .. }));
    }
}

#[test]
fn rejects_the_key_of_another_ca() {
    let fixture = Fixture::filled().with("ca.key", &Fixture::filled().text("ca.key"));
    assert!(matches!(fixture.load_error(start()), CertsError::KeyMismatch { .. }));
}

#[test]
fn rejects_a_ca_file_with_an_ordinary_certificate() {
    let filled = Fixture::filled();
    let (cert, key) = (filled.text("tls.crt"), filled.text("tls.key"));
    let fixture = filled.with("ca.crt", &cert).with("ca.key", &key);
    assert!(matches!(fixture.load_error(start()), CertsError::NotAuthority { .. }));
}

#[test]
fn rejects_a_ca_that_is_not_valid_yet() {
    let error = Fixture::filled().load_error(days(-1));
    assert!(matches!(&error, CertsError::NotYetValid { .. }) && error.to_string().contains("clock"), "{error}");
}

#[test]
fn names_are_required_and_validated() {
    let fixture = Fixture::empty();
    assert!(matches!(fixture.load(&[], start()), Err(CertsError::NoNames)));
    for name in ["", "two words", "*.svc", "a..b"] {
        assert!(matches!(fixture.load(&[name], start()), Err(CertsError::Name { .. })), "{name}");
    }
    assert!(!fixture.dir().exists());
}

#[test]
fn ignores_a_temporary_file_left_by_a_killed_process() {
    let fixture = Fixture::filled().with("tls.key.tmp", "half a k").without(&["tls.crt", "tls.key"]);
    fixture.load(&[SERVICE], start()).unwrap();
    assert_eq!(fixture.mode("tls.key"), 0o600);
    assert_eq!(fs::read_dir(fixture.dir()).unwrap().count(), FILES.len());
}

#[test]
fn error_names_a_folder_that_cannot_be_created() {
    let fixture = Fixture::empty();
    fs::write(fixture.dir(), "a file").unwrap();
    let error = fixture.load(&[SERVICE], start()).unwrap_err();
    assert!(error.to_string().contains("certs"), "{error}");
}

#[test]
fn debug_output_hides_the_key() {
    let created = Fixture::empty().load(&[SERVICE], start()).unwrap();
    let PrivateKeyDer::Pkcs8(key) = &created.key else { panic!("not PKCS#8") };
    let first = format!("{:?}", &key.secret_pkcs8_der()[..20]);
    assert!(!format!("{created:?}").contains(first.trim_matches(['[', ']'])));
}
