//! The command line.

mod adopt;
mod check;
mod cluster;
mod discover;
mod explain;
mod files;
mod generate;
mod selector;
mod serve;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry::{self, LogFormat};

/// Keeps model servers on Kubernetes within their platform team's serving policy.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// What to log: a level, or levels per module.
    #[arg(
        long,
        env = "TIDEGATE_LOG",
        default_value = "info,kube=warn,kube_client::client::builder=off",
        global = true,
        value_name = "FILTER"
    )]
    log: String,
    /// The format of logs.
    #[arg(long, env = "TIDEGATE_LOG_FORMAT", value_enum, default_value_t, global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the admission webhooks and reconciles companion objects.
    Serve(serve::Args),
    /// Checks the model servers in files against policies.
    Check(check::Args),
    /// Runs the tests of policies.
    Test(test::Args),
    /// Explains a rule, a policy, or the result for a workload.
    Explain(explain::Args),
    /// Lists model servers that lack the label of one, in a cluster or in files.
    Discover(discover::Args),
    /// Adopts workloads that were created before Tidegate, or shows what that would change.
    Adopt(adopt::Args),
    /// Writes the files generated from the code, or checks that they are up to date.
    Generate(generate::Args),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// If the command fails.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { log, log_format, command } = self;
        telemetry::start(&log, log_format)?;
        match command {
            Command::Serve(args) => serve::run(args),
            Command::Check(args) => check::run(args),
            Command::Test(args) => test::run(args),
            Command::Explain(args) => explain::run(&args),
            Command::Discover(args) => discover::run(args),
            Command::Adopt(args) => adopt::run(args),
            Command::Generate(args) => generate::run(args),
        }
    }
}
