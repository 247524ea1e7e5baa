//! Rules about resource requests and limits.

mod missing_memory_limit;
mod out_of_bounds;

pub use missing_memory_limit::MissingMemoryLimit;
pub use out_of_bounds::ResourcesOutOfBounds;
