//! Prefers nodes that have the pod's images already, the more so the larger and the more widespread they
//! are.

use crate::framework::{MAX_SCORE, NodeScore, Plugin};
use crate::table::{NodeInfo, Slot, Table};
use crate::view::PodView;

const MB: i64 = 1024 * 1024;
/// Below this many bytes images make no difference.
const MIN: i64 = 23 * MB;
/// Bytes of images per container beyond which there is no difference any more.
const MAX_PER_CONTAINER: i64 = 1000 * MB;

pub struct ImageLocality;

struct Score<'a> {
    pod: &'a PodView,
    table: &'a Table,
}

impl NodeScore for Score<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let (nodes, images) = (self.table.len().max(1) as f64, &self.pod.images);
        if node.view.images.is_empty() || images.is_empty() {
            return 0;
        }
        let spread = |name: &str| self.table.spread_of_image(name) as f64 / nodes;
        let sum: i64 = (images.iter())
            .filter_map(|name| node.view.images.get(name).map(|size| (*size as f64 * spread(name)) as i64))
            .sum();
        let max = MAX_PER_CONTAINER * images.len() as i64;
        MAX_SCORE * (sum.clamp(MIN, max) - MIN) / (max - MIN)
    }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn score<'a>(
        &'a self,
        pod: &'a PodView,
        table: &'a Table,
        _: &[Slot],
    ) -> Option<Box<dyn NodeScore + 'a>> {
        Some(Box::new(Score { pod, table }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn large_images_that_are_there_already_count() {
        let mut table = Table::default();
        table.set_node(node("a").image("nginx:1", 500 * MB).view());
        table.set_node(node("b").image("nginx:1", 500 * MB).view());
        table.set_node(node("c").image("tiny:1", MB).view());
        let score = |image: &str, name: &str| {
            let pod = pod("p").image(image).view();
            let score = Score { pod: &pod, table: &table };
            score.score(table.get(name).unwrap())
        };
        let spread = (500.0 * MB as f64 * (2.0 / 3.0)) as i64;
        assert_eq!(score("nginx:1", "a"), 100 * (spread - MIN) / (MAX_PER_CONTAINER - MIN));
        assert_eq!(score("nginx:1", "c"), 0);
        assert_eq!(score("tiny:1", "c"), 0, "too small to matter");
    }
}
