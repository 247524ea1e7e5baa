//! Rules about pitfalls of particular runtimes.

mod loopback_server;
mod service_link_collision;
mod small_shared_memory;

pub use loopback_server::LoopbackServer;
pub use service_link_collision::ServiceLinkCollision;
pub use small_shared_memory::SmallSharedMemory;
