//! Rules about how requests reach model servers.

mod left_pool;
mod pool_port_not_served;

pub use left_pool::LeftPool;
pub use pool_port_not_served::PoolPortNotServed;
