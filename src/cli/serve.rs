//! `tidegate serve`: the webhooks and the controller, in one process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::ArgAction;
use kube::Client;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tracing::info;

use super::cluster::connect;
use super::files::add_policies;
use super::selector::{DEFAULT_SELECTOR, Selector, scope};
use crate::certs::{self, Certificates};
use crate::controller::{self, Controller, Election};
use crate::manifests::Manifests;
use crate::server::health::{self, Readiness, Step};
use crate::server::{Limits, ServerCertificate, handlers, serve_plain, serve_tls};
use crate::shared_state::SharedState;
use crate::webhooks::register::{self, Replica};
use crate::webhooks::{Endpoint, configurations, with_guard};
use tidegate_engine::policy::{Policy, PolicySet, Scope};

/// The DNS names by which the API server reaches the Service of the manifests.
const SERVICE_NAMES: [&str; 2] = ["tidegate.tidegate-system.svc", "tidegate.tidegate-system.svc.cluster.local"];

/// The arguments of `tidegate serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The address to serve the webhooks on, over TLS.
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = "0.0.0.0:8443", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The address to serve /healthz and /readyz on, over plain HTTP.
    #[arg(long, env = "TIDEGATE_HEALTH_LISTEN", default_value = "0.0.0.0:8081", value_name = "ADDRESS")]
    health_listen: SocketAddr,
    /// The folder of the CA and the certificate; they are created if missing.
    #[arg(long, env = "TIDEGATE_CERTS", default_value = "certs", value_name = "DIR")]
    certs: PathBuf,
    /// The URL at which the API server reaches a Tidegate outside the cluster, without a path. The webhook
    /// configurations are created at start, and deleted when the last replica behind that URL stops. Without it, the
    /// caBundle is added to those of the manifests.
    #[arg(long, env = "TIDEGATE_WEBHOOK_URL", value_name = "URL")]
    webhook_url: Option<WebhookUrl>,
    /// The labels that make a workload a model server; may be repeated, and one selector is enough. Without
    /// --webhook-url, the webhooks of the manifests must select the same: see manifests/selectors.
    #[arg(long, env = "TIDEGATE_SELECTOR", default_value = DEFAULT_SELECTOR, value_delimiter = ';',
        value_name = "KEY=VALUE,…")]
    selector: Vec<Selector>,
    /// Refuses the deletion of a database created by Tidegate while a running model server is bound to it. Without
    /// --webhook-url, add the component manifests/guard-databases.
    #[arg(long, env = "TIDEGATE_GUARD_DATABASES", requires = "webhook_url")]
    guard_databases: bool,
    /// Reads policies from a file or folder instead of the cluster; may be repeated.
    #[arg(long, env = "TIDEGATE_POLICY", value_delimiter = ',', value_name = "PATH")]
    policy: Vec<String>,
    /// The kubeconfig to use instead of $KUBECONFIG, ~/.kube/config or the pod's service account.
    #[arg(long, env = "TIDEGATE_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// How many seconds to wait before creating an autoscaler, so that one in the same apply takes precedence.
    #[arg(long, env = "TIDEGATE_SETTLE_SECONDS", default_value_t = 5, value_name = "SECONDS")]
    settle_seconds: u64,
    /// How often, in seconds, each model server is reconciled without a change.
    #[arg(long, env = "TIDEGATE_RESYNC_SECONDS", default_value_t = 600, value_name = "SECONDS")]
    resync_seconds: u64,
    /// Writes one report per namespace with model servers, of openreports.io or wgpolicyk8s.io, whichever is served.
    #[arg(long, env = "TIDEGATE_POLICY_REPORTS")]
    policy_reports: bool,
    /// Whether replicas elect a leader, which alone writes. Without leader election, run a single replica.
    #[arg(long, env = "TIDEGATE_LEADER_ELECT", default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    leader_elect: bool,
    /// The namespace of the leader election Lease. Default: the pod's own, or that of the kubeconfig's context.
    #[arg(long, env = "TIDEGATE_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    lease_namespace: Option<String>,
    /// The name of the leader election Lease.
    #[arg(long, env = "TIDEGATE_LEASE_NAME", default_value = "tidegate", value_name = "NAME")]
    lease_name: String,
    /// How many seconds after its last renewal a leader is replaced.
    #[arg(long, env = "TIDEGATE_LEASE_SECONDS", default_value_t = 15, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(3..=3600))]
    lease_seconds: u64,
    /// The identity of this replica in leader election; must be unique. Default: the host name and a random suffix.
    #[arg(long, env = "TIDEGATE_IDENTITY", value_name = "NAME")]
    identity: Option<String>,
}

/// An `https` URL with a host and an optional port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct WebhookUrl {
    url: String,
    host: String,
}

impl FromStr for WebhookUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || "must be https://HOST[:PORT]".to_owned();
        let url: axum::http::Uri = text.trim_end_matches('/').parse().map_err(|_| invalid())?;
        let is_plain = url.scheme_str() == Some("https") && url.path() == "/" && url.query().is_none();
        let host = url.host().filter(|_| is_plain).ok_or_else(invalid)?;
        Ok(Self { url: text.trim_end_matches('/').to_owned(), host: host.trim_matches(['[', ']']).to_owned() })
    }
}

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(serve(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let mut running = Running::start(args).await?;
    tokio::select! {
        () = running.readiness.reached() => running.state.completed(),
        ended = running.controller.ended() => return Err(ended_early(ended)),
        () = signals.stop() => return Ok(()),
    }
    running.registration.create().await?;
    running.registered.done();
    info!(listen = %running.servers.listen, health_listen = %running.servers.health_listen, "ready");

    tokio::select! {
        () = signals.stop() => {}
        ended = running.controller.ended() => return Err(ended_early(ended)),
        () = running.registration.keep() => {}
    }
    info!("stopping");
    running.stop().await
}

/// The parts of a running Tidegate.
struct Running {
    state: Arc<SharedState>,
    controller: Controller,
    /// Complete once the caches have synced.
    readiness: Readiness,
    registration: Registration,
    /// Complete once the webhook configurations point to this process.
    registered: Step,
    servers: Servers,
}

impl Running {
    async fn start(args: Args) -> anyhow::Result<Self> {
        let Args {
            listen,
            health_listen,
            certs,
            webhook_url,
            selector,
            guard_databases,
            policy,
            kubeconfig,
            settle_seconds,
            resync_seconds,
            policy_reports,
            leader_elect,
            lease_namespace,
            lease_name,
            lease_seconds,
            identity,
        } = args;
        let (policies, scope) = (policies_from(&policy)?, scope(selector));
        let certificates = certificates(&certs, webhook_url.as_ref())?;
        let state = Arc::new(SharedState::new(PolicySet::new(scope.clone(), policies)));
        let sockets = Sockets::bind(listen, health_listen).await?;
        let client = connect(kubeconfig).await?;

        let identity = identity.unwrap_or_else(controller::new_identity);
        let election = leader_elect.then(|| Election {
            namespace: lease_namespace.unwrap_or_else(|| client.default_namespace().to_owned()),
            name: lease_name,
            identity: identity.clone(),
            duration: Duration::from_secs(lease_seconds),
        });
        let options = controller::Options {
            settle: Duration::from_secs(settle_seconds),
            resync: Duration::from_secs(resync_seconds),
            watch_policies: policy.is_empty(),
            write_reports: policy_reports,
            election,
        };
        let (readiness, ready) = (Readiness::default(), Readiness::default());
        let controller = controller::start(&client, &state, &options, &readiness);
        let registered = ready.step("webhook registration");
        let servers = sockets.serve(&state, &certificates, vec![readiness.clone(), ready])?;
        let (url, ca_pem) = (webhook_url, certificates.ca_pem);
        let registration = Registration { client, url, scope, guard_databases, ca_pem, identity };
        Ok(Self { state, controller, readiness, registration, registered, servers })
    }

    /// Stops the parts in order: the servers go on until the API server no longer calls them.
    async fn stop(self) -> anyhow::Result<()> {
        let Self { controller, registration, servers, .. } = self;
        controller.resign().await;
        let is_kept = registration.delete(async || controller.is_succeeded().await).await?;
        controller.stop().await;
        servers.stop().await?;
        if is_kept {
            registration.remove_ca().await?;
        }
        Ok(())
    }
}

/// The listening sockets, bound before anything is served.
struct Sockets {
    webhooks: TcpListener,
    health: TcpListener,
    listen: SocketAddr,
    health_listen: SocketAddr,
}

impl Sockets {
    async fn bind(listen: SocketAddr, health_listen: SocketAddr) -> anyhow::Result<Self> {
        let webhooks = bind("--listen", listen).await?;
        Ok(Self { webhooks, health: bind("--health-listen", health_listen).await?, listen, health_listen })
    }

    fn serve(
        self,
        state: &Arc<SharedState>,
        certificates: &Certificates,
        health: Vec<Readiness>,
    ) -> anyhow::Result<Servers> {
        let (stop, stopping) = watch::channel(false);
        let certificate = ServerCertificate::new(certificates).context("cannot use the certificate")?;
        let router = handlers::webhooks(Arc::clone(state));
        let limits = Limits::default;
        let tasks = [
            tokio::spawn(serve_tls(self.webhooks, router, certificate, limits(), stopped(stopping.clone()))),
            tokio::spawn(serve_plain(self.health, health::routes(health), limits(), stopped(stopping))),
        ];
        Ok(Servers { tasks, stop, listen: self.listen, health_listen: self.health_listen })
    }
}

/// The webhook and health servers.
struct Servers {
    tasks: [JoinHandle<()>; 2],
    stop: watch::Sender<bool>,
    listen: SocketAddr,
    health_listen: SocketAddr,
}

impl Servers {
    /// Stops the servers once requests in flight have finished.
    async fn stop(self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.context("a server panicked")?;
        }
        Ok(())
    }
}

/// The error for a part of the controller that ended: Tidegate exits and is restarted rather than decide from stale
/// caches.
fn ended_early(ended: Option<Result<(), JoinError>>) -> anyhow::Error {
    match ended {
        Some(Err(error)) => anyhow::Error::new(error).context("a controller task failed"),
        _ => anyhow::anyhow!("a controller task ended unexpectedly"),
    }
}

fn policies_from(names: &[String]) -> anyhow::Result<Vec<Arc<Policy>>> {
    let mut input = Manifests::new();
    for name in names {
        add_policies(&mut input, name, Path::new("."))?;
    }
    Ok(input.policies)
}

/// Returns the certificate for the names by which the API server reaches this process.
fn certificates(folder: &Path, url: Option<&WebhookUrl>) -> anyhow::Result<Certificates> {
    let names = match url {
        Some(url) => vec![url.host.clone()],
        None => SERVICE_NAMES.map(str::to_owned).to_vec(),
    };
    if folder.is_file() {
        bail!("invalid --certs: {} is a file; must be a folder, which is created if missing", folder.display());
    }
    certs::load_or_create(folder, &names, OffsetDateTime::now_utc())
        .with_context(|| format!("cannot load or create a certificate in {}", folder.display()))
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} ({flag})"))
}

/// Registers this process with the API server, and deregisters it.
struct Registration {
    client: Client,
    url: Option<WebhookUrl>,
    scope: Scope,
    guard_databases: bool,
    ca_pem: String,
    identity: String,
}

impl Registration {
    fn replica(&self) -> Replica<'_> {
        let url = self.url.as_ref().map(|url| &*url.url);
        Replica { url, ca_pem: &self.ca_pem, identity: &self.identity }
    }

    async fn create(&self) -> anyhow::Result<()> {
        match &self.url {
            Some(url) => {
                let ca_bundle = BASE64_STANDARD.encode(&self.ca_pem);
                let endpoint = Endpoint::Url { url: &url.url, ca_bundle: &ca_bundle };
                let mut wanted = configurations(&self.scope, &endpoint);
                if self.guard_databases {
                    wanted = with_guard(wanted, &endpoint);
                }
                register::apply(&self.client, &wanted, &self.replica()).await?;
            }
            None => register::fill_in(&self.client, &self.replica()).await?,
        }
        Ok(())
    }

    /// Keeps the CA in the configurations while it is polled.
    async fn keep(&self) {
        register::keep_filled_in(&self.client, &self.replica()).await;
        std::future::pending::<()>().await;
    }

    /// Deletes the configurations, unless another replica serves them. Those of the manifests are kept, so that no
    /// model server is admitted unchecked. Returns whether the CA of this replica is still to be removed from them.
    async fn delete(&self, is_succeeded: impl AsyncFn() -> bool) -> anyhow::Result<bool> {
        if self.url.is_none() {
            return Ok(false);
        }
        Ok(register::delete(&self.client, &self.replica(), is_succeeded).await?)
    }

    /// Removes the CA of this replica from the configurations that other replicas serve.
    async fn remove_ca(&self) -> anyhow::Result<()> {
        Ok(register::remove_ca(&self.client, &self.replica()).await?)
    }
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender was dropped, which means to stop too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_url_is_https_without_a_path() {
        let url: WebhookUrl = "https://[::1]:8443/".parse().unwrap();
        assert_eq!((url.url.as_str(), url.host.as_str()), ("https://[::1]:8443", "::1"));
        assert!("http://localhost:8443".parse::<WebhookUrl>().is_err());
        assert!("https://localhost/hook".parse::<WebhookUrl>().is_err());
        assert!("localhost:8443".parse::<WebhookUrl>().is_err());
    }
}
