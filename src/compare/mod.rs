//! Servers side by side under the same load: how many processes and threads each has, what that costs, and
//! what the clients feel.

pub mod record;
pub mod report;
pub mod stats;
