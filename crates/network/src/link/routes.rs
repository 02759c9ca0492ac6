//! Routes to the other nodes' pods: which there should be ([`plan`]), what to change ([`diff`]).
//!
//! [`Routes`] does it as Nodes come and go. Pods of another node are reached over that node's own address, so the nodes must share a link.

use super::rtnl::{Route, Rtnl};
use super::{Error, netns};
use crate::addr::Cidr;
use krate_api::types::core::v1::Node;
use krate_base::{Rng, Shutdown};
use krate_client::{Informer, Informers, Source};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// First pause before a route that the kernel refused is tried again; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What the routes need to know of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    pub name: String,
    pub pod_cidrs: Vec<Cidr>,
    /// Its addresses of type InternalIP.
    pub internal_ips: Vec<IpAddr>,
    pub zone: Option<String>,
    /// It is being removed: balancers should send it no new connections.
    pub leaves: bool,
}

/// A change to the routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Add(Route),
    Delete(Route),
}

/// The routes that node `own` needs: one for each range of every other node, over that node's address of
/// the same family. A node without a range or an address of the family has none yet.
pub fn plan<'a>(own: &str, nodes: impl IntoIterator<Item = &'a NodeView>) -> BTreeSet<Route> {
    let mut routes = BTreeSet::new();
    for node in nodes.into_iter().filter(|n| n.name != own) {
        for to in &node.pod_cidrs {
            let via = node.internal_ips.iter().find(|ip| ip.is_ipv4() == to.base().is_ipv4());
            routes.extend(via.map(|via| Route { to: *to, via: *via }));
        }
    }
    routes
}

/// What leads from the present routes to the wanted ones. A range that moves to another node is replaced
/// by adding, which the kernel does in one step; only ranges that nobody has any more are deleted.
#[must_use]
pub fn diff(current: &BTreeSet<Route>, wanted: &BTreeSet<Route>) -> Vec<Change> {
    let kept: BTreeSet<Cidr> = wanted.iter().map(|r| r.to).collect();
    let gone = current.iter().filter(|r| !kept.contains(&r.to)).cloned().map(Change::Delete);
    gone.chain(wanted.difference(current).cloned().map(Change::Add)).collect()
}

/// Makes the kernel's routes to other nodes the wanted ones. One that fails does not hold up the others:
/// all failures are returned.
pub async fn apply(wanted: BTreeSet<Route>) -> Result<Vec<Error>, Error> {
    netns::here(move || {
        let rtnl = Rtnl::open()?;
        let current = rtnl.our_routes()?.into_iter().collect();
        let results = diff(&current, &wanted).into_iter().map(|change| match change {
            Change::Add(route) => rtnl.add_route(&route),
            Change::Delete(route) => rtnl.delete_route(&route),
        });
        Ok(results.filter_map(Result::err).collect())
    })
    .await
}

/// Keeps the routes of node `own` as the Nodes ask for, until shutdown.
pub struct Routes {
    own: String,
    nodes: Informer<NodeView>,
    rng: Rng,
    changed: Arc<Notify>,
}

impl Routes {
    #[must_use]
    pub fn new(own: &str, informers: &Informers, rng: Rng) -> Self {
        let nodes = informers.get::<NodeView>(Source::of::<Node>());
        let changed = Arc::new(Notify::new());
        let told = changed.clone();
        nodes.subscribe(move |old, new| {
            // Nodes report all the time; what concerns routes changes rarely.
            if old != new {
                told.notify_one();
            }
        });
        Self { own: own.to_owned(), nodes, rng, changed }
    }

    /// Runs until shutdown. The routes stay, as the pods do.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        shutdown.run_until_cancelled(self.follow()).await.unwrap_or(Ok(()))
    }

    async fn follow(&self) -> Result<(), Error> {
        self.nodes.synced().await;
        let mut pause = RETRY_FIRST;
        loop {
            let nodes = self.nodes.list();
            let failed = apply(plan(&self.own, nodes.iter().map(|n| &**n))).await?;
            if failed.is_empty() {
                pause = RETRY_FIRST;
                self.changed.notified().await;
                continue;
            }
            for error in failed {
                tracing::warn!(%error, "a route to another node's pods is missing; it will be tried again");
            }
            let retry = tokio::time::sleep(self.rng.jitter(pause, 1.0));
            tokio::select! {
                () = retry => pause = (pause * 2).min(RETRY_MAX),
                () = self.changed.notified() => pause = RETRY_FIRST,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cidr: &str, ip: &str) -> NodeView {
        NodeView {
            name: name.into(),
            pod_cidrs: vec![cidr.parse().unwrap()],
            internal_ips: vec!["fd00::1".parse().unwrap(), ip.parse().unwrap()],
            ..NodeView::default()
        }
    }

    fn route(to: &str, via: &str) -> Route {
        Route { to: to.parse().unwrap(), via: via.parse().unwrap() }
    }

    #[test]
    fn every_other_node_has_a_route_over_its_address() {
        let nodes = [
            node("a", "10.244.0.0/24", "172.18.0.2"),
            node("b", "10.244.1.0/24", "172.18.0.3"),
            NodeView { name: "new".into(), ..NodeView::default() },
        ];
        assert_eq!(plan("a", &nodes), BTreeSet::from([route("10.244.1.0/24", "172.18.0.3")]));
    }

    #[test]
    fn a_moved_range_is_replaced_and_a_lost_one_deleted() {
        let current = BTreeSet::from([
            route("10.244.1.0/24", "172.18.0.3"),
            route("10.244.2.0/24", "172.18.0.4"),
            route("10.244.3.0/24", "172.18.0.5"),
        ]);
        let wanted =
            BTreeSet::from([route("10.244.1.0/24", "172.18.0.9"), route("10.244.2.0/24", "172.18.0.4")]);
        assert_eq!(
            diff(&current, &wanted),
            [
                Change::Delete(route("10.244.3.0/24", "172.18.0.5")),
                Change::Add(route("10.244.1.0/24", "172.18.0.9")),
            ]
        );
    }
}
