//! Rules about which workloads are model servers.

mod label_removed;

pub use label_removed::ModelServerLabelRemoved;
