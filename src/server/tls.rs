//! TLS of a listener, with a certificate that can be replaced while serving.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::certs::{Certificates, crypto_provider};

/// The protocol name by which a client asks for HTTP/2.
pub(super) const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Why the server cannot use a certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate and its key cannot be used together.
    #[error("cannot serve with the certificate; check that tls.crt and tls.key are a pair")]
    Certificate(#[source] rustls::Error),
    /// The cryptography provider lacks the required protocol versions.
    #[error("cannot set up TLS 1.2 and 1.3 with the built-in cryptography")]
    Protocol(#[source] rustls::Error),
}

/// The certificate of a listener; clones share it, so a replacement reaches all of them.
#[derive(Clone, Debug)]
pub struct ServerCertificate {
    slot: Arc<Slot>,
    config: Arc<ServerConfig>,
}

impl ServerCertificate {
    /// Creates the server's certificate from `certificates`.
    ///
    /// # Errors
    ///
    /// If the key does not match the certificate or is of an unsupported kind.
    pub fn new(certificates: &Certificates) -> Result<Self, TlsError> {
        let slot = Arc::new(Slot(ArcSwap::from_pointee(certified(certificates)?)));
        let config = Arc::new(server_config(Arc::clone(&slot))?);
        Ok(Self { slot, config })
    }

    /// Serves new connections with `certificates`; open ones keep theirs.
    ///
    /// # Errors
    ///
    /// As for [`ServerCertificate::new`]; the current certificate then stays.
    pub fn replace(&self, certificates: &Certificates) -> Result<(), TlsError> {
        self.slot.0.store(Arc::new(certified(certificates)?));
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

/// Holds the current certificate for the handshake.
#[derive(Debug)]
struct Slot(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Slot {
    /// Returns the one certificate, whatever name is asked for; the client verifies it.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn certified(certificates: &Certificates) -> Result<CertifiedKey, TlsError> {
    let (chain, key) = (certificates.chain.clone(), certificates.key.clone_key());
    CertifiedKey::from_der(chain, key, &crypto_provider()).map_err(TlsError::Certificate)
}

fn server_config(slot: Arc<Slot>) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?
        .with_no_client_auth()
        .with_cert_resolver(slot);
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
    // The API server never resumes sessions, and a session resumed after a replacement would skip the new certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
