//! The TLS listener from a client's view: protocols, limits, renewed certificates and shutdown.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Response, StatusCode, Version};
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tidegate::certs::{Certificates, load_or_create};
use tidegate::server::{Limits, ServerCertificate, serve_plain, serve_tls};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A timeout for events that must happen, far longer than they take.
const SOON: Duration = Duration::from_secs(10);
/// How long to wait for events that must not happen.
const A_WHILE: Duration = Duration::from_millis(300);

/// A CA and certificate for 127.0.0.1 in their own folder.
struct Folder {
    root: TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn certificates(&self) -> Certificates {
        let now = OffsetDateTime::from(SystemTime::now());
        load_or_create(self.root.path(), &["127.0.0.1".to_owned()], now).unwrap()
    }

    /// Another certificate from the same CA.
    fn renewed(&self) -> Certificates {
        for name in ["tls.crt", "tls.key"] {
            std::fs::remove_file(self.root.path().join(name)).unwrap();
        }
        self.certificates()
    }
}

/// A running listener, whose `/slow` answers as often as `gate` has permits.
struct Server {
    address: SocketAddr,
    folder: Folder,
    certificate: ServerCertificate,
    gate: Arc<Semaphore>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let folder = Folder::new();
        let certificate = ServerCertificate::new(&folder.certificates()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let (stop, asked) = oneshot::channel();
        let task = tokio::spawn(serve_tls(listener, router(&gate), certificate.clone(), limits, async {
            asked.await.unwrap_or_default();
        }));
        Self { address, folder, certificate, gate, stop, task }
    }

    fn trusting(&self) -> Client {
        Client::trusting(self.address, &self.folder.certificates().ca_pem)
    }

    /// Asks the server to stop and waits until it has.
    async fn stop(self) {
        self.stop.send(()).unwrap();
        stopped(self.task).await;
    }
}

async fn stopped(task: JoinHandle<()>) {
    timeout(SOON, task).await.expect("the server stops").unwrap();
}

fn router(gate: &Arc<Semaphore>) -> Router {
    let gate = Arc::clone(gate);
    let slow = move || async move {
        gate.acquire().await.unwrap().forget();
        "finished"
    };
    let echo = post(async |version: Version, body: Bytes| format!("{version:?} {}", body.len()));
    Router::new().route("/", get(async || "hello")).route("/slow", get(slow)).route("/echo", echo)
}

/// Opens connections to one address, trusting only one CA.
#[derive(Clone)]
struct Client {
    address: SocketAddr,
    config: ClientConfig,
}

impl Client {
    fn trusting(address: SocketAddr, ca_pem: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { address, config }
    }

    /// A TLS connection that offers the given protocols.
    async fn connect(&self, protocols: &[&str]) -> io::Result<TlsStream<TcpStream>> {
        let mut config = self.config.clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::from(self.address.ip());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn http1(&self) -> io::Result<http1::SendRequest<Body>> {
        let stream = self.connect(&["http/1.1"]).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn http2(&self) -> io::Result<http2::SendRequest<Body>> {
        let stream = self.connect(&["h2", "http/1.1"]).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let io = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// The certificate served to a new connection.
    async fn shown(&self) -> CertificateDer<'static> {
        let stream = self.connect(&["h2"]).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).header("host", "127.0.0.1").body(Body::empty()).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    assert_eq!(response.status(), StatusCode::OK);
    let bytes = to_bytes(Body::new(response.into_body()), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// How long until the other side closes the connection.
async fn closed_after(mut stream: impl tokio::io::AsyncRead + Unpin) -> Duration {
    let start = Instant::now();
    let mut rest = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the server closes the connection");
    start.elapsed()
}

#[tokio::test]
async fn http1_is_served_and_its_connection_reused() {
    let server = Server::start(Limits::default()).await;
    let mut sender = server.trusting().http1().await.unwrap();
    for _ in 0..3 {
        sender.ready().await.unwrap();
        assert_eq!(text(sender.send_request(request("/")).await.unwrap()).await, "hello");
    }
}

#[tokio::test]
async fn http2_carries_a_review_sized_body() {
    let server = Server::start(Limits::default()).await;
    let mut sender = server.trusting().http2().await.unwrap();
    let body = Body::from(vec![b' '; 1_500_000]);
    let response = sender.send_request(Request::post("https://127.0.0.1/echo").body(body).unwrap()).await.unwrap();
    assert_eq!(text(response).await, "HTTP/2.0 1500000");
}

#[tokio::test]
async fn http2_requests_on_one_connection_do_not_wait_for_each_other() {
    let server = Server::start(Limits::default()).await;
    let mut sender = server.trusting().http2().await.unwrap();
    let slow = tokio::spawn(sender.send_request(request("https://127.0.0.1/slow")));
    assert_eq!(text(sender.send_request(request("https://127.0.0.1/")).await.unwrap()).await, "hello");
    server.gate.add_permits(1);
    assert_eq!(text(slow.await.unwrap().unwrap()).await, "finished");
}

#[tokio::test]
async fn client_without_protocol_negotiation_gets_http1() {
    let server = Server::start(Limits::default()).await;
    let mut stream = server.trusting().connect(&[]).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn client_trusting_another_ca_refuses_the_server() {
    let server = Server::start(Limits::default()).await;
    let other = Client::trusting(server.address, &Folder::new().certificates().ca_pem);
    assert!(other.connect(&["h2"]).await.is_err());
    assert!(server.trusting().connect(&["h2"]).await.is_ok());
}

#[tokio::test]
async fn replaced_certificate_affects_only_new_connections() {
    let server = Server::start(Limits::default()).await;
    let before = server.trusting();
    let mut open = before.http2().await.unwrap();
    let other = Folder::new().certificates();
    server.certificate.replace(&other).unwrap();

    let after = Client::trusting(server.address, &other.ca_pem);
    assert_eq!(after.shown().await, other.chain[0]);
    assert!(before.connect(&["h2"]).await.is_err());
    assert_eq!(text(open.send_request(request("https://127.0.0.1/")).await.unwrap()).await, "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewing_under_load_fails_no_connection() {
    let server = Server::start(Limits::default()).await;
    let client = server.trusting();
    let load: Vec<_> = (0..4).map(|_| tokio::spawn(connect_often(client.clone()))).collect();
    for _ in 0..20 {
        let renewed = server.folder.renewed();
        server.certificate.replace(&renewed).unwrap();
        assert_eq!(client.shown().await, renewed.chain[0]);
    }
    for task in load {
        task.await.unwrap();
    }
}

async fn connect_often(client: Client) {
    for _ in 0..50 {
        let mut sender = client.http2().await.unwrap();
        assert_eq!(text(sender.send_request(request("https://127.0.0.1/")).await.unwrap()).await, "hello");
    }
}

#[tokio::test]
async fn an_invalid_replacement_keeps_the_current_certificate() {
    let server = Server::start(Limits::default()).await;
    let (shown, mut mixed) = (server.trusting().shown().await, Folder::new().certificates());
    mixed.key = Folder::new().certificates().key;
    assert!(server.certificate.replace(&mixed).is_err());
    assert_eq!(server.trusting().shown().await, shown);
}

#[tokio::test]
async fn stalled_handshake_is_dropped() {
    let server = Server::start(Limits { handshake: A_WHILE, ..Limits::default() }).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    assert!(closed_after(silent).await > A_WHILE / 2);
    assert!(server.trusting().http1().await.is_ok());
}

#[tokio::test]
async fn client_that_never_sends_its_request_is_dropped() {
    let server = Server::start(Limits { headers: A_WHILE, ..Limits::default() }).await;
    for protocol in ["http/1.1", "h2"] {
        let mut stream = server.trusting().connect(&[protocol]).await.unwrap();
        if protocol == "http/1.1" {
            stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        }
        assert!(closed_after(stream).await < SOON);
    }
}

#[tokio::test]
async fn a_request_may_take_longer_than_the_header_limit() {
    let server = Server::start(Limits { headers: A_WHILE, ..Limits::default() }).await;
    let mut sender = server.trusting().http1().await.unwrap();
    let slow = tokio::spawn(sender.send_request(request("/slow")));
    sleep(A_WHILE * 2).await;
    server.gate.add_permits(1);
    assert_eq!(text(slow.await.unwrap().unwrap()).await, "finished");
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_room() {
    let server = Server::start(Limits { connections: 2, ..Limits::default() }).await;
    let client = server.trusting();
    let (first, second) = (client.http1().await.unwrap(), client.http1().await.unwrap());
    let third = client.clone();
    let mut third = tokio::spawn(async move { third.http1().await });
    assert!(timeout(A_WHILE, &mut third).await.is_err(), "a third connection must wait");
    drop(first);
    let mut third = timeout(SOON, third).await.expect("room for the third").unwrap().unwrap();
    assert_eq!(text(third.send_request(request("/")).await.unwrap()).await, "hello");
    drop(second);
}

#[tokio::test]
async fn shutdown_finishes_requests_in_flight() {
    let server = Server::start(Limits::default()).await;
    let (client, gate) = (server.trusting(), Arc::clone(&server.gate));
    let (mut one, mut two) = (client.http1().await.unwrap(), client.http2().await.unwrap());
    let one = tokio::spawn(one.send_request(request("/slow")));
    let two = tokio::spawn(two.send_request(request("https://127.0.0.1/slow")));
    sleep(A_WHILE).await;

    server.stop.send(()).unwrap();
    sleep(A_WHILE).await;
    assert!(TcpStream::connect(server.address).await.is_err(), "new connections are refused");
    assert!(!server.task.is_finished());
    gate.add_permits(2);
    assert_eq!(text(one.await.unwrap().unwrap()).await, "finished");
    assert_eq!(text(two.await.unwrap().unwrap()).await, "finished");
    stopped(server.task).await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_idle_connections() {
    let server = Server::start(Limits { drain: SOON * 6, ..Limits::default() }).await;
    let client = server.trusting();
    let (mut one, mut two) = (client.http1().await.unwrap(), client.http2().await.unwrap());
    text(one.send_request(request("/")).await.unwrap()).await;
    text(two.send_request(request("https://127.0.0.1/")).await.unwrap()).await;
    server.stop().await;
}

#[tokio::test]
async fn shutdown_gives_up_on_a_request_that_does_not_finish() {
    let server = Server::start(Limits { drain: A_WHILE, ..Limits::default() }).await;
    let mut sender = server.trusting().http1().await.unwrap();
    let stuck = tokio::spawn(sender.send_request(request("/slow")));
    sleep(A_WHILE).await;
    server.stop().await;
    assert!(stuck.await.unwrap().is_err());
}

#[tokio::test]
async fn dropping_the_server_closes_its_connections() {
    let server = Server::start(Limits::default()).await;
    let stream = server.trusting().connect(&["http/1.1"]).await.unwrap();
    server.task.abort();
    closed_after(stream).await;
}

#[tokio::test]
async fn plain_listener_answers_probes_and_stops() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, asked) = oneshot::channel::<()>();
    let router = Router::new().route("/livez", get(async || "ok"));
    let task = tokio::spawn(serve_plain(listener, router, Limits::default(), async {
        asked.await.unwrap_or_default();
    }));
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(text(sender.send_request(request("/livez")).await.unwrap()).await, "ok");
    stop.send(()).unwrap();
    stopped(task).await;
}
