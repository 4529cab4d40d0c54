//! What is shown of a [`Record`](super::record::Record).
