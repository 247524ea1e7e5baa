//! How fast `tidegate serve` answers, compared with a baseline: a webhook on the same server that only reads the uid
//! and allows.
//!
//! Both run as processes of their own and are loaded alternately, so that other load on the machine affects both
//! equally. Tidegate does its full work: it reads a real control plane, injects resources, probes and the database
//! binding, and checks the rules.

mod baseline;
mod cluster;
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

/// The review that the API server sends when `examples/model-server.yaml` is applied.
const REVIEW: &[u8] = include_bytes!("../fixtures/create.json");

/// Measures `POST /mutate` against a baseline on the same server.
#[derive(Debug, clap::Parser)]
struct Args {
    /// How many rounds each of the two is loaded for.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many seconds each load is measured, after a second of warm-up.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// The date to write into the page.
    #[arg(long)]
    date: Option<String>,
    /// Where to write the page.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks.md"))]
    output: PathBuf,
    /// Serve the baseline webhook at this address, until standard input ends.
    #[arg(long, hide = true, requires = "certs")]
    baseline: Option<SocketAddr>,
    /// The folder of its certificate.
    #[arg(long, hide = true)]
    certs: Option<PathBuf>,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let Args { rounds, seconds, date, output, baseline, certs, bench: _ } = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match baseline.zip(certs) {
        Some((address, certs)) => runtime.block_on(baseline::serve(address, &certs)),
        None => runtime.block_on(measure(rounds, Duration::from_secs(seconds), date, &output)),
    }
}

async fn measure(rounds: usize, duration: Duration, date: Option<String>, output: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path()).await?;
    let tidegate = cluster.tidegate().await?;
    let baseline = cluster.baseline().await?;
    check(&tidegate.target).await?;
    cluster.quieten()?;
    let busy = process::settle().await?;

    let mut report = Report::new(date, busy);
    for protocol in Protocol::ALL {
        let load = Load { protocol, duration, review: REVIEW };
        for round in 1..=rounds {
            process::say(&format!("{protocol}: round {round} of {rounds}"));
            report.add(protocol, Pair { baseline: load.on(&baseline).await?, tidegate: load.on(&tidegate).await? });
        }
    }
    let text = report.write();
    process::print(&text);
    std::fs::create_dir_all(output.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(output, text).with_context(|| format!("cannot write {}", output.display()))
}

/// Checks that Tidegate does all of its work on the review: otherwise the figures would mean nothing.
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
        "tidegate does not do its full work: {answer} {patch}"
    );
    Ok(())
}
