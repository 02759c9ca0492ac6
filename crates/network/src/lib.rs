//! The network of a node: pod addresses and routes, Services, DNS.
//!
//! Everything here works in the network namespace that the calling process is in already; nothing ever
//! enters another one but a pod's, and that only on a short-lived thread of its own. The kernel is spoken
//! to over netlink alone: no program is run. The API is seen through `krate-client` alone.

pub mod addr;
pub mod dns;
pub mod link;
pub mod netlink;
pub mod nft;
pub mod proxy;
pub mod views;

pub use addr::Cidr;
pub use dns::Dns;
pub use link::PodNetwork;
pub use link::routes::Routes;
pub use proxy::Proxy;
