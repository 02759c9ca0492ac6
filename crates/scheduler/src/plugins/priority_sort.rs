//! Sorts waiting pods by priority; those of one priority are taken in the order in which they came.

use crate::framework::Plugin;
use crate::view::PodView;
use std::cmp::Ordering;

pub struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }

    fn compare(&self, a: &PodView, b: &PodView) -> Option<Ordering> {
        Some(b.priority.cmp(&a.priority))
    }
}
