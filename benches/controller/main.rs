//! What the controller costs with many model servers: memory, processor time, and writes to the API server.
//!
//! `tidegate serve` runs as a process of its own on a real control plane with its controllers stopped, so that only
//! Tidegate is active. The model servers have no replicas, because pods would load the machine and not Tidegate.

mod fleet;
mod measured;
mod report;

#[path = "../webhook/cluster.rs"]
#[expect(dead_code, reason = "the other benchmark needs more of it")]
mod cluster;
#[path = "../webhook/load.rs"]
#[expect(dead_code, reason = "the other benchmark needs more of it")]
mod load;
#[path = "../webhook/process.rs"]
mod process;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser as _;

use self::cluster::Cluster;
use self::fleet::Fleet;
use self::measured::Watch;
use self::process::say;
use self::report::Report;

/// Measures the controller with growing numbers of model servers.
#[derive(Debug, clap::Parser)]
struct Args {
    /// The numbers of model servers, in ascending order.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    sizes: Vec<usize>,
    /// The date to write into the page.
    #[arg(long)]
    date: Option<String>,
    /// Where to write the page.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks-controller.md"))]
    output: PathBuf,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let Args { sizes, date, output, bench: _ } = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&sizes, date, &output))
}

async fn measure(sizes: &[usize], date: Option<String>, output: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path()).await?;
    let mut fleet = Fleet::new(&cluster).await?;
    cluster.quieten()?;
    let busy = process::settle().await?;
    let kubeconfig = measured::kubeconfig_of_user(&cluster)?;
    let serve = || cluster.serve(&kubeconfig, &["--leader-elect=false"]);

    let mut report = Report::new(date, busy);
    for size in sizes.iter().copied() {
        say(&format!("{size} model servers: creating them"));
        let new = size - fleet.len();
        let watch = Watch::begin(&cluster);
        let tidegate = serve().await?;
        fleet.grow(size).await?;
        let made = watch.end(&tidegate).await?;
        drop(tidegate);
        fleet.is_complete().await?;
        say(&format!("{size} model servers: restarting"));
        let watch = Watch::begin(&cluster);
        let found = watch.end(&serve().await?).await?;
        report.add(size, new, made, found);
    }
    let text = report.write();
    process::print(&text);
    std::fs::write(output, text).with_context(|| format!("cannot write {}", output.display()))
}
