//! Counts requests, under the original's names: `apiserver_request_total` and
//! `apiserver_request_duration_seconds`. A request finds the series of its like without making their labels.

use crate::path::Info;
use krate_base::metrics::{Histogram, Metrics, Value};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Upper bounds of request durations, seconds.
const DURATIONS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// What tells the series of requests apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Like<'a> {
    verb: &'static str,
    scope: &'static str,
    code: u16,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
}

/// The series of one sort of request.
struct Series {
    of: [String; 4],
    verb: &'static str,
    scope: &'static str,
    code: u16,
    total: Value,
    /// Watches have none: they last as long as somebody watches.
    duration: Option<Histogram>,
}

/// The request metrics of one server.
pub(crate) struct Meter {
    metrics: Metrics,
    hasher: RandomState,
    /// By the hash of what they are of.
    series: RwLock<HashMap<u64, Vec<Series>>>,
}

impl Meter {
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, hasher: RandomState::new(), series: RwLock::default() }
    }

    /// Counts a request that was answered with `code`.
    pub fn count(&self, info: &Info, code: u16, took: Duration) {
        let like = Like::of(info, code);
        let hash = self.hasher.hash_one(like);
        if let Some(series) = self.series.read().get(&hash).and_then(|all| all.iter().find(|s| s.is(&like))) {
            return series.count(took);
        }
        let mut all = self.series.write();
        let bucket = all.entry(hash).or_default();
        match bucket.iter().find(|s| s.is(&like)) {
            Some(series) => series.count(took),
            None => {
                let series = Series::new(&self.metrics, &like);
                series.count(took);
                bucket.push(series);
            }
        }
    }
}

impl<'a> Like<'a> {
    fn of(info: &'a Info, code: u16) -> Self {
        let verb = match info.verb.as_str() {
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" => "POST",
            "update" => "PUT",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            _ => "other",
        };
        let scope = match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
            (false, _, _) => "",
            (_, false, _) => "resource",
            (_, true, false) => "namespace",
            (_, true, true) => "cluster",
        };
        // What does not exist has no series of its own, or anybody could make as many as they like.
        let [group, version, resource, subresource] = if info.is_resource && code != 404 {
            [&info.group, &info.version, &info.resource, &info.subresource].map(String::as_str)
        } else {
            [""; 4]
        };
        Self { verb, scope, code, group, version, resource, subresource }
    }
}

impl Series {
    fn new(metrics: &Metrics, like: &Like<'_>) -> Self {
        let of = [like.group, like.version, like.resource, like.subresource].map(str::to_owned);
        let [group, version, resource, subresource] = of.clone();
        let mut labels = vec![
            ("component", "apiserver".to_owned()),
            ("dry_run", String::new()),
            ("group", group),
            ("resource", resource),
            ("scope", like.scope.to_owned()),
            ("subresource", subresource),
            ("verb", like.verb.to_owned()),
            ("version", version),
        ];
        let help =
            "Response latency distribution in seconds for each verb, group, version, resource and scope.";
        let duration = (like.verb != "WATCH").then(|| {
            metrics.histogram("apiserver_request_duration_seconds", help, DURATIONS, labels.clone())
        });
        labels.insert(0, ("code", like.code.to_string()));
        let help = "Requests by verb, resource, scope and code.";
        let total = metrics.counter("apiserver_request_total", help, labels);
        Self { of, verb: like.verb, scope: like.scope, code: like.code, total, duration }
    }

    fn is(&self, like: &Like<'_>) -> bool {
        let named = self.of.each_ref().map(String::as_str);
        named == [like.group, like.version, like.resource, like.subresource]
            && (self.verb, self.scope, self.code) == (like.verb, like.scope, like.code)
    }

    fn count(&self, took: Duration) {
        self.total.add(1.0);
        if let Some(duration) = &self.duration {
            duration.observe(took.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_a_kind_share_their_series() {
        let metrics = Metrics::default();
        let meter = Meter::new(metrics.clone());
        let info = |verb: &str, name: &str| Info {
            is_resource: true,
            verb: verb.into(),
            version: "v1".into(),
            resource: "pods".into(),
            namespace: "a".into(),
            name: name.into(),
            ..Info::default()
        };
        for (verb, name, code) in
            [("get", "x", 200), ("get", "y", 200), ("get", "z", 404), ("watch", "", 200)]
        {
            meter.count(&info(verb, name), code, Duration::from_millis(1));
        }
        let text = metrics.render();
        let total = |labels: &str| {
            text.lines().find(|l| l.starts_with("apiserver_request_total") && l.contains(labels))
        };
        assert!(total("verb=\"GET\",version=\"v1\"").is_some_and(|l| l.ends_with(" 2")), "{text}");
        assert!(total("code=\"404\"").is_some_and(|l| l.contains("resource=\"\"")), "{text}");
        assert!(total("verb=\"WATCH\"").is_some_and(|l| l.contains("scope=\"namespace\"")), "{text}");
        assert!(!text.contains("duration_seconds_count{component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"namespace\""), "{text}");
    }
}
