//! Where the traffic of Services goes: EndpointSlices, the older Endpoints, and the slices that mirror
//! Endpoints that people wrote.

pub mod legacy;
pub mod members;
pub mod mirror;
pub mod plan;
pub mod services;
pub mod slices;
#[cfg(test)]
mod tests;
mod topology;
mod trigger;
