//! A cluster for unit tests: the in-memory API, all or some controllers, and hollow nodes; virtual time.

use crate::env::{Cluster, Context, Env, MANAGER};
use krate_api::meta::{LabelSelector, Time};
use krate_api::types::apps::v1::Deployment;
use krate_api::types::core::v1::{Container, Event, Pod, PodCondition, PodIP, PodTemplateSpec};
use krate_api::{Kind, Object};
use krate_base::metrics::Metrics;
use krate_base::{Clock, Rng, Shutdown, Supervisor, Timestamp};
use krate_client::testing::Fake;
use krate_client::{Api, Transport};
use std::sync::Arc;
use std::time::Duration;

/// When virtual time begins.
pub const START: i64 = 1_800_000_000;

pub struct World {
    pub fake: Fake,
    pub env: Env,
    pub context: Context,
}

impl World {
    /// An empty cluster with these controllers.
    #[must_use]
    pub fn new(controllers: &[fn(&Env)]) -> Self {
        Self::with(Cluster::default(), controllers)
    }

    #[must_use]
    pub fn with(cluster: Cluster, controllers: &[fn(&Env)]) -> Self {
        let clock = Clock::starting_at(Timestamp::from_second(START).expect("a valid second"));
        let rng = Rng::from_seed(7);
        let fake = Fake::new(clock.clone(), rng.clone());
        let transport = fake.transport();
        let context = Context {
            transports: Arc::new(move |_| transport.clone()),
            clock,
            rng,
            metrics: Metrics::default(),
            supervisor: Supervisor::new(Shutdown::new()),
            elect: false,
            identity: "test".to_owned(),
            cluster,
            resources: tokio::sync::watch::channel(Arc::new(krate_api::Catalogue::builtin())).1,
            storage: Some(crate::volume::provisioner::testing::storage()),
            sign: Some(Arc::new(|token| format!("token of {}/{}", token.namespace, token.account))),
            certify: None,
        };
        let env = Env::new(&context, context.supervisor.clone());
        for start in controllers {
            start(&env);
        }
        Self { fake, env, context }
    }

    #[must_use]
    pub fn api<K: Kind>(&self) -> Api<K> {
        Api::new(self.transport())
    }

    #[must_use]
    pub fn transport(&self) -> Arc<dyn Transport> {
        (self.context.transports)(MANAGER)
    }

    /// Lets everybody work until nobody has anything to do.
    pub async fn settle(&self) {
        self.pass(5).await;
    }

    pub async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// The names of a kind's objects.
    #[must_use]
    pub fn names<K: Kind>(&self) -> Vec<String> {
        self.fake.list::<K>().iter().map(|o| o.meta().name.clone().unwrap_or_default()).collect()
    }

    /// Events as `Reason message`, ordered by object and time.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        let text = |e: &Arc<Event>| {
            format!("{} {}", e.reason.as_deref().unwrap_or(""), e.message.as_deref().unwrap_or(""))
        };
        self.fake.list::<Event>().iter().map(text).collect()
    }

    /// Binds and runs every pod that has no phase yet; they are ready at once.
    pub fn run_pods(&self) {
        for pod in self.fake.list::<Pod>() {
            let done = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending") != "Pending";
            if !done && pod.metadata.deletion_timestamp.is_none() {
                self.set_ready(&pod, true);
            }
        }
    }

    /// Runs pods as they come, says of those that run that they are ready whoever wrote otherwise, and ends them
    /// when they are deleted, until the test ends.
    pub fn kubelet(&self) {
        let (fake, env) = (self.fake.clone(), self.env.clone());
        let world = Self { fake, env, context: self.context.clone() };
        tokio::spawn(async move {
            loop {
                world.pass(1).await;
                world.run_pods();
                world.say_again();
                world.finish_deletions();
            }
        });
    }

    /// Who takes a node for lost writes that its pods are not ready; the node knows better.
    fn say_again(&self) {
        let ready = |pod: &Pod| {
            let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
            conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
        };
        for pod in self.fake.list::<Pod>() {
            let runs = pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"));
            if runs && !ready(&pod) && pod.metadata.deletion_timestamp.is_none() {
                self.set_ready(&pod, true);
            }
        }
    }

    /// Ends pods that were asked to end.
    pub fn finish_deletions(&self) {
        for pod in self.fake.list::<Pod>() {
            if pod.metadata.deletion_timestamp.is_some()
                && pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)
            {
                let meta = &pod.metadata;
                self.fake.remove::<Pod>(
                    meta.namespace.as_deref().unwrap_or_default(),
                    meta.name.as_deref().unwrap_or_default(),
                );
            }
        }
    }

    /// Binds a pod, runs it, and says whether it is ready.
    pub fn set_ready(&self, pod: &Pod, ready: bool) {
        let mut pod = pod.clone();
        let spec = pod.spec.get_or_insert_default();
        spec.node_name.get_or_insert_with(|| "node-1".to_owned());
        let status = pod.status.get_or_insert_default();
        status.phase = Some("Running".to_owned());
        let ip = format!("10.244.0.{}", 2 + self.fake.revision() % 250);
        let ip = status.pod_ip.get_or_insert(ip).clone();
        status.pod_ips = Some(vec![PodIP { ip }]);
        let now = Time(self.context.clock.now_seconds());
        status.conditions = Some(vec![PodCondition {
            type_: "Ready".to_owned(),
            status: if ready { "True" } else { "False" }.to_owned(),
            last_transition_time: Some(now),
            ..PodCondition::default()
        }]);
        self.fake.put(&pod);
    }
}

/// A template with one container, labelled `app=<app>`.
#[must_use]
pub fn template(app: &str, image: &str) -> PodTemplateSpec {
    let mut template = PodTemplateSpec::default();
    template.metadata.get_or_insert_default().labels = Some([("app".to_owned(), app.to_owned())].into());
    template.spec.get_or_insert_default().containers =
        vec![Container { name: "main".to_owned(), image: Some(image.to_owned()), ..Container::default() }];
    template
}

/// The selector `app=<app>`.
#[must_use]
pub fn selector(app: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([("app".to_owned(), app.to_owned())].into()), ..Default::default() }
}

/// A Deployment in `default` as the API would have defaulted it.
#[must_use]
pub fn deployment(name: &str, replicas: i32) -> Deployment {
    let mut object = Deployment::default();
    named(&mut object, name);
    let spec = object.spec.get_or_insert_default();
    spec.replicas = Some(replicas);
    spec.selector = selector(name);
    spec.template = template(name, "nginx:1");
    spec.revision_history_limit = Some(10);
    spec.progress_deadline_seconds = Some(600);
    let quarter =
        || Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String("25%".to_owned()));
    let strategy = spec.strategy.get_or_insert_default();
    strategy.type_ = Some("RollingUpdate".to_owned());
    let rolling = strategy.rolling_update.get_or_insert_default();
    rolling.max_surge = quarter();
    rolling.max_unavailable = quarter();
    object
}

/// Gives an object a name in `default`.
pub fn named(object: &mut dyn Object, name: &str) {
    object.meta_mut().name = Some(name.to_owned());
    object.meta_mut().namespace = Some("default".to_owned());
}
