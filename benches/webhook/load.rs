//! Sends one review repeatedly, on several connections, and measures how long each answer takes.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::body::Bytes;
use futures::future::try_join_all;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::process;

/// How many requests are sent at once, each on a connection of its own.
pub(crate) const CONNECTIONS: usize = 16;

/// The maximum of requests per connection and load, for a machine that is faster than expected.
const MOST: usize = 200_000;

/// The time before the measurement starts.
const WARM_UP: Duration = Duration::from_secs(1);

/// The protocol of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    pub(crate) const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        })
    }
}

/// A webhook to load.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    pub(crate) process: u32,
}

/// How to load it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) protocol: Protocol,
    pub(crate) duration: Duration,
    pub(crate) review: &'static [u8],
}

/// The result of one load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) requests_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// The webhook's processor time for each request, in microseconds.
    pub(crate) processor_us: f64,
    pub(crate) resident_mib: f64,
}

impl Load {
    /// Loads a webhook; any answer but 200 ends it.
    pub(crate) async fn on(&self, webhook: &process::Webhook) -> anyhow::Result<Measured> {
        let target = &webhook.target;
        let senders = try_join_all((0..CONNECTIONS).map(|_| Sender::connect(target, self.protocol))).await?;
        let begin = Instant::now() + WARM_UP;
        let end = begin + self.duration;
        let workers = senders.into_iter().map(|sender| tokio::spawn(repeat(sender, self.review, begin, end)));
        let workers: Vec<_> = workers.collect();

        tokio::time::sleep_until(begin.into()).await;
        let before = process::processor_time(target.process)?;
        let mut latencies = Vec::new();
        for worker in workers {
            latencies.append(&mut worker.await??);
        }
        let elapsed = begin.elapsed();
        let used = process::processor_time(target.process)?.saturating_sub(before);
        ensure!(!latencies.is_empty(), "no answer within {:?}", self.duration);
        latencies.sort_unstable();
        let count = f64::from(u32::try_from(latencies.len())?);
        Ok(Measured {
            requests_per_second: count / elapsed.as_secs_f64(),
            p50_ms: percentile(&latencies, 50),
            p99_ms: percentile(&latencies, 99),
            processor_us: used.as_secs_f64() * 1e6 / count,
            resident_mib: process::resident_mib(target.process)?,
        })
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

/// Sends the next request as soon as there is an answer, and returns the latencies of answers between begin and end.
async fn repeat(
    mut sender: Sender,
    review: &'static [u8],
    begin: Instant,
    end: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(MOST / 4);
    let mut asked = Instant::now();
    while asked < end && latencies.len() < MOST {
        sender.ask(review).await?;
        let answered = Instant::now();
        if answered >= begin {
            latencies.push(answered - asked);
        }
        asked = answered;
    }
    Ok(latencies)
}

/// Asks once and returns the answer.
pub(crate) async fn ask(target: &Target, review: &'static [u8]) -> anyhow::Result<Bytes> {
    Sender::connect(target, Protocol::Http2).await?.ask(review).await
}

/// One open connection.
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>, String),
    Http2(http2::SendRequest<Full<Bytes>>, String),
}

impl Sender {
    async fn connect(target: &Target, protocol: Protocol) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(trusting(&target.ca_pem, protocol)?));
        let stream = connector.connect(ServerName::from(target.address.ip()), stream).await?;
        ensure!(stream.get_ref().1.alpn_protocol() == Some(protocol.alpn()), "the server does not speak {protocol}");
        let io = TokioIo::new(stream);
        match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Ok(Self::Http1(sender, "/mutate?timeout=5s".to_owned()))
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Ok(Self::Http2(sender, format!("https://{}/mutate?timeout=5s", target.address)))
            }
        }
    }

    async fn ask(&mut self, review: &'static [u8]) -> anyhow::Result<Bytes> {
        let response = match self {
            Self::Http1(sender, uri) => {
                sender.ready().await?;
                sender.send_request(request(uri, review)?).await?
            }
            Self::Http2(sender, uri) => {
                sender.ready().await?;
                sender.send_request(request(uri, review)?).await?
            }
        };
        body_of(response).await
    }
}

fn request(uri: &str, review: &'static [u8]) -> anyhow::Result<Request<Full<Bytes>>> {
    let request = Request::post(uri)
        .header("host", "127.0.0.1")
        .header("content-type", "application/json")
        .header("accept", "application/json, */*")
        .header("user-agent", "kube-apiserver-admission");
    Ok(request.body(Full::new(Bytes::from_static(review)))?)
}

async fn body_of(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    let status = response.status();
    let body = response.into_body().collect().await.context("cannot read an answer")?.to_bytes();
    ensure!(status == StatusCode::OK, "the webhook answered {status}");
    Ok(body)
}

fn trusting(ca_pem: &str, protocol: Protocol) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    Ok(config)
}
