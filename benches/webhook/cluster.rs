//! A real control plane, because Tidegate reads the cluster, and the webhooks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::process::{Webhook, free_address, say};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Components that are not needed once Tidegate has read the cluster, and would only use processor time.
const NOT_NEEDED: [&str; 4] = ["metrics-server", "kwok", "kube-scheduler", "kube-controller-manager"];

/// A control plane, which ends when this is dropped.
pub(crate) struct Cluster {
    folder: PathBuf,
    programs: PathBuf,
    child: Child,
}

impl Cluster {
    /// Builds it if necessary and starts it, with the custom resources and the policy.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        say("starting a control plane");
        let built = Command::new(format!("{ROOT}/dev/controlplane/build")).stderr(Stdio::inherit()).output()?;
        ensure!(built.status.success(), "cannot build the control plane");
        let programs = PathBuf::from(String::from_utf8(built.stdout)?.lines().last().context("no programs")?);
        let control_plane = folder.join("control-plane");
        let child = Command::new(programs.join("controlplane"))
            .args(["up", "--until-stdin-closes", "--dir"])
            .arg(&control_plane)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("control-plane.log"))?)
            .spawn()
            .context("cannot start the control plane")?;
        let mut cluster = Self { folder: folder.to_owned(), programs, child };
        cluster.ready().await?;
        cluster.kubectl(&["apply", "-f", &format!("{ROOT}/manifests/base/crds.yaml")])?;
        cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all"])?;
        cluster.kubectl(&["apply", "-f", &format!("{ROOT}/policies/serving.yaml")])?;
        Ok(cluster)
    }

    /// Starts `tidegate serve` and waits until it is ready.
    pub(crate) async fn tidegate(&self) -> anyhow::Result<Webhook> {
        self.serve(&self.kubeconfig(), &[]).await
    }

    /// Starts `tidegate serve` with a kubeconfig and arguments, and waits until it is ready.
    pub(crate) async fn serve(&self, kubeconfig: &Path, arguments: &[&str]) -> anyhow::Result<Webhook> {
        say("starting tidegate");
        let (address, health, certs) = (free_address()?, free_address()?, self.folder.join("tidegate"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(["serve", "--listen", &address.to_string(), "--health-listen", &health.to_string()])
            .args(["--webhook-url", &format!("https://{address}")])
            .arg("--certs")
            .arg(&certs)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(arguments)
            .stderr(File::create(self.folder.join("tidegate.log"))?);
        let webhook = Webhook::start(&mut command, address, &certs).await?;
        let begun = Instant::now();
        while !is_ready(&health.to_string()).await {
            ensure!(begun.elapsed() < Duration::from_mins(1), "tidegate did not get ready: {}", self.log("tidegate"));
            sleep(Duration::from_millis(100)).await;
        }
        Ok(webhook)
    }

    /// Starts the baseline webhook.
    pub(crate) async fn baseline(&self) -> anyhow::Result<Webhook> {
        let (address, certs) = (free_address()?, self.folder.join("baseline"));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--baseline", &address.to_string(), "--certs"]).arg(&certs).stdin(Stdio::piped());
        Webhook::start(&mut command, address, &certs).await
    }

    /// Stops components that are no longer needed.
    pub(crate) fn quieten(&self) -> anyhow::Result<()> {
        for component in NOT_NEEDED {
            let mut stop = Command::new(self.programs.join("controlplane"));
            run(stop.args(["stop-component", "--dir"]).arg(self.folder.join("control-plane")).arg(component))?;
        }
        Ok(())
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !self.kubeconfig().exists() {
            if self.child.try_wait()?.is_some() || begun.elapsed() > Duration::from_mins(2) {
                bail!("the control plane did not start: {}", self.log("control-plane"));
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut kubectl = Command::new(self.programs.join("kubectl"));
        run(kubectl.env("KUBECONFIG", self.kubeconfig()).args(arguments))
    }

    /// Returns the folder of the cluster's files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the path of the administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder().join("control-plane/kubeconfig")
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It exits when its standard input ends.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

async fn is_ready(address: &str) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    asked.await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
