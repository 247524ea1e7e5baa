//! Signs that a pod is a part of one server that runs in several pods (a rank), rather than a copy of the server. Such
//! a server stops if a pod is removed, and does not use a pod that is added.
//!
//! <https://docs.vllm.ai/en/latest/serving/parallelism_scaling/>,
//! <https://docs.vllm.ai/en/latest/serving/data_parallel_deployment/>,
//! <https://docs.sglang.ai/references/multi_node_deployment/multi_node.html>,
//! <https://docs.pytorch.org/docs/stable/elastic/run.html>, <https://docs.ray.io/en/latest/cluster/cli.html>

use crate::workload::{CommandLine, Lookup};

/// Flags of a process that always belongs to a server with other processes.
const ALWAYS: &[&str] = &["--headless"];

/// Flags of a rank, unless the number of nodes is one.
const RANKS: &[&str] = &["--nnodes", "--node-rank", "--dist-init-addr"];

/// The flag for the number of nodes.
const NODES: &str = "--nnodes";

/// Prefixes of the variables of a rank: those that vLLM reads, and those that a LeaderWorkerSet sets.
///
/// <https://docs.vllm.ai/en/latest/configuration/env_vars/>,
/// <https://github.com/kubernetes-sigs/lws/blob/main/api/leaderworkerset/v1/leaderworkerset_types.go>
const VARIABLES: &[&str] = &["VLLM_DP_", "LWS_"];

/// The variables for the number of ranks or pods.
const SIZES: &[&str] = &["VLLM_DP_SIZE", "LWS_GROUP_SIZE"];

/// Returns the first sign in the commands of a container, such as `--nnodes 2`.
pub(super) fn sign(commands: &[CommandLine]) -> Option<String> {
    commands.iter().find_map(sign_of)
}

fn sign_of(command: &CommandLine) -> Option<String> {
    let has_flag = |flag: &&&str| command.has(flag).found().is_some();
    if let Some(flag) = ALWAYS.iter().find(has_flag) {
        return Some((*flag).to_owned());
    }
    if command.run("ray start").is_some() {
        return Some("ray start".to_owned());
    }
    if is_one(command) {
        return None;
    }
    let flag = RANKS.iter().find(has_flag).map(|flag| match command.value(flag) {
        Lookup::Found(value) => format!("{flag} {value}"),
        Lookup::Absent | Lookup::Unknown(_) => (*flag).to_owned(),
    });
    flag.or_else(|| VARIABLES.iter().find_map(|prefix| command.env_starting_with(prefix)).map(str::to_owned))
}

/// Returns whether the command says that there is only one node or rank. `torchrun` accepts a range, such as `1:1`.
fn is_one(command: &CommandLine) -> bool {
    let sizes = std::iter::once(command.value(NODES)).chain(SIZES.iter().map(|name| command.env(name)));
    sizes.filter_map(Lookup::found).any(|size| matches!(size, "1" | "1:1"))
}
