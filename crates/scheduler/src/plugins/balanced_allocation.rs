//! Prefers nodes on which the pod would leave the resources equally used.

use crate::framework::{MAX_SCORE, NodeScore, Plugin};
use crate::plugins::Settings;
use crate::table::{NodeInfo, Slot, Table};
use crate::view::PodView;

pub struct BalancedAllocation {
    balanced: Vec<(String, i64)>,
}

impl BalancedAllocation {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { balanced: settings.balanced.clone() }
    }
}

struct Score<'a> {
    pod: &'a PodView,
    balanced: &'a [(String, i64)],
}

impl NodeScore for Score<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let mut shares = [0.0; 8];
        let mut count = 0;
        for (name, _) in self.balanced.iter().take(shares.len()) {
            let has = node.view.allocatable.get(name);
            let is_scalar = !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
            if has == 0 || (is_scalar && self.pod.requests.get(name) == 0) {
                continue;
            }
            let used = node.requested.get(name) + self.pod.requests.get(name);
            shares[count] = (used as f64 / has as f64).min(1.0);
            count += 1;
        }
        ((1.0 - deviation(&shares[..count])) * MAX_SCORE as f64) as i64
    }
}

/// Standard deviation of shares.
fn deviation(shares: &[f64]) -> f64 {
    match shares {
        [] | [_] => 0.0,
        [a, b] => ((a - b) / 2.0).abs(),
        many => {
            let mean = many.iter().sum::<f64>() / many.len() as f64;
            (many.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / many.len() as f64).sqrt()
        }
    }
}

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score<'a>(&'a self, pod: &'a PodView, _: &'a Table, _: &[Slot]) -> Option<Box<dyn NodeScore + 'a>> {
        // a pod that asks for nothing leaves every node as it is
        let asks = self.balanced.iter().any(|(name, _)| pod.requests.get(name) > 0);
        asks.then(|| Box::new(Score { pod, balanced: &self.balanced }) as Box<dyn NodeScore>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn equal_use_is_best() {
        let plugin = BalancedAllocation::new(&Settings::default());
        let node = NodeInfo::new(node("n").cpu(1000).memory(1000).view());
        let score = |cpu, memory| {
            let pod = pod("a").cpu(cpu).memory(memory).view();
            plugin.score(&pod, &Table::default(), &[]).map(|score| score.score(&node))
        };
        assert_eq!(score(500, 500), Some(100));
        assert_eq!(score(1000, 0), Some(50));
        assert_eq!(score(700, 500), Some(90));
        assert_eq!(score(0, 0), None);
    }
}
