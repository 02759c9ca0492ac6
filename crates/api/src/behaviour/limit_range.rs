//! LimitRanges.

use super::fill;
use super::{Behaviour, Typed, names};
use crate::types::core::v1::{LimitRange, LimitRangeItem};
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<LimitRange> { default, check_name: names::subdomain_name, ..Default::default() })
}

fn default(range: &mut LimitRange) {
    for item in &mut range.spec.get_or_insert_default().limits {
        let lists = [&mut item.max, &mut item.min, &mut item.default, &mut item.default_request];
        lists.into_iter().chain([&mut item.max_limit_request_ratio]).for_each(fill::resources);
        if item.type_ == "Container" {
            default_item(item);
        }
    }
}

fn default_item(item: &mut LimitRangeItem) {
    let limits = item.default.get_or_insert_default();
    for (name, max) in item.max.iter().flatten() {
        limits.entry(name.clone()).or_insert_with(|| max.clone());
    }
    let requests = item.default_request.get_or_insert_default();
    for (name, amount) in limits.iter().chain(item.min.iter().flatten()) {
        requests.entry(name.clone()).or_insert_with(|| amount.clone());
    }
    item.default.take_if(|l| l.is_empty());
    item.default_request.take_if(|l| l.is_empty());
}
