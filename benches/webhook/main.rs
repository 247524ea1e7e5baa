//! How fast `tidegate serve` answers, beside a webhook on the same server that only reads the uid and allows.
//!
//! Both run as processes of their own and are loaded in turn, again and again, so that what else the machine does falls
//! on both alike. Tidegate does its full job: it reads a real control plane, injects resources, probes and the database
//! binding, and judges.

mod cluster;
mod limit;
mod load;
mod process;
mod report;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;

use self::cluster::Cluster;
use self::load::{Load, Protocol, Target};
use self::report::{Pair, Report};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the API server asks when `examples/model-server.yaml` is applied.
const REVIEW: &[u8] = include_bytes!("../fixtures/create.json");

/// Measures `POST /mutate` against the limit of the server that it stands on.
#[derive(Debug, clap::Parser)]
struct Args {
    /// How often each of the two is loaded.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long, in seconds, each load is measured, after one second that is not.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// The day to write into the table.
    #[arg(long)]
    date: Option<String>,
    /// Where to write the table.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks.md"))]
    output: PathBuf,
    /// Serve the webhook that only allows, at this address, until standard input ends.
    #[arg(long, hide = true, requires = "certs")]
    limit: Option<SocketAddr>,
    /// The folder of the certificate for that.
    #[arg(long, hide = true)]
    certs: Option<PathBuf>,
    /// `cargo bench` says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let Args { rounds, seconds, date, output, limit, certs, bench: _ } = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match limit.zip(certs) {
        Some((address, certs)) => runtime.block_on(limit::serve(address, &certs)),
        None => runtime.block_on(measure(rounds, Duration::from_secs(seconds), date, &output)),
    }
}

async fn measure(rounds: usize, duration: Duration, date: Option<String>, output: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path()).await?;
    let tidegate = cluster.tidegate().await?;
    let limit = cluster.limit().await?;
    check(&tidegate.target).await?;
    cluster.quieten()?;
    let busy = process::settle().await?;

    let mut report = Report::new(date, busy);
    for protocol in Protocol::ALL {
        let load = Load { protocol, duration, review: REVIEW };
        for round in 1..=rounds {
            process::say(&format!("{protocol}: round {round} of {rounds}"));
            report.add(protocol, Pair { limit: load.on(&limit).await?, tidegate: load.on(&tidegate).await? });
        }
    }
    let text = report.write();
    process::print(&text);
    std::fs::create_dir_all(output.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(output, text).with_context(|| format!("cannot write {}", output.display()))
}

/// Sees that Tidegate does all of its work on the review, since an answer without it would be fast for nothing.
async fn check(target: &Target) -> anyhow::Result<()> {
    use base64::Engine as _;

    let review: serde_json::Value = serde_json::from_slice(REVIEW)?;
    let answer: serde_json::Value = serde_json::from_slice(&load::ask(target, REVIEW).await?)?;
    let response = &answer["response"];
    let patch = base64::prelude::BASE64_STANDARD.decode(response["patch"].as_str().unwrap_or_default())?;
    let patch = String::from_utf8(patch)?;
    let parts = ["PGHOST", "PGPASSWORD", "readinessProbe", "resources", "tidegate.dev~1receipt"];
    anyhow::ensure!(
        response["uid"] == review["request"]["uid"] && parts.iter().all(|part| patch.contains(part)),
        "Tidegate does not do its full job: {answer} {patch}"
    );
    Ok(())
}
