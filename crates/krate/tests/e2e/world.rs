//! A world of the test's own: namespaces in which it may start what programs the network that it is in, or
//! what speaks to addresses outside of the cluster. Nothing leaves it.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// The one address of this world beside its loopback's; of the range that is for documentation.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

const LOOPBACK: u32 = 1;

/// Gives this thread, and what it starts, a network that ends at its loopback, on which there is [`OUTSIDE`]
/// too, and mounts of its own.
pub fn enter() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    kernel(async |handle| {
        let up = rtnetlink::LinkUnspec::new_with_index(LOOPBACK).up().build();
        handle.link().set(up).execute().await.unwrap();
        handle.address().add(LOOPBACK, IpAddr::V4(OUTSIDE), 32).execute().await.unwrap();
    });
}

/// Gives this world a default route, which leads nowhere: what a host tells its address by.
pub fn add_default_route() {
    kernel(async |handle| {
        let route = rtnetlink::RouteMessageBuilder::<Ipv4Addr>::new().output_interface(LOOPBACK);
        handle.route().add(route.pref_source(OUTSIDE).build()).execute().await.unwrap();
    });
}

/// Speaks to this thread's network.
fn kernel(work: impl AsyncFnOnce(rtnetlink::Handle)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        work(handle).await;
    });
}

/// Shows `source` in the place of `target`, in this world only.
pub fn bind(source: &Path, target: &str) {
    let none: Option<&str> = None;
    let target = std::fs::canonicalize(target).unwrap();
    mount(Some(source), &target, none, MsFlags::MS_BIND, none).unwrap();
}
