//! The ServiceCIDRs: each is Ready, and stays as long as Services have addresses that no other one covers.
//!
//! A deletion that has to wait says so in the condition, and ends by itself when the last such address is gone.

use crate::env::{Env, synced};
use crate::meta::{self, Slim};
use crate::node_ipam::Cidr;
use krate_api::Status;
use krate_api::meta::{Condition, Time};
use krate_api::types::networking::v1::{IPAddress, ServiceCIDR};
use krate_base::Clock;
use krate_client::{Api, Informer, Outcome, Queue, Source};
use std::sync::Arc;

const ACCOUNT: &str = "service-cidrs-controller";
const WORKERS: usize = 1;
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const READY: &str = "Ready";

struct Controller {
    api: Api<ServiceCIDR>,
    cidrs: Informer<ServiceCIDR>,
    /// Of an address the name says all.
    addresses: Informer<Slim>,
    clock: Clock,
}

pub fn start(env: &Env) {
    let cidrs = env.informers.of::<ServiceCIDR>();
    let addresses = env.informers.get::<Slim>(Source::of::<IPAddress>());
    let queue: Queue = env.queue("servicecidrs");
    let (q, all) = (queue.clone(), cidrs.clone());
    cidrs.subscribe(move |old, new| {
        // Another range may be what a deletion waited for.
        deleting(&all).for_each(|key| q.add(key));
        if let Some(cidr) = new.or(old) {
            q.add(meta::key(&cidr.metadata));
        }
    });
    let (q, all) = (queue.clone(), cidrs.clone());
    addresses.subscribe(move |_, new| {
        if new.is_none() {
            deleting(&all).for_each(|key| q.add(key));
        }
    });
    let controller = Arc::new(Controller {
        api: env.api(ACCOUNT),
        cidrs: cidrs.clone(),
        addresses: addresses.clone(),
        clock: env.clock.clone(),
    });
    env.run(&queue, WORKERS, synced!(cidrs, addresses), move |key: String| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

fn deleting(cidrs: &Informer<ServiceCIDR>) -> impl Iterator<Item = String> + use<> {
    let all = cidrs.list().into_iter().filter(|c| c.metadata.deletion_timestamp.is_some());
    all.map(|c| meta::key(&c.metadata))
}

impl Controller {
    async fn reconcile(&self, name: &str) -> Result<Outcome, Status> {
        let Some(cidr) = self.cidrs.get(name) else { return Ok(Outcome::Done) };
        if cidr.metadata.deletion_timestamp.is_none() {
            if !has_finalizer(&cidr) {
                self.edit(name, |c| c.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned()))
                    .await?;
            }
            if ready(&cidr).is_none_or(|c| c.status != "True") {
                self.tell(name, "True", "", "Kubernetes Service CIDR is ready").await?;
            }
        } else if self.is_needed(&cidr) {
            let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or \
                           create a new ServiceCIDR";
            self.tell(name, "False", "Terminating", message).await?;
        } else if has_finalizer(&cidr) {
            self.edit(name, |c| c.metadata.finalizers.get_or_insert_default().retain(|f| f != FINALIZER))
                .await?;
        }
        Ok(Outcome::Done)
    }

    /// Whether an address would be in no range any more.
    fn is_needed(&self, cidr: &ServiceCIDR) -> bool {
        let others = self.cidrs.list();
        let others: Vec<Cidr> = others
            .iter()
            .filter(|c| c.metadata.uid != cidr.metadata.uid && c.metadata.deletion_timestamp.is_none())
            .flat_map(|c| ranges(c))
            .collect();
        let own = ranges(cidr);
        let orphan = |address: &String| {
            let Ok(ip) = address.parse() else { return false };
            own.iter().any(|r| r.contains(ip)) && !others.iter().any(|r| r.contains(ip))
        };
        self.addresses.keys().iter().any(orphan)
    }

    async fn edit(&self, name: &str, change: impl Fn(&mut ServiceCIDR) + Send + Sync) -> Result<(), Status> {
        let result = self.api.modify("", name, |cidr| {
            let before = cidr.metadata.finalizers.clone();
            change(cidr);
            before != cidr.metadata.finalizers
        });
        gone_is_done(result.await)
    }

    async fn tell(&self, name: &str, status: &str, reason: &str, message: &str) -> Result<(), Status> {
        let now = Time(self.clock.now_seconds());
        let result = self.api.modify_status("", name, |cidr| {
            let conditions = cidr.status.get_or_insert_default().conditions.get_or_insert_default();
            let old = conditions.iter().find(|c| c.type_ == READY);
            if old.is_some_and(|c| c.status == status && c.reason == reason && c.message == message) {
                return false;
            }
            conditions.retain(|c| c.type_ != READY);
            conditions.push(Condition {
                type_: READY.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message: message.to_owned(),
                last_transition_time: now.clone(),
                observed_generation: None,
            });
            true
        });
        gone_is_done(result.await)
    }
}

fn gone_is_done<T>(result: Result<T, Status>) -> Result<(), Status> {
    match result {
        Err(status) if status.is_not_found() => Ok(()),
        result => result.map(drop),
    }
}

fn has_finalizer(cidr: &ServiceCIDR) -> bool {
    cidr.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

fn ready(cidr: &ServiceCIDR) -> Option<&Condition> {
    cidr.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == READY)
}

fn ranges(cidr: &ServiceCIDR) -> Vec<Cidr> {
    let texts = cidr.spec.as_ref().and_then(|s| s.cidrs.as_deref()).unwrap_or_default();
    texts.iter().filter_map(|t| Cidr::parse(t)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;
    use krate_api::meta::DeleteOptions;

    fn cidr(name: &str, range: &str) -> ServiceCIDR {
        let mut cidr = ServiceCIDR::default();
        cidr.metadata.name = Some(name.to_owned());
        cidr.spec.get_or_insert_default().cidrs = Some(vec![range.to_owned()]);
        cidr
    }

    fn state(w: &World, name: &str) -> Option<(bool, String)> {
        let cidr = w.fake.get::<ServiceCIDR>("", name)?;
        Some((has_finalizer(&cidr), ready(&cidr).map(|c| c.status.clone()).unwrap_or_default()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_range_stays_until_its_addresses_are_gone_or_covered() {
        let w = World::new(&[start]);
        w.fake.put(&cidr("small", "10.96.0.0/28"));
        w.fake.put(&cidr("large", "10.97.0.0/16"));
        let mut address = IPAddress::default();
        address.metadata.name = Some("10.96.0.5".to_owned());
        w.fake.put(&address);
        w.settle().await;
        assert_eq!(state(&w, "small"), Some((true, "True".to_owned())));
        for name in ["small", "large"] {
            w.api::<ServiceCIDR>().delete("", name, DeleteOptions::default()).await.unwrap();
        }
        w.settle().await;
        assert_eq!(state(&w, "large"), None, "nobody has an address of it");
        assert_eq!(state(&w, "small"), Some((true, "False".to_owned())));
        w.fake.put(&cidr("cover", "10.96.0.0/24"));
        w.settle().await;
        assert_eq!(state(&w, "small"), None);
    }
}
