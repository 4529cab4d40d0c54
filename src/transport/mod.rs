//! Where requests come from.
pub mod endpoint;
pub use endpoint::Endpoint;
