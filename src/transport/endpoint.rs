//! Endpoints.
/// x
pub struct Endpoint;
