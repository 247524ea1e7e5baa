//! Rules about resource requests and limits.

mod cpu_limit_on_gpu_server;
mod gpu_count_mismatch;
mod gpu_missing;
mod gpu_request_mismatch;
mod limit_far_above_request;
mod missing_memory_limit;
mod missing_requests;
mod out_of_bounds;
mod requests_above_limits;
mod shared_resource_claim;
mod unset_gpu_share;

pub use cpu_limit_on_gpu_server::CpuLimitOnGpuServer;
pub use gpu_count_mismatch::GpuCountMismatch;
pub use gpu_missing::GpuMissing;
pub use gpu_request_mismatch::GpuRequestMismatch;
pub use limit_far_above_request::LimitFarAboveRequest;
pub use missing_memory_limit::MissingMemoryLimit;
pub use missing_requests::MissingRequests;
pub use out_of_bounds::ResourcesOutOfBounds;
pub use requests_above_limits::RequestsAboveLimits;
pub use shared_resource_claim::SharedResourceClaim;
pub use unset_gpu_share::UnsetGpuShare;
