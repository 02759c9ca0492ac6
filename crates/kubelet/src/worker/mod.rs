//! The worker of one pod: a small state machine that is woken by events and does one step at a time.
//!
//! A step reads what the runtime has of the pod, computes a plan, carries it out and says how the pod is.
//! Whatever takes long (a pull, a hook, a container's last seconds) goes on beside the worker and wakes it
//! when it is done, so that a step never waits for more than the runtime. A pod goes from running over
//! ending to ended and never back.

mod ending;
mod images;
mod mailbox;
mod messages;
mod probing;
mod resizing;
mod restarting;
mod running;
mod sandbox;
mod start;
mod stop;

pub use mailbox::{Mailbox, News};

use crate::context::Context;
use crate::observed::PodRuntime;
use crate::probe::Results;
use crate::resize::{Given, Pending};
use crate::spec;
use crate::status::{self, Inputs, Verdict, Waiting};
use crate::sync::backoff::Backoff;
use crate::volumes::SetUp;
use krate_api::types::core::v1::{Pod, PodStatus};
use krate_base::{Shutdown, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Pause after the runtime or the disk failed.
const RETRY: Duration = Duration::from_secs(1);

/// How far the pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its containers are kept running.
    Running,
    /// Its containers are being stopped.
    Ending,
    /// Nothing of it runs; what it left waits for its deletion from the API.
    Ended,
    /// Nothing of it is left.
    Gone,
}

/// When to look again if nothing happens before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Next(Option<Timestamp>);

impl Next {
    fn at(self, other: Option<Timestamp>) -> Self {
        Self([self.0, other].into_iter().flatten().min())
    }
}

pub struct Worker {
    context: Arc<Context>,
    mailbox: Mailbox,
    shutdown: Shutdown,
    pod: Arc<Pod>,
    stage: Stage,
    /// The status published last.
    last: PodStatus,
    gone: bool,
    verdict: Option<Verdict>,
    /// Why containers do not run, by name.
    waiting: BTreeMap<String, Waiting>,
    /// Containers that were stopped to be replaced, and start again whatever their policy says.
    forced: BTreeSet<String>,
    /// Why all containers are being ended to start again.
    restarting: Option<String>,
    restarts: Backoff,
    /// Starts that failed without a container: not before this time again, by name.
    hold: BTreeMap<String, Timestamp>,
    images: images::Progress,
    probes: probing::Probes,
    results: watch::Sender<Results>,
    stops: stop::Stops,
    /// Containers whose postStart hook runs, by id.
    hooks: BTreeMap<String, String>,
    messages: messages::Messages,
    volumes: Option<SetUp>,
    volumes_changed: bool,
    /// When a failed mount or sandbox may be tried again, and the pause that led there.
    retry: HashMap<&'static str, (Timestamp, Duration)>,
    /// When the containers' grace ends.
    ends_at: Option<Timestamp>,
    /// What the containers were given, why more has to wait, and why a change failed.
    given: Given,
    pending: Option<Pending>,
    resize_error: Option<String>,
    /// A resize has begun and its end was not told yet.
    resizing: bool,
}

impl Worker {
    pub fn new(context: Arc<Context>, pod: Arc<Pod>, mailbox: Mailbox, shutdown: Shutdown) -> Self {
        let last = pod.status.clone().unwrap_or_default();
        let seed = probing::seed(&last);
        let given = Given::published(&last);
        let restarting = Self::begun_restart(&last);
        Self {
            context,
            mailbox,
            shutdown,
            pod,
            stage: Stage::Running,
            last,
            gone: false,
            verdict: None,
            waiting: BTreeMap::new(),
            forced: BTreeSet::new(),
            restarting,
            restarts: Backoff::default(),
            hold: BTreeMap::new(),
            images: images::Progress::default(),
            probes: probing::Probes::default(),
            results: watch::Sender::new(seed),
            stops: stop::Stops::default(),
            hooks: BTreeMap::new(),
            messages: messages::Messages::default(),
            volumes: None,
            volumes_changed: false,
            retry: HashMap::new(),
            ends_at: None,
            given,
            pending: None,
            resize_error: None,
            resizing: false,
        }
    }

    /// Works until nothing of the pod is left, or the kubelet ends. Containers go on running then.
    pub async fn run(mut self) {
        self.context.references.hold(&self.pod, &self.reference_waker());
        loop {
            self.absorb(self.mailbox.take());
            let next = self.step().await;
            if self.stage == Stage::Gone {
                return;
            }
            let (mailbox, shutdown) = (self.mailbox.clone(), self.shutdown.clone());
            tokio::select! {
                () = mailbox.changed() => {}
                () = self.sleep_until(next.0) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn reference_waker(&self) -> crate::references::Wake {
        let mailbox = self.mailbox.clone();
        Arc::new(move || mailbox.leave(|news| news.references = true))
    }

    async fn sleep_until(&self, at: Option<Timestamp>) {
        let Some(at) = at else { return std::future::pending().await };
        let left = Duration::try_from(at.duration_since(self.now())).unwrap_or_default();
        tokio::time::sleep(left).await;
    }

    fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    fn uid(&self) -> &str {
        spec::uid(&self.pod)
    }

    fn after(&self, pause: Duration) -> Option<Timestamp> {
        self.now().checked_add(pause).ok()
    }

    /// Takes in what has come.
    fn absorb(&mut self, news: News) {
        if let Some(pod) = news.pod {
            // The downward API shows labels and annotations.
            self.volumes_changed |= pod.metadata.labels != self.pod.metadata.labels
                || pod.metadata.annotations != self.pod.metadata.annotations;
            let respecified = pod.spec != self.pod.spec;
            // It shows amounts, too.
            self.volumes_changed |= !crate::resize::allocate::asks_the_same(&pod, &self.pod);
            let before = std::mem::replace(&mut self.pod, pod);
            if respecified {
                self.forget_old_images(&before);
                self.context.references.hold(&self.pod, &self.reference_waker());
            }
        }
        if let Some(pending) = news.pending {
            self.note_pending(pending);
        }
        self.gone |= news.gone;
        if news.verdict.is_some() && self.stage == Stage::Running {
            self.verdict = news.verdict;
        }
        if news.references {
            self.volumes_changed = true;
            // A container that could not be configured may be now.
            self.hold.clear();
            self.retry.remove("mount");
        }
        for (name, result) in news.pulls {
            self.pulled(&name, result);
        }
        for (id, result) in news.hooks {
            self.hook_ended(&id, result);
        }
        for (id, result) in news.stops {
            self.stop_ended(&id, result);
        }
    }

    /// What was found out about the image of a container does not hold for another image.
    fn forget_old_images(&mut self, before: &Pod) {
        let changed: Vec<String> = spec::containers(&self.pod)
            .iter()
            .chain(spec::init_containers(&self.pod))
            .filter(|c| spec::find_container(before, &c.name).is_some_and(|(_, old)| old.image != c.image))
            .map(|c| c.name.clone())
            .collect();
        for name in changed {
            self.images.used(&name);
            self.hold.remove(&name);
            self.waiting.remove(&name);
        }
    }

    async fn step(&mut self) -> Next {
        let runtime = match self.observe().await {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::warn!(pod = %spec::describe(&self.pod), %error, "the runtime cannot be asked now");
                return Next(self.after(RETRY));
            }
        };
        if self.stage == Stage::Running && self.must_end() {
            return self.begin_ending(runtime).await;
        }
        match self.stage {
            Stage::Running => self.keep_running(runtime).await,
            Stage::Ending => self.keep_ending(runtime).await,
            Stage::Ended => self.keep_ended(runtime).await,
            Stage::Gone => Next::default(),
        }
    }

    /// What the runtime has of the pod now, with the words its containers left.
    async fn observe(&mut self) -> krate_runtime::cri::Result<PodRuntime> {
        let mut runtime = PodRuntime::read(&*self.context.runtime, self.uid()).await?;
        self.messages.fill_in(&mut runtime).await;
        self.update_probes(&runtime);
        Ok(runtime)
    }

    /// Why the pod is to end, other than by itself.
    fn must_end(&mut self) -> bool {
        if self.verdict.is_none()
            && self.stage == Stage::Running
            && self.deadline().is_some_and(|at| at <= self.now())
        {
            let message = "Pod was active on the node longer than the specified deadline";
            self.context.recorder.normal(&crate::events::about(&self.pod), crate::events::DEADLINE, message);
            let reason = crate::events::DEADLINE.to_owned();
            self.verdict = Some(Verdict { reason, message: message.to_owned(), ..Verdict::default() });
        }
        self.gone || self.verdict.is_some() || spec::is_deleting(&self.pod) || spec::is_terminal(&self.pod)
    }

    /// When the pod has been active for as long as it may.
    fn deadline(&self) -> Option<Timestamp> {
        let seconds = u64::try_from(spec::spec(&self.pod).active_deadline_seconds?).ok()?;
        let start = self.last.start_time.as_ref()?.0;
        start.checked_add(Duration::from_secs(seconds)).ok()
    }

    /// Computes the status and has it written.
    fn publish(&mut self, runtime: &PodRuntime) {
        let status = self.status(runtime);
        self.context.publisher.publish(&self.pod, &status, false);
        self.last = status;
    }

    fn status(&self, runtime: &PodRuntime) -> PodStatus {
        let mut old = self.last.clone();
        // Others' conditions as they are now: readiness gates look at them.
        let owned = |type_: &str| status::conditions::OWNED.contains(&type_);
        let mine = old.conditions.take().into_iter().flatten().filter(|c| owned(&c.type_));
        let theirs =
            self.pod.status.iter().flat_map(|s| s.conditions.iter().flatten()).filter(|c| !owned(&c.type_));
        old.conditions = Some(mine.chain(theirs.cloned()).collect());
        status::compute(&Inputs {
            pod: &self.pod,
            old: &old,
            runtime,
            probes: &self.results.borrow(),
            waiting: &self.waiting,
            forced: &self.forced,
            restarting: self.restarting.as_deref(),
            node_ips: &self.context.node_ips,
            now: self.context.clock.now_seconds(),
            ending: self.stage != Stage::Running,
            ended: self.stage == Stage::Ended,
            verdict: self.verdict.as_ref(),
            resize: status::Resize {
                given: &self.given,
                pending: self.pending.as_ref(),
                error: self.resize_error.as_deref(),
            },
        })
    }

    /// Notes a failure of `what`; when to try again. The pause doubles up to two minutes.
    fn failed(&mut self, what: &'static str) -> Timestamp {
        const FIRST: Duration = Duration::from_millis(500);
        const LONGEST: Duration = Duration::from_secs(122);
        let pause = self.retry.get(what).map_or(FIRST, |(_, pause)| (*pause * 2).min(LONGEST));
        let at = self.after(pause).unwrap_or_else(|| self.now());
        self.retry.insert(what, (at, pause));
        at
    }

    /// When `what`, which failed, may be tried again, if that is not yet.
    fn held(&self, what: &'static str) -> Option<Timestamp> {
        self.retry.get(what).map(|(at, _)| *at).filter(|at| self.now() < *at)
    }
}
