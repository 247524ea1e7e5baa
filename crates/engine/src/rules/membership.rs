//! Rules about which workloads are model servers.

mod label_removed;
mod unlabelled_model_server;

pub use label_removed::ModelServerLabelRemoved;
pub use unlabelled_model_server::UnlabelledModelServer;
