//! The holder of one node's namespaces: network, mounts, host name. It makes them, joins the node's link to
//! the fabric and then only waits, so that the node's own process can be killed and started again.

use super::fabric::{BRIDGE, connect, index_of, up};
use super::process;
use super::state::{FABRIC_GATEWAY, FABRIC_PREFIX};
use crate::cli::{self, Egress};
use crate::ui::{Explain, Outcome};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Name of the node's link to the fabric, inside the node.
pub const UPLINK: &str = "eth0";

/// Folders of the host that each node has its own of.
const PRIVATE: &[(&str, &str)] = &[("log", "/var/log"), ("run", "/run")];

/// The process: never returns but by an error or a signal.
pub fn run(args: &cli::NodeHolder) -> Outcome<()> {
    process::detach();
    krate_base::telemetry::init("info");
    let next = "Run as root, on a kernel with network, mount and UTS namespaces.";
    let fabric = File::open(format!("/proc/{}/ns/net", args.fabric))
        .explain("the fabric is gone", "Run `krate up` again.")?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .explain("the node's namespaces cannot be made", next)?;
    nix::unistd::sethostname(&args.node_name).explain("the node's host name cannot be set", next)?;
    own_mounts(&args.data_dir).explain("the node's mounts cannot be made", next)?;
    link(&args.node_name, args.address, &fabric).explain("the node cannot be linked to the others", next)?;
    if args.egress == Egress::Nat {
        way_out(&args.data_dir).explain("the node's way out cannot be made", next)?;
    }
    process::notify_ready();
    loop {
        nix::unistd::pause();
    }
}

/// Keeps what the node mounts to itself, and gives it folders of its own for logs and sockets.
fn own_mounts(data_dir: &Path) -> std::io::Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    for (own, target) in PRIVATE {
        let source = data_dir.join(own);
        std::fs::create_dir_all(&source)?;
        if Path::new(target).is_dir() {
            mount(Some(&source), *target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
        }
    }
    Ok(())
}

/// Sends what is for elsewhere to the fabric, which also resolves names.
fn way_out(data_dir: &Path) -> std::io::Result<()> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(FABRIC_GATEWAY).build();
    block_on(async { connect()?.route().add(route).execute().await })?;
    let source = data_dir.join("resolv.conf");
    std::fs::write(&source, format!("nameserver {FABRIC_GATEWAY}\n"))?;
    let none: Option<&str> = None;
    // The file behind a link, since a mount on a link is not possible.
    let target = std::fs::canonicalize("/etc/resolv.conf")?;
    Ok(mount(Some(&source), &target, none, MsFlags::MS_BIND, none)?)
}

/// Makes the pair of links in the fabric and moves one end here. A netlink socket belongs to the namespace of
/// the thread that opened it, so each side has a thread of its own.
fn link(node: &str, address: IpAddr, fabric: &File) -> std::io::Result<()> {
    let here = File::open("/proc/self/ns/net")?;
    let name = format!("v{node}").chars().take(15).collect::<String>();
    let temporary = format!("p{node}").chars().take(15).collect::<String>();
    std::thread::scope(|scope| {
        let outside = scope.spawn(|| -> std::io::Result<()> {
            setns(fabric, CloneFlags::CLONE_NEWNET)?;
            block_on(async {
                let handle = connect()?;
                // What a holder that was killed left is replaced.
                if let Ok(old) = index_of(&handle, &name).await {
                    handle.link().del(old).execute().await?;
                }
                handle.link().add(LinkVeth::new(&name, &temporary).build()).execute().await?;
                let bridge = index_of(&handle, BRIDGE).await?;
                let outer = LinkUnspec::new_with_name(&name).controller(bridge).up().build();
                handle.link().set(outer).execute().await?;
                let inner = LinkUnspec::new_with_name(&temporary).setns_by_fd(here.as_raw_fd()).build();
                handle.link().set(inner).execute().await
            })
        });
        outside.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread in the fabric panicked")))
    })?;
    block_on(async {
        let handle = connect()?;
        up(&handle, "lo").await?;
        let index = index_of(&handle, &temporary).await?;
        handle.link().set(LinkUnspec::new_with_index(index).name(UPLINK).build()).execute().await?;
        handle.address().add(index, address, FABRIC_PREFIX).execute().await?;
        up(&handle, UPLINK).await
    })
}

fn block_on(work: impl Future<Output = Result<(), rtnetlink::Error>>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work).map_err(|error| std::io::Error::other(error.to_string()))
}
