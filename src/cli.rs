//! The command line.

mod adopt;
mod check;
mod cluster;
mod explain;
mod files;
mod generate;
mod serve;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry::{self, LogFormat};

/// Keeps model servers on Kubernetes within their platform team's serving policy.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// What to log: a level, or levels by module.
    #[arg(
        long,
        env = "TIDEGATE_LOG",
        default_value = "info,kube=warn,kube_client::client::builder=off",
        global = true,
        value_name = "FILTER"
    )]
    log: String,
    /// How to write logs.
    #[arg(long, env = "TIDEGATE_LOG_FORMAT", value_enum, default_value_t, global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the admission webhooks and keeps companions in step.
    Serve(serve::Args),
    /// Says what would become of the model servers in files.
    Check(check::Args),
    /// Runs the tests of policies.
    Test(test::Args),
    /// Explains a rule, a policy, or what became of a workload.
    Explain(explain::Args),
    /// Shows what adopting workloads that ran before Tidegate would do, and does it.
    Adopt(adopt::Args),
    /// Writes what is generated from the code, or checks that it is up to date.
    Generate(generate::Args),
}

impl Cli {
    /// Carries out the command.
    ///
    /// # Errors
    /// Says what was being done, to what, and why it failed.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { log, log_format, command } = self;
        telemetry::start(&log, log_format)?;
        match command {
            Command::Serve(args) => serve::run(args),
            Command::Check(args) => check::run(args),
            Command::Test(args) => test::run(args),
            Command::Explain(args) => explain::run(&args),
            Command::Adopt(args) => adopt::run(args),
            Command::Generate(args) => generate::run(args),
        }
    }
}
