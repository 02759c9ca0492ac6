//! What fails meanwhile: connections, components, nodes, history, the calendar. And how all of that stops.

use crate::World;
use krate_api::types::core::v1::Pod;
use krate_base::Rng;
use krate_testing::{Component, Odds};

const COMPONENTS: [Component; 3] = [Component::Controllers, Component::Scheduler, Component::ApiServer];

pub struct Chaos {
    odds: Odds,
    /// The calendar may not go back behind what leases say, or ahead of what certificates allow.
    jumped: i64,
}

impl Chaos {
    /// A temper for one scenario: each way to fail is absent, rare or frequent.
    pub fn new(rng: &Rng) -> Self {
        let share = |usual: u32| usual * u32::try_from(rng.below(3)).unwrap_or(0);
        let rough = Odds::rough();
        let odds = Odds {
            refuse: share(rough.refuse),
            throttle: share(rough.throttle),
            reset: share(rough.reset),
            lose_answer: share(rough.lose_answer),
            hang: share(rough.hang),
            delay: share(rough.delay),
            conflict: share(rough.conflict),
            stale: 0,
            cut_watches: share(rough.cut_watches),
        };
        Self { odds, jumped: 0 }
    }

    pub async fn step(&mut self, world: &mut World) {
        let at = usize::try_from(world.rng.below(u64::from(crate::NODES))).unwrap_or(0);
        let component = COMPONENTS[usize::try_from(world.rng.below(3)).unwrap_or(0)];
        let what = match world.rng.below(14) {
            0 | 1 => {
                world.cluster.faults.everywhere(self.odds);
                format!("requests fail: {:?}", self.odds)
            }
            2 => {
                world.cluster.faults.heal();
                "requests work".to_owned()
            }
            3 => {
                world.cluster.faults.cut_watches("");
                "all watches are cut".to_owned()
            }
            4 => {
                world.cluster.compact().await.unwrap();
                world.cluster.faults.cut_watches("");
                "history is forgotten, all watches are cut".to_owned()
            }
            5 | 6 => {
                world.cluster.kill(component).await;
                format!("{component:?} is killed")
            }
            7 | 8 => {
                self.revive_all(world).await;
                "all components run".to_owned()
            }
            9 => {
                world.nodes[at].vanish().await;
                format!("node-{} vanishes", at + 1)
            }
            10 => {
                world.nodes[at].come_back();
                world.nodes[at].recover();
                format!("node-{} is back", at + 1)
            }
            11 => {
                world.nodes[at].fail();
                format!("node-{} is ill", at + 1)
            }
            12 => {
                world.nodes[at].restart().await;
                format!("kubelet of node-{} restarts", at + 1)
            }
            _ => self.jump(world),
        };
        world.note(format!("chaos: {what}"));
    }

    fn jump(&mut self, world: &World) -> String {
        let seconds = i64::try_from(world.rng.below(60)).unwrap_or(0) - 20;
        self.jumped += seconds;
        world.cluster.clock.step(jump(seconds));
        format!("the calendar jumps by {seconds} s")
    }

    async fn revive_all(&self, world: &mut World) {
        for component in [Component::ApiServer, Component::Controllers, Component::Scheduler] {
            world.cluster.revive(component).await.unwrap();
        }
    }

    /// Everything works from now on.
    pub async fn stop(&mut self, world: &mut World) {
        world.cluster.faults.heal();
        self.revive_all(world).await;
        for node in &world.nodes {
            node.come_back();
            node.recover();
        }
        let pods = world.cluster.of::<Pod>().list("", Default::default()).await.unwrap();
        for pod in pods.items {
            world.cluster.stage.order(&pod, |play| play.unready = false);
        }
        let done = world.cluster.faults.done();
        world.note(format!("chaos ends; it did {done:?}"));
    }
}

fn jump(seconds: i64) -> jiff::SignedDuration {
    jiff::SignedDuration::from_secs(seconds)
}
