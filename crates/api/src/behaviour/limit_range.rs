//! LimitRanges.

use super::check::{self, Check, entries};
use super::fill::{self, Resources};
use super::{Behaviour, Typed, names, resources};
use crate::field::{Error, Errors, Path};
use crate::quantity::Quantity;
use crate::types::core::v1::{LimitRange, LimitRangeItem};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub fn behaviour() -> Arc<dyn Behaviour> {
    Arc::new(Typed::<LimitRange> {
        default,
        validate,
        validate_update: |_, new, _| validate(new),
        check_name: names::subdomain_name,
        ..Default::default()
    })
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

fn validate(range: &LimitRange) -> Errors {
    let mut errors = Errors::new();
    let Some(spec) = &range.spec else { return errors };
    let mut seen = BTreeSet::new();
    for (i, item) in spec.limits.iter().enumerate() {
        let path = Path::new("spec").child("limits").index(i);
        let kind = &item.type_;
        let faults = names::qualified_name(kind);
        let at = path.child("type");
        let standard = ["Pod", "Container", "PersistentVolumeClaim"].contains(&kind.as_str());
        if faults.is_empty() && !kind.contains('/') && !standard {
            errors.invalid(&at, kind, "must be a standard limit type or fully qualified");
        }
        errors.faults(&at, kind, faults);
        if !seen.insert(kind) {
            errors.push(Error::duplicate(&at, kind));
        }
        validate_item(&mut errors, &path, item);
    }
    errors
}

fn validate_item(errors: &mut Errors, path: &Path, item: &LimitRangeItem) {
    let pod = item.type_ == "Pod";
    let list = |errors: &mut Errors, field: &str, given: Option<&Resources>| {
        let mut amounts = BTreeMap::new();
        for (name, text) in entries(given) {
            let path = path.child(field).key(name);
            if matches!(item.type_.as_str(), "Pod" | "Container") {
                resources::container_name(errors, &path, name);
            } else {
                resources::name(errors, &path, name);
            }
            if let Some(amount) = check::quantity(errors, &path, text) {
                amounts.insert(name.clone(), amount);
            }
        }
        amounts
    };
    let (max, min) = (list(errors, "max", item.max.as_ref()), list(errors, "min", item.min.as_ref()));
    let (mut limits, mut requests) = (BTreeMap::new(), BTreeMap::new());
    if !pod {
        limits = list(errors, "default", item.default.as_ref());
        requests = list(errors, "defaultRequest", item.default_request.as_ref());
    }
    for (field, given) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
        if pod && given.as_ref().is_some_and(|g| !g.is_empty()) {
            errors.forbidden(&path.child(field), "may not be specified when `type` is 'Pod'");
        }
    }
    if item.type_ == "PersistentVolumeClaim" && !min.contains_key("storage") && !max.contains_key("storage") {
        let text = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(Error::required(&path.child("limits"), text));
    }
    let ratios = list(errors, "maxLimitRequestRatio", item.max_limit_request_ratio.as_ref());
    let names: BTreeSet<&String> =
        [&max, &min, &limits, &requests, &ratios].into_iter().flat_map(BTreeMap::keys).collect();
    for name in names {
        let (max, min) = (max.get(name), min.get(name));
        let (limit, request) = (limits.get(name), requests.get(name));
        compare(
            errors,
            path,
            name,
            &[
                ("min", min, "min value", min, "max value", max),
                ("defaultRequest", request, "min value", min, "default request value", request),
                ("defaultRequest", request, "default request value", request, "max value", max),
                ("defaultRequest", request, "default request value", request, "default limit value", limit),
                ("default", min, "min value", min, "default value", limit),
                ("default", max, "default value", limit, "max value", max),
            ],
        );
        if let Some(ratio) = ratios.get(name) {
            validate_ratio(errors, &path.child("maxLimitRequestRatio").key(name), ratio, min, max);
        }
        if let (Some(limit), Some(request)) = (limit, request)
            && !resources::allows_overcommit(name)
            && limit != request
        {
            let text =
                format!("default value {limit} must equal to defaultRequest value {request} in {name}");
            errors.invalid(&path.child("defaultRequest").key(name), &request.to_string(), &text);
        }
    }
}

/// A field, the value shown, and two amounts of which the first must not exceed the second, with their names.
type Rule<'a> = (&'a str, Option<&'a Quantity>, &'a str, Option<&'a Quantity>, &'a str, Option<&'a Quantity>);

fn compare(errors: &mut Errors, path: &Path, name: &str, rules: &[Rule<'_>]) {
    for (field, shown, low_name, low, high_name, high) in rules {
        if let (Some(shown), Some(low), Some(high)) = (shown, low, high)
            && low > high
        {
            let text = format!("{low_name} {low} is greater than {high_name} {high}");
            errors.invalid(&path.child(field).key(name), &shown.to_string(), &text);
        }
    }
}

fn validate_ratio(
    errors: &mut Errors,
    path: &Path,
    ratio: &Quantity,
    min: Option<&Quantity>,
    max: Option<&Quantity>,
) {
    if *ratio < Quantity::new(1, Default::default()) {
        errors.invalid(path, &ratio.to_string(), &format!("ratio {ratio} is less than 1"));
    }
    if let (Some(min), Some(max)) = (min, max) {
        let most = max.to_f64() / min.to_f64();
        if ratio.to_f64() > most {
            let text = format!("ratio {ratio} is greater than max/min = {most:.6}");
            errors.invalid(path, &ratio.to_string(), &text);
        }
    }
}
