//! Tests of externally managed folders, such as a mounted Secret.

use super::*;

#[test]
fn provided_files_are_used_as_they_are_until_they_expire() {
    let fixture = Fixture::provided();
    let before = fixture.bytes();
    assert_eq!(fixture.load(&[SERVICE], days(364)).unwrap().origin, Origin::Provided);
    assert_eq!(fixture.bytes(), before);
    assert!(matches!(fixture.load_error(days(366)), CertsError::Expired { path, .. } if path.ends_with("tls.crt")));
}

#[test]
fn rejects_a_provided_ca_that_expired() {
    let error = Fixture::provided().load_error(days(3651));
    assert!(matches!(&error, CertsError::Expired { path, .. } if path.ends_with("ca.crt")), "{error}");
}

#[test]
fn rejects_a_provided_leaf_without_a_served_name() {
    let error = Fixture::provided().load(&[SERVICE, "localhost"], start()).unwrap_err();
    assert!(matches!(&error, CertsError::Unfit { .. }), "{error}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("localhost") && source.contains(SERVICE), "{source}");
}

#[test]
fn rejects_a_provided_leaf_of_another_ca() {
    let fixture = Fixture::provided().with("ca.crt", &Fixture::filled().text("ca.crt"));
    assert!(matches!(fixture.load_error(start()), CertsError::Unfit { .. }));
}

#[test]
fn provided_bundle_may_contain_more_cas() {
    let provided = Fixture::provided();
    let bundle = Fixture::filled().text("ca.crt") + &provided.text("ca.crt");
    let found = provided.with("ca.crt", &bundle).load(&[SERVICE], start()).unwrap();
    assert_eq!(found.ca_pem, bundle);
}

#[test]
fn provided_folder_without_a_key_refers_to_the_issuer() {
    let error = Fixture::provided().without(&["tls.key"]).load_error(start());
    assert!(matches!(&error, CertsError::MissingHalf { remedy: Remedy::AskIssuer, .. }), "{error}");
}

#[test]
fn provided_wildcard_covers_a_name() {
    let fixture = Fixture::empty();
    let (ca, leaf) = wildcard_files(&fixture);
    Folder::new(&fixture.dir()).write(&[&ca, &leaf.cert, &leaf.key]).unwrap();
    assert_eq!(fixture.load(&[SERVICE], start()).unwrap().origin, Origin::Provided);
}

fn wildcard_files(fixture: &Fixture) -> (PemFile, PemPair) {
    let dir = fixture.dir();
    let folder = Folder::new(&dir);
    let ca = Authority::create(&folder, start()).unwrap();
    let issuer_key = KeyPair::from_pem(&ca.key.text).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&ca.cert.text, issuer_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["*.tidegate-system.svc".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (days(0), days(90));
    let cert = folder.file("tls.crt", params.signed_by(&key, &issuer).unwrap().pem());
    (ca.cert, PemPair { cert, key: folder.file("tls.key", key.serialize_pem()) })
}
