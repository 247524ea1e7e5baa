//! Rules about volumes.

mod single_writer_volume;
mod unbounded_scratch;

pub use single_writer_volume::SingleWriterVolume;
pub use unbounded_scratch::UnboundedScratch;
